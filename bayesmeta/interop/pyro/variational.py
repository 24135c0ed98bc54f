"""Pyro's stochastic variational inference: phi given theta, and theta and phi together."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from pyro.infer.autoguide import AutoNormal
from torch import Tensor, nn
from torch.distributions import Distribution
from typing_extensions import override

from bayesmeta.arguments import whole
from bayesmeta.data import Data
from bayesmeta.errors import DataError, InferenceError
from bayesmeta.hyperpriors import Hyperprior
from bayesmeta.interop.pyro._preparation import isolated, prepared
from bayesmeta.interop.pyro.draws import HyperDraws
from bayesmeta.interop.pyro.guides import FullRank, MakeGuide, TaskGuide
from bayesmeta.learner import ExplicitLearner
from bayesmeta.modes import trained
from bayesmeta.priors import Prior
from bayesmeta.typing import Params
from bayesmeta.wrappers.sampled import DrawsPosterior


@dataclass(frozen=True, eq=False, kw_only=True)
class VariationalPosterior(DrawsPosterior):
    """Draws from a guide, as `svi` gives them; more points mean a guide that is fitted anew, to all of them.

    Attributes:
        elbo: the bound on Σ_t log p(D_t | theta), a noisy estimate at every step, nats.
        guide: the family of the guide, or what made it.
        lr: first learning rate.
        num_particles: draws that estimated the bound's gradient.
        seed: of the randomness.

    Example:
        >>> import bayesmeta as bm
        >>> from bayesmeta.interop.pyro import svi
        >>> posterior = svi(bm.ALPaCA(bm.Identity(1)), bm.Data.from_arrays([0.0], [0.3]), steps=5, num_draws=20)
        >>> posterior.elbo.shape, posterior.draws["weight"].shape
        (torch.Size([5]), torch.Size([20, 1, 2, 1]))
    """

    elbo: Float[Tensor, "steps"]
    guide: TaskGuide | MakeGuide
    lr: float
    num_particles: int
    seed: int

    @override
    def extended(self, data: Data) -> "VariationalPosterior":
        return svi(
            self.learner,
            self.support.append(data),
            self.guide,
            steps=len(self.elbo),
            lr=self.lr,
            num_particles=self.num_particles,
            num_draws=len(next(iter(self.draws.values()))),
            seed=self.seed,
        )


@trained
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
        UnsupportedError: the learner has no explicit prior and likelihood.
        DataError: numbers out of range.
        InferenceError: a bound that is not finite.

    Example:
        >>> import bayesmeta as bm
        >>> from bayesmeta.interop.pyro import FullRank, svi
        >>> learner, data = bm.ALPaCA(bm.Polynomial(1, 0)), bm.Data.from_arrays([0.0, 1.0], [1.0, 2.0])
        >>> posterior = svi(learner, data, FullRank(), steps=100, lr=0.1)
        >>> bool((posterior.predict([0.5]).mean - learner.adapt(data).predict([0.5]).mean).abs() < 0.2)
        True
    """
    _require_counts(steps, num_particles, num_draws, lr)
    model, learner, support = prepared(learner, data, None)
    guide = FullRank() if guide is None else guide
    with isolated(seed), support.x.device:  # where Pyro's flows are made
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
        elbo=torch.stack([elbo for _, elbo in fitted]).sum(0),
        guide=guide,
        lr=lr,
        num_particles=num_particles,
        seed=seed,
    )


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
        UnsupportedError: the learner has no explicit prior and likelihood.
        DataError: an unknown name, no names, or numbers out of range.
        InferenceError: a bound that is not finite.

    Example:
        >>> import bayesmeta as bm
        >>> from bayesmeta.interop.pyro import hyper_svi
        >>> learner, tasks = bm.ALPaCA(bm.Polynomial(1, 0)), bm.Data.from_arrays([[0.0], [1.0]], [[0.3], [0.7]])
        >>> hyperprior = {"likelihood.noise.value": torch.distributions.HalfNormal(1.0)}
        >>> hyper_svi(learner, tasks, hyperprior, steps=5, num_draws=10)
        10 draws of theta and of phi of 1 task
    """
    _require_counts(steps, num_particles, num_draws, lr)
    model, learner, support = prepared(learner, tasks, hyperprior)
    with isolated(seed), support.x.device:  # where Pyro's flows are made
        made, elbo = _fitted(model, guide(model), support, steps, lr, num_particles, in_parallel=False)
        sites = {name: value[None] for name, value in _guide_draws(made, support, num_draws).items()}
    return HyperDraws.of_sites(learner, support, hyperprior, sites, elbo.new_zeros(1, num_draws), elbo)


class _Guide(nn.Module):
    """A family of densities for the phi of every task, as a Pyro guide."""

    def __init__(self, family: TaskGuide, prior: Prior, num_tasks: int) -> None:
        super().__init__()
        self.family = family
        self.shapes = {name: value.shape for name, value in prior.mean.items()}
        draws = torch.cat([value.reshape(len(value), -1) for value in prior.sample(1_000).values()], 1)
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
    return {name: value.detach() for name, value in sites.items()}  # of a guide that is a point: its parameter itself


def _require_counts(steps: int, num_particles: int, num_draws: int, lr: float) -> None:
    counts = [whole(steps, "steps"), whole(num_particles, "num_particles"), whole(num_draws, "num_draws")]
    if min(counts) < 1 or not 0.0 < lr < math.inf:
        raise DataError(f"expected positive steps, num_particles, num_draws and lr, got {counts} and {lr}")
