"""Pre-training and fine-tuning: theta is learned on everything at once, and no task is adapted to while it is.

    theta = argmax Σ_tn log p(y_tn | f(x_tn; theta))                     one network for all tasks, or for all classes
    phi_hat = k steps on log p(D | phi) + log N(phi; theta, I / precision), from theta; or its optimum

    phi         the network's parameters, or a named part of them
    prior       N(theta, I / precision); of a new output layer N(0, I / precision)
    likelihood  any; Gaussian with learned noise by default
    inference   MAP; linearised Laplace around it

There is no meta-objective: what adaptation needs is not what theta is trained for. It is the baseline of MAML (Finn et
al. 2017, section 5.1: "pretraining on all tasks, and fine-tuning"). With labels and new classes it is Baseline, and on
`bm.networks.Cosine` features Baseline++ (Chen, Liu, Kira, Wang, Huang 2019, ICLR, arXiv:1904.04232): a softmax over all
classes of the training set, whose output layer is thrown away.

Differences from the papers: weights have a prior that says how far they may go, so that more steps need not overfit;
a new output layer starts at 0, its prior mean, and not at random, so that relabelling classes permutes their
probabilities; where the output layer alone adapts and outcomes are Gaussian, inference is exact.
"""

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from bayesmeta.data import Data, TaskBatch
from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.inference.map import GradientSteps
from bayesmeta.inference.solvers import Solver
from bayesmeta.learners.gradient.base import ExplicitWeightLearner, over_draws
from bayesmeta.learners.gradient.posteriors import Approximation
from bayesmeta.likelihoods import Categorical, Likelihood
from bayesmeta.networks.jacobian import Diagonal
from bayesmeta.networks.network import PREFIX, DenseOutput, Network
from bayesmeta.priors import IndependentGaussian, Prior
from bayesmeta.typing import LogJoint, Params


class Pretrained(IndependentGaussian):
    """N(mean, I / precision) with a precision that is given: pooled training cannot tell how far tasks are apart.

    Args:
        mean: named tensors; a Parameter (a network's weight) is shared, and other tensors are constants.
        precision: 1 / the variance of every number.

    Raises:
        DataError: no tensors, or a precision that is not positive.

    Example:
        >>> import torch
        >>> weight = nn.Parameter(torch.ones(2, 3))
        >>> prior = Pretrained({"features.weight": weight, "output.weight": torch.zeros(5, 2)}, precision=4.0)
        >>> len(list(prior.parameters())), prior.sample(7)["output.weight"].shape
        (1, torch.Size([7, 5, 2]))
    """

    def __init__(self, mean: dict[str, Tensor], precision: float = 1.0) -> None:
        Prior.__init__(self)  # constants are no parameters
        if not mean:
            raise DataError("expected at least one named tensor for the prior mean, got none")
        if not 0.0 < precision < math.inf:
            raise DataError(f"expected a positive precision, got {precision}")
        self.names = tuple(mean)
        self.values = nn.ParameterList(value for value in mean.values() if isinstance(value, nn.Parameter))
        self.is_constant = tuple([not isinstance(value, nn.Parameter) for value in mean.values()])
        self.precision = precision
        for name, value in mean.items():
            if not isinstance(value, nn.Parameter):
                self.register_buffer(_key(name), value.detach().clone(), persistent=False)

    @classmethod
    @override
    def around(cls, mean: dict[str, Tensor], precision: float) -> "Pretrained":
        return cls(mean, precision)

    @property
    @override
    def mean(self) -> Params:
        shared = iter(self.values)
        return {
            name: getattr(self, _key(name)) if constant else next(shared)
            for name, constant in zip(self.names, self.is_constant, strict=True)
        }

    @override
    def diagonal(self) -> Diagonal:
        return {name: value.new_tensor(1.0 / self.precision) for name, value in self.mean.items()}


