"""Deep Meta-Learning in concept space (Zhou, Wu & Li 2018, arXiv:1802.03596): a discriminator helps to shape features.

    min over theta, D    E_tasks[ -log p(query | support, theta) / M ] + λ E_base[ -log softmax_y(D h(x)) ]

    phi          that of the learner inside
    prior        its own; of theta, p(theta) ∝ Π_base p(y | x, h, D)^w, a discriminative prior on the features h
    likelihood   that of the learner inside; of base points a softmax over all base classes, linear in h
    inference    that of the learner inside; of theta, by minibatches of base points

The discriminator D is a second likelihood. It informs h, which theta holds, and nothing else: what a task's posterior
predicts does not depend on it given h. So it stands where p(theta) stands, in `log_hyperprior`, with a power w.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from bayesmeta.arguments import some
from bayesmeta.data import Data
from bayesmeta.errors import DataError, ShapeError, UnsupportedError
from bayesmeta.learner import Learner, TaskPosterior
from bayesmeta.networks.network import Network
from bayesmeta.networks.requirements import require_pointwise
from bayesmeta.outcomes import Numbers
from bayesmeta.tasks.base_points import BasePoints
from bayesmeta.wrappers.base import Wrapper
from bayesmeta.wrappers.standardized import Standardized
from bayesmeta.wrappers.with_hyperprior import WithHyperprior

CHUNK = 1_024  # base points at a time where all of them count


class ConceptLearner(Wrapper):
    """Any learner on features that a linear softmax over all base classes, the discriminator, helps to shape.

    With few episodes, features see each class beside a few others only, and seldom. The labels of all classes say more,
    and cost one pass through the features. In all else it is the learner inside: the discriminator is a part of theta
    that no prediction depends on, and `learner.learner` alone is what is to be deployed.

    `fit` lowers the loss of tasks minus `log_hyperprior` divided by the number of points of the tasks: a base point
    counts as `weight` points of the tasks. Where episodes are drawn from the base images themselves, each image is one
    point, and `weight` is the λ of the paper. A simulator has infinitely many points, and there it has no weight. Every
    step of training sees the next minibatch of base points, an estimate of the sum over all of them; outside of
    training all of them count.

    Base classes must not include classes that the learner is tested on. That cannot be seen here, but
    `BasePoints.require_apart` finds test images that are among the base points.

    Args:
        learner: what has `features` of each point on its own, also inside of `Standardized`, `WithHyperprior` or
            another `ConceptLearner`; other wrappers go around it. (A `Standardized` around it would leave the base
            points in other units than the tasks.)
        points: base points, inputs like those of the tasks. A model folder does not keep them: training a learner that
            was loaded begins with `take_points`.
        weight: w, of a base point.
        batch_size: base points in a minibatch.

    Raises:
        UnsupportedError: the learner has no features, or another wrapper around them.
        ShapeError: points of another shape.
        DataError: a weight that is negative or not finite.

    Example:
        >>> import torch
        >>> import bayesmeta as bm
        >>> images = bm.tasks.ImageClasses.from_arrays(torch.rand(48, 16, 16), torch.arange(48) % 12)
        >>> points = bm.tasks.BasePoints.from_images(images)
        >>> learner = bm.wrappers.ConceptLearner(bm.Prototypical(bm.Conv4((1, 16, 16), 8)), points, weight=0.5)
        >>> learner.discriminator
        Linear(in_features=8, out_features=12, bias=True)
        >>> episodes, split = bm.tasks.Episodes(images, ways=5), bm.tasks.ClassSplit.at(1, query=2)
        >>> before = learner.log_hyperprior().item()
        >>> _ = bm.fit(learner, episodes, steps=20, lr=0.01, split=split, progress=False)
        >>> before < learner.log_hyperprior().item()  # w Σ log p(label of a base point), in nats
        True
    """

    steps_seen: Tensor
    base_x: Tensor
    base_y: Tensor

    def __init__(self, learner: Learner, points: BasePoints, weight: float = 1.0, batch_size: int = 64) -> None:
        super().__init__(learner)
        if not 0.0 <= weight < math.inf:
            raise DataError(f"expected a weight that is a number of 0 or more, got {weight}")
        self.weight, self.batch_size = float(weight), some(batch_size, "batch_size", "base point")
        features = _features(learner)
        dtype, device = learner.placement()
        dtype = dtype if not list(features.parameters()) else next(features.parameters()).dtype
        self.discriminator = nn.Linear(
            features.num_outputs, points.num_classes, dtype=dtype or torch.float32, device=device
        )
        self.register_buffer("steps_seen", torch.zeros((), dtype=torch.int64, device=device))
        self._by_minibatch = False
        self.take_points(points)

    def take_points(self, points: BasePoints) -> None:
        """Learn from these base points from now on: for a learner that was loaded, whose own were not kept.

        Args:
            points: of the same classes, in the same order.

        Raises:
            ShapeError: of another shape.
            DataError: of another number of classes.
        """
        x_shape, classes = _features(self.learner).x_shape, self.discriminator.out_features
        if points.x_shape != tuple(x_shape):
            raise ShapeError(f"expected base points of shape {tuple(x_shape)}, got {points.x_shape}")
        if points.num_classes != classes:
            raise DataError(f"expected base points of {classes} classes, got {points.num_classes}")
        weight, size = self.discriminator.weight, min(self.batch_size, len(points))
        self.points = points
        # of the step that is taken, as buffers: a step that is compiled reads them as its inputs
        self.register_buffer("base_x", weight.new_zeros(size, *x_shape), persistent=False)
        labels = torch.zeros(size, dtype=torch.int64, device=weight.device)
        self.register_buffer("base_y", labels, persistent=False)

    @override
    def log_hyperprior(self) -> Float[Tensor, ""]:
        """What the learner inside says of theta, and w Σ log p(y | x, h, D) over all base points, in nats.

        Between the steps of a training the sum is estimated: of a minibatch, times their number over its size.

        Raises:
            DataError: there are no base points.
        """
        points = self.points.require_points()
        if self._by_minibatch:
            total = self._log_density(self.base_x, self.base_y) * (len(points) / len(self.base_y))
        else:
            total = torch.stack([self._log_density(each.x[0], each.y[0]) for each in points.chunks(CHUNK)]).sum()
        return self.learner.log_hyperprior() + self.weight * total

    def logits(self, x: Float[Tensor, "P *x"]) -> Float[Tensor, "P K"]:
        """log p(base class | x) up to a constant of each point, by the discriminator.

        Args:
            x: inputs, such as those of base points.
        """
        return self.discriminator(_concepts(self.learner, x.to(self.discriminator.weight)))

    def _log_density(self, x: Float[Tensor, "P *x"], y: Tensor) -> Float[Tensor, ""]:
        return -functional.cross_entropy(self.logits(x), y.to(self.discriminator.weight.device), reduction="sum")

    @override
    def prepare(self, tasks: Data) -> None:
        """Prepare the learner inside. Raises DataError where there are no base points."""
        self.points.require_points()
        self.learner.prepare(tasks)

    @override
    def anneal(self, progress: float) -> None:
        """Take the next minibatch; with 1, the end of a training, all base points count again."""
        self.learner.anneal(progress)
        self._by_minibatch = progress < 1.0
        if self._by_minibatch:
            batch = self.points.minibatch(int(self.steps_seen), self.batch_size)
            self.base_x.copy_(batch.x[0])
            self.base_y.copy_(batch.y[0])
            self.steps_seen.add_(1)

    @override
    def configure_optimizer(self, lr: float = 1e-3) -> torch.optim.Optimizer:
        """That of the learner inside, which also trains the discriminator, at `lr`."""
        optimizer = self.learner.configure_optimizer(lr)
        own = [parameter for parameter in self.discriminator.parameters() if parameter.requires_grad]
        if own:
            optimizer.add_param_group({"params": own, "lr": lr})
        return optimizer

    @override
    def condition(self, support: Data) -> TaskPosterior:
        return self.learner.condition(support)


def _features(learner: Learner) -> Network:
    """The features of the learner inside of wrappers. Raises UnsupportedError where there are none."""
    inner = learner
    while isinstance(inner, Standardized | WithHyperprior | ConceptLearner):
        inner = inner.learner
    if isinstance(inner, Wrapper):
        raise UnsupportedError(
            f"expected a learner with features, got {inner.title}: put the ConceptLearner inside of that wrapper"
        )
    features = getattr(inner, "features", None)
    if features is None:
        raise UnsupportedError(
            f"expected a learner with features, such as Prototypical, R2D2 or ALPaCA, got {inner.title}, which has none"
        )
    require_pointwise(features)
    assert isinstance(features, Network)
    return features


def _concepts(learner: Learner, x: Float[Tensor, "P *x"]) -> Float[Tensor, "P F"]:
    """The features of points in the units of a learner, whatever wrappers are around them."""
    if isinstance(learner, Standardized):
        shape = () if learner.outcomes is None else learner.outcomes.y_shape
        y = torch.zeros(1, len(x), *shape, dtype=x.dtype if isinstance(learner.outcomes, Numbers) else torch.int64)
        return _concepts(learner.learner, learner.standard(Data.full(x[None], y.to(x.device))).x[0])
    if isinstance(learner, Wrapper):
        return _concepts(learner.learner, x)
    return _features(learner)(x[None])[0]
