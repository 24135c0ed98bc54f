"""What gradient-based learners share: phi is found by climbing a log joint, and believed in around where it ends.

_map       phi_hat from the support: a path, an optimum
posterior  what is believed around it: a point, or a linearised Gaussian (`_posteriors`)
"""

import contextlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayesmeta.data import Data
from bayesmeta.errors import DataError, InferenceError, ShapeError, UnsupportedError
from bayesmeta.inference.implied_prior import ImpliedPrior, implied_prior
from bayesmeta.inference.laplace import Belief, DiagonalBelief, EarlyStopping, Evidence, ExplicitPrior, Shrinkage
from bayesmeta.inference.map import unrolled_map
from bayesmeta.learner import ExplicitLearner, Learner, TaskPosterior
from bayesmeta.learners.gradient._posteriors import Approximation, Linearized
from bayesmeta.likelihoods import Gaussian, Likelihood
from bayesmeta.networks.jacobian import Jacobian, jacobian
from bayesmeta.networks.network import Network
from bayesmeta.noise import DiagonalNoise, Positive
from bayesmeta.priors import IsotropicGaussian
from bayesmeta.torch_private import DROPOUT, INSTANCE_NORMALISATION, NORMALISATION
from bayesmeta.typing import LogJoint, Params

RATE_BOUNDS = (1e-8, 1e3)
# layers that keep a state, draw noise or cannot be differentiated twice under a map over tasks, and what to use instead
UNSUPPORTED: tuple[tuple[type[nn.Module], str], ...] = (
    (
        NORMALISATION,
        "use nn.GroupNorm or nn.LayerNorm, or Conv4(norm='task') for statistics of a task",
    ),
    (DROPOUT, "leave it out: the prior regularises"),
    (nn.RNNBase, "use an MLP on a fixed window, or attention"),
    (nn.RNNCellBase, "use an MLP on a fixed window, or attention"),
)


