"""What gradient-based learners share: phi is found by ascent on a log joint, and a posterior put around where it ends.

GradientLearner         `mode` finds phi_hat; an `Approximation` makes a posterior of it (`posteriors`)
WeightLearner           phi is the parameters of the network, or some of them
AscentLearner           k steps on the log likelihood: the prior is implied by the steps (MAML and its kin)
ExplicitWeightLearner   the prior is written down (iMAML, LLAMA, BMAML)
"""

import contextlib
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from typing_extensions import override

from bayesmeta.data import Data, TaskBatch
from bayesmeta.errors import DataError, InferenceError, ShapeError, UnsupportedError
from bayesmeta.inference.arrival import FAR, require_near, warn_of_distance, warn_of_overshoot
from bayesmeta.inference.ascent import dense_likelihood_ascent, likelihood_ascent
from bayesmeta.inference.gauss_newton import distance_to_mode
from bayesmeta.inference.implied_prior import ImpliedPrior, implied_prior
from bayesmeta.inference.laplace import Belief, Curvature, DiagonalBelief, EarlyStopping, ExplicitPrior, Shrinkage
from bayesmeta.inference.map import Product, implicit_map, require_finite, unrolled_map
from bayesmeta.inference.solvers import FlatLogJoint, MapProblem, Solver
from bayesmeta.learner import ExplicitLearner, TaskPosterior
from bayesmeta.learners.gradient.posteriors import Approximation, LinearizableLearner, Linearized
from bayesmeta.likelihoods import Gaussian, Likelihood
from bayesmeta.linalg import MOST_ENTRIES, flattened
from bayesmeta.networks.jacobian import Diagonal, Jacobian, jacobian, written_out
from bayesmeta.networks.low_precision import require_unrounded
from bayesmeta.networks.network import Network
from bayesmeta.networks.requirements import require_network
from bayesmeta.noise import DiagonalNoise, HeteroscedasticNoise, Positive
from bayesmeta.outcomes import Labels, Numbers
from bayesmeta.overriding import speaks_for
from bayesmeta.priors import IndependentGaussian
from bayesmeta.snapshot import once, snapshot
from bayesmeta.torch_private import DROPOUT, INSTANCE_NORMALISATION, NORMALISATION, is_intercepted, norms
from bayesmeta.typing import LogJoint, Params

RATE_BOUNDS = (1e-8, 1e3)
COARSE = 1e-2  # deviation of the noise, over the largest outcome, below which a mode is searched for in float64
LARGE = 1e2  # above it phi is looked at more closely, in training, too
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


