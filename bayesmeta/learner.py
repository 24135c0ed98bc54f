"""Learner holds theta; TaskPosterior holds what one batch of tasks has taught it.

The two verbs between them:

    theta --adapt(support)--> p(phi | D, theta) --predict(x)--> p(y | x, D, theta)

Both have two tiers. What a user calls (`adapt`, `meta_loss`, `log_evidence`, `predict`, `update`) is final: it checks
and converts what comes in, once, and the posterior is cut off from theta and from the user's arrays. What a method's
author writes (`condition`, `loss`, `evidence`, `at`, `extended`) gets data that are checked, in the learner's own
precision and on its device, and is differentiable in theta. Both are public: training and evaluation check a batch once
and then call the second tier.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from typing_extensions import override

from bayesmeta.arguments import generator_of, some
from bayesmeta.data import Data, DataSpec, TaskBatch
from bayesmeta.description import Described, written
from bayesmeta.errors import BayesMetaError, DataError, InferenceError, UnsupportedError, retelling
from bayesmeta.likelihoods import Likelihood
from bayesmeta.modes import settle, settled
from bayesmeta.networks.network import Network
from bayesmeta.noise import Noise
from bayesmeta.one_line import InShort, OneLine, several
from bayesmeta.outcomes import Labels, Numbers, Outcomes, require_kind
from bayesmeta.predictives import Predictive
from bayesmeta.priors import FeatureCovariance, Prior
from bayesmeta.snapshot import require_precision, shared, snapshot
from bayesmeta.summaries import Coefficients, Columns, PlainSummary, PosteriorSummary, Summary, Tasks, plain
from bayesmeta.summaries.columns import TableSchema
from bayesmeta.summaries.summary import LEVEL
from bayesmeta.torch_private import first_parameter
from bayesmeta.typing import ArrayLike, LogJoint, Params

MOST_SHOWN = 5  # numbers of points in the line that a posterior is printed as
MOST_NAMED = 24  # numbers of a task that a summary tells one by one
SUMMARY_DRAWS = 1_000  # of phi, where its belief has no closed form
SUMMARY_TASKS = 32  # whose points a summary asks what is predicted at


@dataclass(frozen=True, eq=False, kw_only=True)
class TaskPosterior(OneLine, ABC):
    """p(phi | D, theta) of a batch of tasks: a value. `update` returns a new one and leaves this one as it was.

    A subclass is a frozen dataclass that gives `at`, `extended` and `selected`; one that adapts again on all points is
    a `Refit`.

    Attributes:
        spec: the shapes that further data must have, and the precision and device that they are converted to.

    Example:
        >>> import bayesmeta as bm
        >>> posterior = bm.MAML(bm.MLP(1, [8])).adapt(bm.Data.from_arrays([0.0, 1.0], [0.3, 0.7]))
        >>> posterior
        posterior of 1 task after 2 points
        >>> posterior.update(bm.Data.from_arrays([2.0], [1.1]))
        posterior of 1 task after 3 points
        >>> posterior.predict([0.5, 3.0]).stddev.shape
        torch.Size([1, 2, 1])
    """

    spec: DataSpec

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let no mode of torch's change what is drawn."""
        super().__init_subclass__(**kwargs)
        settle(cls, ("sample",))

    def __repr__(self) -> str:
        """One line: how many tasks, and how many points of each have been seen, where that is known."""
        line, seen = f"posterior of {several(self.spec.num_tasks, 'task')}", self.points_seen
        if seen is None or not len(seen):
            return line
        if len(seen) == 1:
            return f"{line} after {several(int(seen), 'point')}"
        shown = [str(count) for count in seen[:MOST_SHOWN].tolist()]
        return f"{line} after {', '.join(shown if len(seen) == len(shown) else [*shown, '...'])} points"

    @property
    def points_seen(self) -> Int[Tensor, "B"] | None:
        """How many points of each task it has been given; None where it does not remember.

        Example:
            >>> import bayesmeta as bm
            >>> support = bm.Data.stack([bm.Data.from_arrays([0.0, 1.0], [0.1, 0.9]), bm.Data.from_arrays([], [])])
            >>> bm.ALPaCA(bm.Identity(1)).adapt(support).points_seen.tolist()
            [2, 0]
        """
        return None

    @property
    def known_noise(self) -> bool:
        """Whether points may come with known noise of their own (`Data.noise`): as the learner says."""
        return False

    @property
    def partial_outcomes(self) -> bool:
        """Whether points may lack some of their outcomes (`Data.known`): as the learner says."""
        return False

    @final
    @settled
    def predict(self, x: ArrayLike, yerr: ArrayLike | None = None) -> Predictive:
        """The predictive distribution at query points.

        Args:
            x: `B M *x`; for a single task `M *x` is enough, or `M` where inputs are numbers. numpy, pandas or torch.
            yerr: the known noise of the outcomes that are predicted, a standard deviation in units of y: `B M C`, for a
                single task `M C` or `M`, or one number for all. None where nothing is known: then the noise is that
                which the learner has learned, alone.

        Raises:
            ShapeError: x or yerr has the wrong shape.
            DataError: a cell is not a finite number, or a deviation is negative.
            UnsupportedError: known noise, for which the learner has no place.

        Example:
            >>> import bayesmeta as bm
            >>> support = bm.Data.from_arrays([0.0, 1.0], [0.1, 0.9], yerr=[0.1, 0.4])
            >>> bool((bm.ALPaCA(bm.Identity(1)).adapt(support).predict([0.5], yerr=2.0).stddev > 2.0).all())
            True
        """
        predictive = self.at(self.spec.queries(x))
        if yerr is None:
            return predictive
        if not self.known_noise:
            raise refusal_of_noise(type(self).__name__)
        return predictive.with_noise(self.spec.known_variances(yerr, predictive.shape))

    @final
    @settled
    def update(self, data: Data) -> "TaskPosterior":
        """The posterior after more points of the same tasks: the same as adapting on all of them at once.

        Raises:
            ShapeError: the data are of other tasks or shapes.
            DataError: labels for numbers, or numbers for labels.
        """
        require_place(data, type(self).__name__, self.known_noise, self.partial_outcomes)
        return self.extended(self.spec.conform(data).clone())

    @final
    @settled
    def select(self, tasks: Sequence[int] | slice | Tensor) -> "TaskPosterior":
        """The posterior of some of the tasks, in this order: the same as adapting to these alone.

        Args:
            tasks: their positions (a slice, a list of positions, an index tensor or a mask).

        Raises:
            DataError: a position that no task has.
            UnsupportedError: the posterior cannot be divided.

        Example:
            >>> import bayesmeta as bm
            >>> data = bm.Data.stack([bm.Data.from_arrays([0.0] * n, [1.0] * n) for n in (1, 2, 3)])
            >>> bm.ALPaCA(bm.Identity(1)).adapt(data).select([2, 0])
            posterior of 2 tasks after 3, 1 points
        """
        places = torch.arange(self.spec.num_tasks, device=self.spec.device)
        try:
            index = tasks if isinstance(tasks, slice) else torch.as_tensor(tasks, device=self.spec.device)
            if isinstance(index, Tensor) and (index.ndim != 1 or (index.is_floating_point() and len(index))):
                raise DataError(f"expected a list of positions, got {tasks!r}: for one task write [0]")
            chosen = places[index.long() if isinstance(index, Tensor) and not len(index) else index]
        except (IndexError, TypeError, ValueError, RuntimeError) as error:
            raise DataError(f"expected positions of {len(places)} tasks, got {tasks!r}: {error}") from error
        return self.selected(chosen)

    def sample(self, num_draws: int, generator: torch.Generator | None = None) -> Params:
        """Draws of phi, each value `S B *shape`. Raises UnsupportedError where phi has no density to draw from."""
        raise UnsupportedError(f"{type(self).__name__} has no draws of phi")

    @final
    @settled
    def summary(self, tasks: Tasks | None = None, level: float = LEVEL) -> PosteriorSummary:
        """What is believed of the numbers of each task (phi), by name and in the user's units: prints as a page.

        Args:
            tasks: whose table the names are of: a `TaskDataset` with the columns of the learner; names of tasks where
                the posterior is of all of its tasks, in their order. Without it inputs are `x`, and tasks 0, 1, ...
            level: probability of the intervals.

        Raises:
            DataError: a level outside (0, 1), or something that is no tasks.

        Example:
            >>> import bayesmeta as bm
            >>> posterior = bm.ALPaCA(bm.Identity(1)).adapt(bm.Data.from_arrays([0.0, 1.0, 2.0], [0.2, 0.4, 0.7]))
            >>> print(posterior.summary(level=0.5))
            posterior of 1 task after 3 points
            <BLANKLINE>
            What is believed of each task
              task  term         mean  deviation  50 % from      to  shrinkage  points
              0     intercept  0.1600     0.2000     0.0251  0.2949       0.40       3
              0     x          0.2200     0.1633     0.1099  0.3301       0.27       3
        """
        spec = self.spec
        outcomes = Numbers(spec.y_shape[0]) if spec.y_shape else Labels()
        columns = Columns.of(spec.x_shape, outcomes, _schema(tasks))
        names = tuple(range(spec.num_tasks)) if tasks is None or len(tasks.names) != spec.num_tasks else tasks.names
        with torch.no_grad():
            numbers = self.coefficients(columns)
        words = () if numbers is not None else (plain.NO_NAMES,)
        if numbers is not None and not numbers.are_the_users:
            words = (plain.OWN_UNITS,)
        return PosteriorSummary(repr(self), tuple(names), self.points_seen, numbers, level, words)

    def coefficients(self, columns: Columns) -> Coefficients | None:
        """What is believed of the numbers of each task, each on its own: what `summary` shows; None where they mean
        nothing one by one, as weights inside of a network. From draws of phi, unless a subclass knows more.

        Args:
            columns: names and units of inputs and outcomes, as the posterior sees them.
        """
        try:
            sizes = {
                name: value[0, 0].numel() for name, value in self.sample(1, generator_of(0, self.spec.device)).items()
            }
            if not 0 < sum(sizes.values()) <= MOST_NAMED or any("." in name for name in sizes):
                return None
            drawn = self.sample(SUMMARY_DRAWS, generator_of(0, self.spec.device))
        except UnsupportedError:
            return None
        names = [place for name, value in drawn.items() for place in plain.places(name, value.shape[2:])]
        draws = torch.cat([value.double().reshape(*value.shape[:2], -1) for value in drawn.values()], -1)
        return Coefficients.drawn(names, draws, are_the_users=columns.are_the_users)

    def predictive_of(self, data: Data) -> Predictive:
        """The predictive of the outcomes of points that are checked, with what is known of their noise.

        Args:
            data: points of the same tasks; their outcomes are not looked at.
        """
        predictive = self.at(data.x)
        return predictive if data.noise is None else predictive.with_noise(data.noise)

    @abstractmethod
    def at(self, x: Float[Tensor, "B M *x"]) -> Predictive:
        """The predictive at query points that are checked: what `predict` returns."""

    @abstractmethod
    def extended(self, data: Data) -> "TaskPosterior":
        """The posterior after more points that are checked: what `update` returns."""

    def selected(self, tasks: Int[Tensor, "K"]) -> "TaskPosterior":
        """The posterior of the tasks at positions that are checked: what `select` returns."""
        raise UnsupportedError(f"{type(self).__name__} cannot be divided: adapt to the tasks that are wanted")


