"""Learners that are exact for tasks made by the simulators next to them: what an evaluation must find right."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Categorical

from bayesmeta.data import Data
from bayesmeta.learner import Learner, TaskPosterior
from bayesmeta.predictives import GaussianPredictive, IndependentPredictive, Predictive
from bayesmeta.tasks.dataset import TaskDataset


@dataclass(frozen=True, eq=False, kw_only=True)
class MeanPosterior(TaskPosterior):
    mean: Tensor  # B C
    variance: Tensor  # B
    noise: float

    def at(self, x: Tensor) -> Predictive:
        batch, points = x.shape[:2]
        ratio = self.variance / self.noise
        return GaussianPredictive(
            self.mean[:, None].expand(batch, points, -1),
            ratio[:, None].expand(batch, points),
            lambda: ratio[:, None, None].expand(batch, points, points),
            self.noise * torch.eye(self.mean.shape[-1], dtype=x.dtype),
        )

    def extended(self, data: Data) -> "MeanPosterior":
        raise NotImplementedError


class NormalMean(Learner):
    """y ~ N(phi, noise), phi ~ N(0, tau2), exactly; `bias` and `claimed` (a factor on all variances) make it wrong."""

    def __init__(self, tau2: float = 1.0, noise: float = 0.5, bias: float = 0.0, claimed: float = 1.0) -> None:
        super().__init__()
        self.tau2, self.noise, self.bias, self.claimed = tau2, noise, bias, claimed

    def condition(self, support: Data) -> MeanPosterior:
        count = support.counts.to(support.x.dtype)
        total = torch.where(support.mask[..., None], support.y, 0.0).sum(1)
        variance = 1.0 / (1.0 / self.tau2 + count / self.noise)
        mean = variance[:, None] * total / self.noise + self.bias
        return MeanPosterior(
            spec=support.spec, mean=mean, variance=variance * self.claimed, noise=self.noise * self.claimed
        )


def normal_tasks(
    num_tasks: int, points: int | list[int], seed: int, tau2: float = 1.0, noise: float = 0.5
) -> TaskDataset:
    """Tasks drawn from NormalMean's own model, in float64, possibly ragged."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.tensor([points] * num_tasks if isinstance(points, int) else points)
    shape = (num_tasks, int(counts.max()), 1)
    phi = tau2**0.5 * torch.randn(num_tasks, 1, 1, generator=generator, dtype=torch.float64)
    y = phi + noise**0.5 * torch.randn(shape, generator=generator, dtype=torch.float64)
    x = torch.rand(shape, generator=generator, dtype=torch.float64)
    mask = torch.arange(shape[1]) < counts[:, None]
    return TaskDataset(Data(x, y, mask), oracle=NormalMean(tau2, noise))


@dataclass(frozen=True, eq=False, kw_only=True)
class SharePosterior(TaskPosterior):
    probs: Tensor  # B C

    def at(self, x: Tensor) -> Predictive:
        return IndependentPredictive(Categorical(self.probs[:, None].expand(-1, x.shape[1], -1), validate_args=False))

    def extended(self, data: Data) -> "SharePosterior":
        raise NotImplementedError


class ClassShares(Learner):
    """y ~ Categorical(phi), phi ~ Dirichlet(1..1): Laplace's rule of succession. `power` sharpens it into a liar."""

    def __init__(self, num_classes: int = 3, power: float = 1.0) -> None:
        super().__init__()
        self.num_classes, self.power = num_classes, power

    def condition(self, support: Data) -> SharePosterior:
        seen = torch.nn.functional.one_hot(torch.where(support.mask, support.y, 0), self.num_classes)
        probs = 1.0 + (seen * support.mask[..., None]).sum(1).to(support.x.dtype)
        probs = probs**self.power
        return SharePosterior(spec=support.spec, probs=probs / probs.sum(-1, keepdim=True))


def label_tasks(num_tasks: int, points: int, seed: int, num_classes: int = 3) -> TaskDataset:
    """Tasks drawn from ClassShares' own model."""
    generator = torch.Generator().manual_seed(seed)
    weights = -torch.rand(num_tasks, num_classes, generator=generator, dtype=torch.float64).log()  # Dirichlet(1..1)
    labels = torch.multinomial(weights, points, replacement=True, generator=generator)
    x = torch.rand(num_tasks, points, 1, generator=generator, dtype=torch.float64)
    return TaskDataset(Data.full(x, labels), oracle=ClassShares(num_classes))
