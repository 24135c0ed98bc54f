"""What step 2 maximises: how one batch of tasks scores theta."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.data import Data, TaskBatch
from bayesmeta.learner import Learner


class Objective(ABC):
    """A loss of theta, one value per task; its mean over tasks is what `fit` lowers."""

    @abstractmethod
    def __call__(self, learner: Learner, tasks: TaskBatch) -> Float[Tensor, "B"]:
        """Nats per point."""


class JointPredictive(Objective):
    """-log p(query | support, theta) / M: all query points of a task at once."""

    def __call__(self, learner: Learner, tasks: TaskBatch) -> Float[Tensor, "B"]:
        """Nats per query point."""
        return Learner.meta_loss(learner, tasks)  # the general one, also where the learner has one of its own


class MarginalPredictive(Objective):
    """-mean_m log p(query_m | support, theta): each query point on its own (Harrison et al. 2018, eq. 11)."""

    def __call__(self, learner: Learner, tasks: TaskBatch) -> Float[Tensor, "B"]:
        """Nats per query point."""
        tasks = learner.conform_tasks(tasks)
        query = tasks.query
        y = query.y if query.y.is_floating_point() else torch.where(query.mask, query.y, 0)  # padding is no class
        each = learner._adapt(tasks.support)._predict(query.x).marginal_log_prob(y)
        return -torch.where(query.mask, each, 0.0).sum(-1) / query.counts.clamp(min=1)


class Evidence(Objective):
    """-log p(support and query | theta), the evidence of whole tasks.

    By the chain rule this is the one-step-ahead predictive summed over every number of support points from none to all.
    It is divided by the mean number of points in the batch, so that a task counts by its points, as in maximum
    likelihood.
    """

    def __call__(self, learner: Learner, tasks: TaskBatch) -> Float[Tensor, "B"]:
        """Nats per point."""
        data = learner.conform(tasks.support.append(tasks.query))
        return -learner.log_evidence(data) / data.counts.double().mean()


class EvidenceProblem(ABC):
    """A deterministic function of theta and all meta-training points: what `fit_evidence` maximises."""

    @abstractmethod
    def __call__(self, learner: Learner, data: Data) -> Float[Tensor, ""]:
        """Total nats of all tasks."""

    def finish(self, learner: Learner, data: Data) -> None:  # noqa: B027, nothing by default
        """Set what the maximisation has integrated out."""


class MaximumLikelihood(EvidenceProblem):
    """Σ_t log p(y_t | theta): empirical Bayes, and the ML fit of a linear mixed model."""

    def __call__(self, learner: Learner, data: Data) -> Float[Tensor, ""]:
        """Total nats of all tasks."""
        return learner.log_evidence(data).sum()


class RestrictedMaximumLikelihood(EvidenceProblem):
    """The prior mean integrated out under a flat hyperprior: the REML fit of a linear mixed model."""

    def __call__(self, learner: Learner, data: Data) -> Float[Tensor, ""]:
        """Total nats of all tasks."""
        return learner.restricted_log_evidence(data)

    def finish(self, learner: Learner, data: Data) -> None:
        """Put the prior mean at its posterior mean."""
        learner.maximise_location(data)
