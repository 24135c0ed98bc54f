"""p(y | f): what every likelihood is."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import final

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.distributions import Distribution

from bayesmeta.data import Data
from bayesmeta.description import Described
from bayesmeta.errors import DataError, ShapeError, UnsupportedError
from bayesmeta.likelihoods.score import Score
from bayesmeta.outcomes import Outcomes, require_kind
from bayesmeta.overriding import speaks_for

DENSITY = ("forward", "observed", "of_points", "noisy", "outcome", "log_prob", "given", "unit")
"""What the density of points is made of."""


class Likelihood(Described, nn.Module, ABC):
    """p(y | f), the distribution of the outcome of one point given the K network outputs f at it.

    A subclass gives `forward`, `marginal` and `curvature_root`, and says what y and f are (`outcomes`,
    `network_outputs`). Its parameters, such as a noise variance, are part of theta.

    Attributes:
        outcomes: what y is at a point: `Numbers(C)` or `Labels(C)`.
        network_outputs: K, the length of f that `forward` expects.
        known_noise: whether known noise of points (`Data.noise`) can be added to its own: `noisy` and
            `noisy_curvature_root` are given, too.

    Example:
        >>> from torch.distributions import Independent, Poisson
        >>> import bayesmeta as bm
        >>> class Counts(bm.likelihoods.Likelihood):
        ...     outcomes, network_outputs = bm.Numbers(1), 1  # y ~ Poisson(exp(f))
        ...     def forward(self, f):
        ...         return Independent(Poisson(f.exp(), validate_args=False), 1)
        ...     def marginal(self, mean, variance):
        ...         rate = (mean + 0.5 * variance).exp()  # E exp(f)
        ...         return Independent(Poisson(rate, validate_args=False), 1)
        ...     def curvature_root(self, f):
        ...         return (0.5 * f).exp()[..., None]  # the Fisher information of a log rate f is exp(f)
        >>> learner = bm.MAML(bm.MLP(1, [8]), likelihood=Counts())
        >>> posterior = learner.adapt(bm.Data.from_arrays([0.0, 1.0], [1.0, 3.0]))
        >>> posterior.predict([0.5]).log_prob(torch.tensor([[[2.0]]])).shape
        torch.Size([1])
    """

    outcomes: Outcomes
    network_outputs: int
    known_noise: bool = False

    @abstractmethod
    def forward(self, f: Float[Tensor, "*b K"]) -> Distribution:
        """The distribution of y at each point: batch shape `*b`, event shape (C,) or ()."""

    def observed(self, f: Float[Tensor, "*b K"]) -> Distribution:
        """The distribution whose density at an outcome is what `log_prob` adds up.

        It is that of y, unless f says how probable the inputs are, too.
        """
        return self.forward(f)

    @abstractmethod
    def marginal(self, mean: Float[Tensor, "B M K"], variance: Float[Tensor, "B M K"]) -> Distribution:
        """The distribution of y where f ~ N(mean, diag(variance)): f is integrated out, and the noise is included."""

    def correlated_marginal(self, mean: Float[Tensor, "B M K"], covariance: Float[Tensor, "B M K K"]) -> Distribution:
        """The distribution of y where f ~ N(mean, covariance), the outputs of a point being correlated.

        Where every output has an outcome of its own, correlations change no marginal of one, and this is `marginal` of
        the diagonal. A likelihood that compares outputs, as a softmax does, gives its own.
        """
        return self.marginal(mean, covariance.diagonal(dim1=-2, dim2=-1).clamp(min=0.0))

    @abstractmethod
    def curvature_root(self, f: Float[Tensor, "*b K"]) -> Float[Tensor, "*b K K"]:
        """R with R Rᵀ = Λ, the Fisher information E[-∂² log p(y | f) / ∂f²] of one point, y ~ p(y | f).

        With J = ∂f/∂phi, Σ_n Jᵀ Λ J is the generalised Gauss-Newton matrix of the negative log-likelihood (Schraudolph
        2002, "Fast curvature matrix-vector products for second-order gradient descent"), which is the Fisher
        information in phi (Martens 2020, "New insights and perspectives on the natural gradient method", sections 8
        and 9). Λ is the Hessian itself, whatever y is, where f is the natural parameter: Gaussian, Bernoulli,
        Categorical. R is in units of one over f, has the precision of f, and gradients in f and in the noise.
        """

    def noisy(self, f: Float[Tensor, "*b K"], noise: Float[Tensor, "*b C"]) -> Distribution:
        """The distribution of y at each point, whose known noise is added to that of `forward`.

        Args:
            f: network outputs.
            noise: the known variances, squared units of y.

        Raises:
            UnsupportedError: it has no place for known noise.
        """
        raise UnsupportedError(f"{type(self).__name__} has no place for known noise (yerr)")

    def noisy_curvature_root(self, f: Float[Tensor, "*b K"], noise: Float[Tensor, "*b C"]) -> Float[Tensor, "*b K K"]:
        """`curvature_root` of points with known noise. Arguments and errors are those of `noisy`."""
        raise UnsupportedError(f"{type(self).__name__} has no place for known noise (yerr)")

    def of_points(self, f: Float[Tensor, "*s B N K"], data: Data) -> Distribution:
        """The distribution of the outcomes of these points, with what is known of their noise.

        Args:
            f: network outputs at the points.
            data: the points.
        """
        return self.observed(f) if data.noise is None else self.noisy(f, data.noise)

    def curvature_of(self, f: Float[Tensor, "*s B N K"], data: Data) -> Float[Tensor, "*s B N K K"]:
        """`curvature_root` at these points, with what is known of their noise.

        Args:
            f: network outputs at the points.
            data: the points.
        """
        return self.curvature_root(f) if data.noise is None else self.noisy_curvature_root(f, data.noise)

    def at_inputs(self, f: Float[Tensor, "*b M K"], x: Float[Tensor, "B M *x"]) -> Distribution:
        """The distribution of y at inputs, where it depends on them beside f; `forward(f)` elsewhere.

        Args:
            f: network outputs at the inputs.
            x: the inputs.
        """
        return self.forward(f)

    def pooled(self, data: Data) -> Float[Tensor, "K"] | None:
        """The f at which all outcomes of all tasks together are most probable; None where zero is as good a start.

        Training starts there where an outcome has no unit that could be standardised.

        Args:
            data: all points of all tasks.
        """
        return None

    def unit(self) -> Float[Tensor, ""]:
        """The square of the unit that inner step sizes are measured in.

        It is the geometric mean of the noise variances (`Gaussian`) or squared scales (`StudentT`), squared units of y,
        and 1 elsewhere: labels have no unit, and a noise that f sets is not one number. An inner step multiplies
        ∇ log joint / N by it: with Gaussian noise a step size then multiplies the gradient of half the mean squared
        error, whatever the noise is.
        """
        parameter = next(self.parameters(), None)
        return torch.ones((), dtype=torch.float32, device="cpu") if parameter is None else parameter.new_ones(())

    def log_prob(self, f: Float[Tensor, "*s B N K"], data: Data) -> Float[Tensor, "*s B"]:
        """log p(y | f) in nats, summed over the real points of each task.

        Raises:
            ShapeError: f does not have `network_outputs` columns.
            DataError: a label is out of range.
        """
        if f.shape[-1] != self.network_outputs:
            raise ShapeError(f"expected f with {self.network_outputs} columns, got {tuple(f.shape)}")
        if data.num_points == 0:  # torch's Independent fails on zero points
            return f.sum((-1, -2))
        return torch.where(data.mask, self.of_points(f, data).log_prob(self.outcome(data, f)), 0.0).sum(-1)

    def given(self, data: Data) -> Callable[[Tensor], Tensor]:
        """f -> log p(y | f) of these data, as `log_prob`: for loops, as what does not depend on f is done once."""
        return lambda f: self.log_prob(f, data)

    def score(self, data: Data) -> Score | None:
        """σ² ∂ log p(y | f) / ∂f of these data, with σ² as in `unit`; None where it is no `Score`.

        Gradient ascent is faster by it: nothing else of the density is computed. `unit_score` asks for it.

        Args:
            data: the points.
        """
        return None

    @final
    def unit_score(self, data: Data) -> Score | None:
        """`score`, where no subclass has changed the density without it.

        Args:
            data: the points.
        """
        return self.score(data) if speaks_for(type(self), "score", *DENSITY) else None

    def outcome(self, data: Data, f: Float[Tensor, "*b K"]) -> Shaped[Tensor, "B N *c"]:
        """y in the form that the distribution which `forward` gives at f accepts, padding included.

        Returns:
            y itself for numbers; labels `B N`, in the number format of f where the distribution wants it.

        Raises:
            DataError: labels for a likelihood of numbers, or numbers for one of labels; a label out of range.
        """
        require_kind(self.outcomes.y_shape, tuple(data.y.shape[2:]), type(self).__name__)
        return data.y

    def labels_of(self, data: Data, num_classes: int) -> Int[Tensor, "B N"]:
        """The labels of real points, 0 where padded. Raises DataError for outcomes that are no labels, or out of range.

        Args:
            data: the points.
            num_classes: C.
        """
        require_kind(self.outcomes.y_shape, tuple(data.y.shape[2:]), type(self).__name__)
        labels = torch.where(data.mask, data.y, 0)
        if torch.compiler.is_compiling():
            return labels
        if bool(((labels < 0) | (labels >= num_classes)).any()):
            low, high = int(labels.min()), int(labels.max())
            raise DataError(f"expected labels from 0 to {num_classes - 1}, got labels from {low} to {high}")
        return labels
