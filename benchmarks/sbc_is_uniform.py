"""Exact posteriors and NUTS are the posterior: their ranks are uniform in simulation-based calibration.

1,000 tasks of 0 to 6 points are simulated from each learner's own prior and likelihood, at a theta off its starting
point, and each truth is ranked among 99 draws; of NUTS among 19, which are chosen from 100 that depend on each other
(two chains of 50, after a warm-up of 100). A learner passes if no quantity's p value (Pearson's chi-square, 20 bins) is
below 0.01 / Q. Quantities are every number of phi, log p(y | phi) and log p(y, phi); of deep kernel transfer, whose phi
is a function, three query outcomes and their joint density. Three posteriors that are known to be wrong are to fail.
"""

import argparse
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

import bayesmeta as bm
from bayesmeta.checks.rank_statistics import RankStatistics, predictive_sbc, sbc
from bayesmeta.errors import ConvergenceWarning
from bayesmeta.inference.nuts import NUTS
from bayesmeta.wrappers.sampled import Sampled
from benchmarks._report import verdict

LEVEL = 0.01
SIMULATIONS = 1000
SAMPLER, DRAWS = NUTS(num_chains=2, num_draws=50, num_warmup=100), 19


def _linear_imaml(posterior: bm.Linearized) -> bm.IMAML:
    """f is linear in phi, so that Laplace is exact."""
    return bm.IMAML(
        bm.MLP(1, [4]),
        precision=1.0,
        solver=bm.inference.LBFGS(100, 1e-10),
        posterior=posterior,
        adapted=["output"],
        solve_tolerance=1e-10,
    )


EXACT: dict[str, tuple[Callable[[], bm.ExplicitLearner], int]] = {
    "ALPaCA": (lambda: bm.ALPaCA(bm.MLP(1, [16, 6])), 1),
    "ALPaCA, diagonal prior": (lambda: bm.ALPaCA(bm.RadialBasis(1, 5), covariance=bm.priors.DiagonalCovariance(6)), 1),
    "ALPaCA, isotropic prior": (lambda: bm.ALPaCA(bm.Polynomial(1, 3), covariance=bm.priors.IsotropicCovariance(4)), 1),
    "ALPaCA, fixed effects": (
        lambda: bm.ALPaCA(bm.Polynomial(1, 3), covariance=bm.priors.FullCovariance(4, varying=[0, 1])),
        1,
    ),
    "ALPaCA, two outputs": (lambda: bm.ALPaCA(bm.MLP(2, [16, 4]), num_outputs=2, noise=bm.noise.FullNoise(2)), 2),
    "MixtureALPaCA": (lambda: bm.MixtureALPaCA(bm.MLP(1, [16, 4]), num_components=3), 1),
    "MixtureALPaCA, two outputs": (
        lambda: bm.MixtureALPaCA(bm.Identity(2), num_components=2, num_outputs=2, noise=bm.noise.FullNoise(2)),
        2,
    ),
    "R2D2Regressor": (lambda: bm.R2D2Regressor(bm.MLP(1, [16, 6])), 1),
    "R2D2Regressor, two outputs": (
        lambda: bm.R2D2Regressor(bm.MLP(2, [16, 4]), num_outputs=2, noise=bm.noise.FullNoise(2)),
        2,
    ),
    "iMAML, f linear in phi": (lambda: _linear_imaml(bm.Linearized()), 1),
}
SAMPLED: dict[str, tuple[Callable[[], bm.ExplicitLearner], int]] = {
    "ALPaCA": (lambda: bm.ALPaCA(bm.MLP(1, [16, 4])), 1),
    "CAVIA": (lambda: bm.CAVIA(bm.MLP(1, [8]), num_context=2), 1),
    "iMAML, Bernoulli": (
        lambda: bm.IMAML(bm.MLP(2, [3]), precision=1.0, likelihood=bm.likelihoods.Bernoulli(), adapted=["output"]),
        2,
    ),
    "iMAML, a network": (
        lambda: bm.IMAML(
            bm.MLP(1, [2]), precision=1.0, likelihood=bm.likelihoods.Gaussian(bm.noise.DiagonalNoise(1, 0.5))
        ),
        1,
    ),
}
WRONG: dict[str, tuple[Callable[[], bm.ExplicitLearner], int]] = {
    "iMAML, f linear, diagonal": (lambda: _linear_imaml(bm.LinearizedDiagonal()), 1),
    "iMAML, a network, Laplace": (SAMPLED["iMAML, a network"][0], 1),
    "BMAML": (lambda: bm.BMAML(bm.MLP(1, [3]), precision=1.0), 1),
}


