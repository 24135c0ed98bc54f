"""Hyperparameters that each task has of its own: a scale of its noise, its signal or its inputs.

    s_t = e^{δ z_t},   z_t ~ N(0, 1)

δ, the deviation of the logarithm of the scale across tasks, is learned; the typical scale, of z = 0, is theta's own.
"""

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from bayesmeta.description import Described
from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.learner import Learner
from bayesmeta.wrappers.base import Wrapper
from bayesmeta.wrappers.rescaled import require_gaussian_prior


class TaskHyperparameter(Described, nn.Module, ABC):
    """A number z ~ N(0, 1) of each task, and how far it may move the task, δ: what `TaskQuadrature` integrates out.

    A hyperparameter of your own is an `InputHyperparameter` or a `ScaleHyperparameter`.

    Args:
        deviation: where δ starts: at 0 all tasks are alike.

    Attributes:
        deviation: δ, of either sign, since z is as likely as -z: its size counts.

    Raises:
        DataError: a deviation that is negative or not finite.

    Example:
        >>> import bayesmeta as bm
        >>> noise = bm.wrappers.NoiseScale(deviation=0.5)
        >>> isinstance(noise, bm.wrappers.TaskHyperparameter)
        True
        >>> [round(scale, 2) for scale in noise.scale(torch.tensor([-2.0, 0.0, 2.0])).tolist()]  # quiet, typical, loud
        [0.37, 1.0, 2.72]
    """

    def __init__(self, deviation: float = 0.3) -> None:
        super().__init__()
        if not 0.0 <= deviation < math.inf:
            raise DataError(f"expected a deviation of 0 or more, got {deviation}")
        self.deviation = nn.Parameter(torch.tensor(float(deviation)))

    def scale(self, z: Float[Tensor, "T"]) -> Float[Tensor, "T"]:
        """e^{δ z}, the scale of each task."""
        return (self.deviation * z).exp()

    @abstractmethod
    def require(self, learner: Learner) -> None:
        """Refuse a learner of which this cannot be integrated out. Raises UnsupportedError."""


class InputHyperparameter(TaskHyperparameter):
    """A hyperparameter that says where in its inputs a task is seen: a scale, a shift, a warp of them.

    A subclass gives `inputs`. It goes with every learner that has an evidence.

    Args:
        deviation: where δ starts.

    Example:
        >>> import bayesmeta as bm
        >>> class InputShift(bm.wrappers.InputHyperparameter):
        ...     '''x + δ z: each task begins at a time of its own.'''
        ...     def inputs(self, x, z):
        ...         return x + (self.deviation * z).to(x.dtype).view(-1, *[1] * (x.ndim - 1))
        >>> learner = bm.wrappers.TaskQuadrature(bm.ALPaCA(bm.MLP(1, [16, 8])), InputShift(deviation=0.5))
        >>> learner.adapt(bm.Data.from_arrays([0.0, 1.0], [0.2, 0.4]))
        posterior of 1 task after 2 points
    """

    @abstractmethod
    def inputs(self, x: Float[Tensor, "T N *x"], z: Float[Tensor, "T"]) -> Float[Tensor, "T N *x"]:
        """Where a task with z is seen by the learner."""

    @override
    def require(self, learner: Learner) -> None:
        require_evidence(learner)


class ScaleHyperparameter(TaskHyperparameter):
    """A hyperparameter that says how large the noise of a task is, or what it does besides noise.

    A subclass gives `scales`. It goes with every learner whose prior predictive is a `GaussianPredictive`: ALPaCA,
    R2D2Regressor, DeepKernelTransfer.

    Args:
        deviation: where δ starts.

    Example:
        >>> import bayesmeta as bm
        >>> class Loudness(bm.wrappers.ScaleHyperparameter):
        ...     '''Tasks in units of their own: signal and noise are large together.'''
        ...     def scales(self, z):
        ...         return self.scale(z), self.scale(z)
        >>> learner = bm.wrappers.TaskQuadrature(bm.ALPaCA(bm.MLP(1, [16, 8])), Loudness())
        >>> learner.adapt(bm.Data.from_arrays([0.0, 1.0], [0.2, 0.4]))
        posterior of 1 task after 2 points
    """

    @abstractmethod
    def scales(self, z: Float[Tensor, "T"]) -> tuple[Float[Tensor, "T"], Float[Tensor, "T"]]:
        """a and b: how many times the deviation of the noise, and of f around its mean, a task with z has."""

    @override
    def require(self, learner: Learner) -> None:
        require_evidence(learner)
        require_gaussian_prior(learner, type(self).__name__)


