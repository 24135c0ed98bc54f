"""Student's t over several outputs, and its log density in a form that is exact for any degrees of freedom."""

import math
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Chi2, Distribution, constraints

from bayesmeta.linalg import logdet, solve_lower

LOG_2PI = math.log(2.0 * math.pi)
STIRLING_FROM = 16.0  # where six terms of Stirling's series are exact to double precision


def log_gamma_ratio(a: Tensor, h: Tensor | float) -> Tensor:
    """log Γ(a + h) - log Γ(a) - h log a, elementwise: about h (h - 1) / 2a where a is large.

    There log Γ is large itself and its differences lose all digits, so that they are taken by Stirling's series.

    Args:
        a: at least 1/2.
        h: not negative.

    Example:
        >>> a = torch.tensor([4.0, 1e9], dtype=torch.float64)
        >>> log_gamma_ratio(a, 2.0).exp().tolist()  # Γ(a + 2) / (Γ(a) a²) = 1 + 1 / a
        [1.25, 1.000000001]
    """
    h = torch.as_tensor(h, dtype=a.dtype, device=a.device)
    direct = (a + h).lgamma() - a.lgamma() - h * a.log()
    series = (a + h - 0.5) * (h / a).log1p() - h + _stirling_rest(a + h) - _stirling_rest(a)
    return torch.where(a < STIRLING_FROM, direct, series)


def _stirling_rest(a: Tensor) -> Tensor:
    """log Γ(a) - (a - 1/2) log a + a - log(2 π) / 2."""
    r = 1.0 / a
    s = r * r
    return r * (1 / 12 - s * (1 / 360 - s * (1 / 1260 - s * (1 / 1680 - s * (1 / 1188 - s * 691 / 360360)))))


def log_student_t(
    shape: Tensor, rate: Tensor, count: Tensor | float, squares: Tensor, log_determinant: Tensor
) -> Tensor:
    """log ∫ N(r; 0, λ K) InvGamma(λ; shape, rate) dλ of n numbers r, in nats; everything elementwise.

        log Γ(a + n/2) - log Γ(a) - n/2 log(2π b) - ½ log|K| - (a + n/2) log(1 + q / 2b),   q = rᵀ K⁻¹ r

    It is the density of Student's t with 2a degrees of freedom and shape matrix (b / a) K, and for a = b → ∞ that of
    the Gaussian: no digits are lost on the way.

    Args:
        shape: a.
        rate: b.
        count: n.
        squares: q.
        log_determinant: log|K|.

    Example:
        >>> values = torch.tensor(1e12).double(), torch.tensor(1e12).double(), 1.0, torch.tensor(4.0).double()
        >>> round(log_student_t(*values, torch.zeros(()).double()).item(), 9)  # -½ (4 + log 2π)
        -2.918938533
    """
    half = 0.5 * count
    constant = log_gamma_ratio(shape, half) + half * (shape.log() - rate.log() - LOG_2PI)
    return constant - 0.5 * log_determinant - (shape + half) * (0.5 * squares / rate).log1p()


class MultivariateStudentT(Distribution):
    """y = loc + L z √(df / χ²), with z standard normal and χ² ~ Chi2(df) that all outputs share.

    torch has none. One output is `torch.distributions.StudentT`.

    Args:
        df: degrees of freedom, positive, `*b`.
        loc: the location, `*b C`.
        scale_tril: L, a lower triangular root of the shape matrix, `*b C C`; the covariance is df / (df - 2) L Lᵀ.

    Example:
        >>> joint = MultivariateStudentT(torch.tensor(3.0), torch.zeros(2), torch.eye(2))
        >>> one = torch.distributions.StudentT(torch.tensor(3.0))
        >>> far = torch.tensor([9.0, 9.0])  # the outputs share their scale: both are far out together
        >>> bool(joint.log_prob(far) > 2.0 * one.log_prob(far[0]))
        True
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "df": constraints.positive,
        "loc": constraints.real_vector,
        "scale_tril": constraints.lower_cholesky,
    }
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, df: Tensor, loc: Tensor, scale_tril: Tensor, validate_args: bool | None = None) -> None:
        batch = torch.broadcast_shapes(df.shape, loc.shape[:-1], scale_tril.shape[:-2])
        self.df = df.expand(batch)
        self.loc = loc.expand(*batch, loc.shape[-1])
        self.scale_tril = scale_tril.expand(*batch, *scale_tril.shape[-2:])
        super().__init__(batch, loc.shape[-1:], validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """The location; NaN where one degree of freedom or less leaves none."""
        return torch.where(self.df[..., None] > 1.0, self.loc, math.nan)

    @property
    def scale(self) -> Tensor:
        """The scale of each output's own Student's t: the root of the diagonal of L Lᵀ."""
        return self.scale_tril.square().sum(-1).sqrt()

    @property
    def variance(self) -> Tensor:
        """scale² df / (df - 2) of each output; infinite at 2 degrees of freedom and below."""
        df = self.df[..., None]
        return torch.where(df > 2.0, self.scale.square() * df / (df - 2.0), math.inf)

    def log_prob(self, value: Float[Tensor, "*s C"]) -> Tensor:
        """log p(y), in nats."""
        white = solve_lower(self.scale_tril, (value - self.loc)[..., None])[..., 0]
        half = 0.5 * self.df
        return log_student_t(half, half, float(self.event_shape[0]), white.square().sum(-1), logdet(self.scale_tril))

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draws, with gradients in all three parameters."""
        shape = torch.Size(sample_shape) + self.loc.shape
        normal = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        inverse = self.df / Chi2(self.df, validate_args=False).rsample(torch.Size(sample_shape))
        return self.loc + (self.scale_tril @ normal[..., None])[..., 0] * inverse.sqrt()[..., None]

    def expand(self, batch_shape: Any, _instance: Any = None) -> "MultivariateStudentT":
        """The same with leading axes."""
        batch = torch.Size(batch_shape)
        root = self.scale_tril.expand(batch + self.scale_tril.shape[-2:])
        return MultivariateStudentT(self.df.expand(batch), self.loc, root, validate_args=False)
