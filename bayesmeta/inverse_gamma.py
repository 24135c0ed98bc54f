"""The inverse gamma distribution of a variance factor: what a task's own scale is believed to be."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import Gamma

from bayesmeta.distributions import seeded
from bayesmeta.multivariate_student_t import log_student_t


@dataclass(frozen=True, eq=False)
class InverseGamma:
    """λ ~ InvGamma(a, b) of each task, with density b^a / Γ(a) λ^(-a-1) e^(-b/λ): conjugate to r ~ N(0, λ K).

        λ | r ~ InvGamma(a + n/2, b + q/2),   q = rᵀ K⁻¹ r of n numbers r
        r ~ Student's t with 2a degrees of freedom and shape matrix (b / a) K

    It is a value; everything is elementwise in the tasks.

    Attributes:
        shape: a, `*b`, above 1, so that λ has the mean b / (a - 1).
        rate: b, `*b`, positive, in units of λ.

    Example:
        >>> prior = InverseGamma(torch.tensor(2.0), torch.tensor(1.0))  # of mean 1
        >>> posterior = prior.after(torch.tensor(4.0), torch.tensor(12.0))  # four numbers three times as large
        >>> prior.mean.item(), round(posterior.mean.item(), 2), posterior.dof.item()
        (1.0, 2.33, 8.0)
    """

    shape: Float[Tensor, "*b"]
    rate: Float[Tensor, "*b"]

    @property
    def dof(self) -> Float[Tensor, "*b"]:
        """2a, the degrees of freedom of the Student's t."""
        return 2.0 * self.shape

    @property
    def factor(self) -> Float[Tensor, "*b"]:
        """b / a: the shape matrix of the Student's t in units of K."""
        return self.rate / self.shape

    @property
    def mean(self) -> Float[Tensor, "*b"]:
        """E λ: the covariance of the Student's t in units of K."""
        return self.rate / (self.shape - 1.0)

    def after(self, count: Tensor, squares: Tensor) -> "InverseGamma":
        """λ given n numbers.

        Args:
            count: n.
            squares: q, their squared distance from their mean in units of K.
        """
        return InverseGamma(self.shape + 0.5 * count, self.rate + 0.5 * squares)

    def log_evidence(self, count: Tensor | float, squares: Tensor, log_determinant: Tensor) -> Tensor:
        """log ∫ N(r; 0, λ K) p(λ) dλ, in nats.

        Args:
            count: n.
            squares: q.
            log_determinant: log|K|.
        """
        return log_student_t(self.shape, self.rate, count, squares, log_determinant)

    def of_points(self, axes: int) -> "InverseGamma":
        """The same with further axes of length 1, to go with arrays over the points of a task.

        Args:
            axes: their number.
        """
        index = (..., *[None] * axes)
        return InverseGamma(self.shape[index], self.rate[index])

    def of_tasks(self, num_tasks: int) -> "InverseGamma":
        """One belief that all tasks have.

        Args:
            num_tasks: B.
        """
        return InverseGamma(self.shape.expand(num_tasks), self.rate.expand(num_tasks))

    def repeated(self, count: int) -> "InverseGamma":
        """That of every task several times, task by task.

        Args:
            count: how many times.
        """
        return InverseGamma(self.shape.repeat_interleave(count), self.rate.repeat_interleave(count))

    def select(self, tasks: Int[Tensor, "*K"]) -> "InverseGamma":
        """Of the tasks at these positions."""
        return InverseGamma(self.shape[tasks], self.rate[tasks])

    def rsample(
        self, sample_shape: tuple[int, ...] | torch.Size = (), generator: torch.Generator | None = None
    ) -> Float[Tensor, "*s_b"]:
        """Draws of λ, made in float64: the same ones in every precision, up to rounding.

        Args:
            sample_shape: the leading axes of the draws.
            generator: torch's global one when None.
        """
        gamma = Gamma(self.shape.double(), torch.ones_like(self.rate, dtype=torch.float64), validate_args=False)
        with seeded(generator):
            draws = gamma.rsample(torch.Size(sample_shape))
        return (self.rate.double() / draws).to(self.rate.dtype)
