"""The D of p(phi | D, theta): points of a batch of tasks, padded and masked."""

import math
import numbers
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from bayesmeta.errors import DataError, ShapeError
from bayesmeta.modes import ordinary
from bayesmeta.one_line import several
from bayesmeta.outcomes import Labels, Numbers, Outcomes, require_kind
from bayesmeta.rounding import is_plain, warn_of_lost, warn_of_lost_whole
from bayesmeta.typing import ArrayLike

WASTE = 4  # padded points for each real one at which tasks are no longer padded all together
MOST_PADDED = 2**26  # points of a batch, padded: half a gigabyte for each column in float64


def as_tensor(values: ArrayLike, name: str) -> Tensor:
    """Numbers from numpy, pandas, lists or torch become a tensor of its own; float64 and float32 keep their precision.

    What is later written into the user's array or tensor does not change it. Gradients of a tensor pass through.

    Whole numbers become int64, or float64 where one of them is too large for that; of other numbers (decimals,
    fractions, long doubles) the nearest float64 is taken, of half precision the float32.

    Raises:
        DataError: a cell is not a number, missing or not finite; the message names the cell.
    """
    values = values.clone() if isinstance(values, Tensor) else torch.from_numpy(_numeric_array(values, name))
    if values.is_complex():
        raise DataError(f"expected {name} to hold real numbers, got dtype {values.dtype}")
    if values.is_quantized or values.layout != torch.strided:
        raise DataError(f"expected {name} to be a dense tensor, got {values.layout} {values.dtype}")
    if values.dtype == torch.uint64:  # of which torch can do little
        values = torch.from_numpy(_numeric_array(values.cpu().numpy(), name)).to(values.device)
    if not values.is_floating_point():
        values = values.to(torch.int64)
    elif values.dtype not in (torch.float32, torch.float64):  # no linear algebra in less
        values = values.to(torch.float32)
    if torch.compiler.is_compiling():  # recorded code decides nothing
        return values
    # a finite sum says that every cell is finite, in one pass; a sum that is not may only have overflowed
    if values.is_floating_point() and not (math.isfinite(values.detach().sum()) or bool(torch.isfinite(values).all())):
        where = tuple(int(i) for i in (~torch.isfinite(values)).nonzero()[0])
        raise DataError(
            f"expected {name} to be finite, got {values[where].item()} at index {where}: "
            "drop missing rows first, or build tasks with TaskDataset.from_frame, which does"
        )
    return values


def _numeric_array(values: ArrayLike, name: str) -> np.ndarray:
    """A fresh array (posteriors are values, arrays are not) of a type that torch knows."""
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"expected {name} to be an array of numbers, got {type(values).__name__}: {error}") from error
    if np.ma.is_masked(values):
        count = int(np.ma.getmaskarray(values).sum())
        raise DataError(f"expected {name} without masked cells, got {count} of them: drop them")
    kind = array.dtype.kind
    if kind in "mM":
        raise DataError(
            f"expected {name} to hold numbers, got {array.reshape(-1)[:1]} ({array.dtype}): "
            "convert it, for example to days with (t - t.min()) / numpy.timedelta64(1, 'D')"
        )
    if kind == "c":
        return array.astype(np.complex128)  # which is refused by all who ask
    if kind not in "biuf":
        # a table whose columns have different types arrives as objects: numbers one by one, or an error that names one
        cells = np.asarray(values, dtype=object)
        numbers_of_cells = np.empty(cells.shape, np.float64)
        for index, cell in np.ndenumerate(cells):
            numbers_of_cells[index] = _number(cell, name, index, array.dtype)
        return numbers_of_cells
    if kind == "f":
        array = array.astype(np.float32 if array.dtype.itemsize <= 4 else np.float64)  # native byte order, a known size
    elif kind in "iu":
        fits = kind == "i" or array.dtype.itemsize < 8 or not (array > np.iinfo(np.int64).max).any()
        array = array.astype(np.int64 if fits else np.float64)
    return np.array(array)


def _number(cell: Any, name: str, index: tuple[int, ...], dtype: np.dtype) -> float:
    if not isinstance(cell, numbers.Real | Decimal | np.bool_):
        raise DataError(f"expected {name} to hold numbers, got {cell!r} at index {index} (dtype {dtype})")
    try:
        return float(cell)
    except (OverflowError, ValueError) as error:  # an int of 400 digits, a signalling NaN
        raise DataError(f"expected {name} to hold numbers of float64, got one at index {index}: {error}") from error


