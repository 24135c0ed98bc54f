"""Features of a point for every level that it may belong to: those of its own levels, and zeros for all others."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from typing_extensions import override

from bayesmeta.networks.network import Network
from bayesmeta.networks.terms import Quantities, Terms


class LevelFeatures(Network):
    """h(u), and for every level of every grouping h(u) again where the point belongs to it, else zeros.

    The last inputs are the levels, a number for each grouping: 0, 1, ..., and anything else is a level that is not
    known. Each grouping has one more block than levels, which is that of the level that is not known.

    Args:
        features: h, of the first inputs u.
        levels: how many known levels each grouping has.
        varying: of each grouping, the positions of the features whose weights differ between its levels.

    Example:
        >>> import bayesmeta as bm
        >>> network = LevelFeatures(bm.Identity(1), [2], [[0]])  # 1 and x, and a constant for each of two levels
        >>> network(torch.tensor([[[5.0, 1.0], [6.0, 7.0]]]))  # a point of level 1, and one of a level not known
        tensor([[[1., 5., 0., 1., 0.],
                 [1., 6., 0., 0., 1.]]])
    """

    def __init__(self, features: Network, levels: Sequence[int], varying: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.features, self.levels = features, tuple(levels)
        self.positions = tuple(tuple(each) for each in varying)
        self.x_shape = (features.x_shape[0] + len(self.levels),)
        blocks = zip(self.levels, self.positions, strict=True)
        self.num_outputs = features.num_outputs + sum((count + 1) * len(each) for count, each in blocks)
        self.pointwise = features.pointwise

    def of_points(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N F"]:
        """h(u), whatever the levels are."""
        out: Tensor = self.features(x[..., : self.features.x_shape[0]])
        return out

    def codes(self, x: Float[Tensor, "B N D"]) -> Int[Tensor, "B N G"]:
        """The level of each point in each grouping; their number where it is not known."""
        given = x[..., self.features.x_shape[0] :].round()
        counts = torch.tensor(self.levels, device=x.device)
        known = (given >= 0.0) & (given < counts)  # NaN is not
        return torch.where(known, given, counts.to(given)).long()

    @override
    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N F"]:
        """The features, grouping by grouping and level by level."""
        features, codes = self.of_points(x), self.codes(x)
        parts = [features]
        for group, (count, positions) in enumerate(zip(self.levels, self.positions, strict=True)):
            belongs = codes[..., group, None] == torch.arange(count + 1, device=x.device)
            parts.append((belongs[..., None] * features[..., None, list(positions)]).flatten(-2))
        return torch.cat(parts, -1)

    @override
    def terms(self, inputs: Quantities) -> Terms | None:
        count = self.features.x_shape[0]
        own = self.features.terms(inputs.part(slice(count)))
        if own is None or len(inputs) != count + len(self.levels):
            return None
        parts = [own]
        for name, number, chosen in zip(inputs.names[count:], self.levels, map(list, self.positions), strict=True):
            beyond = own.matrix[:, chosen].clone()
            beyond[chosen] = 0.0
            if bool(beyond.any()):  # in other units of the inputs more of the weights would differ between levels
                return None
            labels = inputs.levels.get(name, tuple(str(level) for level in range(number)))
            for label in (*labels[:number], "new"):
                names = (f"{own.names[i]} {name}={label}" for i in chosen)
                parts.append(Terms(tuple(names), own.matrix[chosen][:, chosen]))
        return Terms.joined(parts)
