"""The posterior around the phi that adaptation has found: a point, or a Gaussian with the network linearised."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Independent, Normal
from typing_extensions import override

from bayesmeta.arguments import whole
from bayesmeta.data import Data
from bayesmeta.description import Described
from bayesmeta.distributions import common_normals
from bayesmeta.errors import DataError
from bayesmeta.inference.laplace import Belief, DiagonalBelief
from bayesmeta.learner import Learner, Refit, TaskPosterior
from bayesmeta.likelihoods import Gaussian, Likelihood
from bayesmeta.linalg import cholesky
from bayesmeta.networks.jacobian import Jacobian
from bayesmeta.overriding import speaks_for
from bayesmeta.predictives import DenseGaussianPredictive, IndependentPredictive, MixturePredictive, Predictive
from bayesmeta.summaries import Coefficients, Columns
from bayesmeta.typing import Params


class LinearizableLearner(Learner):
    """A learner whose network can be linearised in phi: what an `Approximation` asks of it.

    A subclass gives `condition` and what follows below. One that finds phi by gradient ascent inherits
    `GradientLearner`, which gives the Jacobian and both beliefs.

    Attributes:
        likelihood: p(y | f).

    Example:
        >>> import bayesmeta as bm
        >>> from bayesmeta.inference.laplace import ExplicitPrior, Curvature
        >>> from bayesmeta.networks.jacobian import jacobian
        >>> class Slope(LinearizableLearner):  # f(x; phi) = phi x, with phi ~ N(0, 1) and the MAP in closed form
        ...     def __init__(self) -> None:
        ...         super().__init__()
        ...         self.likelihood = Gaussian()
        ...         self.x_shape, self.outcomes = (1,), self.likelihood.outcomes
        ...
        ...     def forward(self, phi: Params, x: Tensor) -> Tensor:
        ...         return phi["slope"][..., None, :] * x
        ...
        ...     def jacobian(self, phi: Params, x: Tensor) -> Jacobian:
        ...         return jacobian(self.forward, phi, x)
        ...
        ...     def curvature(self, support: Data, phi: Params) -> Curvature:
        ...         root = self.likelihood.curvature_root(self.forward(phi, support.x))
        ...         rows, ones = self.jacobian(phi, support.x), {"slope": torch.ones(1)}
        ...         return Curvature.of(rows, root, support.mask, ones, {"slope": torch.Size([1])})
        ...
        ...     def belief(self, support: Data, phi: Params) -> Belief:
        ...         return ExplicitPrior().full(self.curvature(support, phi))
        ...
        ...     def diagonal_belief(self, support: Data, phi: Params) -> DiagonalBelief:
        ...         return ExplicitPrior().diagonal(self.curvature(support, phi))
        ...
        ...     def condition(self, support: Data) -> TaskPosterior:
        ...         x = support.x * support.mask[..., None]
        ...         slope = (x * support.y).sum(1) / (x.square().sum(1) + self.likelihood.unit())
        ...         return Linearized().of(self, support, {"slope": slope})
        >>> posterior = Slope().adapt(bm.Data.from_arrays([1.0, 2.0], [2.0, 4.0]))
        >>> posterior.sample(5)["slope"].shape
        torch.Size([5, 1, 1])
        >>> posterior.predict([10.0]).noiseless.stddev.shape
        torch.Size([1, 1, 1])
    """

    likelihood: Likelihood

    def coefficients_of(self, posterior: TaskPosterior, columns: Columns) -> Coefficients | None:
        """The numbers of a task that mean something to a user, where phi is others; None where there are none.

        Args:
            posterior: of tasks.
            columns: names and units, as the learner sees them.
        """
        return None

    @abstractmethod
    def forward(self, phi: Params, x: Float[Tensor, "B M *x"]) -> Float[Tensor, "*s B M K"]:
        """f(x; phi) at every point of every task, for one phi a task or for S draws of it."""

    @abstractmethod
    def jacobian(self, phi: Params, x: Float[Tensor, "B M *x"]) -> Jacobian:
        """The derivative of f in the P numbers of phi."""

    @abstractmethod
    def belief(self, support: Data, phi: Params) -> Belief:
        """The Gaussian around phi that the linearised network and the support give."""

    @abstractmethod
    def diagonal_belief(self, support: Data, phi: Params) -> DiagonalBelief:
        """The same with the diagonal of the Gauss-Newton matrix alone."""

    def covariance_at(
        self, support: Data, phi: Params, x: Float[Tensor, "B M *x"], diagonal: bool = False
    ) -> tuple[Float[Tensor, "B M K"], Float[Tensor, "B MK MK"]]:
        """f at query points, and its covariance under the belief of the support, over all points and outputs.

        Args:
            support: the data that phi was found from.
            phi: phi_hat.
            x: query points.
            diagonal: take the diagonal belief.
        """
        belief = self.diagonal_belief(support, phi) if diagonal else self.belief(support, phi)
        return self.forward(phi, x), belief.covariance(self.jacobian(phi, x))


class Approximation(Described, ABC):
    """How phi_hat of a learner becomes the posterior p(phi | D, theta). A subclass gives `of`.

    Example:
        >>> class Sharp(Approximation):
        ...     def of(self, learner, support, phi):
        ...         return PointPosterior(spec=support.spec, learner=learner, support=support, phi=phi)
        >>> import bayesmeta as bm
        >>> learner = bm.MAML(bm.MLP(1, [8]), posterior=Sharp())
        >>> type(learner.adapt(bm.Data.from_arrays([0.0], [1.0]))).__name__
        'PointPosterior'
    """

    @abstractmethod
    def of(self, learner: LinearizableLearner, support: Data, phi: Params) -> TaskPosterior:
        """The posterior around phi.

        Args:
            learner: whose phi it is.
            support: the data that phi was found from.
            phi: phi_hat, each value `B *shape`.
        """

    def log_density(self, learner: LinearizableLearner, support: Data, phi: Params, query: Data) -> Float[Tensor, "B"]:
        """log p(y | x, D, theta) of query points, in nats: what `of` gives, for training, which asks for nothing else.

        Args:
            learner: whose phi it is.
            support: the data that phi was found from.
            phi: phi_hat, each value `B *shape`.
            query: points of the same tasks.
        """
        return self.of(learner, support, phi).predictive_of(query).log_prob(query.y, query.mask)


class PointEstimate(Approximation):
    """A point mass at phi_hat: the method of the papers, whose only uncertainty is the observation noise.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.MAML(bm.MLP(1, [8]), posterior=bm.PointEstimate())
        >>> prediction = learner.adapt(bm.Data.from_arrays([0.0, 1.0], [1.0, 2.0])).predict([0.5])
        >>> torch.equal(prediction.variance[0, 0], learner.likelihood.noise.variance())
        True
    """

    def of(self, learner: LinearizableLearner, support: Data, phi: Params) -> "PointPosterior":
        """The point mass at phi."""
        return PointPosterior(spec=support.spec, learner=learner, support=support, phi=phi)

    @override
    def log_density(self, learner: LinearizableLearner, support: Data, phi: Params, query: Data) -> Float[Tensor, "B"]:
        likelihood = learner.likelihood
        if type(likelihood).observed is not Likelihood.observed or not speaks_for(type(self), "log_density", "of"):
            return super().log_density(learner, support, phi, query)
        return likelihood.given(query)(learner.forward(phi, query.x))  # the same without distributions


class Linearized(Approximation):
    """N(phi_hat, (G + Q⁻¹)⁻¹): Laplace with the generalised Gauss-Newton matrix G, and the network linearised.

    With a Gaussian likelihood the predictive is a joint Gaussian. With another one f is integrated out point by point:
    in the likelihood's closed form, or by `draws`.

    Args:
        draws: draws of f at each point for likelihoods that are not Gaussian; 0 uses the likelihood's
            `correlated_marginal`.

    Raises:
        DataError: a negative number of draws.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.MAML(bm.MLP(1, [8]), posterior=bm.Linearized())
        >>> posterior = learner.adapt(bm.Data.from_arrays([0.0, 1.0], [1.0, 2.0]))
        >>> posterior.predict([0.5, 5.0]).noiseless.stddev.shape
        torch.Size([1, 2, 1])
        >>> posterior.sample(10)["output.weight"].shape
        torch.Size([10, 1, 1, 8])
    """

    def __init__(self, draws: int = 0) -> None:
        if draws < 0:
            raise DataError(f"expected a number of draws that is not negative, got {draws}")
        self.draws = draws

    def of(self, learner: LinearizableLearner, support: Data, phi: Params) -> "LinearizedPosterior":
        """The Gaussian around phi, all correlations included, through the kernel of the support's points."""
        belief = self._belief(learner, support, phi)
        return LinearizedPosterior(
            spec=support.spec, learner=learner, support=support, phi=phi, belief=belief, draws=self.draws
        )

    @override
    def log_density(self, learner: LinearizableLearner, support: Data, phi: Params, query: Data) -> Float[Tensor, "B"]:
        likelihood = learner.likelihood
        if not isinstance(likelihood, Gaussian) or not speaks_for(type(self), "log_density", "of"):
            return super().log_density(learner, support, phi, query)
        f, covariance = learner.covariance_at(support, phi, query.x, self._is_diagonal)
        predictive = _gaussian(
            likelihood, f, partial(_point_blocks, covariance, f.shape[-1]), partial(_as_it_is, covariance)
        )
        predictive = predictive if query.noise is None else predictive.with_noise(query.noise)
        return predictive.log_prob(query.y, query.mask)

    @property
    def _is_diagonal(self) -> bool:
        return False

    def _belief(self, learner: LinearizableLearner, support: Data, phi: Params) -> Belief:
        return learner.belief(support, phi)


