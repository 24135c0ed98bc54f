"""Gaussian priors of named tensors: independent numbers, whose variances are shared or free; full over one vector.

IsotropicGaussian    one precision for all of phi
LayerwiseGaussian    one for each named tensor
FactoredGaussian     one number a row and a column of each weight, with which J D Jᵀ of dense layers stays cheap
DiagonalGaussian     a variance for every number
"""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from bayesmeta.distributions import common_normals
from bayesmeta.errors import DataError
from bayesmeta.linalg import logdet, solve_lower
from bayesmeta.networks.jacobian import Diagonal, OuterProduct, written_out
from bayesmeta.noise import Positive
from bayesmeta.priors.feature_covariance import FullCovariance
from bayesmeta.priors.prior import LOG_2PI, Prior, value_of
from bayesmeta.typing import Params


class IndependentGaussian(Prior):
    """N(mean, D) over named tensors with a diagonal D; the subclasses differ in which variances are free.

    A subclass gives `diagonal` and `around`.

    Args:
        mean: named tensors, the starting value of the prior mean; a Parameter (a network's weight) is shared.

    Raises:
        DataError: no tensors.

    Example:
        >>> import bayesmeta as bm
        >>> class Unit(bm.priors.IndependentGaussian):  # in which the deviations are known
        ...     @classmethod
        ...     def around(cls, mean, precision):
        ...         return cls(mean)
        ...     def diagonal(self):
        ...         return {name: torch.ones_like(value) for name, value in self.mean.items()}
        >>> learner = bm.IMAML(bm.MLP(1, [8]), prior=Unit)
        >>> learner.prior.squared_distance(learner.start(1))
        tensor([0.], grad_fn=<...>)
    """

    def __init__(self, mean: dict[str, Tensor]) -> None:
        super().__init__()
        if not mean:
            raise DataError("expected at least one named tensor for the prior mean, got none")
        self.names = tuple(mean)
        self.values = nn.ParameterList(
            value if isinstance(value, nn.Parameter) else nn.Parameter(value.detach().clone())
            for value in mean.values()
        )

    @classmethod
    @abstractmethod
    def around(cls, mean: dict[str, Tensor], precision: float) -> "IndependentGaussian":
        """The prior of this kind around a mean, in which all numbers start with the same precision.

        Args:
            mean: as for the constructor.
            precision: 1 / the starting variance of every number.
        """

    @abstractmethod
    def diagonal(self) -> Diagonal:
        """D: the prior variance of every number in phi, broadcastable to the mean or an outer product of its shape."""

    @property
    def mean(self) -> Params:
        """The prior mean, a part of theta: where a task without data stays."""
        return dict(zip(self.names, self.values, strict=True))

    def variance(self) -> Params:
        """The prior variance of every number in phi, broadcastable to the mean."""
        return written_out(self.diagonal())

    def squared_distance(self, phi: Params) -> Float[Tensor, "*s B"]:
        """(phi - mean)ᵀ D⁻¹ (phi - mean) of each task (and draw)."""
        total: Tensor | float = 0.0
        variances = self.variance()
        for name, mean in self.mean.items():
            each = (value_of(phi, name, mean) - mean).square() / variances[name]
            total = total + (each.flatten(each.ndim - mean.ndim).sum(-1) if mean.ndim else each)
        assert isinstance(total, Tensor)
        return total

    def log_prob(self, phi: Params) -> Float[Tensor, "*s B"]:
        """The sum of independent Gaussian log densities, in nats."""
        variances = self.variance()
        logs = [variances[name].expand(mean.shape).log() + LOG_2PI for name, mean in self.mean.items()]
        return -0.5 * (self.squared_distance(phi) + torch.stack([each.sum() for each in logs]).sum())

    def sample(self, num_tasks: int, generator: torch.Generator | None = None) -> Params:
        """Draws mean + sqrt(variance) times a standard normal number."""
        variances = self.variance()
        draws = {}
        for name, mean in self.mean.items():
            shape = (num_tasks, *mean.shape)
            normal = common_normals(shape, mean, generator)
            draws[name] = mean + variances[name].sqrt() * normal
        return draws


