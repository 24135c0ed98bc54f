"""Arms that pay 1 or nothing."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Beta
from typing_extensions import override

from bayesmeta.distributions import seeded
from bayesmeta.outcomes import Labels
from bayesmeta.tasks.bandits.bandit import Bandits
from bayesmeta.tasks.oracles.beta_bernoulli import BetaBernoulliOracle


class BernoulliBandits(Bandits):
    """Bandits whose arms pay 1 with a probability of their own, and 0 otherwise.

    phi = (p_1..p_K),  p_k ~ Beta(alpha, beta);  x = the k-th unit vector;  y ~ Bernoulli(p_k), a label.

    With the default prior, U(0, 1), these are the bandits of Duan et al. 2016 and Mishra et al. 2018 (SNAIL).

    Args:
        num_arms: K.
        alpha: of the prior: as many wins as it counts for.
        beta: as many losses.

    Raises:
        DataError: fewer than 2 arms; alpha or beta that is not positive.

    Example:
        >>> import bayesmeta as bm
        >>> bandits = bm.tasks.BernoulliBandits(2, alpha=1.0, beta=3.0)
        >>> log = bandits.dataset(1, 6, seed=1).data
        >>> log.x[0].argmax(-1).tolist(), log.y[0].tolist()
        ([0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0])
        >>> [round(p, 3) for p in bandits.oracle.adapt(log).predict(torch.eye(2)).probs[0, :, 1].tolist()]
        [0.167, 0.125]
    """

    outcomes = Labels(2)
    oracle: BetaBernoulliOracle

    def __init__(self, num_arms: int = 5, alpha: float = 1.0, beta: float = 1.0) -> None:
        super().__init__(num_arms)
        self.alpha, self.beta = alpha, beta
        self.oracle = BetaBernoulliOracle(self.num_arms, alpha, beta)

    @override
    def phi(self, num_bandits: int, generator: torch.Generator) -> Float[Tensor, "B K"]:
        with seeded(generator):
            return Beta(self.alpha, self.beta).sample((num_bandits, self.num_arms))

    @override
    def options(self, num_bandits: int, generator: torch.Generator) -> Float[Tensor, "B K K"]:
        return torch.eye(self.num_arms, dtype=torch.float32).expand(num_bandits, -1, -1)

    @override
    def expected(self, phi: Float[Tensor, "B K"], options: Float[Tensor, "B M K"]) -> Float[Tensor, "B M"]:
        return (options @ phi[..., None])[..., 0]

    @override
    def rewards(self, expected: Float[Tensor, "B M"], generator: torch.Generator) -> Float[Tensor, "B M"]:
        return (torch.rand(expected.shape, dtype=torch.float32, generator=generator) < expected).float()