class LinearizedDiagonal(Linearized):
    """`Linearized` with the diagonal of G alone.

    It is cheaper for very many support points. Without its correlations the posterior may be too wide or too narrow.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.MAML(bm.MLP(1, [8]), posterior=bm.LinearizedDiagonal())
        >>> type(learner.adapt(bm.Data.from_arrays([0.0], [1.0])).belief).__name__
        'DiagonalBelief'
    """

    @property
    @override
    def _is_diagonal(self) -> bool:
        return True

    @override
    def _belief(self, learner: LinearizableLearner, support: Data, phi: Params) -> Belief:
        return learner.diagonal_belief(support, phi)


@dataclass(frozen=True, eq=False, kw_only=True)
class GradientPosterior(Refit):
    """A posterior around a phi that ascent has found.

    Attributes:
        phi: phi_hat, each value `B *shape` (`S B *shape` for particles).
    """

    learner: LinearizableLearner
    phi: Params

    @property
    def mean(self) -> Params:
        """phi_hat: each value `B *shape`."""
        return self.phi

    @override
    def coefficients(self, columns: Columns) -> Coefficients | None:
        found = self.learner.coefficients_of(self, columns)
        return super().coefficients(columns) if found is None else found


@dataclass(frozen=True, eq=False, kw_only=True)
class PointPosterior(GradientPosterior):
    """The point mass phi | D = phi_hat."""

    @override
    def at(self, x: Float[Tensor, "B M *x"]) -> Predictive:
        return IndependentPredictive(self.learner.likelihood(self.learner.forward(self.phi, x)))


