"""A linear-Gaussian posterior as a stream: two programs that hand a state on, of matrix products, roots and divisions.

    update     (x, y, state) -> state                one point of each of B streams
    predict    (query_x, state) -> parameters of the predictive

The state is the posterior of the whitened weights Z, W = K_0 + L Z: its mean m and a root S of its covariance P = S Sᵀ,
in units of the noise, which `adapt` begins with at 0 and I. With φ the whitened features of a point, divided by the
relative deviation of its noise, and r its outcome less the prior mean, Potter's form of Kalman's update is

    f = φ S,   s = 1 + f fᵀ,   S⁺ = S - S fᵀ f / (s + √s),   m⁺ = m + S fᵀ (r - φ m) / s

It never subtracts two covariances, so that P stays positive semi-definite in float32 however many points stream in, and
it needs no Cholesky factor, no triangular solve and no loop: what ONNX and ExecuTorch have. (Bierman 1977, sec. II.)

Where tasks have a scale λ ~ InvGamma(a, b) each (`TaskScale`), a and b are in the state, too.
"""

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from bayesmeta.data import Data
from bayesmeta.errors import UnsupportedError
from bayesmeta.interop.exporting.parameters import described, parameters
from bayesmeta.interop.exporting.programs import FAR, PointMaker, Program, Slot, require_shapes
from bayesmeta.inverse_gamma import InverseGamma
from bayesmeta.learner import Learner, TaskPosterior
from bayesmeta.learners.closed_form.linear_posterior import LinearPosterior, LinearTheta
from bayesmeta.linalg import cholesky
from bayesmeta.predictives import GaussianPredictive, StudentTPredictive
from bayesmeta.wrappers.base import WrappedPosterior

STATELESS = {"spec", "learner", "inner"}  # what a posterior of a wrapper may hold: nothing that points change
STATE = ("weights_mean", "weights_root", "scale_shape", "scale_rate")
MEANINGS = {
    "weights_mean": "the posterior mean of the whitened weights",
    "weights_root": "a root of their posterior covariance, in units of the noise",
    "scale_shape": "the shape of the inverse gamma belief in the scale of each stream",
    "scale_rate": "its rate",
}
AXES: dict[str, tuple[str, ...]] = {
    "weights_mean": ("B", "R", "C"),
    "weights_root": ("B", "R", "R"),
    "scale_shape": ("B",),
    "scale_rate": ("B",),
}
NEXT = "next_"  # what the names of a state begin with that comes out of a program
TRIED_POINTS = 3  # after which a stream is compared with the library


class StreamTheta(nn.Module):
    """theta as a stream uses it: numbers that were computed once, in the precision of the learner.

    Args:
        theta: as inference uses it, in float64.
        dtype: the precision of the state.
    """

    location: Tensor
    factor: Tensor
    output_covariance: Tensor
    whitening: Tensor

    def __init__(self, theta: LinearTheta, dtype: torch.dtype) -> None:
        super().__init__()
        self.features, self.noise, self.is_diagonal = theta.features, theta.noise, theta.factor.ndim == 1
        intercept = torch.zeros_like(theta.location[0]) if theta.intercept is None else theta.intercept
        outputs = cholesky(theta.output_covariance, "noise covariance")
        numbers = {
            "location": theta.location,
            "intercept": intercept,
            "factor": theta.factor,
            "output_covariance": theta.output_covariance,
            "whitening": torch.linalg.inv(outputs).mT,  # rows r Lc⁻ᵀ have the covariance I
        }
        for name, value in numbers.items():
            self.register_buffer(name, value.detach().to(dtype).clone())

    def seen(self, x: Float[Tensor, "B N *x"]) -> tuple[Float[Tensor, "B N R"], Float[Tensor, "B N C"]]:
        """Whitened features φ, and the prior mean of the outcome."""
        design = self.features(x).to(self.location.dtype)
        rows = design * self.factor if self.is_diagonal else design @ self.factor
        return rows, design @ self.location + self.intercept

    def relative_noise(self, x: Float[Tensor, "B N *x"]) -> Float[Tensor, "B N"] | None:
        """The noise variance of each point in units of Σ; None where it is 1 everywhere."""
        relative = None if self.noise is None else self.noise.relative(x)
        return None if relative is None else relative.to(self.location.dtype)


