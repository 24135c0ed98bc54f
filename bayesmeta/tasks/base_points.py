"""Points of many classes with the labels that all tasks share: what is learned beside tasks, by minibatches."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from typing_extensions import override

from bayesmeta.arguments import generator_of, seed_of, some, whole
from bayesmeta.data import Data, TaskBatch
from bayesmeta.description import Described
from bayesmeta.errors import DataError, ShapeError
from bayesmeta.one_line import several
from bayesmeta.tasks.images.draws import distinct
from bayesmeta.tasks.images.image_classes import ImageClasses
from bayesmeta.tasks.images.points import unit
from bayesmeta.tasks.source import RandomSplit, Split, TaskSource
from bayesmeta.typing import ArrayLike

DEFAULT_QUERY = 64  # points of a draw where the split does not say how many
POOLED = 1_000  # points to take statistics of


class BasePoints(Described, TaskSource):
    """n points of C base classes, each with its own label 0..C-1, whatever task it may be in. A value.

    The labels of an episode say which of its own few classes an image has. What is to be learned of all classes at once
    (a softmax over the 964 characters of Omniglot's background set, say) needs these. Make them with `from_images` or
    `from_labels`; the same images may be in episodes, too. **Test classes must not be among them** (`require_apart`).

    As a source of tasks, it draws tasks whose points are random ones of all classes. By the number of a step it gives
    minibatches, of which an epoch is all points, once each, in a random order of its own.

    The constructor makes base points as a model folder has them: without the points. What has been learned of them is
    part of a model, and they are not.

    Args:
        num_classes: C.
        x_shape: the shape of an input.
        seed: of the order in which minibatches take the points.

    Raises:
        DataError: no classes.

    Example:
        >>> import torch
        >>> import bayesmeta as bm
        >>> images = bm.tasks.ImageClasses.from_arrays(torch.rand(40, 28, 28), torch.arange(40) % 8)
        >>> points = bm.tasks.BasePoints.from_images(images)
        >>> points
        BasePoints(40 points of 8 classes)
        >>> batch = points.minibatch(step=0, size=16)
        >>> batch.x.shape, batch.outcomes
        (torch.Size([1, 16, 1, 28, 28]), Labels(count=None))
        >>> epoch = torch.cat([points.minibatch(step, 10).y[0] for step in range(4)])
        >>> epoch.bincount().tolist()  # each of the 5 images of a class once
        [5, 5, 5, 5, 5, 5, 5, 5]
    """

    def __init__(self, num_classes: int, x_shape: Sequence[int], seed: int = 0) -> None:
        self.num_classes, self.seed = some(num_classes, "num_classes", "class"), seed_of(seed)
        self.x_shape = tuple(whole(size, "x_shape", 1) for size in x_shape)
        self._x, self._y = torch.zeros(0, *self.x_shape, dtype=torch.float32), torch.zeros(0, dtype=torch.int64)

    @classmethod
    def from_images(cls, images: ImageClasses, seed: int = 0) -> "BasePoints":
        """All images, labelled by their classes. Pixels are between 0 and 1 in what is drawn, as in episodes.

        Args:
            images: whose classes are the base classes.
            seed: of the order of minibatches.
        """
        return cls(images.num_classes, images.shape, seed)._with(images.images, images.labels.long())

    @classmethod
    def from_labels(
        cls, x: ArrayLike, labels: ArrayLike, num_classes: int | None = None, seed: int = 0
    ) -> "BasePoints":
        """Points from arrays: lists, numpy, pandas or torch.

        Args:
            x: the inputs, `n *x`, or `n` where inputs are single numbers.
            labels: `n` whole numbers from 0 to C - 1.
            num_classes: C; one more than the largest label by default.
            seed: of the order of minibatches.

        Raises:
            ShapeError: x and labels differ in length.
            DataError: no points, or a label that is no whole number from 0 to C - 1.

        Example:
            >>> import bayesmeta as bm
            >>> bm.tasks.BasePoints.from_labels([[0.0, 1.0], [2.0, 3.0]], [0, 4])
            BasePoints(2 points of 5 classes)
        """
        data = Data.from_labels(x, labels)
        if not data.num_points:
            raise DataError("expected at least one base point, got none")
        largest = int(data.y.max())
        if num_classes is not None and largest >= some(num_classes, "num_classes", "class"):
            raise DataError(f"expected labels from 0 to {num_classes - 1}, got {largest}")
        return cls(largest + 1 if num_classes is None else num_classes, data.x.shape[2:], seed)._with(
            data.x[0], data.y[0]
        )

    def _with(self, x: Tensor, y: Tensor) -> "BasePoints":
        self._x, self._y = x, y
        return self

    def __len__(self) -> int:
        """n, the number of points; 0 where they were not kept."""
        return len(self._y)

    def __repr__(self) -> str:
        """The numbers of points and classes."""
        return f"BasePoints({several(len(self), 'point')} of {self.num_classes} classes)"

    def __deepcopy__(self, memo: dict[int, Any]) -> "BasePoints":
        """Itself: the points are not changed, and a copy of a learner need not copy them."""
        return self

    @property
    @override
    def total_points(self) -> float:
        return float(len(self))

    def minibatch(self, step: int, size: int) -> Data:
        """The minibatch of a step, as one task whose labels are those of all classes: the same for the same seed.

        Args:
            step: its number, from 0.
            size: how many points; all of them where there are fewer.

        Raises:
            DataError: there are no points.
        """
        step, size = whole(step, "step"), min(some(size, "size", "point"), len(self.require_points()))
        positions = torch.arange(step * size, (step + 1) * size, dtype=torch.int64)
        epochs, within = positions // len(self), positions % len(self)
        orders = {
            epoch: torch.randperm(len(self), generator=generator_of((self.seed + epoch) % 2**63))
            for epoch in epochs.unique().tolist()
        }
        return self._points(torch.cat([order[within[epochs == epoch]] for epoch, order in orders.items()]))

    def chunks(self, size: int) -> Iterator[Data]:
        """All points, once each, so many at a time."""
        for places in torch.arange(len(self.require_points()), dtype=torch.int64).split(size):
            yield self._points(places)

    @override
    def draw(self, num_tasks: int, split: Split, generator: torch.Generator) -> TaskBatch:
        """Draw tasks of random points of all classes, each point once in a task. Without a number the query has 64.

        Args:
            num_tasks: how many.
            split: a `RandomSplit`: `RandomSplit.at(0, query=64)` for minibatches.
            generator: the only source of randomness.

        Raises:
            DataError: another split, or more points than there are.
        """
        if not isinstance(split, RandomSplit):
            raise DataError(
                f"expected a RandomSplit, which counts points, got {split}: give split=RandomSplit.at(0, query=64)"
            )
        query = DEFAULT_QUERY if split.query is None else split.query
        size = split.support[1] + query
        if size > len(self.require_points()):
            raise DataError(f"expected at least {size} base points for support and query, got {len(self)}")
        places = distinct(torch.full((num_tasks,), len(self)), size, generator)
        points = self._points(places.flatten())
        tasks = Data.full(*(each[0].unflatten(0, places.shape) for each in (points.x, points.y)))
        return TaskBatch(*split.divide(tasks, generator))

    @override
    def pooled(self, generator: torch.Generator) -> Data:
        """As many as a thousand random points."""
        order = torch.randperm(len(self.require_points()), generator=generator, device=generator.device).cpu()
        return self._points(order[:POOLED])

    def require_points(self) -> "BasePoints":
        """Itself. Raises DataError where the points were not kept."""
        if not len(self):
            raise DataError(
                "expected base points, got none: a model folder does not keep them; "
                "give them again (BasePoints.from_images, then learner.take_points)"
            )
        return self

    def require_apart(self, test: ImageClasses) -> None:
        """Refuse test images that are among the base points: what is learned of them would be tested on them.

        Args:
            test: images that learners are to be tested on.

        Raises:
            DataError: an image is in both, pixel by pixel.
            ShapeError: images of another shape.
        """
        if test.shape != self.x_shape:
            raise ShapeError(f"expected test images of shape {self.x_shape}, got {test.shape}")
        known = {row.numpy().tobytes() for row in unit(self._x.cpu())}
        for row, label in zip(unit(test.images.cpu()), test.labels.tolist(), strict=True):
            if row.numpy().tobytes() in known:
                raise DataError(
                    f"expected test images that are not among the base points, got one of {test.class_names[label]!r}: "
                    "take the base points from the classes of meta-training alone"
                )

    def _points(self, places: Int[Tensor, "size"]) -> Data:
        places = places.to(self._y.device)
        x = self._x[places]
        return Data.full((unit(x) if x.dtype == torch.uint8 else x)[None], self._y[places][None])
