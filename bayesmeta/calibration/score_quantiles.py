"""How the scores of a task are spread, foretold from a few of them: what few-shot conformal prediction learns.

With g the normal score of a score among those of the training tasks (Φ⁻¹ of its rank), a network on sets (Zaheer et al.
2017) gives the quantiles of g(s) in a task from N of its scores l_1..l_N:

    q(p) = ρ(1/N Σ_n ψ(g(l_n)), log(1 + N)),   increasing in p          p in LEVELS
    v(s) = Φ⁻¹(p) where q(p) = g(s),           joined and prolonged by straight lines

v (`deviations`) is increasing in s, and standard normal in every task where the network is right. The loss is that of
quantile regression (Koenker & Bassett 1978), averaged over `LEVELS`. The network begins at the quantiles of all
training tasks. What does best on a fifth of them, which it does not learn from, is kept; unless the mean gain of these
tasks is no more than its standard error, and then q is the same for all tasks.
"""

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from bayesmeta.arguments import seed_of, whole
from bayesmeta.errors import DataError
from bayesmeta.modes import settled

LEVELS: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
RANKS = 101
WIDTH = 32
RATE, BATCH = 5e-3, 256
EVERY, PATIENCE = 10, 60  # steps
FOLDS = 5


class SetNetwork(nn.Module):
    """q at `LEVELS`, by a network on sets (Zaheer et al. 2017): it begins at those of the standard normal.

    Args:
        num_outputs: C.

    Example:
        >>> quantiles = SetNetwork(1)(torch.zeros(1, 4, 1).double(), torch.ones(1, 4, dtype=torch.bool))
        >>> [round(value, 2) for value in quantiles[0, 0, [0, 6, 10]].tolist()]  # at .05, .6 and .95
        [-1.64, 0.25, 1.64]
    """

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        make: dict[str, Any] = {"dtype": torch.float64}
        self.each = nn.Sequential(
            nn.Linear(num_outputs, WIDTH, **make), nn.ReLU(), nn.Linear(WIDTH, WIDTH, **make), nn.ReLU()
        )
        self.all = nn.Sequential(nn.Linear(WIDTH + 1, WIDTH, **make), nn.ReLU())
        self.last = nn.Linear(WIDTH, num_outputs * len(LEVELS), **make)
        normal = torch.special.ndtri(torch.tensor(LEVELS, dtype=torch.float64))
        first, steps = normal[:1], normal.diff()
        with torch.no_grad():
            self.last.weight.zero_()
            self.last.bias.copy_(torch.cat([first, steps.expm1().log()]).repeat(num_outputs))

    def forward(self, values: Float[Tensor, "B N C"], mask: Bool[Tensor, "B N"]) -> Float[Tensor, "B C L"]:
        """The quantiles of a task's normal scores: the first, and positive steps to the others.

        Args:
            values: normal scores of N points.
            mask: True = real.
        """
        real = mask[..., None].double()
        count = real.sum(1)
        embedded = (self.each(values) * real).sum(1) / count.clamp(min=1.0)
        out = self.last(self.all(torch.cat([embedded, count.log1p()], -1))).unflatten(-1, (-1, len(LEVELS)))
        steps = functional.softplus(out[..., 1:]) + 1e-6
        return torch.cat([out[..., :1], out[..., :1] + steps.cumsum(-1)], -1)


