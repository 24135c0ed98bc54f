"""A function of a learner's theta at many theta at once: mapped over them where torch can, else one after another."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import vmap

from bayesmeta.data import Data
from bayesmeta.errors import DataError, InferenceError
from bayesmeta.learner import Learner
from bayesmeta.swapped import swapped
from bayesmeta.typing import Params

FAILURES = (InferenceError, torch.linalg.LinAlgError)  # type: ignore[attr-defined]
MOST_ENTRIES = 2**20  # of matrices between points that are held at once: larger ones leave the cache


class ThetaMap:
    """What a learner computes at other theta: `S P` numbers, those of its parameters that require gradients.

    A theta at which it cannot be computed (a matrix that is not positive definite) gives NaN.

    Args:
        learner: whose parameters stand for theta; they are as they were after each call.
        function: what is computed of the learner at the theta that it has then.
        data: what it is computed of: so many theta are mapped over at a time as kernel matrices of it allow.

    Attributes:
        names: of the parameters.

    Raises:
        DataError: nothing requires gradients.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.ALPaCA(bm.Identity(1)).double()
        >>> data = bm.Data.from_arrays([0.0, 1.0], [0.5, 1.0])
        >>> evidence = ThetaMap(learner, lambda: learner.evidence(data), [data])
        >>> evidence(torch.stack([evidence.here, evidence.here + 0.1])).shape  # two theta, one task
        torch.Size([2, 1])
    """

    def __init__(self, learner: Learner, function: Callable[[], Tensor], data: Sequence[Data]) -> None:
        self.learner, self.function = learner, function
        trained = {name: p for name, p in learner.named_parameters() if p.requires_grad and p.numel()}
        if not trained:
            raise DataError(f"expected parameters to train, got none that requires gradients in {learner.title}")
        self.names, self.parameters = tuple(trained), tuple(trained.values())
        entries = sum(each.num_tasks * max(each.num_points, 1) ** 2 for each in data)
        self.chunk = max(1, MOST_ENTRIES // max(entries, 1))
        self.is_mapping = True

    @property
    def here(self) -> Float[Tensor, "P"]:
        """Theta as the learner has it."""
        return self.flat({name: p.detach()[None] for name, p in zip(self.names, self.parameters, strict=True)})[0]

    def flat(self, theta: Params) -> Float[Tensor, "S P"]:
        """Theta by names, each value `S *shape`, as rows of numbers."""
        return torch.cat([theta[name].double().reshape(len(theta[name]), -1) for name in self.names], 1)

    @torch.no_grad()
    def place(self, point: Float[Tensor, "P"]) -> None:
        """Give the learner this theta."""
        for parameter, value in zip(self.parameters, self._parts(point[None]), strict=True):
            parameter.copy_(value[0])

    @torch.no_grad()
    def __call__(self, points: Float[Tensor, "S P"]) -> Float[Tensor, "S *n"]:
        """The function at each theta."""
        return self._each(points)

    def with_gradients(self, points: Float[Tensor, "S P"]) -> tuple[Float[Tensor, "S"], Float[Tensor, "S P"]]:
        """The values of a scalar function, and its gradients in theta."""
        values, gradients = [], []
        for part in points.split(self.chunk):
            leaf = part.detach().requires_grad_()
            value = self._each(leaf)
            gradient = None  # where nothing depends on theta, or nothing could be computed
            if value.requires_grad:
                (gradient,) = torch.autograd.grad(value.nan_to_num().sum(), leaf, allow_unused=True)
            values.append(value.detach())
            gradients.append(torch.zeros_like(part) if gradient is None else gradient)
        return torch.cat(values), torch.cat(gradients)

    def _each(self, points: Tensor) -> Tensor:
        if self.is_mapping and len(points) > 1:
            try:
                return torch.cat([vmap(self._at)(part) for part in points.split(self.chunk)])
            except RuntimeError:  # vmap has no rule for it, or it decides by values
                self.is_mapping = False
        each = [self._or_none(point) for point in points]
        shape = next((value.shape for value in each if value is not None), torch.Size())
        return torch.stack([points.new_full(shape, torch.nan) if value is None else value for value in each])

    def _or_none(self, point: Tensor) -> Tensor | None:
        try:
            return self._at(point)
        except FAILURES:
            return None

    def _at(self, point: Tensor) -> Tensor:
        values = (part[0] for part in self._parts(point[None]))
        replaced: dict[Tensor, Tensor] = {
            p: value.to(p.dtype) for p, value in zip(self.parameters, values, strict=True)
        }
        with swapped(self.learner, replaced):
            return self.function().double()

    def _parts(self, points: Tensor) -> list[Tensor]:
        parts = points.split([p.numel() for p in self.parameters], 1)
        return [part.reshape(len(points), *p.shape) for part, p in zip(parts, self.parameters, strict=True)]
