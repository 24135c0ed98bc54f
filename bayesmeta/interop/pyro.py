"""To Pyro: any learner with an explicit prior and likelihood as a program, for Pyro's samplers, guides and diagrams.

    theta                                       sites outside the plates, where theta has a hyperprior; else fixed
    with plate("task", B, dim=-2):
        phi ~ p(phi | theta)                    a site for each named tensor of phi, under its own name
        with plate("point", N, dim=-1), mask:   padding is masked
            y ~ p(y | f(x; phi))                the site "y", observed

    nuts, svi               phi given theta: a posterior like that of `adapt`
    hyper_nuts, hyper_svi   theta and the phi of all tasks together: full Bayes
    prior_predictive        draws of all sites before any data
    render                  the plate diagram

With theta fixed, tasks are independent of each other, and each is sampled, or has a guide, on its own.
"""

import contextlib
import copy
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, reduce, singledispatch
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from pyro import poutine
from pyro.infer.autoguide import AutoGuide, AutoNormal
from pyro.infer.autoguide.initialization import init_to_median, init_to_sample
from pyro.infer.mcmc.util import initialize_model
from pyro.ops.provenance import ProvenanceTensor, get_provenance, track_provenance
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from bayesmeta.data import Data
from bayesmeta.description import Described
from bayesmeta.distributions import seeded
from bayesmeta.errors import DataError, InferenceError, ShapeError, UnsupportedError
from bayesmeta.hyperpriors import Hyperprior
from bayesmeta.inference.diagnostics import effective_draws, split_r_hat
from bayesmeta.inference.nuts import NUTS, Chains, DenseMetric, _warn
from bayesmeta.learner import ExplicitLearner
from bayesmeta.learners.hyper_posterior import HyperPosterior
from bayesmeta.learners.sampled import DrawsPosterior
from bayesmeta.likelihoods import Likelihood
from bayesmeta.noise import Positive
from bayesmeta.priors import DiagonalGaussian, IsotropicGaussian, Prior, StandardNormal
from bayesmeta.typing import Params

NO_SHAPE = torch.Size()

Program = Callable[[Data], Tensor]
"""A Pyro program of the tasks' data; it returns y."""

MakeGuide = Callable[[Program], AutoGuide]
"""What makes a guide of a program: a class of `pyro.infer.autoguide`, or `functools.partial` of one."""


def program(learner: ExplicitLearner, hyperprior: "Mapping[str, Distribution] | Hyperprior | None" = None) -> Program:
    """The hierarchical model of a learner as a Pyro program.

    The log density of its trace is the learner's log joint, summed over tasks, plus that of the hyperprior. Draws of
    phi have leading axes when the program runs in further plates (parallel particles); draws of theta do not.

    Args:
        learner: its theta is read when the program runs, with gradients; it is not put into Pyro's parameter store.
        hyperprior: without it theta is what the learner has. Distributions by the names of parameters, each over the
            parameter as it is stored, or by the name of a `Positive` ("likelihood.noise.value"), over its value; they
            stand in place of the learner's own hyperprior. Or a `Hyperprior`: then all trainable parameters are sites
            without a density of their own, and it is a factor, together with the learner's `log_hyperprior`.

    Returns:
        A function of `Data`.

    Raises:
        UnsupportedError: no explicit prior and likelihood, or (when run) a prior over several tensors that is not known
            here (`phi_distributions.register` it). DataError: a name that the learner does not have.
    """
    if not isinstance(learner, ExplicitLearner):
        raise UnsupportedError(
            f"expected a learner with an explicit prior and likelihood, got {type(learner).__name__}: "
            "there is no model of phi to write down"
        )
    return _program(learner, _theta_sites(learner, hyperprior))


class OwnHyperprior(Hyperprior):
    """What the learner's `log_hyperprior` says, and nothing beyond."""

    def log_prob(self, theta: Params) -> Float[Tensor, ""]:
        """Zero."""
        return torch.zeros(())


@singledispatch
def phi_distributions(prior: Prior) -> dict[str, dist.TorchDistribution]:
    """The distribution of each named tensor of phi under a prior, with gradients in its theta.

    `phi_distributions.register(YourPrior)` teaches it a prior over several tensors. One over a single tensor is known.

    Raises:
        UnsupportedError: the prior is over several tensors, and what it says of each alone is not known.
    """
    means = prior.mean
    if len(means) != 1:
        raise UnsupportedError(
            f"expected a prior over one tensor, or one whose tensors are independent, got {type(prior).__name__} over "
            f"{sorted(means)}: say what distribution each has with phi_distributions.register"
        )
    ((name, mean),) = means.items()
    return {name: _kind_of_prior(type(prior).__name__)(prior, name, mean.shape)}


