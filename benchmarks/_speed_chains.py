"""NUTS over many tasks and chains at once, eager and compiled, against BlackJAX: effective draws a second.

    model        y = x w + b + noise, 8 inputs, 10 points; phi is w and b, 9 numbers, standard normal; known noise
    samplers     4 chains of each task, warm-up and target .8 alike, a diagonal metric learned in windows
    effective    draws of the number of phi that mixes worst, summed over tasks
    seconds      of the processor, one thread, warm-up included, compiling not

BlackJAX runs as `jit(vmap(vmap(chain)))` in a process of its own, in turn with ours. Each is measured in float64 and
float32; the bar compares the better of ours with the better of BlackJAX.
"""

import contextlib
import importlib.util
import math
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor

import bayesmeta as bm
from bayesmeta.inference.diagnostics import effective_draws
from benchmarks._speed import Bar
from benchmarks.peers.blackjax_nuts import INPUTS, TARGET, regressions

CHAINS = 4
Run = Callable[[int], tuple[float, Tensor]]  # seed -> processor seconds, draws `chains S B P`


def bars(seconds: float) -> list[Bar]:
    """Both sizes; of about so many processor seconds, but at least one run of everything."""
    few = _measure(64, 300, 100, seconds / 2)
    many = _measure(512, 100, 50, seconds / 2)
    return [
        Bar("NUTS, 64 tasks x 4 chains: effective draws a second / BlackJAX's", few[0], 0.6, True, few[1]),
        Bar("NUTS, 512 tasks x 4 chains: effective draws a second / BlackJAX's", many[0], 1.0, True, many[1]),
    ]


def _measure(tasks: int, warmup: int, draws: int, seconds: float) -> tuple[float, str]:
    """The ratio, and all rates."""
    runs: dict[str, Run] = {
        f"{name}, float{bits}": _ours(tasks, warmup, draws, bits, name == "compiled")
        for name, bits in (("eager", 64), ("compiled", 64), ("compiled", 32))
    }
    compiling = []
    for name in [name for name in runs if name.startswith("compiled")]:
        first, again = runs[name](0)[0], runs[name](0)[0]
        compiling.append(f"{name} {first - again:.0f} s")
    with contextlib.ExitStack() as stack:
        if importlib.util.find_spec("blackjax") is not None:
            for bits in (64, 32):
                name = f"BlackJAX, float{bits}"
                runs[name], cost = stack.enter_context(_peer(tasks, warmup, draws, bits))
                compiling.append(f"{name} {cost:.0f} s")
        rates: dict[str, list[float]] = {name: [] for name in runs}
        start, seed = time.process_time(), 0
        spent = 0.0
        while seed == 0 or spent + time.process_time() - start < seconds:
            seed += 1
            for name, run in runs.items():
                cost, found = run(seed)
                spent += cost if name.startswith("BlackJAX") else 0.0
                effective = effective_draws(found.double()).amin(-1).sum()
                rates[name].append(float(effective) / cost)
    middle = {name: median(each) for name, each in rates.items()}
    note = ", ".join(f"{name} {rate:,.0f}" for name, rate in middle.items()) + "; compiling " + ", ".join(compiling)
    theirs = [rate for name, rate in middle.items() if name.startswith("BlackJAX")]
    if not theirs:
        return math.nan, "no peer; " + note
    return max(rate for name, rate in middle.items() if not name.startswith("BlackJAX")) / max(theirs), note


def _ours(tasks: int, warmup: int, draws: int, bits: int, compile: bool) -> Run:
    kind = {32: torch.float32, 64: torch.float64}[bits]
    x, y = (torch.from_numpy(each).to(kind) for each in regressions(tasks))
    # a prior of standard normal weights, in units of noise of variance one
    learner = bm.ALPaCA(bm.Identity(INPUTS), noise=bm.noise.DiagonalNoise(1, 1.0)).to(kind).requires_grad_(False)
    log_joint = learner.log_joint(bm.Data(x, y, torch.ones(x.shape[:2], dtype=torch.bool)))
    sampler = bm.inference.NUTS(CHAINS, draws, warmup, target_acceptance=TARGET, compile=compile)

    def run(seed: int) -> tuple[float, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        start = torch.randn(CHAINS, tasks, INPUTS + 1, 1, generator=generator, dtype=torch.float64).to(kind)
        begun = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", bm.ConvergenceWarning)  # one of 512 tasks has an R-hat just above the limit
            chains = sampler.chains(log_joint, {"weight": start}, generator)
        return time.process_time() - begun, chains.draws["weight"].flatten(3)

    return run


@contextlib.contextmanager
def _peer(tasks: int, warmup: int, draws: int, bits: int) -> Iterator[tuple[Run, float]]:
    """BlackJAX in a process of its own, and the processor seconds that it compiled for."""
    given = [str(each) for each in (tasks, CHAINS, warmup, draws, bits)]
    command = [sys.executable, "-m", "benchmarks.peers.blackjax_nuts", *given]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process,
    ):
        requests, answers = process.stdin, process.stdout
        assert requests is not None
        assert answers is not None
        compiling = float(answers.readline())
        path = Path(folder) / "draws.npy"

        def run(seed: int) -> tuple[float, Tensor]:
            print(seed, path, file=requests, flush=True)
            seconds = float(answers.readline())
            return seconds, torch.from_numpy(np.load(path))

        yield run, compiling
        requests.close()
