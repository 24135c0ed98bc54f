"""What `on_gpu` tries besides its tables: each trial compares numbers, says how long things took, or fails.

    fit(device="auto")       theta moves to the accelerator and stays there; losses of the first steps are the CPU's
    features in bfloat16     R2-D2's step with Conv4-64, in float32, with TF32 allowed, and in bfloat16
    CUDA graphs              ALPaCA's and MAML's step: eager, compiled, and compiled and recorded as a graph
    an exported program      adapt + predict as a `torch.export` program and as a compiled package, beside the library
    rows of a parquet file   predicted by `bm.stream` with the learner on the device, beside the CPU
    several processes        `torchrun` with NCCL on two GPUs (gloo on the CPU): the losses of one process

On a CPU they run small, and on it alone.
"""

import copy
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

import bayesmeta as bm
from bayesmeta.interop.exporting import InductorPackage, TorchProgram
from bayesmeta.training import CompiledStep, CudaGraphStep
from benchmarks._report import interleaved

SEED = 0
SAME = 1e-3  # relative: a few steps in float32, in which a GPU sums in another order
ROUNDING = 0.05  # of a loss: numbers of bfloat16 have 8 digits, and a network adds up many


class LeftOut(Exception):
    """The machine lacks what a trial needs; the message says what."""


class Trial(NamedTuple):
    """`run(device)` gives a line of what was found, and raises AssertionError where it is wrong."""

    title: str
    run: Callable[[str], str]
    seconds: float  # about, on a GPU


def curves(tasks: int, points: int) -> bm.TaskDataset:
    return bm.tasks.Sinusoid().dataset(tasks, points, seed=SEED)


def fit_on_a_device(device: str) -> str:
    """The same training on both, from the same theta."""
    torch.manual_seed(SEED)
    reference = bm.Standardized(bm.ALPaCA(bm.MLP(1, [64, 64])))
    learner, tasks = copy.deepcopy(reference), curves(200, 20)
    results = [
        bm.fit(each, tasks, steps=20, device=where, progress=False)
        for each, where in ((reference, "cpu"), (learner, "auto" if device == "cuda" else "cpu"))
    ]
    place = next(learner.parameters()).device
    assert place.type == device, f"theta is on {place}"
    gaps = [abs(a - b) / abs(a) for a, b in zip(*(each.losses for each in results), strict=True)]
    assert max(gaps) < SAME, f"losses differ by {max(gaps):.1e}"
    prediction = learner.adapt(bm.Data.from_arrays([0.0, 1.0], [0.1, 0.9])).predict([0.5])
    assert prediction.mean.device.type == device
    times = [1e3 * each.seconds / len(each.losses) for each in results]
    return f"theta on {place}, losses within {max(gaps):.0e} of the CPU's; {times[0]:.1f} and {times[1]:.1f} ms a step"


def episodes(device: str, tasks: int, size: int) -> bm.TaskBatch:
    generator = torch.Generator().manual_seed(SEED)
    x = torch.rand(2, tasks, 5, 1, size, size, generator=generator).to(device)
    labels = torch.arange(5, device=device).expand(tasks, -1)
    return bm.TaskBatch(*(bm.Data.full(each, labels) for each in x))


