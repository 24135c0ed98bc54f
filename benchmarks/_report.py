"""What every benchmark prints at its end: the verdict, and where and with what it was measured."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

import torch


def machine() -> str:
    """Processor, cores and threads, versions."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    model = names[0] if names else platform.processor() or platform.machine()
    if torch.cuda.is_initialized():
        model = f"{torch.cuda.get_device_name()} with {model}"
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "gpytorch", "numpy"))
    threads = torch.get_num_threads()
    return f"{model}, {os.cpu_count()} cores, {threads} thread(s); Python {platform.python_version()}, {versions}"


def verdict(text: str, seed: int) -> None:
    """The last lines of a benchmark."""
    print(f"\nseed {seed}; {machine()}")
    print(f"VERDICT: {text}")


def seconds(function: Callable[[], object], device: str = "cpu") -> float:
    """Seconds of one call: processor time on one CPU thread (what others do counts little), CUDA events on a GPU."""
    if device == "cpu":
        start = time.process_time()
        function()
        return time.process_time() - start
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    begin.record()
    function()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3


def affordable(run: Callable[[int], float], budget: float, trial: int = 12) -> int:
    """How many steps a budget of processor seconds has room for, at least one, by a trial of a few.

    Args:
        run: takes so many steps of something that is thrown away; processor seconds.
        budget: processor seconds.
        trial: steps that are timed, after two that are not.
    """
    run(2)
    return max(int(budget / (run(trial) / trial)), 1)


def interleaved(
    functions: Mapping[str, Callable[[], object]], rounds: int, device: str = "cpu", calls: int = 1
) -> dict[str, float]:
    """Median seconds a call. Each round times every function once, so that a busy machine slows all of them alike."""
    for function in functions.values():
        function()
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            times[name].append(seconds(lambda f=function: [f() for _ in range(calls)], device) / calls)
    return {name: statistics.median(each) for name, each in times.items()}
