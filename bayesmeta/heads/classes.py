"""The classes of a task: which there are, and the labels as vectors."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmeta.errors import DataError
from bayesmeta.one_line import InShort


@dataclass(frozen=True, eq=False)
class Classes(InShort):
    """Which of C classes each task has: tasks of a batch may differ in their ways.

    Attributes:
        mask: `B C`, True = a class of the task.

    Example:
        >>> import bayesmeta as bm
        >>> labels, real = torch.tensor([[0, 1, 2], [0, 1, 1]]), torch.ones(2, 3, dtype=torch.bool)
        >>> classes = bm.heads.Classes.of(labels, real, num_classes=None)
        >>> classes.num_classes, classes.mask.tolist()
        (3, [[True, True, True], [True, True, False]])
        >>> classes.logits(torch.zeros(2, 1, 3))[1].softmax(-1)
        tensor([[0.5000, 0.5000, 0.0000]])
    """

    mask: Bool[Tensor, "B C"]

    @classmethod
    def of(cls, labels: Int[Tensor, "B N"], mask: Bool[Tensor, "B N"], num_classes: int | None) -> "Classes":
        """The classes that the labels of a support speak of.

        With a fixed number all tasks have the classes 0..C-1, of which some may have no example yet. Without one a task
        has the classes 0 up to its largest label, and each must have an example: tasks may differ in their ways, and C
        is the largest of them.

        Args:
            labels: of the support.
            mask: True = real; what labels hold at padding never matters.
            num_classes: C, or None.

        Raises:
            DataError: a label that is negative or not below C; without a fixed number a task without points, or a class
                without an example.
        """
        labels = torch.where(mask, labels, 0)
        if num_classes is not None and torch.compiler.is_compiling():  # recorded code decides nothing
            return cls(mask.new_ones(mask.shape[0], num_classes))
        low, high = (int(labels.min()), int(labels.max())) if labels.numel() else (0, -1)
        if low < 0 or (num_classes is not None and high >= num_classes):
            expected = "from 0" if num_classes is None else f"from 0 to {num_classes - 1}"
            raise DataError(f"expected labels {expected}, got labels from {low} to {high}")
        if num_classes is not None:
            return cls(mask.new_ones(mask.shape[0], num_classes))
        counts = mask.sum(-1)
        if bool((counts == 0).any()):
            raise DataError(
                f"expected a support that shows which classes there are, got none for task {int(counts.argmin())}: "
                "give num_classes, and an empty support has a prior predictive"
            )
        has = torch.arange(high + 1, device=labels.device) <= labels.amax(-1, keepdim=True)
        missing = has & (one_hot(labels, high + 1, mask).sum(1) == 0)
        if bool(missing.any()):
            task, label = missing.nonzero()[0].tolist()
            raise DataError(
                f"expected an example of every class, got none of class {label} in task {task}, which has labels up to "
                f"{int(labels[task].max())}: number labels from 0 without gaps, or give num_classes"
            )
        return cls(has)

    @property
    def num_classes(self) -> int:
        """C, of the task that has most."""
        return self.mask.shape[1]

    def logits(self, scores: Float[Tensor, "B M C"]) -> Float[Tensor, "B M C"]:
        """Scores, -inf for what is not a class of the task."""
        return scores.masked_fill(~self.mask[:, None], -torch.inf)


def one_hot(labels: Int[Tensor, "B N"], num_classes: int, mask: Bool[Tensor, "B N"]) -> Float[Tensor, "B N C"]:
    """Labels as unit vectors in float64, zero where padded.

    Args:
        labels: from 0 to `num_classes - 1` where real.
        num_classes: C.
        mask: True = real.

    Example:
        >>> one_hot(torch.tensor([[1, 0]]), 3, torch.tensor([[True, False]]))
        tensor([[[0., 1., 0.],
                 [0., 0., 0.]]], dtype=torch.float64)
    """
    hot = (labels[..., None] == torch.arange(num_classes, device=labels.device)) & mask[..., None]
    return hot.double()
