"""Posteriors that BoTorch's acquisition functions understand.

one Gaussian                         GPyTorchPosterior, BoTorch's own
a mixture of S Gaussians alike       GaussianMixturePosterior, BoTorch's own: the model is an ensemble of S
unequal weights, Student's t         PartsPosterior: draws by base samples, smooth in the points
"""

import scipy.special
import torch
from botorch.posteriors.fully_bayesian import GaussianMixturePosterior
from botorch.posteriors.gpytorch import GPyTorchPosterior
from botorch.posteriors.posterior import Posterior
from botorch.sampling.get_sampler import GetSampler
from botorch.sampling.normal import IIDNormalSampler, SobolQMCNormalSampler
from gpytorch.distributions import MultitaskMultivariateNormal, MultivariateNormal
from gpytorch.settings import min_variance
from jaxtyping import Float, Int
from linear_operator import to_linear_operator
from linear_operator.utils.cholesky import psd_safe_cholesky
from torch import Tensor
from torch.quasirandom import SobolEngine
from typing_extensions import override

from bayesmeta.interop.botorch.parts import Parts

INSIDE = 1e-15  # how far a uniform number stays from 0 and 1
RAISE = 1e-8  # of each variance, where points are drawn together: f has a low rank, and a covariance is rounded


class PartsPosterior(Posterior):
    """Σ_s w_s ∫ N(m_s, λ K_s) p_s(λ) dλ as BoTorch's posterior.

    A draw is made of standard normal base samples: one for each number of each point, then one that chooses the part
    (where there are several), then one that is the quantile of λ (where parts are Student's t). Given them it is smooth
    in the points, so that acquisition functions over draws can be optimised. Gradients do not reach the weights.

    Args:
        parts: of each t-batch.

    Example:
        >>> import bayesmeta as bm
        >>> from bayesmeta.interop.botorch import PartsPosterior, TaskModel
        >>> learner = bm.ALPaCA(bm.Identity(1), scale=bm.priors.TaskScale())
        >>> x = torch.tensor([[0.0], [1.0]]).double()
        >>> posterior = TaskModel.adapted(learner, x, x).posterior(x + 0.5)  # Student's t
        >>> isinstance(posterior, PartsPosterior), posterior.base_sample_shape, posterior.rsample(torch.Size([5])).shape
        (True, torch.Size([3]), torch.Size([5, 2, 1]))
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    @property
    def dtype(self) -> torch.dtype:
        """That of the draws."""
        return self.parts.mean.dtype

    @property
    def device(self) -> torch.device:
        """That of the draws."""
        return self.parts.mean.device

    @property
    def batch_shape(self) -> torch.Size:
        """`*b`."""
        return self.parts.log_weights.shape[:-1]

    @property
    def event_shape(self) -> torch.Size:
        """`q m`."""
        return self.parts.mean.shape[-2:]

    @property
    @override
    def base_sample_shape(self) -> torch.Size:
        further = (self.parts.num_parts > 1) + (self.parts.scale is not None)
        return self.batch_shape + torch.Size([self.event_shape.numel() + further])

    @property
    @override
    def batch_range(self) -> tuple[int, int]:
        return (0, -1)

    @override
    def _extended_shape(self, sample_shape: torch.Size = torch.Size()) -> torch.Size:  # noqa: B008
        return torch.Size(sample_shape) + self.batch_shape + self.event_shape

    @property
    def mean(self) -> Float[Tensor, "*b q m"]:
        """Σ_s w_s m_s."""
        return self._average(self.parts.mean)

    @property
    def variance(self) -> Float[Tensor, "*b q m"]:
        """Σ_s w_s (E λ_s diag K_s + (m_s - mean)²)."""
        parts = self.parts
        own = parts.covariance.diagonal(dim1=-2, dim2=-1).unflatten(-1, self.event_shape)
        factor = parts.mean_factor
        if factor is not None:
            own = factor[..., None, None] * own
        return self._average(own + (parts.mean - self.mean.unsqueeze(-3)).square())

    @property
    def mvn(self) -> MultivariateNormal | MultitaskMultivariateNormal:
        """The Gaussian of the same mean and covariance, for what knows of Gaussians alone: entropy searches do."""
        parts, mean = self.parts, self.mean
        factor, apart = parts.mean_factor, (parts.mean - mean.unsqueeze(-3)).flatten(-2)
        own = parts.covariance if factor is None else factor[..., None, None] * parts.covariance
        both = own + apart[..., :, None] * apart[..., None, :]
        return multivariate_normal(mean, (parts.log_weights.exp()[..., None, None] * both).sum(-3))

    @property
    def distribution(self) -> MultivariateNormal | MultitaskMultivariateNormal:
        """The same as `mvn`, by its other name in BoTorch."""
        return self.mvn

    def _average(self, each: Float[Tensor, "*b S q m"]) -> Float[Tensor, "*b q m"]:
        return (self.parts.log_weights.exp()[..., None, None] * each).sum(-3)

    @override
    def rsample(self, sample_shape: torch.Size | None = None) -> Tensor:
        shape = torch.Size() if sample_shape is None else torch.Size(sample_shape)
        base = torch.randn(*shape, *self.base_sample_shape, dtype=self.dtype, device=self.device)
        return self.rsample_from_base_samples(shape, base)

    @override
    def rsample_from_base_samples(self, sample_shape: torch.Size, base_samples: Tensor) -> Tensor:
        parts, size = self.parts, self.event_shape.numel()
        normal, further = base_samples[..., :size], list(base_samples[..., size:].unbind(-1))
        root = psd_safe_cholesky(_raised(parts.covariance))
        each = torch.einsum("...sij,...j->...si", root, normal)  # of every part
        chosen: Int[Tensor, "*n b"] = torch.zeros_like(normal[..., 0], dtype=torch.long)
        if parts.num_parts > 1:
            ends = parts.log_weights.detach().exp().cumsum(-1)[..., :-1]
            chosen = (torch.special.ndtr(further.pop(0))[..., None] > ends).sum(-1)
        place = chosen[..., None, None]
        deviation = torch.take_along_dim(each, place, -2)[..., 0, :]
        mean = torch.take_along_dim(parts.mean.flatten(-2).expand(each.shape), place, -2)[..., 0, :]
        if parts.scale is not None:
            shape, rate = (
                torch.take_along_dim(value.expand(each.shape[:-1]), chosen[..., None], -1)[..., 0]
                for value in (parts.scale.shape, parts.scale.rate)
            )
            deviation = _factor(shape, rate, further.pop(0)).sqrt()[..., None] * deviation
        return (mean + deviation).unflatten(-1, self.event_shape)


def _factor(shape: Tensor, rate: Tensor, normal: Tensor) -> Tensor:
    """λ ~ InvGamma(shape, rate) at the quantile that a standard normal number is; 1 where both are infinite."""
    certain = shape.isinf()
    level = torch.special.ndtr(-normal).clamp(INSIDE, 1.0 - INSIDE)  # a large number is a large λ
    known = torch.where(certain, 1.0, shape).detach().cpu().numpy()
    gamma = torch.as_tensor(scipy.special.gammaincinv(known, level.detach().cpu().numpy()), device=rate.device)
    return torch.where(certain, 1.0, torch.where(certain, 1.0, rate) / gamma.to(rate.dtype))


@GetSampler.register(PartsPosterior)  # type: ignore[untyped-decorator]
def _sampler(
    posterior: PartsPosterior, sample_shape: torch.Size, *, seed: int | None = None
) -> SobolQMCNormalSampler | IIDNormalSampler:
    few = posterior.base_sample_shape[-1] <= SobolEngine.MAXDIM
    return (SobolQMCNormalSampler if few else IIDNormalSampler)(sample_shape=sample_shape, seed=seed)


def _raised(covariance: Float[Tensor, "*b N N"]) -> Float[Tensor, "*b N N"]:
    """With variances that are a little larger, each by a share of its own, so that there is a Cholesky factor.

    What is added where GPyTorch finds none is one number in whatever units, and a warning.
    """
    if covariance.shape[-1] == 1:
        return covariance
    variance = covariance.diagonal(dim1=-2, dim2=-1)
    return covariance + torch.diag_embed(RAISE * variance.clamp(min=0.0) + torch.finfo(covariance.dtype).tiny)


def multivariate_normal(
    mean: Float[Tensor, "*b q m"], covariance: Float[Tensor, "*b qm qm"]
) -> MultivariateNormal | MultitaskMultivariateNormal:
    """GPyTorch's Gaussian, of an f of low rank, too, and of members that are certain.

    GPyTorch raises variances to 1e-10 (1e-6 in single precision) with a warning; here that is done before it asks.

    Args:
        mean: units of y.
        covariance: the outputs of the first point, then those of the second.
    """
    least = 1.001 * min_variance.value(covariance.dtype)
    short = (least - covariance.diagonal(dim1=-2, dim2=-1)).clamp(min=0.0)
    operator = to_linear_operator(_raised(covariance + torch.diag_embed(short)))
    if mean.shape[-1] == 1:
        return MultivariateNormal(mean[..., 0], operator)
    return MultitaskMultivariateNormal(mean, operator, interleaved=True)


def posterior_of(parts: Parts, ensemble: bool) -> Posterior:
    """The parts as BoTorch's posterior.

    Args:
        parts: of each t-batch.
        ensemble: whether the model counts as an ensemble of its parts, which then are an axis of the posterior.
    """
    if ensemble:
        return GaussianMixturePosterior(multivariate_normal(parts.mean, parts.covariance))
    if parts.num_parts > 1 or parts.scale is not None:
        return PartsPosterior(parts)
    return GPyTorchPosterior(multivariate_normal(parts.mean[..., 0, :, :], parts.covariance[..., 0, :, :]))


def is_ensemble(parts: Parts) -> bool:
    """Whether these are several Gaussians of one weight, which BoTorch averages acquisition functions over.

    Args:
        parts: of each t-batch.
    """
    return parts.num_parts > 1 and parts.scale is None and parts.has_equal_weights
