"""What step 2 maximises: how one batch of tasks scores theta."""

from abc import ABC, abstractmethod
from typing import final

from jaxtyping import Float
from torch import Tensor

from bayesmeta.data import Data, TaskBatch
from bayesmeta.errors import UnsupportedError
from bayesmeta.learner import Learner, LinearMixedModel, marginal_loss


class Objective(ABC):
    """A loss of theta, one value per task; its mean over tasks is what `fit` lowers. A subclass gives `loss`."""

    @final
    def __call__(self, learner: Learner, tasks: TaskBatch) -> Float[Tensor, "B"]:
        """Nats per point, of tasks in any precision.

        Raises:
            ShapeError: the tasks do not have the learner's inputs or outputs. DataError: labels for numbers, or numbers
                for labels.
        """
        return self.loss(learner, learner.conform_tasks(tasks))

    @abstractmethod
    def loss(self, learner: Learner, tasks: TaskBatch) -> Float[Tensor, "B"]:
        """Nats per point, of tasks that are checked (`learner.conform_tasks`): what `fit` calls."""


class JointPredictive(Objective):
    """-log p(query | support, theta) / M: all query points of a task at once."""

    def loss(self, learner: Learner, tasks: TaskBatch) -> Float[Tensor, "B"]:
        """Nats per query point."""
        return Learner.loss(learner, tasks)  # the general one, also where the learner has one of its own


class MarginalPredictive(Objective):
    """-mean_m log p(query_m | support, theta): each query point on its own (Harrison et al. 2018, eq. 11)."""

    def loss(self, learner: Learner, tasks: TaskBatch) -> Float[Tensor, "B"]:
        """Nats per query point."""
        return marginal_loss(learner, tasks)


class Evidence(Objective):
    """-log p(support and query | theta), the evidence of whole tasks.

    By the chain rule this is the one-step-ahead predictive summed over every number of support points from none to all.
    It is divided by the mean number of points in the batch, so that a task counts by its points, as in maximum
    likelihood.
    """

    def loss(self, learner: Learner, tasks: TaskBatch) -> Float[Tensor, "B"]:
        """Nats per point."""
        data = tasks.joined()
        return -learner.evidence(data) / data.counts.double().mean()


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
        return learner.evidence(data).sum()


class RestrictedMaximumLikelihood(EvidenceProblem):
    """The prior mean integrated out under a flat hyperprior: the REML fit of a linear mixed model."""

    def __call__(self, learner: Learner, data: Data) -> Float[Tensor, ""]:
        """Total nats of all tasks."""
        return self._model(learner).restricted_log_evidence(data)

    def finish(self, learner: Learner, data: Data) -> None:
        """Put the prior mean at its posterior mean."""
        self._model(learner).maximise_location(data)

    def _model(self, learner: Learner) -> LinearMixedModel:
        if learner.mixed_model is None:
            raise UnsupportedError(f"{type(learner).__name__} has no closed form of the restricted evidence")
        return learner.mixed_model
