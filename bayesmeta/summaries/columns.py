"""What the numbers of a learner are to a user: columns of a table, in its units."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.networks.terms import Quantities, Terms
from bayesmeta.outcomes import Labels, Numbers, Outcomes


@runtime_checkable
class TableSchema(Protocol):
    """What a summary reads of a table's schema (`bayesmeta.tasks.Schema`)."""

    @property
    def task(self) -> str:
        """The column with the name of the task."""

    @property
    def y(self) -> tuple[str, ...]:
        """The outcomes."""

    @property
    def x_names(self) -> tuple[str, ...]:
        """The encoded inputs, in order."""

    @property
    def levels(self) -> Mapping[str, tuple[str, ...]]:
        """The levels of categories and of groupings."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of the outcome, where it is one."""


@runtime_checkable
class Tasks(Protocol):
    """What a summary asks of tasks: `TaskDataset` is such.

    Example:
        >>> import bayesmeta as bm
        >>> tasks: Tasks = bm.TaskDataset.from_list([([0.0, 1.0], [0.1, 0.9])])
        >>> Columns.of((1,), bm.Numbers(1), tasks.schema).inputs.names
        ('x',)
    """

    @property
    def names(self) -> tuple[Hashable, ...]:
        """Of the tasks."""

    @property
    def schema(self) -> Any:
        """A `TableSchema`, or None where the tasks are of no table."""

    def by_length(self) -> Sequence[tuple[Tensor, Any]]:
        """The tasks in groups of similar length, as `TaskDataset.by_length`."""


@dataclass(frozen=True)
class Columns:
    """The columns of a table as a learner has them: names, and the units that its numbers are in.

    Attributes:
        inputs: of points; none where inputs are no vectors.
        outcomes: numbers that are predicted, or the one column of classes.
        classes: names of the classes, where the outcome is one that has names.
        task: what a task is called.

    Example:
        >>> import bayesmeta as bm
        >>> Columns.of((2,), bm.Numbers(1)).inputs.names
        ('x0', 'x1')
    """

    inputs: Quantities
    outcomes: Quantities
    classes: tuple[str, ...] = ()
    task: str = "task"

    @classmethod
    def of(
        cls, x_shape: tuple[int, ...] | None, outcomes: Outcomes | None, schema: TableSchema | None = None
    ) -> "Columns":
        """In the user's units, with the names of a table where there is one.

        Args:
            x_shape: the shape of an input, as the learner says.
            outcomes: what the learner predicts.
            schema: of the table.
        """
        count = x_shape[0] if x_shape is not None and len(x_shape) == 1 else 0
        inputs = ["x"] if count == 1 else [f"x{i}" for i in range(count)]
        number = outcomes.count if isinstance(outcomes, Numbers) else 1
        y = ["y"] if number == 1 else [f"y{i}" for i in range(number)]
        named = isinstance(outcomes, Labels) and outcomes.count
        classes = tuple(map(str, range(outcomes.count or 0))) if named and isinstance(outcomes, Labels) else ()
        if schema is None:
            return cls(Quantities.named(inputs), Quantities.named(y), classes)
        inputs = list(schema.x_names) if len(schema.x_names) == count else inputs
        y = list(schema.y) if len(schema.y) == number else y
        classes = schema.classes if len(schema.classes) == len(classes) else classes
        return cls(Quantities.named(inputs, schema.levels), Quantities.named(y), classes, schema.task)

    def seen(
        self,
        x_shift: Float[Tensor, "*x"],
        x_scale: Float[Tensor, "*x"],
        y_shift: Float[Tensor, "*c"],
        y_scale: Float[Tensor, "*c"],
    ) -> "Columns":
        """The same, as a learner has them that is given (x - x_shift) / x_scale and (y - y_shift) / y_scale.

        Args:
            x_shift: of the inputs.
            x_scale: of the inputs.
            y_shift: of the outcomes; no number where they are classes.
            y_scale: of the outcomes.
        """
        inputs = self.inputs.seen(x_shift, x_scale) if len(self.inputs) == x_shift.numel() else self.inputs
        outcomes = self.outcomes.seen(y_shift, y_scale) if y_shift.ndim == 1 else self.outcomes
        return replace(self, inputs=inputs, outcomes=outcomes)

    def of_outcome(self, place: int) -> "Columns":
        """With one of the outcomes alone.

        Args:
            place: of the outcome.
        """
        return replace(self, outcomes=self.outcomes.part(slice(place, place + 1)))

    @property
    def y_scale(self) -> Float[Tensor, "C"]:
        """The user's units of the learner's outcomes, in float64."""
        return torch.tensor(self.outcomes.scale, dtype=torch.float64)

    @property
    def log_volume(self) -> float:
        """Σ_c log of these: by how much a log density of a point is lower in the user's units, in nats."""
        return float(self.y_scale.log().sum())

    @property
    def are_the_users(self) -> bool:
        """Whether the learner sees what the user has."""
        return self.inputs.are_the_users and self.outcomes.are_the_users

    def weights(self, terms: Terms, weights: Float[Tensor, "*b F C"]) -> Float[Tensor, "*b R C"]:
        """Weights of a last layer in the user's units, in float64.

        Args:
            terms: what the features are.
            weights: in the learner's units.
        """
        found = terms.weights(weights.double()) * self.y_scale.to(weights.device)
        if terms.constant is not None:
            shift = torch.tensor(self.outcomes.shift, dtype=torch.float64, device=weights.device)
            found[..., terms.constant, :] += shift
        return found

    def terms(self, features: Any) -> Terms | None:
        """What features mean in the user's units; None where they mean nothing, or where the user's zero of the
        outcome cannot be said by them.

        Args:
            features: a `Network`.
        """
        found: Terms | None = features.terms(self.inputs)
        return None if found is None or (found.constant is None and any(self.outcomes.shift)) else found