@dataclass(frozen=True, eq=False, kw_only=True)
class Refit(TaskPosterior):
    """A posterior that remembers its support: more points mean adapting again, on all of them.

    A subclass gives `at` alone.

    Attributes:
        learner: the learner, which knows theta and how to adapt.
        support: all points seen.

    Example:
        >>> from dataclasses import dataclass
        >>> from torch.distributions import Independent, Normal
        >>> import bayesmeta as bm
        >>> class NearestNeighbour(bm.Learner):
        ...     def condition(self, support):
        ...         return NearestPosterior(spec=support.spec, learner=self, support=support)
        >>> @dataclass(frozen=True, eq=False, kw_only=True)
        ... class NearestPosterior(bm.Refit):
        ...     def at(self, x):  # N(outcome of the nearest support point, 1)
        ...         distance = torch.cdist(x, self.support.x).masked_fill(~self.support.mask[:, None], torch.inf)
        ...         nearest = torch.take_along_dim(self.support.y, distance.argmin(-1)[..., None], 1)
        ...         return bm.predictives.IndependentPredictive(Independent(Normal(nearest, 1.0), 1))
        >>> posterior = NearestNeighbour().adapt(bm.Data.from_arrays([0.0, 10.0], [3.0, 7.0]))
        >>> posterior.predict([2.0, 9.0]).mean.flatten().tolist()
        [3.0, 7.0]
        >>> posterior.update(bm.Data.from_arrays([2.0], [5.0])).predict([2.0, 9.0]).mean.flatten().tolist()
        [5.0, 7.0]
    """

    learner: "Learner"
    support: Data

    @property
    @override
    def points_seen(self) -> Int[Tensor, "B"]:
        return self.support.counts

    @property
    @override
    def known_noise(self) -> bool:
        return self.learner.known_noise

    def extended(self, data: Data) -> TaskPosterior:
        """`learner.condition` on all points; without a graph where theta is frozen, and no point has gradients."""
        return self._again(self.learner.conform(self.support.append(data)))

    @override
    def selected(self, tasks: Int[Tensor, "K"]) -> TaskPosterior:
        return self._again(self.support.select(tasks))

    def _again(self, support: Data) -> TaskPosterior:
        # points that are sought by gradients have them, though theta is frozen
        sources = (support.x, support.y, *self.learner.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and any(each.requires_grad for each in sources)):
            return self.learner.condition(support)