@dataclass(frozen=True, eq=False, kw_only=True)
class StreamPosterior(TaskPosterior):
    """A linear posterior in square-root form whose updates are of one point each.

    Attributes:
        theta: theta.
        mean: m.
        root: S.
        scale: p(λ) of each task; None where all tasks have λ = 1.
    """

    theta: StreamTheta
    mean: Float[Tensor, "B R C"]
    root: Float[Tensor, "B R R"]
    scale: InverseGamma | None = None

    @override
    def at(self, x: Float[Tensor, "B M *x"]) -> GaussianPredictive | StudentTPredictive:
        rows, prior_mean = self.theta.seen(x)
        relative = self.theta.relative_noise(x)
        gaussian = GaussianPredictive(
            location=prior_mean + rows @ self.mean,
            latent_variance=(rows @ self.root).square().sum(-1),
            latent_covariance=_no_joint,
            output_covariance=self.theta.output_covariance,
            noise=1.0 if relative is None else relative,
        )
        return gaussian if self.scale is None else StudentTPredictive(gaussian, self.scale)

    @override
    def extended(self, data: Data) -> "StreamPosterior":
        rows, prior_mean = self.theta.seen(data.x)
        residual, relative = data.y.to(rows.dtype) - prior_mean, self.theta.relative_noise(data.x)
        if relative is not None:
            deviation = relative.sqrt()[..., None]
            rows, residual = rows / deviation, residual / deviation
        projected = rows @ self.root  # f, B 1 R
        variance = 1.0 + projected @ projected.mT  # s, B 1 1
        spread = self.root @ projected.mT  # S fᵀ, B R 1
        innovation = residual - rows @ self.mean
        scale = self.scale
        if scale is not None:
            white = innovation @ self.theta.whitening
            squares = (white @ white.mT / variance)[:, 0, 0]
            scale = InverseGamma(scale.shape + 0.5 * len(self.theta.output_covariance), scale.rate + 0.5 * squares)
        return replace(
            self,
            mean=self.mean + spread @ innovation / variance,
            root=self.root - spread @ projected / (variance + variance.sqrt()),
            scale=scale,
        )

    @property
    def state(self) -> dict[str, Tensor]:
        """What is handed on, by name."""
        scale = () if self.scale is None else (self.scale.shape, self.scale.rate)
        return dict(zip(STATE, (self.mean, self.root, *scale), strict=False))


def _no_joint() -> Tensor:
    raise UnsupportedError("a stream predicts each point on its own")


class Stream(nn.Module):
    """A learner whose posterior is linear and Gaussian, as a stream: what `update` and `predict` have in common.

    Args:
        learner: whose theta is frozen.

    Raises:
        UnsupportedError: the posterior is not of a fixed size, or a wrapper remembers points.

    Example:
        >>> import bayesmeta as bm
        >>> from bayesmeta.interop.exporting.streams import Stream
        >>> stream = Stream(bm.ALPaCA(bm.Polynomial(1, 0)).frozen())
        >>> point = bm.Data.full(torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
        >>> posterior = stream.posterior(stream.start()).extended(point)
        >>> round(posterior.at(torch.zeros(1, 1, 1)).mean.item(), 3)  # unit prior variance, in units of the noise
        0.5
    """

    def __init__(self, learner: Learner) -> None:
        super().__init__()
        self.learner = learner
        self.template = _prior(learner)
        inner = _linear(self.template, learner)
        self.theta = StreamTheta(inner.theta, inner.spec.dtype)
        mean, root = inner.beliefs[0].moments()
        scale = () if inner.scale is None else (inner.scale.shape, inner.scale.rate)
        self._start = [value.detach().to(inner.spec.dtype).clone() for value in (mean, root, *scale)]

    def start(self) -> dict[str, Tensor]:
        """The state of one stream before its first point: the prior."""
        return dict(zip(STATE, self._start, strict=False))

    def posterior(self, state: dict[str, Tensor]) -> TaskPosterior:
        """The posterior of as many streams as the state is of, seen through the wrappers of the learner.

        Args:
            state: by name.
        """
        scale = InverseGamma(state["scale_shape"], state["scale_rate"]) if "scale_shape" in state else None
        return self._seen_through(self.template, state, scale)

    def _seen_through(
        self, outer: TaskPosterior, state: dict[str, Tensor], scale: InverseGamma | None
    ) -> TaskPosterior:
        mean, root = state["weights_mean"], state["weights_root"]
        spec = outer.spec.of_tasks(mean.shape[0])
        if isinstance(outer, WrappedPosterior):
            return replace(outer, spec=spec, inner=self._seen_through(outer.inner, state, scale))
        return StreamPosterior(spec=spec, theta=self.theta, mean=mean, root=root, scale=scale)