class FineTuned(ExplicitWeightLearner):
    """A network that is pre-trained on the points of all tasks together, and fine-tuned on each task.

    theta = the parameters of the network with its output layer, and the observation noise. `fit` maximises
    log p(y | f(x; theta)) of support and query points alike, adapting to no task. That noise is of a network that knows
    no task: it holds what tasks differ by, too.

    Args:
        network: gives the features. With `bm.networks.Cosine(features)` the output layer scores by angle (Baseline++).
        base_classes: K, the classes of the labels that pre-training sees, such as those of `bm.tasks.BasePoints`: a
            softmax over all of them, whose output layer is thrown away. Tasks then have C new classes, as the
            likelihood says. None: tasks have the outcomes of pre-training, and start from its output layer.
        precision: of the prior, 1 / the variance of every number of phi around theta.
        solver: finds phi: `GradientSteps()` by default, k steps that need not arrive; `GaussNewton(1)` is exact where
            the output layer alone adapts and outcomes are Gaussian; `LevenbergMarquardt()` goes to the mode.
        num_outputs: C; 1 by default, or what the likelihood says.
        likelihood: p(y | f); Gaussian with learned noise by default.
        posterior: `Linearized()` by default, `LinearizedDiagonal()` or `PointEstimate()`.
        adapted: name prefixes of the parameters that adapt; all by default (`["output"]`: the output layer alone).

    Raises:
        UnsupportedError: a network with layers that cannot be adapted; base classes with a likelihood that is not
            `Categorical`, or with a `WholeNetwork`.
        ShapeError: outputs that contradict.
        DataError: a precision that is not positive, a prefix that no name has, fewer than two base classes, a new
            output layer that does not adapt; in training a label that is none of the base classes.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.FineTuned(bm.MLP(1, [16, 16]), solver=bm.inference.GradientSteps(5, lr=0.02))
        >>> _ = bm.fit(learner, bm.tasks.Sinusoid(), steps=2, progress=False)
        >>> learner.adapt(bm.Data.from_arrays([0.0, 1.0, 2.0], [0.0, 0.8, 0.9])).predict([1.5]).mean.shape
        torch.Size([1, 1, 1])
        >>> points = bm.TaskDataset.from_labels([([[0.0, 1.0], [1.0, 0.0], [2.0, 1.0], [3.0, 0.0]], [0, 1, 2, 3])])
        >>> two = bm.likelihoods.Categorical(2)
        >>> learner = bm.FineTuned(bm.MLP(2, [8]), base_classes=4, likelihood=two, adapted=["output"])
        >>> _ = bm.fit(learner, points, steps=2, progress=False)
        >>> learner.adapt(bm.Data.from_labels([[5.0, 1.0], [1.0, 5.0]], [0, 1])).predict([[4.0, 0.0]]).probs.shape
        torch.Size([1, 1, 2])
    """

    def __init__(
        self,
        network: Network,
        *,
        base_classes: int | None = None,
        precision: float = 1.0,
        solver: Solver | None = None,
        num_outputs: int | None = None,
        likelihood: Likelihood | None = None,
        posterior: Approximation | None = None,
        adapted: Sequence[str] | None = None,
    ) -> None:
        super().__init__(network, num_outputs=num_outputs, likelihood=likelihood, posterior=posterior, adapted=adapted)
        self.new_layer: tuple[str, ...] = ()
        self.pretraining: Likelihood | None = None
        if base_classes is not None:
            if not isinstance(self.likelihood, Categorical) or not isinstance(self.network, DenseOutput):
                raise UnsupportedError(
                    "expected a Categorical likelihood and features without an output layer of their own, as base "
                    f"classes have a layer that is thrown away, got {type(self.likelihood).__name__} and "
                    f"{type(network).__name__}"
                )
            self.pretraining = Categorical(base_classes)
            self.network = network.with_outputs(base_classes)
            own = [name for name, _ in self.network.named_parameters()]
            self.new_layer = tuple([name for name in own if not name.startswith(PREFIX)])
            if not set(self.new_layer) <= set(self.adapted):
                raise DataError(
                    f"expected the new output layer to adapt, {list(self.new_layer)}, got {list(self.adapted)}"
                )
        self.solver = GradientSteps() if solver is None else solver
        self.prior: IndependentGaussian = Pretrained.around(self.initial, precision)

    @property
    @override
    def initial(self) -> Params:
        found, count = super().initial, self.likelihood.network_outputs
        for name in self.new_layer:
            found[name] = found[name].detach().new_zeros(count, *found[name].shape[1:])
        return found

    @override
    def loss(self, tasks: TaskBatch) -> Float[Tensor, "B"]:
        """-log p(y | f(x; theta)) of all points of each task, support and query, over their number, nats."""
        points = tasks.joined()
        likelihood = self.likelihood if self.pretraining is None else self.pretraining
        return -likelihood.log_prob(self.network(points.x), points) / points.counts.clamp(min=1)

    @override
    def mode(self, support: Data) -> Params:
        return self.optimum(support, self.solver)

    @override
    def joint(self, data: Data) -> LogJoint:
        network = self.network
        if not isinstance(network, DenseOutput) or any(name.startswith(PREFIX) for name in self.adapted):
            return super().joint(data)
        rows, given = network.features(data.x), self.likelihood.given(data)  # features are computed once for all steps
        return lambda phi: (
            given(over_draws(network.of_features, phi, rows, self.draw_shape(phi))) + self.prior.log_prob(phi)
        )

    @override
    def inspect(self, support: Data, phi: Params) -> None:
        self.inspect_optimum(support, phi, self.solver, "give the solver more steps, or use LevenbergMarquardt()")


def _key(name: str) -> str:
    """The name of a buffer, which has no dots."""
    return "constant_" + name.replace(".", "_")