@dataclass(frozen=True, eq=False)
class MixedModelParts(InShort):
    """What a linear mixed model is made of, for whoever fits it.

    Attributes:
        design: the F features of all points, in float64.
        location: the fixed effects K_0, the prior mean of phi.
        covariance: V, that of the random effects in units of the noise.
        noise: Σ.
        features: h.

    Example:
        >>> import bayesmeta as bm
        >>> parts = bm.ALPaCA(bm.Identity(1)).parts(bm.Data.from_arrays([4.0, 5.0], [0.1, 0.2]))
        >>> parts.design.tolist(), parts.location.shape
        ([[1.0, 4.0], [1.0, 5.0]], torch.Size([2, 1]))
    """

    design: Float[Tensor, "P F"]
    location: nn.Parameter
    covariance: FeatureCovariance
    noise: Noise
    features: Network


class LinearMixedModel(InShort, ABC):
    """What has a closed form where y is linear in phi and all is Gaussian: the steps of ML and REML fits.

    `ALPaCA` is one, and with `Identity` features it is the linear mixed model of statistics: the prior mean holds the
    fixed effects. `fit_evidence` uses these steps. `Learner.mixed_model` also finds the one inside a wrapper.

    The tasks may come in several batches, such as those of `TaskDataset.by_length`: all of them together count.

    Example:
        >>> import bayesmeta as bm
        >>> y = [[0.1, 1.2, 1.8, 3.1], [2.0, 2.4, 3.2, 3.3], [-1.1, 0.7, 1.9, 4.1]]
        >>> data = bm.Data.stack([bm.Data.from_arrays([0.0, 1.0, 2.0, 3.0], each) for each in y])
        >>> learner = bm.ALPaCA(bm.Identity(1)).double()
        >>> model, before = learner.mixed_model, learner.log_evidence(data).sum()
        >>> model.maximise_exactly(data)  # the fixed effects and the noise, given the ratio of random effects to noise
        >>> bool(learner.log_evidence(data).sum() > before)
        True
        >>> learner.prior.location.flatten().detach().round(decimals=2).tolist()  # intercept and slope
        [0.34, 1.04]
    """

    @abstractmethod
    def restricted_log_evidence(self, *data: Data) -> Float[Tensor, ""]:
        """log ∫ Π_t p(D_t | theta) d(prior mean), all tasks together, in nats."""

    @abstractmethod
    def maximise_exactly(self, *data: Data) -> None:
        """Set the part of theta whose evidence-maximising value has a closed form given the rest."""

    @abstractmethod
    def maximise_location(self, *data: Data) -> None:
        """Set the prior mean to the value that maximises the evidence given the rest."""

    def parts(self, *data: Data) -> MixedModelParts | None:
        """What it is made of, with the features of these points (checked), so that a fit can choose its units; None
        where it does not say.
        """
        return None

    def location_covariance(self, *data: Data) -> Float[Tensor, "F F"]:
        """(Σ_t Xᵀ S⁻¹ X)⁻¹, the covariance of the estimate of the prior mean in units of Σ: with that, standard errors
        of fixed effects as lme4 has them. Raises UnsupportedError where it is not known.
        """
        raise UnsupportedError(f"{type(self).__name__} does not know the covariance of its fixed effects")

    def scatter(self, *data: Data) -> Float[Tensor, "C C"]:
        """Σ_t Rᵀ S⁻¹ R, with R the outcomes less the fixed effects: Σ is this over the number of points in a fit by
        maximum likelihood, and over F points fewer in a restricted one. Raises UnsupportedError where it is not known.
        """
        raise UnsupportedError(f"{type(self).__name__} does not know the scatter of its outcomes")