def streams(learner: Learner) -> bool:
    """Whether a learner can be a stream: its posterior has a fixed size, and no wrapper remembers points.

    Args:
        learner: whose theta is frozen.

    Example:
        >>> import bayesmeta as bm
        >>> from bayesmeta.interop.exporting.streams import streams
        >>> streams(bm.ALPaCA(bm.Identity(1))), streams(bm.ConditionalNeuralProcess(bm.Identity(1)))
        (True, False)
    """
    return isinstance(_inside(_prior(learner)), LinearPosterior)


def _prior(learner: Learner) -> TaskPosterior:
    """The posterior of one task without a point."""
    x_shape, outcomes, dtype = require_shapes(learner)
    x = torch.zeros(1, 0, *x_shape, dtype=dtype, device=learner.placement()[1])
    y_type = dtype if outcomes.y_shape else torch.int64
    y = torch.zeros(1, 0, *outcomes.y_shape, dtype=y_type, device=x.device)
    return learner.condition(Data(x, y, torch.zeros(1, 0, dtype=torch.bool, device=x.device)))


def _inside(posterior: TaskPosterior) -> TaskPosterior:
    """What is inside of wrappers that change points, and remember none."""
    while isinstance(posterior, WrappedPosterior) and {each.name for each in fields(posterior)} == STATELESS:
        posterior = posterior.inner
    return posterior


def _linear(posterior: TaskPosterior, learner: Learner) -> LinearPosterior:
    posterior = _inside(posterior)
    if not isinstance(posterior, LinearPosterior):
        raise UnsupportedError(
            f"expected a learner with a posterior of a fixed size for a stream, got {learner.title}: ALPaCA and "
            "R2D2Regressor have one, in Standardized and LogTransformed too; that of a Gaussian process, of a "
            "classifier or of a network that reads its support grows with the points"
        )
    return posterior


class Update(nn.Module):
    """One more point of each stream.

    Args:
        stream: the learner.
    """

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self.stream = stream

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        weights_mean: Tensor,
        weights_root: Tensor,
        scale_shape: Tensor | None = None,
        scale_rate: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The state after the point; its names begin with `next_`."""
        mask = torch.ones(x.shape[0], 1, dtype=torch.bool, device=x.device)
        posterior = self.stream.posterior(_state(weights_mean, weights_root, scale_shape, scale_rate))
        after = posterior.extended(Data(x[:, None], y[:, None], mask))
        while isinstance(after, WrappedPosterior):
            after = after.inner
        assert isinstance(after, StreamPosterior)
        return {f"{NEXT}{name}": value for name, value in after.state.items()}


class Predict(nn.Module):
    """The predictive of each query point of a stream.

    Args:
        stream: the learner.
    """

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self.stream = stream

    def forward(
        self,
        query_x: Tensor,
        weights_mean: Tensor,
        weights_root: Tensor,
        scale_shape: Tensor | None = None,
        scale_rate: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The parameters of the predictive."""
        posterior = self.stream.posterior(_state(weights_mean, weights_root, scale_shape, scale_rate))
        return parameters(posterior.at(posterior.spec.cast(query_x)))