@dataclass(frozen=True, eq=False, kw_only=True)
class LinearizedPosterior(GradientPosterior):
    """The Gaussian phi | D ~ N(phi_hat, Cov), with the network linearised in phi.

    Attributes:
        belief: Cov.
        draws: see `Linearized`.
    """

    belief: Belief
    draws: int

    def sample(self, num_draws: int, generator: torch.Generator | None = None) -> Params:
        """Draws of phi, each value `S B *shape`, in float64."""
        num_draws = whole(num_draws, "num_draws")
        flat, draws, start = self.belief.sample(num_draws, generator), {}, 0
        for name, value in self.phi.items():
            size = value[0].numel()
            draws[name] = value.double() + flat[..., start : start + size].reshape(num_draws, *value.shape)
            start += size
        return draws

    @override
    def at(self, x: Float[Tensor, "B M *x"]) -> Predictive:
        likelihood = self.learner.likelihood
        f = self.learner.forward(self.phi, x).double()
        rows = self.learner.jacobian(self.phi, x)
        if isinstance(likelihood, Gaussian):
            return _gaussian(likelihood, f, partial(self.belief.blocks, rows), partial(self.belief.covariance, rows))
        blocks = self.belief.blocks(rows)
        if self.draws:
            return _by_draws(likelihood, f, blocks, self.draws)
        variance = blocks.diagonal(dim1=-2, dim2=-1).clamp(min=0.0)
        latent = Independent(Normal(f, variance.clamp(min=1e-30).sqrt(), validate_args=False), 1)
        return IndependentPredictive(likelihood.correlated_marginal(f, blocks), latent)


def _gaussian(
    likelihood: Gaussian, f: Tensor, blocks: Callable[[], Tensor], covariance: Callable[[], Tensor]
) -> DenseGaussianPredictive:
    """The joint predictive of f and Gaussian noise, both computed when they are asked for."""
    return DenseGaussianPredictive(
        location=f.double(),
        point_covariance=blocks,
        latent_covariance=covariance,
        noise_covariance=likelihood.noise.covariance().double(),
    )


def _as_it_is(covariance: Tensor) -> Tensor:
    return covariance


def _point_blocks(covariance: Float[Tensor, "B MK MK"], outputs: int) -> Float[Tensor, "B M K K"]:
    each = covariance.unflatten(2, (-1, outputs)).unflatten(1, (-1, outputs))  # B M K M K
    return each.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)


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
