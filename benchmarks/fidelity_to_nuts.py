"""How near every approximate posterior is to NUTS on its own log joint, on linear, sinusoid and logistic tasks.

Each learner is meta-trained briefly, adapts to 8 held-out tasks of 10 points, and is compared with NUTS on the log
joint of its own model: what is measured is inference, not how good the model is. iMAML's posteriors, LLAMA and BMAML
share one theta (network, precision, noise), so that one reference serves all; of LLAMA and BMAML, what is left of theta
(rates, particles) is meta-trained after. MAML and its kin have no explicit prior: their reference has the prior that
their steps on this support imply (`implied_prior`). LR-D2's model is its logistic head, with the prior that its ridge
is.

The main column is KL, nats a point from the reference's predictive to the approximation's. The weights of a network can
be permuted and change sign: columns of phi mean something on the linear and logistic tasks alone, where f is linear in
phi (and of CAVIA, whose context may turn over, not even there). "another run" is a second run of NUTS on iMAML's model:
the noise of all columns.

Left out: ALPaCA, its mixture, R2-D2 for numbers and deep kernel transfer for numbers are exact. R2-D2 and deep kernels
for labels are exact for the Gaussian likelihood of their labels, and MetaOptNet's hinge is no likelihood: the
calibrated softmax that all three predict with is not the predictive of a phi.
"""

import argparse
import copy
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

import bayesmeta as bm
from bayesmeta.checks.reference import fidelity
from bayesmeta.data import Data
from bayesmeta.errors import ConvergenceWarning
from bayesmeta.inference.nuts import NUTS
from bayesmeta.inference.nuts_metric import DenseMetric
from bayesmeta.learner import TaskPosterior
from bayesmeta.learners.gradient.base import AscentLearner
from bayesmeta.typing import LogJoint, Params
from bayesmeta.wrappers.sampled import DrawsPosterior, Sampled
from benchmarks._report import verdict

TASKS, SUPPORT, QUERY = 8, 10, 10
SAMPLER = NUTS(num_chains=8, num_draws=75, num_warmup=150, metric=DenseMetric(), max_depth=6)


class Linear(bm.tasks.Simulator):
    """y = a x + b + ε."""

    def __init__(self) -> None: ...

    def simulate(self, num_tasks: int, num_points: int, generator: torch.Generator) -> Data:
        """Slopes and levels ~ N(0, 1), noise of deviation 0.3."""
        x = torch.rand(num_tasks, num_points, 1, generator=generator) * 4 - 2
        a, b = torch.randn(2, num_tasks, 1, 1, generator=generator)
        y = a * x + b + 0.3 * torch.randn(x.shape, generator=generator)
        return Data(x, y, torch.ones(x.shape[:2], dtype=torch.bool))


class Logistic(bm.tasks.Simulator):
    """y ~ Bernoulli(sigmoid(aᵀx + b))."""

    def __init__(self) -> None: ...

    def simulate(self, num_tasks: int, num_points: int, generator: torch.Generator) -> Data:
        """Coefficients ~ N(0, 2²), x ~ N(0, I) in two dimensions."""
        x = torch.randn(num_tasks, num_points, 2, generator=generator)
        a, b = 2.0 * torch.randn(num_tasks, 2, 1, generator=generator), torch.randn(num_tasks, 1, generator=generator)
        uniform = torch.rand(num_tasks, num_points, generator=generator)
        y = (uniform < torch.sigmoid((x @ a)[..., 0] + b)).long()
        return Data(x, y, torch.ones(y.shape, dtype=torch.bool))


@dataclass(frozen=True)
class Family:
    """Tasks, and the networks that learn them."""

    tasks: Callable[[], bm.tasks.Simulator]
    network: Callable[[], bm.MLP]
    likelihood: Callable[[], bm.likelihoods.Likelihood]
    adapted: tuple[str, ...] | None  # None: all weights
    labels: bool = False


FAMILIES = {
    "linear": Family(
        Linear, lambda: bm.MLP(1, [6]), lambda: bm.likelihoods.Gaussian(bm.noise.DiagonalNoise(1, 0.1)), ("output",)
    ),
    "sinusoid": Family(
        lambda: bm.tasks.Sinusoid(amplitude=(0.5, 1.5), x=(-3.0, 3.0), noise=0.2),
        lambda: bm.MLP(1, [6]),
        lambda: bm.likelihoods.Gaussian(bm.noise.DiagonalNoise(1, 0.1)),
        None,
    ),
    "logistic": Family(Logistic, lambda: bm.MLP(2, [6]), bm.likelihoods.Bernoulli, ("output",), labels=True),
}


