"""The covariance between the points of a task, whatever its predictive is made of."""

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.errors import UnsupportedError
from bayesmeta.predictives.affine import AffinePredictive
from bayesmeta.predictives.dense_gaussian import DenseGaussianPredictive
from bayesmeta.predictives.gaussian import GaussianPredictive
from bayesmeta.predictives.independent import IndependentPredictive
from bayesmeta.predictives.low_rank_gaussian import LowRankGaussianPredictive
from bayesmeta.predictives.mixture import EnsemblePredictive, MixturePredictive
from bayesmeta.predictives.predictive import Predictive
from bayesmeta.predictives.side_by_side import SideBySidePredictive
from bayesmeta.predictives.student_t import StudentTPredictive


def covariance_of_points(predictive: Predictive) -> Float[Tensor, "B C M M"]:
    """The covariance between points, of each outcome on its own, squared units of y; observation noise included.

    Args:
        predictive: of numbers. Mixtures and moved outcomes are taken apart.

    Raises:
        UnsupportedError: the predictive does not know how its points vary together.

    Example:
        >>> import bayesmeta as bm
        >>> predictive = bm.ALPaCA(bm.Identity(1)).adapt(bm.Data.from_arrays([0.0], [1.0])).predict([5.0, 5.1])
        >>> covariance = covariance_of_points(predictive)
        >>> covariance.shape, torch.allclose(covariance[0, 0].diagonal(), predictive.variance.flatten())
        (torch.Size([1, 1, 2, 2]), True)
    """
    if isinstance(predictive, GaussianPredictive):
        return predictive.covariance()[:, None] * predictive.output_covariance.diagonal()[:, None, None]
    if isinstance(predictive, DenseGaussianPredictive):
        points, outputs = predictive.shape[1:]
        full = predictive.covariance().unflatten(-1, (points, outputs)).unflatten(1, (points, outputs))
        return full.diagonal(dim1=2, dim2=4).movedim(-1, 1)
    if isinstance(predictive, LowRankGaussianPredictive):
        factor = predictive.factor.movedim(2, 1)
        return factor @ factor.mT + torch.diag_embed(predictive.variances.mT)
    if isinstance(predictive, StudentTPredictive):
        return predictive.scale.mean[:, None, None, None] * covariance_of_points(predictive.gaussian)
    if isinstance(predictive, IndependentPredictive):
        return torch.diag_embed(predictive.variance.mT)
    if isinstance(predictive, AffinePredictive):
        scale = predictive.scale.expand(predictive.shape).mT  # B C M
        return scale[..., :, None] * scale[..., None, :] * covariance_of_points(predictive.base)
    if isinstance(predictive, SideBySidePredictive):
        return torch.cat([covariance_of_points(part).double() for part in predictive.parts], 1)
    if isinstance(predictive, MixturePredictive | EnsemblePredictive):
        return _of_mixture(predictive)
    raise UnsupportedError(f"{type(predictive).__name__} does not say how its points vary together: draw them (sample)")


def _of_mixture(predictive: MixturePredictive | EnsemblePredictive) -> Float[Tensor, "B C M M"]:
    """By the law of total covariance."""
    if isinstance(predictive, MixturePredictive):
        size = predictive.log_weights.shape
        within = covariance_of_points(predictive.components).unflatten(0, size)
        means = predictive.components.mean.unflatten(0, size)
    else:
        within = torch.stack([covariance_of_points(each) for each in predictive.components], 1)
        means = torch.stack([each.mean for each in predictive.components], 1)
    weights = predictive.log_weights.exp().to(means.dtype)
    spread = (means - torch.einsum("bs,bsmc->bmc", weights, means)[:, None]).mT  # B S C M
    return torch.einsum("bs,bscmn->bcmn", weights, within + spread[..., :, None] * spread[..., None, :])
