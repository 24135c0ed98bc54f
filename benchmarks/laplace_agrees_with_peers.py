"""The linearised Laplace predictive of many tasks: the numbers of other libraries, in a fraction of their time.

    f ~ N(f(x, w), J(x) (a I + Σ_n JᵀJ / σ²)⁻¹ J(x)ᵀ)        J = ∂f/∂w, a the prior's precision, σ² the noise variance

N support points and 50 queries a task, K outputs, the tanh network D-40-40-K of P weights, each task with weights that
were trained on its own support. Everybody gets those weights, the support and the queries, and returns the mean and
variance of f at every query.

    bayesmeta       all tasks at once, through the NK x NK kernel of the support's points
    direct          one task at a time, the formula above as it stands: a P x P Cholesky factor
    peers           one task at a time, as they have it: benchmarks/peers

All are compared in float64. They are timed in float32 too, where bayesmeta's network runs in float32 and its linear
algebra in float64. Peers run on the first tasks only; their time is divided by how many. `make bench-peers` installs
them; those that are absent are left out.
"""

import argparse
from collections.abc import Callable
from functools import partial
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev

import bayesmeta as bm
from bayesmeta.inference.laplace import Curvature, ExplicitPrior
from benchmarks._report import interleaved, verdict
from benchmarks.peers import installed, loss

SEED = 0
SIZES = [(10, 1), (50, 1), (10, 3)]  # (N, K)
QUERIES, WIDTH = 50, 40
PRECISION, NOISE = 2.0, 0.01  # a, σ²
NUM_TASKS, FEWER = 32, 2
TOLERANCE = 1e-9  # in float64

Task = tuple[nn.Module, Tensor, Tensor, Tensor]  # network, support x "N 1", support y "N K", query x "M 1"


def draw(points: int, outputs: int) -> list[Task]:
    """Noisy sinusoids, and a network for each that 100 steps of Adam have fitted to its support."""
    torch.manual_seed(SEED)
    drawn = []
    for _ in range(NUM_TASKS):
        x, query_x = 10.0 * torch.rand(points, 1) - 5.0, 10.0 * torch.rand(QUERIES, 1) - 5.0
        y = torch.sin(x + 6.0 * torch.rand(outputs)) + NOISE**0.5 * torch.randn(points, outputs)
        sizes = [nn.Linear(1, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, outputs)]
        network = nn.Sequential(*sizes)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        for _ in range(100):
            optimizer.zero_grad()
            loss(network(x), y).backward()
            optimizer.step()
        drawn.append((network, x, y, query_x))
    return drawn


class Bayesmeta:
    """This library, all tasks at once."""

    def __init__(self, tasks: list[Task]) -> None:
        _, x, y, _ = tasks[0]
        self.network = bm.MLP(x.shape[-1], [WIDTH, WIDTH]).with_outputs(y.shape[-1]).to(x.dtype)
        self.likelihood = bm.likelihoods.Gaussian(bm.noise.DiagonalNoise(y.shape[-1])).to(x.dtype)
        self.likelihood.noise.value.set(NOISE)  # in this precision
        weights = [dict(each.named_parameters()) for each, *_ in tasks]
        names = zip((name for name, _ in self.network.named_parameters()), weights[0], strict=True)
        self.phi = {own: torch.stack([w[name].detach() for w in weights]) for own, name in names}
        self.x, self.query_x = torch.stack([task[1] for task in tasks]), torch.stack([task[3] for task in tasks])

    @torch.no_grad()
    def __call__(self) -> tuple[Tensor, Tensor]:
        root = self.likelihood.curvature_root(self.network.stacked(self.phi, self.x))
        mask = torch.ones(self.x.shape[:2], dtype=torch.bool)
        variances = dict.fromkeys(self.phi, torch.tensor(1.0 / PRECISION, dtype=torch.float64))
        shapes = {name: value.shape[1:] for name, value in self.phi.items()}
        curvature = Curvature.of(self.network.jacobian(self.phi, self.x), root, mask, variances, shapes)
        belief = ExplicitPrior().full(curvature)
        blocks = belief.blocks(self.network.jacobian(self.phi, self.query_x))
        return self.network.stacked(self.phi, self.query_x), blocks.diagonal(dim1=-2, dim2=-1)


