"""Bars of speed of learners in closed form, next to the formula written out by hand.

The bare formula is what one would write without this library: the network is called on support and query, and the
textbook's posterior is computed of what it gives, in float64, with theta read out beforehand; no checks, no posterior
to keep, a single task, so that all is vectors and matrices.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

import bayesmeta as bm
from benchmarks._speed import Bar

FEATURES, POINTS, QUERIES = 32, 10, 5
FEW = 5  # points and queries of a task in a batch
BATCH = 1_024
STREAMS, WIDTH = 1_024, 64
WIDE, WAYS = 16_000, 5


class Given(bm.Network):
    """Features that are the inputs."""

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.x_shape, self.num_outputs = (num_outputs,), num_outputs

    def forward(self, x: Tensor) -> Tensor:
        return x


def interleaved(calls: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Processor seconds of a call, the median of those taken in turn; the first calls of each do not count."""
    for call in calls.values():
        for _ in range(3):
            call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.process_time() + seconds
    while time.process_time() < end or len(next(iter(times.values()))) < 5:
        for name, call in calls.items():
            start = time.process_time()
            call()
            times[name].append(time.process_time() - start)
    return {name: statistics.median(each) for name, each in times.items()}


class Bare:
    """ALPaCA by hand: theta in float64, read out once."""

    def __init__(self, learner: bm.ALPaCA) -> None:
        self.features = learner.features
        self.location = learner.prior.location.detach().double()
        self.factor = learner.prior.covariance.factor().detach().double()
        self.noise = learner.prior.noise.variance().item()

    @torch.no_grad()
    def predict(self, x: Tensor, y: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance at the queries, in the space of points."""
        h, asked = self.features(x).double(), self.features(query).double()
        rows, asked_rows = h @ self.factor, asked @ self.factor
        eye = torch.eye(len(x), dtype=torch.float64)
        factor = torch.linalg.cholesky(torch.addmm(eye, rows, rows.mT))
        weights = torch.cholesky_solve(y.double() - h @ self.location, factor)
        cross = rows @ asked_rows.mT
        white = torch.linalg.solve_triangular(factor, cross, upper=False)
        variance = asked_rows.square().sum(-1) - white.square().sum(0) + 1.0
        return asked @ self.location + cross.mT @ weights, self.noise * variance

    @torch.no_grad()
    def update(self, mean: Tensor, root: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and root of the covariance of whitened weights after one more point (Potter 1963)."""
        h = self.features(x).double()
        row = (h @ self.factor)[0]
        projected = row @ root
        scale = (1.0 + projected @ projected).sqrt()
        spread = root @ (projected / scale)
        innovation = (y.double() - h @ self.location)[0] - row @ mean
        root = torch.addr(root, spread, projected / (scale + 1.0), alpha=-1.0)
        return mean + torch.outer(spread / scale, innovation), root


def one_task(seconds: float) -> list[Bar]:
    """Adapt and predict, and update, of one task: a learner that trains, and the formula."""
    torch.manual_seed(0)
    learner = bm.ALPaCA(bm.MLP(1, [FEATURES, FEATURES]))
    bare, x, y, query = Bare(learner), torch.randn(POINTS, 1), torch.randn(POINTS, 1), torch.randn(QUERIES, 1)
    data, more = bm.Data.full(x[None], y[None]), bm.Data.full(x[None, :1], y[None, :1])
    many = bm.Data.full(torch.randn(1, 2 * FEATURES, 1), torch.randn(1, 2 * FEATURES, 1))
    few, full = learner.adapt(data), learner.adapt(many)
    mean, root = full.beliefs[0].moments()

    def ours() -> tuple[Tensor, Tensor]:
        prediction = learner.adapt(data).predict(query)
        return prediction.mean, prediction.variance

    for mine, theirs in zip(ours(), bare.predict(x, y, query), strict=True):
        torch.testing.assert_close(mine.flatten(), theirs.flatten(), rtol=1e-9, atol=1e-12)
    times = interleaved(
        {
            "formula": lambda: bare.predict(x, y, query),
            "ours": ours,
            "formula's update": lambda: bare.update(mean[0], root[0], x[:1], y[:1]),
            "update of few": lambda: few.update(more),
            "update of many": lambda: full.update(more),
            "snapshot": learner.frozen,
        },
        seconds,
    )
    unit = times["formula"]
    note = f"formula {unit * 1e6:.0f} us; a copy of theta, which each adapt made before, {times['snapshot'] / unit:.1f}"
    updates = [times[name] / times["formula's update"] for name in ("update of few", "update of many")]
    return [
        Bar("ALPaCA, one task: adapt + predict, in formulas", times["ours"] / unit, 2.5, at_least=False, note=note),
        Bar("ALPaCA, one task: update by a point, fewer than F, in formulas", updates[0], 2.0, at_least=False),
        Bar("ALPaCA, one task: update by a point, more than F, in formulas", updates[1], 2.0, at_least=False),
    ]


def batches(seconds: float) -> list[Bar]:
    """Thousands of tasks a second and core, adapted to and predicted a batch at a time."""
    found = []
    for activation, bar in (("tanh", 200.0), ("relu", 350.0)):
        torch.manual_seed(0)
        learner = bm.ALPaCA(bm.MLP(1, [FEATURES, FEATURES], activation=activation))
        data = bm.Data.full(torch.randn(BATCH, FEW, 1), torch.randn(BATCH, FEW, 1))
        query = torch.randn(BATCH, FEW, 1)
        both = torch.cat([data.x, query], 1)

        def ours(learner: bm.ALPaCA = learner, data: bm.Data = data, query: Tensor = query) -> tuple[Tensor, Tensor]:
            prediction = learner.adapt(data).predict(query)
            return prediction.mean, prediction.variance

        def features(learner: bm.ALPaCA = learner, both: Tensor = both) -> Tensor:
            with torch.no_grad():
                return learner.features(both)

        times = interleaved({"ours": ours, "features": features}, 0.5 * seconds)
        note = f"the network alone takes {times['features'] / times['ours']:.0%} of the time"
        claim = f"ALPaCA, {activation}: thousand tasks a second, N = M = {FEW}"
        found.append(Bar(claim, BATCH / times["ours"] / 1e3, bar, at_least=True, note=note))
    return found


def streams(seconds: float) -> list[Bar]:
    """Microseconds of an update by one point, of 1,024 streams at a time, before and after there are F points."""
    learner = bm.ALPaCA(bm.MLP(1, [WIDTH, WIDTH]))
    more = bm.Data.full(torch.randn(STREAMS, 1, 1), torch.randn(STREAMS, 1, 1))
    posteriors = {}
    for name, points in (("10 points", POINTS), (f"{WIDTH} points", WIDTH)):
        shape = (STREAMS, points, 1)
        posteriors[name] = learner.adapt(bm.Data.full(torch.randn(shape), torch.randn(shape)))
    copied = torch.randn(STREAMS, WIDTH, WIDTH, dtype=torch.float64)
    calls: dict[str, Callable[[], object]] = {
        name: lambda posterior=posterior: posterior.update(more) for name, posterior in posteriors.items()
    }
    times = interleaved({**calls, "copy": copied.clone}, seconds)
    claim = "update by a point after {}: us a stream"
    about = f"copying the {WIDTH} x {WIDTH} numbers of a stream to new memory takes {times['copy'] / STREAMS * 1e6:.1f}"
    return [
        Bar(claim.format(name), times[name] / STREAMS * 1e6, 5.0, at_least=False, note=about) for name in posteriors
    ]


def wide(seconds: float) -> list[Bar]:
    """A batch of heads on 16,000 features against a loop over its tasks that keeps its posteriors, as a batch does."""
    tasks, points = 8, 25
    x, query = (torch.randn(tasks, points, WIDE) / WIDE**0.5 for _ in range(2))
    labels, y = (torch.arange(points) % WAYS).expand(tasks, -1).contiguous(), torch.randn(tasks, points, 1)
    subjects: dict[str, tuple[bm.Learner, bm.Data]] = {
        "R2D2": (bm.R2D2(Given(WIDE), num_classes=WAYS), bm.Data.full(x, labels)),
        "R2D2Regressor": (bm.R2D2Regressor(Given(WIDE)), bm.Data.full(x, y)),
    }
    found = []
    for name, (learner, data) in subjects.items():
        alone = [(data.select([b]), query[[b]]) for b in range(tasks)]

        def batch(learner: bm.Learner = learner, data: bm.Data = data) -> object:
            return learner.adapt(data).predict(query).marginals

        def loop(learner: bm.Learner = learner, alone: list[tuple[bm.Data, Tensor]] = alone) -> object:
            posteriors = [learner.adapt(one) for one, _ in alone]
            return [each.predict(asked).marginals for each, (_, asked) in zip(posteriors, alone, strict=True)]

        times = interleaved({"batch": batch, "loop": loop}, 0.5 * seconds)
        claim = f"{name}, {WIDE:,} features: loop over tasks, in batches"
        found.append(Bar(claim, times["loop"] / times["batch"], 1.0, at_least=True))
    return found


def bars(seconds: float) -> list[Bar]:
    """All of them, in about so many seconds of processor time."""
    return [bar for part in (one_task, batches, streams, wide) for bar in part(0.25 * seconds)]


if __name__ == "__main__":
    torch.set_num_threads(1)
    for each in bars(20.0):
        print(each.line)
