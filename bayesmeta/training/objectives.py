"""What step 2 maximises: how one batch of tasks scores theta."""

from abc import ABC, abstractmethod
from functools import partial
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from bayesmeta.data import Data, TaskBatch
from bayesmeta.errors import UnsupportedError
from bayesmeta.flat import each_part
from bayesmeta.heads.classes import one_hot
from bayesmeta.heads.feature_classifier import HeadPosterior
from bayesmeta.heads.head import LogScores
from bayesmeta.learner import Learner, LinearMixedModel, marginal_loss
from bayesmeta.learners.amortized.latent_base import LatentLearner
from bayesmeta.modes import settled
from bayesmeta.one_line import InShort
from bayesmeta.wrappers.concept import ConceptLearner
from bayesmeta.wrappers.standardized import Standardized
from bayesmeta.wrappers.with_hyperprior import WithHyperprior


class Objective(InShort, ABC):
    """A loss of theta, one value per task; its mean over tasks is what `fit` lowers. A subclass gives `loss`.

    Example:
        >>> import bayesmeta as bm
        >>> from bayesmeta.training.objectives import Objective
        >>> class SquaredError(Objective):
        ...     def loss(self, learner, tasks):
        ...         query = tasks.query
        ...         error = (learner.condition(tasks.support).at(query.x).mean - query.y).square().sum(-1)
        ...         return (error * query.mask).sum(-1) / query.counts
        >>> tasks = bm.tasks.Sinusoid().dataset(num_tasks=3, num_points=8, seed=0)
        >>> SquaredError()(bm.ALPaCA(bm.MLP(1, [8])), tasks.divided(bm.tasks.RandomSplit.at(5))).shape
        torch.Size([3])
    """

    @final
    @settled
    def __call__(self, learner: Learner, tasks: TaskBatch) -> Float[Tensor, "B"]:
        """Nats per point, of tasks in any precision.

        Raises:
            ShapeError: the tasks do not have the learner's inputs or outputs.
            DataError: labels for numbers, or numbers for labels.
        """
        return self.loss(learner, learner.conform_tasks(tasks))

    @abstractmethod
    def loss(self, learner: Learner, tasks: TaskBatch) -> Float[Tensor, "B"]:
        """Nats per point, of tasks that are checked (`learner.conform_tasks`): what `fit` calls."""

    def share(self, part: TaskBatch, whole: TaskBatch) -> float:
        """The share of a part of a batch in the loss of the whole, whose mean is Σ share x mean over its parts.

        Several processes compute a part each. By default it is the part's share of the tasks, which is right where the
        loss of a task does not depend on the others.

        Args:
            part: some tasks of the batch.
            whole: the batch.
        """
        return part.num_tasks / whole.num_tasks


class JointPredictive(Objective):
    """-log p(query | support, theta) / M: all query points of a task at once, in nats per query point.

    Example:
        >>> import bayesmeta as bm
        >>> tasks = bm.tasks.Sinusoid().dataset(num_tasks=3, num_points=8, seed=0).divided(bm.tasks.RandomSplit.at(5))
        >>> learner = bm.ALPaCA(bm.MLP(1, [8])).double()
        >>> losses = bm.training.JointPredictive()(learner, tasks)
        >>> prediction = learner.adapt(tasks.support).predict(tasks.query.x)
        >>> bool(((losses + prediction.log_prob(tasks.query.y) / 3).abs() < 1e-9).all())
        True
    """

    @override
    def loss(self, learner: Learner, tasks: TaskBatch) -> Float[Tensor, "B"]:
        # the general loss, also where the learner has one of its own
        return each_part(partial(Learner.loss, learner), tasks)


class MarginalPredictive(Objective):
    """-mean_m log p(query_m | support, theta): each query point on its own (Harrison et al. 2018, eq. 11), in nats per
    query point.

    Example:
        >>> import bayesmeta as bm
        >>> tasks = bm.tasks.Sinusoid().dataset(num_tasks=3, num_points=8, seed=0)
        >>> learner = bm.ALPaCA(bm.MLP(1, [8])).double()
        >>> one = tasks.divided(bm.tasks.RandomSplit.at(7))  # one query point
        >>> difference = bm.training.MarginalPredictive()(learner, one) - bm.training.JointPredictive()(learner, one)
        >>> bool(difference.abs().max() < 1e-9)
        True
    """

    @override
    def loss(self, learner: Learner, tasks: TaskBatch) -> Float[Tensor, "B"]:
        return each_part(partial(marginal_loss, learner), tasks)


