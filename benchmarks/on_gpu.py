"""On a GPU everything gives the CPU's numbers, and tens of thousands of tasks take little longer than a few.

First the tests of devices, on the GPU, and trials (`_device_trials`) of what trains and serves there:
`fit(device=...)`, features in bfloat16, CUDA graphs, exported programs, rows of a parquet file, several processes. Then
microseconds a task as batches grow from 32 to 65,536 tasks, on one CPU thread and on the GPU, and which share of the
device is used: of its memory bandwidth (as a copy of a large tensor has it) and of its arithmetic (as large matrix
products have it, in float32 and in float64), both measured here.

    ALPaCA, adapt and predict    10 support and 20 query points, features MLP 1-64-64
    ALPaCA, evidence step        the evidence of 10 points and its gradient in theta
    MAML, meta-step              5 inner steps, MLP 1-40-40-1, 10 + 10 points; eager, and compiled by `CompiledStep`
    R2D2, meta-step              5-way 1-shot episodes with one query image a class, 28 x 28, Conv4-32
    NUTS                         4 chains a task of 10 draws after 20, a linear model of 9 numbers, 10 points

What counts as used is the least that the formulas need: operations of the products, and each array they name read and
written once. Copies, conversions and launches are in the time alone. (cuDNN's convolutions take TF32, torch's default,
and may use more than all of float32.) Times are medians; a column ends where the next call would take too long, where
memory is full, and when the time is up. What is compiled is compiled anew for every size, and comes last.

All of it keeps to `--seconds`: 13 minutes by default, so that a machine that is lent for 15 has time to start. Without
a GPU there are the trials and the CPU's columns, small.
"""

import argparse
import statistics
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

import bayesmeta as bm
from bayesmeta.training.compiled import CompiledStep
from benchmarks._device_trials import TRIALS, LeftOut
from benchmarks._report import seconds, verdict

SEED = 0
SIZES = (32, 128, 512, 2_048, 8_192, 32_768, 65_536)
COMPILED = (512, 8_192, 65_536)
MOST_CALLS = 50
SUPPORT, QUERY, FEATURES, HIDDEN, STEPS = 10, 20, 64, 40, 5
WAYS, CHANNELS, IMAGE = 5, 32, 28
CHAINS, DRAWS, WARMUP, INPUTS = 4, 10, 20, 8

Call = Callable[[], object]


class Rates(NamedTuple):
    """What a device can do, a second."""

    bytes: float
    single: float  # floating-point operations
    double: float


class Use(NamedTuple):
    """What a task needs at the least."""

    bytes: float
    single: float = 0.0
    double: float = 0.0


class Cell(NamedTuple):
    """A median call."""

    seconds: float
    calls: int


class Work(NamedTuple):
    """What is timed: `make(device, tasks)` gives the call, `use` is what a task needs."""

    title: str
    make: Callable[[str, int], Call]
    use: Use
    sizes: tuple[int, ...] = SIZES


def full(*values: Tensor) -> bm.Data:
    """Points without padding."""
    x, y = values
    return bm.Data(x, y, torch.ones(y.shape[:2], dtype=torch.bool, device=y.device))


def curves(device: str, tasks: int, support: int, query: int) -> bm.TaskBatch:
    """Sinusoids."""
    generator = torch.Generator(device).manual_seed(SEED)
    x = 10.0 * torch.rand(tasks, support + query, 1, generator=generator, device=device) - 5.0
    y = (x + 3.0 * torch.rand(tasks, 1, 1, generator=generator, device=device)).sin()
    return bm.TaskBatch(full(x[:, :support], y[:, :support]), full(x[:, support:], y[:, support:]))


def stepping(learner: bm.Learner, loss: Callable[[], Tensor]) -> Call:
    """The loss and its gradient in theta."""

    def step() -> None:
        learner.zero_grad(set_to_none=True)
        loss().mean().backward()

    return step


def alpaca(device: str) -> bm.ALPaCA:
    torch.manual_seed(SEED)
    return bm.ALPaCA(bm.MLP(1, [FEATURES, FEATURES])).to(device)


def adapt_and_predict(device: str, tasks: int) -> Call:
    learner, batch = alpaca(device), curves(device, tasks, SUPPORT, QUERY)
    learner.requires_grad_(False)

    def call() -> Tensor:
        prediction = learner.adapt(batch.support).predict(batch.query.x)
        return prediction.mean + prediction.stddev

    return call


