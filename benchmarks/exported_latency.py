"""What a robot waits for: the API, an exported program, inductor's package and onnxruntime, one thread, in one table.

ALPaCA on tanh features (F = 32), standardized and in float32, and a neural process. *Adapt and predict* is of tasks
with five support points and five queries, *update* of one more point of each stream, *predict* of five queries of each.
All give plain tensors of means and variances. ONNX has no Cholesky factor, so that of ALPaCA it has the stream. Times
are processor time, medians of many calls, one kind after the other in turn.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor

import bayesmeta as bm
from bayesmeta.interop.exporting import InductorPackage, OnnxProgram, TorchProgram
from benchmarks._report import interleaved, verdict

SEED = 0
FEATURES, POINTS = 32, 5
TASKS = [1, 256]
KINDS = ["API", "torch.export", "AOTInductor", "onnxruntime"]
Run = Callable[[], object]


def standardized() -> bm.Standardized:
    learner = bm.Standardized(bm.ALPaCA(bm.MLP(1, [64, FEATURES])))
    learner.prepare(bm.Data.full(torch.randn(64, 8, 1), torch.randn(64, 8, 1)))
    return learner


def loaded(folder: Path, name: str) -> dict[str, Callable[..., object]]:
    """One program in each form that there is."""
    found: dict[str, Callable[..., object]] = {}
    if (folder / f"{name}.pt2").exists():
        found["torch.export"] = torch.export.load(folder / f"{name}.pt2").module()
    if (folder / f"{name}.aoti.pt2").exists():
        found["AOTInductor"] = torch._inductor.aoti_load_package(str(folder / f"{name}.aoti.pt2"))
    if (folder / f"{name}.onnx").exists():
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(folder / f"{name}.onnx", options)
        names = [each.name for each in session.get_inputs()]
        found["onnxruntime"] = lambda *values: session.run(None, dict(zip(names, values, strict=True)))
    return found


def given(programs: dict[str, Callable[..., object]], *values: Tensor) -> dict[str, Run]:
    """Each program with these inputs: arrays for onnxruntime."""
    arrays = [np.ascontiguousarray(value.numpy()) for value in values]
    return {
        kind: (lambda run=run, own=arrays if kind == "onnxruntime" else values: run(*own))  # type: ignore[misc]
        for kind, run in programs.items()
    }


def row(name: str, tasks: int, runs: dict[str, Run]) -> dict[str, float]:
    """Measure and print microseconds of a task."""
    calls = max(1, 60 // tasks)
    for run in runs.values():
        run()
    times = {kind: value / tasks * 1e6 for kind, value in interleaved(runs, rounds=21, calls=calls).items()}
    cells = [f"{times[kind]:12.1f}" if kind in times else f"{'-':>12s}" for kind in KINDS]
    print(f"{name:34s} {tasks:6d} {' '.join(cells)}", flush=True)
    return times


def measure(title: str, learner: bm.Learner, folder: Path) -> dict[tuple[str, int], dict[str, float]]:
    """All rows of one learner."""
    frozen, dtype, found = learner.frozen(), learner.placement()[0], {}
    streams = (folder / "update.pt2").exists()
    programs = {name: loaded(folder, name) for name in ("adapt_predict", *(("update", "predict") if streams else ()))}
    for tasks in TASKS:
        x, query = torch.randn(tasks, POINTS, 1, dtype=dtype), torch.randn(tasks, POINTS, 1, dtype=dtype)
        y, mask = torch.randn(tasks, POINTS, 1, dtype=dtype), torch.ones(tasks, POINTS, dtype=torch.bool)
        data = bm.Data(x, y, mask)

        def ask(posterior: bm.TaskPosterior, query: Tensor = query) -> tuple[Tensor, Tensor]:
            prediction = posterior.predict(query)
            return prediction.mean, prediction.variance

        api: dict[str, Run] = {"API": lambda data=data, ask=ask: ask(frozen.adapt(data))}
        runs = api | given(programs["adapt_predict"], x, y, mask, query)
        found["adapt and predict", tasks] = row(f"{title}: adapt and predict", tasks, runs)
        if not streams:
            continue
        state = torch.load(folder / "state.pt", weights_only=True)
        state = {name: value.expand(tasks, *value.shape[1:]).contiguous() for name, value in state.items()}
        posterior, more = frozen.adapt(data), data.points(slice(0, 1))
        state = programs["update"]["torch.export"](x[:, 0], y[:, 0], *state.values())
        state = {name.removeprefix("next_"): value.contiguous() for name, value in state.items()}
        api = {"API": lambda posterior=posterior, more=more: posterior.update(more)}
        runs = api | given(programs["update"], x[:, 0], y[:, 0], *state.values())
        found["update", tasks] = row(f"{title}: update", tasks, runs)
        streamed = posterior.update(more)
        api = {"API": lambda posterior=streamed, ask=ask: ask(posterior)}
        runs = api | given(programs["predict"], query, *state.values())
        found["predict", tasks] = row(f"{title}: predict", tasks, runs)
    return found


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    learners = {
        "ALPaCA": standardized(),
        "neural process": bm.ConditionalNeuralProcess(bm.Identity(1), width=64, layers=2),
    }
    print("microseconds of a task")
    print(f"{'':34s} {'tasks':>6s} {' '.join(f'{kind:>12s}' for kind in KINDS)}")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for title, learner in learners.items():
            place = Path(folder, title.replace(" ", "_"))
            bm.export(learner, place, [TorchProgram(), InductorPackage(), OnnxProgram()])
            found[title] = measure(title, learner, place)

    def share(title: str, what: str) -> str:
        each = found[title][what, 1]
        return ", ".join(f"{each[kind] / each['API']:.2f} by {kind}" for kind in KINDS[1:] if kind in each)

    verdict(
        "of one task, in units of the API's time: ALPaCA adapts and predicts in "
        f"{share('ALPaCA', 'adapt and predict')}; takes a point in {share('ALPaCA', 'update')}, and predicts from the "
        f"stream in {share('ALPaCA', 'predict')}; a neural process adapts and predicts in "
        f"{share('neural process', 'adapt and predict')}",
        SEED,
    )


if __name__ == "__main__":
    main()
