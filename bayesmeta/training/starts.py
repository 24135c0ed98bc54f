"""Many starts of a search over theta: where they are, and all of them searched from at once.

The evidence of a process has several maxima: a wave of a wrong period, noise in the place of a short length scale. A
search from one start finds the one that it is nearest to.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import vmap
from typing_extensions import override

from bayesmeta.arguments import generator_of, seed_of, whole
from bayesmeta.description import Described
from bayesmeta.distributions import common_normals
from bayesmeta.errors import DataError, InferenceError
from bayesmeta.hyperpriors import LogNormalHyperprior
from bayesmeta.learner import Learner
from bayesmeta.positive_numbers import positive_numbers
from bayesmeta.swapped import swapped
from bayesmeta.training.quasi_newton import Halving, minimise_all
from bayesmeta.typing import Params

FAILURES = (InferenceError, torch.linalg.LinAlgError)  # type: ignore[attr-defined]
MOST_ENTRIES = 2**21  # of matrices between points that are held at once


class Starts(Described):
    """Starts that are scattered around theta as it is, which is the first of them.

    A positive number (a length scale, a period, a variance, noise) is multiplied by e^(scale z), any other parameter
    moves by scale times its root mean square, or by scale where it is zero, with z ~ N(0, 1).

    Args:
        count: how many.
        seed: of their places.
        scale: the deviation of the logarithms.
        halving: when the worst are given up; after 20 evaluations of each at first, and 8 go on to the end.

    Raises:
        DataError: fewer than one, or a scale that is not positive.

    Example:
        >>> import bayesmeta as bm
        >>> tasks = bm.tasks.GPFunctions(lengthscale=0.3, noise=0.1).dataset(num_tasks=8, num_points=6, seed=0)
        >>> learner = bm.Standardized(bm.DeepKernelTransfer(bm.Identity(1))).double()
        >>> result = bm.fit_evidence(learner, tasks, starts=bm.training.Starts(8, seed=0))
        >>> len(result.ends), result.agreeing > 1
        (8, True)
    """

    def __init__(self, count: int = 32, seed: int = 0, scale: float = 1.5, halving: Halving | None = None) -> None:
        self.count, self.seed = whole(count, "count", 1), seed_of(seed)
        if not 0.0 < scale < math.inf:
            raise DataError(f"expected a positive, finite scale, got {scale}")
        self.scale, self.halving = scale, Halving() if halving is None else halving

    def draw(self, learner: Learner, names: Sequence[str]) -> Params:
        """Theta of every start: each value `S *shape`, the learner's own first.

        Args:
            learner: whose parameters they are.
            names: those that are searched.
        """
        return self.places(learner, names, {})

    def places(self, learner: Learner, names: Sequence[str], centres: Mapping[str, tuple[float, float]]) -> Params:
        """The starts, where the logarithms of some positive numbers have a mean and deviation of their own.

        Args:
            learner: whose parameters they are.
            names: those that are searched.
            centres: mean and deviation of log v by the name of the parameter.
        """
        positive, parameters = positive_numbers(learner), dict(learner.named_parameters())
        device = parameters[names[0]].device
        generator = generator_of(self.seed, device)
        found = {}
        for name in names:
            here = parameters[name].detach().double()
            z = common_normals((self.count, *here.shape), here, generator)
            if name in positive:
                each = positive[name]
                log_value, scale = each.value.detach().log(), self.scale
                if name in centres:
                    log_value, scale = torch.full_like(here, centres[name][0]), centres[name][1]
                raw = each.raw_of((log_value + scale * z).exp())
                moved = torch.where(raw.isfinite(), raw, here)
            else:
                size = here.square().mean().sqrt() if here.numel() else here.new_zeros(())
                moved = here + self.scale * torch.where(size > 0.0, size, 1.0) * z
            moved[0] = here
            found[name] = moved
        return found


class HyperpriorStarts(Starts):
    """Starts whose positive numbers are drawn from a log-normal hyperprior; theta as it is is the first of them.

    Numbers that it does not speak of are scattered as `Starts` scatters them.

    Args:
        hyperprior: where starts are drawn from; the fit maximises under the learner's own, if it has one.
        count: how many.
        seed: of the draws.
        scale: the deviation of all other numbers.
        halving: when the worst are given up, as for `Starts`.

    Example:
        >>> import bayesmeta as bm
        >>> hyperprior = bm.hyperpriors.LogNormalHyperprior(names="kernel")
        >>> learner = bm.DeepKernelTransfer(bm.Identity(1), hyperprior=hyperprior)
        >>> starts = bm.training.HyperpriorStarts(hyperprior, count=4)
        >>> starts.draw(learner, ["kernel.base_kernel.raw_lengthscale"])["kernel.base_kernel.raw_lengthscale"].shape
        torch.Size([4, 1, 1])
    """

    def __init__(
        self,
        hyperprior: LogNormalHyperprior,
        count: int = 32,
        seed: int = 0,
        scale: float = 1.5,
        halving: Halving | None = None,
    ) -> None:
        super().__init__(count, seed, scale, halving)
        self.hyperprior = hyperprior

    @override
    def draw(self, learner: Learner, names: Sequence[str]) -> Params:
        centre = (math.log(self.hyperprior.median), self.hyperprior.scale)
        return self.places(learner, names, dict.fromkeys(self.hyperprior.numbers(learner), centre))


@dataclass(frozen=True, eq=False)
class Ends:
    """Where the searches from all starts ended.

    Attributes:
        theta: each value `S *shape`.
        values: log p(tasks | theta) and the hyperprior, total nats; -inf where a start could not be computed.
        finished: whether each was searched to the end, and not given up.
    """

    theta: Params
    values: Float[Tensor, "S"]
    finished: tuple[bool, ...]

    @property
    def best(self) -> int:
        """The start with the largest value; the first of those that have it."""
        return int(self.values.argmax())


def search_all(
    learner: Learner,
    theta: Params,
    value: Callable[[], Tensor],
    *,
    steps: int,
    tolerance: float,
    points: int,
    entries: int,
    halving: Halving | None,
) -> Ends:
    """Maximise from every start, all at once where theta can be mapped over, else one after another at every step.

    Args:
        learner: whose parameters are searched; they have in the end the values that they had.
        theta: the starts, by the names of the parameters: each value `S *shape`.
        value: total nats at the theta that the learner has.
        steps: largest number of steps of each search.
        tolerance: stop when no gradient entry, in nats per point, is larger.
        points: of all tasks.
        entries: numbers that one evaluation holds, about: so many searches are evaluated at a time as memory allows.
        halving: when the worst are given up.

    Raises:
        InferenceError: no start has a finite value.
    """
    parameters = {name: dict(learner.named_parameters())[name] for name in theta}
    shapes = {name: value.shape[1:] for name, value in theta.items()}
    flat = torch.cat([value.double().reshape(len(value), -1) for value in theta.values()], 1)
    evaluate = _Evaluation(learner, parameters, shapes, value, max(1, MOST_ENTRIES // max(entries, 1)))

    def loss(u: Tensor, rows: list[int]) -> tuple[Tensor, Tensor]:
        values, gradients = evaluate(u)
        return -values / points, -gradients / points

    found = minimise_all(loss, flat, steps=steps, tolerance=tolerance, halving=halving)
    if not any(found):
        raise InferenceError(f"expected a finite evidence at one start at least, got none at any of {len(found)}")
    ends = torch.stack([start if end is None else end.point for start, end in zip(flat, found, strict=True)])
    values = [-math.inf if end is None else -end.value * points for end in found]
    finished = tuple(end is not None and not (end.is_exhausted and math.isinf(end.steepness)) for end in found)
    return Ends(_shaped(ends, shapes), torch.tensor(values, dtype=torch.float64), finished)


class _Evaluation:
    """The value at several theta, with gradients."""

    def __init__(
        self,
        learner: Learner,
        parameters: dict[str, nn.Parameter],
        shapes: Mapping[str, torch.Size],
        value: Callable[[], Tensor],
        chunk: int,
    ) -> None:
        self.learner, self.parameters, self.shapes, self.value, self.chunk = learner, parameters, shapes, value, chunk
        self.is_mapping = True

    def __call__(self, u: Float[Tensor, "S P"]) -> tuple[Float[Tensor, "S"], Float[Tensor, "S P"]]:
        if self.is_mapping and len(u) > 1:
            try:
                parts = [self._mapped(part) for part in u.split(self.chunk)]
                return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
            except RuntimeError:  # vmap refuses what decides by values, or has no rule: one at a time then
                self.is_mapping = False
        each = [self._single(row) for row in u]
        return torch.stack([value for value, _ in each]), torch.stack([gradient for _, gradient in each])

    def _mapped(self, u: Tensor) -> tuple[Tensor, Tensor]:
        leaf = u.detach().requires_grad_()
        values = vmap(self._at)(_shaped(leaf, self.shapes))
        (gradients,) = torch.autograd.grad(values.sum(), leaf)
        return values.detach(), gradients

    def _single(self, u: Tensor) -> tuple[Tensor, Tensor]:
        leaf = u.detach().requires_grad_()
        try:
            value = self._at({name: part[0] for name, part in _shaped(leaf[None], self.shapes).items()})
            (gradient,) = torch.autograd.grad(value, leaf)
        except FAILURES:
            return u.new_tensor(-math.inf), torch.zeros_like(u)
        return value.detach(), gradient

    def _at(self, theta: Params) -> Tensor:
        replaced = {self.parameters[name]: value.to(self.parameters[name].dtype) for name, value in theta.items()}
        with swapped(self.learner, replaced):
            return self.value().double()


def _shaped(flat: Float[Tensor, "S P"], shapes: Mapping[str, torch.Size]) -> Params:
    parts = flat.split([shape.numel() for shape in shapes.values()], 1)
    return {name: part.reshape(len(flat), *shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
