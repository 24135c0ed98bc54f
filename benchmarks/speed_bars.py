"""Every bar of speed that the library sets itself, each as a ratio that is measured in this run.

    gradient    MAML's meta-step against a per-task loop, JAX's jit(vmap) and learn2learn; compiling; posteriors
    linear      ALPaCA against the bare formula; batches, streams, wide heads
    chains      NUTS over tasks and chains, against BlackJAX

Peers are measured where they are installed (`make bench-peers`). Ratios are of processor seconds on one thread, of
calls in turn, so that a busy machine slows all of them alike, as far as it does.

    python -m benchmarks.speed_bars --only gradient --seconds 60
"""

import argparse
import importlib
import time

import torch

from benchmarks._report import verdict
from benchmarks._speed import Bar

SEED = 0
PARTS = ("gradient", "linear", "chains")


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=PARTS, action="append", help="this part; may be given more than once")
    parser.add_argument("--seconds", type=float, default=60.0, help="processor seconds of each part, about")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    everything: list[Bar] = []
    for part in arguments.only or PARTS:
        start = time.perf_counter()
        found = importlib.import_module(f"benchmarks._speed_{part}").bars(arguments.seconds)
        print(f"\n{part} ({time.perf_counter() - start:.0f} s)")
        for bar in found:
            print(bar.line, flush=True)
        everything += found
    measured = [bar for bar in everything if bar.is_measured]
    missed = [f"{bar.claim} {bar.figure:.3g} (bar {bar.bar:g})" for bar in measured if not bar.is_met]
    text = f"{len(measured) - len(missed)} of {len(measured)} bars are met"
    text += f", {len(everything) - len(measured)} were not measured" if len(measured) < len(everything) else ""
    verdict(f"{text}; missed: {'; '.join(missed)}" if missed else text, SEED)


if __name__ == "__main__":
    main()
