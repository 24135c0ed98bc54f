"""Gittins' index of arms that pay 1 or nothing, over the steps that remain: by dynamic programming.

Gittins 1979; for a finite horizon Niño-Mora 2011 (INFORMS J. Computing 23) and Kaufmann 2018 (Ann. Statist. 46). The
index of an arm with a wins and b losses (those of the prior included) and s steps to go is the sure payment a step at
which one would as soon take the payment as pull the arm, with the right to change to the payment later for good:

    V_0 = 0,   V_s(a, b; λ) = max(λ s,  p + p V_s-1(a + 1, b; λ) + (1 - p) V_s-1(a, b + 1; λ)),   p = a / (a + b)

It is the λ at which both are equal. Where a bandit never ends and later rewards are discounted, pulling the arm with
the largest index is optimal; with a finite horizon it is nearly so (and exactly where one arm is known).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from typing_extensions import override

from bayesmeta.arguments import whole
from bayesmeta.data import Data
from bayesmeta.errors import DataError, ShapeError
from bayesmeta.tasks.bandits.bernoulli import BernoulliBandits
from bayesmeta.tasks.bandits.policy import Policy
from bayesmeta.tasks.oracles.beta_bernoulli import unit_vectors

PAYMENTS = 101
"""How many λ the recursion is run for; the index is interpolated between them."""
ALL_KEPT = 128
"""Up to this horizon the index is kept at every number of steps to go; beyond, at as many, spread geometrically."""
MOST_NUMBERS = 2**22
LONGEST = 1000


@dataclass(frozen=True, eq=False)
class GittinsIndices:
    """The index of an arm for every count of wins and losses.

    Attributes:
        remaining: at which numbers of steps to go it is kept, increasing from 1.
        index: for each of them, by wins and losses seen; what is beyond the horizon means nothing.

    Example:
        >>> indices = gittins_indices(10)
        >>> round(indices.at(torch.tensor([1]), torch.zeros(1, 1).long(), torch.zeros(1, 1).long()).item(), 3)
        0.5
        >>> round(indices.at(torch.tensor([2]), torch.zeros(1, 1).long(), torch.zeros(1, 1).long()).item(), 3)  # 5/9
        0.556
    """

    remaining: Int[Tensor, "R"]
    index: Float[Tensor, "R W W"]

    def at(
        self, remaining: Int[Tensor, "B"], wins: Int[Tensor, "B K"], losses: Int[Tensor, "B K"]
    ) -> Float[Tensor, "B K"]:
        """The index of each arm, at the largest number of steps that is kept and not above those that remain.

        Args:
            remaining: steps to go, at least 1.
            wins: of each arm.
            losses: of each arm.
        """
        row = torch.searchsorted(self.remaining, remaining, right=True) - 1
        return self.index[row[:, None], wins, losses]


@lru_cache(maxsize=4)
def gittins_indices(horizon: int, alpha: float = 1.0, beta: float = 1.0) -> GittinsIndices:
    """The finite-horizon index under a Beta prior.

    The work grows as the third power of the horizon: 100 steps take a second, 500 about a minute.

    Args:
        horizon: the most steps to go.
        alpha: of the prior.
        beta: of the prior.

    Raises:
        DataError: no steps, or more than 1000.
    """
    horizon = whole(horizon, "horizon", least=1, most=LONGEST)
    kept = np.arange(1, horizon + 1)
    if horizon > ALL_KEPT:
        kept = np.unique(np.round(np.geomspace(1, horizon, ALL_KEPT // 2)).astype(int))
    index = torch.zeros(len(kept), horizon + 1, horizon + 1, dtype=torch.float32)
    payments = torch.linspace(0.0, 1.0, PAYMENTS, dtype=torch.float64)
    size = min(max(MOST_NUMBERS // (horizon + 1) ** 2, 2), PAYMENTS)
    for first in range(0, PAYMENTS - 1, size - 1):  # each part begins with the last payment of the one before
        _fill(index, kept.tolist(), payments[first : first + size], horizon, alpha, beta)
    return GittinsIndices(torch.from_numpy(kept), index)


def _fill(
    index: Tensor, kept: list[int], payments: Float[Tensor, "L"], horizon: int, alpha: float, beta: float
) -> None:
    """Write the indices that lie between these payments."""
    counts = torch.arange(horizon + 1, dtype=torch.float64)
    probability = (counts[:, None] + alpha) / (counts[:, None] + counts + alpha + beta)
    value = torch.zeros(len(payments), horizon + 1, horizon + 1, dtype=torch.float64)
    rows = {steps: row for row, steps in enumerate(kept)}
    for steps in range(1, horizon + 1):
        size = horizon - steps + 1  # counts that can be there with so many steps to go
        p, sure = probability[:size, :size], steps * payments[:, None, None]
        pulled = torch.lerp(value[:, :size, 1 : size + 1], 1.0 + value[:, 1 : size + 1, :size], p)
        value = torch.maximum(sure, pulled)
        if steps in rows:
            gain = pulled - sure  # falls in λ: the index is where it is 0
            last = (gain >= 0.0).sum(0, keepdim=True) - 1
            inside = ((last >= 0) & (last < len(payments) - 1))[0]
            low = last.clamp(0, len(payments) - 2)
            above, below = gain.gather(0, low)[0], gain.gather(0, low + 1)[0]
            found = payments[low[0]] + (payments[low[0] + 1] - payments[low[0]]) * above / (above - below)
            target = index[rows[steps], :size, :size]
            target.copy_(torch.where(inside, found.float(), target))


@dataclass(frozen=True, eq=False)
class Gittins(Policy):
    """The arm with the largest finite-horizon Gittins index.

    Make one with `start`. Beyond 128 steps the number of steps to go is rounded down to one of 64.

    Attributes:
        indices: of an arm.
        remaining: steps to go in each bandit.
        wins: of each arm, `B K`.
        losses: the same.

    Example:
        >>> import bayesmeta as bm
        >>> bandits = bm.tasks.BernoulliBandits(5)
        >>> policy = bm.tasks.Gittins.start(bandits, num_bandits=2000, steps=10)
        >>> bm.tasks.play(bandits, policy, num_bandits=2000, steps=10)
        Play(2000 bandits, 10 steps: mean reward 6.62, mean regret 1.66)
    """

    indices: GittinsIndices
    remaining: Int[Tensor, "B"]
    wins: Int[Tensor, "B K"]
    losses: Int[Tensor, "B K"]

    @classmethod
    def start(cls, bandits: BernoulliBandits, num_bandits: int, steps: int | Sequence[int]) -> "Gittins":
        """The policy before the first step.

        Args:
            bandits: says the prior and the number of arms.
            num_bandits: B.
            steps: how many all bandits have, or each.

        Raises:
            DataError: no steps, or more than 1000.
            ShapeError: steps of another number of bandits.
        """
        num_bandits = whole(num_bandits, "num_bandits", least=1)
        given = list(steps) if isinstance(steps, Sequence) else [steps] * num_bandits
        if len(given) != num_bandits:
            raise ShapeError(f"expected steps of {num_bandits} bandits, got those of {len(given)}")
        remaining = torch.tensor([whole(each, "steps") for each in given])
        indices = gittins_indices(int(remaining.max()), bandits.alpha, bandits.beta)
        zeros = torch.zeros(num_bandits, bandits.num_arms, dtype=torch.int64)
        return cls(indices, remaining, zeros, zeros)

    @override
    def choose(self, options: Float[Tensor, "B K K"], generator: torch.Generator) -> Int[Tensor, "B"]:
        if options.shape != (*self.wins.shape, self.wins.shape[1]):
            raise ShapeError(f"expected options of {tuple(self.wins.shape)} arms, got {tuple(options.shape)}")
        by_arm = self.indices.at(self.remaining.clamp(min=1), self.wins, self.losses)
        return (unit_vectors(options) @ by_arm[..., None].to(options.dtype))[..., 0].argmax(-1)

    @override
    def after(self, data: Data) -> "Gittins":
        """The policy after these rewards.

        Raises:
            DataError: more rewards than there were steps to go, or a reward that is not 0 or 1.
        """
        real = torch.where(data.mask[..., None], data.x, 0.0).round().long()
        reward = torch.where(data.mask, data.y, 0)
        if bool(((reward != 0) & (reward != 1)).any()):
            raise DataError(f"expected rewards of 0 or 1, got {int(reward.min())} to {int(reward.max())}")
        remaining = self.remaining - data.counts
        if bool((remaining < 0).any()):
            raise DataError("expected no more rewards than there were steps to go, got more: start with as many steps")
        won = (reward[..., None] * real).sum(1)
        wins, losses = self.wins + won, self.losses + real.sum(1) - won
        return replace(self, remaining=remaining, wins=wins, losses=losses)
