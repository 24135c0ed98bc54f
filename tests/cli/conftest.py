"""What tests of several commands share: the table that comes with the package, and a model of it."""

from collections.abc import Callable
from pathlib import Path

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
    columns = ["--task", "plant", "--x", "day", "--y", "height_mm", "--covariate", "light_umol"]
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
