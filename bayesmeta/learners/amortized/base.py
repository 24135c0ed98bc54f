"""What learners share whose inference is one pass of a network: neural processes.

    encode(support) -> what is kept        decode(what is kept, x) -> K numbers at a point        head -> a predictive

    phi         the function itself, or what is kept of it
    prior       what is decoded when nothing has been seen
    likelihood  the head
    inference   one pass of the network, amortised over tasks

Trained on -log p(query | support), such a network comes as near to the posterior predictive of the tasks as it can:
what is lost is a divergence, so that the regret to the exact predictive says how good the inference is.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from bayesmeta.data import Data
from bayesmeta.errors import UnsupportedError
from bayesmeta.heads.output import CategoricalHead, OutputHead, Shown
from bayesmeta.learner import Learner, Refit
from bayesmeta.predictives import Predictive


class AmortizedLearner(Learner):
    """A learner that reads a support in one pass of a network. A subclass gives `encode` and `decode`.

    Args:
        x_shape: shape of one input.
        head: what the numbers that the network gives mean, and with it what the outcomes are.

    Raises:
        UnsupportedError: a head that is not an `OutputHead`.

    Example:
        >>> import torch
        >>> import bayesmeta as bm
        >>> class Level(bm.learners.AmortizedLearner):
        ...     '''Predicts N(a × the mean outcome, 1): a is learned.'''
        ...     def __init__(self):
        ...         super().__init__((1,), bm.heads.GaussianHead())
        ...         self.share = torch.nn.Parameter(torch.ones(()))
        ...     def encode(self, points):
        ...         return (points.y * points.mask[..., None]).sum(1) / points.counts.clamp(min=1)[:, None]
        ...     def decode(self, kept, x):
        ...         mean = self.share * kept[:, None].expand(-1, x.shape[1], -1)
        ...         return torch.cat([mean, torch.zeros_like(mean)], -1)
        >>> Level().adapt(bm.Data.from_arrays([0.0, 1.0], [3.0, 5.0])).predict([2.0])
        prediction at 1 point: mean [4], sd [1]
    """

    def __init__(self, x_shape: tuple[int, ...], head: OutputHead) -> None:
        super().__init__()
        if not isinstance(head, OutputHead):
            raise UnsupportedError(f"expected an output head such as GaussianHead(), got {type(head).__name__}")
        self.x_shape, self.head, self.outcomes = x_shape, head, head.outcomes

    @abstractmethod
    def encode(self, points: Data) -> Any:
        """What is kept of support points.

        Args:
            points: with `head.num_inputs` numbers as outcome; of labels, each class as a task (`OutputHead.shown`).
        """

    @abstractmethod
    def decode(self, kept: Any, x: Float[Tensor, "L M *x"]) -> Float[Tensor, "L M K"]:
        """`head.size` numbers at each query point, of which none may depend on the other query points.

        Args:
            kept: what `encode` gives.
            x: query points.
        """

    @override
    def condition(self, support: Data) -> "EncodedPosterior":
        shown = self.head.shown(support)
        return EncodedPosterior(
            spec=support.spec, learner=self, support=support, shown=shown, kept=self.encode(shown.points)
        )

    @override
    def prepare(self, tasks: Data) -> None:
        """Start the frequencies of the classes at those of the meta-training points, where classes have names."""
        if isinstance(self.head, CategoricalHead):
            self.head.class_prior.take_frequencies(tasks.y[tasks.mask])


@dataclass(frozen=True, eq=False, kw_only=True)
class EncodedPosterior(Refit):
    """What a network has read of the support. More points mean reading all of them again.

    Attributes:
        learner: theta.
        support: all points seen.
        shown: the support as the network sees it.
        kept: what it keeps of it.

    Example:
        >>> import bayesmeta as bm
        >>> bm.ConvCNP().adapt(bm.Data.from_arrays([0.0, 1.0], [0.3, 0.7])).predict([0.5]).stddev.shape
        torch.Size([1, 1, 1])
    """

    learner: AmortizedLearner
    shown: Shown
    kept: Any

    @override
    def at(self, x: Float[Tensor, "B M *x"]) -> Predictive:
        raw = self.learner.decode(self.kept, self.shown.queries(x))
        return self.learner.head.predictive(raw, self.shown)
