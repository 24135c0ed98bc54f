"""Rewards that are linear in what the arms are known by: linear contextual bandits, and Gaussian arms."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from bayesmeta.arguments import whole
from bayesmeta.errors import DataError
from bayesmeta.outcomes import Numbers
from bayesmeta.tasks.bandits.bandit import Bandits
from bayesmeta.tasks.oracles.linear_rewards import LinearRewardsOracle
from bayesmeta.tasks.simulators.simulator import nonnegative


class LinearBandits(Bandits):
    """Linear contextual bandits: at every step each arm has features of its own, and all arms share the weights.

    phi = w ~ N(mean, covariance);  x_k ~ N(0, I), anew at each step;  y = wᵀ x_k + N(0, noise²).

    Agrawal & Goyal 2013 (Thompson sampling for contextual bandits with linear payoffs), with Gaussian contexts. Arms
    that have weights of their own are a case of it: their features are the context in a block of the arm's, and 0
    elsewhere.

    Args:
        num_arms: K.
        mean: of the weights, D numbers.
        covariance: of the weights, `D D`; the identity by default.
        noise: standard deviation of a reward, positive.

    Raises:
        DataError: fewer than 2 arms, noise that is not positive, or a covariance that is not of D weights, symmetric
            and positive definite.

    Example:
        >>> import bayesmeta as bm
        >>> bandits = bm.tasks.LinearBandits(num_arms=4, mean=[1.0, 0.0, 0.0], noise=0.5)
        >>> learner = bm.ALPaCA(bm.Identity(3))
        >>> _ = bm.fit_evidence(learner, bandits.dataset(100, 10))  # logs of other bandits
        >>> for posterior in (learner.adapt(bandits.nothing(500)), bandits.oracle.adapt(bandits.nothing(500))):
        ...     print(bm.tasks.play(bandits, bm.tasks.Thompson(posterior), num_bandits=500, steps=20))
        Play(500 bandits, 20 steps: mean reward 33.2, mean regret 4.3)
        Play(500 bandits, 20 steps: mean reward 33.2, mean regret 4.3)
    """

    outcomes = Numbers(1)
    oracle: LinearRewardsOracle

    def __init__(
        self,
        num_arms: int = 5,
        mean: Sequence[float] = (0.0, 0.0, 0.0, 0.0),
        covariance: Sequence[Sequence[float]] | None = None,
        noise: float = 1.0,
    ) -> None:
        super().__init__(num_arms)
        self.noise = nonnegative(noise, "the noise deviation")
        if covariance is None:
            covariance = torch.eye(len(mean)).tolist()
        self.oracle = LinearRewardsOracle(mean, covariance, self.noise**2)

    @property
    def num_weights(self) -> int:
        """D."""
        return len(self.oracle.mean)

    @override
    def phi(self, num_bandits: int, generator: torch.Generator) -> Float[Tensor, "B D"]:
        normal = torch.randn(num_bandits, self.num_weights, dtype=torch.float64, generator=generator)
        mean, root = (
            torch.tensor(self.oracle.mean, dtype=torch.float64),
            torch.tensor(self.oracle.root, dtype=torch.float64),
        )
        return (mean + normal @ root.mT).float()

    @override
    def options(self, num_bandits: int, generator: torch.Generator) -> Float[Tensor, "B K D"]:
        return torch.randn(num_bandits, self.num_arms, self.num_weights, dtype=torch.float32, generator=generator)

    @override
    def expected(self, phi: Float[Tensor, "B D"], options: Float[Tensor, "B M D"]) -> Float[Tensor, "B M"]:
        return (options @ phi[..., None])[..., 0]

    @override
    def rewards(self, expected: Float[Tensor, "B M"], generator: torch.Generator) -> Float[Tensor, "B M"]:
        return expected + self.noise * torch.randn(expected.shape, dtype=torch.float32, generator=generator)


class GaussianBandits(LinearBandits):
    """Bandits whose arms have means of their own, and rewards that scatter around them.

    phi = (m_1..m_K),  m_k ~ N(mean, spread²);  x = the k-th unit vector;  y ~ N(m_k, noise²).

    Args:
        num_arms: K.
        mean: of the means.
        spread: standard deviation of the means, positive.
        noise: standard deviation of a reward, positive.

    Raises:
        DataError: fewer than 2 arms; a deviation that is not positive.

    Example:
        >>> import bayesmeta as bm
        >>> bandits = bm.tasks.GaussianBandits(3, mean=10.0, spread=2.0)
        >>> posterior = bandits.oracle.adapt(bm.Data.from_arrays([[1.0, 0.0, 0.0]], [15.0]))
        >>> posterior.predict(torch.eye(3)[None]).mean.flatten().tolist()  # 4/5 of the way for the arm that was pulled
        [14.0, 10.0, 10.0]
    """

    def __init__(self, num_arms: int = 5, mean: float = 0.0, spread: float = 1.0, noise: float = 1.0) -> None:
        num_arms = whole(num_arms, "num_arms", least=2)
        if not spread > 0.0:
            raise DataError(f"expected a positive spread, got {spread}")
        covariance = (float(spread) ** 2 * torch.eye(num_arms, dtype=torch.float64)).tolist()
        super().__init__(num_arms, (float(mean),) * num_arms, covariance, noise)

    @override
    def options(self, num_bandits: int, generator: torch.Generator) -> Float[Tensor, "B K K"]:
        return torch.eye(self.num_arms, dtype=torch.float32).expand(num_bandits, -1, -1)
