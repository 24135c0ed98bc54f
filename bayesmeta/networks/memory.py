"""Recurrent networks with a memory: what is kept of a sequence, as tensors, and one step from it to the next.

    LSTMMemory   the state of a long short-term memory, and nothing else
    LRUA         a matrix of slots beside it, read by content, written to the least used (Santoro et al. 2016)

A memory that is given to a learner is a description; `cell` makes the network of it. The state is a tuple of tensors
whose first axis is the task, so that it can be kept, selected and gone on from. What it is before the first input is
learned. LRUA, of an input x_t and R heads:

    h_t = LSTM([x_t, r_{t-1}]),  z_t = [x_t, h_t]     the controller reads what was read
    k_t = tanh(W_k z_t),  v_t = tanh(W_v z_t)         of each head: what to look for, and what to write
    w^w = σ(s_t) w^r_{t-1} + (1 - σ(s_t)) w^lu        where: the slots read before, or the one that is used least
    M_t = M_{t-1} with the least used slot zero, + Σ w^w (k_{t-1} + v_t)ᵀ
    w^r = softmax(β_t cos(k_t, M_t)),  r_t = w^r M_t
    u_t = γ u_{t-1} + Σ (w^r + w^w)                   usage; the least used slot is the first where it is smallest
    out = [z_t, r_t]

The label of a point comes with the input of the next. So what is written is the *last* key k_{t-1}, under which that
point was looked up, with what the controller now says of it; in the paper it is k_t, the key of the point whose label
is not known yet. Of β, which is 1 in the paper, a softmax of cosines over many slots is nearly flat.

LRUA begins as a table: keys are the features of a point, turned; the outcome is written to numbers of the slot that
keys leave free; each point has a slot of its own. All of that is learned on. What is read has then something to say of
the outcome from the first step, without which features of images learn nothing through a memory.
"""

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from bayesmeta.description import Described
from bayesmeta.errors import DataError
from bayesmeta.networks.recurrent import MaskedLSTM

State = tuple[Tensor, ...]

KEY, OUTCOME = 0.5, 0.5  # how much of features, and of an outcome, is written at the start: little bent by tanh
LEAST_NORM = 1e-4  # added to squared norms: a cosine with an empty slot is 0, and smooth
RARELY = -4.0  # how often, before the sigmoid, a point is written to what was read
SHARPNESS = 10.0  # β at the start
LOG_2 = math.log(2.0)  # softplus of 0


class MemoryCell(nn.Module, ABC):
    """A recurrent network: its state at the start, and after one more input.

    Attributes:
        num_outputs: O, how many numbers a step gives.

    Example:
        >>> cell = LSTMMemory(4).cell(1, 1)
        >>> out, state = cell(torch.zeros(3, 2), cell.start(3))
        >>> out.shape, [part.shape for part in state]
        (torch.Size([3, 4]), [torch.Size([3, 4]), torch.Size([3, 4])])
    """

    num_outputs: int

    @abstractmethod
    def start(self, num_rows: int) -> State:
        """The learned state before the first input.

        Args:
            num_rows: how many sequences.
        """

    @abstractmethod
    def forward(self, x: Float[Tensor, "B I"], state: State) -> tuple[Float[Tensor, "B O"], State]:
        """What a step gives, and the state after it.

        Args:
            x: one input of each sequence.
            state: before it.
        """

    def recall(self) -> Float[Tensor, "O Y"] | None:
        """Weights that read back, of what a fresh cell gives, the outcome that it recalls; None where there is none."""
        return None


class Memory(Described, ABC):
    """What a learner keeps of a sequence. A subclass gives `cell`.

    Example:
        >>> class Last(Memory):
        ...     '''Two layers of memory.'''
        ...     def cell(self, num_features, num_outcomes):
        ...         return LSTMMemory(16).cell(num_features, num_outcomes)
        >>> Last().cell(3, 1).num_outputs
        16
    """

    @abstractmethod
    def cell(self, num_features: int, num_outcomes: int) -> MemoryCell:
        """A fresh network, whose input is the features of a point and then the outcome of the last.

        Args:
            num_features: numbers of the one.
            num_outcomes: numbers of the other.
        """