def _real(values: ArrayLike, name: str) -> Tensor:
    tensor = as_tensor(values, name)
    if tensor.is_floating_point():
        return tensor
    real = tensor.to(torch.float64)  # the nearest, beyond 2**53
    warn_of_lost_whole(tensor, real, name)
    return real


def _cast(
    value: Tensor, dtype: torch.dtype | None, device: torch.device | str | None, name: str, mask: Tensor | None = None
) -> Tensor:
    """Numbers in a precision and on a device: out of range is an error, and what falls together is warned of."""
    cast = value.to(dtype=dtype, device=device)
    if torch.compiler.is_compiling():  # recorded code decides nothing
        return cast
    if cast.element_size() < value.element_size() and not (mask is None and is_plain(value)):
        if not bool(torch.isfinite(cast).all()):
            raise DataError(
                f"expected {name} within the range of {dtype}, got {value.abs().max().item():g}: "
                "change its unit, or use Standardized or a learner in float64"
            )
        warn_of_lost(value, cast.to(value.device), mask, name)
    return ordinary(cast)


def _cast_noise(noise: Tensor, dtype: torch.dtype | None, device: torch.device | str | None) -> Tensor:
    """Variances in a precision and on a device: out of range is an error; two that become one are no loss."""
    cast = noise.to(dtype=dtype, device=device)
    narrower = cast.element_size() < noise.element_size() and not torch.compiler.is_compiling()
    if narrower and not bool((torch.isfinite(cast) | noise.isinf().to(cast.device)).all()):
        largest = noise[noise.isfinite()].max().item()
        raise DataError(f"expected noise within the range of {dtype}, got {largest:g}: change its unit")
    return ordinary(cast)


