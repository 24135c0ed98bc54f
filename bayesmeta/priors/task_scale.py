"""The scale of a task: a factor of all its variances that tasks do not have in common.

    λ ~ InvGamma(ν/2, (ν - 2)/2),   y | λ ~ N(m, λ K)

so that E λ = 1 and K stays the covariance of y. With λ integrated out y is Student's t with ν degrees of freedom; as
ν grows all tasks have one scale, λ = 1. A Student-t process is what a Gaussian process becomes (Shah, Wilson,
Ghahramani 2014, "Student-t processes as alternatives to Gaussian processes").
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.annotations import checked
from bayesmeta.errors import DataError
from bayesmeta.inverse_gamma import InverseGamma
from bayesmeta.noise import Positive
from bayesmeta.priors.prior import Prior, value_of
from bayesmeta.typing import Params

LARGEST = 1e10  # degrees of freedom: tasks of one scale, to ten digits


class TaskScale(Prior):
    """p(λ | theta): λ ~ InvGamma(ν/2, (ν - 2)/2), the factor of a task's variances, of mean 1.

    Give one to `ALPaCA`, `MixtureALPaCA`, `R2D2Regressor` or `DeepKernelTransfer` where tasks scatter unlike each
    other: the deviations of a task's weights from the prior mean and its noise have the common factor √λ, which a few
    of its points tell. Predictions become Student's t, whose width depends on the outcomes seen; adapting costs the
    same. ν is learned with the rest of theta: it says how unlike the tasks are.

    In phi it is `log_scale`, log λ, so that all of phi are real numbers: densities are those of log λ.

    Args:
        dof: the starting ν. At 4 two thirds of the tasks have a λ between .3 and 1.4, and one in ten above 1.9.
        bounds: the smallest and the largest ν, above 2: below, λ has no mean.

    Raises:
        DataError: bounds that are not above 2 and increasing, or a ν outside of them.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.ALPaCA(bm.MLP(1, [16, 8]), scale=bm.priors.TaskScale(dof=6.0))
        >>> round(learner.scale.dof().item(), 3)
        6.0
        >>> draws = learner.prior.sample(3)  # W and log λ of three tasks
        >>> draws["weight"].shape, draws["log_scale"].shape
        (torch.Size([3, 8, 1]), torch.Size([3]))
    """

    @checked
    def __init__(self, dof: float = 4.0, bounds: tuple[float, float] = (2.01, LARGEST)) -> None:
        super().__init__()
        lower, upper = bounds
        if not (2.0 < lower < dof < upper < math.inf):
            raise DataError(f"expected bounds with 2 < lower < dof < upper, got ({lower}, {upper}) and dof {dof}")
        self.above_two = Positive((), dof - 2.0, (lower - 2.0, upper - 2.0))

    def dof(self) -> Float[Tensor, ""]:
        """ν, above 2."""
        return 2.0 + self.above_two()

    def belief(self, num_tasks: int) -> InverseGamma:
        """p(λ) of every task, in float64, for inference.

        Args:
            num_tasks: B.
        """
        rate = 0.5 * self.above_two().double()
        return InverseGamma(1.0 + rate, rate).of_tasks(num_tasks)

    @property
    def mean(self) -> Params:
        """E log λ = log((ν - 2)/2) - ψ(ν/2), with ψ the digamma function."""
        rate = 0.5 * self.above_two()
        return {"log_scale": rate.log() - (1.0 + rate).digamma()}

    def log_prob(self, phi: Params) -> Float[Tensor, "*s B"]:
        """The log density of log λ, in nats."""
        log_scale = value_of(phi, "log_scale", self.mean["log_scale"])
        rate = 0.5 * self.above_two().to(torch.promote_types(log_scale.dtype, self.above_two.raw.dtype))
        shape = 1.0 + rate
        return shape * (rate.log() - log_scale) - shape.lgamma() - rate * (-log_scale).exp()

    def sample(self, num_tasks: int, generator: torch.Generator | None = None) -> Params:
        """Draws of log λ."""
        draws = self.belief(num_tasks).rsample((), generator).log()
        return {"log_scale": draws.to(self.above_two.raw.dtype)}
