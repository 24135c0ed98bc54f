"""Classes that are Gaussian clouds: few-shot classification whose Bayes classifier is known."""

from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from bayesmeta.arguments import generator_of, whole
from bayesmeta.data import Data, TaskBatch
from bayesmeta.errors import DataError
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.oracles.gaussian_blobs import GaussianBlobsOracle
from bayesmeta.tasks.simulators.simulator import DEFAULT_QUERY, Simulator, nonnegative
from bayesmeta.tasks.source import ClassSplit, Split


class GaussianBlobs(Simulator):
    """Classification tasks in which each class is a Gaussian cloud around a mean of its own.

    phi = (m_1..m_C),  m_c ~ N(0, spread² I);  y ~ uniform on 0..C-1;  x ~ N(m_y, noise² I).

    With a `ClassSplit`, `draw` gives every class of a task the same number of points.

    Args:
        ways: C.
        dimension: D, the length of x.
        spread: standard deviation of the means in every direction.
        noise: standard deviation of a cloud in every direction, positive.

    Raises:
        DataError: fewer than 2 ways or 1 dimension, a negative spread, noise that is not positive.

    Example:
        >>> import torch
        >>> import bayesmeta as bm
        >>> blobs = bm.tasks.GaussianBlobs(ways=3, dimension=2)
        >>> batch = blobs.draw(4, bm.tasks.ClassSplit.at(1, query=10), torch.Generator().manual_seed(0))
        >>> batch.support.x.shape, batch.query.x.shape
        (torch.Size([4, 3, 2]), torch.Size([4, 30, 2]))
        >>> blobs.oracle.adapt(batch.support).predict(batch.query.x).probs.shape
        torch.Size([4, 30, 3])
    """

    def __init__(self, ways: int = 5, dimension: int = 2, spread: float = 2.0, noise: float = 1.0) -> None:
        if ways < 2 or dimension < 1:
            raise DataError(f"expected at least 2 ways and 1 dimension, got {ways} and {dimension}")
        self.ways, self.dimension = ways, dimension
        self.spread, self.noise = nonnegative(spread, "the spread"), nonnegative(noise, "the noise deviation")
        self.oracle = GaussianBlobsOracle(ways, dimension, self.spread**2, self.noise**2)

    def simulate(self, num_tasks: int, num_points: int, generator: torch.Generator) -> Data:
        """Fresh tasks of `num_points` points each, all real. The generator is the only source of randomness."""
        return self._observe(torch.randint(self.ways, (num_tasks, num_points), generator=generator), generator)

    def draw(self, num_tasks: int, split: Split, generator: torch.Generator) -> TaskBatch:
        """Draw fresh tasks; without a number in the split they have 20 query points (`ClassSplit`: of each class)."""
        if not isinstance(split, ClassSplit):
            return super().draw(num_tasks, split, generator)
        split = replace(split, query=DEFAULT_QUERY) if split.query is None else split
        points = self._balanced(num_tasks, split.support[1] + (split.query or 0), generator)
        return TaskBatch(*split.divide(points, generator))

    def episodes(self, num_tasks: int, per_class: int = 20, seed: int = 0) -> TaskDataset:
        """A frozen set of tasks with `per_class` points of each class and this simulator's oracle.

        Raises:
            DataError: no tasks or no points.
        """
        num_tasks, per_class = whole(num_tasks, "num_tasks"), whole(per_class, "per_class")
        return TaskDataset(self._balanced(num_tasks, per_class, generator_of(seed)), oracle=self.oracle)

    def _balanced(self, num_tasks: int, per_class: int, generator: torch.Generator) -> Data:
        return self._observe(torch.arange(self.ways).repeat_interleave(per_class).repeat(num_tasks, 1), generator)

    def _observe(self, labels: Int[Tensor, "B N"], generator: torch.Generator) -> Data:
        means = self.spread * torch.randn(
            len(labels), self.ways, self.dimension, dtype=torch.float32, generator=generator
        )
        centres = means.gather(1, labels[..., None].expand(-1, -1, self.dimension))
        x = centres + self.noise * torch.randn(centres.shape, dtype=torch.float32, generator=generator)
        return Data.full(x, labels)
