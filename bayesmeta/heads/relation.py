"""A learned comparison: a network that looks at a class and a query together, as relation networks do.

    e_c = mean_{i in c} h(x_i)                                  the embedding of a class, a map or a vector
    score_c(x) = g(e_c, h(x), |e_c - h(x)|, log(1 + n_c))       the log odds that x is of class c

Read as in `pairs`, exactly one class matches: a softmax of log odds is Bayes' theorem. The paper sums the maps of a
class, which makes an embedding of many examples long; here they are averaged, and g is told how many there are.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from bayesmeta.errors import DataError
from bayesmeta.heads.head import Examples, Head, LogScores

MOST_NUMBERS = 2**24  # of pairs of maps at once: 64 MB
GROUPS = 8


class RelationHead(Head):
    """The log odds of a match, by a network on pairs of maps: two convolutions, and two layers on what is left.

    theta = the weights of the network.

    Args:
        map_shape: channels, height and width of the features of a point (`Conv4.map_shape`); (F, 1, 1) for vectors,
            where a convolution is a dense layer.
        channels: of the two convolutions; a multiple of 8.
        hidden: the size of the layer before the last.

    Raises:
        DataError: sizes that are not positive, or channels that are no multiple of 8.

    Example:
        >>> import bayesmeta as bm
        >>> rows, labels = torch.randn(1, 2, 32), torch.tensor([[0, 1]])
        >>> examples = bm.heads.Examples.of(rows, labels, torch.ones(1, 2, dtype=torch.bool), num_classes=2)
        >>> bm.heads.RelationHead((2, 4, 4)).solve(examples).log_scores(rows).shape
        torch.Size([1, 2, 2])
    """

    precision = None

    def __init__(self, map_shape: tuple[int, int, int], channels: int = 64, hidden: int = 8) -> None:
        super().__init__()
        if len(map_shape) != 3 or min(*map_shape, channels, hidden) < 1 or channels % GROUPS:
            raise DataError(
                f"expected a map shape (channels, height, width), and channels that are a multiple of {GROUPS}, got "
                f"{map_shape}, {channels} and {hidden}"
            )
        self.map_shape, self.num_features = tuple(map_shape), math.prod(map_shape)
        depth, *size = map_shape
        layers: list[nn.Module] = []
        inputs = 3 * depth + 1
        for _ in range(2):
            kernel = 3 if min(size) > 1 else 1
            layers += [
                nn.Conv2d(inputs, channels, kernel, padding=kernel // 2),
                nn.GroupNorm(GROUPS, channels),
                nn.ReLU(),
            ]
            if min(size) > 1:
                layers.append(nn.MaxPool2d(2))
                size = [n // 2 for n in size]
            inputs = channels
        layers += [
            nn.Flatten(),
            nn.Linear(channels * math.prod(size), hidden),
            nn.ReLU(),
            nn.Linear(hidden, 1, bias=False),
        ]
        self.relation = nn.Sequential(*layers)

    @override
    def solve(self, examples: Examples) -> "RelationScores":
        counts = examples.counts
        mean = examples.targets.mT @ examples.rows / counts.clamp(min=1.0)[..., None]
        return RelationScores(self, mean, counts.log1p())


@dataclass(frozen=True, eq=False)
class RelationScores(LogScores):
    """The log odds of matches with the embedding of each class.

    Attributes:
        head: theta.
        mean: the embeddings.
        log_counts: log(1 + n_c).
    """

    head: RelationHead
    mean: Float[Tensor, "B C F"]
    log_counts: Float[Tensor, "B C"]

    @override
    def log_scores(self, rows: Float[Tensor, "B M F"]) -> Float[Tensor, "B M C"]:
        """Some query points at a time, so that memory is bounded whatever their number."""
        tasks, classes, size = self.mean.shape
        most = max(1, MOST_NUMBERS // max(tasks * classes * (3 * size + 1), 1))
        return torch.cat([self._some(part) for part in rows.split(most, 1)], 1)

    def _some(self, rows: Float[Tensor, "B M F"]) -> Float[Tensor, "B M C"]:
        shape = torch.broadcast_shapes(rows[:, :, None].shape, self.mean[:, None].shape)  # B M C F
        query, mean = rows[:, :, None].expand(shape), self.mean[:, None].expand(shape)
        maps = torch.cat([each.unflatten(-1, self.head.map_shape) for each in (mean, query, (mean - query).abs())], -3)
        counts = self.log_counts[:, None, :, None, None, None].expand(*shape[:3], 1, *maps.shape[-2:])
        together = torch.cat([maps, counts], -3).flatten(0, 2)
        if not len(together):
            return rows.new_zeros(shape[:3])
        logits: Tensor = self.head.relation(together)
        return logits.view(shape[:3])
