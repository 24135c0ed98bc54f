"""Attention: each query reads a mean of values, by how well their keys match.

    read(q) = Σ_i softmax_i(q · k_i / sqrt(d) + b_i) v_i          over the real keys and one that is learned

The learned key is what is read where nothing else is: a softmax over no key would be NaN. Vaswani et al. 2017. The
bias b says what a query should not read (-inf), or should read less.

    z <- z + read(norm(z))          z <- z + W₂ gelu(W₁ norm(z))          a layer of a transformer (`AttentionLayer`)
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from bayesmeta.errors import DataError


@dataclass(frozen=True, eq=False)
class Keys:
    """What can be read: the learned key first, and then the rows that it was made of, R = 1 + N of H heads.

    Attributes:
        key: what a query is matched with.
        value: what it reads.
    """

    key: Float[Tensor, "B H R d"]
    value: Float[Tensor, "B H R d"]


class Attention(nn.Module):
    """Several heads of attention from queries to keys, written out, so that it can be differentiated twice.

    Args:
        size: F of queries, keys and what is read.
        num_heads: heads; it divides F.

    Raises:
        DataError: a number of heads that does not divide F.

    Example:
        >>> layer, rows = Attention(8, 2), torch.randn(3, 5, 8)
        >>> layer(rows[:, :2], rows, torch.ones(3, 5, dtype=torch.bool)).shape
        torch.Size([3, 2, 8])
    """

    def __init__(self, size: int, num_heads: int = 4) -> None:
        super().__init__()
        if size < 1 or num_heads < 1 or size % num_heads:
            raise DataError(f"expected a number of heads that divides {size} features, got {num_heads}")
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(size)
        self.query, self.key, self.value = (nn.Linear(size, size, bias=False) for _ in range(3))
        self.nothing = nn.Parameter(torch.zeros(size))  # the key and value of no point, normalised
        self.out = nn.Linear(size, size)
        nn.init.zeros_(self.out.weight)  # it begins by saying nothing: what it is added to is left as it was
        nn.init.zeros_(self.out.bias)

    def forward(
        self, queries: Float[Tensor, "B M F"], keys: Float[Tensor, "B N F"], mask: Bool[Tensor, "B N"]
    ) -> Float[Tensor, "B M F"]:
        """What each query reads.

        Args:
            queries: what reads.
            keys: what is read.
            mask: True = a real key.
        """
        return self.read(queries, self.of(keys), hiding(mask, queries.dtype))

    def of(self, rows: Float[Tensor, "B N F"]) -> Keys:
        """The keys of rows, which any number of queries can read."""
        rows = torch.cat([self.nothing.expand(rows.shape[0], 1, -1), self.norm(rows)], 1)
        return Keys(self._by_head(self.key(rows)), self._by_head(self.value(rows)))

    def read(
        self, queries: Float[Tensor, "B M F"], keys: Keys, bias: Float[Tensor, "B #H #M R"]
    ) -> Float[Tensor, "B M F"]:
        """What each query reads.

        Args:
            queries: what reads.
            keys: what is read.
            bias: what is added to how well queries and keys match; 0 and -inf for those that are not real (`hiding`).
        """
        q = self._by_head(self.query(self.norm(queries)))
        weights = (q @ keys.key.mT / math.sqrt(q.shape[-1]) + bias).softmax(-1)
        out: Tensor = self.out((weights @ keys.value).transpose(1, 2).flatten(2))
        return out

    def _by_head(self, rows: Float[Tensor, "B N F"]) -> Float[Tensor, "B H N d"]:
        return rows.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class AttentionLayer(nn.Module):
    """A layer of a transformer: attention, and then two dense layers at each point, each added to what there was.

    Args:
        size: F.
        num_heads: heads of attention; it divides F.

    Raises:
        DataError: a number of heads that does not divide F.

    Example:
        >>> layer, rows = AttentionLayer(8, 2), torch.randn(3, 5, 8)
        >>> keys, bias = layer.attention.of(rows), hiding(torch.ones(3, 5, dtype=torch.bool), rows.dtype)
        >>> layer(torch.randn(3, 7, 8), keys, bias).shape
        torch.Size([3, 7, 8])
    """

    def __init__(self, size: int, num_heads: int = 4) -> None:
        super().__init__()
        self.attention = Attention(size, num_heads)
        self.norm = nn.LayerNorm(size)
        self.widen, self.narrow = nn.Linear(size, 2 * size), nn.Linear(2 * size, size)

    def forward(
        self, rows: Float[Tensor, "B M F"], keys: Keys, bias: Float[Tensor, "B #H #M R"]
    ) -> Float[Tensor, "B M F"]:
        """The rows after the layer.

        Args:
            rows: what reads.
            keys: what is read: `attention.of(...)`.
            bias: as in `Attention.read`.
        """
        rows = rows + self.attention.read(rows, keys, bias)
        out: Tensor = rows + self.narrow(functional.gelu(self.widen(self.norm(rows))))
        return out


def hiding(mask: Bool[Tensor, "B N"], dtype: torch.dtype) -> Float[Tensor, "B 1 1 R"]:
    """The bias that hides keys that are not real: 0 and -inf, and 0 for the learned key.

    Args:
        mask: True = a real key.
        dtype: of the bias.

    Example:
        >>> hiding(torch.tensor([[True, False]]), torch.float32)[0, 0]
        tensor([[0., 0., -inf]])
    """
    real = torch.cat([mask.new_ones(mask.shape[0], 1), mask], 1)[:, None, None]
    return torch.zeros(real.shape, dtype=dtype, device=mask.device).masked_fill(~real, -torch.inf)
