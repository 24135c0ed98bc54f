"""MAML: a few gradient steps from a learned start, read as what they are, MAP inference.

Finn, Abbeel, Levine 2017 (arXiv:1703.03400), eq. 1; read as hierarchical Bayes by Grant et al. 2018 (arXiv:1801.08930):

    phi_0 = theta,   phi_j+1 = phi_j + a ∇ log p(D | phi_j),   phi_hat = phi_k,   a = α σ² / N

    phi         the network's parameters, or a named part of them
    prior       N(theta, Q), implied by the rate and the number of steps (`implied_prior`)
    likelihood  any; Gaussian with learned noise by default
    inference   unrolled MAP; linearised Laplace around it, N(phi_hat, (G + Q⁻¹)⁻¹)
"""

from collections.abc import Sequence

from bayesmeta.learners.gradient.base import AscentLearner, positive_rate, positive_steps
from bayesmeta.learners.gradient.posteriors import Approximation
from bayesmeta.likelihoods import Likelihood
from bayesmeta.networks.network import Network
from bayesmeta.typing import Params


class MAML(AscentLearner):
    """Model-agnostic meta-learning, with the posterior that its implied prior gives.

    theta = the parameters of the network with its output layer, the step size (`rate`) and the observation noise; a
    part of it is fixed by `learner.rate.requires_grad_(False)`. With `posterior=PointEstimate()` and a fixed noise
    variance the meta-loss is the paper's.

    Args:
        network: gives the features; its parameters and those of the output layer are where tasks start.
        steps: k.
        lr: α, the first step size: on half the mean squared error for a Gaussian likelihood, on the mean negative log
            likelihood for labels. (The paper's 0.01 is on the mean squared error: 0.02 here.)
        checkpoint: keep phi alone of each step and compute the rest anew in the backward pass, to save memory.
        num_outputs: C; 1 by default, or what the likelihood says.
        likelihood: p(y | f); Gaussian with learned noise by default.
        posterior: `Linearized()` by default, `LinearizedDiagonal()` or `PointEstimate()`.
        adapted: name prefixes of the parameters that adapt; all by default (`["output"]` is ANIL).

    Raises:
        UnsupportedError: a network with layers that cannot be adapted.
        ShapeError: outputs that contradict.
        DataError: no steps, a step size out of range, a prefix that no name has.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.MAML(bm.MLP(1, [40, 40]), steps=5, lr=0.01)
        >>> posterior = learner.adapt(bm.Data.from_arrays([0.0, 1.0, 2.0], [0.0, 0.8, 0.9]))
        >>> posterior.predict([1.5]).mean.shape
        torch.Size([1, 1, 1])
        >>> classifier = bm.MAML(bm.Conv4((1, 28, 28)), likelihood=bm.likelihoods.Categorical(5), adapted=["output"])
        >>> classifier.adapted
        ('output.weight', 'output.bias')
    """

    def __init__(
        self,
        network: Network,
        *,
        steps: int = 5,
        lr: float = 0.01,
        checkpoint: bool = False,
        num_outputs: int | None = None,
        likelihood: Likelihood | None = None,
        posterior: Approximation | None = None,
        adapted: Sequence[str] | None = None,
    ) -> None:
        super().__init__(network, num_outputs=num_outputs, likelihood=likelihood, posterior=posterior, adapted=adapted)
        self.steps, self.checkpoint = positive_steps(steps), checkpoint
        self.rate = positive_rate(lr)

    def rates(self) -> Params:
        """α for every parameter."""
        return dict.fromkeys(self.adapted, self.rate())


class FirstOrderMAML(MAML):
    """MAML whose meta-gradient takes the inner gradients as constants (Finn et al. 2017, sec. 5.2).

    Its arguments are those of `MAML`.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.FirstOrderMAML(bm.MLP(1, [40, 40]), steps=10, lr=0.01)
        >>> learner.adapt(bm.Data.from_arrays([0.0, 1.0, 2.0], [0.0, 0.8, 0.9])).predict([1.5]).mean.shape
        torch.Size([1, 1, 1])
    """

    first_order = True