class IsotropicGaussian(IndependentGaussian):
    """N(mean, I / precision): one learned precision for all of phi (the prior of iMAML and LLAMA).

    Args:
        mean: named tensors, the starting value of the prior mean; a Parameter (a network's weight) is shared.
        precision: the starting precision.
        bounds: the smallest and the largest precision.

    Raises:
        DataError: no tensors, bounds that are not positive and increasing, or a precision outside of them.

    Example:
        >>> import bayesmeta as bm
        >>> prior = bm.priors.IsotropicGaussian({"weight": torch.zeros(2, 1), "bias": torch.zeros(1)}, precision=4.0)
        >>> {name: round(variance.item(), 2) for name, variance in prior.variance().items()}
        {'weight': 0.25, 'bias': 0.25}
        >>> prior.sample(3)["weight"].shape  # of three tasks
        torch.Size([3, 2, 1])
        >>> prior.log_prob(prior.sample(3)).shape
        torch.Size([3])
    """

    def __init__(
        self, mean: dict[str, Tensor], precision: float = 1.0, bounds: tuple[float, float] = (1e-8, 1e8)
    ) -> None:
        super().__init__(mean)
        self.precision = Positive((), precision, bounds)

    @classmethod
    @override
    def around(cls, mean: dict[str, Tensor], precision: float) -> "IsotropicGaussian":
        return cls(mean, precision)

    def diagonal(self) -> Diagonal:
        """The variance 1 / precision, for every tensor the same number."""
        return dict.fromkeys(self.names, 1.0 / self.precision())


class LayerwiseGaussian(IndependentGaussian):
    """N(mean, D) with one learned precision for each named tensor: for the weight of a layer, and for its bias.

    Args:
        mean: named tensors, the starting value of the prior mean; a Parameter (a network's weight) is shared.
        precision: the starting precision of every tensor.
        bounds: the smallest and the largest precision.

    Raises:
        DataError: no tensors, bounds that are not positive and increasing, or a precision outside of them.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.IMAML(bm.MLP(1, [8]), precision=10.0, prior=bm.priors.LayerwiseGaussian)
        >>> learner.prior.precisions[0].set(1e4)  # the first layer is nearly the same in all tasks
        >>> {name: round(variance.item(), 4) for name, variance in learner.prior.variance().items()}
        {'features.layers.0.weight': 0.0001, 'features.layers.0.bias': 0.1, 'output.weight': 0.1, 'output.bias': 0.1}
    """

    def __init__(
        self, mean: dict[str, Tensor], precision: float = 1.0, bounds: tuple[float, float] = (1e-8, 1e8)
    ) -> None:
        super().__init__(mean)
        self.precisions = nn.ModuleList(Positive((), precision, bounds) for _ in mean)

    @classmethod
    @override
    def around(cls, mean: dict[str, Tensor], precision: float) -> "LayerwiseGaussian":
        return cls(mean, precision)

    def diagonal(self) -> Diagonal:
        """The variance 1 / precision of each tensor, one number."""
        return {name: 1.0 / precision() for name, precision in zip(self.names, self.precisions, strict=True)}