@phi_distributions.register(IsotropicGaussian)
@phi_distributions.register(DiagonalGaussian)
def _gaussian(prior: IsotropicGaussian | DiagonalGaussian) -> dict[str, dist.TorchDistribution]:
    variances = prior.variance()
    return {
        name: dist.Normal(mean, variances[name].sqrt().expand(mean.shape)).to_event(mean.ndim)
        for name, mean in prior.mean.items()
    }


@phi_distributions.register(StandardNormal)
def _standard_normal(prior: StandardNormal) -> dict[str, dist.TorchDistribution]:
    return {name: dist.Normal(mean, torch.ones_like(mean)).to_event(mean.ndim) for name, mean in prior.mean.items()}


def nuts(
    learner: ExplicitLearner, data: Data, sampler: NUTS | None = None, *, jit_compile: bool = False, seed: int = 0
) -> DrawsPosterior:
    """p(phi | D, theta) by Pyro's no-U-turn sampler, chain by chain and task by task, in float64.

    The reference for `Sampled`, whose sampler runs all tasks and chains at once.

    Args:
        learner: prior, likelihood and network.
        data: the support of the tasks.
        sampler: chains, draws, warm-up, and whether masses are diagonal or dense; 2 chains of 500 draws after 300 of
            warm-up by default. Chains begin at draws from the prior.
        jit_compile: let torch.jit record the log density: two to three times as fast, where it can be.
        seed: of the randomness.

    Returns:
        Draws with their chains. Pyro keeps an acceptance for a chain, not for each draw: all have that of their chain.

    Warns:
        ConvergenceWarning: chains that disagree, or more than 1 in 20 divergent trajectories.

    Raises:
        UnsupportedError: the learner has no explicit prior and likelihood.
    """
    sampler = NUTS(num_chains=2, num_draws=500, num_warmup=300) if sampler is None else sampler
    model, learner, support = _prepared(learner, data, None)
    tasks = []
    with _inference(seed):
        for b in range(support.num_tasks):
            alone = support.select([b])
            tasks.append([_chain(model, alone, sampler, jit_compile) for _ in range(sampler.num_chains)])
    draws = {
        name: torch.stack([torch.stack([chain.sites[name] for chain in task]) for task in tasks], 2)[:, :, :, 0, 0]
        for name in learner.prior.mean
    }
    with torch.no_grad():
        log_joint = learner.log_joint(support)(draws)

    def each(value: Callable[[_Chain], Tensor]) -> Tensor:
        """`chains S B`, or `chains B`."""
        return torch.stack([torch.stack([value(chain) for chain in task]) for task in tasks], -1)

    chains = Chains(
        draws,
        log_joint,
        each(lambda chain: chain.divergent),
        each(lambda chain: chain.acceptance),
        each(lambda chain: chain.leapfrogs),
        each(lambda chain: chain.step_size).log().mean(0).exp(),
    )
    _warn(chains)
    return DrawsPosterior(
        spec=support.spec,
        learner=learner,
        support=support,
        draws=chains.merged,
        again=lambda more: nuts(learner, more, sampler, jit_compile=jit_compile, seed=seed),
        chains=chains,
    )


class TaskGuide(Described, ABC):
    """A family of densities of one task's phi. All tasks have one of their own, and are fitted at once.

    phi is measured in deviations of the prior from its mean.
    """

    @abstractmethod
    def start(self, shape: tuple[int, ...], size: int) -> dict[str, Tensor]:
        """The first free numbers, each `*shape ..`, for densities over vectors of length `size`, P."""

    @abstractmethod
    def distribution(self, free: Mapping[str, Tensor]) -> dist.TorchDistribution:
        """The densities at the free numbers: batch shape `shape`, event shape (P,)."""


class MeanField(TaskGuide):
    """Independent Gaussians. Nearest to a Gaussian of precision Λ is the one with variances 1 / Λ_ii: it is narrower.

    Args:
        scale: the first deviation, in prior deviations.
    """

    def __init__(self, scale: float = 0.1) -> None:
        self.scale = _positive(scale)

    def start(self, shape: tuple[int, ...], size: int) -> dict[str, Tensor]:
        """Means and log deviations."""
        return {"mean": torch.zeros(*shape, size), "log_scale": torch.full((*shape, size), math.log(self.scale))}

    def distribution(self, free: Mapping[str, Tensor]) -> dist.TorchDistribution:
        """N(mean, diag(scale²))."""
        return dist.Normal(free["mean"], free["log_scale"].exp()).to_event(1)


