"""Fixed bases for an interpretable prior: every feature is a known function, so its weight has a meaning and a unit."""

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from bayesmeta.errors import DataError
from bayesmeta.networks.network import Network
from bayesmeta.networks.terms import CONSTANT, Quantities, Terms

MOST_MONOMIALS = 100_000
MOST_BUMPS = 2_048  # of a grid over all inputs: their number grows with the power of the inputs


class Identity(Network):
    """The features 1, x_1, ..., x_D: with ALPaCA and the evidence this is a linear mixed model.

    Args:
        num_inputs: D; 0 gives the constant alone.

    Raises:
        DataError: a negative number of inputs.

    Example:
        >>> Identity(2)(torch.tensor([[[3.0, 4.0]]]))
        tensor([[[1., 3., 4.]]])
    """

    def __init__(self, num_inputs: int) -> None:
        super().__init__()
        if num_inputs < 0:
            raise DataError(f"expected a number of inputs >= 0, got {num_inputs}")
        self.x_shape, self.num_outputs = (num_inputs,), num_inputs + 1

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N F"]:
        """The constant, then the inputs."""
        return torch.cat([torch.ones_like(x[..., :1]) if x.shape[-1] else x.new_ones(*x.shape[:2], 1), x], -1)

    @override
    def terms(self, inputs: Quantities) -> Terms | None:
        if (len(inputs),) != self.x_shape:
            return None
        shift, scale = (torch.tensor(each, dtype=torch.float64) for each in (inputs.shift, inputs.scale))
        matrix = torch.diag(torch.cat([scale.new_ones(1), 1.0 / scale]))
        matrix[0, 1:] = -shift / scale
        return Terms((CONSTANT, *inputs.names), matrix)


class Inputs(Network):
    """The inputs as they are, x_1, ..., x_D, without a constant: what a kernel on inputs sees.

    Args:
        num_inputs: D.

    Raises:
        DataError: no inputs.

    Example:
        >>> Inputs(2)(torch.tensor([[[3.0, 4.0]]]))
        tensor([[[3., 4.]]])
    """

    def __init__(self, num_inputs: int) -> None:
        super().__init__()
        if num_inputs < 1:
            raise DataError(f"expected at least one input, got {num_inputs}")
        self.x_shape, self.num_outputs = (num_inputs,), num_inputs

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N F"]:
        """The inputs."""
        return x

    @override
    def terms(self, inputs: Quantities) -> Terms | None:
        if (len(inputs),) != self.x_shape or any(inputs.shift):  # a shift asks for a constant
            return None
        return Terms(inputs.names, torch.diag(1.0 / torch.tensor(inputs.scale, dtype=torch.float64)))


class Polynomial(Network):
    """All monomials x_1^a x_2^b ... of total degree at most `degree`, the constant first.

    Args:
        num_inputs: D.
        degree: largest total degree.

    Raises:
        DataError: no inputs, a negative degree, or more than 100,000 monomials.

    Example:
        >>> Polynomial(2, 2).powers
        ((0, 0), (0, 1), (1, 0), (0, 2), (1, 1), (2, 0))
        >>> Polynomial(1, 3)(torch.tensor([[[2.0]]]))
        tensor([[[1., 2., 4., 8.]]])
    """

    def __init__(self, num_inputs: int, degree: int) -> None:
        super().__init__()
        if num_inputs < 1 or degree < 0:
            raise DataError(f"expected at least one input and a degree >= 0, got {num_inputs} and {degree}")
        if min(num_inputs, degree) > 16 or math.comb(num_inputs + degree, degree) > MOST_MONOMIALS:
            raise DataError(
                f"expected at most {MOST_MONOMIALS} monomials, got more: {num_inputs} inputs and degree {degree}"
            )
        self.powers = tuple(power for total in range(degree + 1) for power in _powers(num_inputs, total))
        self.x_shape, self.num_outputs = (num_inputs,), len(self.powers)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N F"]:
        """The monomials, in the order of `powers`."""
        powers = torch.tensor(self.powers, dtype=x.dtype, device=x.device)
        return (x[..., None, :] ** powers).prod(-1)

    @override
    def terms(self, inputs: Quantities) -> Terms | None:
        return _monomials(inputs, self.powers) if (len(inputs),) == self.x_shape else None


