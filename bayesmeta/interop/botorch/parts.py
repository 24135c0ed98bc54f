"""A predictive as what acquisition functions need of it: weighted parts that are jointly Gaussian or Student's t."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import singledispatch

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal

from bayesmeta.errors import UnsupportedError
from bayesmeta.inverse_gamma import InverseGamma
from bayesmeta.predictives import (
    AffinePredictive,
    DenseGaussianPredictive,
    EnsemblePredictive,
    GaussianPredictive,
    IndependentPredictive,
    LowRankGaussianPredictive,
    MixturePredictive,
    Predictive,
    SideBySidePredictive,
    StudentTPredictive,
)
from bayesmeta.wrappers.hyper_posterior import ThetaMixture

ONE_TASK, ONE_POINT = 1, 2  # leading axes of parts that are joint over the points of a task, and of one point each


@dataclass(frozen=True, eq=False)
class Parts:
    """Σ_s w_s ∫ N(m_s, λ K_s) p_s(λ) dλ over q points that belong together: λ is 1 where a part is Gaussian.

    Attributes:
        log_weights: log w_s, normalised, `*b S`.
        mean: m_s, `*b S q m`, units of y.
        covariance: K_s, `*b S qm qm`, squared units of y; the outputs of the first point, then those of the second.
        scale: p_s(λ), `*b S`; of a Gaussian among Student's t its shape and rate are infinite. None where all are
            Gaussian.
    """

    log_weights: Float[Tensor, "*b S"]
    mean: Float[Tensor, "*b S q m"]
    covariance: Float[Tensor, "*b S qm qm"]
    scale: InverseGamma | None = None

    @property
    def num_parts(self) -> int:
        """S."""
        return self.log_weights.shape[-1]

    @property
    def has_equal_weights(self) -> bool:
        """Whether all parts of all tasks weigh the same, up to rounding."""
        weights = self.log_weights.detach().exp()
        return bool(((weights * self.num_parts - 1.0).abs() < 1e-6).all())

    @property
    def mean_factor(self) -> Float[Tensor, "*b S"] | None:
        """E λ of each part; None where all are Gaussian."""
        if self.scale is None:
            return None
        return torch.where(self.scale.shape.isinf(), 1.0, self.scale.mean)

    def each(self, change: Callable[[Tensor], Tensor]) -> "Parts":
        """The same change of the leading axes, or of the precision, of all tensors.

        Args:
            change: leaves the axes behind the leading ones as they are.
        """
        scale = None if self.scale is None else InverseGamma(change(self.scale.shape), change(self.scale.rate))
        return Parts(change(self.log_weights), change(self.mean), change(self.covariance), scale)

    def of_outputs(self, outputs: Sequence[int]) -> "Parts":
        """Of some of the outputs, in this order.

        Args:
            outputs: their positions.
        """
        points, num_outputs = self.mean.shape[-2:]
        index = torch.tensor(list(outputs), device=self.mean.device)
        places = (num_outputs * torch.arange(points, device=index.device)[:, None] + index).flatten()
        covariance = self.covariance[..., places, :][..., places]
        return replace(self, mean=self.mean[..., index], covariance=covariance)


def latent(predictive: Predictive) -> Predictive:
    """The predictive of f, without observation noise, of mixtures over draws of phi, too.

    A part of such a mixture knows its f: it is the mean of that part, and certain.

    Args:
        predictive: of numbers, with noise.

    Raises:
        UnsupportedError: f and noise do not separate.

    Example:
        >>> import bayesmeta as bm
        >>> from bayesmeta.interop.botorch.parts import latent
        >>> predictive = bm.ALPaCA(bm.Identity(1)).adapt(bm.Data.from_arrays([0.0], [1.0])).predict([0.5])
        >>> bool(latent(predictive).variance < predictive.variance)
        True
    """
    try:
        return predictive.noiseless
    except UnsupportedError:
        if isinstance(predictive, AffinePredictive):
            return replace(predictive, base=latent(predictive.base))
        if isinstance(predictive, EnsemblePredictive):
            return replace(predictive, components=tuple(latent(each) for each in predictive.components))
        if type(predictive) is MixturePredictive and isinstance(predictive.components, IndependentPredictive):
            mean = predictive.components.mean
            certain = Independent(Normal(mean, torch.zeros_like(mean), validate_args=False), 1)
            return replace(predictive, components=IndependentPredictive(certain))
        raise


@singledispatch
def parts(predictive: Predictive, leading: int) -> Parts:
    """The parts of a predictive.

    Args:
        predictive: at M points of B tasks.
        leading: `ONE_TASK` for parts that are joint over the points of a task, with leading axes `B`; `ONE_POINT` for
            those of each point on its own, with leading axes `B M` and q = 1.

    Raises:
        UnsupportedError: it does not consist of Gaussians and Student's t.

    Example:
        >>> import bayesmeta as bm
        >>> from bayesmeta.interop.botorch.parts import ONE_POINT, ONE_TASK, parts
        >>> predictive = bm.ALPaCA(bm.Identity(1)).adapt(bm.Data.from_arrays([0.0], [1.0])).predict([0.5, 0.7])
        >>> parts(predictive, ONE_TASK).covariance.shape, parts(predictive, ONE_POINT).covariance.shape
        (torch.Size([1, 1, 2, 2]), torch.Size([1, 2, 1, 1, 1]))
    """
    raise UnsupportedError(
        f"expected a predictive of Gaussians, Student's t or mixtures of them, got {type(predictive).__name__}: take "
        "the learner without a recalibration that bends distributions"
    )


def _one(mean: Tensor, joint: Callable[[], Tensor], blocks: Callable[[], Tensor], leading: int) -> Parts:
    """One part: its covariance over all points `B MC MC`, or that of each point `B M C C`."""
    covariance = joint() if leading == ONE_TASK else blocks()
    mean = mean if leading == ONE_TASK else mean[:, :, None]
    zero = mean.new_zeros((*mean.shape[:leading], 1))
    return Parts(zero, mean.unsqueeze(leading), covariance.unsqueeze(leading))


@parts.register
def _(predictive: GaussianPredictive, leading: int) -> Parts:
    outputs = predictive.output_covariance
    return _one(
        predictive.location,
        lambda: torch.kron(predictive.covariance(), outputs),
        lambda: predictive.point_variance[..., None, None] * outputs,
        leading,
    )


@parts.register
def _(predictive: DenseGaussianPredictive, leading: int) -> Parts:
    def blocks() -> Tensor:
        covariance = predictive.blocks + predictive.noise * predictive.noise_covariance
        known = predictive.known_noise
        return covariance if known is None else covariance + torch.diag_embed(known)

    return _one(predictive.location, predictive.covariance, blocks, leading)


@parts.register
def _(predictive: LowRankGaussianPredictive, leading: int) -> Parts:
    factor, variances = predictive.factor, predictive.variances
    flat = factor.flatten(1, 2)
    return _one(
        predictive.location,
        lambda: flat @ flat.mT + torch.diag_embed(variances.flatten(1)),
        lambda: factor @ factor.mT + torch.diag_embed(variances),
        leading,
    )


@parts.register
def _(predictive: IndependentPredictive, leading: int) -> Parts:
    marginals = predictive.marginals
    if isinstance(marginals, Independent) and isinstance(marginals.base_dist, Normal):
        blocks = torch.diag_embed(marginals.variance)
    elif isinstance(marginals, MultivariateNormal):
        blocks = marginals.covariance_matrix
    else:
        raise UnsupportedError(f"expected points that are Gaussian, got {type(marginals).__name__}: {marginals}")

    def joint() -> Tensor:
        tasks, points, outputs = blocks.shape[:3]
        eye = torch.eye(points, dtype=blocks.dtype, device=blocks.device)[:, None, :, None]
        return (eye * blocks[:, :, :, None]).reshape(tasks, points * outputs, points * outputs)

    return _one(marginals.mean, joint, lambda: blocks, leading)


@parts.register
def _(predictive: StudentTPredictive, leading: int) -> Parts:
    found = parts(predictive.gaussian, leading)
    axes = predictive.scale.of_points(leading)  # B 1, or B 1 1
    shape = found.log_weights.shape
    return replace(found, scale=InverseGamma(axes.shape.expand(shape), axes.rate.expand(shape)))


@parts.register
def _(predictive: AffinePredictive, leading: int) -> Parts:
    found = parts(predictive.base, leading)
    shape = predictive.shape
    shift, scale = (value.to(found.mean.dtype).expand(shape) for value in (predictive.shift, predictive.scale))
    if leading == ONE_POINT:
        shift, scale = shift[:, :, None], scale[:, :, None]
    shift, scale = shift.unsqueeze(leading), scale.unsqueeze(leading)  # of all parts
    root = scale.flatten(-2)
    covariance = root[..., :, None] * found.covariance * root[..., None, :]
    return replace(found, mean=shift + scale * found.mean, covariance=covariance)


@parts.register
def _(predictive: SideBySidePredictive, leading: int) -> Parts:
    each = [parts(one, leading) for one in predictive.parts]
    if any(one.num_parts > 1 or one.scale is not None for one in each):
        raise UnsupportedError(
            "expected outcomes that are one Gaussian each, got mixtures or Student's t side by side: give each outcome "
            "a TaskModel, and BoTorch a ModelList of them"
        )
    dtype = max((one.mean.dtype for one in each), key=lambda d: d.itemsize)
    mean = torch.cat([one.mean.to(dtype) for one in each], -1)
    blocks = torch.diag_embed(
        torch.stack([one.covariance.to(dtype) for one in each], -1)
    )  # M M C C, of independent ones
    covariance = blocks.transpose(-3, -2).flatten(-4, -3).flatten(-2, -1)
    return Parts(each[0].log_weights.to(dtype), mean, covariance)


@parts.register
def _(predictive: MixturePredictive, leading: int) -> Parts:
    inner = parts(predictive.components, leading)
    inner = inner.each(lambda value: value.unflatten(0, predictive.log_weights.shape).movedim(1, leading))
    weights = predictive.log_weights[:, None] if leading == ONE_POINT else predictive.log_weights
    weighted = replace(inner, log_weights=weights[..., None] + inner.log_weights)
    return weighted.each(lambda value: value.flatten(leading, leading + 1))


@parts.register
def _(predictive: EnsemblePredictive, leading: int) -> Parts:
    return _together(predictive.log_weights, [parts(each, leading) for each in predictive.components], leading)


@parts.register
def _(predictive: ThetaMixture, leading: int) -> Parts:
    if leading == ONE_TASK:  # its components are of single points alone
        each = [predictive.view(posterior.at(predictive.x)) for posterior in predictive.belief.posteriors]
        return _together(predictive.log_weights, [parts(member, leading) for member in each], leading)
    return parts.dispatch(MixturePredictive)(predictive, leading)


def _together(log_weights: Float[Tensor, "B S"], found: list[Parts], leading: int) -> Parts:
    """The parts of several, each with a weight."""
    if any(each.scale is not None for each in found):
        found = [each if each.scale is not None else _as_student_t(each) for each in found]
    shares = log_weights[:, None] if leading == ONE_POINT else log_weights
    shared = [replace(each, log_weights=each.log_weights + shares[..., [i]]) for i, each in enumerate(found)]
    scales = [each.scale for each in shared if each.scale is not None]
    scale = None
    if scales:
        scale = InverseGamma(torch.cat([s.shape for s in scales], -1), torch.cat([s.rate for s in scales], -1))
    return Parts(
        torch.cat([each.log_weights for each in shared], leading),
        torch.cat([each.mean for each in shared], leading),
        torch.cat([each.covariance for each in shared], leading),
        scale,
    )


def _as_student_t(gaussian: Parts) -> Parts:
    certain = torch.full_like(gaussian.log_weights, torch.inf)
    return replace(gaussian, scale=InverseGamma(certain, certain))
