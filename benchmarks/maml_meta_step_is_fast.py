"""A meta-step of MAML on many small tasks is several times faster than a loop over them, and than other libraries.

    phi_b = theta - lr ∂/∂phi L_b(support), a number of times from phi_b = theta;   mean over tasks of L_b(query)

with L half the mean squared error (sinusoids) or the mean cross entropy (images). A meta-step is the loss and its
gradient in theta; theta is the network's weights, and step size and noise are fixed, as the others have them.

    loop         plain torch, one task at a time: benchmarks/peers/loop.py, the reference
    peers        other libraries as their documentation shows, one task at a time: benchmarks/peers
    bayesmeta    `MAML(...).meta_loss(tasks).mean().backward()`, all tasks at once (Conv4 takes one by one)
    compiled     the same through `CompiledStep`, sinusoids only; its first call, which compiles, is timed apart

The sinusoids are 25 tasks of 10 + 10 points for an MLP 1-40-40-1; the images 4 tasks of 5 classes, one 28 x 28 support
image each, for a Conv4 of 64 channels. Random numbers as images and outcomes: the time does not depend on them. All
methods must give the same loss and meta-gradient in float64 (`compiled` in float32); times are in float32.

Memory is the largest number of bytes of tensors alive during a meta-step beyond those before it, as torch's profiler
sees the allocator: parameters and data do not count, and neither do Python and workspaces of kernels.

`make bench-peers` installs the peers; those that are absent are left out.
"""

import argparse
import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import bayesmeta as bm
from bayesmeta.training.compiled import CompiledStep
from benchmarks._report import interleaved, verdict
from benchmarks.peers import Batch, conv4, installed, loop, mlp

SEED = 0
# of losses, and of meta-gradients relative to their norm, in float64 but for the last; looser on images because
# bayesmeta's Categorical has its step sizes in float32
TOLERANCE = {"sinusoids": 1e-10, "images": 1e-10, "float32": 1e-5}
BARS = {"bayesmeta": 12, "compiled": 40}  # times faster than the loop, at 5 inner steps on the sinusoids


class Setting(NamedTuple):
    """What is adapted, and how."""

    title: str
    images: bool
    queries: int  # a task; for images a class
    steps: int
    first_order: bool

    @property
    def lr(self) -> float:
        return 0.1 if self.images else 0.01

    def network(self) -> nn.Sequential:
        torch.manual_seed(SEED)
        return conv4() if self.images else mlp()

    def batch(self) -> Batch:
        generator = torch.Generator().manual_seed(SEED)
        if self.images:
            x = torch.rand(4, 5 + 5 * self.queries, 1, 28, 28, generator=generator)
            y = torch.arange(5).repeat(1 + self.queries).expand(4, -1)
            return x[:, :5], y[:, :5], x[:, 5:], y[:, 5:]
        x = 10.0 * torch.rand(25, 10 + self.queries, 1, generator=generator) - 5.0
        amplitude, phase = torch.rand(2, 25, 1, 1, generator=generator)
        y = (0.1 + 4.9 * amplitude) * torch.sin(x - math.pi * phase)
        return x[:, :10], y[:, :10], x[:, 10:], y[:, 10:]


SETTINGS = [
    Setting("sinusoids, 1 inner step", False, 10, 1, False),
    Setting("sinusoids, 5 inner steps", False, 10, 5, False),
    Setting("sinusoids, 5 inner steps, first order", False, 10, 5, True),
    Setting("images, 1 inner step, 1 query a class", True, 1, 1, False),
    Setting("images, 1 inner step, 15 queries a class", True, 15, 1, False),
]
MAIN = SETTINGS[1]


class Looped:
    """A method that has `meta_step` for a plain network."""

    def __init__(self, meta_step: Callable[..., float], setting: Setting, dtype: torch.dtype) -> None:
        self.network = setting.network().to(dtype)
        batch = _cast(setting.batch(), dtype)
        self.step = partial(meta_step, self.network, batch, setting.steps, setting.lr, setting.first_order)

    def __call__(self) -> float:
        return self.step()

    def gradient(self) -> Tensor:
        return torch.cat([parameter.grad.flatten() for parameter in self.network.parameters()])


