"""Numbers that differ, and are one number in a lower precision: whoever converts them says so.

Seconds since 1970 are 128 apart in float32: a task that lasts a minute has no times left. Such a loss is warned of
where data are converted (`Data.to`, which every door goes through), with the name of the column where one is known.

    warn_of_lost        compares values before and after
    columns             inside of it each column is named, and warned of once
    silently            inside of it nothing is: what is converted there again has been looked at before

A few neighbours that fall together among many others lose nothing: a column is warned of when of all its numbers one in
30 is lost, or of those of one task one in 10 and at least two.
"""

import contextlib
import inspect
import warnings
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmeta.errors import PrecisionWarning

SHARE, TASK_SHARE = 30, 10  # one number in so many, of all tasks and of one
SAME = 16.0 * torch.finfo(torch.float64).eps  # a relative difference that is rounding itself: .1 + .2 and .3
WHOLE = 2.0**24  # above, float32 loses whole numbers
EXACT = 2**53  # up to it, float64 holds all of them
FEW = 32  # columns of tasks, up to which a tensor operation costs more than all numbers
OWN = ("bayesmeta", "jaxtyping", "beartype")
FAR = 4.0  # numbers nearer to zero than so many times their spread keep all digits that matter


@dataclass(frozen=True)
class _Columns:
    """What columns are called, and which of them have been warned of."""

    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    said: set[str] = field(default_factory=set)
    is_silent: bool = False


_columns: ContextVar[_Columns | None] = ContextVar("columns", default=None)


@contextlib.contextmanager
def columns(x: Sequence[str] = (), y: Sequence[str] = ()) -> Iterator[None]:
    """Inside of it, a column is warned of once, and by these names of inputs and outcomes.

    Args:
        x: the names of the inputs, in order; none where they are not known.
        y: those of the outcomes.
    """
    outer = _columns.get()
    is_known = outer is not None and (outer.is_silent or bool(outer.names["x"]) or not x)
    token = _columns.set(outer if is_known else _Columns({"x": tuple(x), "y": tuple(y)}))
    try:
        yield
    finally:
        _columns.reset(token)


@contextlib.contextmanager
def silently() -> Iterator[None]:
    """Inside of it nothing is warned of."""
    token = _columns.set(_Columns(is_silent=True))
    try:
        yield
    finally:
        _columns.reset(token)


def is_plain(values: Float[Tensor, "B N *v"]) -> bool:
    """Whether all is well with little data, which is cheaper to know than all else: none out of range, none lost.

    Example:
        >>> is_plain(torch.tensor([[[0.1], [0.3]]]).double()), is_plain(torch.tensor([[[1e9], [1e9 + 1.0]]]).double())
        (True, False)
    """
    shape = values.shape
    if not 0 < values.numel() <= FEW * shape[1] or len(shape) != 3:
        return False
    low, high = (end.flatten().tolist() for end in values.detach().aminmax(dim=1))
    for a, b in zip(low, high, strict=True):
        size = max(-a, b)
        if size >= WHOLE or (FAR * (b - a) < size and a < b):
            return False
    return True


def warn_of_lost(
    before: Float[Tensor, "B N *v"], after: Float[Tensor, "B N *v"], mask: Bool[Tensor, "B N"] | None, kind: str
) -> None:
    """Warn (`PrecisionWarning`) of columns in which distinct numbers of a task became one.

    Args:
        before: numbers of each task.
        after: the same in a lower precision.
        mask: True = real; all of them when None.
        kind: "x" for inputs, "y" for outcomes.

    Example:
        >>> seconds = 1.7e9 + torch.arange(4, dtype=torch.float64)[None, :, None]
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     warn_of_lost(seconds, seconds.float(), None, "x")
        >>> str(caught[0].message).split(":")[0]
        'expected inputs that stay apart in float32, got distinct values of input 0 that become one number, 1.7e+09'
    """
    known = _columns.get()
    if (known is not None and known.is_silent) or before.shape[1] < 2 or not before.numel():
        return
    values = before.detach() if before.ndim == 3 else before.detach().flatten(2)
    low, high = _range(values, mask)
    size, spread = torch.maximum(-low, high), high - low
    suspicious = (spread > 0.0) & ((size > FAR * spread) | (size >= WHOLE))
    if not bool(suspicious.any()):
        return
    for place, value in _lost(values, after.detach().flatten(2), mask, suspicious):
        names = () if known is None else known.names.get(kind, ())
        name = _name(kind, place, tuple(before.shape[2:]), names)
        if known is None or name not in known.said:
            if known is not None:
                known.said.add(name)
            warn_in_own_line(_message(kind, name, value, after.dtype))