class Learner(Described, nn.Module, ABC):
    """A meta-learner: `parameters()` is theta, and `adapt` gives p(phi | D, theta) for a batch of tasks.

    A subclass gives `condition`; it may have a `loss` and an `evidence` of its own. It is a `torch.nn.Module`, which
    `fit` trains, `evaluate` scores and `save` writes to a folder.

    Attributes:
        exchangeable: False only where the method itself depends on the order of the support (SNAIL, MANN).
        x_shape: the shape of one input, or None when any will do.
        outcomes: what is predicted at a point: `Numbers(C)`, `Labels(C)`, `Labels()` (the classes of each task's
            support), or None when any will do.
        known_noise: whether points may come with known noise of their own (`Data.noise`); else they are refused.
        partial_outcomes: whether points may lack some of their outcomes (`Data.known`); else they are refused.
        coupled: whether tasks share more than theta (`joint_evidence`, `remember`): then their evidences do not add up.
        coded_inputs: positions of inputs that are codes and no quantities; `Standardized` leaves them as they are.

    Example:
        >>> from dataclasses import dataclass
        >>> from torch.distributions import Independent, Normal
        >>> import bayesmeta as bm
        >>> class Level(bm.Learner):
        ...     '''y ~ N(phi, 1), phi ~ N(mean, 1): every task has a level of its own around a shared mean.'''
        ...     outcomes = bm.Numbers(1)
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.mean = torch.nn.Parameter(torch.zeros(()))
        ...     def condition(self, support):
        ...         return LevelPosterior(spec=support.spec, learner=self, support=support)
        >>> @dataclass(frozen=True, eq=False, kw_only=True)
        ... class LevelPosterior(bm.Refit):
        ...     def at(self, x):
        ...         precision = (1.0 + self.support.counts)[:, None, None]
        ...         total = torch.where(self.support.mask[..., None], self.support.y, 0.0).sum(1, keepdim=True)
        ...         mean = ((self.learner.mean + total) / precision).expand(*x.shape[:2], 1)
        ...         y = Normal(mean, (1.0 + 1.0 / precision).sqrt())  # noise, and what is not known of phi
        ...         return bm.predictives.IndependentPredictive(Independent(y, 1))
        >>> learner, support = Level(), bm.Data.from_arrays([0.0, 1.0, 2.0], [3.0, 4.0, 5.0])
        >>> learner.adapt(support).predict([3.0])
        prediction at 1 point: mean [3], sd [1.12]
        >>> learner.adapt(bm.Data.empty(support)).predict([3.0])  # the prior predictive
        prediction at 1 point: mean [0], sd [1.41]
        >>> tasks = bm.TaskDataset.from_list([(range(4), [4.0, 5.0, 5.0, 6.0]), (range(4), [6.0, 7.0, 7.0, 8.0])])
        >>> _ = bm.fit(learner, tasks, steps=100, lr=0.2, split=bm.tasks.RandomSplit((0, 2)), progress=False)
        >>> round(learner.mean.item())  # learned: the level of a typical task
        6
    """

    exchangeable: bool = True
    x_shape: tuple[int, ...] | None = None
    outcomes: Outcomes | None = None
    known_noise: bool = False
    partial_outcomes: bool = False
    coupled: bool = False
    coded_inputs: tuple[int, ...] = ()

    @property
    def title(self) -> str:
        """What tables and figures call this learner: the name of its class unless a subclass says more."""
        return type(self).__name__

    @property
    def mixed_model(self) -> LinearMixedModel | None:
        """The closed forms of a linear mixed model, where this learner is one; None where it is not."""
        return self if isinstance(self, LinearMixedModel) else None

    @final
    @settled
    def adapt(self, support: Data) -> TaskPosterior:
        """p(phi | D, theta). Deterministic; an empty support gives the prior.

        The posterior keeps its own frozen copy of theta, builds no graph to it and does not change when training goes
        on. Gradients with respect to query points flow through `predict` as usual.

        Raises:
            ShapeError: the support does not have the learner's inputs or outputs.
            DataError: labels for numbers, or numbers for labels.
            InferenceError: the posterior cannot be computed.
            UnsupportedError: the learner is in half precision.

        Warns:
            PrecisionWarning: distinct inputs or outcomes of a task are one number in the learner's precision.
        """
        support = self.conform(support).clone()
        with torch.no_grad():
            return shared(self).condition(support)

    @final
    @settled
    def meta_loss(self, tasks: TaskBatch) -> Float[Tensor, "B"]:
        """The loss of step 2, one value per task, differentiable in theta: -log p(query | support, theta) / M, nats,
        unless the method has another (`loss`).

        Raises:
            ShapeError: the tasks do not have the learner's inputs or outputs.
            DataError: labels for numbers, or numbers for labels.
            UnsupportedError: theta is in half precision, or was made in inference mode.
        """
        require_differentiable(self)
        return self.loss(self.conform_tasks(tasks))

    @final
    @settled
    def log_evidence(self, data: Data) -> Float[Tensor, "B"]:
        """log p(D | theta) of each task, phi integrated out, in nats.

        Raises:
            UnsupportedError: it has no form.
            ShapeError: as for `adapt`.
            DataError: as for `adapt`.
        """
        require_differentiable(self)
        return self.evidence(self.conform(data))

    @final
    @settled
    def surprise(self, support: Data, num_draws: int = 199, seed: int = 0) -> Float[Tensor, "B"]:
        """Prior-predictive tail probability of each task's points under theta: P(p(y' | x, theta) <= p(y | x, theta)).

        y' are draws from the prior predictive at the same inputs (Box 1980). Uniform where the model is true, and small
        where the points are less likely than theta expects; points that are *too* likely, as of less noise, have values
        near 1. It believes the model: `Surprise` asks real tasks instead, and looks both ways.

        Args:
            support: points of the tasks; a task without any has 1.
            num_draws: S; no value is below 1/(S + 1).
            seed: of the draws, anew for each task: a batch is as its tasks one by one.

        Raises:
            ShapeError: the support does not have the learner's inputs or outputs.
            DataError: no draws.
            InferenceError: a log density is not a number.
        """
        num_draws = some(num_draws, "num_draws", "draw")
        learner, support = self.frozen(), self.conform(support)
        result = torch.ones(support.num_tasks, dtype=torch.float64)
        with torch.no_grad():
            for b in support.counts.nonzero().flatten().tolist():
                own = support.select([b]).points(support.mask[b])
                draws = learner.condition(Data.empty(own)).predictive_of(own)
                drawn = draws.sample((num_draws,), generator_of(seed, own.x.device))
                outcomes = torch.cat([own.y, drawn[:, 0].to(own.y.dtype)])  # S+1 N *c, the task's own first
                copies = own.select([0] * len(outcomes))
                density = learner.condition(Data.empty(copies)).predictive_of(copies).log_prob(outcomes)
                if bool(density.isnan().any()):
                    raise InferenceError("expected log densities of the support, got NaN: is the learner trained?")
                result[b] = (density <= density[0]).double().mean()
        return result

    @abstractmethod
    def condition(self, support: Data) -> TaskPosterior:
        """p(phi | D, theta) of data that are checked: what `adapt` returns, differentiable in theta.

        The posterior may keep the tensors that it is given, and refers to theta itself.
        """

    def loss(self, tasks: TaskBatch) -> Float[Tensor, "B"]:
        """What `meta_loss` returns, of tasks that are checked: -log p(query | support, theta) / M by default."""
        query = tasks.query
        predictive = self.condition(tasks.support).predictive_of(query)
        return -predictive.log_prob(query.y, query.mask) / query.counts.clamp(min=1)

    def evidence(self, data: Data) -> Float[Tensor, "B"]:
        """What `log_evidence` returns, of data that are checked. Raises UnsupportedError where it has no form."""
        raise UnsupportedError(f"{type(self).__name__} has no closed form of the evidence: use a predictive objective")

    def joint_evidence(self, *data: Data) -> Float[Tensor, ""]:
        """log p of all these tasks together given theta alone, in nats, of data that are checked.

        It is the sum of `evidence`, as tasks are independent given theta, unless a subclass couples them: then it
        forgets what `remember` has kept. `fit_evidence` maximises it.

        Args:
            data: the tasks; where they differ in length, in several batches.
        """
        sums, seen = [], 0
        for each in data:
            with retelling(lambda task, seen=seen: seen + task):  # type: ignore[misc]
                sums.append(self.evidence(each).sum())
            seen += each.num_tasks
        return torch.stack(sums).sum()

    def remember(self, *data: Data) -> None:
        """Called by whoever trains on `joint_evidence`, with all meta-training tasks (checked): for learners to whom
        they say more than theta can hold. Tasks that were kept before are forgotten.
        """

    @property
    def kept_rows(self) -> int:
        """How many points of the meta-training tasks `remember` has kept as they are, inputs and outcomes: they are in
        `state_dict` and in a model folder. 0 unless a subclass keeps some.
        """
        return 0

    def __repr__(self) -> str:
        """One line: how it was constructed, what it predicts from what, how many numbers theta has, and the noise."""
        words = [plain.predicts(self.x_shape, self.outcomes), f"{plain.size(self)} in theta"]
        noise = self.noise_stddev()
        return ", ".join([f"{written(self)}: {words[0]}", words[1], *([] if noise is None else [plain.noise(noise)])])

    @final
    @settled
    def summary(self, tasks: Tasks | None = None) -> Summary:
        """What was learned, in words and numbers: prints as a page, and has tables where numbers have names.

        Of a linear mixed model these are fixed effects with standard errors, variances of random effects and their
        correlations, and the noise, in the user's units (`bayesmeta.summaries.MixedModelSummary`); of other learners it
        says in words what they are and how much tasks differ to them.

        Args:
            tasks: the tasks that it was trained on, a `TaskDataset`: they give names to columns, and standard errors,
                likelihoods and shares of variance are of them. Without tasks there are none.

        Raises:
            DataError: something that is no tasks.
            ShapeError: tasks that are not the learner's.

        Example:
            >>> import bayesmeta as bm
            >>> tasks = bm.tasks.Sawtooth().dataset(20, 10, seed=0)
            >>> learner = bm.Standardized(bm.MAML(bm.MLP(1, [8])))
            >>> _ = bm.fit(learner, tasks, steps=20, progress=False)
            >>> print(learner.summary(tasks).learned[0])
            ('numbers of theta', '27')
        """
        columns = Columns.of(self.x_shape, self.outcomes, _schema(tasks))
        data = [] if tasks is None else [self.conform(part.data) for _, part in tasks.by_length()]
        with torch.no_grad():
            return self.described(columns, *data)

    def described(self, columns: Columns, *data: Data) -> Summary:
        """What `summary` returns, of tasks that are checked: in words, unless a subclass has numbers with names.

        Args:
            columns: names and units of inputs and outcomes, as this learner sees them.
            data: the tasks of the training, or nothing; where they differ in length, in several batches.
        """
        learned = [("numbers of theta", plain.size(self, bare=True))]
        some = None
        if data:
            count = min(data[0].num_tasks, SUMMARY_TASKS)
            some = data[0].select(torch.arange(count, device=data[0].x.device))
        try:
            prior = self.condition(self._nothing() if some is None else Data.empty(some))
            own = getattr(prior, "mean", None)
            if isinstance(own, dict):
                learned.append(("numbers of a task", f"{sum(each[0].numel() for each in own.values()):,}"))
            if some is not None:
                learned += plain.differences(prior.at(some.x), some.mask, columns)
        except BayesMetaError:  # without a labelled point it may not know its classes
            pass
        noise = self.noise_stddev()
        if noise is not None:
            learned.append(("noise", plain.noise(noise.double().cpu() * columns.y_scale, named=False)))
        learned += plain.scales(self, columns)
        if data:
            learned += self._log_likelihood(columns, data)
        facts = [("predicts", plain.predicts(self.x_shape, self.outcomes))]
        if data:
            facts.append(("data", plain.data(data)))
        return PlainSummary(
            title=written(self),
            kind=plain.kind(type(self)),
            facts=tuple(facts),
            method=plain.method(type(self)),
            learned=tuple(learned),
        )

    def _nothing(self) -> Data:
        """One task without points."""
        dtype, device = self.placement()
        y_shape = (1,) if self.outcomes is None else self.outcomes.y_shape
        x = torch.zeros(1, 0, *((1,) if self.x_shape is None else self.x_shape), dtype=dtype, device=device)
        y = torch.zeros(1, 0, *y_shape, dtype=dtype if y_shape else torch.long, device=device)
        return Data(x, y, torch.zeros(1, 0, dtype=torch.bool, device=device))

    def _log_likelihood(self, columns: Columns, data: Sequence[Data]) -> list[tuple[str, str]]:
        try:
            total = float(self.joint_evidence(*data))
        except BayesMetaError:
            return []
        points = sum(int(each.counts.sum()) for each in data)
        return [("logLik", f"{total - points * columns.log_volume:.2f}, of all tasks of the training")]

    def noise_stddev(self) -> Float[Tensor, "C"] | None:
        """The deviation of the noise of each outcome, in the user's units; None where there is none that all points
        have in common.
        """
        if not isinstance(self.outcomes, Numbers):
            return None
        found = (each for each in self.modules() if isinstance(each, Noise))
        noise = next((each for each in found if each.num_outputs == self.outcomes.count), None)
        return None if noise is None else noise.variance().detach().sqrt()

    def log_hyperprior(self) -> Float[Tensor, ""]:
        """log p(theta), in nats, up to a constant: 0 unless a subclass has one."""
        return torch.zeros((), dtype=torch.float32, device="cpu")  # joins any precision and device

    def configure_optimizer(self, lr: float = 1e-3) -> torch.optim.Optimizer:
        """The optimizer that `fit` uses for theta: Adam unless a subclass has reason for another."""
        return torch.optim.Adam([p for p in self.parameters() if p.requires_grad], lr=lr)

    def prepare(self, tasks: Data) -> None:
        """Called once by `fit` with the meta-training points, before the first step; for statistics of the data."""

    def anneal(self, progress: float) -> None:
        """Called by `fit` before every step with the share of the training that is done, 0 to 1, and with 1 at its end;
        for schedules.
        """

    @settled
    def frozen(self) -> "Learner":
        """A copy whose theta never changes: no training, loading or moving of this learner reaches it.

        Raises:
            UnsupportedError: theta is in half precision.
        """
        return snapshot(self)

    def conform(self, data: Data) -> Data:
        """`data` in the learner's precision and on its device.

        Raises:
            ShapeError: the data do not have the learner's inputs or outputs.
            DataError: they are not `Data`, or have labels where the learner predicts numbers, numbers where it predicts
                labels, or numbers that are not of its kind (`Counts`, `Positives`).
            UnsupportedError: the learner is in half precision, or has no place for known noise or for outcomes that are
                missing.
        """
        if not isinstance(data, Data):
            raise DataError(f"expected Data, got {type(data).__name__}: make it with Data.from_arrays(x, y)")
        require_place(data, self.title, self.known_noise, self.partial_outcomes)
        spec = data.spec
        dtype, device = self.placement()
        expected = DataSpec(
            spec.num_tasks,
            x_shape=spec.x_shape if self.x_shape is None else self.x_shape,
            y_shape=spec.y_shape if self.outcomes is None else self.outcomes.y_shape,
            dtype=spec.dtype if dtype is None else dtype,
            device=spec.device if device is None else device,
        )
        require_precision(expected.dtype, type(self).__name__)
        require_kind(expected.y_shape, spec.y_shape, self.title)
        data = expected.conform(data)
        if isinstance(self.outcomes, Numbers):
            self.outcomes.require(data.y, lambda: data.known, self.title)
        return data

    def conform_tasks(self, tasks: TaskBatch) -> TaskBatch:
        """Support and query in the learner's precision and on its device. Raises ShapeError like `conform`."""
        return replace(tasks, support=self.conform(tasks.support), query=self.conform(tasks.query))

    def placement(self) -> tuple[torch.dtype | None, torch.device | None]:
        """The precision and device that data are converted to; None leaves them as they are."""
        parameter = first_parameter(self)
        return (None, None) if parameter is None else (parameter.dtype, parameter.device)


