"""N-way K-shot episodes, drawn from images with classes."""

from dataclasses import replace

import torch
from torch import Tensor
from typing_extensions import override

from bayesmeta.annotations import checked
from bayesmeta.arguments import generator_of, whole
from bayesmeta.data import Data, TaskBatch
from bayesmeta.errors import DataError
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.images.augment import Augmentation
from bayesmeta.tasks.images.draws import below, distinct, table
from bayesmeta.tasks.images.image_classes import ImageClasses
from bayesmeta.tasks.images.points import shuffled
from bayesmeta.tasks.source import ClassSplit, Split, TaskSource

DEFAULT_QUERY = 15  # query images of each class where the split does not say how many: customary in the literature


class Episodes(TaskSource):
    """N-way K-shot episodes: each task has N classes, K support images and some query images of each.

    Classes are drawn without replacement, and so are the images of a class; labels 0..N-1 are given in a random order,
    and the images of a task come in a random order. Pixels are float32 between 0 and 1, on the device of the images.

    Args:
        images: what to draw from.
        ways: N, or (smallest, largest) for an N drawn uniformly for every task: support and query are then padded.
        within_groups: whether all classes of a task are of one group, as in Lake's within-alphabet tasks. The group is
            drawn uniformly among those that have N classes or more.
        shots: (smallest, largest) number of support images of a class where classes have unequal numbers, for training:
            in every episode that is drawn, with probability one half, each class draws its own number uniformly between
            these two, both inclusive; the other episodes have the K of the split. None: what the split says, which has
            unequal numbers where it is a `ClassSplit` with a share of them.
        augment: how each image is changed at random in training; what `dataset` freezes for evaluation is not changed.

    Raises:
        DataError: fewer than two ways, more ways than classes (or than any group has classes), no groups, or shots that
            are no increasing pair of numbers that are not negative.

    Example:
        >>> import torch
        >>> import bayesmeta as bm
        >>> images = bm.tasks.ImageClasses.from_arrays(torch.rand(60, 28, 28), torch.arange(60) % 6)
        >>> episodes = bm.tasks.Episodes(images, ways=3)
        >>> batch = episodes.draw(2, bm.tasks.ClassSplit.at(1, query=5), torch.Generator().manual_seed(0))
        >>> batch.support.x.shape, batch.query.x.shape
        (torch.Size([2, 3, 1, 28, 28]), torch.Size([2, 15, 1, 28, 28]))
        >>> sorted(batch.support.y[0].tolist())
        [0, 1, 2]
        >>> mixed = bm.tasks.Episodes(images, ways=3, shots=(1, 4))  # 1 of each class, or 1 to 4 of each on its own
        >>> batch = mixed.draw(4, bm.tasks.ClassSplit.at(1, query=5), torch.Generator().manual_seed(0))
        >>> batch.support.counts.tolist()
        [10, 3, 10, 8]
    """

    @checked
    def __init__(
        self,
        images: ImageClasses,
        ways: int | tuple[int, int] = 5,
        within_groups: bool = False,
        shots: tuple[int, int] | None = None,
        augment: Augmentation | None = None,
    ) -> None:
        low, high = (ways, ways) if isinstance(ways, int) else ways
        if not 2 <= low <= high:
            raise DataError(f"expected at least 2 ways, or (smallest, largest), got {ways}")
        if shots is not None and not (len(shots) == 2 and 0 <= shots[0] <= shots[1]):
            raise DataError(f"expected shots (smallest, largest) that are not negative, got {shots}")
        self.images, self.ways, self.within_groups, self.shots = images, (low, high), within_groups, shots
        self.augment = augment
        # the images of each class, and the classes of each group, as rows of a table
        self._rows, self._counts = table(images.labels.cpu(), images.num_classes)
        pools = images.require_groups().cpu() if within_groups else torch.zeros(images.num_classes, dtype=torch.int64)
        classes, sizes = table(pools, int(pools.max()) + 1)
        order = sizes.argsort(descending=True, stable=True)
        self._classes, self._sizes = classes[order], sizes[order]
        if int(sizes.max()) < high:
            where = "in a group" if within_groups else "of images"
            raise DataError(f"expected at least {high} classes {where} for {high} ways, got at most {int(sizes.max())}")

    def __repr__(self) -> str:
        """The number of ways, and the images."""
        low, high = self.ways
        ways = f"{low}" if low == high else f"{low} to {high}"
        groups = ", within groups" if self.within_groups else ""
        shots = f", {self.shots[0]} to {self.shots[1]} shots in half of them" if self.shots else ""
        augment = f", {self.augment}" if self.augment else ""
        return f"Episodes({ways} ways{groups}{shots}, {self.images}{augment})"

    def draw(self, num_tasks: int, split: Split, generator: torch.Generator) -> TaskBatch:
        """Draw fresh episodes, with one K for all of them, drawn uniformly between the bounds of the split.

        Where the episodes have `shots`, or the split a share of unequal ones, some have other numbers for each class.
        Without a number in the split the query has 15 images of each class, or as many as the smallest class leaves.

        Raises:
            DataError: a split that is no `ClassSplit`, or a class with too few images for support and query.
        """
        if not isinstance(split, ClassSplit):
            raise DataError(
                f"expected a ClassSplit, which counts images of each class, got {type(split).__name__}: "
                "for 5-shot episodes with 15 query images of each class give split=ClassSplit.at(5, 15)"
            )
        own = split if self.shots is None else replace(split, support=self.shots, unequal=0.5)
        return self._draw(num_tasks, split, own, generator, self.augment)

    def _draw(
        self,
        num_tasks: int,
        split: ClassSplit,
        own: ClassSplit,
        generator: torch.Generator,
        augment: Augmentation | None,
    ) -> TaskBatch:
        """Episodes of one K, as `split` says, a share of which have a number for each class, as `own` says."""
        fewest = int(self._counts.min())
        low, high = split.support
        shots = int(torch.randint(low, high + 1, (), generator=generator, device=generator.device))
        if own.unequal > 0.0:
            high = max(high, own.support[1])
        query = min(DEFAULT_QUERY, max(fewest - high, 1)) if split.query is None else split.query
        if fewest < high + query:
            name = self.images.class_names[int(self._counts.argmin())]
            raise DataError(
                f"expected at least {high + query} images of every class ({high} support, {query} query), "
                f"got {fewest} of class {name!r}"
            )
        classes, mask = self._choose(num_tasks, generator)  # B ways
        given = torch.full(mask.shape, shots)
        if own.unequal > 0.0:
            least, most = own.support
            each = least + below(torch.full(mask.shape, most - least + 1), generator)
            given = torch.where(own.are_unequal(num_tasks, generator)[:, None], each, given)
        width = int(given.max()) if given.numel() else shots
        places = distinct(self._counts[classes], width + query, generator)  # B ways K+Q
        rows = self._rows[classes[..., None], places]
        shown = mask[..., None] & (torch.arange(width) < given[..., None])
        support = shuffled(self.images.images, rows[..., :width], shown, generator, augment)
        asked = mask[..., None].expand_as(rows[..., width:])
        return TaskBatch(support, shuffled(self.images.images, rows[..., width:], asked, generator, augment))

    def _choose(self, num_tasks: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The classes of each task, `B ways` in a random order, and which of them are real."""
        low, high = self.ways
        ways = below(torch.full((num_tasks,), high - low + 1), generator) + low
        # pools are sorted by size, largest first: those with `ways` classes or more are the first of them
        eligible = (self._sizes[:, None] >= ways).sum(0)
        pool = below(eligible, generator)
        sizes = self._sizes[pool]
        if low == high:
            places = distinct(sizes, high, generator)
            mask = torch.ones_like(places, dtype=torch.bool)
        else:
            # a pool may have fewer classes than the most ways: what is beyond is padding, and any class will do
            mask = torch.arange(high) < ways[:, None]
            places = torch.zeros(num_tasks, high, dtype=torch.int64)
            for count in ways.unique().tolist():
                tasks = ways == count
                places[tasks, :count] = distinct(sizes[tasks], count, generator)
        return self._classes[pool[:, None], places], mask

    @property
    @override
    def total_points(self) -> float:
        return float(len(self.images.images))

    def pooled(self, generator: torch.Generator) -> Data:
        """One image of each class of 100 fresh tasks, changed as in training."""
        split = ClassSplit((0, 0), 1)
        return self._draw(100, split, split, generator, self.augment).query

    def dataset(self, num_tasks: int, per_class: int = 20, seed: int = 0) -> TaskDataset:
        """A frozen set of episodes with `per_class` images of each class, the same for the same seed: for `evaluate`.

        Images are not augmented. Pixels are kept as float32: 600 5-way tasks of 20 images of 28 x 28 take 190 MB.

        Raises:
            DataError: no tasks, or more images than the smallest class has.
        """
        num_tasks, per_class = whole(num_tasks, "num_tasks"), whole(per_class, "per_class")
        if num_tasks < 1 or per_class < 1:
            raise DataError(f"expected at least one task and one image of a class, got {num_tasks} and {per_class}")
        split = ClassSplit((0, 0), per_class)
        return TaskDataset(self._draw(num_tasks, split, split, generator_of(seed), None).query.to(device="cpu"))
