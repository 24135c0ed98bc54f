"""One-shot runs within a group: one image of each class by one maker, others of the same classes by another."""

import torch
from typing_extensions import override

from bayesmeta.annotations import checked
from bayesmeta.arguments import generator_of, some
from bayesmeta.data import Data, TaskBatch
from bayesmeta.errors import DataError
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.images.augment import Augmentation
from bayesmeta.tasks.images.draws import below, table, uniform
from bayesmeta.tasks.images.image_classes import ImageClasses
from bayesmeta.tasks.images.points import shuffled
from bayesmeta.tasks.source import ClassSplit, PrefixSplit, Split, TaskSource


class OneShotRuns(TaskSource):
    """One-shot runs within a group, as in Lake et al. (2015): N classes of one group, and two of its makers.

    The support is one image of each class, all by one maker; the query is one image of each by the other. A group is
    drawn uniformly among those with N classes that two makers have both made, then one of these pairs of makers in a
    random order, then N of the classes that both have, without replacement, and of a maker's images of a class any.
    Labels 0..N-1 are given in a random order. Lake's own 20 runs are what `omniglot_runs` reads.

    Args:
        images: what to draw from, with groups and makers: `omniglot(...)`, or `from_arrays` with both.
        ways: N; 20 in Lake's runs. Groups of fewer classes are left out.
        augment: how each image is changed at random in training; what `dataset` freezes is not changed.

    Raises:
        DataError: fewer than two ways, images without groups or makers, or no group with two makers who have both made
            so many of its classes.

    Example:
        >>> import torch
        >>> import bayesmeta as bm
        >>> number = torch.arange(120)  # 12 characters of two alphabets, drawn by 10 people
        >>> character, drawer = number % 12, number // 12
        >>> images = bm.tasks.ImageClasses.from_arrays(torch.rand(120, 28, 28), character, character % 2, drawer)
        >>> runs = bm.tasks.OneShotRuns(images, ways=5)
        >>> batch = runs.draw(2, bm.tasks.ClassSplit.at(1, query=1), torch.Generator().manual_seed(0))
        >>> batch.support.x.shape, sorted(batch.query.y[0].tolist())
        (torch.Size([2, 5, 1, 28, 28]), [0, 1, 2, 3, 4])
        >>> runs.dataset(num_tasks=20, seed=0)  # for evaluate(..., shots=[5], split=bm.tasks.PrefixSplit)
        TaskDataset(20 tasks, 10 to 10 points each)
    """

    @checked
    def __init__(self, images: ImageClasses, ways: int = 20, augment: Augmentation | None = None) -> None:
        if ways < 2:
            raise DataError(f"expected at least 2 ways, got {ways}")
        self.images, self.ways, self.augment = images, ways, augment
        groups = images.require_groups().cpu()
        makers = images.require_makers().cpu().unique(return_inverse=True)[1]
        num_makers, num_classes = int(makers.max()) + 1, images.num_classes
        # of each maker and class the images, side by side in one order of all
        cells = makers * num_classes + images.labels.cpu()
        self._order = cells.argsort(stable=True)
        counts = torch.bincount(cells, minlength=num_makers * num_classes)
        self._starts = (counts.cumsum(0) - counts).reshape(num_makers, num_classes)
        self._counts = counts.reshape(num_makers, num_classes)
        self._classes, sizes = table(groups, len(images.group_names))  # G C
        real = torch.arange(self._classes.shape[1]) < sizes[:, None]
        self._made = (self._counts[:, self._classes] > 0) & real  # M G C
        pairs, most = [], 0
        for made in self._made.float().unbind(1):
            shared = (made @ made.T).fill_diagonal_(0.0)  # how many classes two makers have both made
            most = max(most, int(shared.max()))
            pairs.append((shared >= ways).nonzero())
        if most < ways:
            raise DataError(
                f"expected a group in which two makers have both made at least {ways} classes for {ways} ways, "
                f"got at most {most}"
            )
        num_pairs = torch.tensor([len(each) for each in pairs])
        self._pairs, self._first, self._num_pairs = torch.cat(pairs), num_pairs.cumsum(0) - num_pairs, num_pairs
        self._eligible = num_pairs.nonzero().flatten()

    def __repr__(self) -> str:
        """The number of ways, and the images."""
        augment = f", {self.augment}" if self.augment else ""
        return f"OneShotRuns({self.ways} ways, {self.images}{augment})"

    def draw(self, num_tasks: int, split: Split, generator: torch.Generator) -> TaskBatch:
        """Draw fresh runs; the split has no choice but is to say what is drawn.

        Either `ClassSplit.at(1, query=1)`, or `PrefixSplit.at(ways)`, which is what divides a `dataset`, and so what
        `fit` wants where it gets one for validation.

        Raises:
            DataError: another split.
        """
        one, prefix = ClassSplit.at(1, 1), PrefixSplit.at(self.ways, self.ways)
        if split not in (one, ClassSplit.at(1), prefix, PrefixSplit.at(self.ways)):
            raise DataError(
                f"expected one support and one query image of each class, got {split}: "
                f"give split=ClassSplit.at(1, 1), or {prefix} where a dataset is divided, too"
            )
        return self._draw(num_tasks, generator, self.augment)

    @property
    @override
    def total_points(self) -> float:
        return float(len(self.images.images))

    def pooled(self, generator: torch.Generator) -> Data:
        """The query images of 100 fresh runs, changed as in training."""
        return self._draw(100, generator, self.augment).query

    def dataset(self, num_tasks: int = 20, seed: int = 0) -> TaskDataset:
        """A frozen set of runs, the same for the same seed: for `evaluate(..., shots=[ways], split=PrefixSplit)`.

        The first `ways` points of a task are the support by one maker, and the others the query by another. Images are
        not augmented.

        Raises:
            DataError: no tasks.
        """
        runs = self._draw(some(num_tasks, "num_tasks", "task"), generator_of(seed), None)
        return TaskDataset(runs.joined().to(device="cpu"))

    def _draw(self, num_tasks: int, generator: torch.Generator, augment: Augmentation | None) -> TaskBatch:
        group = self._eligible[below(torch.full((num_tasks,), len(self._eligible)), generator)]
        pair = self._pairs[self._first[group] + below(self._num_pairs[group], generator)]  # B 2
        both = self._made[pair[:, 0], group] & self._made[pair[:, 1], group]  # B C
        places = torch.where(both, uniform(both.shape, generator), 2.0).argsort(-1)[:, : self.ways]
        classes = self._classes[group[:, None], places]  # B ways
        sides = []
        for maker in pair.unbind(-1):
            cell = maker[:, None], classes
            rows = self._order[self._starts[cell] + below(self._counts[cell], generator)][..., None]
            real = torch.ones_like(rows, dtype=torch.bool)
            sides.append(shuffled(self.images.images, rows, real, generator, augment))
        return TaskBatch(sides[0], sides[1])
