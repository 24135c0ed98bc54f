"""An error that grows with what is measured."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal
from typing_extensions import override

from bayesmeta.likelihoods.likelihood import Likelihood
from bayesmeta.noise import Positive
from bayesmeta.outcomes import Numbers


class ProportionalGaussian(Likelihood):
    """y ~ N(f, a² + (b f)²): an error that grows with what is measured, beside one that is always there.

    It is the combined error model of pharmacokinetics and of assays (Beal and Sheiner 1982): a is the deviation of the
    noise where f is zero, b its share of a large f. Both are learned, for each output its own. Zero must mean zero: in
    standard units (`Standardized`) "proportional" would be to the distance from the mean.

    Args:
        num_outputs: C.
        initial_additive: the starting a, units of y.
        initial_proportional: the starting b, without unit: 0.1 is an error of 10 %.
        additive_bounds: the smallest and the largest a.
        proportional_bounds: the smallest and the largest b.

    Raises:
        DataError: bounds that are not positive and increasing, or a starting value outside of them.

    Example:
        >>> import bayesmeta as bm
        >>> likelihood = bm.likelihoods.ProportionalGaussian(initial_additive=0.3, initial_proportional=0.1)
        >>> f = torch.tensor([[[0.0], [4.0], [100.0]]])
        >>> likelihood(f).stddev.flatten().detach().round(decimals=2)  # 0.3, √(0.3² + 0.4²), and a tenth of 100
        tensor([ 0.3000,  0.5000, 10.0000])
        >>> bm.MAML(bm.MLP(1, [8]), likelihood=likelihood).adapt(bm.Data.from_arrays([0.0], [0.5]))
        posterior of 1 task after 1 point
    """

    known_noise = True

    def __init__(
        self,
        num_outputs: int = 1,
        initial_additive: float = 0.1,
        initial_proportional: float = 0.1,
        additive_bounds: tuple[float, float] = (1e-6, 1e6),
        proportional_bounds: tuple[float, float] = (1e-4, 10.0),
    ) -> None:
        super().__init__()
        self.outcomes, self.network_outputs = Numbers(num_outputs), num_outputs
        self.additive = Positive((num_outputs,), initial_additive, additive_bounds)
        self.proportional = Positive((num_outputs,), initial_proportional, proportional_bounds)

    def forward(self, f: Float[Tensor, "*b K"]) -> Distribution:
        """N(f, a² + (b f)²)."""
        return Independent(Normal(f, self._deviation(f), validate_args=False), 1)

    def marginal(self, mean: Float[Tensor, "*b K"], variance: Float[Tensor, "*b K"]) -> Distribution:
        """The Gaussian with the exact mean and variance of the mixture: Var y = Var f + a² + b² E f²."""
        noise = self.additive().square() + self.proportional().square() * (mean.square() + variance)
        return Independent(Normal(mean, (variance + noise).sqrt(), validate_args=False), 1)

    def curvature_root(self, f: Float[Tensor, "*b K"]) -> Float[Tensor, "*b K K"]:
        """Diagonal: R Rᵀ = 1 / v + v'² / (2 v²), with v = a² + (b f)² and v' = 2 b² f.

        The second term is what the size of a residual says of f, whatever its sign.
        """
        return self.noisy_curvature_root(f, torch.zeros_like(f))

    @override
    def noisy(self, f: Float[Tensor, "*b K"], noise: Float[Tensor, "*b C"]) -> Distribution:
        return Independent(Normal(f, torch.hypot(self._deviation(f), noise.sqrt()), validate_args=False), 1)

    @override
    def noisy_curvature_root(self, f: Float[Tensor, "*b K"], noise: Float[Tensor, "*b C"]) -> Float[Tensor, "*b K K"]:
        deviation = torch.hypot(self._deviation(f), noise.sqrt())
        return torch.diag_embed((1.0 + 2.0 * self.slope(f, deviation).square()).sqrt() / deviation).to(f.dtype)

    def slope(self, f: Float[Tensor, "*b K"], deviation: Float[Tensor, "*b K"]) -> Float[Tensor, "*b K"]:
        """How fast the deviation of the noise grows with f: b² f / √v, between -b and b.

        Args:
            f: network outputs.
            deviation: √v, of the noise at f, with what is known of it.
        """
        return self.proportional().square() * f / deviation

    def unit(self) -> Float[Tensor, ""]:
        """The geometric mean of a², squared units of y: the least that the variance can be."""
        return (2.0 * self.additive().log().mean()).exp()

    def _deviation(self, f: Tensor) -> Tensor:
        # hypot squares nothing that could overflow
        return torch.hypot(self.additive(), self.proportional() * f)
