"""BMAML: particles in place of a point, moved by Stein variational gradient descent.

Yoon, Kim, Dia, Kim, Bengio, Ahn 2018 (arXiv:1806.03836), algorithms 2 and 3:

    phi^1..S from theta^1..S by n steps of SVGD on log p(D, phi | theta)
    p(y | x, D) = 1/S Σ_s p(y | x, phi^s)

    phi         the network's weights, S particles of them
    prior       N(theta, I / precision), explicit; the particles start at learned offsets from theta
    likelihood  any; Gaussian with learned noise by default
    inference   SVGD, differentiated through its path
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from bayesmeta.arguments import whole
from bayesmeta.data import Data
from bayesmeta.errors import DataError
from bayesmeta.inference.svgd import svgd
from bayesmeta.learners.gradient.base import ExplicitWeightLearner, positive_rate
from bayesmeta.learners.gradient.posteriors import GradientPosterior
from bayesmeta.likelihoods import Likelihood
from bayesmeta.networks.network import Network
from bayesmeta.predictives import IndependentPredictive, MixturePredictive
from bayesmeta.priors import IsotropicGaussian
from bayesmeta.typing import Params


class BMAML(ExplicitWeightLearner):
    """Bayesian MAML.

    theta = the parameters of the network with its output layer (the prior mean), the particles' offsets from them
    (`offsets`), `prior.precision`, the step size (`rate`) and the observation noise. The meta-loss is the predictive of
    the particles' mixture; `Chaser()` is the paper's other objective.

    Args:
        network: gives the features; its parameters and those of the output layer are the prior mean.
        num_particles: S.
        steps: n, steps of SVGD.
        lr: the first step size: a step is lr / (N / σ² + precision) of the direction on the sum. The units are those of
            `MAML`, with the prior counted among the data, so that a strong prior does not make steps too long.
        precision: starting precision of the prior.
        spread: the starting deviation of the offsets of the particles; by default that of the prior.
        num_outputs: C; 1 by default, or what the likelihood says.
        likelihood: p(y | f); Gaussian with learned noise by default.
        adapted: name prefixes of the parameters that adapt; all by default.

    Raises:
        UnsupportedError: a network with layers that cannot be adapted.
        ShapeError: outputs that contradict.
        DataError: no particles, no steps, a rate or precision out of range, a prefix that no name has.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.BMAML(bm.MLP(1, [16, 16]), num_particles=3, steps=2)
        >>> posterior = learner.adapt(bm.Data.from_arrays([0.0, 1.0, 2.0], [0.0, 0.8, 0.9]))
        >>> posterior.phi["output.weight"].shape
        torch.Size([3, 1, 1, 16])
        >>> posterior.predict([1.5]).mean.shape
        torch.Size([1, 1, 1])
    """

    def __init__(
        self,
        network: Network,
        *,
        num_particles: int = 5,
        steps: int = 5,
        lr: float = 0.01,
        precision: float = 100.0,
        spread: float | None = None,
        num_outputs: int | None = None,
        likelihood: Likelihood | None = None,
        adapted: Sequence[str] | None = None,
    ) -> None:
        super().__init__(network, num_outputs=num_outputs, likelihood=likelihood, adapted=adapted)
        if num_particles < 1 or steps < 1:
            raise DataError(f"expected at least one particle and one step, got {num_particles} and {steps}")
        if spread is not None and not 0.0 < spread < math.inf:
            raise DataError(f"expected a positive, finite spread of the particles, got {spread}")
        self.prior: IsotropicGaussian = IsotropicGaussian(self.initial, precision)
        self.num_particles, self.steps, self.rate = num_particles, steps, positive_rate(lr)
        deviation = precision**-0.5 if spread is None else spread
        self.offsets = nn.ParameterList(
            nn.Parameter(deviation * torch.randn(num_particles, *value.shape)) for value in self.initial.values()
        )

    def particles(self, num_tasks: int) -> Params:
        """Where the particles of every task start: each value `S B *shape`."""
        pairs = zip(self.initial.items(), self.offsets, strict=True)
        return {name: (value + offset)[:, None].expand(-1, num_tasks, *value.shape) for (name, value), offset in pairs}

    def climb(self, data: Data, particles: Params, steps: int) -> Params:
        """`steps` steps of SVGD on the log joint of the data.

        Raises:
            InferenceError: the particles run away.
        """
        with self.naming_failures():
            return self._climbed(data, particles, steps)

    @override
    def mode(self, support: Data) -> Params:
        """The particles where the steps have taken them: each value `S B *shape`."""
        return self._climbed(support, self.particles(support.num_tasks), self.steps)

    @override
    def is_worse(self, support: Data, phi: Params) -> Tensor:
        """Whether the particles fit worse, on average, than theta by more than draws of the posterior may.

        Draws lie P / 2 nats below the mode on average; P is left for particles that have not spread as draws do.
        """
        joint, count = self.objective(support), sum(value[0, 0].numel() for value in phi.values())
        with torch.no_grad():
            before = joint(self.start(support.num_tasks))
            return ~(joint(phi).mean(0) >= before - count - 100.0 * torch.finfo(before.dtype).eps * before.abs())

    @override
    def condition(self, support: Data) -> "ParticlePosterior":
        return ParticlePosterior(spec=support.spec, learner=self, support=support, phi=self.find_mode(support))

    def _climbed(self, data: Data, particles: Params, steps: int) -> Params:
        curvature = 1.0 / self.unit_rate(data) + self.prior.precision()  # N / σ² + precision
        return svgd(self.joint(data), particles, steps=steps, lr=self.rate() / curvature)


@dataclass(frozen=True, eq=False, kw_only=True)
class ParticlePosterior(GradientPosterior):
    """The mixture of point masses phi | D = 1/S Σ_s δ(phi - phi^s), with the particles `S B *shape`."""

    @property
    def mean(self) -> Params:
        """The mean of the particles: each value `B *shape`."""
        return {name: value.mean(0) for name, value in self.phi.items()}

    def sample(self, num_draws: int, generator: torch.Generator | None = None) -> Params:
        """Particles drawn with replacement, for each task on its own: each value `S B *shape`."""
        num_draws = whole(num_draws, "num_draws")
        first = next(iter(self.phi.values()))
        count, tasks = first.shape[:2]
        chosen = torch.randint(count, (num_draws, tasks), generator=generator, device=first.device)
        return {name: value[chosen, torch.arange(tasks, device=first.device)] for name, value in self.phi.items()}

    @override
    def at(self, x: Float[Tensor, "B M *x"]) -> MixturePredictive:
        f = self.learner.forward(self.phi, x).transpose(0, 1)  # B S M K
        components = IndependentPredictive(self.learner.likelihood(f.flatten(0, 1)))
        return MixturePredictive(f.new_zeros(f.shape[:2]), components)