class GradientLearner(LinearizableLearner):
    """A learner that ascends log p(D | phi), or the log joint, from a start that all tasks share.

    Step sizes are measured in units of the noise: a step is phi + α σ² ∇ log p / N, with σ² = `likelihood.unit()`. For
    a Gaussian likelihood α is then the step size on half the mean squared error, whatever noise has been learned; for
    labels (σ² = 1) it is that on the mean negative log likelihood.

    A subclass gives `start`, `forward`, `mode`, `shrinkage` and `squares`. One whose phi is the weights of the network
    inherits `WeightLearner` or its subclasses, which give most of these.

    Args:
        network: gives the features; the learner adds a dense layer named `output` (`Network.with_outputs`).
        num_outputs: C, how many numbers are predicted at a point; 1 by default, or what the likelihood says.
        likelihood: p(y | f); Gaussian with learned noise by default.
        posterior: the approximation of the posterior around phi_hat; `Linearized()` by default.

    Attributes:
        network: f: the network with its output layer.

    Raises:
        UnsupportedError: not a `Network`, or one with layers that do not work with stacked weights; they are named.
        ShapeError: `num_outputs` is not the likelihood's, or a `WholeNetwork` does not have the outputs that the
            likelihood needs.

    Example:
        >>> import bayesmeta as bm
        >>> class Shifted(GradientLearner):  # phi is added to the outputs of a network that all tasks share
        ...     def start(self, num_tasks: int) -> Params:
        ...         return {"shift": torch.zeros(num_tasks, 1)}
        ...
        ...     def forward(self, phi: Params, x: Tensor) -> Tensor:
        ...         return self.network(x) + phi["shift"][..., None, :]
        ...
        ...     def squares(self, support: Data) -> Params:
        ...         return {"shift": 0.5 * self.unit_rate(support)[:, None]}
        ...
        ...     def mode(self, support: Data) -> Params:
        ...         rates = self.squares(support)
        ...         return unrolled_map(self.log_likelihood(support), self.start(support.num_tasks), steps=3, lr=rates)
        ...
        ...     def shrinkage(self) -> Shrinkage:
        ...         return EarlyStopping(3)
        >>> learner = Shifted(bm.MLP(1, [8]))
        >>> posterior = learner.adapt(bm.Data.from_arrays([0.0, 1.0, 2.0], [9.0, 9.0, 9.0]))
        >>> bool(posterior.mean["shift"] > 7.0)
        True
        >>> posterior.sample(7)["shift"].shape
        torch.Size([7, 1, 1])
    """

    def __init__(
        self,
        network: Network,
        *,
        num_outputs: int | None = None,
        likelihood: Likelihood | None = None,
        posterior: Approximation | None = None,
    ) -> None:
        super().__init__()
        require_supported(network)
        if likelihood is None:
            likelihood = Gaussian(DiagonalNoise(1 if num_outputs is None else num_outputs))
        elif num_outputs is not None and num_outputs != likelihood.outcomes.count:
            raise ShapeError(
                f"expected num_outputs as {type(likelihood).__name__} has it, {likelihood.outcomes.count}, "
                f"got {num_outputs}: leave num_outputs out"
            )
        if isinstance(likelihood, Gaussian) and isinstance(likelihood.noise, HeteroscedasticNoise):
            raise UnsupportedError(
                "expected noise that is the same at every input, got HeteroscedasticNoise: with the likelihood "
                "HeteroscedasticGaussian the network gives the noise, too"
            )
        try:
            self.network = network.with_outputs(likelihood.network_outputs)
        except ShapeError as error:
            raise ShapeError(f"{error} ({type(likelihood).__name__} needs {likelihood.network_outputs})") from error
        self.likelihood = likelihood
        self.posterior = Linearized() if posterior is None else posterior
        self.x_shape, self.outcomes = network.x_shape, likelihood.outcomes
        self.known_noise = likelihood.known_noise

    def conform(self, data: Data) -> Data:
        """`data` in the learner's precision and on its device.

        Raises:
            ShapeError: the data do not have the learner's inputs or outputs.
            DataError: labels for numbers, or numbers for labels; tasks of different sizes, where the network takes
                statistics over the points of a task.
        """
        data = super().conform(data)
        if not self.network.pointwise and not torch.compiler.is_compiling() and not bool(data.mask.all()):
            raise DataError(
                f"expected tasks of one size, got padding: the network of {self.title} takes statistics over the "
                "points of a task, padding included. Give all tasks as many points, or use norm='group'"
            )
        return data

    @abstractmethod
    def start(self, num_tasks: int) -> Params:
        """Where the ascent of every task begins: each value `B *shape`."""

    @abstractmethod
    def mode(self, support: Data) -> Params:
        """phi_hat, where the ascent of every task ends: each value `B *shape`, differentiable in theta."""

    def quick_mode(self, support: Data) -> Params | None:
        """The same in a faster way, which looks at no value; None where there is none.

        Where it does not end at finite numbers `mode` is asked, which says why.
        """
        return None

    @abstractmethod
    def shrinkage(self) -> Shrinkage:
        """How what the support says about a direction of phi shrinks its variance."""

    @abstractmethod
    def squares(self, support: Data) -> Diagonal:
        """S²: prior variances, or step sizes on the sum over points."""

    def jacobian(self, phi: Params, x: Float[Tensor, "B M *x"]) -> Jacobian:
        """The derivative of f in the P numbers of phi."""
        return jacobian(self.forward, phi, x, theta=self.parameters(), pointwise=self.network.pointwise)

    def log_likelihood(self, data: Data) -> LogJoint:
        """phi -> log p(y | x, phi) of each task, in nats."""
        given = self.likelihood.given(data)
        return lambda phi: given(self.forward(phi, data.x))

    def belief(self, support: Data, phi: Params) -> Belief:
        """The Gaussian around phi that the linearised network and the support give."""
        return self.shrinkage().full(self.curvature(support, phi))

    def diagonal_belief(self, support: Data, phi: Params) -> DiagonalBelief:
        """The same with the diagonal of the Gauss-Newton matrix alone."""
        return self.shrinkage().diagonal(self.curvature(support, phi))

    def curvature(self, support: Data, phi: Params) -> Curvature:
        """The generalised Gauss-Newton matrix of the support at phi, with S²."""
        root = self.likelihood.curvature_of(self.forward(phi, support.x), support)
        shapes = {name: value.shape[1:] for name, value in phi.items()}
        return Curvature.of(self.jacobian(phi, support.x), root, support.mask, self.squares(support), shapes)

    def unit_rate(self, support: Data) -> Float[Tensor, "B"]:
        """σ² / N: a step size of 1 on the sum over points. No points count as one, so that a prior is left.

        Where noise is known it is 1 / Σ_n (σ² + s_n²)⁻¹, one over what all points say of f.
        """
        unit = self.likelihood.unit()
        if support.noise is None:
            return unit * _one_over(support)
        precision = torch.where(support.mask, (unit + support.noise.mean(-1)).reciprocal(), 0.0).sum(-1)
        return torch.where(support.counts > 0, precision, unit.reciprocal()).reciprocal()

    def _unit_rate_share(self, support: Data) -> Float[Tensor, "B"]:
        """`unit_rate` in units of σ²."""
        return _one_over(support) if support.noise is None else self.unit_rate(support) / self.likelihood.unit()

    def condition(self, support: Data) -> TaskPosterior:
        """The posterior around phi_hat."""
        return self.posterior.of(self, support, self.find_mode(support))

    def loss(self, tasks: TaskBatch) -> Float[Tensor, "B"]:
        """-log p(query | support, theta) / M, in nats."""
        if not speaks_for(type(self), "loss", "condition"):
            return super().loss(tasks)
        support, query = tasks.support, tasks.query
        log_density = self.posterior.log_density(self, support, self.find_mode(support), query)
        return -log_density / query.counts.clamp(min=1)

    def find_mode(self, support: Data) -> Params:
        """The mode of the support; a failure says which method's it is.

        Raises:
            InferenceError: adaptation does not stay finite, or explodes; the error's `task` is the position of the
                task. Where no gradients are wanted, as in `adapt`, a ConvergenceWarning tells of less (`inspect`).
        """
        with self.naming_failures():
            learner, data = self.precise(support)
            if learner is self:
                phi = self.quick_mode(support)
            else:
                phi = {name: value.to(support.x.dtype) for name, value in learner.mode(data).items()}
            # training cannot afford to look at every step, and needs no more than a glance: phi of a network is near 1
            large = phi is None or self.is_large(phi)
            if phi is None or (large and not all(bool(value.isfinite().all()) for value in phi.values())):
                phi = self.mode(support)  # which says where it went wrong
                large = self.is_large(phi)
            if large or not torch.is_grad_enabled():
                self.require_near(support, phi)
        if not torch.is_grad_enabled() and not torch.compiler.is_compiling():
            self.inspect(support, phi)
        return phi

    def precise(self, support: Data) -> tuple["GradientLearner", Data]:
        """The learner and the support in the precision that a log joint is to be computed in.

        It is float64 where there is an explicit prior and the noise is small next to the outcomes: N |y - f|² / 2σ²
        drowns in the rounding of float32 before the mode is reached. Where phi is to be differentiated, as in training,
        it is the learner's own.

        Args:
            support: the data of each task.

        Example:
            >>> import bayesmeta as bm
            >>> learner = bm.IMAML(bm.MLP(1, [8]))
            >>> support = bm.Data.from_arrays([0.0, 1.0], [0.3, 0.7]).to(torch.float32)
            >>> learner.likelihood.noise.set_covariance(torch.tensor([[1e-6]]))
            >>> with torch.no_grad():
            ...     learner.precise(support)[1].x.dtype
            torch.float64
        """
        is_asked = isinstance(self, ExplicitLearner) and isinstance(self.outcomes, Numbers)
        is_free = not torch.is_grad_enabled() and not is_intercepted()
        if not is_asked or not is_free or support.x.dtype != torch.float32 or not support.y.numel():
            return self, support
        largest = torch.where(support.mask[..., None], support.y, 0.0).abs().amax()
        # not of outcomes whose squares float32 does not have, which are to be told of
        if not bool((self.likelihood.unit().sqrt() < COARSE * largest) & largest.square().isfinite()):
            return self, support
        return once(self, lambda: snapshot(self).double()), support.to(torch.float64)

    def objective(self, support: Data) -> LogJoint:
        """What adaptation climbs, in nats: the log joint where there is an explicit prior, or the log likelihood."""
        return self.joint(support) if isinstance(self, ExplicitLearner) else self.log_likelihood(support)

    def inspect(self, support: Data, phi: Params) -> None:
        """Warn of tasks whose phi is not what it should be: by default of those that fit worse than at the start."""
        warn_of_overshoot(self.title, self.is_worse(support, phi))

    def is_large(self, phi: Params) -> bool:
        """Whether an entry of phi is so large that it may have exploded; recorded code does not ask."""
        if torch.compiler.is_compiling():
            return False
        values = [value.detach() for value in phi.values() if value.numel()]
        # no entry is above the norm of all, which is had in a tenth of the time
        if not values or all(norm < LARGE for norm in torch.stack(norms(values)).tolist()):
            return False
        return not all(bool(value.abs().amax() < LARGE) for value in values)

    @torch.no_grad()
    def is_worse(self, support: Data, phi: Params) -> Bool[Tensor, "B"]:
        """Whether the objective is lower at phi than at the start, by more than rounding."""
        climbed, start = self.objective(support), self.start(support.num_tasks)
        before, after = climbed(start), climbed(phi)
        return ~(after >= before - 100.0 * torch.finfo(before.dtype).eps * before.abs())

    @torch.no_grad()
    def require_near(self, support: Data, phi: Params) -> None:
        """Raise InferenceError for a task whose adaptation has exploded (`inference.arrival`).

        Logits that are far away are absurd in any case: no label asks for them.
        """
        if torch.compiler.is_compiling():  # no decisions in recorded code: the loss is looked at after it
            return
        start, size_b = self.start(support.num_tasks), support.num_tasks
        squares = written_out(self.squares(support))
        f = torch.where(support.mask[..., None], self.forward(phi, support.x), 0.0).abs()
        outputs = _largest(f, f.ndim - 2, size_b) / self.likelihood.unit().sqrt()
        distance = torch.zeros_like(outputs)
        for name, value in phi.items():
            moved = (value - start[name]).square() / squares[name]
            distance = torch.maximum(distance, _largest(moved, value.ndim - start[name].ndim + 1, size_b).sqrt())
        certain = (outputs > FAR) if isinstance(self.outcomes, Labels) else torch.zeros_like(support.counts).bool()
        require_near(outputs, distance, lambda: certain | self.is_worse(support, phi))

    @contextlib.contextmanager
    def naming_failures(self) -> Iterator[None]:
        """Failures say whose they are."""
        try:
            yield
        except InferenceError as error:
            raise InferenceError(f"{self.title}: {error}", task=error.task) from error


