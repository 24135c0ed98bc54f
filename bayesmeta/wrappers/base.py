"""What all learners share that wrap a learner, and all posteriors that wrap a posterior: what is not said is forwarded.

    Wrapper             is the learner inside it in everything that a subclass does not change
    Untrainable         is one whose theta is final: fitting is refused (`require_trainable`)
    WrappedPosterior    has seen what the posterior inside it has seen, and has its draws

Every hook of `Learner` is forwarded here, once, and a test fails for a hook that is not.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from typing_extensions import override

from bayesmeta.data import Data, TaskBatch
from bayesmeta.description import written
from bayesmeta.errors import UnsupportedError
from bayesmeta.learner import Learner, LinearMixedModel, TaskPosterior, refusal_of_noise
from bayesmeta.summaries import Coefficients, Columns, Summary
from bayesmeta.typing import Params


class Wrapper(Learner):
    """A learner that holds another one, and does as that one does in everything that a subclass does not change.

    A subclass gives `condition`, and overrides the hooks in which it differs.

    Args:
        learner: what is wrapped.

    Attributes:
        learner: what is wrapped; its theta is the wrapper's theta.

    Example:
        >>> import bayesmeta as bm
        >>> class Alias(Wrapper):
        ...     def condition(self, support):
        ...         return self.learner.condition(support)
        >>> alias = Alias(bm.ALPaCA(bm.Identity(2)))
        >>> alias.title, alias.x_shape, alias.outcomes
        ('Alias(ALPaCA)', (2,), Numbers(count=1))
    """

    learner: Learner

    def __init__(self, learner: Learner) -> None:
        super().__init__()
        self.learner = learner
        self.x_shape, self.outcomes, self.exchangeable = learner.x_shape, learner.outcomes, learner.exchangeable
        self.known_noise, self.coupled = learner.known_noise, learner.coupled
        self.coded_inputs = learner.coded_inputs

    @property
    def title(self) -> str:
        """The name of the wrapper's class, with the title of the learner inside: `Standardized(ALPaCA)`."""
        return f"{type(self).__name__}({self.learner.title})"

    @property
    @override
    def mixed_model(self) -> LinearMixedModel | None:
        return self.learner.mixed_model

    @override
    def loss(self, tasks: TaskBatch) -> Float[Tensor, "B"]:
        return self.learner.loss(tasks)

    @override
    def evidence(self, data: Data) -> Float[Tensor, "B"]:
        return self.learner.evidence(data)

    @override
    def joint_evidence(self, *data: Data) -> Float[Tensor, ""]:
        return self.learner.joint_evidence(*data)

    @override
    def remember(self, *data: Data) -> None:
        self.learner.remember(*data)

    @property
    @override
    def kept_rows(self) -> int:
        return self.learner.kept_rows

    @override
    def described(self, columns: Columns, *data: Data) -> Summary:
        return self.learner.described(columns, *data).titled(written(self))

    @override
    def noise_stddev(self) -> Float[Tensor, "C"] | None:
        return self.learner.noise_stddev()

    @override
    def log_hyperprior(self) -> Float[Tensor, ""]:
        return self.learner.log_hyperprior()

    @override
    def configure_optimizer(self, lr: float = 1e-3) -> torch.optim.Optimizer:
        return self.learner.configure_optimizer(lr)

    @override
    def prepare(self, tasks: Data) -> None:
        self.learner.prepare(tasks)

    @override
    def anneal(self, progress: float) -> None:
        self.learner.anneal(progress)

    @override
    def conform(self, data: Data) -> Data:
        data = self.learner.conform(data)
        if data.noise is not None and not self.known_noise:
            raise refusal_of_noise(self.title)
        return data

    @override
    def placement(self) -> tuple[torch.dtype | None, torch.device | None]:
        return self.learner.placement()


