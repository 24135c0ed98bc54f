"""Blocks that read a sequence in time: step t is given what stands at steps up to t, and never what comes later.

    dense       z <- [z, tanh(f) σ(g)],   f, g = W z_t + V z_{t-R} + b      a convolution of two taps, R steps apart
    TC          dense blocks with R = 1, 2, 4, ...                          together they reach 2^blocks steps
    attention   z <- [z, Σ_{s<t} softmax_s(q_t · k_s / sqrt(K)) v_s]        the steps before, and nothing
    votes       z <- [z, Σ_{s<t} a_ts v_s, log(C Σ_{s<t} a_ts y_s)]         attention a, and the labels it reads

Mishra, Rohaninejad, Chen, Abbeel 2018 (ICLR, arXiv:1707.03141). Before the first step all is zero to a convolution.
In the paper a step also reads itself. Here it has itself already, beside what it reads, and as queries and keys begin
alike, it would read little else.

A block runs in two ways that agree. `forward` takes a whole sequence. `keep` takes a sequence of which more is to come,
and `step` one further step given what was kept: any number of alternatives for that step are taken side by side, of
which none sees another. That is how queries are run on one support.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from bayesmeta.errors import DataError

FEW = 1e-3  # added to a share of the votes, so that what has none stays possible


@dataclass(frozen=True, eq=False)
class Steps:
    """Sequences that begin at step 0, and of which the real steps come first: what stands behind them is never read.

    Attributes:
        rows: what stands at each step.
        mask: True = a real step.

    Example:
        >>> steps = Steps(torch.tensor([[[5.0], [6.0], [0.0]]]), torch.tensor([[True, True, False]]))
        >>> steps.back(1), steps.back(2), steps.back(3)  # seen from the step that comes next
        (tensor([[[6.]]]), tensor([[[5.]]]), tensor([[[0.]]]))
    """

    rows: Float[Tensor, "L N I"]
    mask: Bool[Tensor, "L N"]

    @property
    def counts(self) -> Int[Tensor, "L"]:
        """How many steps of each are real."""
        return self.mask.sum(-1)

    def back(self, distance: int) -> Float[Tensor, "L 1 I"]:
        """What stands so many steps before the step that comes next; zero where nothing does.

        Args:
            distance: in steps, at least 1.
        """
        rows = functional.pad(self.rows, (0, 0, 1, 0))  # the first row is that of all steps before the first
        place = (self.counts + 1 - distance).clamp(min=0)[:, None, None]
        return rows.gather(1, place.expand(-1, 1, rows.shape[-1]))


class CausalBlock(nn.Module, ABC):
    """A block that adds numbers to each step of a sequence: `num_outputs` where there were `num_inputs`.

    Attributes:
        num_inputs: I.
        num_outputs: O.
    """

    num_inputs: int
    num_outputs: int

    @abstractmethod
    def forward(self, rows: Float[Tensor, "L N I"]) -> Float[Tensor, "L N O"]:
        """What stands at each step after the block."""

    @abstractmethod
    def keep(self, steps: Steps) -> Any:
        """What the step that comes next needs to know of the steps so far."""

    @abstractmethod
    def step(self, rows: Float[Tensor, "L M I"], kept: Any) -> Float[Tensor, "L M O"]:
        """The step that comes next, for alternatives of which none sees another.

        Args:
            rows: what each of them has before the block.
            kept: of the steps so far.
        """


class DenseBlock(CausalBlock):
    """A convolution of two taps with a gate, whose result is added to what there was as further numbers.

    Args:
        num_inputs: I.
        channels: D, how many numbers are added.
        dilation: R, how many steps the taps are apart.

    Raises:
        DataError: sizes that are not positive.

    Example:
        >>> block, rows = DenseBlock(3, 4, dilation=2), torch.randn(1, 6, 3)
        >>> block(rows).shape
        torch.Size([1, 6, 7])
        >>> steps = Steps(rows[:, :5], torch.ones(1, 5, dtype=torch.bool))
        >>> bool((block.step(rows[:, 5:], block.keep(steps)) - block(rows)[:, 5:]).abs().max() < 1e-5)
        True
    """

    def __init__(self, num_inputs: int, channels: int, dilation: int) -> None:
        super().__init__()
        if min(num_inputs, channels, dilation) < 1:
            raise DataError(f"expected positive sizes and dilation, got {num_inputs}, {channels} and {dilation}")
        self.num_inputs, self.num_outputs, self.dilation = num_inputs, num_inputs + channels, dilation
        self.here, self.before = nn.Linear(num_inputs, 2 * channels), nn.Linear(num_inputs, 2 * channels, bias=False)

    @override
    def forward(self, rows: Float[Tensor, "L N I"]) -> Float[Tensor, "L N O"]:
        seen = max(rows.shape[1] - self.dilation, 0)
        before = functional.pad(self.before(rows[:, :seen]), (0, 0, rows.shape[1] - seen, 0))
        return self.step(rows, before)

    @override
    def keep(self, steps: Steps) -> Float[Tensor, "L 1 _"]:
        before: Tensor = self.before(steps.back(self.dilation))
        return before

    @override
    def step(self, rows: Float[Tensor, "L M I"], kept: Float[Tensor, "L #M _"]) -> Float[Tensor, "L M O"]:
        value, gate = (self.here(rows) + kept).chunk(2, -1)
        return torch.cat([rows, value.tanh() * gate.sigmoid()], -1)


@dataclass(frozen=True, eq=False)
class PastKeys:
    """The keys and values of the steps so far, those of nothing first: R = 1 + N.

    Attributes:
        key: what the step that comes next is matched with.
        value: what it reads.
        mask: True = a real step, or nothing.
    """

    key: Float[Tensor, "L R K"]
    value: Float[Tensor, "L R V"]
    mask: Bool[Tensor, "L R"]


class CausalAttention(CausalBlock):
    """One head of attention to the steps before; what is read is added as further numbers.

    Keys begin as queries do, and neither distorts distances: steps that are alike read each other from the start.

    Args:
        num_inputs: I.
        key_size: K.
        value_size: V, how many numbers are added.

    Raises:
        DataError: sizes that are not positive.

    Example:
        >>> block, rows = CausalAttention(3, key_size=8, value_size=4), torch.randn(1, 6, 3)
        >>> block(rows).shape
        torch.Size([1, 6, 7])
        >>> steps = Steps(rows[:, :5], torch.ones(1, 5, dtype=torch.bool))
        >>> bool((block.step(rows[:, 5:], block.keep(steps)) - block(rows)[:, 5:]).abs().max() < 1e-5)
        True
    """

    def __init__(self, num_inputs: int, key_size: int, value_size: int) -> None:
        super().__init__()
        if min(num_inputs, key_size, value_size) < 1:
            raise DataError(f"expected positive sizes, got {num_inputs}, {key_size} and {value_size}")
        self.num_inputs, self.num_outputs = num_inputs, num_inputs + value_size
        # a bias of keys would add the same number to all logits of a step, which a softmax does not see
        self.query, self.key = nn.Linear(num_inputs, key_size), nn.Linear(num_inputs, key_size, bias=False)
        self.value = nn.Linear(num_inputs, value_size)
        self.nothing = nn.Parameter(torch.zeros(num_inputs))  # what is read where there is no step before
        self.scale = key_size**-0.5
        nn.init.orthogonal_(self.query.weight)
        nn.init.orthogonal_(self.value.weight)
        nn.init.zeros_(self.query.bias)
        with torch.no_grad():
            self.key.weight.copy_(self.query.weight)

    @override
    def forward(self, rows: Float[Tensor, "L N I"]) -> Float[Tensor, "L N O"]:
        steps = Steps(rows, torch.ones(rows.shape[:2], dtype=torch.bool, device=rows.device))
        before = torch.ones(rows.shape[1], rows.shape[1] + 1, dtype=torch.bool, device=rows.device).tril()
        return self._read(rows, self.keep(steps), before)

    @override
    def keep(self, steps: Steps) -> PastKeys:
        rows = torch.cat([self.nothing.expand(len(steps.rows), 1, -1), steps.rows], 1)
        return PastKeys(self.key(rows), self.value(rows), functional.pad(steps.mask, (1, 0), value=True))

    @override
    def step(self, rows: Float[Tensor, "L M I"], kept: PastKeys) -> Float[Tensor, "L M O"]:
        return self._read(rows, kept, kept.mask[:, None])

    def _read(self, rows: Tensor, past: PastKeys, seen: Bool[Tensor, "*l M R"]) -> Tensor:
        logits = self.scale * self.query(rows) @ past.key.mT
        weights = logits.masked_fill(~seen, -torch.inf).softmax(-1)
        return torch.cat([rows, self._added(weights @ past.value)], -1)

    def _added(self, read: Float[Tensor, "L M _"]) -> Float[Tensor, "L M _"]:
        return read


class CausalVotes(CausalAttention):
    """Attention that also adds what the steps that it reads vote for: log(C Σ_s a_s y_s), 0 where they vote evenly.

    Attention is the posterior of which step a query comes from, the votes are that of its class, and the logarithm of
    them is the score that a class needs to have that probability.

    Args:
        num_inputs: I.
        key_size: K.
        value_size: V, how many numbers are added beside the votes.
        place: where in a row its label stands, as a unit vector.
        ways: C, its length.

    Raises:
        DataError: sizes that are not positive; a label that is not within the row.

    Example:
        >>> label = torch.tensor([[[0.0, 1.0], [0.0, 1.0], [0.0, 0.0]]])
        >>> rows = torch.cat([torch.randn(1, 3, 4), label], -1)
        >>> CausalVotes(6, key_size=8, value_size=5, place=4, ways=2)(rows)[..., -2:].argmax(-1)  # the first has none
        tensor([[0, 1, 1]])
    """

    def __init__(self, num_inputs: int, key_size: int, value_size: int, *, place: int, ways: int) -> None:
        super().__init__(num_inputs, key_size, value_size)
        if ways < 1 or not 0 <= place <= num_inputs - ways:
            raise DataError(f"expected {ways} places of a label within {num_inputs} numbers, got them from {place} on")
        self.place, self.ways = place, ways
        self.num_outputs += ways

    @override
    def keep(self, steps: Steps) -> PastKeys:
        past = super().keep(steps)
        votes = steps.rows[..., self.place : self.place + self.ways]
        votes = functional.pad(votes, (0, 0, 1, 0), value=1.0 / self.ways)  # nothing votes evenly
        return replace(past, value=torch.cat([past.value, votes], -1))

    @override
    def _added(self, read: Float[Tensor, "L M _"]) -> Float[Tensor, "L M _"]:
        value, votes = read.split([read.shape[-1] - self.ways, self.ways], -1)
        return torch.cat([value, (self.ways * (votes + FEW)).log()], -1)


def temporal_convolutions(num_inputs: int, channels: int, num_steps: int) -> list[CausalBlock]:
    """The dense blocks of a TC block: dilations 1, 2, 4, ... until the first step is reached from the last.

    Args:
        num_inputs: of the first.
        channels: D, how many numbers each of them adds.
        num_steps: T, of the longest sequence: there are ceil(log2 T) blocks.

    Raises:
        DataError: sizes that are not positive.

    Example:
        >>> blocks = temporal_convolutions(3, 4, num_steps=6)
        >>> [block.dilation for block in blocks], blocks[-1].num_outputs
        ([1, 2, 4], 15)
    """
    if num_steps < 1:
        raise DataError(f"expected at least one step, got {num_steps}")
    count = (num_steps - 1).bit_length()  # ceil(log2 T)
    return [DenseBlock(num_inputs + i * channels, channels, 2**i) for i in range(count)]
