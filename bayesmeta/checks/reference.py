"""How far an approximate task posterior is from a reference, which is usually NUTS.

With m and s the mean and deviation of a number of phi, and q the reference:

    mean error          (m - m_q) / s_q                       of each number of phi
    log scale           log s / s_q                           of each number of phi; below 0 too narrow
    sliced Wasserstein  √ E_u W²(uᵀ z, uᵀ z_q)                of phi, z = (phi - m_q) / s_q, u a random direction
                                                              (Bonneel, Rabin, Peyré, Pfister 2015, "Sliced and Radon
                                                              Wasserstein barycenters of measures"), in deviations
    predictive KL       KL(q(y | x) ‖ p(y | x))               of each query point on its own, in nats

Weights of a network that are permuted, or change sign together, are the same function: its posterior has many equal
modes, of which an approximation has one and a chain perhaps another. The first three then say little, and the
predictive KL, in which they are one, is what counts.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Bernoulli, Categorical

from bayesmeta.arguments import generator_of, seed_of, whole
from bayesmeta.checks.rank_statistics import labels
from bayesmeta.distributions import common_normals
from bayesmeta.errors import DataError, ShapeError, UnsupportedError
from bayesmeta.learner import TaskPosterior
from bayesmeta.modes import settled
from bayesmeta.one_line import several
from bayesmeta.predictives import Predictive
from bayesmeta.tasks.dataset import naming_columns
from bayesmeta.typing import ArrayLike, Params

if TYPE_CHECKING:
    import pandas as pd

_REACH = 6.0  # of t: the quadrature reaches sinh(6) = 202 deviations of the reference
_FIRST_CELLS, _MOST_CELLS = 128, 2**14
_CHUNK = 2**21  # densities in one buffer


@settled
@naming_columns
def fidelity(
    approximate: TaskPosterior,
    reference: TaskPosterior,
    x: ArrayLike,
    *,
    num_draws: int = 1000,
    num_projections: int = 100,
    seed: int = 0,
) -> "Fidelity":
    """Compare two posteriors of the same tasks, in phi where both have draws of it, and in what they predict at x.

    All of it is zero where they are the same, up to the noise of the draws. What the noise comes to is seen by
    comparing two runs of the reference.

    Args:
        approximate: what is judged. Without draws of phi (a point, a classifier's head) it has a predictive KL alone.
        reference: what is taken for the truth.
        x: query points, as for `predict`.
        num_draws: S, draws of phi from each (twice as many of the reference), and of y where it has several outputs.
        num_projections: random directions of the sliced Wasserstein distance, rounded up to whole bases of phi.
        seed: of draws and directions.

    Raises:
        ShapeError: the posteriors are of different tasks, phi or outcomes.
        DataError: fewer than two draws, or no projections.
        UnsupportedError: the reference has no draws of phi though the other one has.

    Example:
        >>> import bayesmeta as bm
        >>> learner, support = bm.ALPaCA(bm.Polynomial(1, 0)), bm.Data.from_arrays([0.0, 1.0], [0.3, 0.5])
        >>> exact, early = learner.adapt(support), learner.adapt(support.points(slice(1)))
        >>> [bool(fidelity(each, exact, [0.5], num_draws=100).predictive_kl > 1e-3) for each in (exact, early)]
        [False, True]
    """
    num_draws, num_projections = whole(num_draws, "num_draws"), whole(num_projections, "num_projections")
    if num_draws < 2 or num_projections < 1:
        raise DataError(f"expected at least 2 draws and a projection, got {num_draws} and {num_projections}")
    seed = seed_of(seed)
    with torch.no_grad():
        kl, error = _predictive_kl(reference.predict(x), approximate.predict(x), num_draws, seed)
        try:
            draws = approximate.sample(num_draws, _generator(approximate, seed))
        except UnsupportedError:
            return Fidelity(predictive_kl=kl.cpu(), predictive_kl_error=error.cpu(), parameters=None)
        twice = reference.sample(2 * num_draws, _generator(reference, (seed + 1) % 2**63))
        parameters = _compared(draws, twice, num_projections, seed)
    return Fidelity(predictive_kl=kl.cpu(), predictive_kl_error=error.cpu(), parameters=parameters)


@dataclass(frozen=True, eq=False)
class ParameterFidelity:
    """How far the draws of phi are from the reference's: `Fidelity.parameters`. P numbers in phi.

    Attributes:
        names: of the numbers in phi.
        mean_error: `B P`, in deviations of the reference; NaN where the reference has none.
        log_scale: `B P`, log of the ratio of deviations; NaN where the reference has none.
        sliced_wasserstein: `B`, in deviations of the reference.
        sliced_wasserstein_floor: `B`, between two sets of as many draws of the reference: what chance makes of it.

    Example:
        >>> import bayesmeta as bm
        >>> learner, support = bm.ALPaCA(bm.Polynomial(1, 0)), bm.Data.from_arrays([0.0, 1.0], [0.3, 0.5])
        >>> exact, early = learner.adapt(support), learner.adapt(support.points(slice(1)))
        >>> parameters = bm.checks.fidelity(early, exact, [0.5], num_draws=500).parameters
        >>> parameters.names, bool(parameters.log_scale > 0.0)  # with one point of two it is wider
        (('weight[0,0]',), True)
        >>> bool(parameters.sliced_wasserstein > parameters.sliced_wasserstein_floor)
        True
    """

    names: tuple[str, ...]
    mean_error: Float[Tensor, "B P"]
    log_scale: Float[Tensor, "B P"]
    sliced_wasserstein: Float[Tensor, "B"]
    sliced_wasserstein_floor: Float[Tensor, "B"]


@dataclass(frozen=True, eq=False)
class Fidelity:
    """How far an approximate posterior is from the reference: what `fidelity` returns.

    Printing it shows the averages over tasks; `table()` has every task.

    Attributes:
        predictive_kl: KL(reference ‖ approximate) of each query point on its own, `B M`, nats.
        predictive_kl_error: of the quadrature, or the standard error where it is by draws; `B M`, nats. That of a
            reference which is itself made of draws is not in it.
        parameters: the same of phi; None where the approximate posterior has no draws of it.

    Example:
        >>> import bayesmeta as bm
        >>> learner, support = bm.ALPaCA(bm.Polynomial(1, 0)), bm.Data.from_arrays([0.0, 1.0], [0.3, 0.5])
        >>> exact, early = learner.adapt(support), learner.adapt(support.points(slice(1)))
        >>> found = bm.checks.fidelity(early, exact, [0.5], num_draws=500)
        >>> found.predictive_kl.shape, list(found.table().columns[:2])
        (torch.Size([1, 1]), ['predictive_kl', 'predictive_kl_max'])
    """

    predictive_kl: Float[Tensor, "B M"]
    predictive_kl_error: Float[Tensor, "B M"]
    parameters: ParameterFidelity | None

    def table(self) -> "pd.DataFrame":
        """One row for each task.

        | column | what |
        |---|---|
        | predictive_kl, predictive_kl_max | mean and largest over query points, nats |
        | mean_error, mean_error_max | root mean square and largest size over phi, deviations of the reference |
        | log_scale | mean over phi: below 0 too narrow |
        | log_scale_rms, log_scale_max | root mean square and largest size over phi |
        | sliced_wasserstein, sliced_wasserstein_floor | of phi; deviations of the reference |

        The columns of phi are absent where the approximate posterior has no draws of it.
        """
        import pandas as pd

        kl, phi = self.predictive_kl, self.parameters
        columns = {"predictive_kl": kl.mean(-1), "predictive_kl_max": kl.amax(-1)}
        if phi is not None:
            columns |= {
                "mean_error": phi.mean_error.square().nanmean(-1).sqrt(),
                "mean_error_max": phi.mean_error.nan_to_num().abs().amax(-1),
                "log_scale": phi.log_scale.nanmean(-1),
                "log_scale_rms": phi.log_scale.square().nanmean(-1).sqrt(),
                "log_scale_max": phi.log_scale.nan_to_num().abs().amax(-1),
                "sliced_wasserstein": phi.sliced_wasserstein,
                "sliced_wasserstein_floor": phi.sliced_wasserstein_floor,
            }
        return pd.DataFrame({name: value.numpy() for name, value in columns.items()}).rename_axis("task")

    def __str__(self) -> str:
        """Averages over tasks."""
        means = self.table().mean()
        shown = ", ".join(f"{name} {value:.3g}" for name, value in means.items())
        return f"{several(len(self.predictive_kl), 'task')}: {shown}"

    __repr__ = __str__


def sliced_wasserstein(
    a: Float[Tensor, "S B P"], b: Float[Tensor, "S B P"], num_projections: int = 100, seed: int = 0
) -> Float[Tensor, "B"]:
    """√ E_u W²(uᵀ a, uᵀ b) over random directions u of length 1: of N(m, I) and N(0, I) it is |m| / √P.

    In one dimension the distance of S draws is that of their order statistics. Two sets of draws of one distribution
    are about √(2 log log S / S) apart where it is Gaussian, not zero.

    Args:
        a: draws.
        b: as many other draws.
        num_projections: random directions, rounded up to whole bases.
        seed: of the directions.

    Raises:
        ShapeError: the draws are of different numbers, tasks or lengths.

    Example:
        >>> a = torch.randn(1000, 1, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        >>> round(sliced_wasserstein(a, a + 3.0).item(), 2)  # |m| / √P = 6 / 2
        3.0
    """
    if a.shape != b.shape:
        raise ShapeError(f"expected as many draws of the same numbers, got {tuple(a.shape)} and {tuple(b.shape)}")
    num_projections, generator = whole(num_projections, "num_projections", 1), generator_of(seed, a.device)
    # directions that are orthogonal to each other, a basis at a time, have less variance (Rowland et al. 2019)
    size = a.shape[-1]
    shape = (-(-num_projections // size), size, min(size, num_projections))
    bases = torch.linalg.qr(common_normals(shape, a, generator)).Q
    u = bases.transpose(0, 1).flatten(1)
    return ((a @ u).sort(0).values - (b @ u).sort(0).values).square().mean((0, 2)).sqrt()


def _compared(draws: Params, reference: Params, num_projections: int, seed: int) -> ParameterFidelity:
    shapes = [{name: tuple(value.shape[1:]) for name, value in each.items()} for each in (draws, reference)]
    if shapes[0] != shapes[1]:
        raise ShapeError(f"expected two posteriors of the same phi, got {shapes[0]} and {shapes[1]}")
    a, b = (_flat(each, list(draws)) for each in (draws, reference))
    mean, scale = b.mean(0), b.std(0)
    known = scale > 1e-9 * b.abs().amax(0)  # a fixed effect has no deviation, but rounding has
    unit = torch.where(known, scale, math.nan)
    # a number without a deviation takes no part in the distance
    white = [torch.where(known, (each - mean) / scale.clamp(min=1e-300), 0.0) for each in (a, *b.chunk(2))]
    names = [label for name, shape in shapes[0].items() for label in labels(name, shape[1:])]
    return ParameterFidelity(
        names=tuple(names),
        mean_error=((a.mean(0) - mean) / unit).cpu(),
        log_scale=(a.std(0) / unit).log().cpu(),
        sliced_wasserstein=sliced_wasserstein(white[0], white[1], num_projections, seed).cpu(),
        sliced_wasserstein_floor=sliced_wasserstein(white[2], white[1], num_projections, seed).cpu(),
    )


def _flat(draws: Params, names: list[str]) -> Float[Tensor, "S B P"]:
    return torch.cat([draws[name].double().reshape(*draws[name].shape[:2], -1) for name in names], -1)


def _predictive_kl(reference: Predictive, approximate: Predictive, num_draws: int, seed: int) -> tuple[Tensor, Tensor]:
    """KL of each point, and its error."""
    if reference.shape != approximate.shape:
        raise ShapeError(f"expected predictives of one shape, got {reference.shape} and {approximate.shape}")
    if isinstance(reference.marginals, Bernoulli | Categorical):
        p, q = reference.probs.double(), approximate.probs.double()
        if p.shape != q.shape:
            raise ShapeError(f"expected as many classes, got {p.shape[-1]} and {q.shape[-1]}")
        kl = (torch.special.xlogy(p, p) - torch.special.xlogy(p, q)).sum(-1)
        return kl, torch.zeros_like(kl)
    if reference.shape[-1] == 1:
        return _quadrature(reference, approximate)
    draws = reference.sample((num_draws,), generator_of(seed, reference.mean.device))
    densities = reference.marginals, approximate.marginals
    ratios = [densities[0].log_prob(y) - densities[1].log_prob(y) for y in draws.split(_rows(reference, approximate))]
    each = torch.cat(ratios).double()
    return each.mean(0), each.std(0) / num_draws**0.5


def _quadrature(reference: Predictive, approximate: Predictive) -> tuple[Tensor, Tensor]:
    """∫ p log(p / q) dy by the trapezoid rule in t, y = mean + deviation sinh(t), its cells halved until the sum no
    longer changes and p itself sums to 1, as it does not where the nodes miss a spike.

    For densities as smooth as noise makes them the error falls faster than any power of a cell, once it is smaller
    than the noise.
    """
    center, scale = reference.mean.double(), reference.stddev.double()
    densities = reference.marginals, approximate.marginals

    def total(nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Σ p log(p / q) dy/dt and Σ p dy/dt over nodes of t."""
        sums = torch.zeros_like(center[..., 0]), torch.zeros_like(center[..., 0])
        for part in nodes[:, None, None, None].split(_rows(reference, approximate)):
            y = (center + scale * part.sinh()).to(reference.mean.dtype)
            p, q = (density.log_prob(y).double() for density in densities)
            weight = p.exp() * (scale * part.cosh())[..., 0]
            sums[0].add_(torch.where(weight > 0.0, weight * (p - q), 0.0).sum(0))
            sums[1].add_(weight.sum(0))
        return sums

    cells = _FIRST_CELLS
    width = 2.0 * _REACH / cells
    # p vanishes at both ends, where the rule has half a weight
    sums = total(torch.linspace(-_REACH, _REACH, cells + 1, dtype=torch.float64, device=center.device))
    value = sums[0] * width
    while True:
        middles = (torch.arange(cells, dtype=torch.float64, device=center.device) + 0.5) * width - _REACH
        more = total(middles)
        sums = sums[0] + more[0], sums[1] + more[1]
        cells, width = 2 * cells, 0.5 * width
        old, value, mass = value, sums[0] * width, sums[1] * width
        change = (value - old).abs() + (mass - 1.0).abs() * (1.0 + value.abs())
        if cells >= _MOST_CELLS or bool((change <= 1e-5 + 1e-4 * value.abs()).all()):
            return value, change


def _rows(*predictives: Predictive) -> int:
    """How many y of every point to work on at a time."""
    return max(1, _CHUNK // max(map(_size, predictives)))


def _size(predictive: Predictive) -> int:
    """Densities that one y costs: components of mixtures included."""
    marginals = predictive.marginals
    mixing = getattr(marginals, "mixture_distribution", None)
    return math.prod(marginals.batch_shape if mixing is None else mixing.logits.shape)


def _generator(posterior: TaskPosterior, seed: int) -> torch.Generator:
    return generator_of(seed, posterior.spec.device)
