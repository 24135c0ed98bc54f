"""What tests of commands share: a way to run one as a user does, and a small table."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bayesmeta.cli.app import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs a command in an empty folder: exit status, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bayesmeta", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        code = stop.value.code
        return (code if isinstance(code, int) else 0), captured.out, captured.err

    return call


@pytest.fixture(scope="session")
def subjects() -> pd.DataFrame:
    """40 subjects of 4 to 8 rows on lines of their own, with an age and a site that do not change within one."""
    rng = np.random.default_rng(0)
    counts = rng.integers(4, 9, 40)
    frame = pd.DataFrame({"subject": np.repeat([f"s{i:02}" for i in range(40)], counts)})
    frame["day"] = np.concatenate([np.arange(count, dtype=float) for count in counts])
    age = rng.normal(40, 10, 40).round()
    frame["age"], frame["site"] = np.repeat(age, counts), np.repeat(rng.choice(["north", "south"], 40), counts)
    level, slope = 200 + 2.0 * age + rng.normal(0, 20, 40), 10 + rng.normal(0, 4, 40)
    frame["time"] = np.repeat(level, counts) + np.repeat(slope, counts) * frame["day"] + rng.normal(0, 5, counts.sum())
    frame["errors"] = rng.poisson(3.0, counts.sum())
    frame["late"] = np.where(frame["time"] > 320, "yes", "no")
    return frame
