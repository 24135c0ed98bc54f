"""A Gaussian process for each class, on labels as numbers, with every class counting alike.

    y_nc = ±1 = f_c(x_n) + ε_nc,   f_c ~ GP(0, k(h(x), h(x'))),   ε_nc ~ N(0, σ² / D_n)
    D_n = h / n_c       h: harmonic mean of the numbers of examples; 1 where they are equal

A constant mean would change no probability: it is the same for all classes.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from bayesmeta.errors import DataError
from bayesmeta.heads.head import Examples, Head, Scores
from bayesmeta.inference import gaussian_process
from bayesmeta.inference.gaussian_process import GaussianProcess
from bayesmeta.kernels import CosineSimilarityKernel, Kernel
from bayesmeta.kernels.kernel import Gram, build, log_prior
from bayesmeta.linalg import cholesky_with_jitter
from bayesmeta.noise import Positive

LABEL_NOISE_BOUNDS = (1e-6, 1e6)


class GaussianProcessHead(Head):
    """Gaussian process regression on labels of ±1, one class against the rest, all with one kernel.

    theta = the kernel's parameters (`kernel`) and the noise variance of the labels (`noise`).

    Args:
        num_features: F, features of the kernel.
        kernel: k; `CosineSimilarityKernel()` by default, any `Kernel`, or a gpytorch kernel without batch axes on F
            features. A model folder can store only the former: it holds no foreign objects.
        noise: starting noise variance of the labels.

    Raises:
        ShapeError: a kernel on another number of features.
        UnsupportedError: something that is not a kernel of single points.
        DataError: a noise variance out of bounds.
        InferenceError: when solved, the kernel matrix plus noise is not positive definite.

    Example:
        >>> import torch
        >>> import bayesmeta as bm
        >>> rows, labels = torch.tensor([[[-1.0], [0.0], [1.0]]]).double(), torch.tensor([[0, 1, 0]])
        >>> examples = bm.heads.Examples.of(rows, labels, torch.ones(1, 3, dtype=torch.bool), num_classes=2)
        >>> head = bm.heads.GaussianProcessHead(1, kernel=bm.kernels.RBFKernel(lengthscale=0.5))
        >>> mean, variance = head.solve(examples).at(rows)
        >>> mean.argmax(-1).tolist(), bool((variance < 0.2).all())
        ([[0, 1, 0]], True)
    """

    def __init__(self, num_features: int, *, kernel: Kernel | nn.Module | None = None, noise: float = 0.1) -> None:
        super().__init__()
        if num_features < 1:
            raise DataError(f"expected at least one feature, got {num_features}")
        self.num_features = num_features
        self.kernel = build(CosineSimilarityKernel() if kernel is None else kernel, num_features)
        self.noise = Positive((), noise, LABEL_NOISE_BOUNDS)

    def log_hyperprior(self) -> Float[Tensor, ""]:
        """log p of the kernel's parameters under the priors that it has registered, in nats."""
        return log_prior(self.kernel)

    @override
    def solve(self, examples: Examples) -> "GaussianProcessScores":
        kernel, noise = Gram(self.kernel), self.noise().double()
        root = examples.weights.sqrt()[..., None]  # in units of its own noise every point has the noise variance 1
        labels = root * (2.0 * examples.targets - 1.0)
        gram = root * (kernel(examples.rows, examples.rows) / noise) * root.mT
        belief = gaussian_process.condition(gram, labels, examples.mask, cholesky_with_jitter)
        return GaussianProcessScores(kernel, noise, examples.rows, root, belief)


@dataclass(frozen=True, eq=False)
class GaussianProcessScores(Scores):
    """Scores of a Gaussian process on labels of ±1: all classes have one variance.

    Attributes:
        kernel: k.
        noise: noise variance of the labels.
        support: features of the support.
        root: of the weights D of the points.
        belief: the Gaussian process in units of the noise.
    """

    kernel: Gram
    noise: Float[Tensor, ""]
    support: Float[Tensor, "B N F"]
    root: Float[Tensor, "B N 1"]
    belief: GaussianProcess

    def at(self, rows: Float[Tensor, "B M F"]) -> tuple[Float[Tensor, "B M C"], Float[Tensor, "B M 1"]]:
        """Posterior mean and variance of f, between the labels -1 and 1; all classes have one variance."""
        cross = self.root * (self.kernel(self.support, rows) / self.noise)
        prior = self.kernel.diagonal(rows) / self.noise
        mean, variance = self.belief.predict(cross, prior)
        return mean, (self.noise * variance)[..., None]