class UnderImpliedPrior(bm.ExplicitLearner):
    """The model under which the steps of MAML and its kin on this support are MAP: N(theta, Q) and p(y | phi)."""

    def __init__(self, learner: AscentLearner) -> None:
        super().__init__()
        self.learner = learner
        self.likelihood, self.x_shape, self.outcomes = learner.likelihood, learner.x_shape, learner.outcomes
        self.prior: bm.priors.Prior = bm.priors.IsotropicGaussian(
            {k: v.detach() for k, v in learner.initial.items()}, 10.0
        )

    def forward(self, phi: Params, x: Float[Tensor, "B M *x"]) -> Float[Tensor, "*s B M K"]:
        """f(x; phi)."""
        return self.learner(phi, x)

    def joint(self, data: Data) -> LogJoint:
        """log p(y | phi) + log N(phi; theta, Q), up to a constant."""
        likelihood, prior = self.learner.log_likelihood(data), self.learner.implied_prior(data)
        loss = 1.0 / (prior.steps + prior.excess) - 1.0 / prior.steps  # of precision, along the seen directions

        def log_joint(phi: Params) -> Tensor:
            parts = [(phi[name] - mean).flatten(phi[name].ndim - mean.ndim) for name, mean in prior.mean.items()]
            white = torch.cat(parts, -1) / prior.scale
            along = (white[..., None, :] @ prior.directions)[..., 0, :]
            return likelihood(phi) - 0.5 * (white.square().sum(-1) / prior.steps + (loss * along.square()).sum(-1))

        return log_joint

    def condition(self, support: Data) -> TaskPosterior:
        raise NotImplementedError


class LogisticHead(bm.ExplicitLearner):
    """LR-D2's model: W ~ N(0, I / ridge), y ~ Categorical(softmax(Wᵀ h(x))), with every class counting alike."""

    def __init__(self, learner: bm.LRD2) -> None:
        super().__init__()
        num_classes = learner.outcomes.count
        assert num_classes is not None
        self.features, self.x_shape, self.outcomes = learner.features, learner.x_shape, learner.outcomes
        zeros = torch.zeros(learner.features.num_outputs, num_classes, dtype=torch.float64)
        self.prior: bm.priors.Prior = bm.priors.IsotropicGaussian({"weight": zeros}, learner.head.ridge().item())
        self.likelihood: bm.likelihoods.Likelihood = bm.likelihoods.Categorical(num_classes)

    def forward(self, phi: Params, x: Float[Tensor, "B M *x"]) -> Float[Tensor, "*s B M K"]:
        """h(x) W."""
        return self.features(x).to(phi["weight"].dtype) @ phi["weight"]

    def joint(self, data: Data) -> LogJoint:
        """log p(y | x, phi) of points that count as the head has them, and log p(phi)."""
        labels = torch.where(data.mask, data.y, 0)
        weights = bm.heads.Examples.of(data.x.flatten(2), labels, data.mask, self.outcomes.count).weights

        def log_joint(phi: Params) -> Tensor:
            log_probs = self.forward(phi, data.x).log_softmax(-1)
            each = log_probs.gather(-1, labels[..., None].expand(*log_probs.shape[:-1], 1))[..., 0]
            return (weights * each).sum(-1) + self.prior.log_prob(phi)

        return log_joint

    def condition(self, support: Data) -> TaskPosterior:
        raise NotImplementedError


def trained(learner: bm.Learner, family: Family, steps: int) -> bm.Learner:
    """Meta-trained briefly, then in float64."""
    split, objective = bm.tasks.RandomSplit((1, 12), 10), bm.training.MarginalPredictive()
    bm.fit(learner, family.tasks(), steps, batch_size=20, lr=1e-2, split=split, objective=objective, progress=False)
    return learner.double()