class NoiseScale(ScaleHyperparameter):
    """The noise of each task has a deviation of its own, e^{δ z} times the typical one.

    Args:
        deviation: where δ starts. Deviations of the noise differ by a factor of e^{4 δ} between the middle 95 % of the
            tasks: tenfold at 0.6.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.wrappers.TaskQuadrature(bm.ALPaCA(bm.Identity(1)).double(), NoiseScale(1.0))
        >>> x = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
        >>> quiet = learner.adapt(bm.Data.from_arrays(x, [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]))
        >>> loud = learner.adapt(bm.Data.from_arrays(x, [0.0, 0.9, -0.6, 1.1, -0.3, 0.5]))
        >>> bool(quiet.predict([2.5]).stddev < 0.5 * loud.predict([2.5]).stddev)
        True
    """

    @override
    def scales(self, z: Float[Tensor, "T"]) -> tuple[Float[Tensor, "T"], Float[Tensor, "T"]]:
        return self.scale(z), torch.ones_like(z)


class SignalScale(ScaleHyperparameter):
    """What each task does around the mean function, f - m, is e^{δ z} times as large as typical; the noise is not.

    Args:
        deviation: where δ starts.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.wrappers.TaskQuadrature(bm.ALPaCA(bm.Identity(1)).double(), SignalScale(1.0))
        >>> far = bm.Data.from_arrays([0.0, 1.0], [0.0, 9.0])
        >>> mean = learner.adapt(far).predict([2.0]).mean
        >>> bool(mean > learner.learner.adapt(far).predict([2.0]).mean)  # a far task is shrunk less
        True
    """

    @override
    def scales(self, z: Float[Tensor, "T"]) -> tuple[Float[Tensor, "T"], Float[Tensor, "T"]]:
        return torch.ones_like(z), self.scale(z)


class InputScale(InputHyperparameter):
    """The inputs of each task are stretched by a factor of its own, x e^{δ z}: fast and slow tasks.

    They are stretched around 0, so that the origin matters: under `Standardized` it is the mean of the inputs.

    Args:
        deviation: where δ starts.

    Example:
        >>> import bayesmeta as bm
        >>> InputScale(0.5).inputs(torch.ones(2, 1, 1), torch.tensor([0.0, 2.0])).flatten().tolist()
        [1.0, 2.7182817459106445]
    """

    @override
    def inputs(self, x: Float[Tensor, "T N *x"], z: Float[Tensor, "T"]) -> Float[Tensor, "T N *x"]:
        return x * self.scale(z).to(x.dtype).view(-1, *[1] * (x.ndim - 1))


def require_evidence(learner: Learner) -> None:
    """Refuse a learner that has no evidence log p(D | theta), by which the values of z are weighted.

    Args:
        learner: what is asked.

    Raises:
        UnsupportedError: it has none.

    Example:
        >>> import bayesmeta as bm
        >>> require_evidence(bm.Standardized(bm.LLAMA(bm.MLP(1, [8]))))  # raises nothing
        >>> try:
        ...     require_evidence(bm.MAML(bm.MLP(1, [8])))
        ... except UnsupportedError as error:
        ...     print(str(error).split(":")[0])
        expected a learner with an evidence, got MAML
    """
    inside = learner
    while isinstance(inside, Wrapper):
        inside = inside.learner
    if type(inside).evidence is Learner.evidence:
        raise UnsupportedError(
            f"expected a learner with an evidence, got {learner.title}: what a task says of its own hyperparameters is "
            "weighted by log p(D | theta), which ALPaCA, R2D2Regressor, DeepKernelTransfer or LLAMA have"
        )
