"""ALPaCA adapts, predicts and meta-trains faster, task for task, than any other way of doing the same mathematics.

    y = wᵀ h + ε,   ε ~ N(0, σ²),   w ~ N(0, σ² v I)                 N points and 20 queries a task, F features

Features are given (a network that passes its input through), so that the linear head alone is timed; gradients are
taken down to the features and to σ² and V. Three operations:

    adapt + predict    marginal mean and variance at the queries
    predictive step    loss and backward of -mean log p(query | support)
    evidence step      loss and backward of -log p(support)

Everybody works in float64; bayesmeta is given float32 features and converts them, as it does in use, the peers are
given float64. "full V" is bayesmeta with its default prior, a dense V, which costs an F x F product for every point;
the others have V = v I. Large buffers cost page faults, and how many depends on what the process allocated before.
"""

import argparse
import math
from collections.abc import Callable
from functools import partial

import gpytorch
import torch
from torch import Tensor
from torch.distributions import Normal

import bayesmeta as bm
from benchmarks._report import interleaved, verdict

SEED = 0
SIZES = [(32, 10), (64, 10), (64, 50), (128, 10), (128, 50)]  # (F, N)
QUERIES = 20
NOISE, RELATIVE = 0.1, 0.5  # σ², v
TOLERANCE = 1e-5  # of means in predictive deviations, of variances and losses relatively: the parameters are float32

Batch = tuple[Tensor, Tensor, Tensor, Tensor]  # x "B N F", y "B N", query x "B M F", query y "B M"


class Given(bm.Network):
    """The features are the input."""

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.x_shape, self.num_outputs = (num_outputs,), num_outputs

    def forward(self, x: Tensor) -> Tensor:
        return x


class Bayesmeta:
    """(a) this library."""

    def __init__(
        self, features: int, covariance: type[bm.priors.FullCovariance | bm.priors.IsotropicCovariance], device: str
    ) -> None:
        noise = bm.noise.DiagonalNoise(1, NOISE)
        self.learner = bm.ALPaCA(Given(features), covariance=covariance(features, RELATIVE), noise=noise).to(device)

    def tasks(self, batch: Batch) -> bm.TaskBatch:
        x, y, query_x, query_y = batch
        support = bm.Data(x, y[..., None], torch.ones_like(y, dtype=torch.bool))
        return bm.TaskBatch(support, bm.Data(query_x, query_y[..., None], torch.ones_like(query_y, dtype=torch.bool)))

    def predict(self, batch: Batch) -> tuple[Tensor, Tensor]:
        tasks = self.tasks(batch)
        prediction = self.learner.adapt(tasks.support).predict(tasks.query.x)
        return prediction.mean[..., 0], prediction.variance[..., 0]

    def predictive(self, batch: Batch) -> Tensor:
        return self.learner.meta_loss(self.tasks(batch)).sum()

    def evidence(self, batch: Batch) -> Tensor:
        support = self.tasks(batch).support
        each = bm.training.Evidence()(self.learner, bm.TaskBatch(support, bm.Data.empty(support)))  # nats per point
        return each.sum() * support.num_points