def evidence(device: str, tasks: int) -> Call:
    learner, data = alpaca(device), curves(device, tasks, SUPPORT, 0).support
    return stepping(learner, lambda: -learner.log_evidence(data))


def maml(device: str) -> bm.MAML:
    torch.manual_seed(SEED)
    network = bm.MLP(1, [HIDDEN, HIDDEN])
    return bm.MAML(network, steps=STEPS, lr=0.01, posterior=bm.PointEstimate()).to(device)


def eager_step(device: str, tasks: int) -> Call:
    learner, batch = maml(device), curves(device, tasks, SUPPORT, SUPPORT)
    return stepping(learner, lambda: learner.meta_loss(batch))


def compiled_step(device: str, tasks: int) -> Call:
    learner, batch = maml(device), curves(device, tasks, SUPPORT, SUPPORT)
    step = CompiledStep(learner, learner.meta_loss)
    step(batch)  # compiles
    return lambda: step(batch)


def episodes(device: str, tasks: int) -> Call:
    torch.manual_seed(SEED)
    learner = bm.R2D2(bm.Conv4((1, IMAGE, IMAGE), CHANNELS), num_classes=WAYS).to(device)
    generator = torch.Generator(device).manual_seed(SEED)
    x = torch.rand(2, tasks, WAYS, 1, IMAGE, IMAGE, generator=generator, device=device)
    labels = torch.arange(WAYS, device=device).expand(tasks, -1)
    batch = bm.TaskBatch(full(x[0], labels), full(x[1], labels))
    return stepping(learner, lambda: learner.meta_loss(batch))


def chains(device: str, tasks: int) -> Call:
    learner = bm.ALPaCA(bm.Identity(INPUTS), noise=bm.noise.DiagonalNoise(1, 1.0)).double().to(device)
    sampled = bm.Sampled(learner, bm.inference.NUTS(CHAINS, DRAWS, WARMUP, max_depth=3), SEED)
    generator = torch.Generator(device).manual_seed(SEED)
    x = torch.randn(tasks, SUPPORT, INPUTS, generator=generator, device=device, dtype=torch.float64)
    data = full(x, x.sum(-1, keepdim=True))
    return lambda: sampled.adapt(data)


def alpaca_use(queries: int, passes: int) -> Use:
    """Features in float32, whitening, Gram matrix and solves in float64."""
    n, f, points = SUPPORT, FEATURES, SUPPORT + queries
    solves = n**3 / 3 + queries * (2 * n * f + n**2)
    return Use(
        bytes=passes * points * (4 * 2 * f + 2 * 8 * f),
        single=passes * 2 * points * (f + f**2),
        double=passes * (2 * points * f**2 + 2 * n**2 * f + solves),
    )


def maml_use() -> Use:
    """Three passes a step forwards, twice as many on the way back through them; the weights of each step, both ways."""
    weights = 2 * HIDDEN + HIDDEN**2
    return Use(bytes=4 * 4 * STEPS * (weights + 2 * HIDDEN + 1), single=2 * SUPPORT * weights * (9 * STEPS + 3))


def r2d2_use() -> Use:
    """Convolutions, three times for the gradient; maps before and after normalisation. The head is small."""
    operations, numbers, depth, size = 0.0, IMAGE**2, 1, IMAGE
    for _ in range(4):
        operations += 2 * size**2 * depth * 9 * CHANNELS
        numbers += 2 * size**2 * CHANNELS
        depth, size = CHANNELS, size // 2
    return Use(bytes=3 * 4 * 2 * WAYS * numbers, single=3 * 2 * WAYS * operations)


def nuts_use() -> Use:
    """A leapfrog step reads and writes the end of a trajectory, and reads the points; three steps a transition."""
    size, steps = INPUTS + 1, 3 * (DRAWS + WARMUP) * CHAINS
    return Use(bytes=steps * 8 * (2 * (3 * size + 1) + SUPPORT * size), double=steps * 3 * 2 * SUPPORT * size)


WORKS = (
    Work("ALPaCA, adapt and predict", adapt_and_predict, alpaca_use(QUERY, 1)),
    Work("ALPaCA, evidence step", evidence, alpaca_use(0, 3)),
    Work("MAML, meta-step", eager_step, maml_use()),
    Work("R2D2, meta-step", episodes, r2d2_use()),
    Work("NUTS", chains, nuts_use()),
    Work("MAML, compiled meta-step", compiled_step, maml_use(), COMPILED),
)


