"""Memories against plain loops, and what their states must not do."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import bayesmeta as bm
from bayesmeta.networks import LRUA, LSTMMemory, Memory, MemoryCell
from bayesmeta.networks.memory import LEAST_NORM, SHARPNESS, LRUACell, where

INPUTS = 3
MEMORIES: dict[str, Memory] = {"lstm": LSTMMemory(4), "lrua": LRUA(slots=4, width=3, reads=2, size=5)}
every = pytest.mark.parametrize("memory", MEMORIES.values(), ids=MEMORIES)


def cell(memory: Memory) -> MemoryCell:
    """A fresh one, moved off its starting point."""
    torch.manual_seed(0)
    made = memory.cell(INPUTS - 1, 1).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return made


def sigmoid(value: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of numpy's numbers."""
    return 1.0 / (1.0 + np.exp(-value))


def plain_lrua(made: LRUACell, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """What an LRUA gives at each input of one sequence, by loops over heads and slots."""
    given = {name: value.detach().numpy() for name, value in made.named_parameters()}
    heads, slots, width = made.reads, made.slots, made.width
    hidden, c = np.tanh(given["controller.hidden"]), given["controller.cell"]
    memory, usage = np.tile(given["empty"], (slots, 1)), np.zeros(slots)
    keys, weights, read = np.zeros((heads, width)), np.zeros((heads, slots)), given["read"]
    outputs = []
    for x in inputs:
        gates = given["controller.lstm.gates.weight"] @ np.concatenate([x, read, hidden])
        i, f, g, o = np.split(gates + given["controller.lstm.gates.bias"], 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        hidden = sigmoid(o) * np.tanh(c)
        seen = np.concatenate([x, hidden])
        key = np.tanh(given["key.weight"] @ seen).reshape(heads, width)
        value = np.tanh(given["value.weight"] @ seen).reshape(heads, width)
        gate = sigmoid(given["gate.weight"] @ seen + given["gate.bias"])
        sharp = np.log1p(np.exp(given["sharpness.weight"] @ seen + given["sharpness.bias"])) * SHARPNESS / np.log(2.0)
        least = int(usage.argmin())
        memory, write = memory.copy(), np.zeros((heads, slots))
        memory[least] = 0.0
        for head in range(heads):
            for slot in range(slots):
                write[head, slot] = gate[head] * weights[head, slot] + (1.0 - gate[head]) * (slot == least)
                memory[slot] += write[head, slot] * (keys[head] + value[head])
        weights, reads = np.zeros((heads, slots)), []
        for head in range(heads):
            norm = np.sqrt(key[head] @ key[head] + LEAST_NORM)
            cosines = [key[head] @ row / norm / np.sqrt(row @ row + LEAST_NORM) for row in memory]
            weights[head] = np.exp(sharp[head] * np.array(cosines))
            weights[head] /= weights[head].sum()
            reads.append(weights[head] @ memory)
        read, keys = np.concatenate(reads), key
        usage = made.decay * usage + weights.sum(0) + write.sum(0)
        outputs.append(np.concatenate([seen, read]))
    return np.stack(outputs)


def test_lrua_equals_a_plain_loop() -> None:
    """Seven inputs and four slots: what is used least is overwritten."""
    made = cell(MEMORIES["lrua"])
    assert isinstance(made, LRUACell)
    x = torch.randn(2, 7, INPUTS, dtype=torch.float64)
    state, outputs = made.start(2), []
    for n in range(x.shape[1]):
        out, state = made(x[:, n], state)
        outputs.append(out)
    expected = np.stack([plain_lrua(made, sequence) for sequence in x.numpy()])
    # float64: the same sums in another order
    np.testing.assert_allclose(torch.stack(outputs, 1).detach().numpy(), expected, rtol=1e-10, atol=1e-12)


@every
def test_second_derivatives_are_those_of_finite_differences(memory: Memory) -> None:
    made = cell(memory)
    x = torch.randn(1, 3, INPUTS, dtype=torch.float64, requires_grad=True)

    def total(x: torch.Tensor) -> torch.Tensor:
        state, out = made.start(1), x.new_zeros(1)
        for n in range(x.shape[1]):
            out, state = made(x[:, n], state)
        return out.square().sum()

    assert torch.autograd.gradgradcheck(total, (x,))


@every
def test_padding_leaves_the_state_as_it_was(memory: Memory) -> None:
    made, x = cell(memory), torch.randn(2, INPUTS, dtype=torch.float64)
    before = made(x, made.start(2))[1]
    after = where(torch.tensor([True, False]), made(1e3 * x, before)[1], before)
    for a, b in zip(after, before, strict=True):
        assert torch.equal(a[1], b[1])
    assert not torch.equal(after[0][0], before[0][0])


def test_an_empty_slot_has_finite_gradients() -> None:
    """A slot of zeros, as right after it was emptied, and a key of zeros."""
    made = cell(MEMORIES["lrua"])
    with torch.no_grad():
        made.empty.zero_()
        made.key.weight.zero_()
    out, _ = made(torch.randn(1, INPUTS, dtype=torch.float64), made.start(1))
    out.sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in made.parameters())


def test_sizes_are_checked() -> None:
    with pytest.raises(bm.DataError, match="expected slots of at least 1, got 0"):
        LRUA(slots=0)
    with pytest.raises(bm.DataError, match="expected size of at least 1, got 0"):
        LSTMMemory(0)
    with pytest.raises(bm.DataError, match="expected a decay between 0 and 1"):
        LRUA(decay=1.5)