class Untrainable(Wrapper):
    """A wrapper whose theta is final: `fit` is refused, and what there is for `fit` alone is not there.

    Its loss is that of its own predictive, -log p(query | support) / M, whatever loss the learner inside was trained
    with.

    Args:
        learner: what is wrapped.

    Example:
        >>> import bayesmeta as bm
        >>> try:
        ...     bm.wrappers.VarianceScaled(bm.ALPaCA(bm.Identity(1))).configure_optimizer()
        ... except bm.UnsupportedError as error:
        ...     print(str(error).split(":")[0])
        expected a learner to train, got VarianceScaled, whose theta is final
    """

    @override
    def configure_optimizer(self, lr: float = 1e-3) -> torch.optim.Optimizer:
        """Raises UnsupportedError."""
        raise _refusal(self)

    @property
    @override
    def mixed_model(self) -> None:
        return None  # its methods set theta

    @override
    def loss(self, tasks: TaskBatch) -> Float[Tensor, "B"]:
        return Learner.loss(self, tasks)

    @override
    def joint_evidence(self, *data: Data) -> Float[Tensor, ""]:
        return Learner.joint_evidence(self, *data)

    @override
    def remember(self, *data: Data) -> None:
        """Do nothing: what the learner inside keeps is final, too."""

    @override
    def log_hyperprior(self) -> Float[Tensor, ""]:
        return Learner.log_hyperprior(self)

    @override
    def anneal(self, progress: float) -> None:
        """Do nothing: schedules have ended."""


def require_trainable(learner: Learner) -> None:
    """Refuse a learner whose theta is final: one that is `Untrainable`, or wraps one that is.

    What trains asks this first, so that it says the same of a wrapper that was made here, whose parameters are frozen,
    and of one that was loaded from a model folder.

    Args:
        learner: what is to be trained.

    Raises:
        UnsupportedError: its theta is final; the message says what to do.

    Example:
        >>> import bayesmeta as bm
        >>> require_trainable(bm.Standardized(bm.ALPaCA(bm.Identity(1))))  # raises nothing
    """
    if isinstance(learner, Untrainable):
        raise _refusal(learner)
    if isinstance(learner, Wrapper):
        require_trainable(learner.learner)


def _refusal(learner: Untrainable) -> UnsupportedError:
    return UnsupportedError(
        f"expected a learner to train, got {type(learner).__name__}, whose theta is final: train what it is made of, "
        "and make it anew"
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class WrappedPosterior(TaskPosterior):
    """The posterior of a wrapper: that of the learner inside, seen through the wrapper.

    A subclass gives `at` and `extended`, and `selected` where it has more of each task than `inner`. Draws of phi, and
    the number of points seen, are those of `inner`.

    Attributes:
        learner: the wrapper.
        inner: the posterior of the learner inside it.

    Example:
        >>> from dataclasses import replace
        >>> import bayesmeta as bm
        >>> class Mirrored(bm.wrappers.Wrapper):  # sees every input with its sign changed
        ...     def mirrored(self, data):
        ...         return bm.Data(-data.x, data.y, data.mask)
        ...     def condition(self, support):
        ...         inner = self.learner.condition(self.mirrored(support))
        ...         return MirroredPosterior(spec=support.spec, learner=self, inner=inner)
        >>> class MirroredPosterior(bm.wrappers.WrappedPosterior):
        ...     def at(self, x):
        ...         return self.inner.at(-x)
        ...     def extended(self, data):
        ...         return replace(self, inner=self.inner.extended(self.learner.mirrored(data)))
        >>> posterior = Mirrored(bm.MAML(bm.MLP(1, [4]))).adapt(bm.Data.from_arrays([0.0, 1.0], [0.3, 0.7]))
        >>> posterior.update(bm.Data.from_arrays([2.0], [1.1]))
        posterior of 1 task after 3 points
    """

    learner: Wrapper
    inner: TaskPosterior

    @property
    @override
    def points_seen(self) -> Int[Tensor, "B"] | None:
        return self.inner.points_seen

    @property
    @override
    def known_noise(self) -> bool:
        return self.learner.known_noise

    @override
    def coefficients(self, columns: Columns) -> Coefficients | None:
        return self.inner.coefficients(columns)

    @override
    def selected(self, tasks: Int[Tensor, "K"]) -> "WrappedPosterior":
        return replace(self, spec=self.spec.of_tasks(len(tasks)), inner=self.inner.selected(tasks))

    @override
    def sample(self, num_draws: int, generator: torch.Generator | None = None) -> Params:
        """Draws of phi as the posterior inside has them, each value `S B *shape`."""
        return self.inner.sample(num_draws, generator)
