"""Episodes whose classes are groups of classes: alphabets, each shown by some of its characters."""

import torch
from typing_extensions import override

from bayesmeta.annotations import checked
from bayesmeta.arguments import generator_of, some, whole
from bayesmeta.data import Data, TaskBatch
from bayesmeta.errors import DataError
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.images.augment import Augmentation
from bayesmeta.tasks.images.draws import distinct, table
from bayesmeta.tasks.images.image_classes import ImageClasses
from bayesmeta.tasks.images.points import shuffled
from bayesmeta.tasks.source import ClassSplit, PrefixSplit, Split, TaskSource


class SuperClassEpisodes(TaskSource):
    """Episodes in which groups are the classes, each with examples of several of its own classes (Allen et al. 2019).

    A class is then many things that have a name in common: of ten alphabets, ten characters each. Groups are drawn
    without replacement, so are the classes of a group (its members) and the images of a class. Query images are others
    of the *same* members. Labels 0..N-1 are given to the groups in a random order.

    The points of a task come in rounds: one image of every member in a random order, then another of each, and so on.

    Args:
        images: what to draw from, with groups. Groups of fewer classes than `members` are left out.
        ways: N, the number of groups in a task.
        members: how many classes of a group a task shows.
        augment: how each image is changed at random in training; what `dataset` freezes is not changed.

    Raises:
        DataError: fewer than two ways, no members, images without groups, or fewer groups than ways that have so many
            classes.

    Example:
        >>> import torch
        >>> import bayesmeta as bm
        >>> characters, pixels = torch.arange(90) % 30, torch.rand(90, 28, 28)
        >>> images = bm.tasks.ImageClasses.from_arrays(pixels, characters, characters % 5)  # 5 alphabets of 6
        >>> episodes = bm.tasks.SuperClassEpisodes(images, ways=3, members=4)
        >>> split = bm.tasks.ClassSplit.at(1, query=1)  # of each character: 12 images, and 12 others
        >>> batch = episodes.draw(2, split, torch.Generator().manual_seed(0))
        >>> batch.support.x.shape, batch.query.x.shape
        (torch.Size([2, 12, 1, 28, 28]), torch.Size([2, 12, 1, 28, 28]))
        >>> sorted(batch.support.y[0].tolist())
        [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    """

    @checked
    def __init__(
        self, images: ImageClasses, ways: int = 10, members: int = 10, augment: Augmentation | None = None
    ) -> None:
        if ways < 2 or members < 1:
            raise DataError(f"expected at least 2 ways and 1 member, got {ways} and {members}")
        self.images, self.ways, self.members, self.augment = images, ways, members, augment
        self._rows, self._counts = table(images.labels.cpu(), images.num_classes)
        classes, sizes = table(images.require_groups().cpu(), len(images.group_names))
        eligible = sizes >= members
        self._classes, self._sizes = classes[eligible], sizes[eligible]
        drawn = torch.where(eligible[images.require_groups().cpu()], self._counts, len(images.images))
        self._fewest, self._smallest = int(drawn.min()), images.class_names[int(drawn.argmin())]
        if len(self._sizes) < ways:
            raise DataError(
                f"expected at least {ways} groups of {members} or more classes for {ways} ways, "
                f"got {len(self._sizes)} of {len(sizes)}: give fewer members, or fewer ways"
            )

    def __repr__(self) -> str:
        """The numbers of ways and members, and the images."""
        augment = f", {self.augment}" if self.augment else ""
        return f"SuperClassEpisodes({self.ways} ways of {self.members} members, {self.images}{augment})"

    def draw(self, num_tasks: int, split: Split, generator: torch.Generator) -> TaskBatch:
        """Draw fresh episodes.

        A `ClassSplit` counts images of each member, not of each group: with `ClassSplit.at(1, query=1)` a group of 10
        members has 10 support images and 10 query images. Its bounds are those of one K for all episodes. Without a
        number there is one query image of each member. `PrefixSplit.at(ways * members)` is the same at K = 1; it is
        what divides a `dataset`, and so what `fit` wants where it gets one for validation.

        Raises:
            DataError: another split, or bounds of a `PrefixSplit` that differ; numbers that differ between classes; a
                class with too few images for support and query.
        """
        each = self.ways * self.members
        if isinstance(split, ClassSplit) and split.unequal == 0.0:
            low, high = split.support
            shots = each * int(torch.randint(low, high + 1, (), generator=generator, device=generator.device))
            query = each if split.query is None else each * split.query
        elif isinstance(split, PrefixSplit) and split.support[0] == split.support[1]:
            shots = split.support[0]
            query = each if split.query is None else split.query
        else:
            raise DataError(
                f"expected a ClassSplit, which counts images of each member, one number for all of them, got {split}: "
                "for one of each, and one other of each as query, give split=ClassSplit.at(1, 1)"
            )
        points = self._points(num_tasks, -(-(shots + query) // each), generator, self.augment)
        return TaskBatch(points.points(slice(0, shots)), points.points(slice(shots, shots + query)))

    @property
    @override
    def total_points(self) -> float:
        return float(len(self.images.images))

    def pooled(self, generator: torch.Generator) -> Data:
        """One image of each member of 20 fresh tasks, changed as in training."""
        return self._points(20, 1, generator, self.augment)

    def dataset(self, num_tasks: int, per_member: int = 2, seed: int = 0) -> TaskDataset:
        """A frozen set of episodes with `per_member` images of each member, the same for the same seed.

        The first `ways * members` points of a task are one image of each member, the next as many are others, and so
        on: `evaluate(learner, tasks, shots=[100], split=PrefixSplit, query=100)` at 10 ways and 10 members. (What
        `ClassSplit` divides is divided by label: it would not see the members.) Images are not augmented.

        Raises:
            DataError: no tasks, fewer than two images of a member, or more than the smallest class has.
        """
        num_tasks, per_member = some(num_tasks, "num_tasks", "task"), whole(per_member, "per_member", 2)
        return TaskDataset(self._points(num_tasks, per_member, generator_of(seed), None).to(device="cpu"))

    def _points(self, num_tasks: int, rounds: int, generator: torch.Generator, augment: Augmentation | None) -> Data:
        """Tasks of so many rounds, each with one image of every member."""
        if self._fewest < rounds:
            raise DataError(
                f"expected at least {rounds} images of every class in a group of {self.members} or more, "
                f"got {self._fewest} of class {self._smallest!r}"
            )
        groups = distinct(torch.full((num_tasks,), len(self._sizes)), self.ways, generator)  # B ways
        members = distinct(self._sizes[groups], self.members, generator)  # B ways members
        classes = self._classes[groups[..., None], members]
        rows = self._rows[classes[..., None], distinct(self._counts[classes], rounds, generator)]
        parts = [
            shuffled(self.images.images, each, torch.ones_like(each, dtype=torch.bool), generator, augment)
            for each in rows.unbind(-1)
        ]
        return Data(*(torch.cat([getattr(part, name) for part in parts], 1) for name in ("x", "y", "mask")))