class RadialBasis(Network):
    """The constant 1, and Gaussian bumps exp(-|x - c|² / 2 width²) on a regular grid of centres in all of x.

    With several inputs the number of bumps is the product of those along each; `AdditiveRadialBasis` has their sum.

    Args:
        num_inputs: D.
        num_centers: centres along each input.
        bounds: (lowest, highest) centre along each input.
        width: standard deviation of a bump, units of x; the distance between centres by default.

    Raises:
        DataError: no inputs, fewer than two centres, more than 2,048 bumps, bounds that are not in order, or a width
            that is not positive.

    Example:
        >>> RadialBasis(1, 3, bounds=(-1.0, 1.0))(torch.tensor([[[0.0]]])).round(decimals=3)
        tensor([[[1.0000, 0.6070, 1.0000, 0.6070]]])
    """

    def __init__(
        self, num_inputs: int, num_centers: int, bounds: tuple[float, float] = (-2.0, 2.0), width: float | None = None
    ) -> None:
        super().__init__()
        grid, self.width = _grid(num_inputs, num_centers, bounds, width)
        if num_inputs * math.log(num_centers) > math.log(MOST_BUMPS) + 1e-9:  # the power itself may be endless
            raise DataError(
                f"expected at most {MOST_BUMPS:,} bumps on a grid, got {num_centers} along each of {num_inputs} "
                "inputs: take fewer, or AdditiveRadialBasis"
            )
        self.centers: Tensor
        self.register_buffer("centers", torch.cartesian_prod(*[grid] * num_inputs).reshape(-1, num_inputs), False)
        self.x_shape, self.num_outputs = (num_inputs,), len(self.centers) + 1

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N F"]:
        """The constant, then the bumps."""
        squared = (x[..., None, :] - self.centers.to(x)).square().sum(-1)
        return torch.cat([x.new_ones(*x.shape[:2], 1), (-0.5 * squared / self.width**2).exp()], -1)

    @override
    def terms(self, inputs: Quantities) -> Terms | None:
        if (len(inputs),) != self.x_shape:
            return None
        places = (_places(inputs, center) for center in self.centers.tolist())
        return Terms.same([CONSTANT, *(f"bump at {', '.join(place)}" for place in places)])


class AdditiveRadialBasis(Network):
    """The constant 1, and Gaussian bumps exp(-(x_d - c)² / 2 width²) along each input: sums of functions of one input.

    Args:
        num_inputs: D.
        num_centers: centres along each input.
        bounds: (lowest, highest) centre along each input.
        width: standard deviation of a bump, units of x; the distance between centres by default.

    Raises:
        DataError: no inputs, fewer than two centres, bounds that are not in order, or a width that is not positive.

    Example:
        >>> basis = AdditiveRadialBasis(2, 3, bounds=(-1.0, 1.0))
        >>> basis(torch.tensor([[[0.0, 1.0]]])).round(decimals=3)  # those of the first input, then of the second
        tensor([[[1.0000, 0.6070, 1.0000, 0.6070, 0.1350, 0.6070, 1.0000]]])
    """

    def __init__(
        self, num_inputs: int, num_centers: int, bounds: tuple[float, float] = (-2.0, 2.0), width: float | None = None
    ) -> None:
        super().__init__()
        grid, self.width = _grid(num_inputs, num_centers, bounds, width)
        self.centers: Tensor
        self.register_buffer("centers", grid, False)
        self.x_shape, self.num_outputs = (num_inputs,), num_inputs * num_centers + 1

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N F"]:
        """The constant, then the bumps along x_1, along x_2, ..."""
        bumps = (-0.5 * ((x[..., None] - self.centers.to(x)) / self.width).square()).exp()
        return torch.cat([x.new_ones(*x.shape[:2], 1), bumps.flatten(2)], -1)

    @override
    def terms(self, inputs: Quantities) -> Terms | None:
        if (len(inputs),) != self.x_shape:
            return None
        count = len(inputs)
        places = [_places(inputs, [center] * count) for center in self.centers.tolist()]
        return Terms.same([CONSTANT, *(f"bump at {place[d]}" for d in range(count) for place in places)])


