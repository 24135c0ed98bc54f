"""Labels: of two classes by one number, of several by a softmax."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.distributions import Bernoulli as BernoulliDistribution
from torch.distributions import Categorical as CategoricalDistribution
from torch.distributions import Distribution
from typing_extensions import override

from bayesmeta.data import Data
from bayesmeta.distributions import contrasts, normal_nodes
from bayesmeta.likelihoods.hermite import HERMITE_NODES, HERMITE_WEIGHTS, positive_root
from bayesmeta.likelihoods.likelihood import Likelihood
from bayesmeta.likelihoods.score import Probabilities, Probability, Score
from bayesmeta.linalg import cholesky
from bayesmeta.outcomes import Labels


class Bernoulli(Likelihood):
    """y ~ Bernoulli(sigmoid(f)): labels 0 and 1, from K = 1 network output.

    Example:
        >>> import bayesmeta as bm
        >>> likelihood = bm.likelihoods.Bernoulli()
        >>> f = torch.tensor([[[0.0], [2.0]]])
        >>> likelihood(f).probs  # p(y = 1 | f)
        tensor([[0.5000, 0.8808]])
        >>> likelihood.marginal(f, torch.full_like(f, 4.0)).probs  # nearer to ½ where f is uncertain
        tensor([[0.5000, 0.7752]])
    """

    def __init__(self) -> None:
        super().__init__()
        self.outcomes, self.network_outputs = Labels(2), 1

    def forward(self, f: Float[Tensor, "*b K"]) -> Distribution:
        """The Bernoulli distribution with logits f."""
        return BernoulliDistribution(logits=f[..., 0], validate_args=False)

    def marginal(self, mean: Float[Tensor, "*b K"], variance: Float[Tensor, "*b K"]) -> Distribution:
        """The Bernoulli distribution with the probability E sigmoid(f), by Gauss-Hermite quadrature.

        The error of the probability is below 1e-5 up to a standard deviation of 3 in f, and 1e-2 at 10.
        """
        nodes, weights = HERMITE_NODES.to(mean), HERMITE_WEIGHTS.to(mean)
        probs = (torch.sigmoid(mean + positive_root(variance) * nodes) * weights).sum(-1)
        return BernoulliDistribution(probs=probs, validate_args=False)

    def curvature_root(self, f: Float[Tensor, "*b K"]) -> Float[Tensor, "*b K K"]:
        """√(p (1 - p)), accurate until it is too small for the format (|f| = 170 in float32)."""
        logs = nn.functional.logsigmoid
        return (0.5 * (logs(f) + logs(-f))).exp()[..., None]  # the root itself has no gradient at p = 0 or 1

    @override
    def score(self, data: Data) -> Score:
        labels = self.labels_of(data, 2)[..., None].to(data.x.dtype)
        return Score(data.mask[..., None].to(labels.dtype), labels, Probability())

    def pooled(self, data: Data) -> Float[Tensor, "K"]:
        """The log odds of class 1 among all points, with half a point of each class more."""
        counts = class_counts(self.labels_of(data, 2), data.mask, 2)
        return (counts[1:] / counts[:1]).log()

    def outcome(self, data: Data, f: Float[Tensor, "*b K"]) -> Float[Tensor, "B N"]:
        """The labels, in the floating precision of f."""
        return self.labels_of(data, 2).to(f.dtype)  # torch wants its labels in floating point


class Categorical(Likelihood):
    """y ~ Categorical(softmax(f)): labels 0 to C - 1, from K = C network outputs.

    Args:
        num_classes: C.

    Raises:
        DataError: fewer than two classes.

    Example:
        >>> import bayesmeta as bm
        >>> likelihood = bm.likelihoods.Categorical(3)
        >>> f, data = torch.tensor([[[2.0, 0.0, 0.0]]]), bm.Data.from_labels([[0.0]], [0])
        >>> likelihood(f).probs
        tensor([[[0.7870, 0.1065, 0.1065]]])
        >>> likelihood.log_prob(f, data)  # log 0.7870, in nats
        tensor([-0.2395])
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.outcomes, self.network_outputs = Labels(num_classes), num_classes

    def forward(self, f: Float[Tensor, "*b K"]) -> Distribution:
        """The categorical distribution with logits f."""
        return CategoricalDistribution(logits=f, validate_args=False)

    def marginal(self, mean: Float[Tensor, "*b K"], variance: Float[Tensor, "*b K"]) -> Distribution:
        """E softmax(f) of independent f, as `correlated_marginal`."""
        return self.correlated_marginal(mean, torch.diag_embed(variance))

    def correlated_marginal(self, mean: Float[Tensor, "*b K"], covariance: Float[Tensor, "*b K K"]) -> Distribution:
        """E softmax(f) by a fixed rule of `normal_nodes` over the K - 1 contrasts of f.

        Only differences between classes count: the covariance is centred first, and what all classes share changes
        nothing. For two classes it is Gauss-Hermite quadrature, the same as for `Bernoulli`. For more the Kullback-
        Leibler divergence from the truth is below .002 nats for up to 5 classes, and below .03 (.002 on average) for
        20, at standard deviations of up to 6 nats. (MacKay's probit rescaling, class by class, takes a variance that
        all classes share for doubt: .2 nats.)
        """
        basis = contrasts(self.network_outputs).to(mean)
        nodes, weights = (torch.from_numpy(value).to(mean) for value in normal_nodes(self.network_outputs - 1))
        centred = basis.mT @ covariance.to(mean.dtype) @ basis
        eye = torch.eye(centred.shape[-1], dtype=mean.dtype, device=mean.device)
        size = centred.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None].clamp(min=0.0)
        relative, absolute = (1e-10, 1e-8) if mean.dtype == torch.float64 else (1e-6, 1e-6)  # of nats squared
        root = basis @ cholesky(centred + (relative * size + absolute) * eye, "covariance of the outputs")
        logits = mean[..., None, :] + nodes @ root.mT  # *b S K
        log_probs = (logits.log_softmax(-1) + weights.log()[:, None]).logsumexp(-2)
        return CategoricalDistribution(logits=log_probs, validate_args=False)

    def curvature_root(self, f: Float[Tensor, "*b K"]) -> Float[Tensor, "*b K K"]:
        """diag(√p) - p √pᵀ, so that R Rᵀ = diag(p) - p pᵀ; of rank K - 1, as a constant added to f changes nothing."""
        root = (0.5 * f.log_softmax(-1)).exp()  # √p, with a finite gradient also where p is 0
        return torch.diag_embed(root) - root.square()[..., :, None] * root[..., None, :]

    @override
    def score(self, data: Data) -> Score:
        classes = torch.arange(self.network_outputs, device=data.y.device)
        labels = (self.labels_of(data, self.network_outputs)[..., None] == classes).to(data.x.dtype)
        return Score(data.mask[..., None].to(labels.dtype), labels, Probabilities())

    def pooled(self, data: Data) -> Float[Tensor, "K"]:
        """The log frequencies of the classes among all points, with half a point of each more; they sum to zero."""
        logs = class_counts(self.labels_of(data, self.network_outputs), data.mask, self.network_outputs).log()
        return logs - logs.mean()

    def outcome(self, data: Data, f: Float[Tensor, "*b K"]) -> Int[Tensor, "B N"]:
        """The labels, with 0 in place of padding."""
        return self.labels_of(data, self.network_outputs)


def class_counts(labels: Int[Tensor, "B N"], mask: Bool[Tensor, "B N"], num_classes: int) -> Float[Tensor, "C"]:
    """How many real points each class has, and half a point more; float64.

    Args:
        labels: of the points.
        mask: True = real.
        num_classes: C.

    Example:
        >>> class_counts(torch.tensor([[0, 1, 1]]), torch.tensor([[True, True, False]]), 3)
        tensor([1.5000, 1.5000, 0.5000], dtype=torch.float64)
    """
    return torch.bincount(labels[mask], minlength=num_classes).double() + 0.5
