"""N-way K-shot episodes, drawn from images with classes."""

import torch
from torch import Tensor

from bayesmeta.arguments import generator_of, whole
from bayesmeta.data import Data, TaskBatch
from bayesmeta.errors import DataError
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.images.image_classes import ImageClasses
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

    Raises:
        DataError: fewer than two ways, more ways than classes (or than any group has classes), or no groups.

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
    """

    def __init__(self, images: ImageClasses, ways: int | tuple[int, int] = 5, within_groups: bool = False) -> None:
        low, high = (ways, ways) if isinstance(ways, int) else ways
        if not 2 <= low <= high:
            raise DataError(f"expected at least 2 ways, or (smallest, largest), got {ways}")
        self.images, self.ways, self.within_groups = images, (low, high), within_groups
        # the images of each class, and the classes of each group, as rows of a table
        self._rows, self._counts = _table(images.labels.cpu(), images.num_classes)
        pools = images.require_groups().cpu() if within_groups else torch.zeros(images.num_classes, dtype=torch.int64)
        classes, sizes = _table(pools, int(pools.max()) + 1)
        order = sizes.argsort(descending=True, stable=True)
        self._classes, self._sizes = classes[order], sizes[order]
        if int(sizes.max()) < high:
            where = "in a group" if within_groups else "of images"
            raise DataError(f"expected at least {high} classes {where} for {high} ways, got at most {int(sizes.max())}")

    def __repr__(self) -> str:
        """The number of ways, and the images."""
        low, high = self.ways
        ways = f"{low}" if low == high else f"{low} to {high}"
        return f"Episodes({ways} ways{', within groups' if self.within_groups else ''}, {self.images})"

    def draw(self, num_tasks: int, split: Split, generator: torch.Generator) -> TaskBatch:
        """Draw fresh episodes, with one K for all of them, drawn uniformly between the bounds of the split.

        Without a number in the split the query has 15 images of each class, or as many as the smallest class leaves.

        Raises:
            DataError: a split that is no `ClassSplit`, or a class with too few images for support and query.
        """
        if not isinstance(split, ClassSplit):
            raise DataError(
                f"expected a ClassSplit, which counts images of each class, got {type(split).__name__}: "
                "for 5-shot episodes with 15 query images of each class give split=ClassSplit.at(5, 15)"
            )
        fewest = int(self._counts.min())
        low, high = split.support
        shots = int(torch.randint(low, high + 1, (), generator=generator, device=generator.device))
        query = min(DEFAULT_QUERY, max(fewest - high, 1)) if split.query is None else split.query
        if fewest < high + query:
            name = self.images.class_names[int(self._counts.argmin())]
            raise DataError(
                f"expected at least {high + query} images of every class ({high} support, {query} query), "
                f"got {fewest} of class {name!r}"
            )
        classes, mask = self._choose(num_tasks, generator)  # B ways
        places = _distinct(self._counts[classes], shots + query, generator)  # B ways K+Q
        rows = self._rows[classes[..., None], places]
        support = self._side(rows[..., :shots], mask, generator)
        return TaskBatch(support, self._side(rows[..., shots:], mask, generator))

    def _choose(self, num_tasks: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The classes of each task, `B ways` in a random order, and which of them are real."""
        low, high = self.ways
        ways = _below(torch.full((num_tasks,), high - low + 1), generator) + low
        # pools are sorted by size, largest first: those with `ways` classes or more are the first of them
        eligible = (self._sizes[:, None] >= ways).sum(0)
        pool = _below(eligible, generator)
        sizes = self._sizes[pool]
        if low == high:
            places = _distinct(sizes, high, generator)
            mask = torch.ones_like(places, dtype=torch.bool)
        else:
            # a pool may have fewer classes than the most ways: what is beyond is padding, and any class will do
            mask = torch.arange(high) < ways[:, None]
            places = torch.zeros(num_tasks, high, dtype=torch.int64)
            for count in ways.unique().tolist():
                tasks = ways == count
                places[tasks, :count] = _distinct(sizes[tasks], count, generator)
        return self._classes[pool[:, None], places], mask

    def _side(self, rows: Tensor, mask: Tensor, generator: torch.Generator) -> Data:
        """Support or query from `B ways k` rows of the images, in a random order with padding last."""
        tasks, ways, each = rows.shape
        labels = torch.arange(ways)[:, None].expand(rows.shape).flatten(1)
        real = mask[..., None].expand(rows.shape).flatten(1)
        keys = torch.rand(real.shape, generator=generator, device=generator.device).cpu()
        order = torch.where(real, keys, 2.0).argsort(-1)
        width = int(mask.sum(-1).max()) * each if tasks else 0
        order = order[:, :width]
        real = real.gather(1, order)
        labels = torch.where(real, labels.gather(1, order), 0)
        device = self.images.images.device
        chosen = rows.flatten(1).gather(1, order).to(device)
        x = _unit(self.images.images.index_select(0, chosen.flatten()))
        return Data(x.reshape(*chosen.shape, *self.images.shape), labels.to(device), real.to(device))

    def pooled(self, generator: torch.Generator) -> Data:
        """One image of each class of 100 fresh tasks."""
        return self.draw(100, ClassSplit.at(0, 1), generator).query

    def dataset(self, num_tasks: int, per_class: int = 20, seed: int = 0) -> TaskDataset:
        """A frozen set of episodes with `per_class` images of each class, the same for the same seed: for `evaluate`.

        Pixels are kept as float32: 600 5-way tasks of 20 images of 28 x 28 take 190 MB.

        Raises:
            DataError: no tasks, or more images than the smallest class has.
        """
        num_tasks, per_class = whole(num_tasks, "num_tasks"), whole(per_class, "per_class")
        if num_tasks < 1 or per_class < 1:
            raise DataError(f"expected at least one task and one image of a class, got {num_tasks} and {per_class}")
        generator = generator_of(seed)
        return TaskDataset(self.draw(num_tasks, ClassSplit.at(0, per_class), generator).query.to(device="cpu"))


