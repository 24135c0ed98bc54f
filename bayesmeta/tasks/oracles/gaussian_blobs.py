"""The Bayes classifier of classes that are Gaussian clouds."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Categorical
from typing_extensions import override

from bayesmeta.data import Data
from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.outcomes import Labels
from bayesmeta.predictives import IndependentPredictive
from bayesmeta.tasks.oracles.oracle import Oracle, OraclePosterior


class GaussianBlobsOracle(Oracle):
    """The Bayes classifier of `GaussianBlobs`: the class means are integrated out.

    m_c | D ~ N(μ_c, v_c I),  1/v_c = 1/spread² + n_c/noise²,  μ_c = v_c Σ x / noise²  over the n_c points of class c;
    p(y = c | x, D) ∝ N(x; μ_c, (v_c + noise²) I),  also for a class without points (μ_c = 0, v_c = spread²).

    Each query point is predicted given the support alone. That is exact point by point; jointly, other query points
    without labels would say something too, by a sum over all their labelings, and are left out.

    Args:
        ways: C.
        dimension: D.
        spread_variance: spread².
        noise_variance: noise², positive.

    Raises:
        DataError: noise that is not positive.
    """

    def __init__(self, ways: int, dimension: int, spread_variance: float, noise_variance: float) -> None:
        super().__init__()
        if not noise_variance > 0.0:
            raise DataError(f"expected a positive noise variance, got {noise_variance}")
        self.ways, self.x_shape, self.outcomes = ways, (dimension,), Labels(ways)
        self.spread_variance, self.noise_variance = spread_variance, noise_variance

    def condition(self, data: Data) -> "GaussianBlobsPosterior":
        """Mean and variance of every class mean. Raises DataError for labels that are not from 0 to C - 1."""
        real = data.y[data.mask]
        if bool(((real < 0) | (real >= self.ways)).any()):
            raise DataError(f"expected labels from 0 to {self.ways - 1}, got {int(real.min())} to {int(real.max())}")
        member = (data.y[..., None] == torch.arange(self.ways, device=data.y.device)) & data.mask[..., None]  # B N C
        member = member.to(data.x.dtype)
        # v = 1 / (1/s² + n/σ²), in a form that holds for s = 0
        variance = self.spread_variance / (1.0 + member.sum(1) * (self.spread_variance / self.noise_variance))
        mean = variance[..., None] * (member.mT @ data.x) / self.noise_variance
        return GaussianBlobsPosterior(spec=data.spec, learner=self, support=data, mean=mean, variance=variance)

    def evidence(self, data: Data) -> Float[Tensor, "B"]:
        """Raises UnsupportedError: log p(y | x) needs p(x), a sum over all labelings."""
        raise UnsupportedError("expected an outcome given x to have a density in closed form, got a sum over labelings")


@dataclass(frozen=True, eq=False, kw_only=True)
class GaussianBlobsPosterior(OraclePosterior):
    """p(m | D).

    Attributes:
        mean: μ_c, `B C D`.
        variance: v_c, `B C`.
    """

    learner: GaussianBlobsOracle
    mean: Float[Tensor, "B C D"]
    variance: Float[Tensor, "B C"]

    @override
    def at(self, x: Float[Tensor, "B M D"]) -> IndependentPredictive:
        total = (self.variance + self.learner.noise_variance)[:, None]  # B 1 C
        distance = (x.double()[:, :, None] - self.mean[:, None]).square().sum(-1)  # B M C
        logits = -0.5 * (distance / total + x.shape[-1] * total.log())
        return IndependentPredictive(Categorical(logits=logits, validate_args=False))