class Spline(Network):
    """Splines of one input: the powers 1, x, ..., x^degree, and a truncated power (x - knot)₊^degree for each knot.

    Args:
        knots: increasing positions, units of x.
        degree: 1 for broken lines, 3 for cubic splines.

    Raises:
        DataError: knots that do not increase, or a degree below 1.

    Example:
        >>> Spline([0.0, 1.0], degree=1)(torch.tensor([[[-1.0], [3.0]]]))
        tensor([[[ 1., -1.,  0.,  0.],
                 [ 1.,  3.,  3.,  2.]]])
    """

    def __init__(self, knots: Sequence[float], degree: int = 3) -> None:
        super().__init__()
        knots = list(knots)  # a numpy array has no truth value
        if not knots or any(b <= a for a, b in itertools.pairwise(knots)) or degree < 1:
            raise DataError(f"expected increasing knots and a degree >= 1, got {knots} and {degree}")
        self.degree = degree
        self.knots: Tensor
        self.register_buffer("knots", torch.tensor(knots, dtype=torch.float64), False)
        self.x_shape, self.num_outputs = (1,), degree + 1 + len(knots)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N F"]:
        """The powers up to `degree`, then the truncated powers."""
        powers = x ** torch.arange(self.degree + 1, dtype=x.dtype, device=x.device)
        return torch.cat([powers, (x - self.knots.to(x)).clamp(min=0.0) ** self.degree], -1)

    @override
    def terms(self, inputs: Quantities) -> Terms | None:
        if len(inputs) != 1:
            return None
        powers = _monomials(inputs, [(power,) for power in range(self.degree + 1)])
        (name,), shift, scale = inputs.names, inputs.shift[0], inputs.scale[0]
        power = "" if self.degree == 1 else f"^{self.degree}"
        bends = [f"({name} above {shift + scale * knot:.4g}){power}" for knot in self.knots.tolist()]
        unit = torch.eye(len(bends), dtype=torch.float64) / scale**self.degree
        return Terms.joined([powers, Terms(tuple(bends), unit)])


def _places(inputs: Quantities, center: Sequence[float]) -> list[str]:
    """`Days 3.5` for each input: a center in the user's units."""
    each = zip(inputs.names, inputs.shift, inputs.scale, center, strict=True)
    return [f"{name} {shift + scale * round(place, 9):.4g}" for name, shift, scale, place in each]


def _monomials(inputs: Quantities, powers: Sequence[tuple[int, ...]]) -> Terms:
    """Π_d ((u_d - m_d) / s_d)^p_d as sums of the monomials of u; with each power all lower ones are there."""
    position = {power: i for i, power in enumerate(powers)}
    matrix = torch.zeros(len(powers), len(powers), dtype=torch.float64)
    for column, power in enumerate(powers):
        for lower in itertools.product(*(range(p + 1) for p in power)):
            each = zip(power, lower, inputs.shift, inputs.scale, strict=True)
            matrix[position[lower], column] = math.prod(math.comb(p, k) * (-m) ** (p - k) / s**p for p, k, m, s in each)
    return Terms(tuple(_monomial(inputs.names, power) for power in powers), matrix)


def _monomial(names: Sequence[str], power: Sequence[int]) -> str:
    """`Days^2 Dose`."""
    parts = zip(names, power, strict=True)
    return " ".join(name if degree == 1 else f"{name}^{degree}" for name, degree in parts if degree) or CONSTANT


def _powers(num_inputs: int, total: int) -> Iterator[tuple[int, ...]]:
    """Powers of each input that sum to `total`, the first inputs' rising last."""
    if num_inputs == 1:
        yield (total,)
        return
    for first in range(total + 1):
        for others in _powers(num_inputs - 1, total - first):
            yield (first, *others)


def _grid(
    num_inputs: int, num_centers: int, bounds: tuple[float, float], width: float | None
) -> tuple[Float[Tensor, "K"], float]:
    """The centres along one input, and the width of a bump."""
    low, high = _bounds(bounds)
    if num_inputs < 1 or num_centers < 2:
        raise DataError(f"expected at least one input and 2 centres, got {num_inputs} and {num_centers}")
    if num_inputs * num_centers > MOST_MONOMIALS:
        raise DataError(f"expected at most {MOST_MONOMIALS} bumps, got {num_centers} along each of {num_inputs} inputs")
    if width is not None and not 0.0 < width < math.inf:
        raise DataError(f"expected a positive width, got {width}")
    grid = torch.linspace(low, high, num_centers, dtype=torch.float64)
    return grid, (high - low) / (num_centers - 1) if width is None else width


def _bounds(bounds: tuple[float, float]) -> tuple[float, float]:
    low, high = bounds
    if not -math.inf < low < high < math.inf:
        raise DataError(f"expected bounds with lower < upper, got {tuple(bounds)}")
    return low, high
