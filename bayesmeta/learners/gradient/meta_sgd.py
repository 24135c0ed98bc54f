"""Meta-SGD: MAML with a learned rate for every number of phi.

Li, Zhou, Chen, Li 2017 (arXiv:1707.09835), eq. 3:

    phi_j+1 = phi_j + a ∘ ∇ log p(D | phi_j),   a = α σ² / N, one α for each number of phi

    phi         the network's parameters, or a named part of them
    prior       N(theta, Q), implied by the rates: in the coordinates phi / √a it is MAML's; unseen directions k diag(a)
    likelihood  any; Gaussian with learned noise by default
    inference   unrolled MAP; linearised Laplace around it

The paper leaves the sign of α free. Here it is positive: ascent with a negative rate is the MAP under no prior.
"""

from collections.abc import Sequence

from torch import nn

from bayesmeta.learners.gradient.base import AscentLearner, positive_rate, positive_steps
from bayesmeta.learners.gradient.posteriors import Approximation
from bayesmeta.likelihoods import Likelihood
from bayesmeta.networks.network import Network
from bayesmeta.typing import Params


class MetaSGD(AscentLearner):
    """Gradient steps whose rate is learned for every number of phi.

    Args:
        network: gives the features; its parameters and those of the output layer are where tasks start.
        steps: k; the paper's is 1.
        lr: the first step size of every number of phi (units as for `MAML`).
        checkpoint: save memory for time, as in `MAML`.
        num_outputs: C; 1 by default, or what the likelihood says.
        likelihood: p(y | f); Gaussian with learned noise by default.
        posterior: `Linearized()` by default, `LinearizedDiagonal()` or `PointEstimate()`.
        adapted: name prefixes of the parameters that adapt; all by default.

    Raises:
        UnsupportedError: a network with layers that cannot be adapted.
        ShapeError: outputs that contradict.
        DataError: no steps, a step size out of range, a prefix that no name has.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.MetaSGD(bm.MLP(1, [40, 40]), lr=0.01)
        >>> learner.rates()["output.weight"].shape
        torch.Size([1, 40])
        >>> learner.adapt(bm.Data.from_arrays([0.0, 1.0, 2.0], [0.0, 0.8, 0.9])).predict([1.5]).mean.shape
        torch.Size([1, 1, 1])
    """

    def __init__(
        self,
        network: Network,
        *,
        steps: int = 1,
        lr: float = 0.01,
        checkpoint: bool = False,
        num_outputs: int | None = None,
        likelihood: Likelihood | None = None,
        posterior: Approximation | None = None,
        adapted: Sequence[str] | None = None,
    ) -> None:
        super().__init__(network, num_outputs=num_outputs, likelihood=likelihood, posterior=posterior, adapted=adapted)
        self.rate = nn.ModuleList(positive_rate(lr, tuple(value.shape)) for value in self.initial.values())
        self.steps, self.checkpoint = positive_steps(steps), checkpoint

    def rates(self) -> Params:
        """α of each parameter, of its shape."""
        return {name: rate() for name, rate in zip(self.adapted, self.rate, strict=True)}
