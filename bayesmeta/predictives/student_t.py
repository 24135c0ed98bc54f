"""Points that are jointly Student's t: a Gaussian predictive whose task has a scale of its own."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import Distribution, Independent, StudentT
from typing_extensions import override

from bayesmeta import distributions
from bayesmeta.arguments import draw_shape
from bayesmeta.inverse_gamma import InverseGamma
from bayesmeta.linalg import cholesky, logdet, solve_lower
from bayesmeta.multivariate_student_t import MultivariateStudentT
from bayesmeta.predictives.gaussian import GaussianPredictive
from bayesmeta.predictives.predictive import Predictive, require_shape


@dataclass(frozen=True, eq=False, repr=False)
class StudentTPredictive(Predictive):
    """y | λ ~ N(m, λ K) with λ ~ InvGamma(a, b) of each task: all points and outputs share λ.

    With λ integrated out the points are jointly Student's t with 2a degrees of freedom, location m and shape matrix
    (b / a) K. It is the predictive of the learners that are given a `TaskScale`.

    Attributes:
        gaussian: N(m, K), the predictive at λ = 1.
        scale: p(λ | D) of each task.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.ALPaCA(bm.Polynomial(1, 0), scale=bm.priors.TaskScale(dof=4.0))
        >>> quiet, loud = (learner.adapt(bm.Data.from_arrays([0.0, 1.0], y)).predict([2.0]) for y in ([0, 0], [4, -4]))
        >>> isinstance(quiet, bm.predictives.StudentTPredictive)
        True
        >>> bool(loud.stddev > 2.0 * quiet.stddev)  # the outcomes seen say how much this task scatters
        True
    """

    gaussian: GaussianPredictive
    scale: InverseGamma

    @property
    @override
    def mean(self) -> Float[Tensor, "B M C"]:
        return self.gaussian.mean

    @property
    @override
    def variance(self) -> Float[Tensor, "B M C"]:
        return self.scale.mean[:, None, None] * self.gaussian.variance

    @property
    @override
    def shape(self) -> torch.Size:
        return self.gaussian.shape

    @property
    def marginals(self) -> Distribution:
        """Student's t distributions of batch shape (B, M) and event shape (C,)."""
        scale, gaussian = self.scale.of_points(1), self.gaussian
        if self.shape[-1] == 1:
            return Independent(StudentT(*self._parameters(), validate_args=False), 1)
        root = (scale.factor * gaussian.point_variance).sqrt()[..., None, None]
        factor = root * cholesky(gaussian.output_covariance, "noise covariance")
        return MultivariateStudentT(scale.dof.expand(self.shape[:2]), gaussian.mean, factor, validate_args=False)

    def log_prob(self, y: Float[Tensor, "B M C"], mask: Bool[Tensor, "B M"] | None = None) -> Float[Tensor, "B"]:
        """The joint log density of the real points, in nats."""
        return self.scale.log_evidence(*self.gaussian.quadratic_form(y, mask))

    @override
    def marginal_log_prob(self, y: Float[Tensor, "B M C"]) -> Float[Tensor, "B M"]:
        require_shape(y, self.shape)
        outputs = cholesky(self.gaussian.output_covariance, "noise covariance")
        variance, num_outputs = self.gaussian.point_variance, self.shape[-1]
        white = solve_lower(outputs, (y.to(self.mean.dtype) - self.mean).mT)  # C M
        determinant = num_outputs * variance.log() + logdet(outputs)
        return self.scale.of_points(1).log_evidence(float(num_outputs), white.square().sum(-2) / variance, determinant)

    @override
    def output_log_prob(self, y: Float[Tensor, "B M C"]) -> Float[Tensor, "B M C"]:
        require_shape(y, self.shape)
        variance = self.gaussian.variance
        squares = (y.to(variance.dtype) - self.mean).square() / variance
        return self.scale.of_points(2).log_evidence(1.0, squares, variance.log())

    @override
    def cdf(self, y: Float[Tensor, "B M C"]) -> Float[Tensor, "B M C"]:
        require_shape(y, self.shape)
        return distributions.cdf(StudentT(*self._parameters(), validate_args=False), y)

    def _parameters(self) -> tuple[Tensor, Tensor, Tensor]:
        """Degrees of freedom, location and scale of each output on its own."""
        scale = self.scale.of_points(2)
        return scale.dof, self.mean, (scale.factor * self.gaussian.variance).sqrt()

    def _quantile(self, q: float) -> Tensor:
        dof, location, scale = self._parameters()  # of each task one standard quantile: they are slow
        unit = torch.zeros_like(dof)
        return location + scale * distributions.quantile(StudentT(dof, unit, unit + 1.0, validate_args=False), q)

    def rsample(
        self, sample_shape: tuple[int, ...] | int = (), generator: torch.Generator | None = None
    ) -> Float[Tensor, "*s B M C"]:
        """Joint draws: one λ for each draw of a task, then its points."""
        shape = draw_shape(sample_shape)
        deviation = self.scale.rsample(shape, generator).sqrt()[..., None, None]
        return self.mean + deviation * (self.gaussian.rsample(shape, generator) - self.mean)

    @property
    def noiseless(self) -> "StudentTPredictive":
        """The predictive of f, whose deviations have the scale λ, too."""
        return replace(self, gaussian=self.gaussian.noiseless)