@dataclass(frozen=True, eq=False)
class ScoreQuantiles:
    """What training tasks have taught of scores: a value, which `fit_score_quantiles` gives (with an example).

    Attributes:
        network: from normal scores to their quantiles.
        ranked: `C R`, scores of the training tasks in order; a step beyond both ends.
        normal: `R`, their normal scores.
    """

    network: SetNetwork
    ranked: Float[Tensor, "C R"]
    normal: Float[Tensor, "R"]

    def knots(self, scores: Float[Tensor, "B N C"], mask: Bool[Tensor, "B N"]) -> Float[Tensor, "B C L"]:
        """The quantiles, as normal scores, of tasks that are known by N scores.

        Args:
            scores: of N points of each task, padded.
            mask: True = real.
        """
        with torch.no_grad():
            return self.network(self._normal(scores, mask), mask)

    def deviations(self, scores: Float[Tensor, "B M C"], knots: Float[Tensor, "B C L"]) -> Float[Tensor, "B M C"]:
        """v(s), increasing in s.

        Args:
            scores: s, of M points of each task.
            knots: of each task.
        """
        return _interpolated(self._ranks(scores).mT, knots, _normal_levels(knots)).mT

    def scores(self, deviations: Float[Tensor, "C"], knots: Float[Tensor, "B C L"]) -> Float[Tensor, "B C"]:
        """The largest score up to this v in each task; none is below the smallest that was ever seen.

        Args:
            deviations: v, for each output.
            knots: of each task.
        """
        # an outcome that scores exactly this much must not fall out by rounding
        v = deviations + 1e-9 * (1.0 + deviations.abs())
        z = _interpolated(v.expand(len(knots), -1)[..., None], _normal_levels(knots), knots)[..., 0]
        return torch.maximum(_interpolated(z.mT, self.normal, self.ranked).mT, self.ranked[:, 1])

    def _ranks(self, scores: Float[Tensor, "B M C"]) -> Float[Tensor, "B M C"]:
        """g(s)."""
        z = _interpolated(scores.double().flatten(0, 1).mT, self.ranked, self.normal)
        return z.mT.unflatten(0, scores.shape[:2])

    def _normal(self, scores: Float[Tensor, "B N C"], mask: Bool[Tensor, "B N"]) -> Float[Tensor, "B N C"]:
        """g(s) of what is real; infinite scores too must have an embedding and a loss."""
        z = torch.where(mask[..., None], self._ranks(scores), 0.0)
        return z.clamp(float(self.normal[0]), float(self.normal[-1]))


@settled
def fit_score_quantiles(
    known: Float[Tensor, "T N C"],
    known_mask: Bool[Tensor, "T N"],
    scores: Float[Tensor, "T M C"],
    mask: Bool[Tensor, "T M"],
    *,
    steps: int = 300,
    seed: int = 0,
) -> ScoreQuantiles:
    """Learn to foretell scores of a task from N of its scores. Each task counts the same.

    Args:
        known: what a task is known by, padded.
        known_mask: True = real.
        scores: what is foretold, padded; at least one a task.
        mask: True = real.
        steps: largest number of steps of Adam, on 256 tasks each.
        seed: of the network's start and of the tasks in each step.

    Raises:
        DataError: fewer than ten tasks, or no finite score.

    Example:
        >>> hard = 1.0 + 9.0 * (torch.arange(40) % 2)[:, None, None]  # every other task has scores ten times as large
        >>> draws = hard * torch.rand(40, 12, 1, generator=torch.Generator().manual_seed(0))
        >>> known, new, real = draws[:, :6], draws[:, 6:], torch.ones(40, 6, dtype=torch.bool)
        >>> quantiles = fit_score_quantiles(known, real, new, real, steps=100)
        >>> medians = quantiles.scores(torch.zeros(1).double(), quantiles.knots(known[:2], real[:2]))
        >>> bool(medians[0] < medians[1])
        True
    """
    if len(scores) < 2 * FOLDS:
        raise DataError(
            f"expected at least {2 * FOLDS} training tasks to learn how scores are spread, got {len(scores)}"
        )
    seed, steps = seed_of(seed), whole(steps, "steps")
    known, scores = known.detach().double(), scores.detach().double()
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed other devices, which are not restored
        network = SetNetwork(scores.shape[-1]).to(scores.device)
        quantiles = ScoreQuantiles(network, *_ranking(scores, mask))
        inputs, z = quantiles._normal(known, known_mask), quantiles._normal(scores, mask)
        place = torch.arange(len(z), device=z.device)
        held_out, learned = place[place % FOLDS == FOLDS - 1], place[place % FOLDS != FOLDS - 1]
        optimizer = torch.optim.Adam(network.parameters(), lr=RATE, fused=True)

        def losses(tasks: Tensor) -> Tensor:
            return _pinball(network(inputs[tasks], known_mask[tasks]), z[tasks], mask[tasks])

        with torch.no_grad():
            first = best = losses(held_out)
        start = state = copy.deepcopy(network.state_dict())
        best_step = 0
        for step in range(1, steps + 1):
            optimizer.zero_grad()
            losses(learned[torch.randperm(len(learned))[:BATCH].to(learned.device)]).mean().backward()
            optimizer.step()
            if step % EVERY == 0:
                with torch.no_grad():
                    found = losses(held_out)
                if bool(found.mean() < best.mean()):
                    best, best_step, state = found, step, copy.deepcopy(network.state_dict())
                elif step >= best_step + PATIENCE:
                    break
        gains = first - best
        is_worthwhile = bool(gains.mean() > gains.std() / math.sqrt(len(gains)))
        network.load_state_dict(state if is_worthwhile else start)
    network.requires_grad_(False)
    return quantiles


