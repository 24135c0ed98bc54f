"""V = L Lᵀ, the prior covariance over the F features of a last layer: full, diagonal, isotropic, or of some of them."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayesmeta.description import Described
from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.linalg import lower_root, lower_whitening, root_mean_squares, semidefinite_root
from bayesmeta.torch_private import is_mapped
from bayesmeta.typing import LinearMaps

MOST_FEATURES = 1_000_000


class FeatureCovariance(Described, nn.Module, ABC):
    """V = L Lᵀ, the prior covariance over the F features of a matrix-normal prior, relative to the observation noise.

    Its inverse is ALPaCA's Lambda_0, and V itself is lme4's relative covariance. A feature that is left out of
    `varying` has prior variance zero: its weight is the same in all tasks (a fixed effect). A subclass gives
    `square_factor` and `set_matrix`.

    Args:
        num_features: F.
        varying: positions of the features whose weights differ between tasks; None for all.

    Raises:
        DataError: no features or more than a million, positions that repeat or are not those of features.

    Example:
        >>> import bayesmeta as bm
        >>> class Smooth(bm.priors.FeatureCovariance):
        ...     '''Variances 1, 1/2, 1/3, ..: later features matter less. One scale is learned.'''
        ...     def __init__(self, num_features, varying=None):
        ...         super().__init__(num_features, varying)
        ...         self.stddev = torch.nn.Parameter(torch.ones(()))
        ...     def square_factor(self):
        ...         rank = torch.arange(1.0, len(self.varying) + 1)
        ...         return torch.diag(self.stddev * rank.rsqrt())
        ...     def set_matrix(self, covariance):
        ...         self.stddev.data.copy_(covariance[0, 0].sqrt())
        >>> [round(variance, 2) for variance in Smooth(4).matrix().diagonal().tolist()]
        [1.0, 0.5, 0.33, 0.25]
        >>> learner = bm.ALPaCA(bm.Polynomial(1, 3), covariance=Smooth(4))
    """

    def __init__(self, num_features: int, varying: Sequence[int] | None) -> None:
        super().__init__()
        if not 1 <= num_features <= MOST_FEATURES:
            raise DataError(f"expected from 1 to {MOST_FEATURES} features, got {num_features}")
        chosen = list(range(num_features)) if varying is None else [int(i) for i in varying]
        if len(set(chosen)) != len(chosen) or not all(0 <= i < num_features for i in chosen):
            raise DataError(f"expected distinct feature positions from 0 to {num_features - 1}, got {chosen}")
        self.num_features, self.varying = num_features, tuple(chosen)

    @abstractmethod
    def square_factor(self) -> Float[Tensor, "R R"]:
        """A lower triangular factor over the R varying features; its diagonal may have any sign, or be zero."""

    @abstractmethod
    def set_matrix(self, covariance: Float[Tensor, "F F"]) -> None:
        """Assign V over the varying features, or what this type can hold of it (a diagonal type keeps the diagonal).

        Raises:
            InferenceError: V has a negative variance in some direction.
        """

    def set_root(self, root: Float[Tensor, "R K"]) -> None:
        """Assign V = T Tᵀ over the varying features by a root T of it, or what this type can hold of it.

        Where features nearly coincide this is more precise than `set_matrix`, as T is not squared.
        """
        covariance = root.new_zeros(self.num_features, self.num_features)
        index = torch.tensor(self.varying, dtype=torch.long)
        covariance[index[:, None], index] = root @ root.mT
        self.set_matrix(covariance)

    def unit_basis(self, design: Float[Tensor, "P F"]) -> Float[Tensor, "R R"]:
        """A lower triangular B such that V = B V' Bᵀ is well scaled where V' is near a multiple of the identity.

        A type keeps to what its own V can follow: here B is diagonal, and gives every feature a unit mean square.

        Args:
            design: the varying and other features of many points.
        """
        return torch.diag(1.0 / root_mean_squares(self._chosen_columns(design)))

    def unit_maps(self, basis: Float[Tensor, "R R"], scale: float) -> LinearMaps:
        """How parameters follow numbers in which V' is well scaled: linear maps, by parameter; none by default.

        Args:
            basis: B, as `unit_basis` gives it.
            scale: the order of magnitude of the deviations in V'.
        """
        return {}

    def _chosen_columns(self, design: Tensor) -> Tensor:
        return design[:, list(self.varying)].detach().double()

    def _chosen(self, covariance: Tensor) -> Tensor:
        """A lower triangular root of the varying part."""
        index = list(self.varying)
        return semidefinite_root(covariance[index][:, index].double(), "prior covariance")

    def factor(self) -> Float[Tensor, "F R"]:
        """L: the square factor, with rows of zeros for the features that do not vary."""
        square = self.square_factor()
        if len(self.varying) == self.num_features and self.varying == tuple(range(self.num_features)):
            return square
        factor = square.new_zeros(self.num_features, len(self.varying))
        return factor.index_put((torch.tensor(self.varying, device=square.device, dtype=torch.long),), square)

    def invertible_factor(self) -> Float[Tensor, "F F"]:
        """L, for a density over the weights of all features. NaN follows where code is recorded or mapped.

        Raises:
            UnsupportedError: a feature does not vary, or V is singular, as at the boundary where a fit may end: a
                variance is zero, or a correlation one. `adapt` and `predict` of closed forms need no density.
        """
        factor = self.factor()
        if factor.shape[0] != factor.shape[1]:
            raise UnsupportedError("a prior with features that do not vary between tasks has no density over all of W")
        if not torch.compiler.is_compiling() and not is_mapped(factor) and bool((factor.diagonal() == 0.0).any()):
            raise UnsupportedError(
                "a prior whose covariance is singular (a variance of zero, a correlation of one) has no density over "
                "all of W: use the closed form of the learner, which needs none"
            )
        return factor

    def matrix(self) -> Float[Tensor, "F F"]:
        """V = L Lᵀ."""
        factor = self.factor()
        return factor @ factor.mT


class FullCovariance(FeatureCovariance):
    """Any prior covariance over features: F (F + 1) / 2 numbers are learned, the lower triangle of L.

    They are free, of any sign: a variance of exactly zero and a correlation of exactly one are points like others, and
    L and L with columns of another sign are the same V (Bates et al. 2015, "Fitting linear mixed-effects models using
    lme4", section 2.2).

    Args:
        num_features: F.
        variance: the starting variance of the weight of every feature, relative to the observation noise.
        varying: positions of the features whose weights differ between tasks; all by default.

    Attributes:
        lower: the lower triangle of L, row by row.

    Raises:
        DataError: a variance that is not positive; positions that repeat or are not those of features.

    Example:
        >>> import bayesmeta as bm
        >>> intercepts = bm.priors.FullCovariance(2, varying=[0])  # the slope is the same in all tasks
        >>> intercepts.matrix()
        tensor([[1., 0.],
                [0., 0.]], grad_fn=<...>)
        >>> learner = bm.ALPaCA(bm.Identity(1), covariance=intercepts)  # random intercepts
    """

    def __init__(self, num_features: int, variance: float = 1.0, varying: Sequence[int] | None = None) -> None:
        super().__init__(num_features, varying)
        start = starting_deviation(variance) * torch.eye(len(self.varying))
        self.lower = nn.Parameter(_entries(start))

    def square_factor(self) -> Float[Tensor, "R R"]:
        """The lower triangle as a matrix."""
        return _triangle(self.lower, len(self.varying))

    @torch.no_grad()
    def set_matrix(self, covariance: Float[Tensor, "F F"]) -> None:
        """Assign V over the varying features. Raises InferenceError where a direction has a negative variance."""
        self.lower.copy_(_entries(self._chosen(covariance)))

    @torch.no_grad()
    def set_root(self, root: Float[Tensor, "R K"]) -> None:
        """Assign V = T Tᵀ over the varying features, without squaring T."""
        self.lower.copy_(_entries(lower_root(root)))

    def unit_basis(self, design: Float[Tensor, "P F"]) -> Float[Tensor, "R R"]:
        """Whitens: the features Φ B are uncorrelated and have unit mean squares, wherever the origin of x is."""
        return lower_whitening(self._chosen_columns(design))

    def unit_maps(self, basis: Float[Tensor, "R R"], scale: float) -> LinearMaps:
        """L = B L', which is lower triangular again: every entry follows those of its column."""
        size = len(self.varying)
        return {self.lower: lambda free: _entries(scale * basis @ _triangle(free, size))}


class DiagonalCovariance(FeatureCovariance):
    """A diagonal prior covariance: the weights of features are independent, each with its own learned variance.

    Args:
        num_features: F.
        variance: the starting value of all variances, relative to the observation noise.
        varying: positions of the features that have a variance, the others having none; all by default.

    Attributes:
        stddev: the deviations of the R varying features, of any sign: their squares are the variances.

    Raises:
        DataError: a variance that is not positive; positions that repeat or are not those of features.

    Example:
        >>> import bayesmeta as bm
        >>> covariance = bm.priors.DiagonalCovariance(2)
        >>> covariance.set_matrix(torch.tensor([[4.0, 1.0], [1.0, 9.0]]))  # keeps the variances
        >>> covariance.matrix().round(decimals=3)
        tensor([[4., 0.],
                [0., 9.]], grad_fn=<...>)
        >>> learner = bm.ALPaCA(bm.Identity(1), covariance=covariance)
    """

    def __init__(self, num_features: int, variance: float = 1.0, varying: Sequence[int] | None = None) -> None:
        super().__init__(num_features, varying)
        self.stddev = nn.Parameter(torch.full((len(self.varying),), starting_deviation(variance)))

    def square_factor(self) -> Float[Tensor, "R R"]:
        """The diagonal matrix of the deviations."""
        return torch.diag(self.stddev)

    @torch.no_grad()
    def set_matrix(self, covariance: Float[Tensor, "F F"]) -> None:
        """Assign the variances of the varying features; correlations are dropped."""
        self.set_root(self._chosen(covariance))

    @torch.no_grad()
    def set_root(self, root: Float[Tensor, "R K"]) -> None:
        """Assign the variances of V = T Tᵀ over the varying features."""
        self.stddev.copy_(torch.linalg.vector_norm(root, dim=-1))

    def unit_maps(self, basis: Float[Tensor, "R R"], scale: float) -> LinearMaps:
        """Each deviation in a unit of its own."""
        return {self.stddev: lambda free: scale * basis.diagonal() * free}


class IsotropicCovariance(FeatureCovariance):
    """A prior covariance that is a multiple of the identity: the weights of all features have one learned variance.

    Args:
        num_features: F.
        variance: the starting variance, relative to the observation noise.
        varying: positions of the features whose weights differ between tasks; all by default.

    Attributes:
        stddev: the common deviation, of either sign: its square is the variance.

    Raises:
        DataError: a variance that is not positive; positions that repeat or are not those of features.

    Example:
        >>> import bayesmeta as bm
        >>> covariance = bm.priors.IsotropicCovariance(8, variance=0.5)
        >>> len(list(covariance.parameters()))  # one number is learned
        1
        >>> learner = bm.ALPaCA(bm.MLP(1, [16, 8]), covariance=covariance)
    """

    def __init__(self, num_features: int, variance: float = 1.0, varying: Sequence[int] | None = None) -> None:
        super().__init__(num_features, varying)
        self.stddev = nn.Parameter(torch.tensor(starting_deviation(variance)))

    def square_factor(self) -> Float[Tensor, "R R"]:
        """The common deviation times the identity."""
        return self.stddev * torch.eye(len(self.varying), dtype=self.stddev.dtype, device=self.stddev.device)

    @torch.no_grad()
    def set_matrix(self, covariance: Float[Tensor, "F F"]) -> None:
        """Assign the mean of the variances of the varying features."""
        self.set_root(self._chosen(covariance))

    @torch.no_grad()
    def set_root(self, root: Float[Tensor, "R K"]) -> None:
        """Assign the mean of the variances of V = T Tᵀ over the varying features."""
        if len(root):
            self.stddev.copy_(root.square().sum(-1).mean().sqrt())

    def unit_basis(self, design: Float[Tensor, "P F"]) -> Float[Tensor, "R R"]:
        """One unit for all features."""
        columns = self._chosen_columns(design)
        return torch.diag((1.0 / root_mean_squares(columns.flatten()[:, None])).expand(columns.shape[1]))

    def unit_maps(self, basis: Float[Tensor, "R R"], scale: float) -> LinearMaps:
        """The deviation in a unit of its own."""
        return {self.stddev: lambda free: scale * basis.diagonal().mean() * free}


def starting_deviation(variance: float) -> float:
    """The root of a starting variance. Raises DataError unless it is positive and finite."""
    if not 0.0 < variance < math.inf:
        raise DataError(f"expected a positive variance, got {variance}")
    return math.sqrt(variance)


def _triangle(entries: Tensor, size: int) -> Tensor:
    rows, columns = torch.tril_indices(size, size, device=entries.device)
    return entries.new_zeros(size, size).index_put((rows, columns), entries)


def _entries(matrix: Tensor) -> Tensor:
    rows, columns = torch.tril_indices(*matrix.shape, device=matrix.device)
    return matrix[rows, columns]