def _state(*values: Tensor | None) -> dict[str, Tensor]:
    return {name: value for name, value in zip(STATE, values, strict=True) if value is not None}


def stream_programs(learner: Learner) -> tuple[Program, Program, dict[str, Tensor]]:
    """`update`, `predict`, and the state that they begin with.

    Args:
        learner: whose theta is frozen.

    Raises:
        UnsupportedError: the posterior is not of a fixed size, a wrapper remembers points, or a stream would say
            something else than the library.

    Example:
        >>> import bayesmeta as bm
        >>> from bayesmeta.interop.exporting.streams import stream_programs
        >>> update, predict, start = stream_programs(bm.ALPaCA(bm.Identity(1)).frozen())
        >>> [slot.name for slot in update.inputs], start["weights_root"].shape
        (['x', 'y', 'weights_mean', 'weights_root'], torch.Size([1, 2, 2]))
    """
    stream = Stream(learner)
    _require_agreement(stream, learner)
    x_shape, outcomes, dtype = require_shapes(learner)
    start = stream.start()
    state = tuple(_slot_of(name, value) for name, value in start.items())
    x = Slot("x", ("B", *x_shape), dtype, "the input of one point of each stream, in the user's units")
    y = Slot("y", ("B", *outcomes.y_shape), dtype, "its outcome, in the user's units")
    query = Slot("query_x", ("B", "M", *x_shape), dtype, "inputs at which outcomes are predicted, in the user's units")

    def states(num_streams: int, points: PointMaker) -> list[Tensor]:
        seen = {name: value.expand(num_streams, *value.shape[1:]) for name, value in start.items()}
        for _ in range(TRIED_POINTS):
            seen = _without_next(update(points.inputs(num_streams), points.outcomes(num_streams), *seen.values()))
        return [value.contiguous() for value in seen.values()]

    def example(num_streams: int, num_support: int, num_query: int) -> tuple[Tensor, ...]:
        points = PointMaker(learner)
        return (points.inputs(num_streams), points.outcomes(num_streams), *states(num_streams, points))

    def queries(num_streams: int, num_support: int, num_query: int) -> tuple[Tensor, ...]:
        points = PointMaker(learner)
        return (points.inputs(num_streams, num_query), *states(num_streams, points))

    update, predict = Update(stream), Predict(stream)
    return (
        Program("update", update, (x, y, *state), example, update, _of_state),
        Program("predict", predict, (query, *state), queries, predict, described),
        start,
    )


def _without_next(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(NEXT): value for name, value in state.items()}


def _of_state(name: str) -> tuple[tuple[str, ...], str]:
    own = name.removeprefix(NEXT)
    return AXES[own], MEANINGS[own]


def _slot_of(name: str, value: Tensor) -> Slot:
    letters, meaning = _of_state(name)
    axes = tuple("B" if letter == "B" else size for letter, size in zip(letters, value.shape, strict=True))
    return Slot(name, axes, value.dtype, meaning)


@torch.no_grad()
def _require_agreement(stream: Stream, learner: Learner) -> None:
    """Raise UnsupportedError where a stream of a few points says something else than the library."""
    points = PointMaker(learner)
    x, y, query = points.inputs(1, TRIED_POINTS), points.outcomes(1, TRIED_POINTS), points.inputs(1, 2)
    update, state = Update(stream), stream.start()
    for n in range(TRIED_POINTS):
        state = _without_next(update(x[:, n], y[:, n], *state.values()))
    found = Predict(stream)(query, *state.values())
    for name, value in parameters(learner.adapt(Data.full(x, y)).predict(query)).items():
        far = float((found[name] - value).abs().max())
        if not far <= FAR[state["weights_root"].dtype] * max(float(value.abs().max()), 1.0):
            raise UnsupportedError(
                f"expected a stream of {learner.title} to say what the library says, got {name} that differs by "
                f"{far:.3g} after {TRIED_POINTS} points"
            )
