"""Scores of a predictive distribution against what was observed: one value per task, padding ignored.

Scores take `(predictive, y, mask)` and return `B`, the mean over the real points of each task; a task without points
has no score and gets NaN. With several outputs, densities are joint over the outputs of a point, and every other score
is averaged over outputs, so that an output of large units weighs more in `rmse`, `mae` and `crps`.

Calibration errors take probability integral transforms (`pit`), per task or, through `pooled`, over all tasks at once.
The two are different questions: the points of a task share one posterior, so their transforms are dependent and the
calibration error of a single task does not go to zero, however many points it has and however right the model is.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.distributions import MixtureSameFamily, MultivariateNormal, Normal, StudentT

from bayesmeta.arguments import probability
from bayesmeta.distributions import cdf, univariate
from bayesmeta.errors import DataError, ShapeError
from bayesmeta.left_censored import LeftCensored
from bayesmeta.multivariate_student_t import log_gamma_ratio, log_student_t
from bayesmeta.predictives import (
    AffinePredictive,
    EnsemblePredictive,
    ExponentialPredictive,
    MixturePredictive,
    Predictive,
)
from bayesmeta.smoothed_student_t import SmoothedStudentT

LEVELS: tuple[float, ...] = tuple(np.linspace(0.05, 0.95, 20).tolist())
"""Levels of the calibration errors unless others are given: linspace(.05, .95, 20), as in the PACOH code."""

_MOST_COUNTS = 400  # terms of the CRPS of counts that are added one by one
_OF_PIT = 2009  # seed of what makes the transforms of counts continuous
_RARE = 1e-4  # what is left of their probability where the sum ends: its square is what counts
_MOST_COMPONENTS = 128  # up to here the closed-form CRPS, quadratic in the components, is the cheaper one


def joint_nll(
    predictive: Predictive, y: Shaped[Tensor, "B M *c"], mask: Bool[Tensor, "B M"] | None = None
) -> Float[Tensor, "B"]:
    """-log p(y_1..y_M | x, D, theta) / M, nats per point: how well the points are predicted together.

    Example:
        >>> from torch.distributions import Independent
        >>> from bayesmeta.predictives import IndependentPredictive
        >>> predictive = IndependentPredictive(Independent(Normal(torch.zeros(1, 2, 1), 1.0), 1))
        >>> joint_nll(predictive, torch.zeros(1, 2, 1))  # log √(2π)
        tensor([0.9189], dtype=torch.float64)
    """
    if y.shape[1] == 0:
        return torch.full((len(y),), math.nan, dtype=torch.float64, device=y.device)
    count = _mask(y, mask).sum(-1)
    return -predictive.log_prob(_zeroed(y, mask), mask).double() / torch.where(count > 0, count.double(), math.nan)


def marginal_nll(
    predictive: Predictive, y: Shaped[Tensor, "B M *c"], mask: Bool[Tensor, "B M"] | None = None
) -> Float[Tensor, "B"]:
    """-Σ_m log p(y_m | x_m, D, theta) / M, nats per point: each point on its own, jointly over its outputs.

    Example:
        >>> from torch.distributions import Independent
        >>> from bayesmeta.predictives import IndependentPredictive
        >>> predictive = IndependentPredictive(Independent(Normal(torch.zeros(1, 2, 1), 1.0), 1))
        >>> marginal_nll(predictive, torch.tensor([[[0.0], [9.0]]]), torch.tensor([[True, False]]))
        tensor([0.9189], dtype=torch.float64)
    """
    return average(-predictive.marginal_log_prob(_zeroed(y, mask)), _mask(y, mask))


def mse(
    predictive: Predictive, y: Float[Tensor, "B M C"], mask: Bool[Tensor, "B M"] | None = None
) -> Float[Tensor, "B"]:
    """Mean squared error of the predictive mean, squared units of y.

    Example:
        >>> from torch.distributions import Independent
        >>> from bayesmeta.predictives import IndependentPredictive
        >>> predictive = IndependentPredictive(Independent(Normal(torch.zeros(1, 2, 1), 1.0), 1))
        >>> mse(predictive, torch.tensor([[[1.0], [3.0]]]))
        tensor([5.], dtype=torch.float64)
    """
    return average((predictive.mean - y).square(), _mask(y, mask))


def rmse(
    predictive: Predictive, y: Float[Tensor, "B M C"], mask: Bool[Tensor, "B M"] | None = None
) -> Float[Tensor, "B"]:
    """Root mean squared error of the predictive mean, √mse, units of y.

    Example:
        >>> from torch.distributions import Independent
        >>> from bayesmeta.predictives import IndependentPredictive
        >>> predictive = IndependentPredictive(Independent(Normal(torch.zeros(1, 2, 1), 1.0), 1))
        >>> rmse(predictive, torch.tensor([[[3.0], [3.0]]]))
        tensor([3.], dtype=torch.float64)
    """
    return mse(predictive, y, mask).sqrt()


def mae(
    predictive: Predictive, y: Float[Tensor, "B M C"], mask: Bool[Tensor, "B M"] | None = None
) -> Float[Tensor, "B"]:
    """Mean absolute error of the predictive median, which is what minimises it; units of y.

    Example:
        >>> from torch.distributions import Independent
        >>> from bayesmeta.predictives import IndependentPredictive
        >>> predictive = IndependentPredictive(Independent(Normal(torch.zeros(1, 2, 1), 1.0), 1))
        >>> mae(predictive, torch.tensor([[[1.0], [3.0]]]))
        tensor([2.], dtype=torch.float64)
    """
    return average((predictive.quantile(0.5) - y).abs(), _mask(y, mask))


def crps(
    predictive: Predictive, y: Float[Tensor, "B M C"], mask: Bool[Tensor, "B M"] | None = None
) -> Float[Tensor, "B"]:
    """Continuous ranked probability score ∫ (F(z) - 1{y <= z})² dz, units of y; output by output.

    It is the absolute error when the predictive is a point. Gaussians and mixtures of them have a closed form (Grimit
    et al. 2006), and so has Student's t (Jordan, Krüger, Lerch 2019); other predictives, and mixtures of more than 128
    components, are integrated numerically. Of counts it is the sum Σ_k (F(k) - 1{y <= k})².

    Example:
        >>> from torch.distributions import Independent
        >>> from bayesmeta.predictives import IndependentPredictive
        >>> predictive = IndependentPredictive(Independent(Normal(torch.zeros(1, 2, 1), 1.0), 1))
        >>> crps(predictive, torch.zeros(1, 2, 1))  # (√2 - 1) / √π
        tensor([0.2337], dtype=torch.float64)
    """
    return average(point_crps(predictive, y), _mask(y, mask))


def point_crps(predictive: Predictive, y: Float[Tensor, "B M C"]) -> Float[Tensor, "B M C"]:
    """`crps` of each outcome of each point, units of y.

    Args:
        predictive: at the points.
        y: the outcomes.

    Example:
        >>> from torch.distributions import Independent
        >>> from bayesmeta.predictives import IndependentPredictive
        >>> predictive = IndependentPredictive(Independent(Normal(torch.zeros(1, 2, 1), 1.0), 1))
        >>> point_crps(predictive, torch.zeros(1, 2, 1)).shape
        torch.Size([1, 2, 1])
    """
    gaussians = _gaussians(predictive)
    if gaussians is not None and gaussians[0].shape[-1] <= _MOST_COMPONENTS:
        return _mixture_crps(*gaussians, y)
    marginals = univariate(predictive.marginals)
    if isinstance(marginals, StudentT) and bool((marginals.df > 1.0).all()):
        return _student_crps(marginals, y)
    if predictive.of_counts:
        return _count_crps(predictive, y)
    if isinstance(predictive, ExponentialPredictive):  # in the logarithms: tails are long otherwise
        logs = torch.where(y > 0.0, y, 1.0).log()
        return _numerical_crps(predictive.base, logs, reach=8.0, slope=torch.exp)
    return _numerical_crps(predictive, y)


def pit(predictive: Predictive, y: Float[Tensor, "B M C"]) -> Float[Tensor, "B M C"]:
    """Probability integral transform F(y) of each output of each point: uniform on (0, 1) under the true predictive.

    Of counts it is randomised, F(y - 1) + v (F(y) - F(y - 1)) with v uniform, which is uniform where F(y) is not
    (Czado, Gneiting & Held 2009, "Predictive model assessment for count data"); the v are the same at every call.

    Example:
        >>> from torch.distributions import Independent
        >>> from bayesmeta.predictives import IndependentPredictive
        >>> predictive = IndependentPredictive(Independent(Normal(torch.zeros(1, 2, 1), 1.0), 1))
        >>> pit(predictive, torch.tensor([[[0.0], [1.645]]])).flatten()
        tensor([0.5000, 0.9500])
    """
    above = predictive.cdf(y)
    if not predictive.of_counts:
        return above
    v = torch.rand(y.shape, generator=torch.Generator().manual_seed(_OF_PIT), dtype=torch.float64).to(above)
    below = predictive.cdf(y - 1.0)
    return below + v * (above - below)


def coverage(
    predictive: Predictive, y: Float[Tensor, "B M C"], mask: Bool[Tensor, "B M"] | None = None, level: float = 0.9
) -> Float[Tensor, "B"]:
    """Share of the points inside the central interval that should hold `level` of them.

    The interval of counts has whole ends and holds more than `level`. Here a count at an end is inside with the
    probability with which it would have to be for `level` exactly: the expectation of the randomised `pit`, so that
    the right predictive has a coverage of `level` for counts, too.

    Raises:
        DataError: a level outside (0, 1).

    Example:
        >>> from torch.distributions import Independent
        >>> from bayesmeta.predictives import IndependentPredictive
        >>> predictive = IndependentPredictive(Independent(Normal(torch.zeros(1, 2, 1), 1.0), 1))
        >>> coverage(predictive, torch.tensor([[[0.5], [2.5]]]), level=0.9)
        tensor([0.5000], dtype=torch.float64)
    """
    check_level(level)
    return average(inside(predictive, y, level), _mask(y, mask))


def inside(
    predictive: Predictive, y: Float[Tensor, "B M C"], level: float, pit: Float[Tensor, "B M C"] | None = None
) -> Float[Tensor, "B M C"]:
    """How much of each outcome is inside the central interval: 1 or 0, and of counts at an end something between.

    Args:
        predictive: at the points of each task.
        y: outcomes.
        level: the probability of the interval.
        pit: F(y), where it is known.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.MAML(bm.MLP(1, [8]), likelihood=bm.likelihoods.Poisson())
        >>> prediction = learner.adapt(bm.Data.from_arrays([], [])).predict([0.0])
        >>> shares = [inside(prediction, torch.full((1, 1, 1), float(y)), 0.9).item() for y in range(9)]
        >>> weights = [prediction.log_prob(torch.full((1, 1, 1), float(y))).exp().item() for y in range(9)]
        >>> round(sum(share * weight for share, weight in zip(shares, weights)), 2)
        0.9
    """
    low, high = (1.0 - level) / 2.0, (1.0 + level) / 2.0  # F(lower) and F(upper)
    above = predictive.cdf(y).double() if pit is None or predictive.of_counts else pit.double()
    if not predictive.of_counts:
        return ((above - 0.5).abs() <= level / 2.0).double()
    below = predictive.cdf(y - 1.0).double()
    held = above.clamp(max=high) - below.clamp(min=low)
    return (held.clamp(min=0.0) / (above - below).clamp(min=1e-300)).clamp(max=1.0)


def interval_width(
    predictive: Predictive, mask: Bool[Tensor, "B M"] | None = None, level: float = 0.9
) -> Float[Tensor, "B"]:
    """Mean width of the central interval, units of y.

    Args:
        predictive: at the points of each task.
        mask: True = real; all by default.
        level: the probability of the interval.

    Raises:
        DataError: a level outside (0, 1).

    Example:
        >>> from torch.distributions import Independent
        >>> from bayesmeta.predictives import IndependentPredictive
        >>> predictive = IndependentPredictive(Independent(Normal(torch.zeros(1, 2, 1), 1.0), 1))
        >>> interval_width(predictive, level=0.95).round(decimals=2)
        tensor([3.9200], dtype=torch.float64)
    """
    check_level(level)
    lower, upper = predictive.interval(level)
    return average(upper - lower, _mask(lower, mask))


def sharpness(predictive: Predictive, mask: Bool[Tensor, "B M"] | None = None) -> Float[Tensor, "B"]:
    """Mean predictive variance, noise included, squared units of y (Kuleshov et al. 2018). Small is sharp.

    Example:
        >>> from torch.distributions import Independent
        >>> from bayesmeta.predictives import IndependentPredictive
        >>> predictive = IndependentPredictive(Independent(Normal(torch.zeros(1, 2, 1), 2.0), 1))
        >>> sharpness(predictive)
        tensor([4.], dtype=torch.float64)
    """
    variance = predictive.variance
    return average(variance, _mask(variance, mask))


def accuracy(
    predictive: Predictive, y: Int[Tensor, "B M"], mask: Bool[Tensor, "B M"] | None = None
) -> Float[Tensor, "B"]:
    """Share of the labels that are the most probable class; a label that ties with k - 1 others counts 1/k.

    Example:
        >>> from torch.distributions import Categorical
        >>> from bayesmeta.predictives import IndependentPredictive
        >>> predictive = IndependentPredictive(Categorical(torch.tensor([[[0.9, 0.1], [0.4, 0.6]]])))
        >>> accuracy(predictive, torch.tensor([[0, 0]]))
        tensor([0.5000], dtype=torch.float64)
    """
    return average(is_correct(predictive, y), _mask(y, mask))


def brier(predictive: Predictive, y: Int[Tensor, "B M"], mask: Bool[Tensor, "B M"] | None = None) -> Float[Tensor, "B"]:
    """Brier score Σ_c (p_c - 1{y = c})², between 0 and 2 (Brier's own definition, summed over the classes).

    Example:
        >>> from torch.distributions import Categorical
        >>> from bayesmeta.predictives import IndependentPredictive
        >>> predictive = IndependentPredictive(Categorical(torch.tensor([[[0.9, 0.1], [0.4, 0.6]]])))
        >>> brier(predictive, torch.tensor([[0, 0]]))  # (2 · 0.1² + 2 · 0.6²) / 2
        tensor([0.3700], dtype=torch.float64)
    """
    probs = predictive.probs
    truth = torch.nn.functional.one_hot(_zeroed(y, mask), probs.shape[-1])
    return average((probs - truth).square().sum(-1), _mask(y, mask))


def confidence(predictive: Predictive) -> Float[Tensor, "B M"]:
    """Probability of the most probable class at each point.

    Example:
        >>> from torch.distributions import Categorical
        >>> from bayesmeta.predictives import IndependentPredictive
        >>> predictive = IndependentPredictive(Categorical(torch.tensor([[[0.9, 0.1], [0.4, 0.6]]])))
        >>> confidence(predictive)
        tensor([[0.9000, 0.6000]])
    """
    return predictive.probs.amax(-1)


def is_correct(predictive: Predictive, y: Int[Tensor, "B M"]) -> Float[Tensor, "B M"]:
    """1 where the most probable class is the label, 0 where it is not, and 1/k where the label is one of k that tie.

    That is how often a choice among them at random is right. Otherwise a classifier that says nothing would be right
    wherever the label is the class that happens to be first.

    Example:
        >>> from torch.distributions import Categorical
        >>> from bayesmeta.predictives import IndependentPredictive
        >>> predictive = IndependentPredictive(Categorical(torch.tensor([[[0.9, 0.1], [0.4, 0.6], [0.5, 0.5]]])))
        >>> is_correct(predictive, torch.tensor([[0, 0, 0]]))
        tensor([[1.0000, 0.0000, 0.5000]], dtype=torch.float64)
    """
    probs = predictive.probs
    best = probs == probs.amax(-1, keepdim=True)
    label = y[..., None] == torch.arange(probs.shape[-1], device=y.device)  # none where padding holds what is no class
    return (best & label).sum(-1).double() / best.sum(-1)


def auroc(
    scores: Float[Tensor, "B M"], positives: Bool[Tensor, "B M"], mask: Bool[Tensor, "B M"] | None = None
) -> Float[Tensor, "B"]:
    """Area under the ROC curve: P(s⁺ > s⁻) + P(s⁺ = s⁻) / 2 for a positive and another point of the same task.

    By ranks r (of ties their mean) it is (Σ_{m⁺} r_m - n⁺ (n⁺ + 1) / 2) / (n⁺ n⁻), as Mann and Whitney's statistic
    (1947). Only the order of the scores counts; they may be infinite.

    Args:
        scores: larger where a point is taken for a positive.
        positives: which points are.
        mask: True = real; all by default.

    Returns:
        One number for each task; NaN for one without both kinds of points, or with a score that is not a number.

    Raises:
        ShapeError: scores, positives and mask are not of one shape.

    Example:
        >>> auroc(torch.tensor([[0.1, 0.4, 0.4, 0.9]]), torch.tensor([[False, False, True, True]]))
        tensor([0.8750], dtype=torch.float64)
    """
    mask = _mask(scores, mask)
    if positives.shape != scores.shape:
        raise ShapeError(f"expected positives of shape {tuple(scores.shape)}, got {tuple(positives.shape)}")
    positives = positives & mask
    code = scores.unique(return_inverse=True)[1]  # whole numbers, so that padding can come after every score
    code = torch.where(mask, code, scores.numel())
    ordered = code.sort(-1).values
    below, up_to = (torch.searchsorted(ordered, code, right=right).double() for right in (False, True))
    rank = 0.5 * (below + up_to + 1.0)
    count, others = positives.sum(-1).double(), (mask & ~positives).sum(-1).double()
    pairs = torch.where((scores.isnan() & mask).any(-1), 0.0, count * others)
    wins = torch.where(positives, rank, 0.0).sum(-1) - 0.5 * count * (count + 1.0)
    return wins / torch.where(pairs > 0.0, pairs, math.nan)


def pooled(
    values: Shaped[Tensor, "B M *c"], mask: Bool[Tensor, "B M"] | None = None
) -> tuple[Shaped[Tensor, "1 B*M *c"], Bool[Tensor, "1 B*M"]]:
    """The points of all tasks as those of a single one: `error(*pooled(pit, mask))` has one entry.

    Example:
        >>> transforms, mask = pooled(torch.rand(3, 5, 1))
        >>> transforms.shape, root_mean_square_calibration_error(transforms, mask).shape
        (torch.Size([1, 15, 1]), torch.Size([1]))
    """
    return values.flatten(0, 1)[None], _mask(values, mask).flatten()[None]


def calibration_curve(
    pit: Float[Tensor, "B M C"],
    mask: Bool[Tensor, "B M"] | None = None,
    levels: Float[Tensor, "L"] | tuple[float, ...] = LEVELS,
) -> Float[Tensor, "B L"]:
    """Observed frequency of F(y) <= p for each level p: equal to p under the true predictive, up to chance.

    Raises:
        DataError: a level outside (0, 1).

    Example:
        >>> calibration_curve(torch.tensor([[[0.1], [0.4], [0.6], [0.9]]]), levels=(0.25, 0.5))
        tensor([[0.2500, 0.5000]], dtype=torch.float64)
    """
    levels = torch.as_tensor(levels, dtype=torch.float64, device=pit.device)
    if levels.numel() == 0 or bool(((levels <= 0.0) | (levels >= 1.0)).any()):
        raise DataError(f"expected levels strictly between 0 and 1, got {levels.tolist()}")
    real = _mask(pit, mask)
    return torch.stack([average((pit.double() <= level).double(), real) for level in levels], -1)


def kuleshov_calibration_error(
    pit: Float[Tensor, "B M C"],
    mask: Bool[Tensor, "B M"] | None = None,
    levels: Float[Tensor, "L"] | tuple[float, ...] = LEVELS,
) -> Float[Tensor, "B"]:
    """Σ_j (p_j - p̂_j)², with weights of one (Kuleshov et al. 2018, eq. 9). It grows with the number of levels.

    Args:
        pit: F(y) of each output of each point.
        mask: True = real; all by default.
        levels: p_j, strictly between 0 and 1.

    Raises:
        DataError: a level outside (0, 1).

    Example:
        >>> kuleshov_calibration_error(torch.tensor([[[0.1], [0.2], [0.3], [0.4]]]), levels=(0.25, 0.5))
        tensor([0.3125], dtype=torch.float64)
    """
    return _gaps(pit, mask, levels).square().sum(-1)


def root_mean_square_calibration_error(
    pit: Float[Tensor, "B M C"],
    mask: Bool[Tensor, "B M"] | None = None,
    levels: Float[Tensor, "L"] | tuple[float, ...] = LEVELS,
) -> Float[Tensor, "B"]:
    """sqrt(mean_j (p_j - p̂_j)²): the code of PACOH's Gaussian processes and of MetaL-Benchmark.

    Example:
        >>> even = torch.arange(0.005, 1.0, 0.01)[None, :, None]
        >>> round(root_mean_square_calibration_error(even).item(), 2)
        0.0
    """
    return _gaps(pit, mask, levels).square().mean(-1).sqrt()


def mean_absolute_calibration_error(
    pit: Float[Tensor, "B M C"],
    mask: Bool[Tensor, "B M"] | None = None,
    levels: Float[Tensor, "L"] | tuple[float, ...] = LEVELS,
) -> Float[Tensor, "B"]:
    """mean_j |p_j - p̂_j|: the code of PACOH's neural networks. Arguments and errors are those of the other two.

    Example:
        >>> mean_absolute_calibration_error(torch.tensor([[[0.1], [0.2], [0.3], [0.4]]]), levels=(0.25, 0.5))
        tensor([0.3750], dtype=torch.float64)
    """
    return _gaps(pit, mask, levels).abs().mean(-1)


def confidence_bins(
    confidence: Float[Tensor, "B M"],
    correct: Shaped[Tensor, "B M"],
    mask: Bool[Tensor, "B M"] | None = None,
    bins: int = 15,
) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B K"], Float[Tensor, "B K"]]:
    """For K bins of equal width (lower, upper]: the number of points, their correct answers and summed confidences.

    Args:
        confidence: probability of the most probable class.
        correct: whether it is the label, or the share of a tie that is (`is_correct`).
        mask: True = real; all by default.
        bins: K.

    Raises:
        DataError: fewer than one bin.

    Example:
        >>> count, hits, total = confidence_bins(torch.tensor([[0.6, 0.9]]), torch.tensor([[False, True]]), bins=2)
        >>> count.tolist(), hits.tolist(), total.round(decimals=3).tolist()
        ([[0.0, 2.0]], [[0.0, 1.0]], [[0.0, 1.5]])
    """
    chosen = confidence_bin(confidence, bins)
    member = torch.nn.functional.one_hot(chosen, bins).double() * _mask(confidence, mask)[..., None]
    weighted = [(member * value[..., None]).sum(1) for value in (correct.double(), confidence.double())]
    return member.sum(1), weighted[0], weighted[1]


def confidence_bin(confidence: Float[Tensor, "*points"], bins: int = 15) -> Int[Tensor, "*points"]:
    """Which of K bins of equal width (lower, upper] each confidence is in, from 0.

    Raises:
        DataError: fewer than one bin.

    Example:
        >>> confidence_bin(torch.tensor([0.5, 0.51, 1.0]), bins=2)
        tensor([0, 1, 1])
    """
    if bins < 1:
        raise DataError(f"expected at least one bin, got {bins}")
    edges = torch.linspace(0.0, 1.0, bins + 1, dtype=torch.float64, device=confidence.device)[1:-1]
    # edges[i - 1] < confidence <= edges[i]; shares such as 2/3 lie on an edge and must not be torn apart by rounding
    return torch.bucketize(confidence.double().contiguous() - 1e-6, edges)


def ece(
    confidence: Float[Tensor, "B M"],
    correct: Shaped[Tensor, "B M"],
    mask: Bool[Tensor, "B M"] | None = None,
    bins: int = 15,
) -> Float[Tensor, ""]:
    """Expected calibration error Σ_k n_k/n |accuracy_k - confidence_k|, pooled over all points (Guo et al. 2017).

    Example:
        >>> ece(torch.tensor([[0.8, 0.8, 0.8, 0.8]]), torch.tensor([[True, True, False, False]]))
        tensor(0.3000, dtype=torch.float64)
    """
    count, hits, total = (value.sum(0) for value in confidence_bins(confidence, correct, mask, bins))
    return (hits - total).abs().sum() / count.sum()


def check_level(level: float) -> None:
    """Refuse the probability of an interval that is not strictly between 0 and 1.

    Args:
        level: the probability of the interval.

    Raises:
        DataError: it is not.
    """
    probability(level, "an interval level")


def average(values: Shaped[Tensor, "B M *c"], mask: Bool[Tensor, "B M"]) -> Float[Tensor, "B"]:
    """Mean over the real points (and the outputs) of each task, summed in double precision; NaN without points.

    Example:
        >>> average(torch.tensor([[1.0, 2.0, 9.0]]), torch.tensor([[True, True, False]]))
        tensor([1.5000], dtype=torch.float64)
    """
    values = values.double()
    if values.ndim == 3:
        values = values.mean(-1)
    count = mask.sum(-1)
    return torch.where(mask, values, 0.0).sum(-1) / torch.where(count > 0, count.double(), math.nan)


def _mask(values: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
    if mask.shape != values.shape[:2]:
        raise ShapeError(f"expected a mask of shape {tuple(values.shape[:2])}, got {tuple(mask.shape)}")
    return mask


def _zeroed(y: Tensor, mask: Tensor | None) -> Tensor:
    """Padding replaced by 0, which is always a legal label."""
    return y if mask is None else torch.where(mask.view(*mask.shape, *[1] * (y.ndim - 2)), y, 0)


def _gaps(pit: Tensor, mask: Tensor | None, levels: Tensor | tuple[float, ...]) -> Tensor:
    observed = calibration_curve(pit, mask, levels)
    return observed - torch.as_tensor(levels, dtype=observed.dtype, device=observed.device)


def _gaussians(predictive: Predictive) -> tuple[Tensor, Tensor, Tensor] | None:
    """Weights, means and deviations, each `B M C S`, when every output's marginal is a mixture of Gaussians."""
    if isinstance(predictive, AffinePredictive):
        base = _gaussians(predictive.base)
        if base is None:
            return None
        shift, scale = predictive.shift[..., None], predictive.scale[..., None]
        return base[0], shift + scale * base[1], scale * base[2]
    if isinstance(predictive, EnsemblePredictive):
        each = [_gaussians(component) for component in predictive.components]
        known = [parts for parts in each if parts is not None]
        if len(known) < len(each):
            return None
        shares = predictive.log_weights.exp().unbind(1)
        weights = torch.cat([own[0] * share[:, None, None, None] for own, share in zip(known, shares, strict=True)], -1)
        return weights, torch.cat([own[1] for own in known], -1), torch.cat([own[2] for own in known], -1)
    if isinstance(predictive, MixturePredictive):
        inner = _gaussians(predictive.components)
        if inner is None:
            return None
        shape = predictive.log_weights.shape
        weights, means, deviations = (v.unflatten(0, shape).movedim(1, -2) for v in inner)  # B M C S R
        weights = weights * predictive.log_weights.exp()[:, None, None, :, None]
        return weights.flatten(-2), means.flatten(-2), deviations.flatten(-2)
    marginals = univariate(predictive.marginals)
    if isinstance(marginals, Normal):
        return torch.ones_like(marginals.loc)[..., None], marginals.loc[..., None], marginals.scale[..., None]
    if isinstance(marginals, SmoothedStudentT):
        weights, deviations = marginals.gaussians()
        return weights, marginals.loc[..., None].expand_as(weights), deviations
    if isinstance(marginals, MixtureSameFamily):
        components, weights = marginals.component_distribution, marginals.mixture_distribution.probs
        if isinstance(components, Normal):
            return weights, components.loc, components.scale
        if isinstance(components, MultivariateNormal):  # batch (B, M, S), event (C,)
            means, deviations = components.mean.mT, components.variance.sqrt().mT
            return weights[..., None, :].expand_as(means), means, deviations
    return None


def _mean_absolute(mean: Tensor, stddev: Tensor) -> Tensor:
    """E|X| of X ~ N(m, s²) = m (2 Φ(m/s) - 1) + 2 s Φ'(m/s), with Φ the standard normal distribution function."""
    z = mean / stddev
    density = (-0.5 * z.square()).exp() / math.sqrt(2.0 * math.pi)
    return mean * torch.erf(z / math.sqrt(2.0)) + 2.0 * stddev * density


def _mixture_crps(weights: Tensor, means: Tensor, deviations: Tensor, y: Tensor) -> Tensor:
    """E|X - y| - E|X - X'| / 2, with X and X' independent draws of the mixture."""
    weights, means, deviations, y = (v.double() for v in (weights, means, deviations, y))
    distance = (weights * _mean_absolute(means - y[..., None], deviations)).sum(-1)
    spread = torch.zeros_like(distance)
    for s in range(weights.shape[-1]):  # one component at a time: S² terms, memory of S
        both = torch.hypot(deviations, deviations[..., s, None])
        spread += weights[..., s] * (weights * _mean_absolute(means - means[..., s, None], both)).sum(-1)
    return distance - 0.5 * spread


def _student_crps(marginals: StudentT, y: Tensor) -> Tensor:
    """s (z (2 F(z) - 1) + (2 f(z) (ν + z²) - 2 √ν B(½, ν - ½) / B(½, ν/2)²) / (ν - 1)) of ν > 1 degrees of freedom.

    Jordan, Krüger and Lerch 2019, "Evaluating probabilistic forecasts with scoringRules", appendix A.
    """
    dof, loc, scale, y = (v.double() for v in (*(marginals.df, marginals.loc, marginals.scale), y))
    z = (y - loc) / scale
    standard = StudentT(dof, torch.zeros_like(loc), torch.ones_like(scale), validate_args=False)
    # B(½, x) = √π Γ(x) / Γ(x + ½)
    log_spread = 2.0 * log_gamma_ratio(0.5 * dof, 0.5) + (0.5 * dof).log() - log_gamma_ratio(dof - 0.5, 0.5)
    spread = (log_spread - 0.5 * (dof - 0.5).log()).exp() * (dof / math.pi).sqrt()
    density = log_student_t(0.5 * dof, 0.5 * dof, 1.0, z.square(), torch.zeros_like(z)).exp()
    return scale * (z * (2.0 * cdf(standard, z) - 1.0) + 2.0 * (density * (dof + z.square()) - spread) / (dof - 1.0))


def _limit(predictive: Predictive) -> Tensor | None:
    """The limit below which outcomes are censored; None where there is none, or not one for all that is averaged."""
    if isinstance(predictive, AffinePredictive):
        limit = _limit(predictive.base)
        return None if limit is None else predictive.shift + predictive.scale * limit
    if isinstance(predictive, MixturePredictive):
        limit = _limit(predictive.components)
        return limit if limit is None or limit.ndim == 0 else None
    marginals = univariate(predictive.marginals)
    return marginals.limit if isinstance(marginals, LeftCensored) else None


def _count_crps(predictive: Predictive, y: Tensor) -> Tensor:
    """Σ_k (F(k) - 1{y <= k})²: one by one up to `_MOST_COUNTS`, and above as an integral in log k, split at y."""
    y = y.to(predictive.mean.dtype)
    total, below = torch.zeros_like(y, dtype=torch.float64), torch.zeros_like(y, dtype=torch.float64)
    for k in range(_MOST_COUNTS):
        at = torch.full_like(y, float(k))
        below = below + predictive.output_log_prob(at).double().exp()
        total += (below - (y <= at).double()).square()
        if bool(((below > 1.0 - _RARE) & (y <= at)).all()):
            return total
    first = torch.full_like(total, _MOST_COUNTS - 0.5)
    last = torch.maximum(torch.maximum(predictive.quantile(1.0 - _RARE), y).double() + 0.5, first)
    middle = torch.minimum(torch.maximum(y.double() - 0.5, first), last)
    points, weights = np.polynomial.legendre.leggauss(64)
    for low, high, upper in ((first.log(), middle.log(), False), (middle.log(), last.log(), True)):
        half = 0.5 * (high - low)
        for point, weight in zip(points.tolist(), weights.tolist(), strict=True):
            at = (0.5 * (low + high) + half * point).exp()
            found = predictive.cdf(at.round().to(y.dtype)).double()
            total += weight * half * at * (1.0 - found if upper else found).square()
    return total


def _numerical_crps(
    predictive: Predictive,
    y: Tensor,
    nodes: int = 64,
    reach: float = 100.0,
    slope: Callable[[Tensor], Tensor] = torch.ones_like,
) -> Tensor:
    """∫_{-∞}^y F² dz + ∫_y^∞ (1 - F)² dz by Gauss-Legendre in u, z = mean + scale sinh(u).

    `slope` is dt/dz where t is what is integrated over, and predictive and y are of z.

    The substitution is fine around the mean and goes `reach` deviations out; by Chebyshev's inequality what is cut off
    is less than stddev / (3 reach³) a side. Where outcomes are censored below a limit F is zero up to it, and jumps:
    the integral begins there. Heavy tails make the deviation much larger than the bulk: the scale is
    halved until the mean ± scale / 2 holds less than half of the probability.
    """
    points, weights = np.polynomial.legendre.leggauss(nodes)
    mean, stddev, y = predictive.mean, predictive.stddev, y.to(predictive.mean)
    if not bool(stddev.isfinite().all()):  # Student's t of two degrees of freedom
        bulk = predictive.quantile(0.75) - predictive.quantile(0.25)
        stddev = torch.where(stddev.isfinite(), stddev, 1e3 * bulk)
    scale = stddev
    for _ in range(20):
        narrow = predictive.cdf(mean + 0.5 * scale) - predictive.cdf(mean - 0.5 * scale) > 0.5
        if not bool(narrow.any()):
            break
        scale = torch.where(narrow, 0.5 * scale, scale)
    at_y, end = torch.asinh((y - mean) / scale), torch.asinh(reach * stddev / scale)
    total, begin = torch.zeros_like(mean), at_y.clamp(max=0.0) - end
    limit = _limit(predictive)
    if limit is not None:
        begin = torch.minimum(torch.maximum(begin, torch.asinh((limit - mean) / scale)), at_y)
    for first, last, upper in ((begin, at_y, False), (at_y, at_y.clamp(min=0.0) + end, True)):
        half = 0.5 * (last - first)
        for point, weight in zip(points.tolist(), weights.tolist(), strict=True):
            u = 0.5 * (first + last) + half * point
            at = mean + scale * u.sinh()
            below = predictive.cdf(at)
            total += weight * half * u.cosh() * slope(at) * (1.0 - below if upper else below).square()
    return scale * total