@contextmanager
def tf32() -> Iterator[None]:
    """TF32 for all products of float32 on CUDA; cuDNN's convolutions take it anyway, torch's default."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def step_of(learner: bm.Learner, tasks: bm.TaskBatch) -> Callable[[], Tensor]:
    def step() -> Tensor:
        learner.zero_grad(set_to_none=True)
        loss = learner.meta_loss(tasks).mean()
        loss.backward()
        return loss.detach()

    return step


def features_in_bfloat16(device: str) -> str:
    """One meta-step, forwards and back, at two widths."""
    parts = []
    for name, channels, tasks in (("64 channels", 64, 64), ("256 channels", 256, 64)):
        if device == "cpu":
            channels, tasks = channels // 8, 2
        batch = episodes(device, tasks, 28)
        calls, losses = {}, {}
        for kind in ("float32", "bfloat16"):
            torch.manual_seed(SEED)
            features: bm.Network = bm.Conv4((1, 28, 28), channels)
            features = bm.networks.LowPrecision(features) if kind == "bfloat16" else features
            calls[kind] = step_of(bm.R2D2(features, num_classes=5).to(device), batch)
            losses[kind] = calls[kind]().item()

        def with_tf32(call: Callable[[], Tensor] = calls["float32"]) -> Tensor:
            with tf32():
                return call()

        calls["TF32"], losses["TF32"] = with_tf32, with_tf32().item()
        gaps = {kind: abs(loss - losses["float32"]) / losses["float32"] for kind, loss in losses.items()}
        assert gaps["bfloat16"] < ROUNDING, f"a loss of {losses['bfloat16']} for {losses['float32']}"
        times = interleaved(calls, 3 if device == "cpu" else 20, device)
        parts.append(
            f"{name}: float32 {1e3 * times['float32']:.1f} ms, TF32 {times['float32'] / times['TF32']:.2f} times as "
            f"fast, bfloat16 {times['float32'] / times['bfloat16']:.2f} (losses within {gaps['TF32']:.0e} and "
            f"{gaps['bfloat16']:.0e})"
        )
    return "; ".join(parts)


def compiled_and_recorded(device: str) -> str:
    """The same step three ways; a program is compiled once for each size."""
    parts = []
    for name, learner, tasks in (
        ("ALPaCA", bm.ALPaCA(bm.MLP(1, [64, 64])), 64),
        ("MAML", bm.MAML(bm.MLP(1, [40, 40]), steps=5, lr=0.01, posterior=bm.PointEstimate()), 25),
    ):
        learner = learner.to(device)
        batch = learner.conform_tasks(curves(tasks, 20).divided(bm.tasks.PrefixSplit.at(10)).to(device=device))
        kinds = {"compiled": CompiledStep, "graph": CudaGraphStep}
        steps = {kind: make(learner, learner.loss) for kind, make in kinds.items()}
        calls: dict[str, Callable[[], object]] = {"eager": step_of(learner, batch)}
        calls |= {kind: (lambda each=step, tasks=batch: each(tasks)) for kind, step in steps.items()}
        calls["eager"]()
        expected = [p.grad.clone() for p in learner.parameters() if p.grad is not None]
        for kind, step in steps.items():
            for _ in range(3):  # a recording is replayed from the second call on
                step(batch)
                found = [p.grad for p in learner.parameters() if p.grad is not None]
                gap = max(
                    float((a - b).norm() / b.norm().clamp(min=1e-6)) for a, b in zip(found, expected, strict=True)
                )
                assert gap < SAME, f"{name}, {kind}: gradients differ by {gap:.1e}"
        recorded = steps["graph"].recordings
        assert recorded == (device == "cuda"), f"{name} was recorded {recorded} times"
        times = interleaved(calls, 3 if device == "cpu" else 50, device)
        parts.append(
            f"{name}, {tasks} tasks: eager {1e3 * times['eager']:.2f} ms, compiled "
            f"{times['eager'] / times['compiled']:.1f} times as fast"
            + (f", recorded {times['eager'] / times['graph']:.1f}" if recorded else " (nothing to record)")
        )
    return "; ".join(parts)


def an_exported_program(device: str) -> str:
    """For numbers of tasks and points that it was not recorded with; both forms serve where the learner was."""
    torch.manual_seed(SEED)
    learner = bm.ALPaCA(bm.MLP(1, [64, 64])).to(device).requires_grad_(False)
    tasks = 16 if device == "cpu" else 4_096
    batch = curves(tasks, 20).divided(bm.tasks.PrefixSplit.at(10)).to(torch.float32, device)
    support, x = batch.support, batch.query.x

    def library() -> Tensor:
        return learner.adapt(support).predict(x).mean

    parts, expected = [], library()
    with tempfile.TemporaryDirectory() as folder:
        bm.export(learner, Path(folder, "robot"), [TorchProgram(), InductorPackage()])
        files = json.loads(Path(folder, "robot", "manifest.json").read_text())["programs"]["adapt_predict"]["files"]
        paths = {title: str(Path(folder, "robot", name)) for title, name in files.items()}
        calls: dict[str, Callable[[], object]] = {"library": library}
        for title, path in paths.items():
            is_package = title == InductorPackage.title
            run = torch._inductor.aoti_load_package(path) if is_package else torch.export.load(path).module()
            found = run(support.x, support.y, support.mask, x)
            gap = float((found["mean"] - expected).abs().max())
            assert found["mean"].device.type == device
            assert gap < 1e-4, f"{title}: means differ by {gap:.1e}"  # float32, of outcomes up to 5
            calls[title] = lambda each=run: each(support.x, support.y, support.mask, x)
            parts.append(f"{title} within {gap:.0e}")
        with torch.no_grad():
            times = interleaved(calls, 3 if device == "cpu" else 20, device)
    took = ", ".join(f"{title} {1e6 * each / tasks:.2f}" for title, each in times.items())
    return f"{'; '.join(parts)}; microseconds a task of {tasks:,}: {took}"


def rows_of_a_parquet_file(device: str) -> str:
    """Generated tasks of 5 rows, of which 3 are known: the same answers on both, and rows a second."""
    count = 400 if device == "cpu" else 200_000
    rng = np.random.default_rng(SEED)
    x = rng.uniform(-5.0, 5.0, (count, 5))
    y = np.sin(x + rng.uniform(0.0, 3.0, (count, 1)))
    y[:, 3:] = np.nan
    frame = pd.DataFrame({"task": np.arange(count).repeat(5), "x": x.ravel(), "y": y.ravel()})
    schema = bm.TaskDataset.from_frame(frame.head(500).dropna(), task="task", x=["x"], y=["y"]).schema
    assert schema is not None
    torch.manual_seed(SEED)
    reference = bm.ALPaCA(bm.MLP(1, [64, 64])).requires_grad_(False)
    answers, rates = [], []
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "table.parquet")
        frame.to_parquet(table, row_group_size=50_000)
        for place in ("cpu", device):
            output = Path(folder, f"{len(answers)}")
            start = time.perf_counter()
            bm.stream(copy.deepcopy(reference).to(place), schema, table, output, progress=False)
            rates.append(5 * count / (time.perf_counter() - start))
            answers.append(pd.read_parquet(output)[["mean", "sd"]].to_numpy(dtype=float))
    gap = float(np.nanmax(np.abs(answers[1] - answers[0])))
    assert answers[1].shape == answers[0].shape, f"{len(answers[1])} rows for {len(answers[0])}"
    assert gap < SAME, f"answers differ by {gap:.1e}"
    return f"{5 * count:,} rows within {gap:.0e}; {rates[0]:,.0f} rows a second on the CPU, {rates[1]:,.0f} on {device}"


PROCESSES = 2
STEPS = 10


def several_processes(device: str) -> str:
    """One training by two processes, and by one."""
    if device == "cuda" and torch.cuda.device_count() < PROCESSES:
        raise LeftOut(f"{PROCESSES} GPUs are wanted, and {torch.cuda.device_count()} is there")
    one = losses_in_processes(device)
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(PROCESSES), "-m"]
    command = [sys.executable, "-m", *launcher, "benchmarks._device_trials", device]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2_000:]
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    gap = max(abs(a - b) / abs(a) for a, b in zip(one["losses"], found["losses"], strict=True))
    assert found["processes"] == PROCESSES
    assert gap < SAME, f"losses differ by {gap:.1e}"
    return (
        f"{PROCESSES} processes by {found['backend']} on {found['devices']}: losses within {gap:.0e} of one process's"
    )


def losses_in_processes(device: str) -> dict[str, object]:
    """The losses of a training, and who computed them."""
    torch.manual_seed(SEED)
    learner = bm.ALPaCA(bm.MLP(1, [16])).double()
    where = "auto" if device == "cuda" else "cpu"
    result = bm.fit(learner, curves(64, 10), STEPS, batch_size=16, device=where, progress=False)
    here = bm.training.Processes.here()
    backend = torch.distributed.get_backend_config() if here.count > 1 else "nothing"
    devices = here.gathered(str(next(learner.parameters()).device))
    return {"losses": result.losses, "processes": here.count, "backend": backend, "devices": devices}


TRIALS = (
    Trial("fit(device=...)", fit_on_a_device, 20.0),
    Trial("features in bfloat16", features_in_bfloat16, 40.0),
    Trial("CUDA graphs", compiled_and_recorded, 120.0),
    Trial("an exported program", an_exported_program, 60.0),
    Trial("rows of a parquet file", rows_of_a_parquet_file, 30.0),
    Trial("several processes", several_processes, 40.0),
)


if __name__ == "__main__":  # one of several processes
    torch.set_num_threads(1)
    said = json.dumps(losses_in_processes(sys.argv[1]))
    if bm.training.Processes.here().is_first:
        print(said, flush=True)
