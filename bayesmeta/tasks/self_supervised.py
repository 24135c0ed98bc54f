"""Tasks from points without labels: classes are clusters, or single points and their changed copies.

    CACTUs    an embedding is clustered many times over, its axes scaled anew each time; an episode is of one of these
              partitions, and its classes are clusters (Hsu, Levine & Finn 2019, arXiv:1810.02334)
    UMTRA     N random points are N classes, and the query are changed copies of them (Khodadadeh, Bölöni & Shah 2019,
              arXiv:1811.11819)

Both are sources of tasks as episodes of labelled images are: `fit` trains any classifier on them.
"""

import warnings
from abc import abstractmethod

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from typing_extensions import override

from bayesmeta.annotations import checked
from bayesmeta.arguments import generator_of, seed_of, some, whole
from bayesmeta.data import Data, TaskBatch, as_tensor
from bayesmeta.errors import DataError, ShapeError
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.images.augment import Augmentation
from bayesmeta.tasks.images.draws import below, distinct, uniform
from bayesmeta.tasks.images.image_classes import ImageClasses
from bayesmeta.tasks.images.points import shuffled
from bayesmeta.tasks.source import ClassSplit, Split, TaskSource
from bayesmeta.typing import ArrayLike

DEFAULT_QUERY = 5  # points of each class where the split does not say how many
POOLED = 1_000  # points to take statistics of
ITERATIONS = 20  # of k-means: an episode needs a partition, and not the best one
SMALLEST_SCALE = 0.1  # of an axis of the embedding; the largest is 1


class UnlabelledTasks(TaskSource):
    """Episodes of points whose classes are made up: what CACTUs and UMTRA share. A subclass gives `rows` and `points`.

    Args:
        x: the points, `n *x`: numbers as they are, or images of uint8 (which become numbers between 0 and 1). Of
            `ImageClasses` the images are taken, and their labels are not looked at.
        ways: N, the number of classes of a task.

    Raises:
        DataError: fewer than two ways, no points, or a number that is not finite.
        ShapeError: x has one axis alone.

    Example:
        >>> import torch
        >>> import bayesmeta as bm
        >>> class Scenes(bm.tasks.UnlabelledTasks):
        ...     '''A class is some frames of a film that follow each other.'''
        ...     def rows(self, num_tasks, counts, generator):
        ...         starts = torch.randint(len(self.x) - counts, (num_tasks, self.ways, 1), generator=generator)
        ...         return starts + torch.arange(counts)
        >>> film = Scenes(torch.rand(200, 3), ways=4)
        >>> batch = film.draw(2, bm.tasks.ClassSplit.at(1, query=2), torch.Generator().manual_seed(0))
        >>> batch.support.x.shape, batch.query.x.shape
        (torch.Size([2, 4, 3]), torch.Size([2, 8, 3]))
    """

    def __init__(self, x: ArrayLike | ImageClasses, ways: int = 5) -> None:
        self.x = x.images if isinstance(x, ImageClasses) else _numbers_or_pixels(x)
        if self.x.ndim < 2:
            raise ShapeError(f"expected points x of shape (n, D) or (n, channels, height, width), got {self.x.shape}")
        self.ways = whole(ways, "ways", 2)
        if len(self.x) < self.ways:
            raise DataError(f"expected at least {self.ways} points for {self.ways} ways, got {len(self.x)}")

    @property
    @override
    def total_points(self) -> float:
        return float(len(self.x))

    @abstractmethod
    def rows(self, num_tasks: int, count: int, generator: torch.Generator) -> Int[Tensor, "B ways count"]:
        """Positions in `x` of so many points of each class of each task, on the CPU; support comes first.

        Args:
            num_tasks: B.
            count: points of a class, support and query together.
            generator: the only source of randomness.

        Raises:
            DataError: there are no classes of so many points.
        """

    def points(self, rows: Int[Tensor, "B ways k"], first: int, shown: Tensor, generator: torch.Generator) -> Data:
        """Points by their positions, labelled by their way, in a random order, with padding last.

        Args:
            rows: as `rows` gives them.
            first: the place of the first of them within its class: 0 in the support.
            shown: which are real, `B ways k`.
            generator: the only source of randomness.
        """
        return shuffled(self.x, rows, shown, generator)

    def draw(self, num_tasks: int, split: Split, generator: torch.Generator) -> TaskBatch:
        """Draw fresh episodes, with one K for all of them, drawn uniformly between the bounds of the split.

        Where the split has a share of unequal ones, the classes of these have a K each. Without a number in the split
        the query has 5 points of each class.

        Raises:
            DataError: a split that is no `ClassSplit`, or no classes of so many points.
        """
        if not isinstance(split, ClassSplit):
            raise DataError(
                f"expected a ClassSplit, which counts points of each class, got {type(split).__name__}: "
                "for one-shot episodes with 5 query points of each class give split=ClassSplit.at(1, 5)"
            )
        low, high = split.support
        given = torch.full((num_tasks, self.ways), int(below(torch.tensor(high - low + 1), generator)) + low)
        if split.unequal > 0.0:
            own = low + below(torch.full(given.shape, high - low + 1), generator)
            given = torch.where(split.are_unequal(num_tasks, generator)[:, None], own, given)
        width = int(given.max()) if given.numel() else high
        query = DEFAULT_QUERY if split.query is None else split.query
        rows = self.rows(num_tasks, width + query, generator)
        shown = torch.arange(width) < given[..., None]
        support = self.points(rows[..., :width], 0, shown, generator)
        asked = torch.ones(num_tasks, self.ways, query, dtype=torch.bool)
        return TaskBatch(support, self.points(rows[..., width:], width, asked, generator))

    def pooled(self, generator: torch.Generator) -> Data:
        """As many as a thousand random points, unchanged; their labels mean nothing."""
        order = torch.randperm(len(self.x), generator=generator, device=generator.device).cpu()[:POOLED]
        real = torch.ones(1, 1, len(order), dtype=torch.bool)
        return shuffled(self.x, order[None, None], real, generator)

    def dataset(self, num_tasks: int, per_class: int = 6, seed: int = 0) -> TaskDataset:
        """A frozen set of episodes with `per_class` points of each class, the same for the same seed: to validate on.

        Raises:
            DataError: no tasks, or no classes of so many points.
        """
        count, per_class = some(num_tasks, "num_tasks", "task"), whole(per_class, "per_class", 2)
        generator = generator_of(seed)
        rows = self.rows(count, per_class, generator)
        points = self.points(rows, 0, torch.ones_like(rows, dtype=torch.bool), generator)
        return TaskDataset(points.to(device="cpu"))