def _ranking(scores: Tensor, mask: Tensor) -> tuple[Float[Tensor, "C R"], Float[Tensor, "R"]]:
    """Quantiles of finite scores, each task of one weight, with their normal scores, and a step beyond both ends."""
    share = torch.arange(RANKS, dtype=torch.float64, device=scores.device)
    weights = mask / mask.sum(-1, keepdim=True).double()
    rows = []
    for column in scores.unbind(-1):
        finite = mask & column.isfinite()
        if not bool(finite.any()):
            raise DataError("expected finite scores of the training tasks, got none")
        ordered, order = column[finite].sort()
        total = weights[finite][order].cumsum(0)
        place = torch.searchsorted(total, share * (total[-1] / (RANKS - 1)))
        ranked = ordered[place.clamp(max=len(ordered) - 1)]
        middle = ranked[RANKS // 2]
        low, high = (torch.where(end > 0.0, end, 1.0) for end in (middle - ranked[:1], ranked[-1:] - middle))
        rows.append(torch.cat([ranked[:1] - low, ranked, ranked[-1:] + high]))
    normal = torch.special.ndtri((share + 0.5) / RANKS)
    return torch.stack(rows), torch.cat([normal[:1] - 1.0, normal, normal[-1:] + 1.0])


def _normal_levels(like: Tensor) -> Float[Tensor, "L"]:
    return torch.special.ndtri(torch.tensor(LEVELS, dtype=torch.float64, device=like.device))


def _interpolated(x: Float[Tensor, "*b M"], knots: Float[Tensor, "*#b L"], values: Float[Tensor, "*#b L"]) -> Tensor:
    """The line through (knots, values) at x; its first and last pieces, whose knots differ, go on for ever.

    Where knots are equal it jumps, and at the jump has the smallest value: inverted, a jump is a flat piece.
    """
    shape = (*x.shape[:-1], knots.shape[-1])
    knots, values = knots.expand(shape), values.expand(shape)
    end = torch.searchsorted(knots.contiguous(), x.contiguous()).clamp(1, knots.shape[-1] - 1)
    a, b = knots.gather(-1, end - 1), knots.gather(-1, end)
    low, high = values.gather(-1, end - 1), values.gather(-1, end)
    slope = (high - low) / (b - a)
    # 0 · inf, on a flat piece, is where it lies
    return torch.where(slope > 0.0, low + (x - a) * slope, low)


def _pinball(q: Float[Tensor, "B C L"], z: Float[Tensor, "B M C"], mask: Bool[Tensor, "B M"]) -> Float[Tensor, "B"]:
    """max(p (z - q), (p - 1)(z - q)), averaged over levels, outputs and the points of a task."""
    level = torch.tensor(LEVELS, dtype=z.dtype, device=z.device)
    over = z[..., None] - q[:, None]
    loss = torch.maximum(level * over, (level - 1.0) * over).mean((-2, -1))
    return torch.where(mask, loss, 0.0).sum(1) / mask.sum(1)
