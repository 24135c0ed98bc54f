"""Wins and losses of each arm: the exact posterior of Bernoulli bandits."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.distributions import Beta, Categorical
from typing_extensions import override

from bayesmeta.arguments import whole
from bayesmeta.data import Data
from bayesmeta.distributions import seeded
from bayesmeta.errors import DataError
from bayesmeta.learner import TaskPosterior
from bayesmeta.outcomes import Labels
from bayesmeta.predictives import IndependentPredictive
from bayesmeta.tasks.oracles.oracle import Oracle
from bayesmeta.typing import Params


class BetaBernoulliOracle(Oracle):
    """The Bayes-optimal learner of `BernoulliBandits`: p_k | D ~ Beta(alpha + wins of k, beta + losses of k).

    An input is the unit vector of an arm. Query points are predicted each on its own.

    Args:
        num_arms: K.
        alpha: of the prior.
        beta: of the prior.

    Raises:
        DataError: alpha or beta that is not positive.

    Example:
        >>> import bayesmeta as bm
        >>> oracle = bm.tasks.BernoulliBandits(2).oracle
        >>> posterior = oracle.adapt(bm.Data.from_labels([[1.0, 0.0], [1.0, 0.0]], [1, 1]))
        >>> posterior.predict([[1.0, 0.0], [0.0, 1.0]]).probs[0, :, 1].tolist()  # two wins of the first arm
        [0.75, 0.5]
        >>> posterior.sample(100)["probability"].shape
        torch.Size([100, 1, 2])
    """

    def __init__(self, num_arms: int, alpha: float = 1.0, beta: float = 1.0) -> None:
        super().__init__()
        if not (0.0 < alpha < float("inf") and 0.0 < beta < float("inf")):
            raise DataError(f"expected alpha and beta to be positive, got {alpha} and {beta}")
        self.num_arms, self.alpha, self.beta = num_arms, float(alpha), float(beta)
        self.x_shape, self.outcomes = (num_arms,), Labels(2)

    @override
    def condition(self, support: Data) -> "BetaBernoulliPosterior":
        zero = support.x.new_zeros(support.num_tasks, self.num_arms)
        return BetaBernoulliPosterior(spec=support.spec, learner=self, wins=zero, losses=zero).extended(support)

    @override
    def evidence(self, data: Data) -> Float[Tensor, "B"]:
        posterior = self.condition(data)
        a, b = posterior.parameters()
        each = log_beta(a, b) - log_beta(torch.full_like(a, self.alpha), torch.full_like(b, self.beta))
        return each.sum(-1)


@dataclass(frozen=True, eq=False, kw_only=True)
class BetaBernoulliPosterior(TaskPosterior):
    """Independent beta distributions of the arms.

    Attributes:
        learner: knows the prior.
        wins: of each arm, `B K`.
        losses: the same.
    """

    learner: BetaBernoulliOracle
    wins: Float[Tensor, "B K"]
    losses: Float[Tensor, "B K"]

    @property
    @override
    def points_seen(self) -> Int[Tensor, "B"]:
        return (self.wins + self.losses).sum(-1).round().long()

    def parameters(self) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B K"]]:
        """Both parameters of each arm's distribution."""
        return self.learner.alpha + self.wins, self.learner.beta + self.losses

    @override
    def sample(self, num_draws: int, generator: torch.Generator | None = None) -> Params:
        """Draws of the probabilities, `S B K`."""
        with seeded(generator):
            return {"probability": Beta(*self.parameters()).sample((whole(num_draws, "num_draws"),))}

    def drawn_rewards(self, x: Float[Tensor, "B M K"], generator: torch.Generator | None) -> Float[Tensor, "B M"]:
        """The expected rewards that one draw of the probabilities gives: what `Thompson` asks.

        Args:
            x: unit vectors of arms.
            generator: of the draw.
        """
        return (unit_vectors(x).double() @ self.sample(1, generator)["probability"][0][..., None])[..., 0]

    @override
    def at(self, x: Float[Tensor, "B M K"]) -> IndependentPredictive:
        a, b = self.parameters()
        win = (unit_vectors(x).double() @ (a / (a + b))[..., None])[..., 0]
        return IndependentPredictive(Categorical(torch.stack([1.0 - win, win], -1), validate_args=False))

    @override
    def extended(self, data: Data) -> "BetaBernoulliPosterior":
        real = torch.where(data.mask[..., None], data.x, 0.0)
        unit_vectors(data.x[data.mask])
        outcomes = data.y[data.mask]
        if bool(((outcomes != 0) & (outcomes != 1)).any()):
            raise DataError(f"expected rewards of 0 or 1, got {int(outcomes.min())} to {int(outcomes.max())}")
        wins = torch.where(data.mask, data.y, 0).to(real.dtype)[:, None] @ real
        gained = wins[:, 0]
        return replace(self, wins=self.wins + gained, losses=self.losses + real.sum(1) - gained)

    @override
    def selected(self, tasks: Int[Tensor, "K"]) -> "BetaBernoulliPosterior":
        return replace(self, spec=self.spec.of_tasks(len(tasks)), wins=self.wins[tasks], losses=self.losses[tasks])


def unit_vectors(x: Shaped[Tensor, "*b K"]) -> Shaped[Tensor, "*b K"]:
    """The same inputs. Raises DataError unless each is 1 at one arm and 0 elsewhere.

    Args:
        x: inputs.

    Example:
        >>> try:
        ...     unit_vectors(torch.tensor([[0.5, 0.5]]))
        ... except DataError as error:
        ...     print(error)
        expected unit vectors, 1 at the arm that is meant and 0 elsewhere, got [0.5, 0.5]
    """
    wrong = (x.sum(-1) != 1.0) | ((x != 0.0) & (x != 1.0)).any(-1)
    if bool(wrong.any()):
        raise DataError(
            f"expected unit vectors, 1 at the arm that is meant and 0 elsewhere, got {x[wrong][0].tolist()}"
        )
    return x


def log_beta(a: Float[Tensor, "*b"], b: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """log B(a, b).

    Args:
        a: positive.
        b: positive.

    Example:
        >>> round(log_beta(torch.tensor(2.0), torch.tensor(1.0)).exp().item(), 3)
        0.5
    """
    return a.lgamma() + b.lgamma() - (a + b).lgamma()
