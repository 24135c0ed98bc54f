"""Where adaptation has ended: an error where it has exploded, a warning where it has overshot or stopped short.

Ascent at a fixed rate climbs only where rate times curvature is below 2, and a learned rate is that of the supports it
was learned on. Where it is too large for another support every step leads further away. What comes of it is finite, so
that it must be looked for.
"""

import warnings
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesmeta.errors import ConvergenceWarning, InferenceError

FAR = 1e6
"""Deviations beyond which no data explain where adaptation has ended."""
SHORT = 0.5
"""Posterior deviations from the mode within which a task has arrived: under the linearised network no prediction is off
by more than half of its own posterior deviation, and the log joint by more than an eighth of a nat."""


def require_near(
    outputs: Float[Tensor, "B"], distance: Float[Tensor, "B"], is_worse: Callable[[], Bool[Tensor, "B"]]
) -> None:
    """Raise for the first task whose adaptation has exploded: it ended far away, and fits worse than where it began.

    Data that are themselves far away may call for a phi that is: they are fitted better there, and that is no error.

    Args:
        outputs: the largest |f| at a point of the support, in deviations of the noise.
        distance: the largest entry of phi - start, in deviations of the prior.
        is_worse: whether each task fits worse than where it began; asked only where something is far away.

    Raises:
        InferenceError: one has; the error's `task` is its position.

    Example:
        >>> try:
        ...     require_near(torch.tensor([1.0, 4e7]), torch.zeros(2), lambda: torch.tensor([True, True]))
        ... except InferenceError as error:
        ...     print(str(error).split(". ")[0])
        expected adaptation that stays within 1e+06 deviations, got 4e+07 in task 1
    """
    if torch.compiler.is_compiling():  # no decisions in recorded code
        return
    far = torch.maximum(outputs, distance)
    exploded = far > FAR
    if not bool(exploded.any()):
        return
    exploded = exploded & is_worse()
    if bool(exploded.any()):
        task = int(exploded.nonzero()[0])
        raise InferenceError(
            f"expected adaptation that stays within {FAR:.0e} deviations, got {far[task].item():.2g} in task {task}. "
            "Likely causes: a step size that is too large (lower lr, or take fewer steps), data far from unit scale "
            "(use Standardized), a log joint without an optimum",
            task=task,
        )


def warn_of_overshoot(title: str, is_worse: Bool[Tensor, "B"]) -> None:
    """Warn of tasks that fit worse after adaptation than before it.

    Args:
        title: of the learner.
        is_worse: of each task.

    Example:
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     warn_of_overshoot("MAML", torch.tensor([True, False]))
        >>> print(str(caught[0].message).split(":")[0])
        MAML overshot in 1 of 2 tasks (50%)
    """
    if (count := int(is_worse.sum())) > 0:
        warnings.warn(
            f"{title} overshot in {count} of {len(is_worse)} tasks ({count / len(is_worse):.0%}): "
            "they fit their own points worse after adaptation than before it, and their predictions are not to be "
            "trusted. Rate times curvature is too large on these supports, as where they have fewer points than those "
            "that the rate was learned on: meta-train with such supports too, lower the rate, take fewer steps, or use "
            "a learner that finds the mode (IMAML, LLAMA)",
            ConvergenceWarning,
            stacklevel=2,
        )


def warn_of_distance(title: str, distance: Float[Tensor, "B"], remedy: str) -> None:
    """Warn of tasks that have stopped short of the mode.

    Args:
        title: of the learner.
        distance: from the mode, in posterior deviations (`gauss_newton.distance_to_mode`).
        remedy: what to do about it.

    Example:
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     warn_of_distance("LLAMA", torch.tensor([0.0, 3.0]), "take more steps")
        >>> print(caught[0].message)
        LLAMA stopped short of the mode in 1 of 2 tasks (50%), at most by 3 posterior deviations: take more steps
    """
    short = ~(distance <= SHORT)
    if (count := int(short.sum())) > 0:
        warnings.warn(
            f"{title} stopped short of the mode in {count} of {len(short)} tasks ({count / len(short):.0%}), at most "
            f"by {distance.max().item():.2g} posterior deviations: {remedy}",
            ConvergenceWarning,
            stacklevel=2,
        )