def _schema(tasks: Tasks | None) -> TableSchema | None:
    if tasks is None:
        return None
    if not hasattr(tasks, "by_length") or not hasattr(tasks, "schema"):
        raise DataError(f"expected a TaskDataset, got {type(tasks).__name__}: see TaskDataset.from_frame")
    schema: TableSchema | None = tasks.schema
    return schema


def require_place(data: Data, title: str, known_noise: bool, partial_outcomes: bool) -> None:
    """Refuse what is known of outcomes and would not be used: their noise, or that some were not measured.

    Args:
        data: any.
        title: who would not use it.
        known_noise: whether there is a place for known noise.
        partial_outcomes: whether some outcomes of a point may be missing.

    Raises:
        UnsupportedError: there is no place for what is known.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.ALPaCA(bm.Identity(1), num_outputs=2)
        >>> try:
        ...     learner.adapt(bm.Data.partly_known([0.0, 1.0], [[0.1, 5.0], [0.9, float("nan")]]))
        ... except UnsupportedError as error:
        ...     print(str(error).split(":")[0])
        expected points with all their outcomes, got some that lack one
    """
    if data.noise is None:
        return
    if not torch.compiler.is_compiling():  # recorded code decides nothing
        lacking = data.noise.isinf()
        if not partial_outcomes and bool(lacking.any()):
            raise UnsupportedError(
                f"expected points with all their outcomes, got some that lack one: {title} cannot leave out a part of "
                "a point. Take wrappers.Separately, a learner for each outcome, or leave such points out "
                "(frame.dropna(subset=[...]), data.complete)"
            )
        if partial_outcomes and not bool(data.noise[~lacking].any()):
            return
    if not known_noise:
        raise refusal_of_noise(title)