class WeightLearner(GradientLearner):
    """phi is the parameters of the network, or a named part of them; the rest is shared by all tasks.

    Args:
        network: gives the features; its parameters, and those of the output layer, are where tasks start.
        num_outputs: C; as for `GradientLearner`.
        likelihood: as for `GradientLearner`.
        posterior: as for `GradientLearner`.
        adapted: name prefixes of the parameters that adapt (`["output"]`: the output layer alone, as ANIL, Raghu et al.
            2020); all by default.

    Attributes:
        adapted: the names of the parameters that adapt, in full.

    Raises:
        UnsupportedError: not a `Network`, or one with layers that do not work with stacked weights; they are named.
        ShapeError: outputs that contradict.
        DataError: a prefix that no name has.

    Example:
        >>> import bayesmeta as bm
        >>> class Unchanged(WeightLearner):
        ...     def mode(self, support: Data) -> Params:
        ...         return self.start(support.num_tasks)
        ...
        ...     def shrinkage(self) -> Shrinkage:
        ...         return ExplicitPrior()
        ...
        ...     def squares(self, support: Data) -> Params:
        ...         return {name: torch.ones_like(value) for name, value in self.initial.items()}
        >>> learner = Unchanged(bm.MLP(1, [8]), adapted=["output"])
        >>> posterior = learner.adapt(bm.Data.from_arrays([0.0, 1.0, 2.0], [1.0, 2.0, 3.0]))
        >>> posterior.sample(7)["output.weight"].shape
        torch.Size([7, 1, 1, 8])
    """

    def __init__(
        self,
        network: Network,
        *,
        num_outputs: int | None = None,
        likelihood: Likelihood | None = None,
        posterior: Approximation | None = None,
        adapted: Sequence[str] | None = None,
    ) -> None:
        super().__init__(network, num_outputs=num_outputs, likelihood=likelihood, posterior=posterior)
        shapes = {name: value.shape for name, value in self.network.named_parameters()}
        for prefix in adapted or ():
            if not any(_begins(name, prefix) for name in shapes):
                raise DataError(f"expected the prefix of a parameter's name among {list(shapes)}, got {prefix!r}")
        self.adapted = tuple(
            self.adapted_by_default()
            if adapted is None
            else [name for name in shapes if any(_begins(name, prefix) for prefix in adapted)]
        )
        if not self.adapted:
            raise DataError(f"expected parameters to adapt, got none: {type(network).__name__} has {list(shapes)}")
        # paths and numbers: a walk through named_parameters at every step would cost more than the step, and references
        # to modules would be copied with every posterior
        self._dims = tuple([len(shapes[name]) for name in self.adapted])
        owners: dict[str, list[tuple[str, str]]] = {}
        for name in self.adapted:
            owner, _, key = name.rpartition(".")
            owners.setdefault(owner, []).append((name, key))
        self._paths = tuple([(tuple(filter(None, path.split("."))), tuple(keys)) for path, keys in owners.items()])

    def adapted_by_default(self) -> list[str]:
        """The names of the parameters that adapt where the constructor is not told: all of the network's."""
        return [name for name, _ in self.network.named_parameters()]

    @property
    def initial(self) -> Params:
        """theta's part of phi: each value `*shape`."""
        found = {}
        for path, keys in self._paths:
            owner = self.network
            for part in path:
                owner = getattr(owner, part)
            for name, key in keys:
                found[name] = getattr(owner, key)
        return found

    def start(self, num_tasks: int) -> Params:
        """The network's own parameters."""
        return {name: value.expand(num_tasks, *value.shape) for name, value in self.initial.items()}

    def forward(self, phi: Params, x: Float[Tensor, "B M *x"]) -> Float[Tensor, "*s B M K"]:
        """f(x; phi), for one phi a task or for S draws of it."""
        return over_draws(self.network.stacked, phi, x, self.draw_shape(phi))

    def jacobian(self, phi: Params, x: Float[Tensor, "B M *x"]) -> Jacobian:
        """The derivative of f in the P numbers of phi, in the network's own way."""
        return self.network.jacobian(phi, x)

    @override
    def covariance_at(
        self, support: Data, phi: Params, x: Float[Tensor, "B M *x"], diagonal: bool = False
    ) -> tuple[Float[Tensor, "B M K"], Float[Tensor, "B MK MK"]]:
        parts = ("forward", "jacobian", "curvature", "belief", "diagonal_belief")
        count = support.num_points
        places = (count + x.shape[1]) * self.likelihood.network_outputs
        own = speaks_for(type(self), "covariance_at", *parts) and places**2 <= MOST_ENTRIES
        if not own or not self.network.pointwise:
            return super().covariance_at(support, phi, x, diagonal)
        # one pass over the points of support and query, and one Gram matrix of all of them
        f, rows = self.network.linearized(phi, torch.cat([support.x, x], 1))
        root = self.likelihood.curvature_of(f[:, :count], support)
        squares, shapes = self.squares(support), {name: value.shape[1:] for name, value in phi.items()}
        if diagonal:
            seen = Curvature.of(rows.points(slice(count)), root, support.mask, squares, shapes)
            return f[:, count:], self.shrinkage().diagonal(seen).covariance(rows.points(slice(count, None)))
        gram, places = rows.gram(rows, squares), count * f.shape[-1]
        root = torch.where(support.mask[..., None, None], root, 0.0).double()
        seen_by = _rooted(root, gram[:, :places])  # Rᵀ of the support's rows
        kernel, cross = _rooted(root, seen_by[..., :places].mT), seen_by[..., places:]
        return f[:, count:], self.shrinkage().covariance(kernel, cross, gram[:, places:, places:])

    def draw_shape(self, phi: Params) -> tuple[int, ...]:
        """The axes of phi before those of its tasks: none, or those of draws."""
        value = phi[self.adapted[0]]
        return tuple(value.shape[: value.ndim - self._dims[0] - 1])


