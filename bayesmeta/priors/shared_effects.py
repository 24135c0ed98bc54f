"""A prior of weights of which a part is shared by all tasks, and known as well as the training tasks have taught it."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayesmeta.distributions import common_normals
from bayesmeta.errors import DataError, ShapeError, UnsupportedError
from bayesmeta.linalg import cholesky, logdet, lower_root, solve_lower
from bayesmeta.noise import Noise
from bayesmeta.priors.feature_covariance import FeatureCovariance
from bayesmeta.priors.prior import LOG_2PI, Prior, value_of
from bayesmeta.torch_private import Unrounded
from bayesmeta.typing import Params


class SharedEffects(Unrounded, Prior):
    """W = [K_0 + B_t, levels]: weights of a task's own around a mean, and effects of the levels of every grouping.

        B_t ~ MN(0, V, Σ),   B_gl ~ MN(0, V_g, Σ) of level l of grouping g

    What training tasks have taught of K_0 and of the effects of known levels is one Gaussian for all (`shared_mean`,
    `shared_root`, whitened): at first K_0 is certain, and the effects are as the V_g say. The last block of each
    grouping is the effect of a level that is not known.

    Args:
        covariance: V, in units of the noise.
        shared: V_g of each grouping, over the same features, in units of the noise.
        levels: how many known levels each grouping has.
        noise: Σ.

    Raises:
        DataError: not as many `levels` as covariances of groupings.
        ShapeError: covariances over other features.

    Example:
        >>> import bayesmeta as bm
        >>> V = bm.priors.FullCovariance(2)
        >>> school = bm.priors.FullCovariance(2, varying=[0])
        >>> prior = bm.priors.SharedEffects(V, [school], [3], bm.noise.DiagonalNoise(1))
        >>> prior.mean["weight"].shape  # intercept and slope, three known schools and one that is not
        torch.Size([6, 1])
    """

    shared_mean: Tensor
    shared_root: Tensor

    def __init__(
        self, covariance: FeatureCovariance, shared: Sequence[FeatureCovariance], levels: Sequence[int], noise: Noise
    ) -> None:
        super().__init__()
        if len(shared) != len(levels):
            raise DataError(f"expected levels for each covariance of a grouping, got {len(levels)} for {len(shared)}")
        if any(each.num_features != covariance.num_features for each in shared):
            raise ShapeError(f"expected covariances over {covariance.num_features} features, as that of tasks is")
        self.covariance, self.shared, self.levels = covariance, nn.ModuleList(shared), tuple(levels)
        self.noise = noise
        size_f, size_q = covariance.num_features, self.num_shared
        self.location = nn.Parameter(torch.zeros(size_f, noise.num_outputs))
        self.register_buffer("shared_mean", torch.zeros(size_q, noise.num_outputs, dtype=torch.float64))
        known = torch.ones(size_f + size_q, dtype=torch.float64)
        known[:size_f] = 0.0  # K_0 is what it is
        self.register_buffer("shared_root", torch.diag(known))

    @property
    def groupings(self) -> list[FeatureCovariance]:
        """V_g of each grouping."""
        return [each for each in self.shared if isinstance(each, FeatureCovariance)]

    @property
    def num_shared(self) -> int:
        """Q, the number of effects of known levels."""
        return sum(count * len(each.varying) for count, each in zip(self.levels, self.groupings, strict=True))

    def full_location(self) -> Float[Tensor, "F C"]:
        """The prior mean of W, in float64: K_0, then level by level the effects as they are known."""
        parts, start = [self.location.double()], 0
        for count, each in zip(self.levels, self.groupings, strict=True):
            size = len(each.varying)
            mean = self.shared_mean[start : start + count * size].unflatten(0, (count, size))
            root = each.square_factor().double()
            parts += [(root @ mean).flatten(0, 1), root.new_zeros(size, mean.shape[-1])]
            start += count * size
        return torch.cat(parts)

    def full_factor(self) -> Float[Tensor, "F R"]:
        """A root of the prior covariance of W in units of the noise, in float64."""
        own = self.covariance.factor().double()
        size_f, columns = len(own), self.shared_root.shape[1]
        roots = [each.square_factor().double() for each in self.groupings]
        unknown = sum(len(root) for root in roots)
        rows = [torch.cat([own, self.shared_root[:size_f], own.new_zeros(size_f, unknown)], 1)]
        start, place = size_f, 0
        for count, root in zip(self.levels, roots, strict=True):
            size = len(root)
            known = root @ self.shared_root[start : start + count * size].unflatten(0, (count, size))
            rows.append(_placed(known.flatten(0, 1), own.shape[1], unknown))
            rows.append(_placed(root, own.shape[1] + columns + place, unknown - place - size))
            start, place = start + count * size, place + size
        return torch.cat(rows)

    @property
    def mean(self) -> Params:
        """The prior mean of W, `F C`."""
        return {"weight": self.full_location().to(self.location.dtype)}

    def log_prob(self, phi: Params) -> Float[Tensor, "*s B"]:
        """The matrix-normal log density, in nats.

        Raises:
            UnsupportedError: the covariance is singular, as where a feature does not vary between tasks.
        """
        location = self.full_location()
        difference = value_of(phi, "weight", location).double() - location
        factor = lower_root(self.full_factor())
        if not torch.compiler.is_compiling() and bool((factor.diagonal() == 0.0).any()):
            raise UnsupportedError(
                "a prior whose covariance is singular (a variance of zero, features that do not vary) has no density "
                "over all of W: use the closed form of the learner, which needs none"
            )
        noise = cholesky(self.noise.covariance().double(), "noise covariance")
        white = solve_lower(noise, solve_lower(factor, difference).mT)
        size_f, size_c = location.shape
        determinant = size_c * logdet(factor) + size_f * logdet(noise)
        return -0.5 * (white.square().sum((-1, -2)) + determinant + size_f * size_c * LOG_2PI)

    def sample(self, num_tasks: int, generator: torch.Generator | None = None) -> Params:
        """Draws of W; those of the shared effects are drawn for each task anew, as one task alone knows of them."""
        factor, noise = self.full_factor(), cholesky(self.noise.covariance().double(), "noise covariance")
        normal = common_normals((num_tasks, factor.shape[1], len(noise)), factor, generator)
        weight = self.full_location() + factor @ normal @ noise.mT
        return {"weight": weight.to(self.location.dtype)}


def _placed(block: Float[Tensor, "F R"], before: int, after: int) -> Float[Tensor, "F K"]:
    """A block of columns between zeros."""
    rows = len(block)
    return torch.cat([block.new_zeros(rows, before), block, block.new_zeros(rows, after)], 1)