class LSTMMemory(Memory):
    """The state of a long short-term memory, and nothing beside it: the paper's weak baseline.

    Args:
        size: H, of the state.

    Raises:
        DataError: a size below 1.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.MANN(bm.Identity(1), memory=bm.networks.LSTMMemory(16))
        >>> learner.adapt(bm.Data.from_arrays([0.0, 1.0], [0.3, 0.7])).predict([0.5]).stddev.shape
        torch.Size([1, 1, 1])
    """

    def __init__(self, size: int = 200) -> None:
        _require_positive(size=size)
        self.size = size

    @override
    def cell(self, num_features: int, num_outcomes: int) -> "LSTMCell":
        return LSTMCell(num_features + num_outcomes, self.size)


class LRUA(Memory):
    """Least recently used access: an LSTM with a matrix of slots, which is read by content.

    Args:
        slots: how many points it holds before the least used is overwritten.
        width: W, numbers in a slot.
        reads: R, heads that read and write.
        size: H, of the state of the LSTM.
        decay: γ, of the usage at every step.

    Raises:
        DataError: sizes below 1, or a decay that is not between 0 and 1.

    Example:
        >>> import bayesmeta as bm
        >>> memory = bm.networks.LRUA(slots=16, width=8, reads=2, size=16)
        >>> learner = bm.MANN(bm.MLP(2, [8]), head=bm.heads.OneHotHead(3), memory=memory)
        >>> support = bm.Data.from_labels([[0.0, 1.0], [1.0, 0.0]], [2, 0])
        >>> learner.adapt(support).predict([[0.5, 0.5]]).probs.shape
        torch.Size([1, 1, 3])
    """

    def __init__(self, slots: int = 128, width: int = 40, reads: int = 4, size: int = 200, decay: float = 0.95) -> None:
        _require_positive(slots=slots, width=width, reads=reads, size=size)
        if not 0.0 <= decay <= 1.0:
            raise DataError(f"expected a decay between 0 and 1, got {decay}")
        self.slots, self.width, self.reads, self.size, self.decay = slots, width, reads, size, decay

    @override
    def cell(self, num_features: int, num_outcomes: int) -> "LRUACell":
        return LRUACell(num_features, num_outcomes, self)


class LSTMCell(MemoryCell):
    """An LSTM whose state at the start is learned: (h, c).

    Args:
        num_inputs: numbers in one input.
        size: H, of the state.

    Example:
        >>> cell = LSTMCell(2, 4)
        >>> cell(torch.zeros(3, 2), cell.start(3))[0].shape
        torch.Size([3, 4])
    """

    def __init__(self, num_inputs: int, size: int) -> None:
        super().__init__()
        self.lstm, self.num_outputs = MaskedLSTM(num_inputs, size), size
        self.hidden, self.cell = nn.Parameter(torch.zeros(size)), nn.Parameter(torch.zeros(size))

    @override
    def start(self, num_rows: int) -> State:
        return self.hidden.tanh().expand(num_rows, -1), self.cell.expand(num_rows, -1)

    @override
    def forward(self, x: Float[Tensor, "B I"], state: State) -> tuple[Float[Tensor, "B O"], State]:
        hidden, cell = state
        after = self.lstm.step(x, (hidden, cell))
        return after[0], after