class AscentLearner(WeightLearner):
    """k steps on the log likelihood from theta: MAP under the prior N(theta, Q) that the steps imply.

    A subclass gives `steps` and `rates`; one with `first_order` leaves out the second derivatives of the meta-gradient.

    Attributes:
        steps: k.
        checkpoint: keep phi alone of each step and compute the rest anew in the backward pass, to save memory.

    Example:
        >>> import bayesmeta as bm
        >>> class TwoSteps(AscentLearner):
        ...     steps = 2
        ...
        ...     def rates(self) -> Params:
        ...         return {name: value.new_tensor(0.1) for name, value in self.initial.items()}
        >>> learner = TwoSteps(bm.MLP(1, [8]))
        >>> learner.adapt(bm.Data.from_arrays([0.0, 1.0, 2.0], [1.0, 2.0, 3.0])).mean["output.weight"].shape
        torch.Size([1, 1, 8])
    """

    steps: int
    checkpoint: bool = False
    first_order: bool = False

    @abstractmethod
    def rates(self) -> Params:
        """α of each parameter, in units of the noise; broadcastable to its `*shape`. Their mean, where steps differ."""

    def implied_prior(self, support: Data) -> ImpliedPrior:
        """The prior under which the steps on this support are the MAP.

        It is exact for a linear network and Gaussian noise, and for others its linearisation at theta. (The posterior
        of `adapt` linearises at phi_hat.)

        Raises:
            InferenceError: a rate times a curvature is 1 or more: then there is none.
        """
        support = self.conform(support)
        with torch.no_grad():
            return implied_prior(self.initial, self.steps, self.curvature(support, self.start(support.num_tasks)))

    def mode(self, support: Data) -> Params:
        """Where the steps end."""
        given = self.log_likelihood(support)
        return unrolled_map(
            # a graph that is made anew in the backward pass must not share parts between steps
            (lambda phi: self.log_likelihood(support)(phi)) if self.checkpoint else given,
            self.start(support.num_tasks),
            steps=self.steps,
            lr=self.summed(self.rates(), support),
            first_order=self.first_order,
            checkpoint=[p for p in self.parameters() if p.requires_grad] if self.checkpoint else None,
        )

    @override
    def quick_mode(self, support: Data) -> Params | None:
        # by the likelihood's score, and by the layers of the network; not where a subclass climbs something else
        kind = type(self)
        if self.checkpoint or not speaks_for(kind, "quick_mode", "mode", "log_likelihood", "unit_rate", "summed"):
            return None
        score = self.likelihood.unit_score(support)
        if score is None:
            return None
        start, rates = self.start(support.num_tasks), self.rates()
        if self.first_order:  # the rates have gradients, and what they multiply has none
            lr = self.summed({name: rate / self.likelihood.unit().detach() for name, rate in rates.items()}, support)
            f_of = partial(self._at, support.x)
            return likelihood_ascent(f_of, score, start, steps=self.steps, rates=lr, first_order=True)
        score = score.times(self._unit_rate_share(support))
        one = next(iter(rates.values()))
        if one.numel() > 1 or any(rate is not one for rate in rates.values()):
            return likelihood_ascent(partial(self._at, support.x), score, start, steps=self.steps, rates=rates)
        score = score.times(one)
        layers = self.network.layers_of() if speaks_for(kind, "quick_mode", "forward") else None
        if layers is None:
            return likelihood_ascent(partial(self._at, support.x), score, start, steps=self.steps)
        shared: Params = {name: value for name, value in self.network.named_parameters() if name not in start}
        f_of = partial(_of_network, self.network, support.x)
        return dense_likelihood_ascent(layers, f_of, support.x, score, start, shared, steps=self.steps)

    def _at(self, x: Tensor, phi: Params) -> Tensor:
        return self.forward(phi, x)

    def shrinkage(self) -> Shrinkage:
        """That of the prior that the steps imply."""
        return EarlyStopping(self.steps)

    def squares(self, support: Data) -> Params:
        """The step sizes on the sum over points."""
        return self.summed(self.rates(), support)

    def summed(self, rates: Params, support: Data) -> Params:
        """Step sizes on the sum over points: α σ² / N."""
        unit = self.unit_rate(support)
        by_dims = {dims: unit.reshape(-1, *[1] * dims) for dims in set(self._dims)}
        return {name: by_dims[dims] * rates[name] for name, dims in zip(self.adapted, self._dims, strict=True)}