class DataSpec(NamedTuple):
    """What data must look like to be understood: the number of tasks, the shapes of a point, precision and device.

    Attributes:
        num_tasks: B.
        x_shape: the shape of one input.
        y_shape: the shape of the outcome of one point: `(C,)` for numbers, `()` for a label.
        dtype: the floating precision of x (and of y where it holds numbers).
        device: where the tensors lie.
    """

    num_tasks: int
    x_shape: tuple[int, ...]
    y_shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    def queries(self, x: ArrayLike) -> Tensor:
        """Query points as `B M *x`; for a single task `M *x` (or `M`, for scalar inputs) is enough.

        Raises:
            ShapeError: the points are not of this spec's shape or number of tasks.
        """
        x = _real(x, "x")
        given = tuple(x.shape)
        if self.num_tasks == 1 and x.ndim == 1 and self.x_shape == (1,):
            x = x[:, None]
        if self.num_tasks == 1 and x.ndim == 1 + len(self.x_shape):
            x = x[None]
        if x.ndim != 2 + len(self.x_shape) or x.shape[0] != self.num_tasks or x.shape[2:] != self.x_shape:
            raise ShapeError(f"expected x of shape {self._shape('M', self.x_shape)}, got {given}")
        return self.cast(x)

    def known_variances(self, yerr: ArrayLike, shape: Sequence[int]) -> Tensor:
        """Known noise of outcomes that are predicted, as users give it, as variances `B M C`.

        Args:
            yerr: deviations, `B M C`, for a single task `M C` or `M`, or one number for all.
            shape: `B M C`.

        Raises:
            ShapeError: deviations of other outcomes.
            DataError: labels, or a deviation that is negative or not finite.
        """
        if not self.y_shape:
            raise DataError("expected no noise of labels, got yerr")
        deviation = _real(yerr, "yerr")
        if self.num_tasks == 1 and deviation.ndim and (deviation.ndim < 3 or len(deviation) != 1):
            deviation = deviation[None]
        if deviation.ndim == 2 and self.y_shape == (1,):
            deviation = deviation[..., None]
        if deviation.ndim and deviation.shape != torch.Size(shape):
            raise ShapeError(f"expected yerr of shape {tuple(shape)}, as the prediction, got {tuple(deviation.shape)}")
        zeros = torch.zeros(tuple(shape), dtype=self.dtype, device=self.device)
        flat = squared_deviations(deviation.expand(zeros.shape).flatten(0, 1), zeros.flatten(0, 1))
        return flat.reshape(zeros.shape).to(self.device)

    def of_tasks(self, count: int) -> "DataSpec":
        """The same for another number of tasks."""
        return DataSpec(count, *self[1:])

    def cast(self, x: Tensor) -> Tensor:
        """Inputs that have been checked, `B M *x`, in this spec's precision and on its device.

        Raises:
            DataError: a value is out of the precision's range.
        """
        return _cast(x, self.dtype, self.device, "x")

    def conform(self, data: "Data") -> "Data":
        """`data` in this spec's precision and on its device.

        Raises:
            ShapeError: the points are of other shapes, or of another number of tasks.
            DataError: labels in place of numbers, or numbers in place of labels.
        """
        require_kind(self.y_shape, tuple(data.y.shape[2:]))
        if data.num_tasks != self.num_tasks or data.x.shape[2:] != self.x_shape or data.y.shape[2:] != self.y_shape:
            raise ShapeError(
                f"expected data with x {self._shape('N', self.x_shape)} and y {self._shape('N', self.y_shape)}, "
                f"got x {tuple(data.x.shape)} and y {tuple(data.y.shape)}"
            )
        return data.to(dtype=self.dtype, device=self.device)

    def _shape(self, points: str, shape: tuple[int, ...]) -> str:
        return "(" + ", ".join([str(self.num_tasks), points, *map(str, shape)]) + ")"


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """The points of a batch of B tasks: inputs x, outcomes y, and a mask that says which of them are real.

    Tasks rarely have equally many points, and tensors have no ragged axes. So all tasks are padded to N points, the
    number of the longest: behind its own points a shorter task gets rows of padding. `mask` is True at real points and
    False at padding. What stands in padding is finite (zeros, where `stack` has written it) and never matters: no
    posterior, prediction or loss depends on it.

    One task is made by `from_arrays` (regression) or `from_labels` (classification), a batch by `stack` or, where all
    tasks have the same number of points, by `full`. These four check what they are given as the constructor does, and
    the first two also every value. These two copy what they are given; the others, like `select` and `points`, hold
    tensors as torch does: `clone` cuts them off.

    What is known of the noise of each outcome, as error bars are, is `noise`: a variance beside that which a learner
    learns of all points. A learner that has no place for it refuses it (`Learner.known_noise`). Of several outcomes of
    a point some may not have been measured: their noise is infinite, and what stands in y never matters
    (`partly_known`). Learners that cannot leave out a part of a point refuse it (`Learner.partial_outcomes`).

    Attributes:
        x: the inputs, `B N *x`.
        y: the outcomes, floating `B N C` for regression, or int64 `B N` for labels 0 to C - 1.
        mask: `B N`, True at real points.
        noise: the known noise variance of each outcome, `B N C`, squared units of y, infinite where an outcome was not
            measured; None where nothing is known of any.

    Raises:
        ShapeError: the leading axes disagree, the mask is not boolean, y is neither numbers nor labels, or the noise is
            not of the shape of y.

    Example:
        >>> import bayesmeta as bm
        >>> short = bm.Data.from_arrays([0.0, 1.0], [10.0, 11.0])
        >>> long = bm.Data.from_arrays([0.0, 1.0, 2.0, 3.0], [20.0, 21.0, 22.0, 23.0])
        >>> tasks = bm.Data.stack([short, long])
        >>> tasks.num_tasks, tasks.num_points, tasks.counts.tolist()
        (2, 4, [2, 4])
        >>> tasks.mask[0].tolist()  # two real points, and two of padding
        [True, True, False, False]
        >>> tasks.points(slice(1, 3)).counts.tolist()  # positions 1 and 2 of every task: one of them is padding
        [1, 2]
        >>> last = tasks.points([3, 2, 1]).packed()  # real points first, padding behind them
        >>> last.y[..., 0].tolist(), last.mask[0].tolist()
        ([[11.0, 0.0, 0.0], [23.0, 22.0, 21.0]], [True, False, False])
    """

    x: Shaped[Tensor, "B N *x"]
    y: Shaped[Tensor, "B N *c"]
    mask: Bool[Tensor, "B N"]
    noise: Float[Tensor, "B N C"] | None = None

    def __repr__(self) -> str:
        """One line: how many tasks and points there are, and what inputs and outcomes are."""
        return f"Data({_counted(self.mask.sum(-1))}, {_said(self.x.shape[2:], self.y.shape[2:], self.noise)})"

    def __post_init__(self) -> None:
        """Check the shapes; values are checked where they come in (`from_arrays`)."""
        points = tuple(self.mask.shape)
        if self.mask.ndim != 2 or self.mask.dtype != torch.bool:
            raise ShapeError(f"expected a boolean mask of shape (B, N), got {self.mask.dtype} {points}")
        for name, value in (("x", self.x), ("y", self.y)):
            if tuple(value.shape[:2]) != points:
                raise ShapeError(f"expected {name} of shape {points} + ..., got {tuple(value.shape)}")
        if self.y.ndim != (3 if self.y.is_floating_point() else 2):
            raise ShapeError(
                f"expected y to be floating (B, N, C) or int64 labels (B, N), got {self.y.dtype} {tuple(self.y.shape)}"
            )
        if self.noise is not None and (self.y.ndim == 2 or self.noise.shape != self.y.shape):
            raise ShapeError(
                f"expected noise of the shape of floating y, got {tuple(self.noise.shape)} for y of shape "
                f"{tuple(self.y.shape)}, {self.y.dtype}"
            )

    @classmethod
    def from_arrays(cls, x: ArrayLike, y: ArrayLike, yerr: ArrayLike | None = None) -> "Data":
        """One regression task, from lists, numpy, pandas or torch; every point is real. Zero points are legal.

        Args:
            x: the inputs, `N *x`, or `N` where inputs are single numbers.
            y: the outcomes, `N C`, or `N` where outcomes are single numbers.
            yerr: the known noise of each outcome, of the shape of y or one number for all: a standard deviation in
                units of y, as error bars are given. `noise` is its square.

        Raises:
            ShapeError: x, y and yerr differ in length.
            DataError: a cell is not a finite number, or a deviation is negative.

        Example:
            >>> import bayesmeta as bm
            >>> task = bm.Data.from_arrays([[0.0, 5.0], [1.0, 6.0], [2.0, 7.0]], [0.1, 0.9, 2.2])
            >>> task.x.shape, task.y.shape, task.outcomes
            (torch.Size([1, 3, 2]), torch.Size([1, 3, 1]), Numbers(count=1))
            >>> bm.Data.from_arrays([0.0, 1.0], [0.1, 0.9], yerr=[0.5, 2.0]).noise.flatten().tolist()
            [0.25, 4.0]
        """
        x, y = _real(x, "x"), _real(y, "y")
        x = x[:, None] if x.ndim == 1 else x
        y = y[:, None] if y.ndim == 1 else y
        if x.ndim < 2 or y.ndim != 2 or len(x) != len(y):
            raise ShapeError(f"expected x (N, D) and y (N, C) of one length, got {tuple(x.shape)} and {tuple(y.shape)}")
        noise = None if yerr is None else squared_deviations(yerr, y).to(x.device)[None]
        return cls.full(x[None], y.to(x.device)[None], noise)

    @classmethod
    def partly_known(cls, x: ArrayLike, y: ArrayLike, yerr: ArrayLike | None = None) -> "Data":
        """One regression task of several outcomes, of which some may be missing at a point: NaN in y.

        Args:
            x: the inputs, `N *x`, or `N` where inputs are single numbers.
            y: the outcomes, `N C`; of each point at least one is a number.
            yerr: as for `from_arrays`; where y is missing it does not matter.

        Raises:
            ShapeError: x, y and yerr differ in length.
            DataError: a point without any outcome, an infinite cell, or a deviation that is negative.

        Example:
            >>> import bayesmeta as bm
            >>> data = bm.Data.partly_known([0.0, 1.0], [[0.1, 5.0], [0.9, float("nan")]])
            >>> data.known.tolist()
            [[[True, True], [True, False]]]
        """
        given = np.array(y, dtype=np.float64)
        missing = torch.from_numpy(np.isnan(given))
        if given.ndim == 2 and bool(missing.all(-1).any()):
            raise DataError(f"expected an outcome at every point, got none at row {int(missing.all(-1).nonzero()[0])}")
        deviations = None
        if yerr is not None:
            deviations = np.array(np.broadcast_to(np.asarray(yerr, dtype=np.float64), given.shape))
            deviations[missing.numpy()] = 0.0
        # in place of a missing outcome stands 1, which is an outcome of every kind
        data = cls.from_arrays(x, np.nan_to_num(given, nan=1.0, posinf=np.inf, neginf=-np.inf), deviations)
        if not bool(missing.any()):
            return data
        noise = torch.zeros_like(data.y) if data.noise is None else data.noise
        return replace(data, noise=noise.masked_fill(missing.reshape(noise.shape).to(noise.device), torch.inf))

    @classmethod
    def from_labels(cls, x: ArrayLike, labels: ArrayLike) -> "Data":
        """One classification task, from lists, numpy, pandas or torch; every point is real.

        Args:
            x: the inputs, `N *x`, or `N` where inputs are single numbers.
            labels: `N` whole numbers from 0 to C - 1.

        Raises:
            ShapeError: x and labels differ in length.
            DataError: a label is negative or not a whole number.

        Example:
            >>> import bayesmeta as bm
            >>> task = bm.Data.from_labels([[0.0, 5.0], [1.0, 6.0], [2.0, 7.0]], [0, 1, 1])
            >>> task.y.tolist(), task.y.dtype, task.outcomes
            ([[0, 1, 1]], torch.int64, Labels(count=None))
        """
        x, labels = _real(x, "x"), as_tensor(labels, "labels")
        x = x[:, None] if x.ndim == 1 else x
        if x.ndim < 2:
            raise ShapeError(f"expected x of shape (N, D), got {tuple(x.shape)}")
        if labels.ndim != 1 or len(labels) != len(x):
            raise ShapeError(f"expected labels of shape ({len(x)},), got {tuple(labels.shape)}")
        wrong = (labels != labels.long()) | (labels < 0)
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0])
            raise DataError(f"expected integer labels from 0 to C - 1, got {labels[row].item()} at index {row}")
        return cls.full(x[None], labels.long().to(x.device)[None])

    @classmethod
    def full(
        cls, x: Shaped[Tensor, "B N *x"], y: Shaped[Tensor, "B N *c"], noise: Float[Tensor, "B N C"] | None = None
    ) -> "Data":
        """Points of B tasks that are all real: no task has fewer than N.

        Raises:
            ShapeError: the leading axes disagree.
        """
        return cls(x, y, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device), noise)

    @classmethod
    def stack(cls, tasks: Sequence["Data"]) -> "Data":
        """The tasks of several `Data` in one batch, in order, padded with zeros to the longest.

        Raises:
            DataError: no tasks.
            ShapeError: point shapes or kinds of outcome differ.
        """
        if not tasks:
            raise DataError("expected at least one task, got none")
        first = tasks[0]
        for task in tasks:
            if task.x.shape[2:] != first.x.shape[2:] or task.y.shape[2:] != first.y.shape[2:]:
                raise ShapeError(
                    f"expected tasks of one point shape, got x {tuple(first.x.shape[2:])}, "
                    f"y {tuple(first.y.shape[2:])} and x {tuple(task.x.shape[2:])}, y {tuple(task.y.shape[2:])}"
                )
        longest = max(task.num_points for task in tasks)
        require_paddable(sum(t.num_tasks for t in tasks), longest, sum(t.num_tasks * t.num_points for t in tasks))
        tensors = tensors_of(padded(task, longest) for task in tasks)
        return cls(*(torch.cat(parts) for parts in zip(*tensors, strict=True)))

    @classmethod
    def empty(cls, like: "Data") -> "Data":
        """The same tasks without any points: adapting on it gives the prior predictive."""
        return like.points(slice(0))

    @property
    def num_tasks(self) -> int:
        """The number of tasks, B."""
        return self.mask.shape[0]

    @property
    def num_points(self) -> int:
        """The number of points of each task, N, padding included."""
        return self.mask.shape[1]

    @property
    def counts(self) -> Int[Tensor, "B"]:
        """The number of real points of each task."""
        return self.mask.sum(-1)

    @property
    def outcomes(self) -> Outcomes:
        """What y is: so many numbers, or labels (how many classes there are, the data do not say)."""
        return Numbers(self.y.shape[2]) if self.y.is_floating_point() else Labels()

    @property
    def known(self) -> Bool[Tensor, "B N C"]:
        """Which outcomes of real points were measured; of numbers.

        Example:
            >>> Data.from_arrays([0.0, 1.0], [0.1, 0.9]).known.flatten().tolist()
            [True, True]
        """
        real = self.mask[..., None].expand(self.y.shape)
        return real if self.noise is None else real & ~self.noise.isinf()

    @property
    def complete(self) -> "Data":
        """The same points, those masked that lack one of their outcomes.

        Example:
            >>> Data.partly_known([0.0, 1.0], [[0.1, 5.0], [0.9, float("nan")]]).complete.mask.tolist()
            [[True, False]]
        """
        if self.noise is None:
            return self
        lacking = self.noise.isinf()
        return replace(self, mask=self.mask & ~lacking.any(-1), noise=self.noise.masked_fill(lacking, 0.0))

    def outcome(self, place: int) -> "Data":
        """One of several outcomes alone: points where it was not measured are masked.

        Args:
            place: of the outcome, from 0.

        Example:
            >>> Data.partly_known([0.0, 1.0], [[0.1, 5.0], [0.9, float("nan")]]).outcome(1).mask.tolist()
            [[True, False]]
        """
        at = slice(place, place + 1)
        noise = None if self.noise is None else self.noise[..., at]
        if noise is None:
            return Data(self.x, self.y[..., at], self.mask)
        unknown = noise.isinf()
        return Data(self.x, self.y[..., at], self.mask & ~unknown[..., 0], noise.masked_fill(unknown, 0.0))

    @property
    def spec(self) -> DataSpec:
        """What further data for these tasks must look like."""
        return DataSpec(self.num_tasks, tuple(self.x.shape[2:]), tuple(self.y.shape[2:]), self.x.dtype, self.x.device)

    def append(self, other: "Data") -> "Data":
        """The points of both, those of `other` last. Raises ShapeError if the tasks or the shapes of a point differ."""
        return joined(self, self.spec.conform(other))

    def packed(self) -> "Data":
        """The same points, the real ones of each task first and in their order, padding behind them.

        After `append` the padding of the first part stands between points; what reads a task as a sequence needs them
        side by side.

        Example:
            >>> first = Data.stack([Data.from_arrays([1.0, 2.0], [0.0, 0.0]), Data.from_arrays([3.0], [0.0])])
            >>> both = first.append(Data.full(torch.tensor([[[4.0]], [[5.0]]]), torch.zeros(2, 1, 1)))
            >>> both.mask[1].tolist(), both.packed().mask[1].tolist()
            ([True, False, True], [True, True, False])
            >>> both.packed().x[1, :2, 0].tolist()
            [3.0, 5.0]
        """
        order = (~self.mask).byte().argsort(dim=1, stable=True)
        task = torch.arange(self.num_tasks, device=order.device)[:, None]
        return self.each(lambda value: value[task, order])

    def each(self, change: Callable[[Tensor], Tensor]) -> "Data":
        """The same change of x, y, the mask and the noise, which go along with each other.

        Args:
            change: keeps or makes the leading axes `B N`, and all others as they are.

        Example:
            >>> import bayesmeta as bm
            >>> data = bm.Data.from_arrays([0.0, 1.0, 2.0], [5.0, 6.0, 7.0], yerr=[1.0, 2.0, 3.0])
            >>> data.each(lambda value: value.flip(1)).noise.flatten().tolist()
            [9.0, 4.0, 1.0]
        """
        noise = None if self.noise is None else change(self.noise)
        return Data(change(self.x), change(self.y), change(self.mask), noise)

    def to(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> "Data":
        """The same points on a device and in a floating precision; labels stay int64.

        Numbers of a task that differ, and become one number, are warned of (`PrecisionWarning`).

        Raises:
            DataError: a value is out of the range of the precision.
        """
        if self._is_in(dtype, device):
            return self
        decides = dtype not in (None, self.x.dtype) and not torch.compiler.is_compiling()
        real = None if decides and bool(self.mask.all()) else self.mask
        x, mask = _cast(self.x, dtype, device, "x", real), ordinary(self.mask.to(device=device))
        if self.y.is_floating_point():
            noise = None if self.noise is None else _cast_noise(self.noise, dtype, device)
            return Data(x, _cast(self.y, dtype, device, "y", real), mask, noise)
        return Data(x, ordinary(self.y.to(device=device)), mask)

    def _is_in(self, dtype: torch.dtype | None, device: torch.device | str | None) -> bool:
        """Whether all tensors have this precision and device, and gradients may pass them."""
        floats = [
            self.x,
            *([self.y] if self.y.is_floating_point() else []),
            *([] if self.noise is None else [self.noise]),
        ]
        return (
            all(value.dtype is (dtype or value.dtype) for value in floats)
            and all(value.device == (device or value.device) for value in (*floats, self.y, self.mask))
            and not any(value.is_inference() for value in (*floats, self.y, self.mask))
        )

    def select(self, tasks: Any) -> "Data":
        """The tasks at these positions (a slice, a list of positions or an index tensor)."""
        return self.each(lambda value: value[tasks])

    def points(self, which: Any) -> "Data":
        """The points at these positions of every task (a slice, or an index tensor): `data.points(slice(3))`."""
        return self.each(lambda value: value[:, which])

    def clone(self) -> "Data":
        """The same points in tensors of their own: what is later written into the old ones does not change them."""
        return self.each(Tensor.clone)


def squared_deviations(yerr: ArrayLike, y: Shaped[Tensor, "_ C"]) -> Float[Tensor, "_ C"]:
    """Known noise as users give it, deviations, as variances of these outcomes.

    Args:
        yerr: `N C`, `N` for a single output, or one number for all; units of y.
        y: the outcomes.

    Raises:
        ShapeError: deviations of other outcomes.
        DataError: one that is negative or not finite.

    Example:
        >>> squared_deviations([1.0, 2.0], torch.zeros(2, 1)).flatten().tolist()
        [1.0, 4.0]
    """
    deviation = _real(yerr, "yerr")
    given = tuple(deviation.shape)
    if deviation.ndim == 0:
        deviation = deviation.expand(y.shape)
    deviation = deviation[:, None] if deviation.ndim == 1 else deviation
    if deviation.shape != y.shape:
        raise ShapeError(f"expected yerr of the shape of y, {tuple(y.shape)}, got {given}")
    if bool((deviation < 0.0).any()):
        where = tuple(int(i) for i in (deviation < 0.0).nonzero()[0])
        raise DataError(
            f"expected yerr, standard deviations, not to be negative, got {deviation[where].item():g} at row {where[0]}"
        )
    return deviation.to(y.dtype).square()


def padded(data: Data, width: int) -> Data:
    """The same points with zeros behind them, masked, up to a number of points.

    Args:
        data: at most `width` points of each task.
        width: N of the result.

    Example:
        >>> padded(Data.from_arrays([1.0], [2.0]), 3).mask.tolist()
        [[True, False, False]]
    """
    missing = width - data.num_points
    return data.each(lambda v: torch.cat([v, v.new_zeros(v.shape[0], missing, *v.shape[2:])], 1)) if missing else data


def joined(first: Data, second: Data) -> Data:
    """The points of both for each task, the second's behind the first's: of data that are known to fit.

    Args:
        first: of B tasks.
        second: of the same tasks.
    """
    return Data(*(torch.cat(parts, 1) for parts in zip(*tensors_of((first, second)), strict=True)))


def tensors_of(each: Iterable[Data]) -> list[tuple[Tensor, ...]]:
    """x, y and mask of each, and the noise where one of them has any: where none is known it is zero.

    Args:
        each: data that are to be joined, or that go through recorded code.

    Example:
        >>> known, unknown = Data.from_arrays([1.0], [2.0], yerr=3.0), Data.from_arrays([4.0], [5.0])
        >>> [parts[3].tolist() for parts in tensors_of([known, unknown])]
        [[[[9.0]]], [[[0.0]]]]
    """
    each = list(each)
    if all(data.noise is None for data in each):
        return [(data.x, data.y, data.mask) for data in each]
    noise = [torch.zeros_like(data.y) if data.noise is None else data.noise for data in each]
    return [(data.x, data.y, data.mask, own) for data, own in zip(each, noise, strict=True)]


def require_paddable(num_tasks: int, longest: int, rows: int) -> None:
    """Refuse tasks that differ so much in length that padding would be nearly all there is.

    Args:
        num_tasks: how many tasks.
        longest: points of the longest.
        rows: points of all.

    Raises:
        DataError: more than 67 million padded points, of which less than a quarter are real.
    """
    if num_tasks * longest > max(MOST_PADDED, WASTE * rows):
        raise DataError(
            f"expected tasks that can be padded to one length, got {num_tasks} tasks of up to {longest} points each, "
            f"and {rows} in all: take a few of similar length at a time (by_length), or fewer points (query=)"
        )


def _counted(counts: Tensor) -> str:
    """`3 tasks, 2 to 8 points each`."""
    tasks = several(len(counts), "task")
    if not len(counts):
        return tasks
    fewest, most = int(counts.min()), int(counts.max())
    return f"{tasks}, {several(most, 'point') if fewest == most else f'{fewest} to {most} points'} each"


def _said(x_shape: tuple[int, ...], y_shape: tuple[int, ...], noise: Tensor | None) -> str:
    """`2 inputs, 1 number`, or what else they are."""
    inputs = several(x_shape[0], "input") if len(x_shape) == 1 else f"inputs of shape {' x '.join(map(str, x_shape))}"
    known = "" if noise is None else ", known noise"
    return f"{inputs}, {several(y_shape[0], 'number') if y_shape else 'labels'}{known}"


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """One task without padding: support points to adapt on, and query points to be scored at.

    A `Dataset` of them is what PyTorch's own `DataLoader` needs, with `TaskBatch.collate` as its `collate_fn`.

    Attributes:
        support_x: inputs of the support, `N *x`.
        support_y: its outcomes, `N C`, or `N` labels.
        query_x: inputs of the query, `M *x`.
        query_y: its outcomes, `M C`, or `M` labels.
        support_noise: the known noise variances of the support's outcomes, `N C`; None where none are known.
        query_noise: those of the query's, `M C`.

    Example:
        >>> import bayesmeta as bm
        >>> x, y = torch.arange(5.0)[:, None], torch.arange(5.0)[:, None] ** 2
        >>> task = bm.Task(support_x=x[:3], support_y=y[:3], query_x=x[3:], query_y=y[3:])
        >>> bm.TaskBatch.collate([task]).query.y.tolist()
        [[[9.0], [16.0]]]
    """

    support_x: Shaped[Tensor, "N *x"]
    support_y: Shaped[Tensor, "N *c"]
    query_x: Shaped[Tensor, "M *x"]
    query_y: Shaped[Tensor, "M *c"]
    support_noise: Float[Tensor, "N C"] | None = None
    query_noise: Float[Tensor, "M C"] | None = None

    def __repr__(self) -> str:
        """One line: how many points there are, and what inputs and outcomes are."""
        said = _said(self.support_x.shape[1:], self.support_y.shape[1:], self.support_noise)
        return f"Task(support of {len(self.support_x)}, query of {len(self.query_x)} points, {said})"


def _one(x: Tensor, y: Tensor, noise: Tensor | None) -> Data:
    return Data.full(x[None], y[None], None if noise is None else noise[None])


@dataclass(frozen=True, slots=True, eq=False)
class TaskBatch:
    """A batch of B tasks, each divided into support and query points: what a loss is computed on.

    Attributes:
        support: what a learner adapts on, padded on its own.
        query: what its predictive is scored at, padded on its own.
        names: the user's names of the tasks, for messages; None when they have none.

    Raises:
        ShapeError: support, query and names are not those of equally many tasks.

    Example:
        >>> import bayesmeta as bm
        >>> support = bm.Data.stack([bm.Data.from_arrays([0.0, 1.0], [0.1, 0.9]), bm.Data.from_arrays([0.5], [2.0])])
        >>> query = bm.Data.full(torch.tensor([[[2.0]], [[1.5]]]), torch.tensor([[[2.1]], [[2.8]]]))
        >>> tasks = bm.TaskBatch(support, query, names=("first", "second"))
        >>> tasks.joined().counts.tolist()
        [3, 2]
        >>> bm.ALPaCA(bm.Identity(1)).meta_loss(tasks).shape  # one loss for each task
        torch.Size([2])
    """

    support: Data
    query: Data
    names: tuple[Hashable, ...] | None = None

    def __repr__(self) -> str:
        """One line: its two halves."""
        return f"TaskBatch(support={self.support!r}, query={self.query!r})"

    def __post_init__(self) -> None:
        """Check that support and query belong to the same tasks."""
        if self.support.num_tasks != self.query.num_tasks:
            raise ShapeError(
                f"expected support and query of the same tasks, got {self.support.num_tasks} and {self.query.num_tasks}"
            )
        if self.names is not None and len(self.names) != self.support.num_tasks:
            raise ShapeError(f"expected names of {self.support.num_tasks} tasks, got {len(self.names)}")

    @classmethod
    def collate(cls, tasks: Sequence[Task], names: Sequence[Hashable] | None = None) -> "TaskBatch":
        """Pad and mask a list of tasks into a batch.

        Args:
            tasks: one or more, with inputs and outcomes of the same shapes.
            names: one for each task, or None.

        Raises:
            DataError: no tasks.
            ShapeError: the shapes of their points differ.
        """
        return cls(
            Data.stack([_one(task.support_x, task.support_y, task.support_noise) for task in tasks]),
            Data.stack([_one(task.query_x, task.query_y, task.query_noise) for task in tasks]),
            None if names is None else tuple(names),
        )

    @property
    def num_tasks(self) -> int:
        """The number of tasks, B."""
        return self.support.num_tasks

    def joined(self) -> Data:
        """All points of each task, the support's before the query's."""
        return joined(self.support, self.query)

    def to(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> "TaskBatch":
        """The same tasks on a device and in a floating precision. Raises DataError where a value is out of range."""
        return replace(self, support=self.support.to(dtype, device), query=self.query.to(dtype, device))

    def select(self, tasks: slice | Sequence[int]) -> "TaskBatch":
        """The tasks in a slice, or at these positions."""
        names = self.names
        if names is not None:
            names = names[tasks] if isinstance(tasks, slice) else tuple([names[place] for place in tasks])
        return TaskBatch(self.support.select(tasks), self.query.select(tasks), names)
