"""What all oracles share: a learner without parameters that knows p(phi) and conditions on it exactly."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.data import Data
from bayesmeta.learner import Learner, Refit, TaskPosterior


class Oracle(Learner):
    """The Bayes-optimal learner of a simulator: it knows p(phi) and conditions on the support exactly.

    It has no parameters, and computes in float64 whatever the precision of the data. No learner can have a higher
    expected log likelihood on tasks of that simulator, so that `evaluate` reports the regret against it. A subclass
    gives `condition` and `evidence`, and its posterior gives `at`.

    Example:
        >>> import bayesmeta as bm
        >>> from bayesmeta.predictives import IndependentPredictive
        >>> from torch.distributions import Categorical
        >>> class Coin(bm.tasks.Oracle):  # phi ~ U(0, 1) is the probability of heads
        ...     outcomes = bm.Labels(2)
        ...
        ...     def condition(self, support):
        ...         return CoinPosterior(spec=support.spec, learner=self, support=support)
        ...
        ...     def evidence(self, data):
        ...         heads, tosses = (data.y * data.mask).sum(-1).double(), data.counts.double()
        ...         return (heads + 1).lgamma() + (tosses - heads + 1).lgamma() - (tosses + 2).lgamma()
        >>> class CoinPosterior(OraclePosterior):
        ...     def at(self, x):
        ...         heads = (self.support.y * self.support.mask).sum(-1).double()
        ...         p = ((heads + 1) / (self.support.counts + 2))[:, None].expand(x.shape[:2])
        ...         return IndependentPredictive(Categorical(torch.stack([1 - p, p], -1)))
        >>> tosses = bm.Data.from_labels([0.0, 0.0, 0.0], [1, 1, 0])
        >>> Coin().adapt(tosses).predict([0.0]).probs.flatten().tolist()
        [0.4, 0.6]
        >>> round(1 / Coin().log_evidence(tosses).exp().item(), 6)
        12.0
    """

    @abstractmethod
    def condition(self, support: Data) -> TaskPosterior:
        """The posterior given float64 data."""

    @abstractmethod
    def evidence(self, data: Data) -> Float[Tensor, "B"]:
        """log p(y | x), jointly over the real points of each task, in nats, for float64 data."""

    def placement(self) -> tuple[torch.dtype, None]:
        """float64, wherever the data are."""
        return torch.float64, None


@dataclass(frozen=True, eq=False, kw_only=True)
class OraclePosterior(Refit):
    """The posterior of an oracle. It is recomputed from all data at every update, so that streaming is exact."""

    learner: Oracle

    def log_conditional(self, x: Tensor, y: Tensor, mask: Tensor | None) -> Float[Tensor, "B"]:
        """log p(y | x, D) = log p(y, D) - log p(D), jointly over the real points, in nats."""
        query = Data.full(x.double(), y.double())
        both = self.support.append(query if mask is None else Data(query.x, query.y, mask))
        return self.learner.evidence(both) - self.learner.evidence(self.support)