class ExplicitWeightLearner(WeightLearner, ExplicitLearner):
    """phi is parameters of the network under a prior that is written down, whose mean is the network's own parameters.

    A subclass gives `mode`, and sets `prior` in its constructor. Its arguments are those of `WeightLearner`.

    Attributes:
        prior: N(theta, D), in which one precision is learned, or more.

    Example:
        >>> import bayesmeta as bm
        >>> class PriorMean(ExplicitWeightLearner):
        ...     def __init__(self, network: Network) -> None:
        ...         super().__init__(network)
        ...         self.prior = bm.priors.IsotropicGaussian(self.initial, precision=10.0)
        ...
        ...     def mode(self, support: Data) -> Params:
        ...         return self.start(support.num_tasks)
        >>> learner = PriorMean(bm.MLP(1, [8]))
        >>> learner.adapt(bm.Data.from_arrays([0.0, 1.0, 2.0], [1.0, 2.0, 3.0])).predict([1.0]).mean.shape
        torch.Size([1, 1, 1])
    """

    prior: IndependentGaussian

    def shrinkage(self) -> Shrinkage:
        """Bayes' rule under the prior."""
        return ExplicitPrior()

    def squares(self, support: Data) -> Diagonal:
        """The prior variances."""
        return self.prior.diagonal()

    def optimum(
        self,
        support: Data,
        solver: Solver,
        *,
        product: Callable[[Params], Product] | None = None,
        precondition: Callable[[Params], Callable[[Tensor], Tensor]] | None = None,
        solve_steps: int = 10,
        tolerance: float = 1e-6,
    ) -> Params:
        """Where a solver ends, differentiable in theta: through its steps, or as the optimum that it is.

        Args:
            support: the data of each task.
            solver: its rates and tolerances are in units of the noise per point.
            product: as for `implicit_map`; what follows, too.
            precondition: see there.
            solve_steps: see there.
            tolerance: see there.

        Raises:
            UnsupportedError: weights of a `LowPrecision` are to be solved for.
        """
        joint, start, unit = self.joint(support), self.start(support.num_tasks), self.unit_rate(support).detach()
        curvature = partial(self.curvature, support)
        if solver.unrolls:
            phi = solver.solve(MapProblem(joint, start, unit, curvature))
            require_finite(phi, [])
            return phi
        require_unrounded(self.network, start)
        return implicit_map(
            joint,
            start,
            solver=solver,
            unit=unit,
            curvature=curvature,
            product=product,
            precondition=precondition,
            solve_steps=solve_steps,
            tolerance=tolerance,
        )

    def inspect_optimum(self, support: Data, phi: Params, solver: Solver, remedy: str) -> None:
        """Warn of tasks whose phi is short of the mode; steps that are differentiated through need not arrive.

        Args:
            support: the data of each task.
            phi: where the solver has ended.
            solver: whose end it is.
            remedy: what to do about it.
        """
        if solver.unrolls:
            super().inspect(support, phi)
            return
        self.warn_of_distance(support, phi, remedy)

    def warn_of_distance(self, support: Data, phi: Params, remedy: str) -> None:
        """Warn of tasks whose phi is short of the mode: for learners whose phi is one."""
        objective = FlatLogJoint(self.joint(support), phi)
        _, gradient = objective(objective.start)
        warn_of_distance(self.title, distance_to_mode(self.curvature(support, phi), gradient), remedy)


