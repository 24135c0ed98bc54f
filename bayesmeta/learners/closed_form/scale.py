"""Where the noise and the prior of a closed-form learner start, and how fast they are learned.

Noise of a thousandth of the spread and noise as large as it are both common, and a gradient step moves the logarithm of
a variance by its learning rate at most: from one starting value, thousands of steps reach a part of that range only. So
the starting noise is chosen by the evidence of the meta-training tasks under the first features, and the few numbers of
prior and noise, which set the scale of all else, are learned faster than the weights of a network, as those of the
heads of classifiers are.
"""

import math

import torch
from torch import Tensor, nn

from bayesmeta.data import Data
from bayesmeta.errors import InferenceError, ShapeError, UnsupportedError
from bayesmeta.learner import Learner
from bayesmeta.noise import DiagonalNoise, HeteroscedasticNoise, Noise
from bayesmeta.priors import FeatureCovariance, Ridge, TaskScale

PRIOR_RATE = 10.0  # times the learning rate of the features
SHARES = tuple(10.0 ** (-0.5 * i) for i in range(1, 13))  # of the spread that may be noise: from a third to a millionth
MOST_TASKS, MOST_POINTS, MOST_NUMBERS = 256, 1_000, 2**24  # that the start is chosen by


def is_untouched(noise: Noise) -> bool:
    """Whether a noise is where `DiagonalNoise(C)` starts, neither set nor trained, and may be trained."""
    if not isinstance(noise, DiagonalNoise) or not noise.value.raw.requires_grad:
        return False
    start = DiagonalNoise(noise.num_outputs).value.raw.detach().to(noise.value.raw)
    return bool(torch.allclose(noise.value.raw, start, rtol=1e-6, atol=0.0))


@torch.no_grad()
def start_noise(learner: Learner, noise: Noise, tasks: Data, features: nn.Module | None = None) -> None:
    """Set the noise to that share of the spread under which the evidence of the tasks is largest.

    The prior goes along: whatever the noise, the prior variance of f is as large as the outcomes are. A prior that is
    not where it was made, with one variance of 1, stays as it is.

    Args:
        learner: whose evidence it is; without one nothing is set.
        noise: that of its likelihood.
        tasks: meta-training points, checked.
        features: h, where weights on it have a prior in units of the noise; None where they have not.
    """
    tasks = tasks.points(slice(MOST_POINTS))
    numbers = tasks.num_points * (tasks.num_points + tasks.x[0, :1].numel())  # a kernel matrix, or inputs
    most = max(1, min(MOST_TASKS, MOST_NUMBERS // max(numbers, 1)))
    tasks = tasks.select(slice(most))
    spread = tasks.y[tasks.mask].double().square().sum(0) / max(int(tasks.counts.sum()), 1)
    if not bool((spread > 0.0).all()):
        return
    priors: list[FeatureCovariance | Ridge] = []
    size = 1.0
    if features is not None:
        modules = [each for each in learner.modules() if isinstance(each, FeatureCovariance | Ridge)]
        priors = [each for each in modules if _is_unit(each)]
        size = float(features(tasks.x)[tasks.mask].double().square().sum(-1).mean())
        if not 0.0 < size < math.inf:  # features that fail: the loss says of which task
            return

    def place(share: float) -> float:
        noise.set_nearest(torch.diag(share * spread))
        for prior in priors:
            _set_variance(prior, 1.0 / (share * size))
        return score()

    def score() -> float:
        try:
            total = float(learner.evidence(tasks).sum())
        except InferenceError:
            return -math.inf
        return total if math.isfinite(total) else -math.inf

    before = {name: value.clone() for name, value in learner.state_dict().items()}
    try:
        as_it_was = score()
    except UnsupportedError:  # nothing to choose by
        return
    try:
        scores = [place(share) for share in SHARES]
        if max(scores) > as_it_was:
            place(SHARES[scores.index(max(scores))])
            return
    except BaseException:  # an interrupt leaves theta as it was, too
        learner.load_state_dict(before)
        raise
    learner.load_state_dict(before)


def noise_over(num_outputs: int, noise: Noise | None, scale: TaskScale | None) -> Noise:
    """The observation noise of a learner: the one that is given, or a variance for each output.

    Raises:
        ShapeError: it is over other outputs.
        UnsupportedError: it depends on x, and tasks have scales.
    """
    noise = DiagonalNoise(num_outputs) if noise is None else noise
    if noise.num_outputs != num_outputs:
        raise ShapeError(f"expected noise over {num_outputs} outputs, got {noise.num_outputs}")
    if scale is not None:
        require_even(noise)
    return noise


def require_even(noise: Noise) -> None:
    """Raise UnsupportedError where the noise depends on x, for learners that take it to be the same at every input."""
    if isinstance(noise, HeteroscedasticNoise):
        raise UnsupportedError(
            "expected noise that is the same at every input where tasks have scales or share effects, got "
            "HeteroscedasticNoise: give the one or the other"
        )


def two_speeds(learner: nn.Module, features: nn.Module, lr: float) -> torch.optim.Optimizer:
    """Adam: `lr` for the weights of the features (and of those of the noise), and `PRIOR_RATE` times it for all else.

    The factor of a prior covariance, whose numbers are no logarithms, is learned in units of its own size.
    """
    slow = {id(parameter) for parameter in features.parameters()}
    for module in learner.modules():
        if isinstance(module, HeteroscedasticNoise):
            slow |= {id(parameter) for parameter in module.features.parameters()}
    sizes: dict[int, float] = {}
    for module in learner.modules():
        if isinstance(module, FeatureCovariance) and module.varying:
            size = float(module.square_factor().detach().diagonal().square().mean().sqrt())
            sizes |= {id(parameter): size for parameter in module.parameters() if size > 0.0}
    groups: dict[float, list[Tensor]] = {}
    for parameter in learner.parameters():
        if parameter.requires_grad:
            rate = lr if id(parameter) in slow else PRIOR_RATE * lr * sizes.get(id(parameter), 1.0)
            groups.setdefault(rate, []).append(parameter)
    return torch.optim.Adam([{"params": each, "lr": rate} for rate, each in groups.items()], lr=lr)


def _is_unit(prior: FeatureCovariance | Ridge) -> bool:
    """Whether a prior of weights is still where it was made: one variance of 1 for all that vary."""
    if not all(parameter.requires_grad for parameter in prior.parameters()):
        return False
    if isinstance(prior, Ridge):
        return bool((prior.precision() - 1.0).abs() < 1e-6)
    square = prior.square_factor()
    return bool(torch.equal(square, torch.eye(len(square), dtype=square.dtype, device=square.device)))


def _set_variance(prior: FeatureCovariance | Ridge, variance: float) -> None:
    if isinstance(prior, Ridge):
        prior.precision.set_nearest(torch.tensor(1.0 / variance))
    else:
        prior.set_matrix(variance * torch.eye(prior.num_features, dtype=torch.float64))
