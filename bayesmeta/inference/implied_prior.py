"""The prior under which a few steps of gradient ascent are the exact MAP estimate.

In a linear-Gaussian model k steps at rate a on the log likelihood, from theta, end at the mode of the posterior under
N(theta, Q). In the eigenbasis of the Gauss-Newton matrix G of the support, with eigenvalues l (Santos 1996; Grant et
al. 2018, arXiv:1801.08930, sec. 3.2):

    prior precision      q = l (1 - a l)^k / (1 - (1 - a l)^k)
    posterior variance   1 / (q + l) = (1 - (1 - a l)^k) / l
    where l = 0          both variances are k a

It is a prior only while a l < 1: at a l = 1 it is flat (one step already forgets theta), and beyond that ascent
overshoots: q is negative for odd k, and for even k it grows with the overshoot, which describes no belief.
Rates of each parameter, the diagonal of S², are the same thing in the coordinates S⁻¹ phi. For a network this is its
linearisation at theta.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.distributions import common_normals
from bayesmeta.errors import InferenceError
from bayesmeta.inference.laplace import Curvature
from bayesmeta.one_line import InShort
from bayesmeta.typing import Params


@dataclass(frozen=True, eq=False)
class ImpliedPrior(InShort):
    """N(theta, Q), the prior under which steps of gradient ascent are MAP inference: of each task, a value.

    It depends on the inputs of the support, as the steps do. `MAML.implied_prior` and `implied_prior` give it.

    Attributes:
        mean: theta, each value `*shape`.
        steps: k.
        scale: S, square roots of the rates (on the sum over points), `B P`.
        information: a l, the eigenvalues of S G S along `directions`, `B R`; all of them in [0, 1).
        directions: orthonormal, `B P R`; zero where there are fewer than R. The support sees nothing beyond their span.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.MAML(bm.MLP(1, [4]), steps=2, lr=0.1)
        >>> prior = learner.implied_prior(bm.Data.from_arrays([1.0, 2.0], [0.0, 0.0]))
        >>> prior.covariance().shape, prior.sample()["output.weight"].shape
        (torch.Size([1, 13, 13]), torch.Size([1, 1, 4]))
    """

    mean: Params
    steps: int
    scale: Float[Tensor, "B P"]
    information: Float[Tensor, "B R"]
    directions: Float[Tensor, "B P R"]

    @property
    def unseen_variance(self) -> Float[Tensor, "B P"]:
        """k a: the prior variance of a direction that the support does not see."""
        return self.steps * self.scale.square()

    @property
    def excess(self) -> Float[Tensor, "B R"]:
        """The prior variance along each direction, over k, in units of S²: 1/q = s(l) / (1 - l)^k."""
        left = 1.0 - self.information
        series = torch.stack([left**i for i in range(self.steps)]).sum(0)  # (1 - (1 - l)^k) / l
        return series / left**self.steps - self.steps

    def covariance(self) -> Float[Tensor, "B P P"]:
        """Q, dense: for small P."""
        eye = torch.eye(self.scale.shape[1], dtype=self.scale.dtype, device=self.scale.device)
        white = self.steps * eye + (self.directions * self.excess[:, None]) @ self.directions.mT
        return self.scale[:, :, None] * white * self.scale[:, None]

    def function_covariance(self, jacobian: Float[Tensor, "B M K P"]) -> Float[Tensor, "B MK MK"]:
        """J Q Jᵀ, the prior covariance of the linearised network outputs over M points and K outputs.

        Args:
            jacobian: J at theta.
        """
        rows = (jacobian.to(self.scale.dtype) * self.scale[:, None, None]).flatten(1, 2)
        along = rows @ self.directions
        return self.steps * rows @ rows.mT + (along * self.excess[:, None]) @ along.mT

    def sample(self, generator: torch.Generator | None = None) -> Params:
        """One draw of phi for each task: each value `B *shape`."""
        size_b, size_p = self.scale.shape
        normal = common_normals((size_b, size_p), self.scale, generator)
        root = self.steps**0.5
        along = (self.directions.mT @ normal[..., None])[..., 0]
        extra = (self.steps + self.excess).sqrt() - root
        white = root * normal + (self.directions @ (extra * along)[..., None])[..., 0]
        flat, draws, start = self.scale * white, {}, 0
        for name, value in self.mean.items():
            draws[name] = value + flat[:, start : start + value.numel()].reshape(size_b, *value.shape).to(value.dtype)
            start += value.numel()
        return draws


def implied_prior(mean: Params, steps: int, curvature: Curvature) -> ImpliedPrior:
    """The prior of k steps on the support, whose step sizes on the sum over points are S².

    Args:
        mean: theta, each value `*shape`.
        steps: k.
        curvature: the Gauss-Newton matrix of the support at theta, and S².

    Raises:
        InferenceError: a l >= 1 for some task: those steps are the MAP under no prior.

    Example:
        >>> from bayesmeta.networks.jacobian import DenseJacobian
        >>> shapes = {"w": torch.Size([1])}  # f(x; w) = x w at x = 1, in units of the noise: J = 1, so that G = 1
        >>> rows, rate = DenseJacobian(torch.ones(1, 1, 1, 1), shapes), {"w": torch.tensor([0.5])}
        >>> prior = implied_prior({"w": torch.zeros(1)}, 1, Curvature(rows, rate, shapes))
        >>> round(prior.covariance().item(), 3)  # a / (1 - a)
        1.0
    """
    rows = curvature.white()
    scale = curvature.scale().expand(len(rows), -1)
    values, vectors = torch.linalg.eigh(rows @ rows.mT)
    worst = values.amax(-1) if values.shape[-1] else values.new_zeros(values.shape[0])
    if bool((worst >= 1.0).any()):
        task = int(worst.argmax())
        raise InferenceError(
            f"expected step sizes with rate times curvature below 1, got {worst[task].item():.4g} in task {task}: "
            "those steps overshoot, and no belief explains them. "
            f"Divide the step size by more than {worst[task].item():.4g}",
            task=task,
        )
    size = rows.square().sum((1, 2)).clamp(min=torch.finfo(rows.dtype).tiny)[:, None]
    seen = values > 1e-13 * size  # below this an eigenvalue is rounding, and its direction means nothing
    directions = rows.mT @ vectors / torch.where(seen, values, 1.0).sqrt()[:, None]
    return ImpliedPrior(mean, steps, scale, torch.where(seen, values, 0.0), torch.where(seen[:, None], directions, 0.0))