def models(family: Family, steps: int) -> Iterator[tuple[bm.ExplicitLearner, dict[str, bm.Learner]]]:
    """Models that NUTS can sample, each with the learners whose posterior approximates that of the model."""
    torch.manual_seed(0)
    common = {"likelihood": family.likelihood(), "adapted": family.adapted}
    imaml = bm.IMAML(
        family.network(),
        precision=5.0,
        solver=bm.inference.LBFGS(40, 1e-6),
        gauss_newton=True,
        solve_steps=20,
        **common,
    )
    trained(imaml, family, steps)
    precision = imaml.prior.precision().item()

    def same(make: Callable[..., bm.Learner], **arguments: object) -> bm.Learner:
        """iMAML's theta, copied; what it has beyond it is trained."""
        network, likelihood = copy.deepcopy(imaml.network).float(), copy.deepcopy(imaml.likelihood).float()
        learner = make(network, precision=precision, likelihood=likelihood, adapted=family.adapted, **arguments)
        for part in (learner.network, learner.likelihood, learner.prior):
            part.requires_grad_(False)
        return trained(learner, family, steps // 2)

    found: dict[str, bm.Learner] = {}
    for posterior in (bm.Linearized(), bm.LinearizedDiagonal(), bm.PointEstimate()):
        learner = copy.copy(imaml)
        learner.posterior = posterior
        found[f"iMAML, {type(posterior).__name__}"] = learner
    if family.labels:
        learner = copy.copy(imaml)
        learner.posterior = bm.Linearized(draws=500)
        found["iMAML, Linearized by draws"] = learner
    found["LLAMA"] = same(bm.LLAMA)
    found["BMAML"] = same(bm.BMAML, num_particles=5, steps=10, lr=0.2)
    yield imaml, found

    network = bm.MLP((imaml.x_shape or (1,))[0], [10])
    cavia = bm.CAVIA(network, num_context=2, steps=10, lr=0.5, likelihood=family.likelihood())
    trained(cavia, family, 2 * steps)
    point = copy.copy(cavia)
    point.posterior = bm.PointEstimate()
    yield cavia, {"CAVIA, Linearized": cavia, "CAVIA, PointEstimate": point}

    if family.labels:
        head = trained(bm.LRD2(bm.MLP(2, [6]), num_classes=2), family, steps)
        assert isinstance(head, bm.LRD2)
        laplace = copy.deepcopy(head)
        for positive in (laplace.scale, laplace.spread):
            positive.set(1.0)
        with torch.no_grad():  # and without a prior of classes
            laplace.scarcity.zero_()
            laplace.class_prior.location.zero_()
            laplace.class_prior.concentration.set(9e5)
        yield LogisticHead(head), {"LR-D2, scale 1, spread 1": laplace, "LR-D2, as trained": head}

    for make in (bm.MAML, bm.MetaSGD, bm.MAMLPlusPlus, bm.AlphaMAML):
        start = {"likelihood": family.likelihood(), "adapted": family.adapted}
        maml = trained(make(family.network(), steps=5, lr=0.05, **start), family, steps)
        point = copy.copy(maml)
        point.posterior = bm.PointEstimate()
        yield UnderImpliedPrior(maml), {make.__name__: maml, f"{make.__name__}, PointEstimate": point}


def sampled(model: bm.ExplicitLearner, support: Data, seed: int) -> DrawsPosterior:
    """NUTS on the model's log joint; R-hat is in the table, in place of warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        posterior = Sampled(model, SAMPLER, seed).adapt(support)
    assert isinstance(posterior, DrawsPosterior)
    return posterior


def row(label: str, frame: pd.DataFrame) -> str:
    """Averages over tasks, and the largest KL at a point."""
    mean = frame.mean()
    text = f"{label:<28}{mean['predictive_kl']:>10.2g}{frame['predictive_kl_max'].max():>10.2g}"
    if "mean_error" not in frame:
        return f"{text}{'-':>12}{'-':>11}{'-':>18}"
    distance = f"{mean['sliced_wasserstein']:.2f} ({mean['sliced_wasserstein_floor']:.2f})"
    return f"{text}{mean['mean_error']:>12.2f}{mean['log_scale']:>+11.2f}{distance:>18}"


def compare(name: str, family: Family, steps: int, seed: int) -> dict[str, float]:
    """Print one family's table; returns the mean KL of every posterior."""
    data = family.tasks().dataset(TASKS, SUPPORT + QUERY, seed=1).data.to(torch.float64)
    support = Data(*(value[:, :SUPPORT] for value in (data.x, data.y, data.mask)))
    print(f"\n{name}: {TASKS} tasks of {SUPPORT} points, {QUERY} query points each")
    print(
        f"{'posterior':<28}{'KL':>10}{'largest':>10}{'mean error':>12}{'log scale':>11}{'sliced W (floor)':>18}"
        "   NUTS: R-hat, median (largest), time"
    )
    found = {}
    for i, (model, learners) in enumerate(models(family, steps)):
        start = time.perf_counter()
        reference = sampled(model, support, seed)
        seconds = time.perf_counter() - start
        assert reference.chains is not None
        r_hat = reference.chains.worst_r_hat
        note = f"   {r_hat.median():.2f} ({r_hat.max():.2f}), {seconds:.0f} s"
        posteriors = {label: learner.adapt(support) for label, learner in learners.items()}
        if i == 0:
            posteriors = {"NUTS, another run": sampled(model, support, seed + 1)} | posteriors
        for label, posterior in posteriors.items():
            frame = fidelity(posterior, reference, data.x[:, SUPPORT:], num_draws=400).table()
            print(row(label, frame) + note, flush=True)
            found[label], note = frame["predictive_kl"].mean(), ""
    return found


def main() -> None:
    """Train, sample, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", choices=list(FAMILIES), help="one family alone")
    parser.add_argument("--steps", type=int, default=200, help="of meta-training")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    texts = []
    for name, family in FAMILIES.items():
        if arguments.family not in (None, name):
            continue
        found = compare(name, family, arguments.steps, arguments.seed)
        best, worst = min(found, key=lambda k: (k.startswith("NUTS"), found[k])), max(found, key=lambda k: found[k])
        floor = found["NUTS, another run"]
        texts.append(f"{name}: {best} {found[best]:.2g} to {worst} {found[worst]:.2g} (noise {floor:.2g})")
    verdict("mean KL from NUTS, nats a point, smallest to largest: " + "; ".join(texts), arguments.seed)


if __name__ == "__main__":
    main()
