"""What the contracts need to know of a learner: how to make a small one, and data that fit it."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

import bayesmeta as bm

NUMBERS = bm.Numbers(1)
FEWEST_WAYS, MOST_WAYS = 2, 3  # of tasks whose classes are those of their support

# by maker and seed: the learner, and where the global generator was left. Most of the time of a contract on a closed
# form was to prepare the same learner anew
_MADE: dict[tuple[Callable[[], bm.Learner], int], tuple[bm.Learner, Tensor]] = {}


@dataclass(frozen=True)
class Case:
    """How to make a small learner and fitting data for it.

    Attributes:
        name: shown by pytest.
        make: a fresh learner in float32, from the global seed.
        outcomes: what the data have. With `Labels()` the tasks of a batch have two or three classes, each with an
            example in the support.
        num_inputs: D of the data.
        float32_tolerance: largest difference between the float32 and the float64 predictive mean, in predictive
            deviations; of probabilities themselves.
        examples: how many times a property is tried.
        calls: how many calls must leave memory as it was: fewer of learners that are slow to adapt.
        known_noise: whether points have known noise of their own.
        steps: of training, after which the loss must be lower: fewer of learners that are slow to train.
        exceptions: names of contracts that this learner does not keep, each with its reason.
    """

    name: str
    make: Callable[[], bm.Learner]
    outcomes: bm.Outcomes = NUMBERS
    num_inputs: int = 1
    float32_tolerance: float = 1e-4
    examples: int = 12
    calls: int = 50
    known_noise: bool = False
    steps: int = 60
    exceptions: dict[str, str] = field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        """C, the most that a task has; 0 for numbers."""
        return 0 if isinstance(self.outcomes, bm.Numbers) else self.outcomes.count or MOST_WAYS

    @property
    def num_outputs(self) -> int:
        """C of numbers; 0 for labels."""
        return self.outcomes.count if isinstance(self.outcomes, bm.Numbers) else 0

    def learner(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> bm.Learner:
        """A learner of the test's own, prepared for the data that `batch` makes, and moved off its starting point."""
        key = self.make, seed
        if key not in _MADE:
            torch.manual_seed(seed)
            made = self._prepared()
            _MADE[key] = made, torch.get_rng_state()
        learner, state = _MADE[key]
        torch.set_rng_state(state)
        return copy.deepcopy(learner).to(dtype)

    def _prepared(self) -> bm.Learner:
        learner = self.make()
        learner.prepare(self.batch(32, 6, 6, seed=99).support.to(torch.float64))
        with torch.no_grad():
            for parameter in learner.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return learner

    def batch(self, num_tasks: int, support: int, query: int, seed: int = 0, ragged: bool = True) -> bm.TaskBatch:
        """Smooth random tasks in float64, or blobs with labels; ragged supports of 0 to `support` points."""
        generator = torch.Generator().manual_seed(seed)
        fewest = 0
        if isinstance(self.outcomes, bm.Numbers):
            x, y = self._curves(num_tasks, support + query, generator)
        else:
            labels = torch.randint(self.num_classes, (num_tasks, support + query), generator=generator)
            if self.outcomes.count is None:
                labels, fewest = self._shown(labels, generator), min(MOST_WAYS, support)
            x, y = self._blobs(labels, generator), labels
        counts = torch.full((num_tasks,), support)
        if ragged:
            counts = torch.randint(fewest, support + 1, (num_tasks,), generator=generator)
            counts[0] = support
        mask = torch.arange(support) < counts[:, None]
        full = torch.ones(num_tasks, query, dtype=torch.bool)
        noise = 0.1 * torch.rand(y.shape, generator=generator, dtype=y.dtype) if self.known_noise else None
        sides = (
            (x[:, part], y[:, part], None if noise is None else noise[:, part])
            for part in (slice(support), slice(support, None))
        )
        return bm.TaskBatch(*(bm.Data(a, b, real, c) for (a, b, c), real in zip(sides, (mask, full), strict=True)))

    def _curves(self, num_tasks: int, total: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        normal = {"generator": generator, "dtype": torch.float64}
        x = torch.rand(num_tasks, total, self.num_inputs, **normal) * 4 - 2
        phase = torch.rand(num_tasks, 1, self.num_outputs, **normal) * 3
        slope = torch.randn(num_tasks, 1, self.num_outputs, **normal)
        noise = torch.randn(num_tasks, total, self.num_outputs, **normal)
        y = torch.sin(x.sum(-1, keepdim=True) + phase) + slope * x.mean(-1, keepdim=True) + 0.1 * noise
        if isinstance(self.outcomes, bm.tasks.Counts):
            return x, y.clamp(max=3.0).exp().round()
        return x, (0.3 * y).exp() if isinstance(self.outcomes, bm.tasks.Positives) else y

    def _shown(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Labels below each task's own number of classes, the first points showing all of them."""
        ways = torch.randint(FEWEST_WAYS, MOST_WAYS + 1, (len(labels), 1), generator=generator)
        first = torch.arange(MOST_WAYS).expand(len(labels), -1)
        return torch.cat([first, labels], 1)[:, : labels.shape[1]] % ways

    def _blobs(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Points around centers that are each task's own."""
        normal = {"generator": generator, "dtype": torch.float64}
        centers = torch.randn(len(labels), self.num_classes, self.num_inputs, **normal)
        noise = torch.randn(*labels.shape, self.num_inputs, **normal)
        return centers[torch.arange(len(labels))[:, None], labels] + 0.3 * noise
