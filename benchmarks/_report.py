"""What every benchmark prints at its end: the verdict, and where and with what it was measured."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch


def machine() -> str:
    """Processor, cores and threads, versions."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    model = names[0] if names else platform.processor() or platform.machine()
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "gpytorch", "numpy"))
    threads = torch.get_num_threads()
    return f"{model}, {os.cpu_count()} cores, {threads} thread(s); Python {platform.python_version()}, {versions}"


def verdict(text: str, seed: int) -> None:
    """The last lines of a benchmark."""
    print(f"\nseed {seed}; {machine()}")
    print(f"VERDICT: {text}")
