"""Arguments that are single numbers: what is accepted as one, and one error for all that is not.

A count or a seed may be Python's int, numpy's or a tensor of one; a probability any real number of those. A bool is
none of these, nor is 2.0 a count: what was meant is then not what was written.
"""

import operator
from collections.abc import Iterable
from numbers import Real

import numpy as np
import torch
from torch import Tensor

from bayesmeta.errors import DataError

LARGEST_SEED = 2**63 - 1


def whole(value: object, name: str, least: int = 0, most: int | None = None) -> int:
    """A whole number as Python's int.

    Args:
        value: a Python or numpy integer, or a tensor of one.
        name: of the argument, for the message.
        least: the smallest that is accepted.
        most: the largest; None for any.

    Raises:
        DataError: another type (a bool or a float too), or out of range.

    Example:
        >>> whole(np.int64(3), "steps", least=1)
        3
        >>> try:
        ...     whole(2.5, "steps", least=1)
        ... except DataError as error:
        ...     print(error)
        expected a whole number steps >= 1, got 2.5
    """
    room = f">= {least}" if most is None else f"from {least} to {most}"
    is_bool = isinstance(value, bool | np.bool_) or (isinstance(value, Tensor) and value.dtype == torch.bool)
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        is_bool, number = True, 0
    if is_bool or number < least or (most is not None and number > most):
        raise DataError(f"expected a whole number {name} {room}, got {value!r}")
    return number


def some(value: object, name: str, thing: str) -> int:
    """A whole number of at least one.

    Args:
        value: as for `whole`.
        name: of the argument, for the message.
        thing: what it counts, in the singular.

    Raises:
        DataError: another type, or none of them.

    Example:
        >>> some(np.int64(3), "num_draws", "draw")
        3
    """
    number = whole(value, name)
    if number == 0:
        raise DataError(f"expected at least one {thing}, got 0")
    return number


def seed_of(seed: object) -> int:
    """A seed as Python's int, from 0 to 2⁶³ - 1: what torch and numpy both take.

    Args:
        seed: as for `whole`.

    Raises:
        DataError: another type, or out of range.

    Example:
        >>> seed_of(np.uint8(7))
        7
    """
    return whole(seed, "seed", 0, LARGEST_SEED)


def generator_of(seed: object, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of random numbers that starts at a seed.

    Args:
        seed: as for `seed_of`.
        device: where the numbers are drawn.

    Raises:
        DataError: as for `seed_of`.

    Example:
        >>> generator_of(np.int64(3)).initial_seed()
        3
    """
    return torch.Generator(device).manual_seed(seed_of(seed))


def generator_at(seed: int, *place: int) -> torch.Generator:
    """A generator of random numbers for one place of a longer computation: it depends on the seed and the place alone.

    Whoever begins in the middle (a training that goes on, one of several processes) draws what everybody draws there.

    Args:
        seed: of the whole computation.
        place: where, such as the number of a step; whole numbers from 0.

    Example:
        >>> a, b, c = (torch.rand(1, generator=generator_at(0, step)) for step in (7, 7, 8))
        >>> bool(a == b), bool(a == c)
        (True, False)
    """
    mixed = np.random.SeedSequence((seed, *place)).generate_state(1, np.uint64)
    return torch.Generator("cpu").manual_seed(int(mixed[0] >> np.uint64(1)))


def probability(value: object, name: str) -> float:
    """A probability strictly between 0 and 1, as Python's float.

    Args:
        value: a real number of Python, numpy or torch.
        name: of the argument, for the message.

    Raises:
        DataError: another type (a list too: ask for one at a time), or out of range.

    Example:
        >>> probability(np.float32(0.5), "a level")
        0.5
    """
    one = value.item() if isinstance(value, Tensor | np.ndarray) and value.ndim == 0 else value
    number = float(one) if isinstance(one, Real) else 0.0
    if not 0.0 < number < 1.0:
        raise DataError(f"expected {name} strictly between 0 and 1, got {value!r}")
    return number


def shot_counts(shots: object) -> tuple[int, ...]:
    """Numbers of shots: distinct, at least one of them.

    Args:
        shots: any iterable of whole numbers: a list, a range, an array, a pandas column.

    Raises:
        DataError: none, a repeated one, or one that is not a whole number.

    Example:
        >>> shot_counts(np.array([0, 5]))
        (0, 5)
    """
    if isinstance(shots, str) or not isinstance(shots, Iterable) or (isinstance(shots, Tensor) and shots.ndim == 0):
        raise DataError(f"expected a list of numbers of shots, got {shots!r}: write [0, 5]")
    given = list(shots)
    try:
        counts = tuple(whole(shot, "shots") for shot in given)
    except DataError:
        counts = ()
    if not counts or len(set(counts)) != len(counts):
        raise DataError(f"expected distinct numbers of shots, none of them negative, got {given}: whole numbers")
    return counts


def rising_shots(shots: object, least: int) -> tuple[int, ...]:
    """Numbers of shots that increase.

    Args:
        shots: as for `shot_counts`.
        least: the smallest that is accepted.

    Raises:
        DataError: none, ones that do not increase, or one that is not a whole number of at least `least`.

    Example:
        >>> rising_shots(range(1, 4), least=1)
        (1, 2, 3)
    """
    given = list(shots) if isinstance(shots, Iterable) and not isinstance(shots, str) else shots
    try:
        counts = shot_counts(given)
    except DataError:
        counts = ()
    if not counts or counts[0] < least or counts != tuple(sorted(counts)):
        raise DataError(f"expected numbers of shots that increase from {least} or more, got {given}: whole numbers")
    return counts


def draw_shape(shape: object) -> tuple[int, ...]:
    """The leading axes of draws.

    Args:
        shape: their sizes, or one number of draws.

    Raises:
        DataError: a size that is not a whole number.

    Example:
        >>> draw_shape(10), draw_shape((2, 3)), draw_shape(())
        ((10,), (2, 3), ())
    """
    is_several = isinstance(shape, list | tuple) or (isinstance(shape, Tensor | np.ndarray) and shape.ndim == 1)
    sizes = shape if is_several else [shape]
    return tuple(whole(size, "of draws") for size in sizes)  # type: ignore[attr-defined]
