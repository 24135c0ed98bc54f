"""What tests of several commands share: the table that comes with the package, and a model of it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from bayesmeta.cli.app import app, main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def plants(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table, as `example-table` writes it."""
    path = tmp_path_factory.mktemp("plants") / "plants.csv"
    assert CliRunner().invoke(app, ["example-table", "-o", str(path)]).exit_code == 0
    return path


@pytest.fixture(scope="session")
def growth(plants: Path) -> Path:
    """A model of the seedlings by which a quarter of them was held out: a linear one, which is fitted in no time."""
    columns = ["--task", "plant", "--x", "day", "--y", "height_cm", "--covariate", "light_umol"]
    columns += ["--covariate", "cultivar", "--holdout", "0.25", "--method", "alpaca-linear"]
    done = CliRunner().invoke(app, ["fit", str(plants), *columns, "-o", str(plants.parent / "model")])
    assert done.exit_code == 0, done.output
    return plants.parent / "model"


@pytest.fixture
def bayesmeta(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """The entry point with arguments: exit status, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["bayesmeta", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def command(bayesmeta: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """The same in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return bayesmeta


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
