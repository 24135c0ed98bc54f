"""Many starts of a search over theta: where they are, and all of them searched from at once.

The evidence of a process has several maxima: a wave of a wrong period, noise in the place of a short length scale. A
search from one start finds the one that it is nearest to.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from bayesmeta.arguments import generator_of, seed_of, whole
from bayesmeta.description import Described
from bayesmeta.distributions import common_normals
from bayesmeta.errors import DataError, InferenceError
from bayesmeta.hyperpriors import LogNormalHyperprior
from bayesmeta.learner import Learner
from bayesmeta.positive_numbers import positive_numbers
from bayesmeta.training.quasi_newton import Halving, minimise_all
from bayesmeta.training.runs.answers import Ask, computed
from bayesmeta.training.theta_map import ThetaMap
from bayesmeta.typing import Params


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
        >>> tasks = bm.tasks.Sinusoid().dataset(num_tasks=6, num_points=6, seed=0)
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
        >>> learner = bm.DeepKernelTransfer(bm.Identity(1))
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
        points: theta of each, flat.
        values: log p(tasks | theta) and the hyperprior, total nats; -inf where a start could not be computed.
        finished: whether each was searched to the end, and not given up.
    """

    points: Float[Tensor, "S P"]
    values: Float[Tensor, "S"]
    finished: tuple[bool, ...]

    @property
    def best(self) -> int:
        """The start with the largest value; the first of those that have it."""
        return int(self.values.argmax())


def search_all(
    total: ThetaMap,
    starts: Float[Tensor, "S P"],
    *,
    steps: int,
    tolerance: float,
    points: int,
    halving: Halving | None,
    ask: Ask = computed,
) -> Ends:
    """Maximise from every start, all at once where theta can be mapped over, else one after another at every step.

    Args:
        total: nats of all tasks at theta.
        starts: theta of each, flat.
        steps: largest number of steps of each search.
        tolerance: stop when no gradient entry, in nats per point, is larger.
        points: of all tasks.
        halving: when the worst are given up.
        ask: gives values and gradients that are known already, of a search that goes on.

    Raises:
        InferenceError: no start has a finite value.
    """

    def loss(u: Tensor, rows: list[int]) -> tuple[Tensor, Tensor]:
        values, gradients = (each.to(u) for each in ask(lambda: total.with_gradients(u)))
        return -values / points, -gradients / points

    found = minimise_all(loss, starts, steps=steps, tolerance=tolerance, halving=halving)
    if not any(found):
        raise InferenceError(f"expected a finite evidence at one start at least, got none at any of {len(found)}")
    ends = torch.stack([start if end is None else end.point for start, end in zip(starts, found, strict=True)])
    values = [-math.inf if end is None else -end.value * points for end in found]
    finished = tuple(end is not None and not (end.is_exhausted and math.isinf(end.steepness)) for end in found)
    return Ends(ends, torch.tensor(values, dtype=torch.float64), finished)
