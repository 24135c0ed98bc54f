"""theta with a hyperprior: what of it is drawn, under which names, and how it is put into the learner."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from bayesmeta.errors import DataError, ShapeError
from bayesmeta.hyperpriors import Hyperprior
from bayesmeta.interop.pyro._distributions import flat, for_pyro
from bayesmeta.learner import ExplicitLearner
from bayesmeta.noise import Positive


@dataclass(frozen=True, eq=False)
class ThetaSite:
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
class ThetaSites:
    """All that is drawn of theta, and a density that is not that of the draws."""

    sites: tuple[ThetaSite, ...]
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
            pyro.factor("hyperprior", self.factor.of(learner) + learner.log_hyperprior())
        return learner


def theta_sites(learner: ExplicitLearner, hyperprior: Mapping[str, Distribution] | Hyperprior | None) -> ThetaSites:
    """What a hyperprior draws of theta. Raises DataError or ShapeError where it does not fit the learner."""
    if hyperprior is None:
        return ThetaSites((), None)
    if isinstance(hyperprior, Hyperprior):
        trained = {name: value for name, value in learner.named_parameters() if value.requires_grad}
        sites = tuple(ThetaSite(name, value, flat(value), None) for name, value in trained.items())
    else:
        sites = tuple(_theta_site(learner, name, distribution) for name, distribution in hyperprior.items())
    taken = {"task", "point", "y", "hyperprior", *learner.prior.mean} & {site.name for site in sites}
    distinct = {id(site.parameter) for site in sites}  # a parameter can have several names
    if not sites or taken or len(distinct) < len(sites):
        raise DataError(
            "expected parameters to draw, each once, under names that no other site has, "
            f"got {[site.name for site in sites]}"
        )
    return ThetaSites(sites, hyperprior if isinstance(hyperprior, Hyperprior) else None)


def _theta_site(learner: ExplicitLearner, name: str, distribution: Distribution) -> ThetaSite:
    found = find(learner, name)
    parameter = found.raw if isinstance(found, Positive) else found
    shape, event = parameter.shape, distribution.event_shape
    batch = shape[: len(shape) - len(event)]
    if len(event) > len(shape) or shape[len(batch) :] != event or not _expands(distribution.batch_shape, batch):
        raise ShapeError(
            f"expected a distribution of values of shape {tuple(shape)} for {name!r}, got batch shape "
            f"{tuple(distribution.batch_shape)} and event shape {tuple(event)}"
        )
    whole = for_pyro(distribution.expand(batch)).to_event(len(batch))
    return ThetaSite(name, parameter, whole, found if isinstance(found, Positive) else None)


def _expands(shape: torch.Size, to: torch.Size) -> bool:
    try:
        return torch.broadcast_shapes(shape, to) == to
    except RuntimeError:
        return False


def find(learner: ExplicitLearner, name: str) -> Any:
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


def stored_shape(learner: ExplicitLearner, name: str) -> torch.Size:
    """The shape of a parameter or a `Positive`."""
    found = find(learner, name)
    return found.raw.shape if isinstance(found, Positive) else found.shape
