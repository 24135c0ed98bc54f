"""What mixed models share that are not linear and Gaussian: phi is the random effects of a task, b ~ N(0, I)."""

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from bayesmeta.data import Data, TaskBatch
from bayesmeta.inference.laplace import ExplicitPrior, Shrinkage
from bayesmeta.learner import ExplicitLearner
from bayesmeta.learners.gradient.base import GradientLearner
from bayesmeta.priors import FeatureCovariance, StandardNormal
from bayesmeta.typing import Params

RATE = 10.0  # times the learning rate of a network: theta is a few numbers of unit scale


class RandomEffects(GradientLearner, ExplicitLearner):
    """phi is the random effects of a task, b ~ N(0, I), which a learned factor L turns into what tasks differ by.

    A subclass gives `forward`, `mode` and `evidence`, and sets `covariance` and `prior` in its constructor.

    Attributes:
        covariance: L Lᵀ, the covariance between tasks.
        prior: N(0, I).

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.learners.GeneralizedLinearMixedModel(bm.Identity(1), likelihood=bm.likelihoods.Poisson())
        >>> isinstance(learner, RandomEffects), learner.start(num_tasks=3)["effects"].shape[0]
        (True, 3)
    """

    covariance: FeatureCovariance
    prior: StandardNormal

    def start(self, num_tasks: int) -> Params:
        """The prior mean of the effects, zero."""
        return {name: value.expand(num_tasks, *value.shape) for name, value in self.prior.mean.items()}

    @override
    def shrinkage(self) -> Shrinkage:
        return ExplicitPrior()

    @override
    def squares(self, support: Data) -> Params:
        return {"effects": support.x.new_ones(())}

    def loss(self, tasks: TaskBatch) -> Float[Tensor, "B"]:
        """-log p(support and query | theta) of each whole task, as `evidence` has it, in nats per point."""
        data = tasks.joined()
        return -self.evidence(data) / data.counts.clamp(min=1)

    def configure_optimizer(self, lr: float = 1e-3) -> torch.optim.Optimizer:
        """Adam at ten times the learning rate."""
        return torch.optim.Adam([p for p in self.parameters() if p.requires_grad], lr=RATE * lr)
