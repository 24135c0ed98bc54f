"""CAVIA: the network is shared, and a task adapts a context vector among its inputs.

Zintgraf, Shiarlis, Kurin, Hofmann, Whiteson 2019 (arXiv:1810.03642), eqs. 3-5:

    f(x; c) = network([x, c]),   c_0 = 0,   c_j+1 = c_j + a ∇ log p(D, c_j),   a = min(α σ² / N, 1)

    phi         the context c, a short vector
    prior       N(0, I), explicit
    likelihood  any; Gaussian with learned noise by default
    inference   unrolled MAP; linearised Laplace around it, in the context's few dimensions

The paper has no prior term. At c = 0 its gradient is zero, so that the paper's one step is the same.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from bayesmeta.data import Data
from bayesmeta.errors import DataError, ShapeError
from bayesmeta.inference.laplace import ExplicitPrior, Shrinkage
from bayesmeta.inference.map import unrolled_map
from bayesmeta.learner import ExplicitLearner
from bayesmeta.learners.gradient.base import GradientLearner, over_draws, positive_rate, require_supported
from bayesmeta.learners.gradient.posteriors import Approximation
from bayesmeta.likelihoods import Likelihood
from bayesmeta.networks.network import Network
from bayesmeta.priors import StandardNormal
from bayesmeta.typing import Params


class CAVIA(GradientLearner, ExplicitLearner):
    """Fast context adaptation.

    theta = the parameters of the network with its output layer, the step size (`rate`) and the observation noise.

    Args:
        network: gives the features of D inputs. The learner makes a network of the same make and D + `num_context`
            inputs from it, freshly initialised (`Network.with_context`), and adds a dense layer named `output`.
        num_context: length of c, P. A family with fewer dimensions than P is learned; one with more cannot be.
        steps: k; the paper's is 1.
        lr: the first step size (units as for `MAML`; the paper's 1.0 is on the mean squared error: 2.0 here).
        num_outputs: C; 1 by default, or what the likelihood says.
        likelihood: p(y | f); Gaussian with learned noise by default.
        posterior: `Linearized()` by default, `LinearizedDiagonal()` or `PointEstimate()`.

    Raises:
        UnsupportedError: a network with layers that cannot be adapted, or one that cannot have a context.
        ShapeError: a network whose inputs are no vectors; outputs that contradict.
        DataError: no context, no steps, a step size out of range.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.CAVIA(bm.MLP(1, [40, 40]), num_context=4)
        >>> learner.x_shape, learner.network.x_shape
        ((1,), (5,))
        >>> posterior = learner.adapt(bm.Data.from_arrays([0.0, 1.0, 2.0], [0.0, 0.8, 0.9]))
        >>> posterior.mean["context"].shape
        torch.Size([1, 4])
        >>> posterior.predict([1.5]).mean.shape
        torch.Size([1, 1, 1])
    """

    def __init__(
        self,
        network: Network,
        *,
        num_context: int = 4,
        steps: int = 1,
        lr: float = 1.0,
        num_outputs: int | None = None,
        likelihood: Likelihood | None = None,
        posterior: Approximation | None = None,
    ) -> None:
        require_supported(network)
        if num_context < 1 or steps < 1:
            raise DataError(f"expected a context of at least one number and one step, got {num_context} and {steps}")
        widened = network.with_context(num_context)
        if len(network.x_shape) != 1 or widened.x_shape != (network.x_shape[0] + num_context,):
            raise ShapeError(
                f"expected {type(network).__name__}.with_context({num_context}) to add {num_context} numbers to inputs "
                f"that are vectors, got x_shape {network.x_shape} before and {widened.x_shape} after"
            )
        super().__init__(widened, num_outputs=num_outputs, likelihood=likelihood, posterior=posterior)
        self.x_shape = network.x_shape
        self.num_context, self.steps, self.rate = num_context, steps, positive_rate(lr)
        self.prior: StandardNormal = StandardNormal({"context": (num_context,)})

    def start(self, num_tasks: int) -> Params:
        """The prior mean of the context, zero."""
        return {name: value.expand(num_tasks, *value.shape) for name, value in self.prior.mean.items()}

    def forward(self, phi: Params, x: Float[Tensor, "B M D"]) -> Float[Tensor, "*s B M K"]:
        """f(x; c) = network([x, c])."""
        return over_draws(self._with_context, phi, x, tuple(phi["context"].shape[:-2]))

    def _with_context(self, phi: Params, x: Tensor) -> Tensor:
        context = phi["context"][:, None].expand(-1, x.shape[1], -1)
        return self.network(torch.cat([x, context.to(x.dtype)], -1))

    @override
    def mode(self, support: Data) -> Params:
        # the prior's own curvature is 1: a rate above it would overshoot whatever the support says
        rate = (self.rate() * self.unit_rate(support)).clamp(max=1.0)
        return unrolled_map(self.joint(support), self.start(support.num_tasks), steps=self.steps, lr=rate)

    @override
    def shrinkage(self) -> Shrinkage:
        return ExplicitPrior()

    @override
    def squares(self, support: Data) -> Params:
        return {"context": support.x.new_ones(())}
