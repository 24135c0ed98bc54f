"""A formula as a network: f(x; parameters) on the transformed scales of its parameters."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayesmeta.errors import BayesMetaError, DataError, ShapeError
from bayesmeta.modes import trained
from bayesmeta.networks.network import WholeNetwork
from bayesmeta.parametric.formulas import Formula
from bayesmeta.parametric.scales import Scale
from bayesmeta.typing import Params

Function = Callable[[Tensor, Params], Tensor]
TRIAL_TASKS, TRIAL_POINTS = 3, 4


class Curve(WholeNetwork):
    """The curve of the typical task, f(x; parameters at the prior mean), and those of other tasks (`at`).

    The function is tried when the network is made: its shapes, that tasks and points do not depend on each other, and
    that it can be differentiated.

    Args:
        function: f(x, parameters) with x `B N D` and each parameter `B 1`, of `B N`, or `B N K` for several outputs.
        scales: what each parameter is, by name.
        num_inputs: D; that of a `Formula`, or 1, by default.

    Attributes:
        location: the prior mean of the P parameters on their transformed scales, in the order of `scales`.

    Raises:
        DataError: no parameters, names that are not the formula's, a function that fails or mixes tasks or points, or
            has no derivative.
        ShapeError: it returns another shape.

    Example:
        >>> import bayesmeta as bm
        >>> curve = bm.parametric.Curve(
        ...     bm.parametric.MichaelisMenten(),
        ...     {"Vmax": bm.parametric.Positive(200.0), "Km": bm.parametric.Positive(0.05)},
        ... )
        >>> round(curve(torch.tensor([[[0.05]]])).item(), 3)
        100.0
    """

    def __init__(self, function: Function, scales: Mapping[str, Scale], num_inputs: int | None = None) -> None:
        super().__init__()
        if not isinstance(scales, Mapping) or not scales or not all(isinstance(s, Scale) for s in scales.values()):
            raise DataError(
                f"expected parameters by name, such as {{'rate': bm.parametric.Positive(0.1)}}, got {scales!r:.200}"
            )
        if not callable(function) or isinstance(function, type):
            raise DataError(f"expected a function f(x, parameters), got {function!r:.200}")
        if isinstance(function, Formula):
            function.require(list(scales))
            if num_inputs not in (None, function.num_inputs):
                raise ShapeError(f"expected {function.num_inputs} inputs of {function!r:.200}, got {num_inputs}")
            num_inputs = function.num_inputs
        num_inputs = 1 if num_inputs is None else num_inputs
        if num_inputs < 0:
            raise DataError(f"expected a number of inputs that is not negative, got {num_inputs}")
        self.function, self.scales = function, {str(name): scale for name, scale in scales.items()}
        self.location = nn.Parameter(torch.tensor([scale.start() for scale in scales.values()], dtype=torch.float64))
        self.x_shape, self.num_outputs = (num_inputs,), 1
        self.num_outputs = self._tried()
        self.location = nn.Parameter(self.location.detach().to(torch.get_default_dtype()))

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N K"]:
        """The curve of the typical task."""
        return self.at(self.location.expand(len(x), -1), x)

    def at(self, real: Float[Tensor, "B P"], x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N K"]:
        """f(x) of tasks with parameters of their own.

        Args:
            real: the parameters on their transformed scales.
            x: inputs.
        """
        parameters = {name: value[..., None] for name, value in self.values(real).items()}
        out = self.function(x, parameters)
        return out if out.ndim == 3 else out[..., None]

    def values(self, real: Float[Tensor, "*b P"]) -> Params:
        """The parameters themselves, by name, `*b` each.

        Args:
            real: on their transformed scales.
        """
        return {name: scale.value(real[..., i]) for i, (name, scale) in enumerate(self.scales.items())}

    @trained
    def _tried(self) -> int:
        """K, of a trial; raises where the function is not what it should be."""
        like = self.location.detach()
        x = torch.linspace(0.6, 1.7, TRIAL_TASKS * TRIAL_POINTS * self.x_shape[0]).to(like)
        x = x.reshape(TRIAL_TASKS, TRIAL_POINTS, *self.x_shape)
        shifts = torch.linspace(-0.01, 0.01, TRIAL_TASKS * len(like)).to(like).reshape(-1, TRIAL_TASKS)
        leaves = [(each + shift).requires_grad_() for each, shift in zip(like, shifts, strict=True)]
        f = self._called(leaves, x)
        shape = tuple(f.shape)
        if shape[:2] != x.shape[:2] or f.ndim not in (2, 3) or 0 in shape:
            raise ShapeError(
                f"expected f of shape (B, N), or (B, N, K) for K outputs, from x of shape {tuple(x.shape)} and "
                f"parameters of shape {(len(x), 1)}, got {shape}: x[..., 0], of shape (B, N), is the first "
                "input of every point"
            )
        first = self._called([leaf[:1] for leaf in leaves], x[:1])
        for part, one in ((f[:1], first), (f[:, :1], self._called(leaves, x[:, :1]))):
            if one.shape != part.shape or not torch.allclose(one, part, rtol=1e-6, atol=0.0, equal_nan=True):
                raise DataError(
                    "expected f of a point to depend on that point and on the parameters of its task alone, got "
                    "another value where it is asked for alone: work on whole arrays, without sums over tasks or points"
                )
        none = (None,) * len(leaves)
        gradients = torch.autograd.grad(f.sum(), leaves, allow_unused=True) if f.requires_grad else none
        for name, gradient in zip(self.scales, gradients, strict=True):
            if gradient is None:
                raise DataError(
                    f"expected f to depend on the parameter {name!r}, got no derivative: is it used, and by torch "
                    "alone (numpy and float() cut derivatives)?"
                )
        return 1 if f.ndim == 2 else shape[2]

    def _called(self, real: list[Tensor], x: Tensor) -> Tensor:
        pairs = zip(self.scales.items(), real, strict=True)
        parameters = {name: scale.value(each)[..., None] for (name, scale), each in pairs}
        try:
            f = self.function(x, parameters)
        except BayesMetaError:
            raise
        except Exception as error:
            raise DataError(
                f"expected f(x, parameters) to work with x of shape {tuple(x.shape)} and parameters "
                f"{list(parameters)} of shape {(len(x), 1)}, got {type(error).__name__}: {error}"
            ) from error
        if not isinstance(f, Tensor) or not f.is_floating_point():
            raise DataError(f"expected f to return a tensor of floating numbers, got {type(f).__name__}")
        return f
