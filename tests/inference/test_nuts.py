"""The no-U-turn sampler against densities whose moments are known, and its diagnostics against ArviZ."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch

import bayesmeta as bm
from bayesmeta.inference.chains import Chains, warn_unless_converged
from bayesmeta.inference.compiled_function import num_programs, recorded
from bayesmeta.inference.diagnostics import effective_draws, split_r_hat
from bayesmeta.inference.nuts import NUTS, nuts
from bayesmeta.inference.nuts_metric import DenseMetric, DiagonalMetric, Metric
from bayesmeta.typing import LogJoint


def _gaussians(num_tasks: int, size: int, seed: int = 0) -> tuple[LogJoint, torch.Tensor, torch.Tensor]:
    """A log joint over two named tensors, the means `B P` and the covariances `B P P`."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(num_tasks, size, size, generator=generator, dtype=torch.float64)
    covariance = root @ root.mT + 0.5 * torch.eye(size, dtype=torch.float64)
    mean = 5.0 * torch.randn(num_tasks, size, generator=generator, dtype=torch.float64)
    precision = torch.linalg.inv(covariance)

    def log_joint(phi: dict[str, torch.Tensor]) -> torch.Tensor:
        apart = torch.cat([phi["a"].flatten(2), phi["b"].flatten(2)], -1) - mean
        return -0.5 * (torch.einsum("sbp,bpq->sbq", apart, precision) * apart).sum(-1)

    return log_joint, mean, covariance


