"""Labels as unit vectors: what networks have whose labels enter through a layer with a place for each class.

    OneHotHead     C classes with names, the same in every task
    ClassSlots     the classes of a task's support, of which there are at most C

SNAIL, memory networks and Meta Networks read a label as C numbers of which one is 1, and give C scores. The weights of
one place are not those of another, so that relabelling the classes of a task changes what is predicted: they are
trained on tasks whose labels are drawn anew. `CategoricalHead`, whose classes share all weights, has no such places.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Categorical
from typing_extensions import override

from bayesmeta.data import Data
from bayesmeta.errors import DataError
from bayesmeta.heads.classes import Classes, one_hot
from bayesmeta.heads.output import OutputHead, Shown
from bayesmeta.outcomes import Labels
from bayesmeta.predictives import IndependentPredictive


class OneHotHead(OutputHead):
    """C classes with names: a support point's label is a unit vector, and the network gives a score for each class.

    Args:
        num_classes: C, the classes of every task, with or without an example.

    Raises:
        DataError: fewer than two classes; a label that is not below C.

    Example:
        >>> import bayesmeta as bm
        >>> head = bm.heads.OneHotHead(3)
        >>> shown = head.shown(bm.Data.from_labels([0.1, 0.2], [2, 0]))
        >>> shown.points.y.tolist()
        [[[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]]
        >>> head.predictive(torch.zeros(1, 1, 3), shown).probs
        tensor([[[0.3333, 0.3333, 0.3333]]])
    """

    outcomes: Labels

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_inputs = self.size = _places(num_classes)
        self.outcomes = Labels(num_classes)

    @override
    def shown(self, support: Data) -> Shown:
        Classes.of(support.y, support.mask, self.size)  # labels are those of classes
        return Shown(self.as_numbers(support))

    @override
    def predictive(self, raw: Float[Tensor, "L M K"], shown: Shown) -> IndependentPredictive:
        return IndependentPredictive(Categorical(logits=raw, validate_args=False))

    def as_numbers(self, points: Data) -> Data:
        """The same points, with unit vectors for outcomes: zeros where padded.

        Args:
            points: with labels below C.
        """
        return Data(points.x, one_hot(points.y, self.size, points.mask).to(points.x.dtype), points.mask)


class ClassSlots(OneHotHead):
    """The classes of each task's support, each with an example: a task may have fewer than C, never more.

    What is no class of a task gets probability 0, and the scores of the others are compared with each other alone.

    Args:
        num_classes: C, the most classes that a task has.

    Raises:
        DataError: fewer than two classes; a support with more classes than C, without a point, or without an example of
            a class.

    Example:
        >>> import bayesmeta as bm
        >>> head = bm.heads.ClassSlots(5)
        >>> shown = head.shown(bm.Data.from_labels([0.1, 0.2], [1, 0]))
        >>> head.predictive(torch.zeros(1, 1, 5), shown).probs
        tensor([[[0.5000, 0.5000]]])
        >>> head.shown(bm.Data.from_labels([0.0] * 6, [0, 1, 2, 3, 4, 5]))
        Traceback (most recent call last):
            ...
        bayesmeta.errors.DataError: expected at most 5 classes, got a task with 6: ...
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.outcomes = Labels()

    @override
    def shown(self, support: Data) -> Shown:
        ways = Classes.of(support.y, support.mask, None).num_classes
        if ways > self.size:
            raise DataError(
                f"expected at most {self.size} classes, got a task with {ways}: a network with a place for each class "
                "is built for so many; make it with more, or take a learner whose classes share all weights, such as "
                "Prototypical"
            )
        return Shown(self.as_numbers(support))

    @override
    def predictive(self, raw: Float[Tensor, "L M K"], shown: Shown) -> IndependentPredictive:
        has = (shown.points.y * shown.points.mask[..., None]).amax(1) > 0.0
        ways = int(torch.where(has, 1 + torch.arange(self.size, device=has.device), 0).max())
        return super().predictive(Classes(has[:, :ways]).logits(raw[..., :ways]), shown)


def _places(num_classes: int) -> int:
    count = Labels(num_classes).count
    if count is None:
        raise DataError("expected the number of classes that the network has a place for, got None")
    return count