def direct(
    network: nn.Module, support_x: Tensor, support_y: Tensor, query_x: Tensor, precision: float, noise: float
) -> tuple[Tensor, Tensor]:
    """One task, as the formula stands."""
    weights = {name: value.detach() for name, value in network.named_parameters()}

    def rows(x: Tensor) -> Tensor:
        parts = jacrev(lambda w: functional_call(network, w, (x,)))(weights)
        return torch.cat([part.flatten(2) for part in parts.values()], -1).flatten(0, 1)  # NK P

    support = rows(support_x)
    total = precision * torch.eye(support.shape[1], dtype=support.dtype) + support.mT @ support / noise
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(total), rows(query_x).mT, upper=False)
    mean = functional_call(network, weights, (query_x,))
    return mean, white.square().sum(0).view_as(mean)


def each(predict: Callable[..., tuple[Tensor, Tensor]], tasks: list[Task]) -> tuple[Tensor, Tensor]:
    """One task after the other."""
    means, variances = zip(*(predict(*task, PRECISION, NOISE) for task in tasks), strict=True)
    return torch.stack(means).detach(), torch.stack(variances)


def cast(tasks: list[Task], dtype: torch.dtype) -> list[Task]:
    return [(network.to(dtype), *(value.to(dtype) for value in values)) for network, *values in tasks]


def disagreement(tasks: list[Task], peers: dict[str, Callable]) -> float:
    """Largest difference to bayesmeta, of means in deviations of f and of variances relatively. Asserts its bound."""
    mean, variance = Bayesmeta(tasks)()
    worst = 0.0
    for name, predict in peers.items():
        other_mean, other_variance = each(predict, tasks[:FEWER])
        shift = ((other_mean - mean[:FEWER]) / variance[:FEWER].sqrt()).abs().max().item()
        ratio = (other_variance / variance[:FEWER] - 1.0).abs().max().item()
        assert shift < TOLERANCE, f"{name}: another mean, by {shift} deviations"
        assert ratio < TOLERANCE, f"{name}: another variance, by a factor of 1 + {ratio}"
        worst = max(worst, shift, ratio)
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    found, absent = installed("laplace_torch", "posteriors_laplace")
    peers = {"direct": direct, **{name: at(module) for name, module in found.items()}}
    print(f"Milliseconds a task, and the ratio to bayesmeta ({NUM_TASKS} tasks at once; others {FEWER}, one by one)")
    print(f"  N, K     P  precision{'bayesmeta':>14}" + "".join(f"{name:>25}" for name in peers))
    worst, ratios = 0.0, {name: [] for name in peers}
    for points, outputs in SIZES:
        tasks = cast(draw(points, outputs), torch.float64)
        worst = max(worst, disagreement(tasks, peers))
        for dtype in (torch.float64, torch.float32):
            tasks = cast(tasks, dtype)
            calls = {name: partial(each, predict, tasks[:FEWER]) for name, predict in peers.items()}
            elapsed = interleaved({"bayesmeta": Bayesmeta(tasks), **calls}, rounds)
            ours = elapsed.pop("bayesmeta") / NUM_TASKS
            size = sum(value.numel() for value in tasks[0][0].parameters())
            cells = ""
            for name, value in elapsed.items():
                cells += f"{value / FEWER * 1e3:14.2f} {value / FEWER / ours:9.0f}x"
                ratios[name].append(value / FEWER / ours)
            label = str(dtype).removeprefix("torch.")
            print(f"{points:3d}, {outputs:1d}  {size:4d}  {label:9}{ours * 1e3:14.3f}{cells}", flush=True)
    if absent:
        print(f"Absent: {', '.join(absent)} (make bench-peers installs them).")
    ranges = "; ".join(f"{name} {min(each):.0f}-{max(each):.0f}" for name, each in ratios.items())
    verdict(f"the same mean and variance to {worst:.0e} in float64; times bayesmeta's time a task: {ranges}", SEED)


def at(module: ModuleType) -> Callable[..., tuple[Tensor, Tensor]]:
    return module.predict


if __name__ == "__main__":
    main()