def _start(num_chains: int, num_tasks: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = {"a": (num_chains, num_tasks, 2, 1), "b": (num_chains, num_tasks, 1)}
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


def _draw(log_joint: LogJoint, num_tasks: int = 2, chains: int = 32, seed: int = 0, **settings: object) -> Chains:
    arguments: dict[str, object] = {"num_draws": 50, "num_warmup": 80} | settings
    return nuts(log_joint, _start(chains, num_tasks), generator=torch.Generator().manual_seed(seed), **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("metric", [DiagonalMetric(), DenseMetric()], ids=["diagonal", "dense"])
def test_moments_of_correlated_gaussians(metric: Metric) -> None:
    log_joint, mean, covariance = _gaussians(2, 3)
    chains = _draw(log_joint, metric=metric)
    draws = torch.cat([value.flatten(2) for value in chains.merged.values()], -1)
    assert draws.shape == (32 * 50, 2, 3)
    deviation = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    worth = torch.cat([value.flatten(1) for value in chains.effective_draws.values()], -1)
    # means within 4 of their own Monte Carlo errors, and covariances within 5 of theirs for as many draws
    assert (((draws.mean(0) - mean) / deviation).abs() < 4.0 / worth.sqrt()).all()
    found = torch.stack([draws[:, b].T.cov() for b in range(2)]) / deviation[:, None] / deviation[..., None]
    expected = covariance / deviation[:, None] / deviation[..., None]
    assert (found - expected).abs().max() < 5.0 * (2.0 / worth.min()).sqrt()
    assert chains.worst_r_hat.max() < 1.05
    assert worth.min() > 300.0
    assert 0.7 < chains.acceptance.mean() < 0.99
    assert not chains.divergent.any()


def test_a_dense_metric_needs_shorter_trajectories() -> None:
    log_joint, _, _ = _gaussians(2, 3, seed=3)  # correlations up to .9
    dense, diagonal = (_draw(log_joint, 2, metric=metric) for metric in (DenseMetric(), DiagonalMetric()))
    # .66 to .73 for eight seeds
    assert dense.leapfrogs.mean() < 0.75 * diagonal.leapfrogs.mean()


def test_tails_and_skewness_are_right() -> None:
    """log of a Gamma(3, 1) variable: skewed, and of another scale in each task."""
    scale = torch.tensor([0.1, 1.0, 30.0], dtype=torch.float64)
    log_joint: LogJoint = lambda phi: (lambda u: 3.0 * u - u.exp())(phi["u"] / scale)
    start = {"u": scale.expand(32, 3) * torch.linspace(-1.0, 2.0, 32, dtype=torch.float64)[:, None]}
    chains = nuts(log_joint, start, num_draws=60, num_warmup=80, generator=torch.Generator().manual_seed(2))
    draws = (chains.merged["u"] / scale).exp()
    error = (3.0 / chains.effective_draws["u"]).sqrt()
    assert ((draws.mean(0) - 3.0).abs() < 4.0 * error).all()
    # P(Gamma(3) < 1) = 1 - 5 / (2 e)
    share = (draws < 1.0).double().mean(0)
    assert ((share - (1.0 - 2.5 / np.e)).abs() < 4.0 * (0.08 * 0.92 / chains.effective_draws["u"]).sqrt()).all()
    assert torch.equal(chains.log_joint.flatten(0, 1), log_joint(chains.merged))


def test_the_same_seed_gives_the_same_draws_and_another_others() -> None:
    log_joint, _, _ = _gaussians(2, 3)
    settings = {"num_tasks": 2, "chains": 2, "num_draws": 5, "num_warmup": 20}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bm.ConvergenceWarning)  # ten draws are no sample
        first, again, other = (_draw(log_joint, seed=seed, **settings) for seed in (0, 0, 1))  # type: ignore[arg-type]
    assert torch.equal(first.draws["a"], again.draws["a"])
    assert not torch.equal(first.draws["a"], other.draws["a"])


def test_chains_that_disagree_are_reported() -> None:
    log_joint: LogJoint = lambda phi: torch.logaddexp(
        -0.5 * (phi["u"] - 30.0).square(), -0.5 * (phi["u"] + 30.0).square()
    )
    start = {"u": torch.tensor([[30.0], [-30.0]], dtype=torch.float64)}
    with pytest.warns(
        bm.ConvergenceWarning, match=r"1 of 1 tasks disagree .* try target_acceptance=0\.95.*non-centred"
    ):
        nuts(log_joint, start, num_draws=20, num_warmup=20, generator=torch.Generator().manual_seed(0))


def test_divergent_trajectories_are_reported() -> None:
    """A funnel: no step size is right both in its neck and in its mouth."""

    def log_joint(phi: dict[str, torch.Tensor]) -> torch.Tensor:
        width, others = phi["u"][..., 0], phi["u"][..., 1:]
        return -0.5 * (width / 3.0).square() - 0.5 * (
            others.square() * (-width[..., None]).exp() + width[..., None]
        ).sum(-1)

    start = {"u": torch.randn(16, 1, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)}
    with pytest.warns(bm.ConvergenceWarning, match=r"try target_acceptance=0\.95"):
        chains = nuts(
            log_joint, start, num_draws=20, num_warmup=30, generator=torch.Generator().manual_seed(0), max_depth=6
        )
    assert chains.divergent.mean() > 0.0 or chains.worst_r_hat.max() > 1.1


def test_who_follows_the_advice_is_told_to_go_further() -> None:
    draws = torch.randn(2, 100, 1, generator=torch.Generator().manual_seed(0))
    often = torch.full_like(draws, 0.2)
    with pytest.warns(bm.ConvergenceWarning, match=r"20% .* diverge: .* try a target_acceptance above 0\.95"):
        warn_unless_converged(Chains({"u": draws}, often, often, often, often, torch.ones(1)), 0.95)


def test_the_recording_of_a_step_is_that_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compiled, without compiling it; of a dense metric, and trees of both programs."""
    log_joint, _, _ = _gaussians(2, 3)
    calls = []

    def interpreted(function: Any, inputs: Any, name: str) -> Any:
        graph, values = recorded(function, inputs, name)
        calls.append(len(values))
        return lambda *tensors: graph(*tensors, *values)

    monkeypatch.setattr("bayesmeta.inference.nuts.compiled", interpreted)
    settings = {"num_draws": 5, "num_warmup": 20, "metric": DenseMetric()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bm.ConvergenceWarning)  # ten draws are no sample
        plain, run = (_draw(log_joint, 2, 2, compile=compile, **settings) for compile in (False, True))
    assert calls[0] > 0  # means and precisions are inputs of the recording
    assert (plain.draws["a"] - run.draws["a"]).abs().max() < 1e-9
    assert torch.equal(plain.leapfrogs, run.leapfrogs)


def test_what_looks_at_values_cannot_be_compiled() -> None:
    log_joint: LogJoint = lambda phi: -0.5 * phi["u"].square() * (1.0 if bool((phi["u"] > -1e9).all()) else 2.0)
    start = {"u": torch.randn(4, 2, dtype=torch.float64)}
    with pytest.raises(bm.UnsupportedError, match=r"log joint of nothing but tensor operations.*compile=False"):
        nuts(log_joint, start, num_draws=4, num_warmup=20, compile=True)


@pytest.mark.slow  # it compiles
def test_a_compiled_step_draws_from_the_density_and_serves_other_tasks() -> None:
    for seed in (0, 1):
        log_joint, mean, covariance = _gaussians(2, 3, seed)
        before = num_programs()
        chains = _draw(log_joint, compile=True)
        assert seed == 0 or num_programs() == before  # other values, the same program
        draws = torch.cat([value.flatten(2) for value in chains.merged.values()], -1)
        deviation = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
        worth = torch.cat([value.flatten(1) for value in chains.effective_draws.values()], -1)
        # as eager: means within 4 of their own Monte Carlo errors
        assert (((draws.mean(0) - mean) / deviation).abs() < 4.0 / worth.sqrt()).all()


def test_bad_input() -> None:
    log_joint, _, _ = _gaussians(2, 3)
    for settings in ({"num_draws": 3}, {"num_warmup": 19}, {"target_acceptance": 1.0}, {"max_depth": 0}):
        with pytest.raises(bm.DataError):
            _draw(log_joint, 2, **settings)
    with pytest.raises(bm.DataError, match="two chains"):
        NUTS(num_chains=1)
    broken: LogJoint = lambda phi: torch.where(torch.tensor([False, True]), torch.nan, log_joint(phi))
    with pytest.raises(bm.InferenceError, match="task 1") as raised:
        _draw(broken, 2)
    assert raised.value.task == 1


def test_diagnostics_agree_with_arviz() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        import arviz
    generator = np.random.default_rng(0)
    draws = generator.normal(size=(4, 400, 3))
    draws[:, :, 1] += np.linspace(0, 0.6, 4)[:, None]  # chains that disagree
    for step in range(1, 400):  # an autoregression, and one that swings
        draws[:, step, 2] += 0.7 * draws[:, step - 1, 2]
        draws[:, step, 0] -= 0.4 * draws[:, step - 1, 0]
    hats = split_r_hat(torch.from_numpy(draws))
    worth = effective_draws(torch.from_numpy(draws))
    for i in range(3):
        assert abs(hats[i].item() - float(arviz.rhat(draws[:, :, i], method="split"))) < 1e-6
        # ArviZ keeps one more term of the series
        assert abs(worth[i].item() / float(arviz.ess(draws[:, :, i], method="mean")) - 1.0) < 0.03
