"""Deep kernel transfer: a Gaussian process on meta-learned features.

Patacchiola, Turner, Crowley, O'Boyle, Storkey 2020 (arXiv:1910.05199), eqs. 5-7:

    y = f(x) + ε,   f ~ GP(m, k(h(x), h(x'))),   ε ~ N(0, σ²)
    max_theta Σ_t log p(y_t | x_t, theta),   y_t all points of a task

    phi         f, a function
    prior       Gaussian process: mean m, a constant or a network; any kernel of gpytorch on the features h
    likelihood  Gaussian
    inference   exact, in float64 whatever the precision of the features

Several outputs have Cov(f_c(x), f_c'(x')) = k(h(x), h(x')) Σ_cc' / σ̄², with Σ their noise covariance and σ̄² = |Σ|^(1/C)
the geometric mean of its variances: for one output k itself, in squared units of y, and for more the matrix-normal form
of ALPaCA. So all outputs have one kernel matrix and one Cholesky factor, and one with more noise has more signal; where
that is not so, give each a learner of its own.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from bayesmeta.kernels import Kernel, RBFKernel
from bayesmeta.kernels.kernel import Gram, build, log_prior
from bayesmeta.learners.closed_form.process import ProcessLearner, ProcessTheta
from bayesmeta.networks.network import Network
from bayesmeta.noise import Noise


class DeepKernelTransfer(ProcessLearner):
    """Exact Gaussian process regression on features that all tasks share.

    theta is the weights of the features, the parameters of the kernel (`kernel`), m (`mean`) and Σ
    (`likelihood.noise`); `bayesmeta.wrappers.WithHyperprior` gives it a hyperprior. With `bayesmeta.networks.Inputs` as
    features it is a Gaussian process on the inputs, whose hyperparameters are learned from many tasks.

    Args:
        features: h, a network with `num_outputs` = F features of each point on its own.
        num_outputs: C.
        kernel: k; `RBFKernel()` by default, any `Kernel`, or a gpytorch kernel without batch axes on F features. A
            model folder can store only the former: it holds no foreign objects.
        mean: m, a network, to which a layer of C outputs is added: a mean function that all tasks share; by default m
            is a constant, learned for each output.
        noise: Σ; `DiagonalNoise(C)` by default, or `FullNoise`.

    Raises:
        ShapeError: a kernel on another number of features, a mean of other inputs, or noise over other outputs.
        UnsupportedError: features or a mean that are not a `Network`, or not of each point on its own; something that
            is not a kernel of single points.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.DeepKernelTransfer(bm.MLP(1, [16, 8]), kernel=bm.kernels.MaternKernel(2.5))
        >>> tasks = bm.tasks.Sawtooth().dataset(20, 10, seed=0)
        >>> _ = bm.fit(learner, tasks, steps=50, progress=False)  # a real training takes thousands
        >>> posterior = learner.adapt(tasks.data.select([0]).points(slice(4)))
        >>> posterior
        posterior of 1 task after 4 points
        >>> lower, upper = posterior.predict([0.0, 1.0]).interval(0.9)
    """

    def __init__(
        self,
        features: Network,
        *,
        num_outputs: int = 1,
        kernel: Kernel | nn.Module | None = None,
        mean: Network | None = None,
        noise: Noise | None = None,
    ) -> None:
        super().__init__(features, num_outputs, mean, noise)
        self.kernel = build(RBFKernel() if kernel is None else kernel, features.num_outputs)

    @override
    def log_hyperprior(self) -> Float[Tensor, ""]:
        """log p of the kernel's parameters under the priors that it has registered, in nats."""
        return log_prior(self.kernel)

    @override
    def theta(self) -> "_KernelTheta":
        return _KernelTheta(
            features=self.features,
            mean=self.mean,
            output_covariance=self.likelihood.noise.covariance().double(),
            kernel=Gram(self.kernel),
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class _KernelTheta(ProcessTheta):
    """theta with one kernel on the features."""

    kernel: Gram

    @override
    def gram(self, a: Float[Tensor, "B N E"], b: Float[Tensor, "B M E"]) -> Float[Tensor, "B N M"]:
        return self.kernel(a, b) / self.unit

    @override
    def diagonal(self, a: Float[Tensor, "B M E"]) -> Float[Tensor, "B M"]:
        return self.kernel.diagonal(a) / self.unit
