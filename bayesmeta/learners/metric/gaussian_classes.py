"""The model of prototypical networks with its phi by name: for samplers, programs, and whoever writes densities down.

    mean_c ~ N(m0, τ² I),   y_n ~ π,   h(x_n) | y_n ~ N(mean_{y_n}, σ² I)

It is a model of the inputs given the labels. What is observed at a point is its features, so that log p(D | phi) is
Σ_n log π_{y_n} N(h(x_n); mean_{y_n}, σ² I); given phi the label of a point is what Bayes' theorem says.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import Categorical
from typing_extensions import override

from bayesmeta.data import Data
from bayesmeta.distributions import common_normals
from bayesmeta.errors import UnsupportedError
from bayesmeta.heads.class_means import NearestMeanHead, log_density
from bayesmeta.heads.feature_classifier import HeadPosterior
from bayesmeta.learner import ExplicitLearner
from bayesmeta.learners.metric.base import DensityLearner
from bayesmeta.likelihoods import Likelihood
from bayesmeta.outcomes import Labels
from bayesmeta.priors import Prior
from bayesmeta.priors.prior import LOG_2PI, value_of
from bayesmeta.typing import Params


class GaussianClasses(ExplicitLearner):
    """Prototypical networks as an explicit learner: phi is `mean`, `C F`, the mean of every class.

    It has the theta of the classifier that it is made from, and adapts like it. `Sampled` and Pyro programs of it draw
    class means. Their predictions average p(y | x, phi) over draws, where the classifier also lets the query itself
    tell of the means (p(x | D) for every class): the two agree as the number of examples grows.

    Args:
        classifier: whose model it is, such as `bm.Prototypical`, with a fixed number of classes. Its power stays with
            its predictions: the model has none.

    Raises:
        UnsupportedError: the classifier reads its classes from every support, or its head is not a `NearestMeanHead`
            with a location.

    Example:
        >>> import torch
        >>> import bayesmeta as bm
        >>> classifier = bm.Prototypical(bm.Identity(1), num_classes=2).double()
        >>> model, support = bm.learners.GaussianClasses(classifier), bm.Data.from_labels([-2.0, 2.0], [0, 1])
        >>> model.log_joint(support)({"mean": torch.zeros(1, 2, 2, dtype=torch.float64)}).shape  # x, and 1
        torch.Size([1])
        >>> model.adapt(support).sample(3, torch.Generator().manual_seed(0))["mean"].shape
        torch.Size([3, 1, 2, 2])
    """

    prior: "ClassMeans"

    def __init__(self, classifier: DensityLearner) -> None:
        super().__init__()
        head, count = classifier.head, classifier.outcomes.count
        if count is None:
            raise UnsupportedError("expected a classifier with num_classes: phi has a mean for each of them")
        if not isinstance(head, NearestMeanHead) or head.location is None:
            raise UnsupportedError(
                f"expected a classifier by class means with a location, got the head {type(head).__name__}"
            )
        self.classifier = classifier
        self.x_shape, self.outcomes = classifier.x_shape, Labels(count)
        self.prior, self.likelihood = ClassMeans(head, count), LabelledFeatures(count)

    @override
    def forward(self, phi: Params, x: Float[Tensor, "B M *x"]) -> Float[Tensor, "*s B M C"]:
        """log π_c N(h(x); mean_c, σ² I)."""
        mean = phi["mean"]
        rows = self.classifier.rows(x).to(mean.dtype)
        noise = self.prior.head.noise().to(mean.dtype)
        frequencies = self.classifier.class_prior.shares().to(mean.dtype)
        return log_density(rows, mean, noise.expand(mean.shape[:-1])) + frequencies

    @override
    def condition(self, support: Data) -> HeadPosterior:
        return self.classifier.condition(support)


class ClassMeans(Prior):
    """mean_c ~ N(m0, τ² I), for each of C classes.

    Args:
        head: which has m0 and τ².
        num_classes: C.

    Example:
        >>> import bayesmeta as bm
        >>> prior = ClassMeans(bm.heads.NearestMeanHead(num_features=3), 2)
        >>> prior.log_prob(prior.sample(5)).shape
        torch.Size([5])
    """

    def __init__(self, head: NearestMeanHead, num_classes: int) -> None:
        super().__init__()
        self.head, self.num_classes = head, num_classes

    @property
    @override
    def mean(self) -> Params:
        assert self.head.location is not None  # what `GaussianClasses` asks for
        return {"mean": self.head.location.expand(self.num_classes, -1)}

    @override
    def log_prob(self, phi: Params) -> Float[Tensor, "*s B"]:
        mean, variance = self.mean["mean"], self.head.prior_variance()
        each = (value_of(phi, "mean", mean) - mean).square() / variance + variance.log() + LOG_2PI
        return -0.5 * each.sum((-1, -2))

    @override
    def sample(self, num_tasks: int, generator: torch.Generator | None = None) -> Params:
        mean = self.mean["mean"]
        normal = common_normals((num_tasks, *mean.shape), mean, generator)
        return {"mean": mean + self.head.prior_variance().sqrt() * normal}


class LabelledFeatures(Likelihood):
    """f_c = log p(c, h(x) | phi), the joint density of a label and of the features that are seen with it.

    Args:
        num_classes: C.

    Example:
        >>> import bayesmeta as bm
        >>> f = torch.tensor([[[-1.0, -3.0]]])
        >>> likelihood, data = LabelledFeatures(2), bm.Data.from_labels([0.0], [1])
        >>> likelihood(f).probs, likelihood.log_prob(f, data)  # the label given the features, and both
        (tensor([[[0.8808, 0.1192]]]), tensor([-3.]))
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.outcomes, self.network_outputs = Labels(num_classes), num_classes

    @override
    def forward(self, f: Float[Tensor, "*b K"]) -> Categorical:
        return Categorical(logits=f, validate_args=False)

    @override
    def observed(self, f: Float[Tensor, "*b K"]) -> "WithFeatures":
        return WithFeatures(logits=f, validate_args=False)

    @override
    def marginal(self, mean: Float[Tensor, "B M K"], variance: Float[Tensor, "B M K"]) -> Categorical:
        raise UnsupportedError("densities of features are not Gaussian: the classifier has the marginal in closed form")

    @override
    def curvature_root(self, f: Float[Tensor, "*b K"]) -> Float[Tensor, "*b K K"]:
        raise UnsupportedError("the likelihood is of the features, too: the posterior is known in closed form")

    @override
    def outcome(self, data: Data, f: Float[Tensor, "*b K"]) -> Int[Tensor, "B N"]:
        return self.labels_of(data, self.network_outputs)


class WithFeatures(Categorical):
    """A label, with the density of the features that were seen: log_prob(c) = f_c, which does not add up to 1.

    Example:
        >>> WithFeatures(logits=torch.tensor([-1.0, -3.0])).log_prob(torch.tensor(1))
        tensor(-3.)
    """

    def __init__(self, logits: Tensor, validate_args: bool | None = None) -> None:
        self.density = logits
        super().__init__(logits=logits, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "WithFeatures":
        """The same for more points."""
        return WithFeatures(self.density.expand(*batch_shape, -1), validate_args=False)

    @override
    def log_prob(self, value: Int[Tensor, "*#b"]) -> Float[Tensor, "*s"]:
        shape = torch.broadcast_shapes(value.shape, self.density.shape[:-1])
        density = self.density.expand(*shape, -1)
        return density.gather(-1, value.long().expand(shape)[..., None])[..., 0]
