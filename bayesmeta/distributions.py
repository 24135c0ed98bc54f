"""What torch's distributions leave out: distribution functions, quantiles, and changes of shape, place and scale."""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.distributions import (
    AffineTransform,
    Categorical,
    Distribution,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    StudentT,
    TransformedDistribution,
)

from bayesmeta.count_distributions import NegativeBinomialCounts, PoissonCounts, is_of_counts, smallest_count
from bayesmeta.errors import UnsupportedError
from bayesmeta.left_censored import LeftCensored
from bayesmeta.linalg import cholesky
from bayesmeta.multivariate_student_t import MultivariateStudentT
from bayesmeta.smoothed_student_t import SmoothedStudentT

_one_at_a_time = threading.RLock()
SOBOL_POINTS = 128


@contextlib.contextmanager
def seeded(generator: torch.Generator | None) -> Iterator[None]:
    """torch's distributions take no generator: fork the global one, seeded from `generator`, and put it back.

    One thread at a time, as all threads share the global one.
    """
    if generator is None:
        yield
        return
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    with _one_at_a_time, torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def common_normals(shape: Sequence[int], like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard normal numbers in the precision and on the device of `like`: the same ones for every precision.

    They are drawn in float64 and rounded, so that a computation in float32 sees the numbers of the one in float64.

    Args:
        shape: of the result.
        like: says precision and device.
        generator: on that device; the global one when None.

    Example:
        >>> draw = lambda like: common_normals((3,), like, torch.Generator().manual_seed(0))
        >>> bool((draw(torch.zeros((), dtype=torch.float64)).float() == draw(torch.zeros(()))).all())
        True
    """
    normals = torch.randn(tuple(shape), dtype=torch.float64, device=like.device, generator=generator)
    return normals.to(like.dtype)


def contrasts(size: int) -> Tensor:
    """An orthonormal basis of what differs between `size` numbers, `size x (size - 1)`: each column sums to zero.

    Helmert's: the k-th number against the mean of those before it.

    Example:
        >>> contrasts(2).flatten()
        tensor([ 0.7071, -0.7071], dtype=torch.float64)
    """
    k = torch.arange(1, size, dtype=torch.float64, device="cpu")
    ones = torch.ones(size - 1, size, dtype=torch.float64, device="cpu")
    columns = torch.tril(ones) - torch.diag_embed(k, 1)[: size - 1]
    return (columns / (k * (k + 1.0)).sqrt()[:, None]).mT


@functools.lru_cache(maxsize=64)
def normal_nodes(dimension: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points z and weights w with Σ w g(z) ≈ E g(N(0, I)): the same ones always, as numpy has no modes and devices.

    In one dimension Gauss-Hermite quadrature of 32 nodes. In more the first 128 points of Sobol's sequence and their
    negatives, of equal weights, scaled so that means and covariances are exact (up to 127 dimensions).

    Args:
        dimension: of the points.

    Returns:
        points, `S dimension`, and weights, `S`.

    Example:
        >>> nodes, weights = normal_nodes(3)
        >>> nodes.shape, float((weights * nodes[:, 0] ** 2).sum().round(6))
        ((256, 3), 1.0)
    """
    if dimension == 1:
        nodes, weights = np.polynomial.hermite_e.hermegauss(32)
        return nodes[:, None], weights / weights.sum()
    from scipy.special import ndtri
    from scipy.stats.qmc import Sobol

    uniform = Sobol(dimension, scramble=False).random(SOBOL_POINTS) + 0.5 / SOBOL_POINTS
    half = ndtri(uniform)
    if dimension < SOBOL_POINTS:
        half = np.linalg.solve(np.linalg.cholesky(half.T @ half / SOBOL_POINTS), half.T).T
    return np.concatenate([half, -half]), np.full(2 * SOBOL_POINTS, 0.5 / SOBOL_POINTS)


def univariate(distribution: Distribution) -> Distribution:
    """Each output on its own: a distribution of batch shape (B, M, C)."""
    if isinstance(distribution, Independent):
        return distribution.base_dist
    if isinstance(distribution, MultivariateNormal):
        return Normal(distribution.mean, distribution.variance.sqrt(), validate_args=False)
    if isinstance(distribution, MultivariateStudentT):
        return StudentT(distribution.df[..., None], distribution.loc, distribution.scale, validate_args=False)
    if isinstance(distribution, MixtureSameFamily) and isinstance(distribution.component_distribution, Independent):
        # batch (B, M, S) event (C,) -> batch (B, M, C, S)
        components = map_parameters(distribution.component_distribution.base_dist, lambda v: v.mT)
        logits = distribution.mixture_distribution.logits[..., None, :].expand(components.batch_shape)
        return MixtureSameFamily(Categorical(logits=logits, validate_args=False), components, validate_args=False)
    return distribution


def cdf(distribution: Distribution, y: Tensor) -> Tensor:
    """P(Y <= y), elementwise; also for Student's t, which torch leaves out, and for mixtures of what there is."""
    if isinstance(distribution, StudentT):  # torch has none
        t = _scipys_t()
        loc, scale, df = (p.detach().cpu().numpy() for p in (distribution.loc, distribution.scale, distribution.df))
        return torch.as_tensor(t.cdf(y.detach().cpu().numpy(), df, loc, scale), dtype=y.dtype, device=y.device)
    if isinstance(distribution, MixtureSameFamily):
        weights = distribution.mixture_distribution.probs
        return (weights * cdf(distribution.component_distribution, y[..., None].expand(weights.shape))).sum(-1)
    return answered(distribution, lambda: distribution.cdf(y), "cdf")


def _scipys_t() -> Any:
    """Student's t of scipy, which an installation without dependencies may lack."""
    try:
        from scipy.stats import t
    except ImportError as error:
        raise UnsupportedError(
            "expected scipy for quantiles and probabilities of Student's t, got none: pip install scipy"
        ) from error
    return t


def answered(distribution: Distribution, question: Callable[[], Tensor], method: str) -> Tensor:
    """The answer of a distribution that somebody else may have written.

    Raises:
        UnsupportedError: it lacks the method.
    """
    try:
        return question()
    except (NotImplementedError, AttributeError) as error:
        if isinstance(error, UnsupportedError):
            raise
        name = type(distribution.base_dist if isinstance(distribution, Independent) else distribution).__name__
        raise UnsupportedError(
            f"expected a distribution with {method}, got {name} without it: write a subclass that has {method}, and "
            "let the likelihood return that"
        ) from error


def quantile(distribution: Distribution, q: float) -> Tensor:
    """The y with P(Y <= y) = q, elementwise; of counts the smallest y with P(Y <= y) >= q.

    Raises:
        UnsupportedError: for other families than these.
    """
    if is_of_counts(distribution):
        return smallest_count(lambda y: cdf(distribution, y), distribution.mean, distribution.variance, q)
    if isinstance(distribution, Normal):
        return distribution.icdf(torch.full_like(distribution.loc, q))
    if isinstance(distribution, LeftCensored):
        return distribution.icdf(torch.full_like(distribution.normal.loc, q))
    if isinstance(distribution, StudentT):  # torch has none
        t, loc, df = _scipys_t(), distribution.loc, distribution.df.detach().cpu().numpy()
        return loc + distribution.scale * torch.as_tensor(t.ppf(q, df), dtype=loc.dtype, device=loc.device)
    if isinstance(distribution, SmoothedStudentT):
        below = _lower_quantile(distribution, min(q, 1.0 - q))  # where the distribution function is precise
        return below if q <= 0.5 else 2.0 * distribution.loc - below
    if isinstance(distribution, MixtureSameFamily):
        each = quantile(distribution.component_distribution, q)
        return bisect(lambda y: cdf(distribution, y), each.amin(-1), each.amax(-1), q)
    raise UnsupportedError(f"expected Normal, StudentT or mixtures of them, got {type(distribution)}")


def _lower_quantile(distribution: SmoothedStudentT, q: float) -> Tensor:
    """The q-quantile, q <= 0.5: no sum is below q that has neither part below its q / 2, and none of two zeros is."""
    df, loc, scale = distribution.df, distribution.loc, distribution.scale
    heavy = quantile(StudentT(df, torch.zeros_like(loc), scale, validate_args=False), 0.5 * q)
    light = distribution.smoothing.sqrt() * torch.special.ndtri(torch.full_like(loc, 0.5 * q))
    return bisect(lambda y: cdf(distribution, y), loc + heavy + light, loc, q)


def bisect(function: Callable[[Tensor], Tensor], lower: Tensor, upper: Tensor, q: float) -> Tensor:
    """Solve function(y) = q, increasing in y, for each entry between `lower` and `upper`."""
    for _ in range(60):
        middle = 0.5 * (lower + upper)
        below = function(middle) < q
        lower, upper = torch.where(below, middle, lower), torch.where(below, upper, middle)
    return 0.5 * (lower + upper)


def map_parameters(distribution: Distribution, change: Callable[[Tensor], Tensor]) -> Distribution:
    """The same distribution with `change` applied to each of its parameters."""
    if isinstance(distribution, Independent):
        return Independent(map_parameters(distribution.base_dist, change), 1)
    if isinstance(distribution, Normal):
        return Normal(change(distribution.loc), change(distribution.scale), validate_args=False)
    if isinstance(distribution, StudentT):
        df, loc, scale = (change(p) for p in (distribution.df, distribution.loc, distribution.scale))
        return StudentT(df, loc, scale, validate_args=False)
    if isinstance(distribution, LeftCensored):
        normal = Normal(change(distribution.normal.loc), change(distribution.normal.scale), validate_args=False)
        limit = change(distribution.limit.to(normal.loc).expand(distribution.normal.loc.shape))
        return LeftCensored(normal, limit, validate_args=False)
    if isinstance(distribution, SmoothedStudentT):
        df, loc, scale = (change(p) for p in (distribution.df, distribution.loc, distribution.scale))
        return SmoothedStudentT(df, loc, scale, change(distribution.smoothing), validate_args=False)
    if isinstance(distribution, MultivariateNormal):
        factor = change(distribution.scale_tril)
        return MultivariateNormal(change(distribution.loc), scale_tril=factor, validate_args=False)
    if isinstance(distribution, MultivariateStudentT):
        df, loc, factor = (change(p) for p in (distribution.df, distribution.loc, distribution.scale_tril))
        return MultivariateStudentT(df, loc, factor, validate_args=False)
    if isinstance(distribution, PoissonCounts):
        return PoissonCounts(change(distribution.rate), validate_args=False)
    if isinstance(distribution, NegativeBinomialCounts):
        count, logits = change(distribution.total_count), change(distribution.logits)
        return NegativeBinomialCounts(count, logits=logits, validate_args=False)
    known = "Normal, StudentT, MultivariateNormal or MultivariateStudentT"
    raise UnsupportedError(f"expected {known} components, got {type(distribution)}")


def stack(distributions: Sequence[Distribution], dim: int) -> Distribution:
    """One distribution with a new batch axis, of several of one family. Raises UnsupportedError for other families."""
    parameters: list[list[Tensor]] = []
    families = sorted({_family(distribution) for distribution in distributions})
    if len(families) > 1:
        raise UnsupportedError(f"expected distributions of one family, got {', '.join(families)}")
    for distribution in distributions:
        own: list[Tensor] = []
        map_parameters(distribution, lambda v, own=own: own.append(v) or v)  # type: ignore[misc]
        parameters.append(own)
    stacked = iter([torch.stack(values, dim) for values in zip(*parameters, strict=True)])
    return map_parameters(distributions[0], lambda v: next(stacked))


def _family(distribution: Distribution) -> str:
    return type(distribution.base_dist if isinstance(distribution, Independent) else distribution).__name__


def noisier(distribution: Distribution, variance: Tensor) -> Distribution:
    """The distribution of y + e, with e ~ N(0, diag(variance)) independent of y, for a Gaussian y (censored or not).

    Args:
        distribution: of y.
        variance: of each number.

    Raises:
        UnsupportedError: for other families, whose sum with a Gaussian is not of torch's.

    Example:
        >>> noisier(Normal(torch.tensor(1.0), 3.0), torch.tensor(16.0)).stddev
        tensor(5.)
    """
    if isinstance(distribution, Independent):
        return Independent(noisier(distribution.base_dist, variance), 1)
    if isinstance(distribution, Normal):
        return Normal(distribution.loc, (distribution.scale.square() + variance).sqrt(), validate_args=False)
    if isinstance(distribution, LeftCensored):  # what is censored is the sum
        normal = noisier(distribution.normal, variance)
        assert isinstance(normal, Normal)
        return LeftCensored(normal, distribution.limit, validate_args=False)
    if isinstance(distribution, MultivariateNormal):
        factor = cholesky(distribution.covariance_matrix + torch.diag_embed(variance), "covariance with known noise")
        return MultivariateNormal(distribution.loc, scale_tril=factor, validate_args=False)
    raise UnsupportedError(f"expected a Gaussian to add known noise (yerr) to, got {_family(distribution)}")


def affine(distribution: Distribution, shift: Tensor, scale: Tensor) -> Distribution:
    """The distribution of shift + scale * y, with a mean and variance where the base has them."""
    if isinstance(distribution, Independent):
        return Independent(affine(distribution.base_dist, shift, scale), 1)
    if isinstance(distribution, Normal):
        return Normal(shift + scale * distribution.loc, scale * distribution.scale, validate_args=False)
    if isinstance(distribution, StudentT):
        loc = shift + scale * distribution.loc
        return StudentT(distribution.df, loc, scale * distribution.scale, validate_args=False)
    if isinstance(distribution, LeftCensored):  # scales are positive: what is below stays below
        normal = Normal(shift + scale * distribution.normal.loc, scale * distribution.normal.scale, validate_args=False)
        return LeftCensored(normal, shift + scale * distribution.limit, validate_args=False)
    if isinstance(distribution, SmoothedStudentT):
        loc, smoothing = shift + scale * distribution.loc, scale.square() * distribution.smoothing
        return SmoothedStudentT(distribution.df, loc, scale * distribution.scale, smoothing, validate_args=False)
    if isinstance(distribution, MultivariateNormal):
        factor = scale[..., None] * distribution.scale_tril
        return MultivariateNormal(shift + scale * distribution.loc, scale_tril=factor, validate_args=False)
    if isinstance(distribution, MultivariateStudentT):
        factor = scale[..., :, None] * distribution.scale_tril
        return MultivariateStudentT(distribution.df, shift + scale * distribution.loc, factor, validate_args=False)
    if isinstance(distribution, MixtureSameFamily):
        if not distribution.event_shape:  # each output has its own mixture: components are the last axis
            shift, scale = shift[..., None], scale[..., None]
        components = affine(distribution.component_distribution, shift, scale)
        return MixtureSameFamily(distribution.mixture_distribution, components, validate_args=False)
    transform = AffineTransform(shift, scale, event_dim=len(distribution.event_shape))
    return TransformedDistribution(distribution, [transform], validate_args=False)