def off_start(learner: bm.Learner) -> bm.Learner:
    """theta away from its starting point, where means are zero and variances equal; in float64."""
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return learner.double()


def points(size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Inputs of ragged tasks."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(SIMULATIONS, 6, size, generator=generator, dtype=torch.float64) * 4 - 2
    return x, torch.arange(6) < torch.randint(0, 7, (SIMULATIONS, 1), generator=generator)


def report(name: str, judge: str, ranks: RankStatistics, seconds: float) -> bool:
    """One line; whether it passed."""
    table = ranks.table(LEVEL).sort_values("p_value")
    passed = ranks.is_uniform(LEVEL)
    worst = table.iloc[0]
    text = "uniform" if passed else f"{worst.verdict}: width {worst.width:.2f}, offset {worst.offset:+.2f}"
    print(
        f"{name:<28}{judge:<10}{len(table):>4}{worst.p_value:>11.2g}{LEVEL / len(table):>10.2g}  "
        f"{table.index[0]:<22}{text:<46}{seconds:>6.1f} s",
        flush=True,
    )
    return passed


def main() -> None:
    """Simulate, rank, and test."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    seed = parser.parse_args().seed
    torch.set_num_threads(1)
    head = f"{'learner':<28}{'judge':<10}{'Q':>4}{'smallest p':>11}{LEVEL:>6g} / Q  {'there':<22}{'verdict':<46}"
    print(f"{head}{'time':>8}")
    failures, seen = [], []
    for kind, cases in (("exact", EXACT), ("NUTS", SAMPLED), ("wrong", WRONG)):
        for name, (make, size) in cases.items():
            torch.manual_seed(seed)
            learner = off_start(make())
            assert isinstance(learner, bm.ExplicitLearner)
            x, mask = points(size, seed)
            start = time.perf_counter()
            with warnings.catch_warnings():  # of a thousand tasks, some chains disagree by chance
                warnings.simplefilter("ignore", ConvergenceWarning)
                if kind == "NUTS":
                    ranks = sbc(
                        learner,
                        x,
                        mask,
                        judge=Sampled(learner, SAMPLER),
                        num_draws=DRAWS,
                        batch_size=SIMULATIONS,
                        seed=seed,
                    )
                else:
                    ranks = sbc(learner, x, mask, seed=seed)
            passed = report(name, "NUTS" if kind == "NUTS" else "itself", ranks, time.perf_counter() - start)
            (seen if kind == "wrong" else failures).extend([] if passed else [f"{name} ({kind})"])
    torch.manual_seed(seed)
    for name, kernel in (
        ("DeepKernelTransfer", bm.kernels.RBFKernel()),
        ("DeepKernelTransfer, Matérn", bm.kernels.MaternKernel()),
    ):
        learner = off_start(bm.DeepKernelTransfer(bm.MLP(1, [16, 4]), kernel=kernel))
        start = time.perf_counter()
        ranks = predictive_sbc(learner, *points(1, seed)[:1], points(1, seed + 1)[0][:, :3], points(1, seed)[1])
        if not report(name, "itself", ranks, time.perf_counter() - start):
            failures.append(name)
    passed_all = "all exact learners and NUTS are uniform" if not failures else "not uniform: " + ", ".join(failures)
    verdict(f"{passed_all}; of {len(WRONG)} posteriors known to be wrong, {len(seen)} are found", seed)


if __name__ == "__main__":
    main()
