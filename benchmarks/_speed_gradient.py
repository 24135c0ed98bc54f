"""The bars of gradient-based learners: MAML's meta-step against the per-task loop, and what surrounds it.

The meta-steps are those of `maml_meta_step_is_fast`: sinusoids of 25 tasks of 10 + 10 points on an MLP 1-40-40-1,
second order, and Conv4; all methods give the same loss and meta-gradient there. Here each ratio is a bar.

    generic     a network that says nothing of its layers: derivatives by autograd, the likelihood's score as cotangent
    dense       the same network with the derivatives of dense layers written out
    compiled    dense, through inductor
    Linearized  dense, with a joint Gaussian at the query in place of the point's density
"""

import math
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

import bayesmeta as bm
from benchmarks._report import interleaved, seconds
from benchmarks._speed import Bar
from benchmarks.maml_meta_step_is_fast import SETTINGS, TOLERANCE, Bayesmeta, Looped, Setting, assert_same
from benchmarks.peers import installed, loop

FIVE, ONE = SETTINGS[1], SETTINGS[0]
FIRST_CALL = "import benchmarks._speed_gradient as gradient; print(gradient.first_call())"


class Unwritten(bm.MLP):
    """An MLP that does not say what layers it has, as a network of a user's own."""

    def dense_layers(self) -> None:
        """Nothing."""
        return


def bars(budget: float) -> list[Bar]:
    """All bars.

    Args:
        budget: processor seconds, about.
    """
    torch.set_num_threads(1)
    found: list[Bar] = []
    for setting, generic, dense in ((FIVE, 12.0, 15.0), (ONE, 9.0, None)):
        steps = f"{setting.steps} inner step{'s' if setting.steps > 1 else ''}"
        methods, notes = _methods(setting)
        times = _times(methods, budget / 5)
        ratio = {name: times["loop"] / value for name, value in times.items()}
        beside = ", ".join(f"{name} {ratio[name]:.1f}" for name in notes)
        beside = f"in the same run: {beside}" if beside else ""
        found.append(Bar(f"MAML, {steps}: generic path, times the loop's speed", ratio["generic"], generic, True))
        if dense is not None:
            found.append(Bar(f"MAML, {steps}: dense path, times the loop's speed", ratio["dense"], dense, True))
        found.append(Bar(f"MAML, {steps}: compiled, times the loop's speed", ratio["compiled"], 40.0, True, beside))
    times = _times(_posteriors(), budget / 5)
    point, full, diagonal = (times[name] for name in ("PointEstimate", "Linearized", "LinearizedDiagonal"))
    found.append(Bar("MAML: a step with Linearized over one with PointEstimate", full / point, 2.0, False))
    found.append(Bar("MAML: a step with LinearizedDiagonal over one with Linearized", diagonal / full, 1.0, False))
    for setting in (SETTINGS[3],):
        images = {"loop": Looped(loop.meta_step, setting, torch.float32), "ours": Bayesmeta(setting, torch.float32)}
        times = _times(images, budget / 5)
        claim = "Conv4, 1 query a class: times the loop's speed"
        found.append(Bar(claim, times["loop"] / times["ours"], 1.0, True))
    return found + _first_calls()


def _methods(setting: Setting) -> tuple[dict[str, Callable[[], object]], list[str]]:
    """What is timed against the loop, by name, all of it checked; and the names of peers among it."""
    single = torch.float32
    reference = Looped(loop.meta_step, setting, single)
    ours = {
        "generic": _generic(setting),
        "dense": Bayesmeta(setting, single),
        "compiled": Bayesmeta(setting, single, compiled=True),
    }
    for name, method in ours.items():
        assert_same(name, method, reference, TOLERANCE["float32"])
    methods: dict[str, Callable[[], object]] = {"loop": reference, **ours}
    found, _ = installed("learn2learn_maml", "jax_maml")
    peers = []
    for name, module in found.items():
        if hasattr(module, "prepared"):
            step = module.prepared(setting.network(), setting.batch(), setting.steps, setting.lr)
            gradient, expected = module.flat(step()[1]), reference.gradient()
            assert float((gradient - expected).norm() / expected.norm()) < TOLERANCE["float32"], name
            methods[f"{name}, jit(vmap)"] = step
        else:
            methods[name] = Looped(module.meta_step, setting, single)
        peers.append(next(reversed(methods)))
    return methods, peers


def _generic(setting: Setting) -> Bayesmeta:
    """The same learner on a network that does not say what layers it has."""
    made = Bayesmeta(setting, torch.float32)
    made.network.features.__class__ = Unwritten
    assert made.network.layers_of() is None
    return made


def _posteriors() -> dict[str, Callable[[], object]]:
    """A meta-step of 5 inner steps with each approximation of the posterior."""
    x, y, query_x, query_y = FIVE.batch()
    tasks = bm.TaskBatch(bm.Data.full(x, y), bm.Data.full(query_x, query_y))

    def step(posterior: bm.learners.Approximation) -> Callable[[], Tensor]:
        torch.manual_seed(0)
        network = bm.MLP(1, [40, 40], activation="relu")
        learner = bm.MAML(network, steps=FIVE.steps, lr=FIVE.lr, posterior=posterior)

        def run() -> Tensor:
            learner.zero_grad()
            loss = learner.meta_loss(tasks).mean()
            loss.backward()
            return loss

        return run

    kinds = (bm.PointEstimate, bm.Linearized, bm.LinearizedDiagonal)
    return {kind.__name__: step(kind()) for kind in kinds}


def _times(methods: Mapping[str, Callable[[], object]], budget: float) -> dict[str, float]:
    """Median seconds a call, in as many rounds as the budget has room for.

    In a round every method runs for about as long as the slowest takes for a call: as in a training, where the same
    step comes again and again and finds its numbers in the cache.
    """
    for method in methods.values():
        method()
    once = {name: seconds(method) for name, method in methods.items()}
    longest = max(once.values())
    calls = {name: max(1, min(40, round(longest / value))) for name, value in once.items()}
    rounds = max(5, min(60, math.ceil(budget / (len(methods) * longest))))
    blocks = {name: partial(_repeated, method, calls[name]) for name, method in methods.items()}
    return {name: value / calls[name] for name, value in interleaved(blocks, rounds).items()}


def _repeated(method: Callable[[], object], calls: int) -> None:
    for _ in range(calls):
        method()


def first_call() -> float:
    """Seconds of the first call of a compiled step, with the recording of it; torch's compiler is imported before."""
    import torch._dynamo
    import torch._inductor.compile_fx

    torch.set_num_threads(1)
    step = Bayesmeta(FIVE, torch.float32, compiled=True)
    own = resource.getrusage(resource.RUSAGE_SELF)
    step()
    spent = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)  # the compiler
    used = spent.ru_utime + spent.ru_stime - own.ru_utime - own.ru_stime
    return used + children.ru_utime + children.ru_stime


def _first_calls() -> list[Bar]:
    """Processor seconds of the first compiled step in a new process, with an empty folder of code and a full one."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": folder, "OMP_NUM_THREADS": "1"}

        def run() -> float:
            command = [sys.executable, "-c", FIRST_CALL]
            root = Path(__file__).parent.parent
            result = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True)
            return float(result.stdout.split()[-1])

        cold, warm = run(), run()
    note = "both grow with what else the machine does"
    return [
        Bar("compile=True: first call with nothing kept, processor seconds", cold, 12.0, False, note),
        Bar("compile=True: first call in a second process, processor seconds", warm, 1.5, False, note),
    ]
