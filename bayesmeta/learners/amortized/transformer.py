"""Transformer neural processes: points are tokens that read each other, and queries read the points.

Nguyen, Grover 2022 (ICML, arXiv:2207.04179); relative: Ashman, Diaconu, Kim, Sivaraya, Markou, Requeima, Bruinsma,
Turner 2024 (ICML, arXiv:2406.12409):

    z_i = E(h(x_i), y_i)                               a support point
    z_* = E'(h(x_*)) + t                               a query, with weights of its own
    z <- z + read(norm(z))                             in every layer, of a learned key and the support
    z <- z + W₂ gelu(W₁ norm(z))
    y(x_*) ~ head(W norm(z_*))

    relative: z_i = E(y_i),  z_* = t,  and what is read depends on |h(x_*) - h(x_i)| (`RelativeBias`)

    phi         the function itself
    prior       what is decoded where only the learned key is read
    likelihood  the head, at each point on its own
    inference   one pass, amortised

Differences from the paper: queries are tokens of their own and not points with y = 0, which could be an outcome; only
the support is read, so that queries need no mask between them and the support is computed once for any number of them;
a key is learned of nothing, so that an empty support is legal; deviations have no floor of .1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from typing_extensions import override

from bayesmeta.annotations import said
from bayesmeta.data import Data
from bayesmeta.errors import DataError
from bayesmeta.heads.output import GaussianHead, OutputHead
from bayesmeta.learners.amortized.base import AmortizedLearner
from bayesmeta.learners.amortized.relative_bias import RelativeBias
from bayesmeta.networks.attention import AttentionLayer, Keys, hiding
from bayesmeta.networks.network import Network

MOST_LAYERS = 100
SHARPER = 2.0  # torch's own start of queries and keys, with which near and far points would match nearly alike


@dataclass(frozen=True, eq=False)
class ReadableSupport:
    """What is kept of a support: what queries read of it in every layer.

    Attributes:
        features: h(x_i), where the points stand.
        mask: True = a real point.
        keys: of every layer.
    """

    features: Float[Tensor, "L N F"]
    mask: Bool[Tensor, "L N"]
    keys: tuple[Keys, ...]


class TransformerNeuralProcess(AmortizedLearner):
    """A transformer neural process: a network for inputs of any number and kind, whose support is read by attention.

    With `relative` points are compared by their distance alone, so that tasks may begin anywhere: it learns in fewer
    steps where that is so, and predicts as well outside of the range that it was trained on. Without it x itself is
    seen, and the network should have `bm.networks.FourierFeatures`, or finding out which points are near takes most of
    the training.

    Args:
        features: h. Relative distances are those of h: take `bm.Identity(D)` for those of x itself.
        head: what is predicted; Gaussian numbers by default.
        width: d, numbers of a token.
        layers: how many.
        num_heads: heads of attention in a layer; it divides d.
        relative: how points are compared by their distance; by default they are not, and h(x) is a part of each token.

    Raises:
        DataError: no layers or more than 100, or a number of heads that does not divide d.
        UnsupportedError: a head that is no `OutputHead`.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.TransformerNeuralProcess(bm.networks.FourierFeatures(2), width=16, layers=2)
        >>> posterior = learner.adapt(bm.Data.from_arrays([[0.0, 1.0], [1.0, 0.5]], [0.3, 0.7]))
        >>> posterior.predict([[0.5, 0.5], [0.1, 0.9]]).stddev.shape
        torch.Size([1, 2, 1])
    """

    def __init__(
        self,
        features: Network,
        *,
        head: OutputHead | None = None,
        width: int = 64,
        layers: int = 4,
        num_heads: int = 4,
        relative: RelativeBias | None = None,
    ) -> None:
        super().__init__(features.x_shape, GaussianHead() if head is None else head)
        if not 1 <= layers <= MOST_LAYERS:
            raise DataError(f"expected 1 to {MOST_LAYERS} layers, got {said(layers)}")
        self.features = features
        self.layers = nn.ModuleList(AttentionLayer(width, num_heads) for _ in range(layers))
        self.bias = None if relative is None else relative.functions(layers, num_heads)
        where = features.num_outputs if relative is None else 0
        self.of_point = _embedding(where + self.head.num_inputs, width)
        self.of_query = _embedding(where, width) if relative is None else None
        self.asked = nn.Parameter(0.1 * torch.randn(width))
        if self.of_query is not None:
            self._begin_alike(self.of_query, where)
        # no biases: a number that is added to the scores of all classes would be one that nothing can be learned of
        self.out = nn.Sequential(nn.LayerNorm(width, bias=False), nn.Linear(width, self.head.size, bias=False))

    @override
    def encode(self, points: Data) -> ReadableSupport:
        h, y = self.features(points.x), points.y
        z = self.of_point(y if self.bias is not None else torch.cat([h, y], -1))
        keys: list[Keys] = []
        for layer, bias in zip(self.layers, self._biases(h, h, points.mask), strict=True):
            assert isinstance(layer, AttentionLayer)  # as it was made
            keys.append(layer.attention.of(z))
            if layer is not self.layers[-1]:  # nothing reads what comes after the last
                z = layer(z, keys[-1], bias)
        return ReadableSupport(h, points.mask, tuple(keys))

    @override
    def decode(self, kept: ReadableSupport, x: Float[Tensor, "L M *x"]) -> Float[Tensor, "L M K"]:
        h = self.features(x)
        z = self.asked.expand(*h.shape[:2], -1) if self.of_query is None else self.asked + self.of_query(h)
        biases = self._biases(h, kept.features, kept.mask)
        for layer, keys, bias in zip(self.layers, kept.keys, biases, strict=True):
            z = layer(z, keys, bias)
        raw: Tensor = self.out(z)
        return raw

    @torch.no_grad()
    def _begin_alike(self, of_query: nn.Sequential, where: int) -> None:
        """A query begins as a point without an outcome, and keys as queries: what is near is read from the start."""
        for query, point in zip(of_query.parameters(), self.of_point.parameters(), strict=True):
            query.copy_(point[:, :where] if point.shape != query.shape else point)
        for layer in self.layers:
            assert isinstance(layer, AttentionLayer)  # as it was made
            layer.attention.query.weight.mul_(SHARPER)
            layer.attention.key.weight.copy_(layer.attention.query.weight)

    def _biases(
        self, h: Float[Tensor, "L M F"], others: Float[Tensor, "L N F"], mask: Bool[Tensor, "L N"]
    ) -> Sequence[Float[Tensor, "L #H #M R"]]:
        """What is added in each layer to how well points match."""
        if self.bias is None:
            return [hiding(mask, h.dtype)] * len(self.layers)
        return list(self.bias(h, others, mask).unbind(0))


def _embedding(size: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(size, width), nn.GELU(), nn.Linear(width, width))