class FactoredGaussian(IndependentGaussian):
    """N(mean, D) with d_ij = r_i c_j in every weight: one learned number a row, and one a column; a bias has its own.

    Which units of a layer differ between tasks, and which of its inputs they look at differently, is two numbers for
    each unit and not one for each weight. J D Jᵀ of a dense layer remains a product of two small ones (`OuterProduct`).
    Multiplying r by a number and dividing c by it changes nothing: the numbers themselves mean nothing, their products
    are variances.

    Args:
        mean: named tensors, the starting value of the prior mean; a Parameter (a network's weight) is shared. The rows
            of a tensor are its first axis, and its columns all others together; a vector has a variance a number.
        variance: the starting variance of every number.
        bounds: the smallest and the largest variance; r and c are each between their square roots.

    Raises:
        DataError: no tensors, bounds that are not positive and increasing, or a variance outside of them.

    Example:
        >>> import bayesmeta as bm
        >>> prior = bm.priors.FactoredGaussian({"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}, variance=0.25)
        >>> prior.rows[0].set(torch.tensor([0.1, 1.0]))  # the first unit is more alike in all tasks
        >>> prior.variance()["weight"]
        tensor([[0.0500, 0.0500, 0.0500],
                [0.5000, 0.5000, 0.5000]], grad_fn=<...>)
        >>> learner = bm.IMAML(bm.MLP(1, [8]), precision=10.0, prior=bm.priors.FactoredGaussian)
        >>> learner.adapt(bm.Data.from_arrays([0.0, 1.0], [1.0, 2.0])).predict([0.5]).mean.shape
        torch.Size([1, 1, 1])
    """

    def __init__(
        self, mean: dict[str, Tensor], variance: float = 1.0, bounds: tuple[float, float] = (1e-8, 1e8)
    ) -> None:
        super().__init__(mean)
        lower, upper = bounds
        if not (0.0 < lower < variance < upper < math.inf):
            raise DataError(f"expected bounds with 0 < lower < variance < upper, got {variance} in ({lower}, {upper})")
        root, root_bounds = math.sqrt(variance), (math.sqrt(lower), math.sqrt(upper))
        self.rows, self.columns = nn.ModuleList(), nn.ModuleList()
        for value in mean.values():
            shape = tuple(value.shape)
            if len(shape) < 2:
                self.rows.append(Positive(shape, variance, bounds))
                self.columns.append(nn.Identity())
            else:
                self.rows.append(Positive(shape[:1], root, root_bounds))
                self.columns.append(Positive(shape[1:], root, root_bounds))

    @classmethod
    @override
    def around(cls, mean: dict[str, Tensor], precision: float) -> "FactoredGaussian":
        return cls(mean, _variance_of(precision))

    def diagonal(self) -> Diagonal:
        """r cᵀ of each weight, and the variances of each vector."""
        return {
            name: OuterProduct(rows(), columns()) if isinstance(columns, Positive) else rows()
            for name, rows, columns in zip(self.names, self.rows, self.columns, strict=True)
        }


class DiagonalGaussian(IndependentGaussian):
    """N(mean, diag(variance)): a learned variance for every number in phi.

    Args:
        mean: named tensors, the starting value of the prior mean; a Parameter (a network's weight) is shared.
        variance: the starting variance of every number.
        bounds: the smallest and the largest variance.

    Raises:
        DataError: no tensors, bounds that are not positive and increasing, or a variance outside of them.

    Example:
        >>> import bayesmeta as bm
        >>> prior = bm.priors.DiagonalGaussian({"phi": torch.zeros(2)})
        >>> prior.variances[0].set(torch.tensor([1e-4, 1.0]))  # the first number is nearly the same in all tasks
        >>> draws = prior.sample(1000, torch.Generator().manual_seed(0))["phi"]
        >>> [round(deviation, 2) for deviation in draws.std(0).tolist()]
        [0.01, 0.99]
    """

    def __init__(
        self, mean: dict[str, Tensor], variance: float = 1.0, bounds: tuple[float, float] = (1e-8, 1e8)
    ) -> None:
        super().__init__(mean)
        self.variances = nn.ModuleList(Positive(tuple(value.shape), variance, bounds) for value in mean.values())

    @classmethod
    @override
    def around(cls, mean: dict[str, Tensor], precision: float) -> "DiagonalGaussian":
        return cls(mean, _variance_of(precision))

    def diagonal(self) -> Diagonal:
        """The variance of every number."""
        return {name: value() for name, value in zip(self.names, self.variances, strict=True)}


