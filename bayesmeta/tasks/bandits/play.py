"""A policy plays a batch of fresh bandits, all of them side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmeta.arguments import generator_of, whole
from bayesmeta.data import Data
from bayesmeta.errors import DataError, ShapeError
from bayesmeta.tasks.bandits.bandit import Bandits, chosen
from bayesmeta.tasks.bandits.policy import Policy
from bayesmeta.tasks.dataset import TaskDataset


@dataclass(frozen=True, eq=False)
class Play:
    """What became of a policy in a batch of B bandits, T steps each, the shorter ones padded.

    Attributes:
        data: the options that were chosen and the rewards, `B T`.
        arms: which arm was pulled, `B T`.
        expected: the mean reward of that arm, `B T`.
        best: that of the best arm, `B T`.
        policy: as it is after the last step.

    Example:
        >>> import bayesmeta as bm
        >>> bandits = bm.tasks.BernoulliBandits(5)
        >>> play = bm.tasks.play(bandits, bm.tasks.RandomArms(), num_bandits=3, steps=[10, 20, 5])
        >>> play.arms.shape, play.data.counts.tolist(), play.regret.shape
        (torch.Size([3, 20]), [10, 20, 5], torch.Size([3]))
        >>> play.tasks()  # what was observed, to learn a prior from
        TaskDataset(3 tasks, 5 to 20 points each)
    """

    data: Data
    arms: Int[Tensor, "B T"]
    expected: Float[Tensor, "B T"]
    best: Float[Tensor, "B T"]
    policy: Policy

    def __repr__(self) -> str:
        """How many bandits and steps, and the means over bandits."""
        line = f"mean reward {self.total.mean():.3g}, mean regret {self.regret.mean():.3g}"
        return f"Play({len(self.arms)} bandits, {self.arms.shape[1]} steps: {line})"

    @property
    def rewards(self) -> Float[Tensor, "B T"]:
        """The reward of each step, 0 at padding."""
        y = self.data.y if self.data.y.ndim == 2 else self.data.y[..., 0]
        return torch.where(self.data.mask, y.double(), 0.0)

    @property
    def total(self) -> Float[Tensor, "B"]:
        """The sum of the rewards of each bandit."""
        return self.rewards.sum(-1)

    @property
    def regret(self) -> Float[Tensor, "B"]:
        """What the best arm of each step would have given more than the chosen one, on average, summed over steps."""
        return self.regret_by_step.sum(-1)

    @property
    def regret_by_step(self) -> Float[Tensor, "B T"]:
        """The same at each step, 0 at padding."""
        return torch.where(self.data.mask, (self.best - self.expected).double(), 0.0)

    def tasks(self) -> TaskDataset:
        """The logs as tasks. Arms were chosen by what had been observed, which the likelihood need not know of: given
        the points, no posterior and no evidence depends on how their inputs were chosen from earlier ones. Train by
        `fit_evidence`, or with `PrefixSplit`: a random split predicts rewards from later choices, which tell of them.

        Raises:
            DataError: a bandit without steps.
        """
        return TaskDataset(self.data)


def play(
    bandits: Bandits, policy: Policy, num_bandits: int = 1000, steps: int | Sequence[int] = 100, seed: int = 0
) -> Play:
    """Let a policy play fresh bandits.

    Two policies with one seed play the same bandits: phi, options, and the reward that each arm gives at each step are
    the same, so that their regrets may be compared bandit by bandit.

    Args:
        bandits: a family.
        policy: what chooses, as it is before the first step.
        num_bandits: B.
        steps: T of all bandits, or of each.
        seed: of bandits, rewards and choices.

    Raises:
        DataError: no bandits, steps that are not whole numbers, or a choice of an arm that is none.
        ShapeError: steps or choices of another number of bandits.

    Example:
        >>> import bayesmeta as bm
        >>> bandits = bm.tasks.BernoulliBandits(5)
        >>> thompson = bm.tasks.Thompson(bandits.oracle.adapt(bandits.nothing(2000)))
        >>> for policy in (bm.tasks.RandomArms(), thompson):
        ...     print(bm.tasks.play(bandits, policy, num_bandits=2000, steps=10))
        Play(2000 bandits, 10 steps: mean reward 5, mean regret 3.33)
        Play(2000 bandits, 10 steps: mean reward 5.83, mean regret 2.48)
    """
    num_bandits = whole(num_bandits, "num_bandits", least=1)
    lengths = _lengths(steps, num_bandits)
    world = generator_of(seed)
    choices = generator_of(int(torch.randint(2**62, (), generator=world)))
    phi, seen = bandits.phi(num_bandits, world), []
    for step in range(int(lengths.max())):
        options = bandits.options(num_bandits, world)
        expected = bandits.expected(phi, options)
        rewards = bandits.rewards(expected, world)  # of all arms, whichever is chosen
        arms = _checked(policy.choose(options, choices), num_bandits, bandits.num_arms)
        gained = torch.take_along_dim(rewards, arms[:, None], 1)
        mask = (step < lengths)[:, None]
        data = Data(chosen(options, arms)[:, None], bandits.observed(gained), mask)
        policy = policy.after(data)
        seen.append((data.x, data.y, mask, arms[:, None], expected.gather(1, arms[:, None]), expected.amax(1, True)))
    if not seen:
        raise DataError("expected at least one step, got 0")
    x, y, mask, arms, mean, best = (torch.cat(parts, 1) for parts in zip(*seen, strict=True))
    return Play(Data(x, y, mask), arms, mean, best, policy)


def _lengths(steps: int | Sequence[int], num_bandits: int) -> Int[Tensor, "B"]:
    if isinstance(steps, Sequence) or (isinstance(steps, Tensor) and steps.ndim):
        if len(steps) != num_bandits:
            raise ShapeError(f"expected steps of {num_bandits} bandits, got those of {len(steps)}")
        return torch.tensor([whole(each, "steps") for each in steps])
    return torch.full((num_bandits,), whole(steps, "steps"))


def _checked(arms: Tensor, num_bandits: int, num_arms: int) -> Int[Tensor, "B"]:
    if not isinstance(arms, Tensor) or arms.dtype != torch.int64:
        raise DataError(f"expected a policy to choose by an int64 tensor, got {getattr(arms, 'dtype', type(arms))}")
    if arms.shape != (num_bandits,):
        raise ShapeError(f"expected one choice for each of {num_bandits} bandits, got {tuple(arms.shape)}")
    wrong = arms[(arms < 0) | (arms >= num_arms)]
    if len(wrong):
        raise DataError(f"expected arms from 0 to {num_arms - 1}, got {int(wrong[0])}")
    return arms