def refusal_of_noise(title: str) -> UnsupportedError:
    """The error for data whose noise is known, and a learner that would not use it.

    Args:
        title: whose error it is.

    Example:
        >>> import bayesmeta as bm
        >>> try:
        ...     bm.ConditionalNeuralProcess(bm.Identity(1)).adapt(bm.Data.from_arrays([0.0], [1.0], yerr=0.1))
        ... except UnsupportedError as error:
        ...     print(str(error).split(":")[0])
        expected data without known noise (yerr), got some
    """
    return UnsupportedError(
        f"expected data without known noise (yerr), got some: {title} has no place for it and would take all outcomes "
        "for equally precise. ALPaCA, MixtureALPaCA, R2D2Regressor and DeepKernelTransfer of one output use it "
        "exactly, MAML and its kin with Gaussian noise approximately"
    )


def require_differentiable(learner: Learner) -> None:
    """Refuse to differentiate theta that was made in inference mode.

    Args:
        learner: whose theta it is.

    Raises:
        UnsupportedError: it was.

    Example:
        >>> import bayesmeta as bm
        >>> with torch.inference_mode():
        ...     learner = bm.ALPaCA(bm.Identity(1))
        >>> try:
        ...     require_differentiable(learner)
        ... except UnsupportedError as error:
        ...     print(str(error).split(":")[0])
        expected parameters that were made outside of torch.inference_mode, got those of ALPaCA
    """
    parameter = first_parameter(learner)
    if parameter is not None and parameter.is_inference():
        raise UnsupportedError(
            f"expected parameters that were made outside of torch.inference_mode, got those of "
            f"{type(learner).__name__}: they have no gradients. Make or load the learner outside of it, or take "
            "copy.deepcopy(learner) there"
        )


