"""Integrals over an amplitude A ~ U(low, high) against exp(b A - ½ p A²): what a Gaussian likelihood leaves of it."""

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor

TAIL = 18.0  # nats below its maximum at which the integrand is cut: 6 deviations
FAR = 3.5  # erfc(3.5) = 7e-7 still has 9 digits as a difference of error functions
TINY = 1e-12  # smallest precision: below it the integrand is flat on any reasonable interval


def log_integral(linear: Tensor, precision: Tensor, bounds: tuple[float, float]) -> Tensor:
    """log ∫ exp(b A - ½ p A²) dA / (high - low), elementwise in b = `linear` and p = `precision` >= 0.

    The integrand is largest at m, the peak b / p or the end nearer to it. With α and β the distances of the two ends
    from the peak in deviations (α < 0 when the peak is inside), the integral is

        √(π/2p) exp(b m - ½ p m²) exp(½ max(α, 0)²) (erf(β/√2) - erf(α/√2)),

    where the last two factors are exp(½α²) erfc(α/√2) - exp(½(α² - β²)) exp(½β²) erfc(β/√2) for a large α.
    """
    low, high = bounds
    middle, half = 0.5 * (low + high), 0.5 * (high - low)
    precision = precision.clamp(min=TINY)
    root = (0.5 * precision).sqrt()  # distances below are in deviations / √2
    peak = linear / precision
    offset = (peak - middle).abs()
    near, far = (offset - half) * root, (offset + half) * root
    mode = peak.clamp(low, high)
    moderate = (torch.erf(far) - torch.erf(near)) * torch.exp(near.clamp(0.0, FAR).square())
    start = near.clamp(min=FAR)
    width = 2.0 * half * root
    stop = start + width
    # α² - β² = (α - β)(α + β): no difference of large numbers
    distant = _erfcx(start) - torch.exp(-width * (start + stop)) * _erfcx(stop)
    gap = torch.where(near < FAR, moderate, distant).clamp(min=1e-300)
    return mode * (linear - 0.5 * mode * precision) + (gap * (0.25 * math.sqrt(math.pi) / half) / root).log()


def _erfcx(x: Tensor) -> Tensor:
    """exp(x²) erfc(x) for x >= 3.5 by its continued fraction (Abramowitz & Stegun 7.1.14), to 9 digits."""
    fraction = x
    for k in range(8, 0, -1):
        fraction = x + 0.5 * k / fraction
    return 1.0 / (math.sqrt(math.pi) * fraction)


@cache
def _gauss_legendre(count: int) -> tuple[Tensor, Tensor]:
    points, weights = np.polynomial.legendre.leggauss(count)
    return torch.from_numpy(points), torch.from_numpy(np.log(weights))


def support(linear: Tensor, precision: Tensor, bounds: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """The part (lower, upper) of the interval outside which exp(b A - ½ p A²) is below exp(-18) of its maximum."""
    low, high = bounds
    precision = precision.clamp(min=TINY)
    peak = linear / precision
    mode = peak.clamp(low, high)
    # ½ p ((ℓ + d)² - d²) = TAIL, solved for the length ℓ without cancellation
    outside = (peak - mode).abs()
    length = 2.0 * TAIL / precision / ((outside.square() + 2.0 * TAIL / precision).sqrt() + outside)
    return (mode - length).clamp(min=low), (mode + length).clamp(max=high)


def nodes(linear: Tensor, precision: Tensor, bounds: tuple[float, float], count: int) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes of A and their normalised weights, each with a new last axis of length `count`."""
    points, log_weights = _gauss_legendre(count)
    lower, upper = support(linear, precision, bounds)
    amplitude = 0.5 * (lower + upper)[..., None] + 0.5 * (upper - lower)[..., None] * points
    height = amplitude * (linear[..., None] - 0.5 * amplitude * precision[..., None])
    return amplitude, (height + log_weights).softmax(-1)


def steps(linear: Tensor, precision: Tensor, bounds: tuple[float, float], count: int) -> tuple[Tensor, Tensor]:
    """Like `nodes`, in equal steps whose start is another fraction of a step for every entry of the last axis."""
    lower, upper = support(linear, precision, bounds)
    entry = torch.arange(linear.shape[-1], dtype=linear.dtype)[:, None]
    place = (torch.arange(count, dtype=linear.dtype) + (0.5 + entry * 0.6180339887498949) % 1.0) / count
    amplitude = lower[..., None] + (upper - lower)[..., None] * place
    return amplitude, (amplitude * (linear[..., None] - 0.5 * amplitude * precision[..., None])).softmax(-1)


def sample(linear: Tensor, precision: Tensor, bounds: tuple[float, float], generator: torch.Generator | None) -> Tensor:
    """One draw of A for each entry, by inverting its distribution function on 256 equal steps."""
    lower, upper = support(linear, precision, bounds)
    steps = (torch.arange(256, dtype=linear.dtype) + 0.5) / 256.0
    amplitude = lower[..., None] + (upper - lower)[..., None] * steps
    weights = (amplitude * (linear[..., None] - 0.5 * amplitude * precision[..., None])).softmax(-1)
    chosen = torch.multinomial(weights.flatten(0, -2), 1, generator=generator).reshape(linear.shape)
    place = (chosen + torch.rand(linear.shape, dtype=linear.dtype, generator=generator)) / 256.0
    return lower + (upper - lower) * place
