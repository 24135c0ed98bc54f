"""What all oracles share: a learner without parameters that knows p(phi) and conditions on it exactly."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.data import Data
from bayesmeta.learner import Learner, Refit


class Oracle(Learner):
    """The Bayes-optimal learner of a simulator. It has no parameters and computes in float64 whatever the data are.

    A subclass gives `condition` and `evidence`.
    """

    @abstractmethod
    def condition(self, support: Data) -> "OraclePosterior":
        """The posterior given float64 data."""

    @abstractmethod
    def evidence(self, data: Data) -> Float[Tensor, "B"]:
        """log p(y | x), jointly over the real points of each task, in nats, for float64 data."""

    def placement(self) -> tuple[torch.dtype, None]:
        """float64, wherever the data are."""
        return torch.float64, None


@dataclass(frozen=True, eq=False, kw_only=True)
class OraclePosterior(Refit):
    """A belief that is recomputed from all data at every update, so that streaming is exact by construction."""

    learner: Oracle

    def log_conditional(self, x: Tensor, y: Tensor, mask: Tensor | None) -> Float[Tensor, "B"]:
        """log p(y | x, D) = log p(y, D) - log p(D), jointly over the real points, in nats."""
        mask = torch.ones(y.shape[:2], dtype=torch.bool, device=y.device) if mask is None else mask
        both = self.support.append(Data(x.double(), y.double(), mask))
        return self.learner.evidence(both) - self.learner.evidence(self.support)
