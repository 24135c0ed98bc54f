"""Classes of a task that its support does not show: their points are of none of the classes that a learner knows."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from bayesmeta.arguments import LARGEST_SEED, generator_of
from bayesmeta.data import Data
from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.learner import Learner
from bayesmeta.outcomes import Labels
from bayesmeta.tasks.source import ClassSplit, Split

FEWEST_SHOWN = 2  # with a single class there is nothing to tell apart


@dataclass(frozen=True, eq=False)
class ShownClasses:
    """Which classes of each task are shown, and the labels 0..W-1 that these W have then, in their old order.

    Attributes:
        labels: `L`, every label of the tasks, increasing.
        shown: `B L`, True = a class of the task that is shown.
        present: `B L`, True = a class of the task.

    Example:
        >>> import bayesmeta as bm
        >>> task = bm.Data.from_labels([0.0, 0.1, 0.2, 0.3], [3, 5, 7, 7])
        >>> classes = ShownClasses.drawn(task, unseen=1, seed=0)
        >>> classes.shown.tolist()
        [[False, True, True]]
        >>> support, (query, outside) = classes.support(task), classes.query(task)
        >>> support.y[support.mask].tolist(), query.y.tolist(), outside.tolist()
        ([0, 1, 1], [[0, 0, 1, 1]], [[True, False, False, False]])
    """

    labels: Int[Tensor, "L"]
    shown: Bool[Tensor, "B L"]
    present: Bool[Tensor, "B L"]

    @classmethod
    def drawn(cls, tasks: Data, unseen: int, seed: int) -> "ShownClasses":
        """Draw `unseen` classes of each task that are not shown; with the same seed more of them include the fewer.

        Args:
            tasks: all their points.
            unseen: how many classes of each task.
            seed: of the draw.
        """
        labels = tasks.y[tasks.mask].unique()
        which = torch.where(tasks.mask, torch.searchsorted(labels, tasks.y.contiguous()), len(labels))
        present = torch.zeros(len(which), len(labels) + 1, dtype=torch.bool).scatter_(1, which, True)[:, :-1]
        # not the stream that divides the points, whose numbers decide which points are support
        generator = generator_of(seed + 1 if seed < LARGEST_SEED else 0)
        keys = torch.rand(present.shape, dtype=torch.float64, generator=generator).masked_fill(~present, 2.0)
        rank = keys.argsort(-1).argsort(-1)
        return cls(labels, present & (rank >= unseen), present)

    def require_enough(self, unseen: int, tasks: Int[Tensor, "K"], names: Sequence[Hashable]) -> None:
        """Raise DataError where a task is left with fewer than two classes.

        Args:
            unseen: how many are not shown.
            tasks: positions of those that count.
            names: of all.
        """
        few = tasks[self.shown[tasks].sum(-1) < FEWEST_SHOWN]
        if len(few):
            task = int(few[0])
            raise DataError(
                f"expected tasks of at least {unseen + FEWEST_SHOWN} classes, of which {unseen} are not shown, got "
                f"{int(self.present[task].sum())} in task {names[task]!r}: ask for fewer unseen classes"
            )

    def support(self, support: Data) -> Data:
        """The points of shown classes, under their new labels.

        Args:
            support: of the same tasks.
        """
        labels, shown = self._of(support)
        kept = Data(support.x, labels, support.mask & shown).packed()
        return kept.points(slice(int(kept.counts.max()) if kept.num_tasks else 0))

    def query(self, query: Data) -> tuple[Data, Bool[Tensor, "B M"]]:
        """All points, the shown ones under their new labels, and which of them are of no shown class.

        Args:
            query: of the same tasks.
        """
        labels, shown = self._of(query)
        return Data(query.x, labels, query.mask), query.mask & ~shown

    def _of(self, data: Data) -> tuple[Tensor, Tensor]:
        """The new label of each point, 0 where it has none, and whether its class is shown."""
        which = torch.searchsorted(self.labels, data.y.contiguous()).clamp(max=len(self.labels) - 1)  # of padding: any
        shown = self.shown.gather(1, which)
        return torch.where(shown, (self.shown.cumsum(-1) - 1).gather(1, which), 0), shown


def require_class_split(split: type[Split]) -> None:
    """Raise DataError unless the split shows classes as a whole.

    Args:
        split: what divides the points of a task.
    """
    if not issubclass(split, ClassSplit):
        raise DataError(
            f"expected split=ClassSplit where classes are left out of the support, got {split.__name__}: other splits "
            "do not count classes, and may show none of the points of any"
        )


def has_fixed_classes(learner: Learner) -> bool:
    """Whether the learner knows its classes without a support that shows them.

    Args:
        learner: of labels.

    Example:
        >>> import bayesmeta as bm
        >>> has_fixed_classes(bm.R2D2(bm.Identity(1), num_classes=3)), has_fixed_classes(bm.R2D2(bm.Identity(1)))
        (True, False)
    """
    return isinstance(learner.outcomes, Labels) and learner.outcomes.count is not None


def require_free_classes(learner: Learner) -> None:
    """Raise UnsupportedError where the learner has classes that a support need not show.

    Args:
        learner: of labels.
    """
    if isinstance(learner.outcomes, Labels) and learner.outcomes.count is not None:
        raise UnsupportedError(
            f"expected a learner that reads its classes from the support, got {learner.title} with "
            f"{learner.outcomes.count} classes, each with a prior whether it is shown or not, so that no point is of "
            "none of them: construct it with num_classes=None"
        )
