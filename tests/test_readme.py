"""The README's commands, as they are written and in their order: they run, and print what is shown below them."""

import contextlib
import io
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from bayesmeta.cli.app import main
from docs.tools.readme import FIGURE, README, sessions

NUMBER = re.compile(r"[+-]?\d*\.?\d+(?:e[+-]?\d+)?")


def printed(command: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a command prints on both streams; those of bayesmeta run in this process."""
    if not command.startswith("bayesmeta "):
        return subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True).stdout
    monkeypatch.setattr("sys.argv", shlex.split(command))
    both = io.StringIO()
    with contextlib.redirect_stdout(both), contextlib.redirect_stderr(both), contextlib.suppress(SystemExit):
        main()
    return both.getvalue()


def test_the_commands_print_what_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    commands = [command for command, _ in sessions()]
    assert sum(command.startswith("bayesmeta ") for command in commands) == 5
    for command, shown in sessions():
        found = printed(command, monkeypatch)
        assert NUMBER.sub("#", found) == NUMBER.sub("#", shown), command
        values = [[float(number) for number in NUMBER.findall(text)] for text in (found, shown)]
        # other versions of torch and other processors round otherwise, which a search with a line search makes larger
        assert values[0] == pytest.approx(values[1], rel=0.02, abs=0.02), command
    assert (tmp_path / FIGURE).stat().st_size > 10_000


def test_the_figure_is_there() -> None:
    (figure,) = re.findall(r"\]\((docs/figures/\S+)\)", README.read_text())
    assert Path(figure).name == FIGURE
    assert (README.parent / figure).read_text().startswith("<?xml")