def _unit(pixels: Tensor) -> Tensor:
    """float32 between 0 and 1."""
    return pixels.float() if pixels.is_floating_point() else pixels.float().mul_(1.0 / 255.0)


def _below(bounds: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform whole numbers from 0 to the bounds, these excluded, on the CPU wherever the generator is."""
    # 53 random bits: a bound of a million is biased by 1e-10
    uniform = torch.rand(bounds.shape, generator=generator, dtype=torch.float64, device=generator.device).cpu()
    return (uniform * bounds).long()


def _distinct(bounds: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`*b count` distinct numbers from 0 to each bound, excluded, all ordered choices equally likely.

    Floyd's algorithm: the j-th step draws t from 0..j, or takes j itself where t was taken; then the order is shuffled.
    """
    flat = bounds.flatten()
    chosen = torch.full((len(flat), count), -1)
    for i in range(count):
        last = flat - count + i
        drawn = _below(last + 1, generator)
        taken = (chosen[:, :i] == drawn[:, None]).any(-1)
        chosen[:, i] = torch.where(taken, last, drawn)
    keys = torch.rand(chosen.shape, generator=generator, device=generator.device).cpu()
    return chosen.gather(1, keys.argsort(-1)).unflatten(0, bounds.shape)


def _table(members: Tensor, num_sets: int) -> tuple[Tensor, Tensor]:
    """Of each set the positions of its members, `sets width` padded with 0, and their number."""
    sizes = torch.bincount(members, minlength=num_sets)
    order = members.argsort(stable=True)
    mask = torch.arange(int(sizes.max())) < sizes[:, None]
    table = torch.zeros(mask.shape, dtype=torch.int64)
    table[mask] = order
    return table, sizes