def measured_rates(device: str) -> Rates:
    """By a copy, which reads and writes, and by square products: the best of five."""
    numbers, width = (2**28, 8_192) if device == "cuda" else (2**24, 1_024)
    source = torch.ones(numbers, device=device)
    target = torch.empty_like(source)

    def best(function: Call) -> float:
        function()
        return min(seconds(function, device) for _ in range(5))

    copied = 2 * 4 * numbers / best(lambda: target.copy_(source))
    del source, target
    products = []
    for dtype in (torch.float32, torch.float64):
        left = torch.rand(width, width, dtype=dtype, device=device)
        products.append(2.0 * width**3 / best(lambda left=left: left @ left))
    return Rates(copied, *products)


class Clock:
    """The time that is left, and how long a cell of a table may take."""

    def __init__(self, seconds: float, cell: float) -> None:
        self.end, self.cell = time.monotonic() + seconds, cell

    def left(self) -> float:
        return self.end - time.monotonic()


def measured(call: Call, device: str, clock: Clock) -> Cell:
    """The median of the calls that there is time for; the first, which warms up, counts only where it is alone."""
    first = seconds(call, device)
    times, start = [], time.monotonic()
    while len(times) < MOST_CALLS and time.monotonic() - start < clock.cell and first < 2.0 * clock.cell:
        times.append(seconds(call, device))
    return Cell(statistics.median(times), len(times)) if times else Cell(first, 1)


def column(work: Work, device: str, sizes: tuple[int, ...], clock: Clock) -> tuple[dict[int, Cell], str]:
    """Cells by number of tasks, and why there are no more."""
    cells: dict[int, Cell] = {}
    next_call = 0.0  # seconds, as foretold: on a GPU small batches take as long as smaller ones
    for size in sizes:
        if clock.left() < (60.0 if work.make is compiled_step else 5.0 * clock.cell):
            return cells, "the time is up"
        if next_call > 2.0 * clock.cell:
            return cells, f"{size:,} tasks would take {next_call:.0f} s"
        try:
            cells[size] = cell = measured(work.make(device, size), device, clock)
        except torch.OutOfMemoryError:
            return cells, f"memory is full at {size:,} tasks"
        finally:
            if device == "cuda":
                torch.cuda.empty_cache()
        before = [other.seconds for other in cells.values()][-2:]
        next_call = cell.seconds * (max(cell.seconds / before[0], 1.0) if len(before) > 1 else 1.0)
        if device == "cpu":
            next_call = 4.0 * cell.seconds
    return cells, ""


def shares(work: Work, size: int, cell: Cell, rates: Rates) -> tuple[float, float]:
    """Of bandwidth and of arithmetic."""
    use = work.use
    return (
        size * use.bytes / rates.bytes / cell.seconds,
        size * (use.single / rates.single + use.double / rates.double) / cell.seconds,
    )


def tests_pass(on_gpu: bool, clock: Clock) -> tuple[bool, str]:
    """The tests of devices: on the GPU, or on the pretended device without one."""
    command = [sys.executable, "-m", "pytest", "-q", "tests/test_device_helper.py", "tests/test_devices.py"]
    command += ["-k", "cuda" if on_gpu else "not every_learner"]  # those are for `make test`
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=0.5 * clock.left())
    except subprocess.TimeoutExpired as error:
        return False, f"not done after {error.timeout:.0f} s"
    lines = done.stdout.strip().splitlines() or [done.stderr.strip()[-500:]]
    for line in lines:
        if line.startswith(("FAILED", "ERROR", "E  ", "SKIPPED")):
            print(line)
    return done.returncode == 0, lines[-1].strip("= ")


def trials_pass(device: str, clock: Clock) -> tuple[str, list[str]]:
    """How many trials went well, in words, and the names of those that did not."""
    failed, left_out = [], []
    for trial in TRIALS:
        start = time.monotonic()
        try:
            if device == "cuda" and clock.left() < 2.0 * trial.seconds:
                raise LeftOut("the time is up")
            found = trial.run(device)
        except LeftOut as why:
            left_out.append(trial.title)
            found = f"left out, as {why}"
        except Exception:  # the others are worth having
            failed.append(trial.title)
            found = f"FAILED:\n{traceback.format_exc()}"
        print(f"{trial.title} ({time.monotonic() - start:.0f} s): {found}", flush=True)
    print()
    passed = len(TRIALS) - len(failed) - len(left_out)
    text = f"{passed} of {len(TRIALS)} trials passed"
    return text + (f", left out: {', '.join(left_out)}" if left_out else ""), failed


