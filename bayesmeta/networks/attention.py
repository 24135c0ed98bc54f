"""Attention: each query reads a mean of values, by how well their keys match.

    read(q) = Σ_i softmax_i(q · k_i / sqrt(d)) v_i          over the real keys and one that is learned

The learned key is what is read where nothing else is: a softmax over no key would be NaN. Vaswani et al. 2017.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from bayesmeta.errors import DataError


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
        nothing = self.nothing.expand(len(keys), 1, -1)
        keys = torch.cat([nothing, self.norm(keys)], 1)
        real = torch.cat([mask.new_ones(len(mask), 1), mask], 1)
        q, k, v = (
            layer(rows).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # B heads points d
            for layer, rows in ((self.query, self.norm(queries)), (self.key, keys), (self.value, keys))
        )
        match = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(~real[:, None, None], -torch.inf)
        out: Tensor = self.out((match.softmax(-1) @ v).transpose(1, 2).flatten(2))
        return out