class GradientLearner(Learner):
    """A learner that climbs log p(D | phi), or the log joint, from a start that all tasks share.

    Step sizes are measured in units of the noise: a step is phi + α σ² ∇ log p / N, with σ² = `likelihood.unit()`. For
    a Gaussian likelihood α is then the step size on half the mean squared error, whatever noise has been learned; for
    labels (σ² = 1) it is that on the mean negative log likelihood.

    Args:
        network: f. x_shape and the number of outputs are taken from it.
        likelihood: p(y | f); Gaussian with learned noise by default.
        posterior: what is believed around the phi that is found; `Linearized()` by default.

    Raises:
        UnsupportedError: not a `Network`, or one with layers that do not work with stacked weights; they are named.
        ShapeError: the network does not have the outputs that the likelihood needs.
    """

    likelihood: Likelihood

    def __init__(self, network: Network, likelihood: Likelihood | None, posterior: Approximation | None) -> None:
        super().__init__()
        if not isinstance(network, Network):
            raise UnsupportedError(
                f"expected a network that inherits bayesmeta.Network, which says x_shape and num_outputs, "
                f"got {type(network).__name__}: call yours in the forward of a Network"
            )
        require_supported(network)
        self.network = network
        self.likelihood = Gaussian(DiagonalNoise(network.num_outputs)) if likelihood is None else likelihood
        if self.likelihood.network_outputs != network.num_outputs:
            raise ShapeError(
                f"expected a network with {self.likelihood.network_outputs} outputs for "
                f"{type(self.likelihood).__name__}, got {network.num_outputs}"
            )
        self.posterior = Linearized() if posterior is None else posterior
        self.x_shape, self.outcomes = network.x_shape, self.likelihood.outcomes

    def conform(self, data: Data) -> Data:
        """`data` in the learner's precision and on its device.

        Raises:
            ShapeError: the data do not have the learner's inputs or outputs. DataError: labels for numbers, or numbers
                for labels; tasks of different sizes, where the network takes statistics over the points of a task.
        """
        data = super().conform(data)
        if not self.network.pointwise and not torch.compiler.is_compiling() and not bool(data.mask.all()):
            raise DataError(
                f"expected tasks of one size, got padding: {type(self.network).__name__} takes statistics over the "
                "points of a task, padding included. Give all tasks as many points, or use norm='group'"
            )
        return data

    @abstractmethod
    def start(self, num_tasks: int) -> Params:
        """Where the climb of every task begins: each value `B *shape`."""

    @abstractmethod
    def forward(self, phi: Params, x: Float[Tensor, "B M *x"]) -> Float[Tensor, "*s B M K"]:
        """f(x; phi) at every point of every task, for one phi a task or for S draws of it."""

    def jacobian(self, phi: Params, x: Float[Tensor, "B M *x"]) -> Jacobian:
        """The derivative of f in the P numbers of phi."""
        return jacobian(self.forward, phi, x, theta=self.parameters(), pointwise=self.network.pointwise)

    def log_likelihood(self, data: Data) -> LogJoint:
        """phi -> log p(y | x, phi) of each task, in nats."""
        given = self.likelihood.given(data)
        return lambda phi: given(self.forward(phi, data.x))

    def belief(self, support: Data, phi: Params) -> Belief:
        """The Gaussian around phi that the linearised network and the support give."""
        return self._shrinkage().full(self._evidence(support, phi))

    def diagonal_belief(self, support: Data, phi: Params) -> DiagonalBelief:
        """The same with the diagonal of the Gauss-Newton matrix alone."""
        return self._shrinkage().diagonal(self._evidence(support, phi))

    def condition(self, support: Data) -> TaskPosterior:
        """What is believed around the phi that the climb finds."""
        return self.posterior.of(self, support, self._found(support))

    def _found(self, support: Data) -> Params:
        with self._named():
            return self._map(support)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Failures say whose they are."""
        try:
            yield
        except InferenceError as error:
            raise InferenceError(f"{self.title}: {error}", task=error.task) from error

    def _evidence(self, support: Data, phi: Params) -> Evidence:
        root = self.likelihood.curvature_root(self.forward(phi, support.x))
        shapes = {name: value.shape[1:] for name, value in phi.items()}
        return Evidence.of(self.jacobian(phi, support.x), root, support.mask, self._squares(support), shapes)

    def _unit_rate(self, support: Data) -> Float[Tensor, "B"]:
        """σ² / N: a step size of 1 on the sum over points. No points count as one, so that a prior is left."""
        return self.likelihood.unit() / support.counts.clamp(min=1).to(support.x.dtype)

    @abstractmethod
    def _map(self, support: Data) -> Params: ...

    @abstractmethod
    def _shrinkage(self) -> Shrinkage: ...

    @abstractmethod
    def _squares(self, support: Data) -> Params:
        """S²: prior variances, or rates on the sum over points."""


class WeightLearner(GradientLearner):
    """phi is the weights of the network, or a named part of them; the rest is shared by all tasks.

    Args:
        network: f; its weights are where tasks start.
        likelihood: as for `GradientLearner`.
        posterior: as for `GradientLearner`.
        adapted: beginnings of the names of the weights that tasks adapt (`["layers.4"]`: that layer alone, as ANIL,
            Raghu et al. 2020); all by default.

    Raises:
        DataError: a beginning that no name has.
    """

    def __init__(
        self,
        network: Network,
        likelihood: Likelihood | None,
        posterior: Approximation | None,
        adapted: Sequence[str] | None,
    ) -> None:
        super().__init__(network, likelihood, posterior)
        names = [name for name, _ in network.named_parameters()]
        for beginning in adapted or ():
            if not any(_begins(name, beginning) for name in names):
                raise DataError(f"expected the beginning of a weight's name among {names}, got {beginning!r}")
        self.adapted = tuple(
            name for name in names if adapted is None or any(_begins(name, beginning) for beginning in adapted)
        )
        if not self.adapted:
            raise DataError(f"expected weights to adapt, got none: {type(network).__name__} has {names}")
        parts = [name.rpartition(".") for name in self.adapted]
        # found once: a walk through named_parameters at every step would cost more than the step
        self._owners = [(network.get_submodule(owner), name) for owner, _, name in parts]

    @property
    def initial(self) -> Params:
        """theta's part of phi: each value `*shape`."""
        return {name: getattr(owner, key) for name, (owner, key) in zip(self.adapted, self._owners, strict=True)}

    def start(self, num_tasks: int) -> Params:
        """The network's own weights."""
        return {name: value.expand(num_tasks, *value.shape) for name, value in self.initial.items()}

    def forward(self, phi: Params, x: Float[Tensor, "B M *x"]) -> Float[Tensor, "*s B M K"]:
        """f(x; phi)."""
        return over_draws(self.network.stacked, phi, x, self.initial)

    def jacobian(self, phi: Params, x: Float[Tensor, "B M *x"]) -> Jacobian:
        """The derivative of f in the P numbers of phi, in the network's own way."""
        return self.network.jacobian(phi, x)