def positive_steps(steps: int) -> int:
    """A number of steps. Raises DataError for none."""
    if steps < 1:
        raise DataError(f"expected at least one step, got {steps}")
    return steps


def positive_rate(lr: float, shape: tuple[int, ...] = ()) -> Positive:
    """Learned step sizes. Raises DataError for one outside `RATE_BOUNDS`."""
    return Positive(shape, lr, RATE_BOUNDS)


def over_draws(
    function: Callable[[Params, Tensor], Tensor], phi: Params, x: Float[Tensor, "B M *x"], draws: tuple[int, ...]
) -> Float[Tensor, "*s B M K"]:
    """function(phi, x), also for phi with axes of draws before its tasks: all S B are evaluated as one batch."""
    if not draws:
        return function(phi, x)
    count = math.prod(draws)
    flat = {key: each.flatten(0, len(draws)) for key, each in phi.items()}
    repeated = x.expand(count, *x.shape).flatten(0, 1)
    return function(flat, repeated).unflatten(0, (*draws, len(x)))


def require_supported(network: Network) -> None:
    """Raise as `require_network` does, and UnsupportedError for a layer that does not work with stacked weights."""
    require_network(network, "a network that inherits")
    for name, layer in network.named_modules():
        for kind, remedy in UNSUPPORTED:
            is_plain = isinstance(layer, INSTANCE_NORMALISATION) and not layer.track_running_stats
            is_off = isinstance(layer, DROPOUT) and layer.p == 0.0
            if isinstance(layer, kind) and not is_plain and not is_off:
                raise UnsupportedError(
                    f"expected layers whose output depends on weights and inputs alone, got {type(layer).__name__} "
                    f"as {name!r} in {type(network).__name__}: {remedy}"
                )


def _rooted(root: Float[Tensor, "B N K K"], rows: Float[Tensor, "B NK _"]) -> Float[Tensor, "B NK _"]:
    """Rᵀ of each point times its rows."""
    if root.shape[-1] == 1:
        return root[..., 0] * rows
    return (root.mT @ rows.unflatten(1, root.shape[1:3])).flatten(1, 2)


def _one_over(support: Data) -> Float[Tensor, "B"]:
    """1 / N, and 1 for no points."""
    return support.counts.clamp(min=1).to(support.x.dtype).reciprocal()


def _of_network(network: Network, x: Tensor, phi: Params) -> Tensor:
    return network.stacked(phi, x)


def _largest(value: Tensor, dims: int, num_tasks: int) -> Float[Tensor, "B"]:
    """The largest entry of each task, whose axis is the last of the first `dims`; 0 where there are none."""
    rows = flattened(value, dims)
    if rows.numel() == 0:
        return rows.new_zeros(num_tasks)
    return rows.amax(-1).reshape(-1, num_tasks).amax(0)


def _begins(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix.rstrip(".") + ".")
