"""Full context embeddings: how the features of examples and queries depend on the support as a whole.

    g(x_i, S)   an example, given the others            f(x, S)   a query, given the support

`BiLSTM` is the paper's (Vinyals et al. 2016, appendix A.1 and A.2) and depends on the order of the support;
`SetAttention` does not.
"""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from typing_extensions import override

from bayesmeta.description import Described
from bayesmeta.errors import DataError
from bayesmeta.networks.attention import Attention
from bayesmeta.networks.recurrent import MaskedLSTM


class Context(Described, nn.Module, ABC):
    """How features change when the whole support is seen. A subclass gives `of_support` and `of_query`.

    Attributes:
        num_features: F, where it is made for so many features; None where any will do.
        exchangeable: False where the order of the support matters.

    Example:
        >>> class Centred(Context):  # everything is relative to the mean of the support
        ...     def of_support(self, rows, mask):
        ...         return rows - rows.sum(1, keepdim=True) / mask.sum(1)[:, None, None]
        ...     def of_query(self, rows, support, mask):
        ...         return rows
        >>> Centred().of_support(torch.tensor([[[1.0], [3.0]]]), torch.ones(1, 2, dtype=torch.bool)).flatten().tolist()
        [-1.0, 1.0]
    """

    num_features: int | None = None
    exchangeable: bool = True

    @abstractmethod
    def of_support(self, rows: Float[Tensor, "B N F"], mask: Bool[Tensor, "B N"]) -> Float[Tensor, "B N F"]:
        """The features of the examples, given each other.

        Args:
            rows: the features of each on its own.
            mask: True = real.
        """

    @abstractmethod
    def of_query(
        self, rows: Float[Tensor, "B M F"], support: Float[Tensor, "B N F"], mask: Bool[Tensor, "B N"]
    ) -> Float[Tensor, "B M F"]:
        """The features of each query point, given the support and not the other query points.

        Args:
            rows: the features of each on its own.
            support: what `of_support` gave.
            mask: True = a real example.
        """


class BiLSTM(Context):
    """The paper's context: a bidirectional LSTM over the support, and an LSTM that reads it for every query.

    g(x_i, S) = forward_i + backward_i + h(x_i);   f(x, S): `reads` steps of h_k = LSTM(h(x), [h_{k-1}, r_{k-1}]) + h(x)
    with r_k = Σ_i softmax_i(h_k · g_i) g_i. The order of the support matters: a learner with it is not exchangeable.

    Args:
        num_features: F.
        reads: steps of reading for a query.

    Raises:
        DataError: no features, or no reads.

    Example:
        >>> context = BiLSTM(4)
        >>> context.of_support(torch.randn(2, 3, 4), torch.ones(2, 3, dtype=torch.bool)).shape
        torch.Size([2, 3, 4])
    """

    exchangeable = False

    def __init__(self, num_features: int, reads: int = 3) -> None:
        super().__init__()
        if num_features < 1 or reads < 1:
            raise DataError(f"expected at least one feature and one read, got {num_features} and {reads}")
        self.num_features, self.reads = num_features, reads
        self.onward, self.backward = (MaskedLSTM(num_features, num_features) for _ in range(2))
        self.reader = MaskedLSTM(2 * num_features, num_features)

    @override
    def of_support(self, rows: Float[Tensor, "B N F"], mask: Bool[Tensor, "B N"]) -> Float[Tensor, "B N F"]:
        return rows + self.onward(rows, mask) + self.backward(rows.flip(1), mask.flip(1)).flip(1)

    @override
    def of_query(
        self, rows: Float[Tensor, "B M F"], support: Float[Tensor, "B N F"], mask: Bool[Tensor, "B N"]
    ) -> Float[Tensor, "B M F"]:
        hidden = cell = torch.zeros_like(rows)
        read = torch.zeros_like(rows)
        for _ in range(self.reads):
            hidden, cell = self.reader.step(torch.cat([rows, read], -1), (hidden, cell))
            hidden = hidden + rows
            if support.shape[1]:
                match = (hidden @ support.mT).masked_fill(~mask[:, None], -torch.inf)
                some = mask.any(-1)[:, None, None]  # a softmax over no example is NaN
                read = torch.where(some, torch.where(some, match, 0.0).softmax(-1), 0.0) @ support
        return hidden


class SetAttention(Context):
    """Context by attention, whatever the order of the support: examples read each other, and queries the examples.

    Args:
        num_features: F.
        num_heads: heads of attention; it divides F.

    Raises:
        DataError: a number of heads that does not divide F.

    Example:
        >>> context, rows = SetAttention(4, num_heads=2), torch.randn(1, 3, 4)
        >>> mask, order = torch.ones(1, 3, dtype=torch.bool), torch.tensor([2, 0, 1])
        >>> there, here = context.of_support(rows[:, order], mask), context.of_support(rows, mask)[:, order]
        >>> bool((there - here).abs().max() < 1e-5)
        True
    """

    def __init__(self, num_features: int, num_heads: int = 4) -> None:
        super().__init__()
        self.num_features = num_features
        self.among, self.reader = Attention(num_features, num_heads), Attention(num_features, num_heads)

    @override
    def of_support(self, rows: Float[Tensor, "B N F"], mask: Bool[Tensor, "B N"]) -> Float[Tensor, "B N F"]:
        return rows + self.among(rows, rows, mask)

    @override
    def of_query(
        self, rows: Float[Tensor, "B M F"], support: Float[Tensor, "B N F"], mask: Bool[Tensor, "B N"]
    ) -> Float[Tensor, "B M F"]:
        return rows + self.reader(rows, support, mask)
