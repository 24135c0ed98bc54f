"""Which input of a task is on the axis of a figure, and what the others are meanwhile."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.errors import DataError
from bayesmeta.tasks.table import Schema

MARGIN = 0.05  # of the range of an input, that a curve goes on to both sides of a task


@dataclass(frozen=True)
class Axis:
    """An axis: where the rows of a task are on it, and where predictions are made.

    Attributes:
        label: what is on it.
        rows: the place of each row of the task.
        inputs: where predictions are made, `M D`.
        places: the place of each of these.
        is_curve: whether predictions belong to one curve rather than to points of their own.
        ticks: the names of the places 0, 1, ... of categories; None for numbers.
        note: what the other inputs are; empty where there are none.
    """

    label: str
    rows: np.ndarray
    inputs: Tensor
    places: np.ndarray
    is_curve: bool
    ticks: tuple[str, ...] | None
    note: str


@dataclass(frozen=True)
class _Column:
    """An input column of the table: where its numbers are among the inputs, and its levels where it has some."""

    name: str
    start: int
    levels: tuple[str, ...]
    is_code: bool  # one number for the level, rather than a number for each

    @property
    def stop(self) -> int:
        return self.start + (1 if self.is_code or not self.levels else len(self.levels))

    def of(self, x: Tensor) -> Tensor:
        """The numbers of the column alone."""
        return x[..., self.start : self.stop]

    def varies(self, x: Tensor) -> bool:
        return bool((self.of(x) != self.of(x[:1])).any())

    def said(self, row: Tensor) -> str:
        """Its value in one row."""
        value = self.of(row)
        if not self.levels:
            return f"{self.name} = {float(value):g}"
        place = int(value) if self.is_code else int(value.argmax())
        return f"{self.name} = {self.levels[place] if place < len(self.levels) else 'new'}"


def axis_of(
    x: Float[Tensor, "N D"], schema: Schema, along: str | None, everywhere: Float[Tensor, "R D"], num_points: int = 101
) -> Axis:
    """The axis for a task.

    Args:
        x: inputs of the task.
        schema: of its table.
        along: the column on the axis; by default the first that varies in the task, else the first of numbers.
        everywhere: inputs of all tasks, whose range is taken where the task's column has one value alone.
        num_points: of a curve.

    Raises:
        DataError: no such column among the inputs.
    """
    columns = _columns(schema)
    chosen = _chosen(columns, x, schema, along)
    others = [column for column in columns if column is not chosen]
    varying = [column.name for column in others if column.varies(x)]
    note = _note(others, varying, x)
    if chosen is None:
        rows = np.arange(1, len(x) + 1, dtype=np.float64)
        label = "row of the task"
        return Axis(label, rows, x, rows, False, None, note)
    if chosen.levels:
        place = chosen.of(x).argmax(-1)
        if varying:
            rows = _side_by_side(place)
            return Axis(chosen.name, rows, x, rows, False, chosen.levels, note)
        inputs = x[:1].repeat(len(chosen.levels), 1)
        inputs[:, chosen.start : chosen.stop] = torch.eye(len(chosen.levels), dtype=x.dtype)
        places = np.arange(len(chosen.levels), dtype=np.float64)
        return Axis(chosen.name, place.numpy().astype(np.float64), inputs, places, False, chosen.levels, note)
    rows = chosen.of(x)[:, 0].numpy()
    if varying:
        return Axis(chosen.name, rows, x, rows, False, None, note)
    known = x if chosen.varies(x) else everywhere
    low, high = (float(end) for end in torch.aminmax(chosen.of(known)))
    margin = MARGIN * (high - low) or 1.0
    line = torch.linspace(low - margin, high + margin, num_points, dtype=x.dtype)
    inputs = x[:1].repeat(num_points, 1)
    inputs[:, chosen.start] = line
    return Axis(chosen.name, rows, inputs, line.numpy(), True, None, note)


def _columns(schema: Schema) -> list[_Column]:
    found: list[_Column] = []
    for name in (*schema.x, *schema.covariates, *schema.within, *schema.groups):
        is_code = name in (*schema.within, *schema.groups)
        found.append(_Column(name, found[-1].stop if found else 0, schema.levels.get(name, ()), is_code))
    return found


def _chosen(columns: Sequence[_Column], x: Tensor, schema: Schema, along: str | None) -> _Column | None:
    able = [column for column in columns if not column.is_code]
    if along is not None:
        found = next((column for column in able if column.name == along), None)
        if found is None:
            raise DataError(f"expected an input column among {[column.name for column in able]}, got {along!r}")
        return found
    varying = [column for column in able if column.varies(x)]
    numbers = [column for column in able if not column.levels and column.name in schema.x]
    return next(iter((*varying, *numbers)), None)


def _note(others: Sequence[_Column], varying: Sequence[str], x: Tensor) -> str:
    if varying:
        return f"{', '.join(varying)} {'varies' if len(varying) == 1 else 'vary'}, too: each row at its own inputs"
    own = ", ".join(column.said(x[0]) for column in others)
    return f"the other inputs as in the task: {own}" if own else ""


def _side_by_side(place: Tensor) -> np.ndarray:
    """Places of rows within their categories, so that those of one category do not hide each other."""
    found = place.numpy().astype(np.float64)
    for each in np.unique(found):
        same = np.flatnonzero(found == each)
        found[same] += 0.6 * ((np.arange(len(same)) + 0.5) / len(same) - 0.5)
    return found