class AugmentedTasks(UnlabelledTasks):
    """Episodes whose N classes are N random points and changed copies of them (UMTRA, Khodadadeh et al. 2019).

    The first support point of a class is the point itself; the others, and the query, are copies of it that `augment`
    has changed, each by its own draw. Two of the N points may be of one true class: with C true classes of one size it
    happens to a class of an episode with a probability of about (N - 1) / C, so that N should be well below C. What a
    learner comes to hold for one class is what `augment` leaves it to be: it should change as much as a class does.

    Args:
        x: the points, `n *x`, or `ImageClasses`, whose labels are not looked at.
        augment: how copies are changed. Of images: `Affine`, `StrokeWidth`, `PixelNoise`, `Erased`, or several
            `Composed`; of other points your own, which is given `n *x`.
        ways: N.

    Raises:
        DataError: as `UnlabelledTasks`, and what is no `Augmentation`.

    Example:
        >>> import torch
        >>> import bayesmeta as bm
        >>> images, augment = torch.rand(30, 1, 16, 16), bm.tasks.Affine(degrees=15.0, shift=0.1)
        >>> episodes = bm.tasks.AugmentedTasks(images, augment, ways=5)
        >>> batch = episodes.draw(2, bm.tasks.ClassSplit.at(1, query=3), torch.Generator().manual_seed(0))
        >>> batch.support.x.shape, batch.query.x.shape
        (torch.Size([2, 5, 1, 16, 16]), torch.Size([2, 15, 1, 16, 16]))
        >>> learner = bm.Prototypical(bm.Conv4((1, 16, 16), 8))
        >>> _ = bm.fit(learner, episodes, steps=2, split=bm.tasks.ClassSplit.at(1, query=3), progress=False)
    """

    @checked
    def __init__(self, x: ArrayLike | ImageClasses, augment: Augmentation, ways: int = 5) -> None:
        super().__init__(x, ways)
        self.augment = augment

    def __repr__(self) -> str:
        """The number of ways, of points, and how copies are changed."""
        return f"AugmentedTasks({self.ways} ways, {len(self.x)} points, {self.augment})"

    @override
    def rows(self, num_tasks: int, count: int, generator: torch.Generator) -> Int[Tensor, "B ways count"]:
        items = distinct(torch.full((num_tasks,), len(self.x)), self.ways, generator)
        return items[..., None].expand(-1, -1, count)

    @override
    def points(self, rows: Int[Tensor, "B ways k"], first: int, shown: Tensor, generator: torch.Generator) -> Data:
        changed = (torch.arange(rows.shape[-1]) + first > 0).expand(rows.shape)
        return shuffled(self.x, rows, shown, generator, self.augment, changed)


