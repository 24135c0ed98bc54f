"""A task's posterior as a BoTorch model: what the acquisition functions ask it."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from botorch.acquisition.objective import PosteriorTransform
from botorch.models.model import FantasizeMixin, Model
from botorch.posteriors.posterior import Posterior
from botorch.sampling.base import MCSampler
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from bayesmeta.data import Data
from bayesmeta.errors import DataError, ShapeError, UnsupportedError
from bayesmeta.interop.botorch.parts import ONE_POINT, ONE_TASK, Parts, latent, parts
from bayesmeta.interop.botorch.posteriors import PartsPosterior, is_ensemble, posterior_of
from bayesmeta.learner import Learner, TaskPosterior
from bayesmeta.predictives import Predictive


class TaskModel(Model, FantasizeMixin):
    """The posterior of a task as a BoTorch model, so that BoTorch's acquisition functions choose its next points.

    The prior is what the learner learned of other tasks; the points of this task come by `adapted`, or by a posterior
    that has seen them. Everything is in the user's units: inputs and outcomes are neither to be normalised nor
    standardised on the way, as the learner does this itself (`Standardized`). theta is no parameter of the model, so
    that nothing in BoTorch trains it.

    A posterior of several tasks is a batched model. A mixture of Gaussians that weigh the same (draws of phi or of
    theta) is what BoTorch calls an ensemble: it averages acquisition functions over the members, which are the last
    axis of `batch_shape`. Of mixtures with other weights, and of Student's t, BoTorch's analytic acquisition functions
    see mean and variance alone; `LogExpectedImprovement` of this module and those over draws (`qLogEI` and its kin)
    take them as they are.

    Args:
        posterior: of B tasks, with numbers as outcomes.
        data: the points that it has seen, which some acquisition functions ask for; None where they are not at hand.
        batch_shape: of the B tasks; `()` for one and `(B,)` for several by default.
        outputs: positions of the outputs that the model is of; all by default.

    Raises:
        UnsupportedError: the outcomes are labels, or an input is no vector.
        ShapeError: the tasks do not have this batch shape.
        DataError: an output that there is not.

    Example:
        >>> import bayesmeta as bm
        >>> from botorch.acquisition import LogExpectedImprovement
        >>> from bayesmeta.interop.botorch import TaskModel
        >>> learner = bm.ALPaCA(bm.Polynomial(1, 2))  # trained on other tasks, by bm.fit
        >>> x, y = torch.tensor([[0.0], [0.5]]).double(), torch.tensor([[0.1], [0.6]]).double()
        >>> model = TaskModel.adapted(learner, x, y)
        >>> LogExpectedImprovement(model, best_f=y.max())(torch.rand(5, 1, 1).double()).shape
        torch.Size([5])
        >>> model.condition_on_observations(x, y).task_posterior
        posterior of 1 task after 4 points
        >>> list(model.parameters())
        []
    """

    likelihood: None = None  # which `fantasize` asks for

    def __init__(
        self,
        posterior: TaskPosterior,
        data: Data | None = None,
        *,
        batch_shape: Sequence[int] | None = None,
        outputs: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        spec = posterior.spec
        if not spec.y_shape:
            raise UnsupportedError("expected outcomes that are numbers, got labels: there is nothing to optimise")
        if len(spec.x_shape) != 1:
            raise UnsupportedError(f"expected inputs that are vectors, got inputs of shape {spec.x_shape}")
        if batch_shape is None:
            batch_shape = () if spec.num_tasks == 1 else (spec.num_tasks,)
        tasks = torch.Size(batch_shape)
        if tasks.numel() != spec.num_tasks:
            raise ShapeError(f"expected a batch shape of {spec.num_tasks} tasks, got {tuple(tasks)}")
        self.task_posterior, self.data, self.task_shape = posterior, data, tasks
        self.outputs = _outputs(spec.y_shape[0], range(spec.y_shape[0]) if outputs is None else outputs)
        self._has_members: bool | None = None

    @classmethod
    def adapted(
        cls,
        learner: Learner,
        train_X: Float[Tensor, "*b n d"],
        train_Y: Float[Tensor, "*b n m"],
        train_Yvar: Float[Tensor, "*b n m"] | None = None,
        *,
        input_transform: None = None,
        outcome_transform: None = None,
    ) -> "TaskModel":
        """The model of a task of which these points are known, in float64 whatever the precision of the learner.

        Args:
            learner: trained on other tasks.
            train_X: the inputs, n may be 0; with leading axes those of several tasks.
            train_Y: the outcomes.
            train_Yvar: the known noise variance of each outcome, beside that which the learner has learned.
            input_transform: must be None: the learner has seen inputs as they are.
            outcome_transform: must be None: the learner has seen outcomes as they are.

        Raises:
            UnsupportedError: a transform is given.
            ShapeError: points that the learner does not take.
            DataError: points that the learner does not take.
        """
        return TaskModel(*adapted(learner, train_X, train_Y, train_Yvar, input_transform, outcome_transform))

    @property
    def num_outputs(self) -> int:
        """m."""
        return len(self.outputs)

    @property
    def batch_shape(self) -> torch.Size:
        """That of the tasks, and of an ensemble the number of its members."""
        return self.task_shape + (torch.Size([self._probe().num_parts]) if self._is_ensemble else torch.Size())

    @property
    def _is_ensemble(self) -> bool:  # type: ignore[override]
        """What BoTorch asks: whether acquisition functions are averaged over the members of a mixture."""
        if self._has_members is None:
            self._has_members = is_ensemble(self._probe())
        return self._has_members

    def _probe(self) -> Parts:
        """What a prediction consists of, at any point."""
        spec = self.task_posterior.spec
        zeros = torch.zeros((spec.num_tasks, 1, *spec.x_shape), dtype=spec.dtype, device=spec.device)
        with torch.no_grad():
            return parts(latent(self.task_posterior.predict(zeros)), ONE_POINT)

    @property
    def train_inputs(self) -> tuple[Float[Tensor, "*b n d"]]:
        """The inputs that have been seen, as BoTorch has them: a tuple of one tensor."""
        x = self._seen().x
        return (x.reshape(*self.task_shape, *x.shape[1:]),)

    @property
    def train_targets(self) -> Float[Tensor, "*b n"] | Float[Tensor, "*b m n"]:
        """The outcomes that have been seen, as BoTorch has them: an axis of outputs only where there are several."""
        y = self._seen().y[..., list(self.outputs)]
        y = y.reshape(*self.task_shape, *y.shape[1:])
        return y[..., 0] if self.num_outputs == 1 else y.mT

    def _seen(self) -> Data:
        if self.data is None or not bool(self.data.mask.all()):
            found = "none" if self.data is None else "tasks that differ in their number"
            raise UnsupportedError(
                f"expected the points that have been seen, got {found}: give them to TaskModel(data=)"
            )
        return self.data

    def posterior(  # type: ignore[override]  # BoTorch's mixin says less of it than its `Model`
        self,
        X: Float[Tensor, "*b q d"],
        output_indices: list[int] | None = None,
        observation_noise: bool | Float[Tensor, "*#b #q m"] = False,
        posterior_transform: PosteriorTransform | None = None,
    ) -> Posterior:
        """The posterior of f, jointly over the q points of each t-batch, in the precision of X.

        Args:
            X: the points, in the user's units.
            output_indices: of some outputs alone.
            observation_noise: True for outcomes in place of f. A tensor is known noise of outcomes, a variance beside
                the noise that the learner has learned.
            posterior_transform: is applied last.

        Raises:
            UnsupportedError: known noise, for which the learner has no place; a prediction that has no Gaussian parts,
                or whose f and noise do not separate.
            ShapeError: X is of other inputs.
        """
        found = self.parts(X, observation_noise)
        if output_indices is not None:
            found = found.of_outputs(_outputs(self.num_outputs, output_indices))
        result = posterior_of(found, self._is_ensemble)
        return result if posterior_transform is None else posterior_transform(result)

    def parts(self, X: Float[Tensor, "*b q d"], observation_noise: bool | Tensor = False) -> Parts:
        """The parts of the prediction, with leading axes broadcast(b, tasks)."""
        posterior, tasks = self.task_posterior, self.task_shape
        if X.ndim < 2 or X.shape[-1] != posterior.spec.x_shape[0]:
            raise ShapeError(f"expected X of shape (*b, q, {posterior.spec.x_shape[0]}), got {tuple(X.shape)}")
        batch, (q, size) = torch.broadcast_shapes(X.shape[:-2], tasks), X.shape[-2:]
        known = observation_noise if isinstance(observation_noise, Tensor) else None
        if known is not None and not posterior.known_noise:
            raise UnsupportedError(
                "expected observation_noise to be True or False, got a tensor: the learner has no place for noise of "
                "outcomes that is known (see Learner.known_noise)"
            )

        def view(predictive: Predictive, arranged: Callable[[Tensor], Tensor]) -> Predictive:
            if known is not None:
                return predictive.with_noise(arranged(known.expand(*batch, q, posterior.spec.y_shape[0])))
            return predictive if observation_noise else latent(predictive)

        X = X.expand(*batch, q, size)
        if q == 1 and batch[len(batch) - len(tasks) :] == tasks:  # single points: no task has to be repeated
            more = batch[: len(batch) - len(tasks)].numel()

            def by_task(value: Tensor) -> Tensor:
                return value.reshape(more, tasks.numel(), value.shape[-1]).transpose(0, 1)

            found = parts(view(posterior.predict(by_task(X)), by_task), ONE_POINT)
            found = found.each(lambda value: value.transpose(0, 1).reshape(*batch, *value.shape[2:]))
        else:

            def flat(value: Tensor) -> Tensor:
                return value.reshape(-1, *value.shape[-2:])

            found = parts(view(self._of_batch(batch).predict(flat(X)), flat), ONE_TASK)
            found = found.each(lambda value: value.reshape(*batch, *value.shape[1:]))
        found = found.each(lambda value: value.to(X.dtype))
        return found if self.outputs == tuple(range(posterior.spec.y_shape[0])) else found.of_outputs(self.outputs)

    def _places(self, batch: torch.Size) -> Tensor | None:
        """Which task each of a broadcast batch is; None where they are the tasks as they are."""
        if batch == self.task_shape:
            return None
        device = self.task_posterior.spec.device
        return torch.arange(self.task_shape.numel(), device=device).reshape(self.task_shape).expand(batch).flatten()

    def _of_batch(self, batch: torch.Size) -> TaskPosterior:
        places = self._places(batch)
        return self.task_posterior if places is None else self.task_posterior.select(places)

    @override
    def condition_on_observations(  # type: ignore[override]  # nothing else is taken
        self, X: Float[Tensor, "*b n d"], Y: Float[Tensor, "*y n m"], noise: Tensor | None = None
    ) -> "TaskModel":
        """The model after more points: the same as adapting on all of them at once.

        Args:
            X: their inputs.
            Y: their outcomes; leading axes that X does not have are further tasks, such as fantasies.
            noise: known noise variances of the outcomes, where the learner has a place for them.

        Raises:
            UnsupportedError: the model is of some of the outputs; or known noise, for which there is no place.
        """
        spec = self.task_posterior.spec
        if self.outputs != tuple(range(spec.y_shape[0])):
            raise UnsupportedError(
                "expected a model of all outputs to condition, got one of some: condition, then subset"
            )
        batch = torch.broadcast_shapes(X.shape[:-2], Y.shape[:-2], self.task_shape)
        if X.shape[-2] != Y.shape[-2]:
            raise ShapeError(f"expected X and Y of the same points, got {tuple(X.shape)} and {tuple(Y.shape)}")

        def flat(value: Tensor) -> Tensor:
            return value.expand(*batch, *value.shape[-2:]).reshape(batch.numel(), *value.shape[-2:])

        known = None if noise is None else flat(noise.expand(*noise.shape[:-2], *Y.shape[-2:]))
        new, places = Data.full(flat(X), flat(Y), known), self._places(batch)
        data = self.data if self.data is None or places is None else self.data.select(places)
        posterior = self._of_batch(batch).update(new)
        return TaskModel(posterior, None if data is None else data.append(new), batch_shape=batch)

    @override
    def fantasize(
        self, X: Tensor, sampler: MCSampler, observation_noise: Tensor | None = None, **kwargs: Any
    ) -> "TaskModel":
        """The models after outcomes at X that the model itself has drawn: one for each draw.

        Of an ensemble, each draw is of one of its members, and what is learned of it changes what is believed of them:
        the axis of members has length 1 from then on.

        Args:
            X: `*b n d`.
            sampler: draws the outcomes.
            observation_noise: known noise variances of the outcomes.
            kwargs: as BoTorch has them; the learner's outcomes always have gradients.
        """
        if X.shape[-2] > 0 and not self._is_ensemble:
            return super().fantasize(X, sampler, observation_noise, **kwargs)
        if X.shape[-2] == 0:
            drawn, noise = X.new_empty((*sampler.sample_shape, *X.shape[:-2], 0, self.num_outputs)), None
        else:
            drawn = sampler(PartsPosterior(self.parts(X, True if observation_noise is None else observation_noise)))
            noise = None if observation_noise is None else observation_noise.expand(drawn.shape[1:])
        model = self.condition_on_observations(X, drawn, noise=noise)
        return _OneMember(model) if self._is_ensemble else model

    def mixture(self) -> "TaskModel":
        """The same model, which BoTorch does not take for an ensemble: its posterior is a `PartsPosterior`.

        For acquisition functions that do not know ensembles: entropy searches, `MaxPosteriorSampling`, and the value of
        the knowledge gradient (`evaluate`).
        """
        model = TaskModel(self.task_posterior, self.data, batch_shape=self.task_shape, outputs=self.outputs)
        model._has_members = False
        return model

    @override
    def subset_output(self, idcs: list[int]) -> "TaskModel":
        """The model of some of the outputs.

        Args:
            idcs: their positions.
        """
        outputs = [self.outputs[index] for index in _outputs(self.num_outputs, idcs)]
        return TaskModel(self.task_posterior, self.data, batch_shape=self.task_shape, outputs=outputs)


class _OneMember(TaskModel):
    """A fantasy of an ensemble: a mixture that is not averaged, with an axis that BoTorch averages the ensemble over.

    Args:
        model: the mixture.
    """

    def __init__(self, model: TaskModel) -> None:
        super().__init__(model.task_posterior, model.data, batch_shape=model.task_shape, outputs=model.outputs)
        self._has_members = False

    @property
    @override
    def batch_shape(self) -> torch.Size:
        return self.task_shape + torch.Size([1])

    @override
    def parts(self, X: Tensor, observation_noise: bool | Tensor = False) -> Parts:
        found = super().parts(X, observation_noise)
        return found.each(lambda value: value.unsqueeze(found.log_weights.ndim - 1))


def adapted(
    learner: Learner,
    train_X: Tensor,
    train_Y: Tensor,
    train_Yvar: Tensor | None,
    input_transform: object,
    outcome_transform: object,
) -> tuple[TaskPosterior, Data]:
    """The posterior of the tasks that these points are of, in float64, and the points.

    Args:
        learner: trained on other tasks.
        train_X: the inputs.
        train_Y: the outcomes.
        train_Yvar: known noise variances, or None.
        input_transform: must be None.
        outcome_transform: must be None.

    Raises:
        UnsupportedError: a transform is given.
        ShapeError: the points do not fit each other.
    """
    for name, transform in (("input_transform", input_transform), ("outcome_transform", outcome_transform)):
        if transform is not None:
            raise UnsupportedError(
                f"expected no {name}, got {type(transform).__name__}: the learner was trained in the units of its "
                "tasks, and Standardized does the rest. In Ax give transforms=[] to the generator, "
                "input_transform_classes=None and outcome_transform_classes=[] to ModelConfig"
            )
    if train_X.ndim < 2 or train_X.shape[:-1] != train_Y.shape[:-1]:
        raise ShapeError(f"expected train_X and train_Y of the same points, got {train_X.shape} and {train_Y.shape}")
    batch = train_X.shape[:-2]

    def flat(value: Tensor) -> Tensor:
        return value.detach().double().reshape(batch.numel(), *value.shape[-2:])

    data = Data.full(flat(train_X), flat(train_Y), None if train_Yvar is None else flat(train_Yvar))
    return learner.frozen().double().adapt(data), data


def _outputs(num_outputs: int, indices: Sequence[int]) -> tuple[int, ...]:
    """Positions of outputs, counted from the first."""
    try:
        return tuple(range(num_outputs)[index] for index in indices)
    except (IndexError, TypeError) as error:
        raise DataError(f"expected positions of {num_outputs} outputs, got {list(indices)}") from error
