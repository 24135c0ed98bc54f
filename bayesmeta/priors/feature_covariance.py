"""V = L Lᵀ, the prior covariance over the F features of a last layer: full, diagonal, isotropic, or of some of them."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayesmeta.description import Described
from bayesmeta.errors import DataError
from bayesmeta.linalg import cholesky

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
        ...         self.log_scale = torch.nn.Parameter(torch.zeros(()))
        ...     def square_factor(self):
        ...         rank = torch.arange(1.0, len(self.varying) + 1)
        ...         return torch.diag(self.log_scale.exp() * rank.rsqrt())
        ...     def set_matrix(self, covariance):
        ...         self.log_scale.data.copy_(0.5 * covariance[0, 0].log())
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
        """The lower triangular factor over the R varying features."""

    @abstractmethod
    def set_matrix(self, covariance: Float[Tensor, "F F"]) -> None:
        """Assign V over the varying features, or what this type can hold of it (a diagonal type keeps the diagonal).

        Raises:
            InferenceError: V is not positive definite.
        """

    def _chosen(self, covariance: Tensor) -> Tensor:
        """The Cholesky factor of the varying part."""
        index = list(self.varying)
        return cholesky(covariance[index][:, index].double(), "prior covariance")

    def factor(self) -> Float[Tensor, "F R"]:
        """L: the square factor, with rows of zeros for the features that do not vary."""
        square = self.square_factor()
        if len(self.varying) == self.num_features and self.varying == tuple(range(self.num_features)):
            return square
        factor = square.new_zeros(self.num_features, len(self.varying))
        return factor.index_put((torch.tensor(self.varying, device=square.device, dtype=torch.long),), square)

    def matrix(self) -> Float[Tensor, "F F"]:
        """V = L Lᵀ."""
        factor = self.factor()
        return factor @ factor.mT


class FullCovariance(FeatureCovariance):
    """Any prior covariance over features: F (F + 1) / 2 numbers are learned.

    Args:
        num_features: F.
        variance: the starting variance of the weight of every feature, relative to the observation noise.
        varying: positions of the features whose weights differ between tasks; all by default.

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
        size = len(self.varying)
        self.log_diagonal = nn.Parameter(torch.full((size,), 0.5 * log_variance(variance)))
        self.below = nn.Parameter(torch.zeros(size * (size - 1) // 2))

    def square_factor(self) -> Float[Tensor, "R R"]:
        """The Cholesky factor: exp(log_diagonal) on the diagonal, free numbers times that of their row below it."""
        scale = self.log_diagonal.exp()
        unit = torch.eye(len(scale), dtype=scale.dtype, device=scale.device)
        rows, columns = torch.tril_indices(len(scale), len(scale), -1, device=scale.device)
        return scale[:, None] * unit.index_put((rows, columns), self.below)

    @torch.no_grad()
    def set_matrix(self, covariance: Float[Tensor, "F F"]) -> None:
        """Assign V over the varying features. Raises InferenceError where it is not positive definite."""
        factor = self._chosen(covariance)
        scale = factor.diagonal()
        self.log_diagonal.copy_(scale.log())
        rows, columns = torch.tril_indices(len(scale), len(scale), -1)
        self.below.copy_((factor / scale[:, None])[rows, columns])


class DiagonalCovariance(FeatureCovariance):
    """A diagonal prior covariance: the weights of features are independent, each with its own learned variance.

    Args:
        num_features: F.
        variance: the starting value of all variances, relative to the observation noise.
        varying: positions of the features that have a variance, the others having none; all by default.

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
        self.log_diagonal = nn.Parameter(torch.full((len(self.varying),), 0.5 * log_variance(variance)))

    def square_factor(self) -> Float[Tensor, "R R"]:
        """The diagonal matrix of the standard deviations."""
        return torch.diag(self.log_diagonal.exp())

    @torch.no_grad()
    def set_matrix(self, covariance: Float[Tensor, "F F"]) -> None:
        """Assign the variances of the varying features; correlations are dropped."""
        self.log_diagonal.copy_(0.5 * self._chosen(covariance).square().sum(-1).log())


class IsotropicCovariance(FeatureCovariance):
    """A prior covariance that is a multiple of the identity: the weights of all features have one learned variance.

    Args:
        num_features: F.
        variance: the starting variance, relative to the observation noise.
        varying: positions of the features whose weights differ between tasks; all by default.

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
        self.log_scale = nn.Parameter(torch.tensor(0.5 * log_variance(variance)))

    def square_factor(self) -> Float[Tensor, "R R"]:
        """The common standard deviation times the identity."""
        eye = torch.eye(len(self.varying), dtype=self.log_scale.dtype, device=self.log_scale.device)
        return self.log_scale.exp() * eye

    @torch.no_grad()
    def set_matrix(self, covariance: Float[Tensor, "F F"]) -> None:
        """Assign the mean of the variances of the varying features."""
        self.log_scale.copy_(0.5 * self._chosen(covariance).square().sum(-1).mean().log())


def log_variance(variance: float) -> float:
    """The logarithm of a starting variance. Raises DataError unless it is positive and finite."""
    if not 0.0 < variance < math.inf:
        raise DataError(f"expected a positive variance, got {variance}")
    return math.log(variance)