class LowRank(TaskGuide):
    """Gaussians with covariance diag(scale²) + F Fᵀ.

    Args:
        rank: columns of F.
        scale: the first deviation, in prior deviations.
    """

    def __init__(self, rank: int = 2, scale: float = 0.1) -> None:
        if rank < 1:
            raise DataError(f"expected a rank of 1 or more, got {rank}")
        self.rank, self.scale = rank, _positive(scale)

    def start(self, shape: tuple[int, ...], size: int) -> dict[str, Tensor]:
        """Means, log deviations and F, which starts near zero: at zero it has no gradient."""
        factor = 0.1 * self.scale * torch.randn(*shape, size, self.rank)
        return {**MeanField(self.scale).start(shape, size), "factor": factor}

    def distribution(self, free: Mapping[str, Tensor]) -> dist.TorchDistribution:
        """N(mean, diag(scale²) + F Fᵀ)."""
        return dist.LowRankMultivariateNormal(free["mean"], free["factor"], (2.0 * free["log_scale"]).exp())


class FullRank(TaskGuide):
    """Gaussians with any covariance within a task.

    Args:
        scale: the first deviation, in prior deviations.
    """

    def __init__(self, scale: float = 0.1) -> None:
        self.scale = _positive(scale)

    def start(self, shape: tuple[int, ...], size: int) -> dict[str, Tensor]:
        """Means, log diagonals of the Cholesky factors, and what is below, relative to the diagonal of its row."""
        return {**MeanField(self.scale).start(shape, size), "below": torch.zeros(*shape, size, size)}

    def distribution(self, free: Mapping[str, Tensor]) -> dist.TorchDistribution:
        """N(mean, L Lᵀ)."""
        scale = free["log_scale"].exp()
        return dist.MultivariateNormal(
            free["mean"], scale_tril=torch.diag_embed(scale) + scale[..., None] * free["below"].tril(-1)
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class VariationalPosterior(DrawsPosterior):
    """Draws from a guide.

    Attributes:
        elbo: the bound on Σ_t log p(D_t | theta), a noisy estimate at every step, nats.
    """

    elbo: Float[Tensor, "steps"]


def svi(
    learner: ExplicitLearner,
    data: Data,
    guide: TaskGuide | MakeGuide | None = None,
    *,
    steps: int = 1_000,
    lr: float = 0.02,
    num_particles: int = 8,
    num_draws: int = 1_000,
    seed: int = 0,
) -> VariationalPosterior:
    """p(phi | D, theta) by Pyro's stochastic variational inference, in float64.

    Args:
        learner: prior, likelihood and network.
        data: the support of the tasks.
        guide: `FullRank()` by default, `MeanField()` or `LowRank(rank)`: these fit all tasks at once. Or what makes a
            guide of a program: `AutoIAFNormal` (a normalising flow) and other classes of `pyro.infer.autoguide`, which
            are fitted task by task.
        steps: of Adam, with a cosine learning rate.
        lr: first learning rate, in prior deviations for ours.
        num_particles: draws that estimate the bound's gradient.
        num_draws: S, draws from the guide that are kept.
        seed: of the randomness.

    Raises:
        UnsupportedError: the learner has no explicit prior and likelihood. DataError: numbers out of range.
        InferenceError: a bound that is not finite.
    """
    _require_counts(steps, num_particles, num_draws, lr)
    model, learner, support = _prepared(learner, data, None)
    guide = FullRank() if guide is None else guide
    with _inference(seed):
        if isinstance(guide, TaskGuide):
            fitted = [
                _fitted(model, _Guide(guide, learner.prior, support.num_tasks), support, steps, lr, num_particles)
            ]
            places = [support]
        else:
            places = [support.select([b]) for b in range(support.num_tasks)]
            fitted = [_fitted(model, guide(model), alone, steps, lr, num_particles) for alone in places]
        each = [_guide_draws(made, alone, num_draws) for (made, _), alone in zip(fitted, places, strict=True)]
    draws = {name: torch.cat([own[name] for own in each], 1)[:, :, 0] for name in learner.prior.mean}
    return VariationalPosterior(
        spec=support.spec,
        learner=learner,
        support=support,
        draws=draws,
        again=lambda more: svi(
            learner, more, guide, steps=steps, lr=lr, num_particles=num_particles, num_draws=num_draws, seed=seed
        ),
        elbo=torch.stack([elbo for _, elbo in fitted]).sum(0),
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class HyperDraws:
    """Draws from p(theta, phi_1..B | tasks): full Bayes.

    Attributes:
        learner: what theta is put into.
        support: the tasks.
        theta: by the names of the hyperprior: each value `chains S *shape`.
        phi: each value `chains S B *shape`.
        divergent: 1 where a trajectory was broken off; 0 for draws from a guide.
        elbo: of a guide, at every step, nats; empty for chains.
    """

    learner: ExplicitLearner
    support: Data
    theta: Params
    phi: Params
    divergent: Float[Tensor, "chains S"]
    elbo: Float[Tensor, "steps"]

    @property
    def r_hat(self) -> Params:
        """Split R-hat of every number of theta and phi. Above 1.01 to 1.05 the chains disagree."""
        return {name: split_r_hat(value) for name, value in (self.theta | self.phi).items()}

    @property
    def effective_draws(self) -> Params:
        """How many independent draws are worth as much for the mean of every number."""
        return {name: effective_draws(value) for name, value in (self.theta | self.phi).items()}

    def learner_at(self, draw: int) -> ExplicitLearner:
        """The learner with theta at a draw; chains follow each other."""
        result = copy.deepcopy(self.learner)
        with torch.no_grad():
            for name, value in self.theta.items():
                found = _find(result, name)
                (found.set if isinstance(found, Positive) else found.copy_)(value.flatten(0, 1)[draw])
        return result

    def hyper_posterior(self, num_members: int = 200) -> HyperPosterior:
        """A learner for new tasks, theta averaged over draws taken evenly. Raises DataError for more than there are."""
        count = self.divergent.numel()
        if not 1 <= num_members <= count:
            raise DataError(f"expected from 1 to {count} members, as many as there are draws, got {num_members}")
        places = torch.linspace(0, count - 1, num_members).round().long().tolist()
        return HyperPosterior([self.learner_at(place) for place in places])


def hyper_nuts(
    learner: ExplicitLearner,
    tasks: Data,
    hyperprior: Mapping[str, Distribution] | Hyperprior,
    sampler: NUTS | None = None,
    *,
    jit_compile: bool = False,
    seed: int = 0,
) -> HyperDraws:
    """p(theta, phi | tasks) by Pyro's no-U-turn sampler, in float64: theta and the phi of all tasks in one trajectory.

    A small deviation between tasks makes the density a funnel, which chains explore badly: look at `r_hat`. Where the
    learner has an evidence, `nuts_hyper_posterior` integrates phi out, and there is no funnel.

    Args:
        learner: prior, likelihood and network; its own theta is where a parameter without a hyperprior stays.
        tasks: the points of all tasks.
        hyperprior: as for `program`.
        sampler: as for `nuts`.
        jit_compile: as for `nuts`.
        seed: of the randomness.

    Raises:
        UnsupportedError: the learner has no explicit prior and likelihood. DataError: an unknown name, or no names.
    """
    sampler = NUTS(num_chains=2, num_draws=500, num_warmup=500) if sampler is None else sampler
    model, learner, support = _prepared(learner, tasks, hyperprior)
    with _inference(seed):
        chains = [_chain(model, support, sampler, jit_compile) for _ in range(sampler.num_chains)]
    sites = {name: torch.stack([chain.sites[name] for chain in chains]) for name in chains[0].sites}
    divergent = torch.stack([chain.divergent for chain in chains])
    return _hyper_draws(learner, support, hyperprior, sites, divergent, divergent.new_zeros(0))


def hyper_svi(
    learner: ExplicitLearner,
    tasks: Data,
    hyperprior: Mapping[str, Distribution] | Hyperprior,
    guide: MakeGuide = AutoNormal,
    *,
    steps: int = 2_000,
    lr: float = 0.02,
    num_particles: int = 1,
    num_draws: int = 1_000,
    seed: int = 0,
) -> HyperDraws:
    """p(theta, phi | tasks) by Pyro's stochastic variational inference, in float64: one guide of everything.

    Args:
        learner: as for `hyper_nuts`.
        tasks: the points of all tasks.
        hyperprior: as for `program`.
        guide: what makes a guide of a program, as `AutoNormal`; those with a covariance have one of all tasks together.
        steps: of Adam, with a cosine learning rate.
        lr: first learning rate.
        num_particles: draws that estimate the bound's gradient, one after another.
        num_draws: S, draws from the guide that are kept.
        seed: of the randomness.

    Raises:
        UnsupportedError: the learner has no explicit prior and likelihood. DataError: an unknown name, no names, or
            numbers out of range. InferenceError: a bound that is not finite.
    """
    _require_counts(steps, num_particles, num_draws, lr)
    model, learner, support = _prepared(learner, tasks, hyperprior)
    with _inference(seed):
        made, elbo = _fitted(model, guide(model), support, steps, lr, num_particles, in_parallel=False)
        sites = {name: value[None] for name, value in _guide_draws(made, support, num_draws).items()}
    return _hyper_draws(learner, support, hyperprior, sites, elbo.new_zeros(1, num_draws), elbo)


def prior_predictive(
    learner: ExplicitLearner,
    data: Data,
    hyperprior: Mapping[str, Distribution] | None = None,
    *,
    num_draws: int = 1_000,
    seed: int = 0,
) -> Params:
    """Draws of theta, phi and y before any data.

    Args:
        learner: prior, likelihood and network.
        data: where to draw y; its own y is not used.
        hyperprior: distributions of theta, as for `program`; without it theta is what the learner has.
        num_draws: S.
        seed: of the randomness.

    Returns:
        By site: "y" `S B N *c` (also at padding), phi `S B *shape`, theta `S *shape`.

    Raises:
        UnsupportedError: the learner has no explicit prior and likelihood. DataError: an unknown name, or no draws.
    """
    if num_draws < 1:
        raise DataError(f"expected at least one draw, got {num_draws}")
    if isinstance(hyperprior, Hyperprior):
        raise UnsupportedError("expected distributions to draw theta from, got a Hyperprior: it is a density alone")
    model = poutine.uncondition(program(learner, hyperprior))
    with seeded(torch.Generator().manual_seed(seed)):
        sites = pyro.infer.Predictive(model, num_samples=num_draws, parallel=not hyperprior)(data)
    phi, theta = learner.prior.mean, hyperprior or {}
    return {
        name: value[:, :, 0]
        if name in phi
        else value.reshape(num_draws, *_shape(learner, name))
        if name in theta
        else value
        for name, value in sites.items()
    }


def render(
    learner: ExplicitLearner,
    data: Data,
    hyperprior: Mapping[str, Distribution] | Hyperprior | None = None,
    *,
    file: str | Path | None = None,
) -> Any:
    """The plate diagram of the program, with the distribution of every site.

    Args:
        learner: prior, likelihood and network.
        data: any tasks.
        hyperprior: as for `program`.
        file: an image to write; its ending says the format (svg, png, pdf).

    Returns:
        A `graphviz.Digraph`; its `source` is in the DOT language. Notebooks show it.

    Raises:
        UnsupportedError: the package graphviz is missing, or, for an image, Graphviz's program `dot`; the source needs
            no program. Or the learner has no explicit prior and likelihood.
    """
    model = program(learner, hyperprior)
    try:
        import graphviz
    except ImportError as error:
        raise UnsupportedError(
            "expected the package graphviz for diagrams: pip install 'bayesmeta[graphviz]'"
        ) from error
    try:
        return pyro.render_model(
            model, (data,), filename=None if file is None else str(file), render_distributions=True
        )
    except graphviz.ExecutableNotFound as error:
        raise UnsupportedError(
            "expected Graphviz's program dot on the path to write an image, found none: install Graphviz "
            "(apt install graphviz), or take the source, which needs no program: render(...).source"
        ) from error


# ------------------------------------------------------------------------------------------------------------- program


@dataclass(frozen=True, eq=False)
class _ThetaSite:
    """A part of theta that is drawn."""

    name: str
    parameter: nn.Parameter
    distribution: Any
    positive: Positive | None  # the value is that of a positive number, stored in log space

    def stored(self, value: Tensor) -> Tensor:
        """The parameter of a value."""
        value = value.to(self.parameter.dtype)
        if self.positive is None:
            return value
        lower, upper = self.positive.lower, self.positive.upper
        return self.positive.raw_of(value.clamp(lower * (1.0 + 1e-6), upper * (1.0 - 1e-6)))


@dataclass(frozen=True, eq=False)
class _ThetaSites:
    """All that is drawn of theta, and a density that is not that of the draws."""

    sites: tuple[_ThetaSite, ...]
    factor: Hyperprior | None

    def sample(self, learner: ExplicitLearner) -> ExplicitLearner:
        """The learner with theta drawn."""
        if not self.sites:
            return learner
        values = {site.name: pyro.sample(site.name, site.distribution) for site in self.sites}
        # every mention of a parameter, wherever the learner keeps it, becomes its value
        known: dict[int, Any] = {id(tensor): tensor for tensor in (*learner.parameters(), *learner.buffers())}
        known |= {id(site.parameter): site.stored(values[site.name]) for site in self.sites}
        learner = copy.deepcopy(learner, known)
        if self.factor is not None:
            pyro.factor("hyperprior", self.factor.log_prob(values) + learner.log_hyperprior())
        return learner


def _program(learner: ExplicitLearner, theta: _ThetaSites) -> Program:
    def model(data: Data) -> Tensor:
        data = learner.conform(data)
        drawn = theta.sample(learner)
        with pyro.plate("task", data.num_tasks, dim=-2):
            phi = {}
            for name, distribution in phi_distributions(drawn.prior).items():
                value = pyro.sample(name, distribution)
                phi[name] = value.squeeze(value.ndim - distribution.event_dim - 1)  # the place of points
            if data.num_points == 0:
                return data.y
            f = _traced(drawn.forward(phi, data.x), phi)
            real: Any = data.mask
            observed = _outcome(drawn.likelihood, data, f)
            with pyro.plate("point", data.num_points, dim=-1), poutine.mask(mask=real):
                y: Tensor = pyro.sample("y", _for_pyro(drawn.likelihood(f)), obs=observed)
                return y

    return model


def _traced(f: Tensor, phi: Params) -> Tensor:
    """f, known to depend on phi: maps over tasks lose what Pyro's diagrams follow."""
    if not any(isinstance(value, ProvenanceTensor) for value in phi.values()):
        return f
    result: Tensor = track_provenance(f, get_provenance(list(phi.values())))
    return result


def _outcome(likelihood: Likelihood, data: Data, f: Tensor) -> Tensor:
    """y as the likelihood's distribution wants it; labels that are padding are legal ones."""
    if f.shape[-1] != likelihood.network_outputs:
        raise ShapeError(f"expected f with {likelihood.network_outputs} columns, got {tuple(f.shape)}")
    return likelihood._outcome(data, f)


def _theta_sites(learner: ExplicitLearner, hyperprior: Mapping[str, Distribution] | Hyperprior | None) -> _ThetaSites:
    if hyperprior is None:
        return _ThetaSites((), None)
    if isinstance(hyperprior, Hyperprior):
        trained = {name: value for name, value in learner.named_parameters() if value.requires_grad}
        sites = tuple(_ThetaSite(name, value, _flat(value), None) for name, value in trained.items())
    else:
        sites = tuple(_theta_site(learner, name, distribution) for name, distribution in hyperprior.items())
    taken = {"task", "point", "y", "hyperprior", *learner.prior.mean} & {site.name for site in sites}
    distinct = {id(site.parameter) for site in sites}  # a parameter can have several names
    if not sites or taken or len(distinct) < len(sites):
        raise DataError(
            "expected parameters to draw, each once, under names that no other site has, "
            f"got {[site.name for site in sites]}"
        )
    return _ThetaSites(sites, hyperprior if isinstance(hyperprior, Hyperprior) else None)


def _theta_site(learner: ExplicitLearner, name: str, distribution: Distribution) -> _ThetaSite:
    found = _find(learner, name)
    parameter = found.raw if isinstance(found, Positive) else found
    shape, event = parameter.shape, distribution.event_shape
    batch = shape[: len(shape) - len(event)]
    if len(event) > len(shape) or shape[len(batch) :] != event or not _expands(distribution.batch_shape, batch):
        raise ShapeError(
            f"expected a distribution of values of shape {tuple(shape)} for {name!r}, got batch shape "
            f"{tuple(distribution.batch_shape)} and event shape {tuple(event)}"
        )
    whole = _for_pyro(distribution.expand(batch)).to_event(len(batch))
    return _ThetaSite(name, parameter, whole, found if isinstance(found, Positive) else None)


def _expands(shape: torch.Size, to: torch.Size) -> bool:
    try:
        return torch.broadcast_shapes(shape, to) == to
    except RuntimeError:
        return False


def _find(learner: ExplicitLearner, name: str) -> Any:
    """A parameter or a `Positive` by its name."""
    try:
        found = reduce(getattr, name.split("."), learner)
    except AttributeError:
        found = None
    if not isinstance(found, nn.Parameter | Positive):
        names = [key for key, _ in learner.named_parameters()]
        names += [key for key, module in learner.named_modules() if isinstance(module, Positive)]
        raise DataError(f"expected the name of a parameter or a positive number among {names}, got {name!r}")
    return found


def _shape(learner: ExplicitLearner, name: str) -> torch.Size:
    found = _find(learner, name)
    return found.raw.shape if isinstance(found, Positive) else found.shape


# ------------------------------------------------------------------------------------------------------- distributions


class _OfPrior(dist.TorchDistribution):
    """A prior over one tensor, as a distribution."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012  (torch's name for it)

    def __init__(self, prior: Prior, name: str, shape: torch.Size, batch_shape: torch.Size = NO_SHAPE) -> None:
        self.prior, self.name = prior, name
        super().__init__(batch_shape, shape, validate_args=False)

    @property
    def support(self) -> Any:
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> "_OfPrior":
        return type(self)(self.prior, self.name, self.event_shape, torch.Size(batch_shape))

    @torch.no_grad()
    def sample(self, sample_shape: Any = NO_SHAPE) -> Tensor:
        shape = torch.Size(sample_shape) + self.batch_shape
        return self.prior.sample(shape.numel())[self.name].reshape(shape + self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.prior.log_prob({self.name: value})


class _Flat(dist.TorchDistribution):
    """No density: that is a factor elsewhere. A "draw" is the value of the learner."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012  (torch's name for it)

    support = constraints.real

    def __init__(self, value: Tensor) -> None:
        self.value = value
        super().__init__(value.shape, validate_args=False)

    def sample(self, sample_shape: Any = NO_SHAPE) -> Tensor:
        return self.value.expand(torch.Size(sample_shape) + self.batch_shape).clone()

    def log_prob(self, value: Tensor) -> Tensor:
        return torch.zeros_like(value)


_Flat.__name__ = "Flat"  # which diagrams show


def _flat(value: Tensor) -> Any:
    distribution: Any = _Flat(value.detach())
    return distribution.to_event()


@cache
def _kind_of_prior(name: str) -> type[_OfPrior]:
    """`_OfPrior` under the name of the prior, which diagrams show."""
    return type(name, (_OfPrior,), {})


def _for_pyro(distribution: Distribution) -> Any:
    """A distribution of torch, or of the user, with what Pyro asks for beyond torch. Pyro's own classes are such."""
    if isinstance(distribution, dist.torch_distribution.TorchDistributionMixin):
        return distribution
    result: Any = copy.copy(distribution)
    kind: Any = type(result)
    result.__class__ = _kind_for_pyro(kind)
    if isinstance(result, torch.distributions.Independent):
        result.base_dist = _for_pyro(result.base_dist)
    return result


@cache
def _kind_for_pyro(kind: Any) -> type[Any]:
    theirs = getattr(dist, kind.__name__, None)
    if isinstance(theirs, type) and issubclass(theirs, kind):
        return theirs
    return type(kind.__name__, (kind, dist.torch_distribution.TorchDistributionMixin), {})


# ----------------------------------------------------------------------------------------------------------- inference


@dataclass(frozen=True, eq=False)
class _Chain:
    """One chain of Pyro's. `sites`: each value `S *batch *event`."""

    sites: Params
    divergent: Float[Tensor, "S"]
    acceptance: Float[Tensor, "S"]
    leapfrogs: Float[Tensor, "S"]
    step_size: Float[Tensor, ""]


def _chain(model: Program, data: Data, sampler: NUTS, jit_compile: bool) -> _Chain:
    def init(site: dict[str, Any]) -> Tensor:
        is_phi = any(frame.name == "task" for frame in site["cond_indep_stack"])
        # theta may have heavy tails: one draw of it may be far out
        value: Tensor = init_to_sample(site) if is_phi else init_to_median(site, num_samples=5)
        return value.double()

    initial, potential, transforms, _ = initialize_model(
        model,
        (data,),
        max_plate_nesting=2,
        jit_compile=jit_compile,
        jit_options={"check_trace": False},
        skip_jit_warnings=True,
        init_strategy=init,
    )
    calls, lengths, acceptance = 0, [], 0.0

    def counted(z: Params) -> Tensor:
        nonlocal calls
        calls += 1
        value: Tensor = potential(z)
        return value

    def after(kernel: Any, samples: Any, stage: str, i: int) -> None:
        nonlocal calls, acceptance
        if stage.startswith("Sample"):
            lengths.append(calls)
            acceptance = float(kernel.logging()["acc. prob"])  # the mean since the warm-up; gone after the run
        calls = 0

    kernel = pyro.infer.NUTS(
        potential_fn=counted,
        transforms=transforms,
        full_mass=isinstance(sampler.metric, DenseMetric),
        target_accept_prob=sampler.target_acceptance,
        max_tree_depth=sampler.max_depth,
    )
    run = pyro.infer.MCMC(
        kernel,
        num_samples=sampler.num_draws,
        warmup_steps=sampler.num_warmup,
        initial_params=initial,
        disable_progbar=True,
        hook_fn=after,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".torch.jit.trace. is deprecated", DeprecationWarning)  # Pyro's to replace
        run.run()
    count, dtype = sampler.num_draws, torch.float64
    divergent = torch.zeros(count, dtype=dtype)
    divergent[run.diagnostics()["divergences"]["chain 0"]] = 1.0
    step = torch.as_tensor(kernel.step_size, dtype=dtype)
    return _Chain(
        sites=run.get_samples(),
        divergent=divergent,
        acceptance=torch.full((count,), acceptance, dtype=dtype),
        leapfrogs=torch.tensor(lengths, dtype=dtype),
        step_size=step,
    )


class _Guide(nn.Module):
    """A family of densities for the phi of every task, as a Pyro guide."""

    def __init__(self, family: TaskGuide, prior: Prior, num_tasks: int) -> None:
        super().__init__()
        self.family = family
        self.shapes = {name: value.shape for name, value in prior.mean.items()}
        draws = torch.cat([value.flatten(1) for value in prior.sample(1_000).values()], 1)
        self.centre = torch.cat([value.flatten() for value in prior.mean.values()])
        self.scale = draws.std(0)
        start = family.start((num_tasks, 1), len(self.centre))
        self.free = nn.ParameterDict({name: value.to(self.centre) for name, value in start.items()})

    def forward(self, data: Data) -> None:
        with pyro.plate("task", data.num_tasks, dim=-2):
            z = pyro.sample("_z", self.family.distribution(dict(self.free.items())), infer={"is_auxiliary": True})
            flat, place = self.centre + self.scale * z, 0
            for name, shape in self.shapes.items():
                part = slice(place, place := place + shape.numel())
                value = flat[..., part].reshape(*flat.shape[:-1], *shape)
                change = -self.scale[part].log().sum()  # of the units, so that the density is that of phi
                pyro.sample(name, dist.Delta(value, change.expand(flat.shape[:-1]), event_dim=len(shape)))


def _fitted(
    model: Any,
    guide: nn.Module,
    data: Data,
    steps: int,
    lr: float,
    num_particles: int,
    in_parallel: bool = True,
) -> tuple[nn.Module, Float[Tensor, "steps"]]:
    """The guide where the bound is largest, and the bound on the way."""
    estimate = pyro.infer.Trace_ELBO(
        num_particles, max_plate_nesting=2, vectorize_particles=in_parallel and num_particles > 1
    )
    loss = estimate(model, guide)
    with torch.no_grad():
        loss(data)  # guides make their parameters when first called
    optimizer = torch.optim.Adam(loss.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    bounds = []
    with pyro.validation_enabled(False):  # done above
        for step in range(1, steps + 1):
            optimizer.zero_grad()
            value = loss(data)
            if not bool(value.isfinite()):
                raise InferenceError(f"expected a finite bound, got {-value.item()} at step {step}: lower lr")
            value.backward()
            optimizer.step()
            schedule.step()
            bounds.append(-value.detach())
    return guide, torch.stack(bounds)


@torch.no_grad()
def _guide_draws(guide: nn.Module, data: Data, num_draws: int) -> Params:
    """By site, each value `S *batch *event`."""
    sites: Params = pyro.infer.Predictive(guide, num_samples=num_draws, parallel=True)(data)
    return sites


def _hyper_draws(
    learner: ExplicitLearner,
    support: Data,
    hyperprior: Mapping[str, Distribution] | Hyperprior,
    sites: Params,
    divergent: Tensor,
    elbo: Tensor,
) -> HyperDraws:
    means = learner.prior.mean
    names = hyperprior if isinstance(hyperprior, Mapping) else dict(learner.named_parameters())
    theta = {name: sites[name] for name in names if name in sites}  # guides have further sites of their own
    return HyperDraws(
        learner=learner,
        support=support,
        theta={name: value.double().reshape(*divergent.shape, *_shape(learner, name)) for name, value in theta.items()},
        phi={
            name: sites[name].reshape(*divergent.shape, support.num_tasks, *mean.shape) for name, mean in means.items()
        },
        divergent=divergent,
        elbo=elbo,
    )


def _prepared(
    learner: ExplicitLearner, data: Data, hyperprior: Mapping[str, Distribution] | Hyperprior | None
) -> tuple[Program, ExplicitLearner, Data]:
    """The program of a frozen copy in float64, the copy, and the data in its precision."""
    program(learner, hyperprior)  # errors of what was given
    learner = copy.deepcopy(learner).double()
    sites = _theta_sites(learner, hyperprior)
    learner = learner.requires_grad_(False)
    data = Data(data.x.double(), data.y.clone(), data.mask.clone())
    return _program(learner, sites), learner, learner.conform(data)


@contextlib.contextmanager
def _inference(seed: int) -> Iterator[None]:
    """A seed of its own; float64, in which Pyro's flows too are then made; nothing in Pyro's global parameter store."""
    before = torch.get_default_dtype()
    with seeded(torch.Generator().manual_seed(seed)), pyro.settings.context(module_local_params=True):
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


def _require_counts(steps: int, num_particles: int, num_draws: int, lr: float) -> None:
    if min(steps, num_particles, num_draws) < 1 or not 0.0 < lr < math.inf:
        raise DataError(
            "expected positive steps, num_particles, num_draws and lr, "
            f"got {steps}, {num_particles}, {num_draws} and {lr}"
        )


def _positive(value: float) -> float:
    if not 0.0 < value < math.inf:
        raise DataError(f"expected a positive number, got {value}")
    return value