class StandardNormal(Prior):
    """N(0, I), in which nothing is learned (the prior of CAVIA's context).

    Args:
        shapes: the shape of each named tensor.

    Example:
        >>> import bayesmeta as bm
        >>> prior = bm.priors.StandardNormal({"context": (2,)})
        >>> prior.log_prob({"context": torch.tensor([[0.0, 0.0], [1.0, 1.0]])})  # of two tasks: -log 2π, and 1 less
        tensor([-1.8379, -2.8379])
    """

    def __init__(self, shapes: Mapping[str, Sequence[int]]) -> None:
        super().__init__()
        self.shapes = {name: torch.Size(shape) for name, shape in shapes.items()}
        self.zero: Tensor
        self.register_buffer("zero", torch.zeros(()), persistent=False)  # knows precision and device

    @property
    def mean(self) -> Params:
        """Zeros of the given shapes."""
        return {name: self.zero.expand(shape) for name, shape in self.shapes.items()}

    def log_prob(self, phi: Params) -> Float[Tensor, "*s B"]:
        """The sum of standard normal log densities, in nats."""
        parts = [value_of(phi, name, mean).square() + LOG_2PI for name, mean in self.mean.items()]
        pairs = zip(parts, self.shapes.values(), strict=True)
        sums = [part.flatten(part.ndim - len(shape)).sum(-1) if shape else part for part, shape in pairs]
        return -0.5 * torch.stack(sums).sum(0)

    def sample(self, num_tasks: int, generator: torch.Generator | None = None) -> Params:
        """Draws of standard normal numbers."""
        like = self.zero
        return {name: common_normals((num_tasks, *shape), like, generator) for name, shape in self.shapes.items()}


class FullGaussian(Prior):
    """N(mean, L Lᵀ) over one named vector, with a learned full covariance.

    Args:
        num_parameters: P, the length of the vector.
        variance: the starting variance of every number; the numbers start uncorrelated.
        name: the name of the vector in phi.

    Raises:
        DataError: a variance that is not positive.

    Example:
        >>> import bayesmeta as bm
        >>> prior = bm.priors.FullGaussian(2)
        >>> prior.covariance.set_matrix(torch.tensor([[1.0, 0.9], [0.9, 1.0]]))
        >>> draws = prior.sample(1000, torch.Generator().manual_seed(0))["phi"]
        >>> round(torch.corrcoef(draws.T)[0, 1].item(), 1)
        0.9
    """

    def __init__(self, num_parameters: int, variance: float = 1.0, name: str = "phi") -> None:
        super().__init__()
        self.name = name
        if num_parameters < 1:
            raise DataError(f"expected at least one parameter, got {num_parameters}")
        self.location = nn.Parameter(torch.zeros(num_parameters))
        self.covariance = FullCovariance(num_parameters, variance)

    @property
    def mean(self) -> Params:
        """The prior mean, a vector."""
        return {self.name: self.location}

    def log_prob(self, phi: Params) -> Float[Tensor, "*s B"]:
        """The multivariate Gaussian log density, in nats. Raises UnsupportedError where the covariance is singular."""
        difference = value_of(phi, self.name, self.location) - self.location
        factor = self.covariance.invertible_factor().to(difference.dtype)
        white = solve_lower(factor, difference[..., None])[..., 0]
        return -0.5 * (white.square().sum(-1) + logdet(factor) + len(self.location) * LOG_2PI)

    def sample(self, num_tasks: int, generator: torch.Generator | None = None) -> Params:
        """Draws mean + L z with standard normal z."""
        like = self.location
        normal = common_normals((num_tasks, len(like)), like, generator)
        return {self.name: self.location + normal @ self.covariance.factor().mT}


def _variance_of(precision: float) -> float:
    if not precision > 0.0:
        raise DataError(f"expected a positive precision, got {precision}")
    return 1.0 / precision