def table(work: Work, devices: list[str], sizes: tuple[int, ...], clock: Clock, rates: dict[str, Rates]) -> dict:
    """Print a work's growth; its cells by device."""
    chosen = tuple(size for size in work.sizes if size <= sizes[-1]) or work.sizes[:1]
    found = {device: column(work, device, chosen, clock) for device in reversed(devices)}  # should time be short
    print(f"\n{work.title}: microseconds a task, and shares of bandwidth and arithmetic")
    titles = "".join(f"{name:>14}{'calls':>7}{'bandw.':>8}{'arith.':>8}" for name in devices)
    print(f"{'tasks':>8}{titles}{'CPU / GPU' if len(devices) > 1 else '':>11}".rstrip())
    for size in chosen:
        row, times = f"{size:>8,}", []
        for device in devices:
            cell = found[device][0].get(size)
            if cell is None:
                row += f"{'':>37}"
                continue
            times.append(cell.seconds)
            bandwidth, arithmetic = shares(work, size, cell, rates[device])
            row += f"{1e6 * cell.seconds / size:>14.2f}{cell.calls:>7}{bandwidth:>8.1%}{arithmetic:>8.1%}"
        print(row + (f"{times[0] / times[1]:>11.1f}" if len(times) > 1 else ""))
    for device, (_, why) in found.items():
        if why:
            print(f"{device}: no more, as {why}")
    sys.stdout.flush()
    return {device: cells for device, (cells, _) in found.items()}


def conclusion(results: dict[str, dict[str, dict[int, Cell]]], devices: list[str]) -> str:
    """What each work takes at the largest batch, and from where it fell."""
    parts = []
    for title, by_device in results.items():
        cells = by_device[devices[-1]]
        if not cells:
            parts.append(f"{title}: none")
            continue
        first, last = min(cells), max(cells)
        text = f"{title}: {1e6 * cells[last].seconds / last:.2f} us a task at {last:,}"
        text += f" ({1e6 * cells[first].seconds / first:.1f} at {first:,})"
        both = [size for size in cells if size in by_device["cpu"]] if len(devices) > 1 else []
        if both:
            text += f", {by_device['cpu'][max(both)].seconds / cells[max(both)].seconds:.0f} times a CPU thread"
            text += f" at {max(both):,}"
        parts.append(text)
    return "; ".join(parts)


def main() -> int:
    """Test, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cpu-only", action="store_true", help="as on a machine without a GPU")
    parser.add_argument("--largest", type=int, help="tasks a batch; 65,536 with a GPU, 512 without")
    parser.add_argument("--cell", type=float, default=1.5, help="seconds for a cell of a table")
    parser.add_argument("--seconds", type=float, default=780.0, help="for all of it")
    parser.add_argument("--no-tests", action="store_true")
    parser.add_argument("--no-tables", action="store_true", help="tests and trials alone")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", bm.ConvergenceWarning)  # the chains are short: their time is asked for
    clock = Clock(arguments.seconds, arguments.cell)
    on_gpu = torch.cuda.is_available() and not arguments.cpu_only
    devices = ["cpu", "cuda"] if on_gpu else ["cpu"]
    largest = (65_536 if on_gpu else 512) if arguments.largest is None else arguments.largest
    sizes = tuple(size for size in SIZES if size <= largest) or SIZES[:1]
    passed, tests = (True, "tests left out") if arguments.no_tests else tests_pass(on_gpu, clock)
    print(f"tests of devices on {'the GPU' if on_gpu else 'the pretended device: there is no GPU'}: {tests}\n")
    tried, failures = trials_pass(devices[-1], clock)
    rates = {device: measured_rates(device) for device in ([] if arguments.no_tables else devices)}
    for device, rate in rates.items():
        print(
            f"{device}: a copy moves {rate.bytes / 1e9:,.0f} GB/s; products do {rate.single / 1e9:,.0f} GFLOP/s in "
            f"float32, {rate.double / 1e9:,.0f} in float64"
        )
    results = {}
    for work in () if arguments.no_tables else WORKS:
        try:
            results[work.title] = table(work, devices, sizes, clock, rates)
        except Exception:  # the other tables are worth having
            failures.append(work.title)
            print(f"\n{work.title} failed:\n{traceback.format_exc()}", flush=True)
    text = "; ".join([tests, tried, *([] if arguments.no_tables else [conclusion(results, devices)])])
    if failures:
        text += f"; FAILED: {', '.join(failures)}"
    verdict(text if on_gpu else f"no GPU, one CPU thread alone; {text}", SEED)
    return int(bool(failures) or not passed)


if __name__ == "__main__":
    sys.exit(main())
