"""Tasks of several kinds in one source."""

from collections.abc import Sequence

import torch

from bayesmeta.data import Data
from bayesmeta.errors import DataError
from bayesmeta.tasks.simulators.gp_functions import GPFunctions
from bayesmeta.tasks.simulators.sawtooth import Sawtooth
from bayesmeta.tasks.simulators.simulator import Simulator


class TaskMixture(Simulator):
    """Each task comes from one of several simulators, all equally likely. There is no oracle.

    Args:
        components: simulators whose points have one shape.
        whole_batches: True when all tasks of a draw come from the same one, as in the neural process benchmark.

    Raises:
        DataError: no components.

    Example:
        >>> import bayesmeta as bm
        >>> mixture = bm.tasks.TaskMixture([bm.tasks.Sinusoid(), bm.tasks.Step()])
        >>> mixture.dataset(6, 10)
        TaskDataset(6 tasks, 10 to 10 points each)
    """

    def __init__(self, components: Sequence[Simulator], whole_batches: bool = False) -> None:
        if not components:
            raise DataError("expected at least one simulator, got none")
        self.components, self.whole_batches = list(components), whole_batches

    @classmethod
    def neural_process(cls) -> "TaskMixture":
        """EQ, Matérn-5/2, weakly periodic and sawtooth, batch by batch; github wesselb/neuralprocesses."""
        functions = (GPFunctions.eq(), GPFunctions.matern(), GPFunctions.weakly_periodic(), Sawtooth())
        return cls(functions, whole_batches=True)

    def simulate(self, num_tasks: int, num_points: int, generator: torch.Generator) -> Data:
        """Fresh tasks of `num_points` points each, in a random order of kinds."""
        count = 1 if self.whole_batches else num_tasks
        kinds = torch.randint(len(self.components), (count,), generator=generator).expand(num_tasks)
        sizes = torch.bincount(kinds, minlength=len(self.components)).tolist()
        drawn = [
            component.simulate(size, num_points, generator)
            for component, size in zip(self.components, sizes, strict=True)
            if size
        ]
        return Data.stack(drawn).select(kinds.argsort(stable=True).argsort())