class AscentLearner(WeightLearner):
    """k steps on the log likelihood from theta: MAP under the prior N(theta, Q) that the steps imply.

    A subclass gives `rates`. The gradient can be cut (`first_order`) by a subclass. `lr` and the rest are arguments of
    the subclasses.
    """

    first_order: bool = False

    def __init__(
        self,
        network: Network,
        steps: int,
        likelihood: Likelihood | None,
        posterior: Approximation | None,
        adapted: Sequence[str] | None,
        checkpoint: bool = False,
    ) -> None:
        super().__init__(network, likelihood, posterior, adapted)
        if steps < 1:
            raise DataError(f"expected at least one step, got {steps}")
        self.steps, self.checkpoint = steps, checkpoint

    @abstractmethod
    def rates(self) -> Params:
        """α of each weight, in units of the noise; broadcastable to its `*shape`. Their mean, where steps differ."""

    def implied_prior(self, support: Data) -> ImpliedPrior:
        """The prior under which the steps on this support are the MAP.

        Exact for a linear network and Gaussian noise, for others its linearisation at theta. (The posterior of `adapt`
        linearises at phi_hat.)

        Raises:
            InferenceError: a rate times a curvature is 1 or more: then there is none.
        """
        support = self.conform(support)
        with torch.no_grad():
            return implied_prior(self.initial, self.steps, self._evidence(support, self.start(support.num_tasks)))

    def _map(self, support: Data) -> Params:
        given = self.log_likelihood(support)
        return unrolled_map(
            # a graph that is made anew in the backward pass must not share parts between steps
            (lambda phi: self.log_likelihood(support)(phi)) if self.checkpoint else given,
            self.start(support.num_tasks),
            steps=self.steps,
            lr=self._summed(self.rates(), support),
            first_order=self.first_order,
            checkpoint=[p for p in self.parameters() if p.requires_grad] if self.checkpoint else None,
        )

    def _shrinkage(self) -> Shrinkage:
        return EarlyStopping(self.steps)

    def _squares(self, support: Data) -> Params:
        return self._summed(self.rates(), support)

    def _summed(self, rates: Params, support: Data) -> Params:
        """Rates on the sum over points: α σ² / N."""
        unit, initial = self._unit_rate(support), self.initial
        return {name: unit.reshape(-1, *[1] * initial[name].ndim) * rate for name, rate in rates.items()}


class ExplicitWeightLearner(WeightLearner, ExplicitLearner):
    """phi is weights under a prior that is written down: `prior`, whose mean is the network's own weights."""

    def _shrinkage(self) -> Shrinkage:
        return ExplicitPrior()

    prior: IsotropicGaussian

    def _squares(self, support: Data) -> Params:
        return self.prior.variance()


def positive_rate(lr: float, shape: tuple[int, ...] = ()) -> Positive:
    """Learned step sizes. Raises DataError for one outside `RATE_BOUNDS`."""
    return Positive(shape, lr, RATE_BOUNDS)


def over_draws(
    function: Callable[[Params, Tensor], Tensor], phi: Params, x: Float[Tensor, "B M *x"], like: Params
) -> Float[Tensor, "*s B M K"]:
    """function(phi, x), also for phi with S draws: their S B tasks are evaluated as one batch."""
    name, value = next(iter(like.items()))
    draws = phi[name].shape[: phi[name].ndim - value.ndim - 1]
    if not draws:
        return function(phi, x)
    count = draws.numel()
    flat = {key: each.flatten(0, len(draws)) for key, each in phi.items()}
    repeated = x.expand(count, *x.shape).flatten(0, 1)
    return function(flat, repeated).unflatten(0, (*draws, len(x)))


def require_supported(network: nn.Module) -> None:
    """Raise UnsupportedError for a layer that does not work with stacked weights and second derivatives."""
    for name, layer in network.named_modules():
        for kind, remedy in UNSUPPORTED:
            is_plain = isinstance(layer, INSTANCE_NORMALISATION) and not layer.track_running_stats
            is_off = isinstance(layer, DROPOUT) and layer.p == 0.0
            if isinstance(layer, kind) and not is_plain and not is_off:
                raise UnsupportedError(
                    f"expected layers whose output depends on weights and inputs alone, got {type(layer).__name__} "
                    f"as {name!r} in {type(network).__name__}: {remedy}"
                )


def _begins(name: str, beginning: str) -> bool:
    return name == beginning or name.startswith(beginning.rstrip(".") + ".")
