"""`bayesmeta demo` ends with what to type next, as the first steps have it."""

from pathlib import Path

import pytest

from docs.tools.readme import joined, sessions
from tests.cli.conftest import Run


def test_the_demo_ends_with_commands_of_the_first_steps(
    bayesmeta: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("bayesmeta.demo.run", lambda folder, steps: print(f"{steps} steps"))
    monkeypatch.setattr("shutil.which", lambda name: None)
    code, out, _ = bayesmeta("demo", "-o", tmp_path / "demo", "--steps", "3")
    lines = out.splitlines()
    assert (code, lines[0]) == (0, "3 steps")
    assert lines[-5].startswith("Next, a table")
    assert [line.removeprefix("  ") for line in lines[-4:]] == [joined(command) for command, _ in sessions()][:4]