class SquaredMatchError(Objective):
    """The mean of (sigmoid(score_c(x)) - [y = c])² over query points and classes (Sung et al. 2018, eq. 2).

    Relation networks were trained on it. It is a proper score of match probabilities, each on its own, not of classes.

    Example:
        >>> import bayesmeta as bm
        >>> support = bm.Data.from_labels([[0.0, 0.0], [1.0, 0.0]], [0, 1])
        >>> learner = bm.Relation(bm.MLP(2, [8]), num_classes=2)
        >>> bm.training.SquaredMatchError()(learner, bm.TaskBatch(support, support)).shape
        torch.Size([1])
    """

    @override
    def loss(self, learner: Learner, tasks: TaskBatch) -> Float[Tensor, "B"]:
        return each_part(partial(self._part, learner), tasks)

    def _part(self, learner: Learner, tasks: TaskBatch) -> Float[Tensor, "B"]:
        posterior, query = learner.condition(tasks.support), tasks.query
        if not isinstance(posterior, HeadPosterior) or not isinstance(posterior.scores, LogScores):
            raise UnsupportedError(f"expected a learner whose scores are log odds of matches, got {learner.title}")
        matches = posterior.scores.log_scores(posterior.learner.rows(query.x)).sigmoid()
        classes = posterior.examples.classes.mask
        answers = one_hot(query.y, classes.shape[1], query.mask).to(matches.dtype)
        error = ((matches - answers).square() * classes[:, None]).sum(-1) / classes.sum(-1)[:, None]
        return torch.where(query.mask, error, 0.0).sum(-1) / query.counts.clamp(min=1)


class Evidence(Objective):
    """-log p(support and query | theta), the evidence of whole tasks, in nats per point.

    By the chain rule this is the one-step-ahead predictive summed over every number of support points from none to all.
    It is divided by the mean number of points in the batch, so that a task counts by its points, as in maximum
    likelihood.

    Example:
        >>> import bayesmeta as bm
        >>> tasks = bm.tasks.Sinusoid().dataset(num_tasks=3, num_points=8, seed=0)
        >>> learner = bm.ALPaCA(bm.MLP(1, [8])).double()
        >>> divided = tasks.divided(bm.tasks.RandomSplit.at(5))  # however they are divided
        >>> losses = bm.training.Evidence()(learner, divided)
        >>> bool(((losses + learner.log_evidence(tasks.data) / 8).abs() < 1e-9).all())
        True
    """

    @override
    def loss(self, learner: Learner, tasks: TaskBatch) -> Float[Tensor, "B"]:
        counts = tasks.support.counts + tasks.query.counts
        return -each_part(lambda part: learner.evidence(part.joined()), tasks) / counts.double().mean()

    @override
    def share(self, part: TaskBatch, whole: TaskBatch) -> float:
        """Its share of the points, as losses are divided by the mean number of points."""
        points = [int(each.support.counts.sum() + each.query.counts.sum()) for each in (part, whole)]
        return points[0] / max(points[1], 1)


class VariationalBound(Objective):
    """The negative evidence lower bound of a latent neural process (Garnelo et al. 2018), in nats per query point.

        (KL(q(z | all) ‖ q(z | support)) - E_{z ~ q(z | all)} log p(query | z)) / M,   all = support and query

    The encoder sees the query, so that each z need only be a function that fits it; the process's own loss averages
    densities over draws that know the support alone.

    Raises:
        UnsupportedError: when called, another learner, or outcomes that are labels.

    Example:
        >>> import bayesmeta as bm
        >>> tasks = bm.tasks.Sinusoid().dataset(num_tasks=3, num_points=8, seed=0).divided(bm.tasks.RandomSplit.at(5))
        >>> bm.training.VariationalBound()(bm.LatentNeuralProcess(bm.Identity(1)), tasks).shape
        torch.Size([3])
    """

    @override
    def loss(self, learner: Learner, tasks: TaskBatch) -> Float[Tensor, "B"]:
        return each_part(partial(self._part, learner), tasks)

    def _part(self, learner: Learner, tasks: TaskBatch) -> Float[Tensor, "B"]:
        if isinstance(learner, WithHyperprior | ConceptLearner):
            return self._part(learner.learner, tasks)
        if isinstance(learner, Standardized):
            inner = TaskBatch(learner.standard(tasks.support), learner.standard(tasks.query), tasks.names)
            return self._part(learner.learner, inner) + learner.y_scale.log().sum()
        if not isinstance(learner, LatentLearner):
            raise UnsupportedError(f"expected a latent neural process, got {learner.title}")
        return -learner.bound(tasks) / tasks.query.counts.clamp(min=1)


