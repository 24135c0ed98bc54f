"""Classes that are mixtures of Gaussian clusters, as many of them as the examples ask for.

    p(h | c, D) = Σ_k n_k / (n_c + α) N(h; mean_k, (σ² + v_k) I) + α / (n_c + α) N(h; m0, (σ² + τ²) I)
    v_k = τ² σ² / (σ² + n_k τ²),   mean_k = v_k (m0 / τ² + Σ_n r_nk h(x_n) / σ²),   n_k = Σ_n r_nk

A Dirichlet process in each class: a query belongs to a cluster of it as often as examples do, or to one that no example
has shown, of which α says how often. The clusters are found as by DP-means (Kulis & Jordan 2012; Allen et al. 2019):

    start    one cluster at the mean of each class
    births   again and again the example that is farthest from all clusters of its class starts one, if its squared
             distance exceeds  λ = -2 σ² log α + F σ² log(1 + τ²/σ²)
    shares   r_nk = softmax_k(-|h(x_n) - center_k|² / 2σ²) over the clusters of the class of n, once

Examples are not visited in turn, so that their order does not matter. Those that are as far as the farthest, to
rounding, start clusters together (a class of two examples always has such), and identical ones start a single cluster.
A cluster that examples have left has the weight n_k -> 0: there is none to drop.

Which clusters there are, and the shares, are constants to differentiation: there is no gradient through λ or r, as in
the paper's code. A cluster is born or not, and σ², through λ and r, would be trained to place clusters rather than to
say how wide they are.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from typing_extensions import override

from bayesmeta.distributions import common_normals
from bayesmeta.errors import DataError
from bayesmeta.heads.class_means import VARIANCE_BOUNDS, log_density
from bayesmeta.heads.head import Examples, Head, OpenScores
from bayesmeta.linalg import require_matrix
from bayesmeta.noise import Positive
from bayesmeta.typing import Params

AS_FAR = 1e-9  # distances that differ by less, relative to the largest, are equal but for the order of a sum
IDENTICAL = 1e-12  # of a squared distance, relative to the largest: rounding of features in float32


class ClusterHead(Head):
    """The score of a class is its log predictive density under a Dirichlet-process mixture of Gaussians.

    theta = `prior_variance`, τ², `noise`, σ², and `location`, m0; α is a constant.

    Args:
        num_features: F.
        alpha: α, the number of examples that a cluster without an example counts as. The smaller it is, the fewer
            clusters there are; as it goes to zero every class has one, and the scores are those of `NearestMeanHead`.
        radius: how far from all clusters an example starts one, in deviations σ: λ = radius² σ². None: the λ above,
            which is what a cluster costs if σ² is the variance within one; but trained where none is born, σ² becomes
            the variance within a class, and none is born. 0: every example that is unlike the others has a cluster of
            its own, and the density is a kernel estimate of learned width: for classes that are made of several things.
        prior_variance: starting τ², the variance of a feature of a cluster's mean, squared units of a feature.
        noise: starting σ², the variance of a feature within a cluster.

    Raises:
        DataError: no features, an alpha that is not positive and finite, a negative radius, a variance out of bounds.
        InferenceError: when solved, too many examples for a matrix between them.

    Example:
        >>> import bayesmeta as bm
        >>> rows, labels = torch.tensor([[[-9.0], [9.0], [0.0]]]).double(), torch.tensor([[0, 0, 1]])
        >>> examples = bm.heads.Examples.of(rows, labels, torch.ones(1, 3, dtype=torch.bool), num_classes=2)
        >>> scores = bm.heads.ClusterHead(1, prior_variance=100.0, noise=0.5).solve(examples)
        >>> scores.log_scores(rows + 0.1).argmax(-1).tolist()  # the mean of class 0 is where class 1 is
        [[0, 0, 1]]
    """

    def __init__(
        self,
        num_features: int,
        *,
        alpha: float = 0.1,
        radius: float | None = None,
        prior_variance: float = 1.0,
        noise: float = 1.0,
    ) -> None:
        super().__init__()
        if num_features < 1:
            raise DataError(f"expected at least one feature, got {num_features}")
        if not 0.0 < alpha < math.inf:
            raise DataError(f"expected a positive alpha, got {alpha}: a small one for few clusters, such as 1e-9")
        if radius is not None and not 0.0 <= radius < math.inf:
            raise DataError(f"expected a radius that is not negative, got {radius}")
        self.num_features, self.alpha, self.radius = num_features, float(alpha), radius
        self.prior_variance = Positive((), prior_variance, VARIANCE_BOUNDS)
        self.noise = Positive((), noise, VARIANCE_BOUNDS)
        self.location = nn.Parameter(torch.zeros(num_features))

    def threshold(self) -> Float[Tensor, ""]:
        """λ, the squared distance to all clusters of its class beyond which an example starts one."""
        noise, prior = self.noise().detach().double(), self.prior_variance().detach().double()
        assert self.num_features is not None  # it is given
        if self.radius is not None:
            return noise * self.radius**2
        return noise * (self.num_features * (prior / noise).log1p() - 2.0 * math.log(self.alpha))

    @override
    def solve(self, examples: Examples) -> "ClusterDensities":
        rows, noise = examples.rows, self.noise().to(examples.rows.dtype)
        prior, location = self.prior_variance().to(rows.dtype), self.location.to(rows.dtype)
        found = clusters(examples, self.threshold().to(rows.dtype), noise.detach())
        size = found.shares.sum(1)
        variance = 1.0 / (size / noise + 1.0 / prior)
        mean = variance[..., None] * (found.shares.mT @ rows / noise + location / prior)
        # float64 even of an alpha that float32 has as zero
        total = examples.counts.double() + self.alpha
        log_weight = (size.log() - total.gather(1, found.owner).log()).to(rows.dtype)
        log_new = (math.log(self.alpha) - total.log()).to(rows.dtype)
        return ClusterDensities(mean, variance, found.owner, log_weight, log_new, noise, location, prior)


@dataclass(frozen=True, eq=False)
class Clusters:
    """Which examples belong to which cluster: K = C + N places, of which the first C start at the classes' means.

    Attributes:
        shares: r, what of an example belongs to a cluster; all zero of a place without a cluster.
        owner: the class of each cluster.
    """

    shares: Float[Tensor, "B N K"]
    owner: Int[Tensor, "B K"]


@torch.no_grad()
def clusters(examples: Examples, threshold: Float[Tensor, ""], noise: Float[Tensor, ""]) -> Clusters:
    """The clusters of all classes and the shares of the examples in them, without a graph.

    Args:
        examples: features and labels.
        threshold: λ; infinite for a single cluster a class, 0 for one at every example that is unlike the others.
        noise: σ²; towards 0 an example belongs to the nearest cluster alone.

    Raises:
        InferenceError: too many examples for a matrix between them.

    Example:
        >>> import bayesmeta as bm
        >>> rows, labels = torch.tensor([[[-9.0], [-9.1], [9.0]]]).double(), torch.tensor([[0, 0, 0]])
        >>> examples = bm.heads.Examples.of(rows, labels, torch.ones(1, 3, dtype=torch.bool), num_classes=1)
        >>> clusters(examples, torch.tensor(1.0).double(), torch.tensor(0.01).double()).shares[0]
        tensor([[0., 0., 1., 0.],
                [0., 0., 1., 0.],
                [0., 0., 0., 1.]], dtype=torch.float64)
    """
    rows, mask, num_classes = examples.rows, examples.mask, examples.targets.shape[-1]
    require_matrix(rows.shape[1], rows.shape[1])
    labels = examples.targets.argmax(-1) if num_classes else mask.long()
    means = examples.targets.mT @ rows / examples.counts.clamp(min=1.0)[..., None]
    of_mean = (rows - means.gather(1, labels[..., None].expand_as(rows))).square().sum(-1)
    # differences, not products of rows: the distance of identical ones is exactly zero
    between = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").square()
    alike = (labels[:, :, None] == labels[:, None]) & mask[:, :, None] & mask[:, None]
    born = _births(of_mean, between, alike, mask, threshold)
    to_means = of_mean[..., None].masked_fill(examples.targets == 0.0, torch.inf)
    to_born = between.masked_fill(~(alike & born[:, None]), torch.inf)
    logits = -torch.cat([to_means, to_born], -1) / (2.0 * noise)
    shares = logits.masked_fill(~mask[..., None], 0.0).softmax(-1) * mask[..., None]
    owner = torch.cat([torch.arange(num_classes, device=rows.device).expand(len(rows), -1), labels], 1)
    return Clusters(shares, owner)


def _births(
    nearest: Float[Tensor, "B N"],
    between: Float[Tensor, "B N N"],
    alike: Bool[Tensor, "B N N"],
    mask: Bool[Tensor, "B N"],
    threshold: Float[Tensor, ""],
) -> Bool[Tensor, "B N"]:
    """Which examples start a cluster; all classes of all tasks at once."""
    born = torch.zeros_like(mask)
    earlier = torch.ones_like(alike[0]).tril(-1)
    for _ in range(mask.shape[1]):  # one example at the least, or it is over
        waits = mask & (nearest > threshold)
        if not torch.compiler.is_compiling() and not bool(waits.any()):  # going on would change nothing
            break
        farthest = torch.where(alike, nearest[:, None], 0.0).amax(-1)  # of the class of each example
        starts = waits & (nearest >= (1.0 - AS_FAR) * farthest)
        same = alike & starts[:, None] & (between <= IDENTICAL * farthest[..., None])
        starts = starts & ~(same & earlier).any(-1)
        born = born | starts
        nearest = torch.minimum(nearest, between.masked_fill(~(alike & starts[:, None]), torch.inf).amin(-1))
    return born


@dataclass(frozen=True, eq=False)
class ClusterDensities(OpenScores):
    """The log predictive density of each class; the means of the clusters are integrated out.

    Attributes:
        mean: the posterior mean of the mean of each cluster.
        variance: v_k, the posterior variance of each of its entries.
        owner: the class of each cluster.
        log_weight: log n_k / (n_c + α), -inf where there is no cluster.
        log_new: log α / (n_c + α) of each class.
        noise: σ².
        location: m0.
        prior_variance: τ².
    """

    mean: Float[Tensor, "B K F"]
    variance: Float[Tensor, "B K"]
    owner: Int[Tensor, "B K"]
    log_weight: Float[Tensor, "B K"]
    log_new: Float[Tensor, "B C"]
    noise: Float[Tensor, ""]
    location: Float[Tensor, "F"]
    prior_variance: Float[Tensor, ""]

    @override
    def log_scores(self, rows: Float[Tensor, "B M F"]) -> Float[Tensor, "B M C"]:
        new = self.log_none(rows)[..., None] + self.log_new[:, None]
        parts = log_density(rows, self.mean, self.noise + self.variance) + self.log_weight[:, None]
        owner = self.owner[:, None].expand_as(parts)
        peak = new.detach().scatter_reduce(-1, owner, parts.detach(), "amax")  # the largest term of each class
        owned = nn.functional.one_hot(self.owner, self.log_new.shape[-1]).to(rows.dtype)
        return peak + ((new - peak).exp() + (parts - peak.gather(-1, owner)).exp() @ owned).log()

    @override
    def log_none(self, rows: Float[Tensor, "B M F"]) -> Float[Tensor, "B M"]:
        mean = self.location.expand(len(rows), 1, -1)
        return log_density(rows, mean, (self.noise + self.prior_variance).expand(len(rows), 1))[..., 0]

    def sample(self, num_draws: int, generator: torch.Generator | None = None) -> Params:
        """Draws of the means of the clusters, `mean`, `S B K F`, given which examples belong to them.

        Args:
            num_draws: S.
            generator: of the draws.
        """
        normal = common_normals((num_draws, *self.mean.shape), self.mean, generator)
        return {"mean": self.mean + self.variance.sqrt()[..., None] * normal}