class Loop:
    """(b) plain torch, a Cholesky factor of the posterior precision, one task at a time."""

    def __init__(self, features: int, device: str) -> None:
        self.noise = torch.tensor(NOISE, dtype=torch.float64, device=device, requires_grad=True)
        self.relative = torch.tensor(RELATIVE, dtype=torch.float64, device=device, requires_grad=True)
        self.eye = torch.eye(features, dtype=torch.float64, device=device)

    def factor(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        factor = torch.linalg.cholesky(self.eye / self.relative + x.mT @ x)
        return factor, torch.cholesky_solve((x.mT @ y)[:, None], factor)[:, 0]

    def one(self, x: Tensor, y: Tensor, query_x: Tensor) -> tuple[Tensor, Tensor]:
        factor, mean = self.factor(x, y)
        white = torch.linalg.solve_triangular(factor, query_x.mT, upper=False)
        return query_x @ mean, self.noise * (1 + white.square().sum(0))

    def predict(self, batch: Batch) -> tuple[Tensor, Tensor]:
        parts = [self.one(*task[:3]) for task in zip(*(value.unbind() for value in batch), strict=True)]
        return torch.stack([mean for mean, _ in parts]), torch.stack([variance for _, variance in parts])

    def predictive(self, batch: Batch) -> Tensor:
        return negative_log_density(*self.predict(batch), batch[3]).mean(-1).sum()

    def evidence(self, batch: Batch) -> Tensor:
        total = []
        for x, y in zip(batch[0].unbind(), batch[1].unbind(), strict=True):
            factor, mean = self.factor(x, y)
            determinant = 2 * factor.diagonal().log().sum() + len(self.eye) * self.relative.log()
            quadratic = (y.square().sum() - y @ x @ mean) / self.noise
            total.append(0.5 * (quadratic + determinant + len(y) * (self.noise * 2 * math.pi).log()))
        return torch.stack(total).sum()


class Sequential:
    """(c) the recursion of the original ALPaCA, a rank-one update for every point, all tasks at once.

    Λ⁻¹ <- Λ⁻¹ - (Λ⁻¹ h)(Λ⁻¹ h)ᵀ / (1 + hᵀ Λ⁻¹ h),   Q <- Q + h y,   K = Λ⁻¹ Q          (Harrison et al. 2018, eqs. 5-6)
    """

    def __init__(self, features: int, device: str) -> None:
        self.noise = torch.tensor(NOISE, dtype=torch.float64, device=device, requires_grad=True)
        self.relative = torch.tensor(RELATIVE, dtype=torch.float64, device=device, requires_grad=True)
        self.eye = torch.eye(features, dtype=torch.float64, device=device)

    def run(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Λ⁻¹, K, and the negative log density of every point given those before it."""
        inverse, moment = (self.relative * self.eye).expand(len(x), -1, -1), torch.zeros_like(x[:, 0])
        losses = []
        for feature, outcome in zip(x.unbind(1), y.unbind(1), strict=True):
            spread = (inverse @ feature[..., None])[..., 0]
            variance = 1 + (feature * spread).sum(-1)
            losses.append(negative_log_density((spread * moment).sum(-1), self.noise * variance, outcome))
            inverse = inverse - spread[..., :, None] * (spread / variance[..., None])[..., None, :]
            moment = moment + feature * outcome[..., None]
        return inverse, (inverse @ moment[..., None])[..., 0], torch.stack(losses, -1)

    def predict(self, batch: Batch) -> tuple[Tensor, Tensor]:
        x, y, query_x, _ = batch
        inverse, mean, _ = self.run(x, y)
        variance = self.noise * (1 + (query_x @ inverse * query_x).sum(-1))
        return (query_x @ mean[..., None])[..., 0], variance

    def predictive(self, batch: Batch) -> Tensor:
        return negative_log_density(*self.predict(batch), batch[3]).mean(-1).sum()

    def evidence(self, batch: Batch) -> Tensor:
        return self.run(*batch[:2])[2].sum()


class Process(gpytorch.models.ExactGP):
    """A Gaussian process with a linear kernel: the same model."""

    def __init__(self, x: Tensor, y: Tensor, likelihood: gpytorch.likelihoods.GaussianLikelihood) -> None:
        super().__init__(x, y, likelihood)
        self.mean_module, self.covar_module = gpytorch.means.ZeroMean(), gpytorch.kernels.LinearKernel()
        self.to(x)
        self.covar_module.variance, likelihood.noise = NOISE * RELATIVE, NOISE

    def forward(self, x: Tensor) -> gpytorch.distributions.MultivariateNormal:
        return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))


class GPyTorchBatch:
    """(d) gpytorch, all tasks as one batch of Gaussian processes."""

    def process(self, x: Tensor, y: Tensor) -> Process:
        return Process(x, y, gpytorch.likelihoods.GaussianLikelihood().to(x))

    def predict(self, batch: Batch) -> tuple[Tensor, Tensor]:
        x, y, query_x, _ = batch
        process = self.process(x, y).eval()
        with gpytorch.settings.detach_test_caches(not torch.is_grad_enabled()):
            prediction = process.likelihood.eval()(process(query_x))
        return prediction.mean, prediction.variance

    def predictive(self, batch: Batch) -> Tensor:
        return negative_log_density(*self.predict(batch), batch[3]).mean(-1).sum()

    def evidence(self, batch: Batch) -> Tensor:
        x, y = batch[:2]
        process = self.process(x, y)
        marginal = gpytorch.mlls.ExactMarginalLogLikelihood(process.likelihood, process)  # nats per point
        return -marginal(process(x), y).sum() * y.shape[-1]


class GPyTorchLoop(GPyTorchBatch):
    """(d) gpytorch, one task at a time."""

    def predict(self, batch: Batch) -> tuple[Tensor, Tensor]:
        tasks = zip(*(value.unbind() for value in batch), strict=True)
        means, variances = zip(*(GPyTorchBatch.predict(self, task) for task in tasks), strict=True)
        return torch.stack(means), torch.stack(variances)

    def evidence(self, batch: Batch) -> Tensor:
        tasks = zip(*(value.unbind() for value in batch), strict=True)
        return torch.stack([GPyTorchBatch.evidence(self, task) for task in tasks]).sum()


def negative_log_density(mean: Tensor, variance: Tensor, y: Tensor) -> Tensor:
    return -Normal(mean, variance.sqrt(), validate_args=False).log_prob(y)


def draw(tasks: int, points: int, features: int, device: str) -> Batch:
    generator = torch.Generator().manual_seed(SEED)
    x = torch.randn(tasks, points + QUERIES, features, generator=generator) / features**0.5
    weight = torch.randn(tasks, features, generator=generator) * (NOISE * RELATIVE) ** 0.5
    y = (x @ weight[..., None])[..., 0] + NOISE**0.5 * torch.randn(x.shape[:2], generator=generator)
    parts = (x[:, :points], y[:, :points], x[:, points:], y[:, points:])
    return tuple(part.contiguous().to(device) for part in parts)


def step(loss: Callable[[Batch], Tensor], batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, and its gradients in the features."""
    x, y, query_x, query_y = batch
    x, query_x = x.detach().requires_grad_(), query_x.detach().requires_grad_()
    value = loss((x, y, query_x, query_y))
    value.backward()
    return value.detach(), x.grad, torch.zeros_like(query_x) if query_x.grad is None else query_x.grad


def without_graph(function: Callable[[Batch], object], batch: Batch) -> object:
    with torch.no_grad():
        return function(batch)


def assert_same(methods: dict, batches: dict[str, Batch]) -> None:
    """All methods give the same predictions, losses and gradients on the first tasks."""
    first = {name: tuple(value[:4] for value in batch) for name, batch in batches.items()}
    mean, variance = without_graph(methods["bayesmeta"].predict, first["bayesmeta"])
    reference = {kind: step(getattr(methods["bayesmeta"], kind), first["bayesmeta"]) for kind in KINDS[1:]}
    for name, method in methods.items():
        other_mean, other_variance = without_graph(method.predict, first[name])
        assert ((other_mean - mean).abs() < TOLERANCE * variance.sqrt()).all(), f"{name}: another mean"
        torch.testing.assert_close(other_variance, variance, rtol=TOLERANCE, atol=0.0)
        for kind in KINDS[1:]:
            for ours, theirs in zip(reference[kind], step(getattr(method, kind), first[name]), strict=True):
                torch.testing.assert_close(theirs.double(), ours.double(), rtol=TOLERANCE, atol=TOLERANCE)


def operations(points: int, features: int) -> float:
    """Floating-point operations of adapt + predict in the smaller space, for V = v I, a task."""
    if points >= features:
        return points * features**2 + features**3 / 3 + QUERIES * (features**2 + 4 * features)
    return points**2 * features + points**3 / 3 + QUERIES * (2 * points * features + 2 * features + points**2)


def gemm_rate(tasks: int, points: int, features: int, device: str) -> float:
    """Operations a second of the float64 batched product that ALPaCA needs most: features of queries and support."""
    left = torch.randn(tasks, QUERIES, features, dtype=torch.float64, device=device)
    right = torch.randn(tasks, features, points, dtype=torch.float64, device=device)
    elapsed = interleaved({"product": lambda: left @ right}, rounds=9, device=device)["product"]
    return 2 * tasks * QUERIES * points * features / elapsed


KINDS = ["predict", "predictive", "evidence"]
TITLES = dict(zip(KINDS, ["adapt + predict", "predictive step", "evidence step"], strict=True))
# how many tasks a slow method does at a time; its time is divided by that number. The original's memory limits it too.
FEWER = {"loop": 128, "sequential": 64, "gpytorch loop": 8}


def measure(features: int, points: int, num_tasks: int, device: str, rounds: int) -> dict[str, dict[str, float]]:
    """Microseconds a task, by operation and method."""
    methods = {
        "bayesmeta": Bayesmeta(features, bm.priors.IsotropicCovariance, device),
        "full V": Bayesmeta(features, bm.priors.FullCovariance, device),
        "loop": Loop(features, device),
        "sequential": Sequential(features, device),
        "gpytorch batch": GPyTorchBatch(),
        "gpytorch loop": GPyTorchLoop(),
    }
    single = draw(num_tasks, points, features, device)
    double = tuple(value.double() for value in single)
    batches = {
        name: tuple(value[: FEWER.get(name)] for value in (single if isinstance(method, Bayesmeta) else double))
        for name, method in methods.items()
    }
    assert_same(methods, batches)
    results = {}
    for kind in KINDS:
        call = without_graph if kind == "predict" else step
        calls = {name: partial(call, getattr(method, kind), batches[name]) for name, method in methods.items()}
        elapsed = interleaved(calls, rounds, device)
        results[kind] = {name: value / len(batches[name][0]) * 1e6 for name, value in elapsed.items()}
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    device, rounds = arguments.device, arguments.rounds
    torch.set_num_threads(1)
    batch_sizes = [1024] if device == "cpu" else [32, 1024, 8192, 65536]
    ratios: dict[str, list[float]] = {}  # of every method's times to bayesmeta's
    for num_tasks in batch_sizes:
        for features, points in SIZES:
            results = measure(features, points, num_tasks, device, rounds)
            if (features, points) == SIZES[0]:
                print(f"\n{num_tasks} tasks a batch: microseconds a task, and the ratio to bayesmeta")
                names = "".join(f"{name:>18}" for name in results["predict"])
                print(f"  F,  N  {'operation':16}{names}   over the floor")
            floor = operations(points, features) / gemm_rate(num_tasks, points, features, device) * 1e6
            for kind, times in results.items():
                ours, bound = times["bayesmeta"], floor * (1 if kind == "predict" else 3)
                cells = "".join(f"{value:9.1f} {value / ours:7.1f}x" for value in times.values())
                over = f"{ours / bound:6.1f}x of {bound:.1f}" if kind != "evidence" else ""
                print(f"{features:3d}, {points:2d}  {TITLES[kind]:16}{cells}   {over}", flush=True)
                for name, value in times.items():
                    ratios.setdefault(name, []).append(value / ours)
    print(f"\nSlow peers do fewer tasks at a time: {FEWER}.")
    print(
        "The floor: operations over the rate of a float64 batched product here, times three for a step with gradients."
    )
    peers = {name: each for name, each in ratios.items() if name not in ("bayesmeta", "full V")}
    nearest = [min(row) for row in zip(*peers.values(), strict=True)]
    ranges = "; ".join(f"{name} {min(each):.1f}-{max(each):.0f}" for name, each in peers.items())
    verdict(
        f"bayesmeta is the fastest in {sum(ratio > 1 for ratio in nearest)} of {len(nearest)} rows; "
        f"the best peer takes {min(nearest):.2f} to {max(nearest):.1f} of our time. By peer: {ranges}",
        SEED,
    )


if __name__ == "__main__":
    main()
