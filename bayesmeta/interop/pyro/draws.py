"""Draws of theta and phi together: given the tasks, and before any data."""

from collections.abc import Mapping
from dataclasses import dataclass

import pyro
import torch
from jaxtyping import Float
from pyro import poutine
from torch import Tensor
from torch.distributions import Distribution

from bayesmeta.arguments import generator_of, some, whole
from bayesmeta.data import Data
from bayesmeta.distributions import seeded
from bayesmeta.errors import UnsupportedError
from bayesmeta.hyperpriors import Hyperprior
from bayesmeta.inference.diagnostics import effective_draws, split_r_hat
from bayesmeta.interop.pyro._theta import find, stored_shape
from bayesmeta.interop.pyro.programs import program
from bayesmeta.learner import ExplicitLearner
from bayesmeta.noise import Positive
from bayesmeta.one_line import several
from bayesmeta.snapshot import snapshot
from bayesmeta.typing import Params
from bayesmeta.wrappers.hyper_posterior import HyperPosterior


@dataclass(frozen=True, eq=False, kw_only=True)
class HyperDraws:
    """Draws from p(theta, phi_1..B | tasks), full Bayes: what `hyper_nuts` and `hyper_svi` return.

    Attributes:
        learner: what theta is put into.
        support: the tasks.
        theta: by the names of the hyperprior: each value `chains S *shape`.
        phi: each value `chains S B *shape`.
        divergent: 1 where a trajectory was broken off; 0 for draws from a guide.
        elbo: of a guide, at every step, nats; empty for chains.

    Example:
        >>> import bayesmeta as bm
        >>> from bayesmeta.interop.pyro import hyper_svi
        >>> learner, tasks = bm.ALPaCA(bm.Identity(1)), bm.Data.from_arrays([[0.0], [1.0]], [[0.3], [0.7]])
        >>> hyperprior = {"likelihood.noise.value": torch.distributions.HalfNormal(1.0)}
        >>> draws = hyper_svi(learner, tasks, hyperprior, steps=3, num_draws=10)
        >>> {name: tuple(value.shape) for name, value in (draws.theta | draws.phi).items()}
        {'likelihood.noise.value': (1, 10, 1), 'weight': (1, 10, 1, 2, 1)}
        >>> draws.hyper_posterior(num_members=5).title  # for new tasks
        'HyperPosterior(ALPaCA)'
    """

    learner: ExplicitLearner
    support: Data
    theta: Params
    phi: Params
    divergent: Float[Tensor, "chains S"]
    elbo: Float[Tensor, "steps"]

    def __repr__(self) -> str:
        """One line."""
        return f"{self.divergent.numel()} draws of theta and of phi of {several(self.support.num_tasks, 'task')}"

    @classmethod
    def of_sites(
        cls,
        learner: ExplicitLearner,
        support: Data,
        hyperprior: Mapping[str, Distribution] | Hyperprior,
        sites: Params,
        divergent: Float[Tensor, "chains S"],
        elbo: Float[Tensor, "steps"],
    ) -> "HyperDraws":
        """From the draws of a program's sites; sites that are neither theta nor phi are left out.

        Args:
            learner: what theta is put into.
            support: the tasks.
            hyperprior: says which parameters were drawn.
            sites: by name, each value `chains S *batch *event`.
            divergent: 1 where a trajectory was broken off.
            elbo: of a guide, at every step, nats.
        """
        means = learner.prior.mean
        names = hyperprior if isinstance(hyperprior, Mapping) else dict(learner.named_parameters())
        theta = {name: sites[name] for name in names if name in sites}  # guides have further sites of their own
        return cls(
            learner=learner,
            support=support,
            theta={
                name: value.double().reshape(*divergent.shape, *stored_shape(learner, name))
                for name, value in theta.items()
            },
            phi={
                name: sites[name].reshape(*divergent.shape, support.num_tasks, *mean.shape)
                for name, mean in means.items()
            },
            divergent=divergent,
            elbo=elbo,
        )

    @property
    def r_hat(self) -> Params:
        """Split R-hat of every number of theta and phi. Above 1.01 to 1.05 the chains disagree."""
        return {name: split_r_hat(value) for name, value in (self.theta | self.phi).items()}

    @property
    def effective_draws(self) -> Params:
        """How many independent draws are worth as much for the mean of every number of theta and phi."""
        return {name: effective_draws(value) for name, value in (self.theta | self.phi).items()}

    def learner_at(self, draw: int) -> ExplicitLearner:
        """The learner with theta at one draw.

        Args:
            draw: its position, chains following each other.
        """
        result = snapshot(self.learner)
        with torch.no_grad():
            for name, value in self.theta.items():
                found = find(result, name)
                (found.set if isinstance(found, Positive) else found.copy_)(value.flatten(0, 1)[draw])
        return result

    def hyper_posterior(self, num_members: int = 200) -> HyperPosterior:
        """A learner for new tasks, theta averaged over draws that are taken evenly.

        Args:
            num_members: how many of the draws.

        Raises:
            DataError: more than there are, or none.
        """
        count = self.divergent.numel()
        num_members = whole(num_members, "num_members", 1, count)  # as many as there are draws
        places = torch.linspace(0, count - 1, num_members).round().long().tolist()
        return HyperPosterior([self.learner_at(place) for place in places])


def prior_predictive(
    learner: ExplicitLearner,
    data: Data,
    hyperprior: Mapping[str, Distribution] | None = None,
    *,
    num_draws: int = 1_000,
    seed: int = 0,
) -> Params:
    """Draws of theta, phi and y before any data: what the model thinks possible, to be looked at before it is fitted.

    Args:
        learner: prior, likelihood and network.
        data: where to draw y; its own y is not used.
        hyperprior: distributions of theta, as for `program`; without it theta is what the learner has.
        num_draws: S.
        seed: of the randomness.

    Returns:
        By site: "y" `S B N *c` (also at padding), phi `S B *shape`, theta `S *shape`.

    Raises:
        UnsupportedError: the learner has no explicit prior and likelihood.
        DataError: an unknown name, or no draws.

    Example:
        >>> import bayesmeta as bm
        >>> from bayesmeta.interop.pyro import prior_predictive
        >>> learner, data = bm.ALPaCA(bm.Identity(1)), bm.Data.from_arrays([0.0, 1.0], [0.0, 0.0])
        >>> draws = prior_predictive(learner, data, num_draws=7)
        >>> {name: tuple(value.shape) for name, value in draws.items()}
        {'weight': (7, 1, 2, 1), 'y': (7, 1, 2, 1)}
    """
    num_draws = some(num_draws, "num_draws", "draw")
    if isinstance(hyperprior, Hyperprior):
        raise UnsupportedError("expected distributions to draw theta from, got a Hyperprior: it is a density alone")
    model = poutine.uncondition(program(learner, hyperprior))
    with seeded(generator_of(seed)):
        sites = pyro.infer.Predictive(model, num_samples=num_draws, parallel=not hyperprior)(data)
    phi, theta = learner.prior.mean, hyperprior or {}
    return {
        name: value[:, :, 0]
        if name in phi
        else value.reshape(num_draws, *stored_shape(learner, name))
        if name in theta
        else value
        for name, value in sites.items()
    }