def marginal_loss(learner: Learner, tasks: TaskBatch) -> Float[Tensor, "B"]:
    """-mean_m log p(query_m | support, theta) of tasks that are checked: each query point on its own, in nats."""
    query = tasks.query
    y = query.y if query.y.is_floating_point() else torch.where(query.mask, query.y, 0)  # padding is no class
    each = learner.condition(tasks.support).predictive_of(query).marginal_log_prob(y)
    return -torch.where(query.mask, each, 0.0).sum(-1) / query.counts.clamp(min=1)


class ExplicitLearner(Learner):
    """A learner whose phi is named tensors with an explicit prior p(phi | theta) and likelihood p(y | f(x; phi)).

    A subclass gives `prior`, `likelihood` and `forward`, the network outputs f(x; phi), besides what every learner
    gives. With them come the log joint density, the no-U-turn sampler (`Sampled`) and a Pyro program.

    Attributes:
        prior: p(phi | theta).
        likelihood: p(y | f).

    Example:
        >>> import bayesmeta as bm
        >>> class Slope(bm.ExplicitLearner):
        ...     '''y = slope x + noise: one slope for each task.'''
        ...     outcomes = bm.Numbers(1)
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.prior = bm.priors.StandardNormal({"slope": (1,)})
        ...         self.likelihood = bm.likelihoods.Gaussian(bm.noise.DiagonalNoise(1, initial=0.01))
        ...     def forward(self, phi, x):
        ...         return phi["slope"][..., None, :] * x
        ...     def condition(self, support):
        ...         raise bm.UnsupportedError("expected a sampler to adapt: use Sampled(Slope())")
        >>> log_joint = Slope().log_joint(bm.Data.from_arrays([1.0, 2.0], [0.6, 1.0]))
        >>> slopes = torch.linspace(0.0, 1.0, 11)  # 11 draws for the one task
        >>> density = log_joint({"slope": slopes[:, None, None]})
        >>> density.shape, slopes[density[:, 0].argmax()].item()
        (torch.Size([11, 1]), 0.5)
    """

    prior: Prior
    likelihood: Likelihood

    @abstractmethod
    def forward(self, phi: Params, x: Float[Tensor, "B M *x"]) -> Float[Tensor, "*s B M K"]:
        """f(x; phi) at every point of every task, for one phi a task or for S draws of it."""

    @final
    @settled
    def log_joint(self, data: Data) -> LogJoint:
        """phi -> log p(y | x, phi) + log p(phi | theta), per task, in nats. Raises ShapeError like `conform`.

        What depends on theta alone is computed once: all values share that part of their graph.
        """
        require_differentiable(self)
        return settled(self.joint(self.conform(data)))

    def joint(self, data: Data) -> LogJoint:
        """What `log_joint` returns, of data that are checked."""
        given, density = self.likelihood.given(data), self.prior.density()
        return lambda phi: given(self.forward(phi, data.x)) + density(phi)