class EvidenceProblem(InShort, ABC):
    """A deterministic function of theta and all meta-training points: what `fit_evidence` maximises.

    A subclass gives the function. What of theta can be had in closed form is set before and after, where the learner is
    a linear mixed model.

    Example:
        >>> import bayesmeta as bm
        >>> from bayesmeta.training.objectives import EvidenceProblem
        >>> class Weighted(EvidenceProblem):
        ...     def __call__(self, learner, *data):
        ...         # tasks of one or two points say nothing
        ...         return sum((learner.evidence(each) * (each.counts > 2)).sum() for each in data)
        >>> tasks = bm.TaskDataset.from_list([([0.0, 1.0, 2.0], [0.1, 0.9, 2.2]), ([1.0], [9.0])])
        >>> Weighted()(bm.ALPaCA(bm.Identity(1)).double(), tasks.data).shape
        torch.Size([])
    """

    @abstractmethod
    def __call__(self, learner: Learner, *data: Data) -> Float[Tensor, ""]:
        """Total nats of all tasks, of data that are checked; where tasks differ in length, in several batches."""

    def start(self, learner: Learner, *data: Data) -> None:
        """Set the part of theta whose evidence-maximising value has a closed form, so that the search begins there."""
        if learner.mixed_model is not None:
            learner.mixed_model.maximise_exactly(*data)

    def finish(self, learner: Learner, *data: Data) -> None:
        """Set what the maximisation has integrated out."""


class MaximumLikelihood(EvidenceProblem):
    """log p(all tasks | theta), which is Σ_t log p(y_t | theta) for all learners but those that couple tasks.

    It is empirical Bayes, and the ML fit of a linear mixed model.

    Example:
        >>> import bayesmeta as bm
        >>> tasks = bm.TaskDataset.from_list([([0.0, 1.0, 2.0], [0.1, 0.9, 2.2]), ([0.0, 1.0, 3.0], [1.2, 1.8, 4.1])])
        >>> learner = bm.ALPaCA(bm.Identity(1)).double()
        >>> bool(bm.training.MaximumLikelihood()(learner, tasks.data) == learner.log_evidence(tasks.data).sum())
        True
    """

    @override
    def __call__(self, learner: Learner, *data: Data) -> Float[Tensor, ""]:
        return learner.joint_evidence(*data)


class RestrictedMaximumLikelihood(EvidenceProblem):
    """The prior mean integrated out under a flat hyperprior: the REML fit of a linear mixed model.

    Example:
        >>> import bayesmeta as bm
        >>> y = [[0.1, 1.2, 1.8, 3.1], [2.0, 2.4, 3.2, 3.3], [-1.1, 0.7, 1.9, 4.1], [1.3, 2.9, 4.2, 5.6]]
        >>> tasks = bm.TaskDataset.from_list([([0.0, 1.0, 2.0, 3.0], each) for each in y])
        >>> learner = bm.ALPaCA(bm.Identity(1)).double()
        >>> result = bm.fit_evidence(learner, tasks, bm.training.RestrictedMaximumLikelihood())
        >>> result.stopped_early  # nothing more to gain
        True
    """

    @override
    def __call__(self, learner: Learner, *data: Data) -> Float[Tensor, ""]:
        return self._model(learner).restricted_log_evidence(*data)

    @override
    def finish(self, learner: Learner, *data: Data) -> None:
        """Put the prior mean at its posterior mean."""
        self._model(learner).maximise_location(*data)

    def _model(self, learner: Learner) -> LinearMixedModel:
        if learner.mixed_model is None:
            raise UnsupportedError(f"{type(learner).__name__} has no closed form of the restricted evidence")
        return learner.mixed_model
