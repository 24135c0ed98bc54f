"""Deep kernels for classification: a Gaussian process on labels as numbers.

Patacchiola, Turner, Crowley, O'Boyle, Storkey 2020 (arXiv:1910.05199), sec. 4.2:

    y_nc = ±1 = f_c(x_n) + ε_nc,   f_c ~ GP(0, k(φ(x), φ(x'))),   ε_nc ~ N(0, σ²)
    p(c | x, D)   the calibrated softmax of the mean and variance of f_c(x) | D

    phi         f, a function for each class
    prior       Gaussian process: any kernel of gpytorch on the features φ
    likelihood  Gaussian, of labels of ±1: a pseudo-likelihood
    inference   exact, in float64 whatever the precision of the features
"""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from bayesmeta.heads.classes import Classes
from bayesmeta.hyperpriors import Hyperprior
from bayesmeta.inference import gaussian_process
from bayesmeta.inference.gaussian_process import GaussianProcess
from bayesmeta.kernels import CosineSimilarityKernel, Gram, Kernel, build, log_prior
from bayesmeta.learners.closed_form._classifier import HeadClassifier, Scores
from bayesmeta.networks.network import Network
from bayesmeta.noise import Positive

LABEL_NOISE_BOUNDS = (1e-6, 1e6)


class DeepKernelClassifier(HeadClassifier):
    """Classification by Gaussian process regression on labels of ±1, one class against the rest.

    The paper's choice (sec. 4.2): the labels of each class are regressed on as numbers, with a Gaussian process of one
    kernel for all. Its mean and variance then go through the calibrated softmax of all classifiers here, whose two
    numbers are learned by the predictive density of the query labels, as is all of theta. The paper has a sigmoid of
    the mean, and learns by the evidence of the ±1. A constant mean would change no probability: it is the same for all
    classes.

    theta = the features' weights, the kernel's parameters (`kernel`), the noise variance of the labels (`noise`),
    `scale` and `spread`.

    Args:
        features: φ, a network with `num_outputs` = F features of each point on its own.
        num_classes: C; None: the classes of each task are those of its support.
        kernel: as for `DeepKernelTransfer`; `CosineSimilarityKernel()` by default.
        noise: starting noise variance of the labels.
        scale: starting a, nats for a unit of score.
        spread: starting s², in units of the posterior variance.
        hyperprior: as for `DeepKernelTransfer`.

    Raises:
        ShapeError: a kernel on another number of features. UnsupportedError: features that are not a `Network`, or not
            of each point on its own; something that is not a kernel of single points. DataError: fewer than two
            classes, or a value out of bounds.
    """

    def __init__(
        self,
        features: Network,
        num_classes: int | None = None,
        kernel: Kernel | nn.Module | None = None,
        noise: float = 0.1,
        scale: float = 5.0,
        spread: float = 1.0,
        hyperprior: Hyperprior | None = None,
    ) -> None:
        super().__init__(features, num_classes, scale, spread)
        self.kernel = build(CosineSimilarityKernel() if kernel is None else kernel, features.num_outputs)
        self.noise = Positive((), noise, LABEL_NOISE_BOUNDS)
        self.hyperprior = hyperprior

    def log_hyperprior(self) -> Float[Tensor, ""]:
        """log p(theta), in nats: the hyperprior, and the priors that the kernel has registered."""
        own = log_prior(self.kernel)
        return own if self.hyperprior is None else own + self.hyperprior.log_prob(dict(self.named_parameters()))

    def solve(
        self,
        rows: Float[Tensor, "B N F"],
        targets: Float[Tensor, "B N C"],
        mask: Bool[Tensor, "B N"],
        classes: Classes,
    ) -> "KernelScores":
        """Regression on labels of ±1.

        Raises:
            InferenceError: the kernel matrix plus noise is not positive definite.
        """
        kernel, noise = Gram(self.kernel), self.noise().double()
        belief = gaussian_process.condition(kernel(rows, rows) / noise, 2.0 * targets - 1.0, mask)
        return KernelScores(kernel, noise, rows, belief)


class KernelScores(Scores):
    """Scores of a Gaussian process on labels of ±1: all classes have one variance."""

    def __init__(
        self, kernel: "Gram", noise: Float[Tensor, ""], support: Float[Tensor, "B N F"], belief: GaussianProcess
    ) -> None:
        self.kernel, self.noise, self.support, self.belief = kernel, noise, support, belief

    def at(self, rows: Float[Tensor, "B M F"]) -> tuple[Float[Tensor, "B M C"], Float[Tensor, "B M 1"]]:
        """Posterior mean and variance, of a score between labels of -1 and 1."""
        cross, prior = self.kernel(self.support, rows) / self.noise, self.kernel.diagonal(rows) / self.noise
        mean, variance = self.belief.predict(cross, prior)
        return mean, (self.noise * variance)[..., None]
