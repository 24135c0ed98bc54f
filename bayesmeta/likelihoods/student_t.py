"""Noise with outliers."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, Independent
from torch.distributions import StudentT as StudentTDistribution

from bayesmeta.likelihoods.likelihood import Likelihood
from bayesmeta.noise import Positive
from bayesmeta.outcomes import Numbers
from bayesmeta.smoothed_student_t import SmoothedStudentT


class StudentT(Likelihood):
    """y ~ t_dof(f, scale), Student's t: regression that expects outliers, which a Gaussian would follow.

    The scale and the degrees of freedom are learned, for each output its own.

    Args:
        num_outputs: C.
        initial_scale: the starting scale, units of y.
        initial_dof: the starting degrees of freedom.
        scale_bounds: the smallest and the largest scale, units of y.
        dof_bounds: the smallest and the largest degrees of freedom; above 2 the variance exists.

    Raises:
        DataError: bounds that are not positive and increasing, or a starting value outside of them.

    Example:
        >>> import bayesmeta as bm
        >>> heavy = bm.likelihoods.StudentT(initial_scale=1.0, initial_dof=3.0)
        >>> light = bm.likelihoods.Gaussian(bm.noise.DiagonalNoise(initial=1.0))
        >>> f, outlier = torch.zeros(1, 1, 1), bm.Data.from_arrays([0.0], [8.0])
        >>> for likelihood in (heavy, light):  # log densities of an outcome 8 scales away
        ...     print(round(likelihood.log_prob(f, outlier).item(), 2))
        -7.21
        -32.92
    """

    def __init__(
        self,
        num_outputs: int = 1,
        initial_scale: float = 0.3,
        initial_dof: float = 5.0,
        scale_bounds: tuple[float, float] = (1e-4, 1e4),
        dof_bounds: tuple[float, float] = (2.0, 200.0),
    ) -> None:
        super().__init__()
        self.outcomes, self.network_outputs = Numbers(num_outputs), num_outputs
        self.scale = Positive((num_outputs,), initial_scale, scale_bounds)
        self.dof = Positive((num_outputs,), initial_dof, dof_bounds)

    def forward(self, f: Float[Tensor, "*b K"]) -> Distribution:
        """Student's t distribution around f."""
        return Independent(StudentTDistribution(self.dof(), f, self.scale(), validate_args=False), 1)

    def marginal(self, mean: Float[Tensor, "*b K"], variance: Float[Tensor, "*b K"]) -> Distribution:
        """Student's t around f ~ N(mean, variance), for each output: in its tail still a t, however uncertain f is."""
        dof, scale = self.dof().to(mean.dtype), self.scale().to(mean.dtype)
        return Independent(SmoothedStudentT(dof, mean, scale, variance, validate_args=False), 1)

    def curvature_root(self, f: Float[Tensor, "*b K"]) -> Float[Tensor, "*b K K"]:
        """Diagonal: R Rᵀ = (dof + 1) / ((dof + 3) scale²), the same at every f (Lange, Little and Taylor 1989).

        It is positive also where the Hessian at one y is not: an outlier lies where the log density is convex.
        """
        dof = self.dof()
        root = ((dof + 1.0) / (dof + 3.0)).sqrt() / self.scale()
        return torch.diag(root).to(f.dtype).expand(*f.shape, -1)

    def unit(self) -> Float[Tensor, ""]:
        """The geometric mean of the squared scales, squared units of y."""
        return (2.0 * self.scale().log().mean()).exp()