class LRUACell(MemoryCell):
    """An LSTM with a memory of slots: (h, c, M, k, w^r, r, u).

    Args:
        num_features: numbers of a point.
        num_outcomes: numbers of the outcome that comes with the next point.
        memory: sizes.

    Example:
        >>> cell = LRUACell(1, 1, LRUA(slots=6, width=3, reads=2, size=4))
        >>> out, state = cell(torch.zeros(5, 2), cell.start(5))
        >>> out.shape, state[2].shape  # [x, h, r], and the slots
        (torch.Size([5, 12]), torch.Size([5, 6, 3]))
    """

    def __init__(self, num_features: int, num_outcomes: int, memory: LRUA) -> None:
        super().__init__()
        self.slots, self.width, self.reads, self.decay = memory.slots, memory.width, memory.reads, memory.decay
        read, num_inputs = memory.reads * memory.width, num_features + num_outcomes
        known = num_inputs + memory.size
        self.controller = LSTMCell(num_inputs + read, memory.size)
        self.num_outputs, self.outcome = known + read, slice(num_features, num_inputs)
        self.key, self.value = nn.Linear(known, read, bias=False), nn.Linear(known, read, bias=False)
        self.gate, self.sharpness = nn.Linear(known, memory.reads), nn.Linear(known, memory.reads)
        nn.init.constant_(self.gate.bias, RARELY)
        self._begin_as_table()
        self.empty = nn.Parameter(torch.randn(memory.width) / memory.width**0.5)  # zero would match nothing
        self.read = nn.Parameter(torch.zeros(read))

    @override
    def start(self, num_rows: int) -> State:
        hidden, cell = self.controller.start(num_rows)
        memory = self.empty.expand(num_rows, self.slots, -1)
        keys = memory.new_zeros(num_rows, self.reads, self.width)
        weights = memory.new_zeros(num_rows, self.reads, self.slots)  # nothing has been read
        return (
            hidden,
            cell,
            memory,
            keys,
            weights,
            self.read.expand(num_rows, -1),
            memory.new_zeros(num_rows, self.slots),
        )

    @override
    def forward(self, x: Float[Tensor, "B I"], state: State) -> tuple[Float[Tensor, "B O"], State]:
        hidden, cell, memory, keys, weights, read, usage = state
        _, (hidden, cell) = self.controller(torch.cat([x, read], -1), (hidden, cell))
        seen = torch.cat([x, hidden], -1)
        key, value = (part(seen).tanh().unflatten(-1, (self.reads, -1)) for part in (self.key, self.value))
        gate, sharpness = self.gate(seen).sigmoid(), SHARPNESS * functional.softplus(self.sharpness(seen)) / LOG_2
        least = torch.zeros_like(usage).scatter(-1, usage.argmin(-1, keepdim=True), 1.0)  # B slots; no derivative
        write = gate[..., None] * weights + (1.0 - gate)[..., None] * least[:, None]
        memory = torch.baddbmm((1.0 - least)[..., None] * memory, write.mT, keys + value)
        looked = sharpness[..., None] * inverse_norm(key)[..., None] * key
        weights = ((looked @ memory.mT) * inverse_norm(memory)[:, None]).softmax(-1)  # of β cos
        read = (weights @ memory).flatten(1)
        usage = self.decay * usage + (weights + write).sum(1)
        return torch.cat([seen, read], -1), (hidden, cell, memory, key, weights, read, usage)

    @override
    def recall(self) -> Float[Tensor, "O Y"]:
        written = self.value.weight[:, self.outcome] / (OUTCOME * self.reads) ** 2  # by all heads, and read by each
        return functional.pad(written, (0, 0, self.num_outputs - len(written), 0))

    @torch.no_grad()
    def _begin_as_table(self) -> None:
        """Begin as a table: a point is looked up by its features, and its outcome is written to a slot of its own.

        Key and outcome share the slot: its first numbers are for the one and its last for the other, of which there is
        little, so that cosines are nearly those of features. All heads begin alike, as they write to the same slot.
        """
        count = self.outcome.stop - self.outcome.start
        kept = min(count, max(self.width // 2, 1))  # numbers of a slot that are for the outcome
        others = max(self.width - kept, 1)
        lookup = nn.init.orthogonal_(self.key.weight.new_empty(others, self.outcome.start))
        written = nn.init.orthogonal_(self.key.weight.new_empty(kept, count))
        for layer in (self.key, self.value):
            nn.init.zeros_(layer.weight)
        for key, value in zip(self.key.weight.chunk(self.reads), self.value.weight.chunk(self.reads), strict=True):
            key[:others, : self.outcome.start] = KEY * lookup
            value[-kept:, self.outcome] = OUTCOME * written


def inverse_norm(rows: Float[Tensor, "*b W"]) -> Float[Tensor, "*b"]:
    """By what rows become of length one, but those near zero shorter.

    Args:
        rows: any numbers.

    Example:
        >>> inverse_norm(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).round(decimals=2).tolist()
        [0.20..., 100.0]
    """
    return (rows.square().sum(-1) + LEAST_NORM).rsqrt()


def where(real: Bool[Tensor, "B"], new: State, old: State) -> State:
    """The new state where an input was real, and the old one where it was padding.

    Args:
        real: of each sequence.
        new: after the input.
        old: before it.
    """
    if not torch.compiler.is_compiling() and bool(real.all()):
        return new
    return tuple(torch.where(real.reshape(-1, *[1] * (a.ndim - 1)), a, b) for a, b in zip(new, old, strict=True))


def _require_positive(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise DataError(f"expected {name} of at least 1, got {size}")
