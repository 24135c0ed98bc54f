"""A long short-term memory over masked sequences, written out.

    i, f, g, o = W [x, h] + b
    c <- σ(f) c + σ(i) tanh(g),   h <- σ(o) tanh(c)

Padding leaves the state as it was: where(real, new, old). Hochreiter & Schmidhuber 1997.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

State = tuple[Tensor, Tensor]


class MaskedLSTM(nn.Module):
    """An LSTM whose state does not move at padding.

    Args:
        num_inputs: the size of an input.
        size: H, of the state.

    Example:
        >>> layer, x = MaskedLSTM(3, 5), torch.randn(2, 4, 3)
        >>> layer(x, torch.ones(2, 4, dtype=torch.bool)).shape
        torch.Size([2, 4, 5])
    """

    def __init__(self, num_inputs: int, size: int) -> None:
        super().__init__()
        self.size, self.gates = size, nn.Linear(num_inputs + size, 4 * size)

    def start(self, like: Float[Tensor, "B _"]) -> State:
        """The state before the first input: zeros, of as many rows, in the precision of `like`.

        Args:
            like: an input.
        """
        zero = like.new_zeros(len(like), self.size)
        return zero, zero

    def step(self, x: Float[Tensor, "*b I"], state: State) -> State:
        """The state after one more input.

        Args:
            x: the input.
            state: (h, c) before it.
        """
        hidden, cell = state
        i, f, g, o = self.gates(torch.cat([x, hidden], -1)).chunk(4, -1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        return o.sigmoid() * cell.tanh(), cell

    def forward(self, x: Float[Tensor, "B N I"], mask: Bool[Tensor, "B N"]) -> Float[Tensor, "B N H"]:
        """The states h after each input, in order.

        Args:
            x: the inputs.
            mask: True = real.
        """
        state = self.start(x[:, 0] if x.shape[1] else x.new_zeros(len(x), 1))
        states = []
        for n in range(x.shape[1]):
            real, new = mask[:, n, None], self.step(x[:, n], state)
            state = (torch.where(real, new[0], state[0]), torch.where(real, new[1], state[1]))
            states.append(state[0])
        return torch.stack(states, 1) if states else x.new_zeros(len(x), 0, self.size)
