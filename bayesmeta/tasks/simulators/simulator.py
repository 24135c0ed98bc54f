"""Simulators: task sources that draw fresh tasks from a known p(phi), so that the Bayes-optimal answer can be known."""

from abc import abstractmethod
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.arguments import generator_of, whole
from bayesmeta.data import Data, TaskBatch
from bayesmeta.description import Described
from bayesmeta.errors import DataError
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.source import Split, TaskSource

DEFAULT_QUERY = 20  # query points of a task where the split does not say how many


class Simulator(TaskSource, Described):
    """Tasks that are drawn afresh at every call, in torch's default precision, on the CPU.

    A subclass gives `simulate`, and sets `oracle` where the exact posterior predictive is known.

    Example:
        >>> import torch
        >>> import bayesmeta as bm
        >>> class RandomWalks(bm.tasks.Simulator):
        ...     def simulate(self, num_tasks, num_points, generator):
        ...         steps = torch.randn(num_tasks, num_points, 1, dtype=torch.float32, generator=generator)
        ...         return bm.Data.full(torch.ones_like(steps).cumsum(1), steps.cumsum(1))
        >>> walks = RandomWalks()
        >>> walks.dataset(3, 10)
        TaskDataset(3 tasks, 10 to 10 points each)
        >>> walks.draw(4, bm.tasks.PrefixSplit.at(5), torch.Generator().manual_seed(0)).query.x.shape
        torch.Size([4, 20, 1])
    """

    @abstractmethod
    def simulate(self, num_tasks: int, num_points: int, generator: torch.Generator) -> Data:
        """Fresh tasks of `num_points` points each, all real. The generator is the only source of randomness."""

    def draw(self, num_tasks: int, split: Split, generator: torch.Generator) -> TaskBatch:
        """Draw fresh tasks; without a number in the split they have 20 query points."""
        split = replace(split, query=DEFAULT_QUERY) if split.query is None else split
        points = self.simulate(num_tasks, split.support[1] + (split.query or 0), generator)
        return TaskBatch(*split.divide(points, generator))

    def pooled(self, generator: torch.Generator) -> Data:
        """200 fresh tasks of 50 points each."""
        return self.simulate(200, 50, generator)

    def dataset(self, num_tasks: int, num_points: int, seed: int = 0) -> TaskDataset:
        """A frozen set of tasks, the same for the same seed; it carries this simulator's oracle.

        Raises:
            DataError: no tasks or no points.
        """
        num_tasks, num_points = whole(num_tasks, "num_tasks"), whole(num_points, "num_points")
        generator = generator_of(seed)
        return TaskDataset(self.simulate(num_tasks, num_points, generator), oracle=self.oracle)


class FunctionSimulator(Simulator):
    """Tasks that are noisy random functions of independent inputs, uniform on an interval.

    A subclass gives `observe`, and one with other inputs overrides `inputs`.

    Args:
        x: (low, high), the interval of the inputs.

    Raises:
        DataError: an interval that is not increasing.

    Example:
        >>> import torch
        >>> import bayesmeta as bm
        >>> class Lines(bm.tasks.FunctionSimulator):
        ...     def observe(self, x, generator):
        ...         slope = torch.randn(len(x), 1, 1, dtype=torch.float32, generator=generator)
        ...         return slope * x + 0.1 * torch.randn(x.shape, dtype=torch.float32, generator=generator)
        >>> tasks = Lines(x=(-1.0, 1.0)).dataset(5, 20)
        >>> tasks.data.x.shape, float(tasks.data.x.abs().max()) <= 1.0
        (torch.Size([5, 20, 1]), True)
    """

    def __init__(self, x: tuple[float, float]) -> None:
        self.x = increasing(x, "the interval of x")

    def inputs(self, num_tasks: int, num_points: int, generator: torch.Generator) -> Float[Tensor, "B N D"]:
        """Draw the input points of fresh tasks."""
        return uniform(self.x, (num_tasks, num_points, 1), generator)

    @abstractmethod
    def observe(self, x: Float[Tensor, "B N D"], generator: torch.Generator) -> Float[Tensor, "B N C"]:
        """A fresh function for every task, observed with noise at these points."""

    def simulate(self, num_tasks: int, num_points: int, generator: torch.Generator) -> Data:
        """Fresh tasks of `num_points` points each, all real. The generator is the only source of randomness."""
        x = self.inputs(num_tasks, num_points, generator)
        return Data.full(x, self.observe(x, generator))


def increasing(bounds: tuple[float, float], what: str) -> tuple[float, float]:
    """The bounds of an interval, as floats. Raises DataError unless low < high."""
    low, high = bounds
    if not low < high:
        raise DataError(f"expected {what} to be (low, high) with low < high, got {tuple(bounds)}")
    return float(low), float(high)


def nondecreasing(bounds: tuple[float, float], what: str) -> tuple[float, float]:
    """The bounds of an interval that may be a point, as floats. Raises DataError unless low <= high."""
    low, high = bounds
    if not low <= high:
        raise DataError(f"expected {what} to be (low, high) with low <= high, got {tuple(bounds)}")
    return float(low), float(high)


def nonnegative(value: float, what: str) -> float:
    """The value as a float. Raises DataError when it is negative or not finite."""
    if not 0.0 <= value < float("inf"):
        raise DataError(f"expected {what} to be finite and not negative, got {value}")
    return float(value)


def uniform(bounds: tuple[float, float], shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """U(low, high)."""
    low, high = bounds
    return low + (high - low) * torch.rand(shape, dtype=torch.float32, generator=generator)


def normal(moments: tuple[float, float], shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """N(mean, deviation²)."""
    mean, deviation = moments
    return mean + deviation * torch.randn(shape, dtype=torch.float32, generator=generator)
