"""What is believed around the phi that adaptation has found: a point, a linearised Gaussian, or particles."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Independent, Normal

from bayesmeta.data import Data
from bayesmeta.description import Described
from bayesmeta.distributions import common_normals
from bayesmeta.errors import DataError
from bayesmeta.inference.laplace import Belief
from bayesmeta.learner import Refit, TaskPosterior
from bayesmeta.likelihoods import Gaussian, Likelihood
from bayesmeta.linalg import cholesky
from bayesmeta.predictives import DenseGaussianPredictive, IndependentPredictive, MixturePredictive, Predictive
from bayesmeta.typing import Params

if TYPE_CHECKING:
    from bayesmeta.learners.gradient._base import GradientLearner


class Approximation(Described, ABC):
    """How a learner's phi_hat becomes p(phi | D, theta)."""

    @abstractmethod
    def of(self, learner: "GradientLearner", support: Data, phi: Params) -> TaskPosterior:
        """The posterior around phi."""


class PointEstimate(Approximation):
    """All belief at phi_hat: the plain method of the papers, whose only uncertainty is the likelihood's noise."""

    def of(self, learner: "GradientLearner", support: Data, phi: Params) -> "PointPosterior":
        """The point."""
        return PointPosterior(spec=support.spec, learner=learner, support=support, phi=phi)


class Linearized(Approximation):
    """N(phi_hat, (G + Q⁻¹)⁻¹): Laplace with the generalised Gauss-Newton matrix G, and the network linearised.

    With a Gaussian likelihood the predictive is a joint Gaussian. With another one f is integrated out point by point:
    in the likelihood's closed form, or by `draws`.

    Args:
        draws: draws of f at each point for likelihoods that are not Gaussian; 0 uses the likelihood's `marginal`
            (MacKay's probit rescaling for classes).

    Raises:
        DataError: a negative number of draws.
    """

    def __init__(self, draws: int = 0) -> None:
        if draws < 0:
            raise DataError(f"expected a number of draws that is not negative, got {draws}")
        self.draws = draws

    def of(self, learner: "GradientLearner", support: Data, phi: Params) -> "LinearizedPosterior":
        """The Gaussian around phi, all correlations included, through the kernel of the support's points."""
        belief = self._belief(learner, support, phi)
        return LinearizedPosterior(
            spec=support.spec, learner=learner, support=support, phi=phi, belief=belief, draws=self.draws
        )

    def _belief(self, learner: "GradientLearner", support: Data, phi: Params) -> Belief:
        return learner.belief(support, phi)


class LinearizedDiagonal(Linearized):
    """`Linearized` with the diagonal of G alone: cheaper for very many support points, and too sure or too unsure."""

    def _belief(self, learner: "GradientLearner", support: Data, phi: Params) -> Belief:
        return learner.diagonal_belief(support, phi)


@dataclass(frozen=True, eq=False, kw_only=True)
class GradientPosterior(Refit):
    """A posterior around a phi that was found by a climb.

    Attributes:
        phi: phi_hat, each value `B *shape` (`S B *shape` for particles).
    """

    learner: "GradientLearner"
    phi: Params

    @property
    def mean(self) -> Params:
        """phi_hat: each value `B *shape`."""
        return self.phi


@dataclass(frozen=True, eq=False, kw_only=True)
class PointPosterior(GradientPosterior):
    """phi | D = phi_hat."""

    def at(self, x: Float[Tensor, "B M *x"]) -> Predictive:
        return IndependentPredictive(self.learner.likelihood(self.learner.forward(self.phi, x)))


@dataclass(frozen=True, eq=False, kw_only=True)
class LinearizedPosterior(GradientPosterior):
    """phi | D ~ N(phi_hat, Cov), with f linear in phi.

    Attributes:
        belief: Cov.
        draws: see `Linearized`.
    """

    belief: Belief
    draws: int

    def sample(self, num_draws: int, generator: torch.Generator | None = None) -> Params:
        """Draws of phi, each value `S B *shape`, in float64."""
        flat, draws, start = self.belief.sample(num_draws, generator), {}, 0
        for name, value in self.phi.items():
            size = value[0].numel()
            draws[name] = value.double() + flat[..., start : start + size].reshape(num_draws, *value.shape)
            start += size
        return draws

    def at(self, x: Float[Tensor, "B M *x"]) -> Predictive:
        likelihood = self.learner.likelihood
        f = self.learner.forward(self.phi, x).double()
        rows = self.learner.jacobian(self.phi, x)
        blocks = self.belief.blocks(rows)
        if isinstance(likelihood, Gaussian):
            return DenseGaussianPredictive(
                location=f,
                blocks=blocks,
                latent_covariance=lambda: self.belief.covariance(rows),
                columns=likelihood.noise.covariance().double(),
            )
        if self.draws:
            return _by_draws(likelihood, f, blocks, self.draws)
        variance = blocks.diagonal(dim1=-2, dim2=-1).clamp(min=0.0)
        latent = Independent(Normal(f, variance.clamp(min=1e-30).sqrt(), validate_args=False), 1)
        return IndependentPredictive(likelihood.marginal(f, variance), latent)


def _by_draws(likelihood: Likelihood, f: Tensor, blocks: Tensor, draws: int) -> MixturePredictive:
    """The average of the likelihood over draws of f.

    The same normal numbers serve at every point, so that a point's marginal does not depend on the others.
    """
    generator = torch.Generator(f.device).manual_seed(0)
    normal = common_normals((draws, f.shape[-1]), f, generator)
    size = blocks.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None] + torch.finfo(f.dtype).tiny ** 0.5
    eye = torch.eye(f.shape[-1], dtype=f.dtype, device=f.device)
    # the jitter is for classes that are certain relative to each other
    root = cholesky(blocks + 1e-10 * size * eye, "covariance of the outputs")
    each = f[:, None] + (root[:, None] @ normal[:, None, :, None])[..., 0]  # B S M K
    components = IndependentPredictive(likelihood(each.flatten(0, 1)))
    return MixturePredictive(f.new_zeros(len(f), draws), components)
