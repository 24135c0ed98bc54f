"""What the features of a network mean to a user: names, and the units that the weights of a last layer are in.

A learner may see its inputs in other units than the user has them, z_d = (u_d - m_d) / s_d. Where features are known
functions of the inputs, those in z are sums of the same functions of u, and weights in z are weights in u:

    h(z) = t(u) M,   h(z)ᵀ W = t(u)ᵀ (M W)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.one_line import InShort

CONSTANT = "intercept"
ROUNDING = 1e-9  # of what is 0 or 1


@dataclass(frozen=True)
class Quantities:
    """What numbers are that a learner sees: their names, and the user's units, in which v is shift + scale v.

    Attributes:
        names: of each number.
        shift: of each, in the user's unit.
        scale: of each, in the user's unit.
        levels: what the codes 0, 1, ... of a number mean, by its name, where it is a code.

    Example:
        >>> days = Quantities.named(["Days"])
        >>> days.seen(torch.tensor([4.5]), torch.tensor([3.0]))  # by a learner that sees (Days - 4.5) / 3
        Quantities(names=('Days',), shift=(4.5,), scale=(3.0,), levels={})
    """

    names: tuple[str, ...]
    shift: tuple[float, ...]
    scale: tuple[float, ...]
    levels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def named(cls, names: Sequence[str], levels: Mapping[str, tuple[str, ...]] | None = None) -> "Quantities":
        """In the user's own units.

        Args:
            names: of each number.
            levels: what codes mean.
        """
        size = len(names)
        return cls(tuple(names), (0.0,) * size, (1.0,) * size, {} if levels is None else levels)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.names)

    def seen(self, shift: Float[Tensor, "D"], scale: Float[Tensor, "D"]) -> "Quantities":
        """The same, as a learner has them that is given (v - shift) / scale.

        Args:
            shift: in units of v.
            scale: in units of v.
        """
        pairs = list(zip(self.shift, self.scale, shift.tolist(), scale.tolist(), strict=True))
        shifts = tuple(outer + unit * inner for outer, unit, inner, _ in pairs)
        return replace(self, shift=shifts, scale=tuple(unit * inner for _, unit, _, inner in pairs))

    def part(self, chosen: slice) -> "Quantities":
        """Some of them.

        Args:
            chosen: their positions.
        """
        return replace(self, names=self.names[chosen], shift=self.shift[chosen], scale=self.scale[chosen])

    @property
    def are_the_users(self) -> bool:
        """Whether they are seen as the user has them."""
        return not any(self.shift) and all(each == 1.0 for each in self.scale)


@dataclass(frozen=True, eq=False)
class Terms(InShort):
    """Features as functions of inputs in the user's units: h(z) = t(u) M.

    Attributes:
        names: of t, such as `intercept`, `Days`, `Days^2`.
        matrix: M, in float64; with fewer rows, those of sums of them alone.

    Example:
        >>> import bayesmeta as bm
        >>> years = Quantities(("year",), shift=(2000.0,), scale=(10.0,))
        >>> terms = bm.Identity(1).terms(years)
        >>> terms.names
        ('intercept', 'year')
        >>> standard = torch.tensor([[3.0], [5.0]], dtype=torch.float64)  # 3 in the year 2000, and 5 more in ten years
        >>> terms.weights(standard).flatten().tolist()
        [-997.0, 0.5]
    """

    names: tuple[str, ...]
    matrix: Float[Tensor, "R F"]

    @property
    def constant(self) -> int | None:
        """The position of the constant 1; None where there is none."""
        return self.names.index(CONSTANT) if CONSTANT in self.names else None

    def weights(self, weights: Float[Tensor, "*b F C"]) -> Float[Tensor, "*b R C"]:
        """M W: the weights of t.

        Args:
            weights: W, those of h.
        """
        return self.matrix.to(weights) @ weights

    def covariance(self, covariance: Float[Tensor, "*b F F"]) -> Float[Tensor, "*b R R"]:
        """M V Mᵀ: the covariance of the weights of t.

        Args:
            covariance: V, that of the weights of h.
        """
        matrix = self.matrix.to(covariance)
        return matrix @ covariance @ matrix.mT

    def shown(self, design: Float[Tensor, "points F"]) -> Float[Tensor, "points F"]:
        """t(u) = h M⁻¹.

        Args:
            design: h, the features of points, in float64.
        """
        return torch.linalg.lstsq(self.matrix.mT, design.mT).solution.mT

    def contrasts(self, design: Float[Tensor, "points F"]) -> "tuple[Terms, tuple[str, ...]]":
        """The terms with differences in place of levels, and the levels that these are differences from.

        All levels of a category are together the constant: only the weight of a level less that of another is
        determined, and the intercept is that of the first level.

        Args:
            design: h, the features of points, in float64.

        Example:
            >>> import bayesmeta as bm
            >>> terms = bm.Identity(2).terms(Quantities.named(["arm=a", "arm=b"]))
            >>> found, references = terms.contrasts(torch.tensor([[1.0, 1, 0], [1, 0, 1]], dtype=torch.float64))
            >>> found.names, references
            (('intercept', 'arm=b - a'), ('arm=a',))
        """
        levels: dict[str, list[int]] = {}
        for f, name in enumerate(self.names):
            column, found, _ = name.partition("=")
            if found:
                levels.setdefault(column, []).append(f)
        if self.constant is None or not levels:
            return self, ()
        shown, names = self.shown(design), list(self.names)
        change, references = torch.eye(len(names), dtype=torch.float64), list[int]()
        for column, (first, *others) in levels.items():
            if (shown[:, [first, *others]].sum(-1) - 1.0).abs().amax() > ROUNDING:
                continue
            change[self.constant, first] = 1.0
            references.append(first)
            for f in others:
                change[f, first] = -1.0
                names[f] = f"{names[f]} - {names[first].removeprefix(f'{column}=')}"
        kept = [f for f in range(len(names)) if f not in references]
        matrix = change[kept] @ self.matrix
        return Terms(tuple(names[f] for f in kept), matrix), tuple(self.names[f] for f in references)

    @classmethod
    def same(cls, names: Sequence[str]) -> "Terms":
        """Features that are the same functions in any units, as a bump is that stands where it stands.

        Args:
            names: of the features.
        """
        return cls(tuple(names), torch.eye(len(names), dtype=torch.float64))

    @classmethod
    def joined(cls, parts: Sequence["Terms"]) -> "Terms":
        """Those of several networks, one after the other.

        Args:
            parts: of each network.
        """
        names = tuple(name for part in parts for name in part.names)
        return cls(names, torch.block_diag(*(part.matrix for part in parts)))