class ClusteredTasks(UnlabelledTasks):
    """Episodes whose classes are clusters of an embedding (CACTUs, Hsu et al. 2019).

    The embedding is what an unsupervised method has made of the points: principal components, an autoencoder's code, or
    features of a learner that was trained on `AugmentedTasks`. It is clustered by k-means as often as `partitions`
    says, each time with every axis times a number of its own (log-uniform from 0.1 to 1), so that partitions see points
    as alike in different ways. An episode draws one of the partitions, N of its clusters and points of these. Clusters
    with fewer points than support and query want are left out.

    Args:
        x: the points, `n *x`, or `ImageClasses`, whose labels are not looked at.
        embedding: `n F`, of each point.
        clusters: of a partition. With more of them clusters are purer, and episodes harder.
        partitions: how many; the paper has 1 to 100.
        ways: N.
        seed: of the scales, and of where k-means starts.

    Raises:
        DataError: as `UnlabelledTasks`; an embedding that is not finite; more clusters than points, fewer than ways.
        ShapeError: an embedding of another length.

    Example:
        >>> import torch
        >>> import bayesmeta as bm
        >>> centers, generator = 9.0 * torch.eye(6), torch.Generator().manual_seed(0)
        >>> x = centers.repeat(20, 1) + torch.randn(120, 6, generator=generator)
        >>> episodes = bm.tasks.ClusteredTasks(x, embedding=x, clusters=6, partitions=3, ways=4)
        >>> episodes
        ClusteredTasks(4 ways, 120 points in 3 partitions of 6 clusters)
        >>> batch = episodes.draw(2, bm.tasks.ClassSplit.at(1, query=3), generator)
        >>> batch.support.x.shape, batch.query.x.shape
        (torch.Size([2, 4, 6]), torch.Size([2, 12, 6]))
    """

    @checked
    def __init__(
        self,
        x: ArrayLike | ImageClasses,
        embedding: ArrayLike,
        clusters: int = 500,
        partitions: int = 50,
        ways: int = 5,
        seed: int = 0,
    ) -> None:
        super().__init__(x, ways)
        self.clusters, self.partitions = (
            whole(clusters, "clusters", self.ways),
            some(partitions, "partitions", "partition"),
        )
        self.seed = seed_of(seed)
        rows = as_tensor(embedding, "embedding").detach().cpu().to(torch.float32)
        if rows.ndim != 2 or len(rows) != len(self.x):
            raise ShapeError(f"expected an embedding of shape ({len(self.x)}, F), got {tuple(rows.shape)}")
        if self.clusters > len(rows):
            raise DataError(f"expected at most as many clusters as {len(rows)} points, got {self.clusters}")
        generator = generator_of(self.seed)
        scales = SMALLEST_SCALE ** uniform((self.partitions, 1, rows.shape[1]), generator)
        self.labels = torch.stack([k_means(rows * scale, self.clusters, generator) for scale in scales])  # P n
        # of each partition the points, cluster by cluster
        self._order = self.labels.argsort(dim=-1, stable=True)
        self._counts = torch.stack([each.bincount(minlength=self.clusters) for each in self.labels])  # P K
        self._starts = self._counts.cumsum(-1) - self._counts

    def __repr__(self) -> str:
        """The numbers of ways, points, partitions and clusters."""
        where = f"{len(self.x)} points in {self.partitions} partitions of {self.clusters} clusters"
        return f"ClusteredTasks({self.ways} ways, {where})"

    @override
    def rows(self, num_tasks: int, count: int, generator: torch.Generator) -> Int[Tensor, "B ways count"]:
        large = self._counts >= count  # P K
        usable = (large.sum(-1) >= self.ways).nonzero().flatten()
        if not len(usable):
            raise DataError(
                f"expected a partition with at least {self.ways} clusters of {count} points or more, which is support "
                f"and query, got at most {int(large.sum(-1).max())} such: give fewer clusters, shots or query points"
            )
        partition = usable[below(torch.full((num_tasks,), len(usable)), generator)]
        keys = torch.where(large[partition], uniform((num_tasks, self.clusters), generator), 2.0)
        cluster = keys.argsort(-1)[:, : self.ways]
        cell = partition[:, None], cluster
        places = self._starts[cell][..., None] + distinct(self._counts[cell], count, generator)
        return self._order[partition[:, None, None], places]


def _numbers_or_pixels(x: ArrayLike) -> Tensor:
    """uint8 as it is, and all else as floats; a tensor of its own."""
    array = x if isinstance(x, Tensor) else np.asarray(x)
    if array.dtype in (torch.uint8, np.uint8):
        return array.clone() if isinstance(array, Tensor) else torch.from_numpy(array.copy())
    numbers = as_tensor(x, "x")
    return numbers if numbers.is_floating_point() else numbers.to(torch.float32)


def k_means(rows: Float[Tensor, "n F"], clusters: int, generator: torch.Generator) -> Int[Tensor, "n"]:
    """The cluster of each row, by Lloyd's algorithm from a start by k-means++ (Arthur & Vassilvitskii 2007).

    Args:
        rows: what is clustered.
        clusters: how many; where rows coincide, some may be left empty.
        generator: of the start.
    """
    from scipy.cluster.vq import kmeans2

    rows = rows - rows.mean(0)
    squares = rows.square().sum(-1)
    place = int(below(torch.tensor(len(rows)), generator))
    chosen, nearest = [place], torch.full_like(squares, torch.inf)  # squared distance to the nearest start so far
    for draw in uniform((clusters - 1,), generator).double():
        nearest = torch.minimum(nearest, squares - 2.0 * (rows @ rows[place]) + squares[place]).clamp(min=0.0)
        total = nearest.double().cumsum(-1)
        place = min(int(torch.searchsorted(total, draw * total[-1], right=True)), len(rows) - 1)
        chosen.append(place)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of an empty cluster, which no episode draws
        labels = kmeans2(rows.numpy(), rows[chosen].numpy(), iter=ITERATIONS, minit="matrix")[1]
    return torch.from_numpy(labels.astype("int64"))