class Bayesmeta:
    """This library, eager or compiled."""

    def __init__(self, setting: Setting, dtype: torch.dtype, compiled: bool = False) -> None:
        network: bm.Network
        if setting.images:
            network, likelihood = bm.Conv4((1, 28, 28), 64).with_outputs(5), bm.likelihoods.Categorical(5)
            self.constant = 0.0
        else:
            network, likelihood = (
                bm.MLP(1, [40, 40], activation="relu").with_outputs(1),
                bm.likelihoods.Gaussian(bm.noise.DiagonalNoise(1, 1.0)),
            )
            self.constant = 0.5 * math.log(2.0 * math.pi)
        for own, value in zip(network.parameters(), setting.network().parameters(), strict=True):
            assert own.shape == value.shape
            own.data = value.data
        kind = bm.FirstOrderMAML if setting.first_order else bm.MAML
        learner = kind(
            network, steps=setting.steps, lr=setting.lr, likelihood=likelihood, posterior=bm.PointEstimate()
        ).to(dtype)
        learner.rate.set(setting.lr)  # in this precision
        learner.requires_grad_(False)
        network.requires_grad_(True)
        self.learner, self.network = learner, network
        x, y, query_x, query_y = _cast(setting.batch(), dtype)
        self.tasks = bm.TaskBatch(bm.Data.full(x, y), bm.Data.full(query_x, query_y))
        self.compiled = CompiledStep(learner, learner.meta_loss) if compiled else None

    def __call__(self) -> float:
        if self.compiled is not None:
            return self.compiled(self.tasks)[1].item() - self.constant
        self.learner.zero_grad()
        loss = self.learner.meta_loss(self.tasks).mean()
        loss.backward()
        return loss.item() - self.constant

    def gradient(self) -> Tensor:
        return torch.cat([parameter.grad.flatten() for parameter in self.network.parameters()])


def _cast(batch: Batch, dtype: torch.dtype) -> Batch:
    return tuple(value.to(dtype) if value.is_floating_point() else value for value in batch)


def assert_same(name: str, method: Looped | Bayesmeta, reference: Looped, tolerance: float) -> None:
    """The loss and the meta-gradient of the reference."""
    loss, expected = method(), reference()
    gradient, other = method.gradient(), reference.gradient()
    off = ((gradient - other).norm() / other.norm()).item()
    assert abs(loss - expected) < tolerance * max(1.0, expected), f"{name}: loss {loss}, expected {expected}"
    assert off < tolerance, f"{name}: another meta-gradient, by {off:.1e} of its norm"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what the profiler's C++ code writes to stderr."""
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


def peak_memory(step: Callable[[], object]) -> float:
    """Bytes of tensors alive at the worst moment of a step, beyond those before it."""
    with quiet(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step()
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    alive = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak


def measure(setting: Setting, rounds: int, compile_too: bool) -> dict[str, float]:
    """Seconds a meta-step by method; prints the table of the setting."""
    found, _ = installed("higher_maml", "torchopt_maml", "learn2learn_maml")
    steps = {"loop": loop.meta_step, **{name: module.meta_step for name, module in found.items()}}
    double = {name: Looped(step, setting, torch.float64) for name, step in steps.items()}
    for name, method in {**double, "bayesmeta": Bayesmeta(setting, torch.float64)}.items():
        assert_same(name, method, double["loop"], TOLERANCE["images" if setting.images else "sinusoids"])

    single: dict[str, Looped | Bayesmeta] = {name: Looped(step, setting, torch.float32) for name, step in steps.items()}
    single["bayesmeta"] = Bayesmeta(setting, torch.float32)
    notes = {}
    if compile_too:
        single["compiled"] = Bayesmeta(setting, torch.float32, compiled=True)
        start = time.perf_counter()
        single["compiled"]()
        notes["compiled"] = f"   first call {time.perf_counter() - start:.0f} s"
        assert_same("compiled", single["compiled"], single["loop"], TOLERANCE["float32"])
    elapsed = interleaved(single, rounds)
    print(f"\n{setting.title}\n  {'':20}{'ms':>9}{'faster than the loop':>23}{'peak MB':>10}")
    for name, value in elapsed.items():
        memory = peak_memory(single[name]) / 1e6
        ratio = elapsed["loop"] / value
        print(f"  {name:20}{value * 1e3:9.2f}{ratio:22.2f}x{memory:10.2f}{notes.get(name, '')}", flush=True)
    return elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--no-compile", action="store_true", help="leave out what needs a C++ compiler")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    _, absent = installed("higher_maml", "torchopt_maml", "learn2learn_maml")
    results = {}
    for setting in SETTINGS:
        rounds = max(3, arguments.rounds // 3) if setting.images else arguments.rounds
        results[setting] = measure(setting, rounds, not (arguments.no_compile or setting.images))
    if absent:
        print(f"\nAbsent: {', '.join(absent)} (make bench-peers installs them).")
    times = results[MAIN]
    parts = [f"{name} is {times['loop'] / times[name]:.1f} times (bar {BARS[name]})" for name in BARS if name in times]
    peers = [f"{name} {times['loop'] / value:.2f}" for name, value in times.items() if name not in ("loop", *BARS)]
    text = f"{' and '.join(parts)} faster than the per-task loop on sinusoids, 5 inner steps"
    if peers:
        text += f"; of the loop's speed, {', '.join(peers)}"
    images = results[SETTINGS[3]], results[SETTINGS[4]]
    shares = [f"{each['loop'] / each['bayesmeta']:.2f}" for each in images]
    verdict(f"{text}; on images, which are bound by arithmetic, bayesmeta is {' and '.join(shares)} times faster", SEED)


if __name__ == "__main__":
    main()
