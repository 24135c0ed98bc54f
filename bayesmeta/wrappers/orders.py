"""In which order a joint density is taken apart, point by point: what `Autoregressive` asks.

    p(y_1, ..., y_M | D) = p(y_o(1) | D) p(y_o(2) | D, y_o(1)) ...      o a permutation of the points

For the Bayes predictive of a model the product is the same for every o. For a learner that only comes close to one it
is not, and the order is a part of what is predicted.
"""

from abc import ABC, abstractmethod

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from typing_extensions import override

from bayesmeta.arguments import seed_of, some
from bayesmeta.description import Described
from bayesmeta.errors import UnsupportedError


class Order(Described, ABC):
    """In which order query points are predicted, each given those before it: one order, or S of them.

    A subclass gives `keys`, what points are sorted by. It may look at the inputs of a task, and never at its outcomes:
    with an order that depends on them the product is no density.

    Example:
        >>> import bayesmeta as bm
        >>> class FromTheMiddle(bm.wrappers.Order):
        ...     def keys(self, x):
        ...         return x.square().sum(-1)[:, None]  # one order
        >>> x = torch.tensor([[[2.0], [-1.0], [0.5]]])
        >>> FromTheMiddle().positions(x, torch.ones(1, 3, dtype=torch.bool))
        tensor([[[2, 1, 0]]])
        >>> learner = bm.wrappers.Autoregressive(bm.ALPaCA(bm.Identity(1)), FromTheMiddle())
    """

    @abstractmethod
    def keys(self, x: Float[Tensor, "B M *x"]) -> Float[Tensor, "B S M"]:
        """What the points of each task are sorted by, smallest first, in each of S orders; ties stay as they are given.

        Args:
            x: inputs, the real points of each task first, padding behind them. The key of a point may depend on its
                input and on how many real points are before it, not on what is behind it.
        """

    def positions(self, x: Float[Tensor, "B M *x"], mask: Bool[Tensor, "B M"]) -> Int[Tensor, "B S M"]:
        """Where the points of each task are, in each of S orders: the real points first, padding behind them.

        Args:
            x: inputs.
            mask: True at the real points. The order of these is the same whatever is padded, and wherever.

        Raises:
            UnsupportedError: inputs that have no such order.
        """
        packed = (~mask).byte().argsort(dim=1, stable=True)  # the k-th real point is at position k
        task = torch.arange(len(x), device=x.device)[:, None]
        keys = self.keys(x[task, packed]).masked_fill(~mask[task, packed][:, None], torch.inf)
        order = keys.argsort(dim=-1, stable=True)
        return packed[:, None].expand_as(order).gather(-1, order)


class Given(Order):
    """The order in which the points are given.

    Example:
        >>> x = torch.tensor([[[2.0], [-1.0], [0.5]]])
        >>> Given().positions(x, torch.tensor([[False, True, True]]))[0, 0, :2]  # where the two real points are
        tensor([1, 2])
    """

    @override
    def keys(self, x: Float[Tensor, "B M *x"]) -> Float[Tensor, "B 1 M"]:
        return torch.zeros(len(x), 1, x.shape[1], dtype=x.dtype, device=x.device)


class LeftToRight(Order):
    """By increasing input, where inputs are single numbers such as times; equal ones stay as they are given.

    Example:
        >>> x = torch.tensor([[[2.0], [-1.0], [0.5]]])
        >>> LeftToRight().positions(x, torch.ones(1, 3, dtype=torch.bool))
        tensor([[[1, 2, 0]]])
    """

    @override
    def keys(self, x: Float[Tensor, "B M *x"]) -> Float[Tensor, "B 1 M"]:
        """Raises UnsupportedError unless inputs are single numbers."""
        if x.shape[2:] != (1,):
            raise UnsupportedError(
                f"expected inputs that are single numbers, to go from left to right, got inputs of shape "
                f"{tuple(x.shape[2:])}: use Random() or Given()"
            )
        return x[..., 0][:, None]


class Random(Order):
    """Orders at random, drawn once: they do not change from call to call, nor from task to task.

    The k-th point of every task has the k-th number of a fixed stream as its key. So points that are added behind do
    not change the order of those before them, and tasks of a batch are ordered as each on its own.

    Args:
        num_orders: S. Of several orders `Autoregressive` takes the mixture, which depends on the order less.
        seed: of the stream.

    Raises:
        DataError: no order, or a seed that is none.

    Example:
        >>> order, everywhere = Random(num_orders=2), torch.ones(1, 5, dtype=torch.bool)
        >>> order.positions(torch.zeros(1, 5, 1), everywhere)
        tensor([[[3, 2, 1, 0, 4],
                 [4, 1, 2, 0, 3]]])
        >>> order.positions(torch.zeros(1, 3, 1), everywhere[:, :3])
        tensor([[[2, 1, 0],
                 [1, 2, 0]]])
    """

    def __init__(self, num_orders: int = 1, seed: int = 0) -> None:
        self.num_orders, self.seed = some(num_orders, "num_orders", "order"), seed_of(seed)

    @override
    def keys(self, x: Float[Tensor, "B M *x"]) -> Float[Tensor, "B S M"]:
        # numpy's streams: the first M numbers are the same for every M, and on every device
        streams = [np.random.default_rng([self.seed, number]).random(x.shape[1]) for number in range(self.num_orders)]
        keys = torch.as_tensor(np.stack(streams), device=x.device)
        return keys.expand(len(x), *keys.shape)
