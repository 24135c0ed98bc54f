"""Have the chains converged, and what are their draws worth? For arrays of many numbers at once.

Gelman et al. 2013, Bayesian Data Analysis, 3rd ed., sections 11.4 and 11.5; Geyer 1992 for where autocorrelations are
cut off. ArviZ has rank-normalised versions of both (`to_arviz`, then `arviz.summary`).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def split_r_hat(draws: Float[Tensor, "chains S *n"]) -> Float[Tensor, "*n"]:
    """Split R-hat, the potential scale reduction factor of each number (Gelman et al. 2013, section 11.4).

    √(estimate of the variance from all half chains together / mean variance within them). It is near 1 where the
    chains agree; above 1.01 to 1.05 they have not converged.

    Args:
        draws: after the warm-up, at least 4 of each chain.

    Example:
        >>> draws = torch.randn(4, 100, generator=torch.Generator().manual_seed(0))
        >>> bool(split_r_hat(draws) < 1.05), bool(split_r_hat(draws + torch.arange(4.0)[:, None]) > 1.5)
        (True, True)
    """
    halves = _halves(draws)
    within, total = _variances(halves)
    return (total / within).sqrt()


def effective_draws(draws: Float[Tensor, "chains S *n"]) -> Float[Tensor, "*n"]:
    """The effective sample size of each number: how many independent draws give its mean as small an error.

    chains S / (1 + 2 Σ_t ρ_t), with the sum of autocorrelations ρ over Geyer's initial monotone sequence of pairs. The
    Monte Carlo error of the mean is the posterior deviation over the root of it. Chains that swing can be worth more
    than as many independent draws.

    Args:
        draws: after the warm-up, at least 4 of each chain.

    Example:
        >>> draws = torch.randn(4, 200, generator=torch.Generator().manual_seed(0))
        >>> bool(effective_draws(draws) > 600.0)  # 800 draws that are independent
        True
        >>> bool(effective_draws(draws.cumsum(1)) < 60.0)  # a random walk
        True
    """
    halves = _halves(draws)
    chains, count = halves.shape[:2]
    within, total = _variances(halves)
    centred = halves - halves.mean(1, keepdim=True)
    spectrum = torch.fft.rfft(centred, 2 * count, dim=1)
    products = torch.fft.irfft(spectrum * spectrum.conj(), 2 * count, dim=1)[:, :count]
    covariance = products.mean(0) / count  # biased, as Geyer's argument has it
    correlation = 1.0 - (within - covariance) / total  # Vehtari et al. 2021 (arXiv:1903.08008), eq. 10
    correlation[0] = 1.0
    pairs = correlation[: count - count % 2].unflatten(0, (-1, 2)).sum(1)
    positive = (pairs > 0.0).cumprod(0)
    monotone = (pairs * positive).cummin(0).values
    time = (2.0 * monotone.sum(0) - 1.0).clamp(min=1.0 / math.log10(chains * count))
    return chains * count / time


def _halves(draws: Tensor) -> Tensor:
    """`2 chains, S / 2, ..`: a drift within a chain is then a difference between two."""
    half = draws.shape[1] // 2
    return torch.cat([draws[:, :half], draws[:, -half:]])


def _variances(halves: Tensor) -> tuple[Tensor, Tensor]:
    """The mean variance within chains, and the estimate of the variance from all."""
    count = halves.shape[1]
    within = halves.var(1).mean(0)
    return within, (count - 1) / count * within + halves.mean(1).var(0)