def warn_of_lost_whole(before: Int[Tensor, "*n"], after: Float[Tensor, "*n"], name: str) -> None:
    """Warn (`PrecisionWarning`) of whole numbers beyond 2**53 that became one number in float64.

    Args:
        before: whole numbers, along the first axis.
        after: the same in float64.
        name: what they are.

    Example:
        >>> whole = torch.tensor([2**60, 2**60 + 1])
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     warn_of_lost_whole(whole, whole.double(), "x")
        >>> str(caught[0].message).split(":")[0]
        'expected x that stays apart in float64, got whole numbers beyond 2**53 that become one number'
    """
    if not before.numel() or max(-int(before.min()), int(before.max())) <= EXACT:
        return
    columns = zip(before.reshape(len(before), -1).T, after.reshape(len(after), -1).T, strict=True)
    if any(len(whole.unique()) > len(rounded.unique()) for whole, rounded in columns):
        warn_in_own_line(
            f"expected {name} that stays apart in float64, got whole numbers beyond 2**53 that become one number: "
            "subtract an origin, or leave out a column of names",
        )


def _range(values: Float[Tensor, "B N V"], mask: Bool[Tensor, "B N"] | None) -> tuple[Tensor, Tensor]:
    """Smallest and largest real value of each task and column, `B V`."""
    if mask is None:
        return values.aminmax(dim=1)
    real = mask[..., None]
    return torch.where(real, values, torch.inf).amin(1), torch.where(real, values, -torch.inf).amax(1)


def _lost(
    before: Float[Tensor, "B N V"],
    after: Float[Tensor, "B N V"],
    mask: Bool[Tensor, "B N"] | None,
    suspicious: Bool[Tensor, "B V"],
) -> list[tuple[int, float]]:
    """The columns that lose numbers, each with one that stands for several."""
    column = suspicious.nonzero()[:, 1]
    rows, rounded = before.mT[suspicious], after.mT[suspicious].to(before.dtype)  # P N
    if mask is not None:
        real = mask[:, None].expand_as(suspicious[..., None] & mask[:, None])[suspicious]
        rows, rounded = torch.where(real, rows, torch.inf), torch.where(real, rounded, torch.inf)
    rows, rounded = rows.sort(-1).values, rounded.sort(-1).values  # rounding keeps the order
    upper = rows[:, 1:]
    apart = (upper - rows[:, :-1] > SAME * upper.abs()) & torch.isfinite(upper)
    lost = apart & (rounded[:, 1:] == rounded[:, :-1])
    distinct, gone = 1 + apart.sum(-1), lost.sum(-1)
    found = []
    for place in column.unique().tolist():
        here = column == place
        one_task = here & (gone >= 2) & (TASK_SHARE * gone > distinct)
        if bool(SHARE * gone[here].sum() > distinct[here].sum()) or bool(one_task.any()):
            found.append((place, rounded[:, 1:][lost & here[:, None]][0].item()))
    return found


def _name(kind: str, place: int, shape: tuple[int, ...], names: Sequence[str]) -> str:
    if place < len(names):
        return repr(names[place])
    where = str(place) if len(shape) <= 1 else str(tuple(int(i) for i in np.unravel_index(place, shape)))
    return f"{'input' if kind == 'x' else 'outcome'} {where}"


def _message(kind: str, name: str, value: float, dtype: torch.dtype) -> str:
    numbers = "inputs" if kind == "x" else "outcomes"
    return (
        f"expected {numbers} that stay apart in {str(dtype).removeprefix('torch.')}, got distinct values of {name} "
        f"that become one number, {value:.6g}: subtract an origin (the start of the task, say), use Standardized, or "
        "a learner in float64 (learner.double())"
    )


def warn_in_own_line(message: str) -> None:
    """Warn (`PrecisionWarning`) in the caller's own line: the first that is not in this package, nor checks its shapes.

    Args:
        message: what is said.
    """
    level, frame = 0, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in OWN:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, PrecisionWarning, stacklevel=level + 1)
