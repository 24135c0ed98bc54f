"""Commands of the README and of the first pages, as they are written and in their order: they print what is shown."""

import re
from pathlib import Path

import pytest

from docs.tools.readme import FIGURE, FIRST_STEPS, PAGES, README, ROOT, sessions, shell_lines
from tests import blocks

NUMBER = re.compile(r"[+-]?\d*\.?\d+(?:e[+-]?\d+)?")


def agree(command: str, found: str, shown: str) -> None:
    """What is printed is what the page shows, but for rounding, seconds, and the lines that these are broken into."""
    found, shown = (" ".join(re.sub(r" in [\d.]+\s+s,", ",", text).split()) for text in (found, shown))
    assert NUMBER.sub("#", found) == NUMBER.sub("#", shown), command
    values = [[float(number) for number in NUMBER.findall(text)] for text in (found, shown)]
    # other versions of torch and other processors round otherwise, which a search with a line search makes larger
    assert values[0] == pytest.approx(values[1], rel=0.02, abs=0.02), command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_print_what_is_shown(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(sessions(page)) >= 4
    blocks.run(page, monkeypatch, agree)
    if page == FIRST_STEPS:
        assert (tmp_path / FIGURE).stat().st_size > 10_000


def test_the_commands_of_the_readme_are_those_of_the_first_steps() -> None:
    commands = [line for line in shell_lines(README) if line.startswith("bayesmeta ")]
    assert len(commands) == 5
    steps = [command for command, _ in sessions()] + shell_lines(FIRST_STEPS)
    assert [command for command in commands if command not in steps] == []
    assert commands == sorted(commands, key=steps.index)


@pytest.mark.slow
def test_the_report_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for command in shell_lines(README):
        if command.split()[1] in ("example-table", "fit", "report"):
            found, status = blocks.printed(command, monkeypatch)
            assert status == 0, found
    assert found.endswith("report written to report.html\n")


def test_the_readme_fits_on_a_screen_and_its_links_lead_somewhere() -> None:
    text = README.read_text()
    assert len(text.splitlines()) <= 65
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", text)
    assert len(targets) > 15
    assert [target for target in targets if not (ROOT / target).exists()] == []
    (figure,) = (target for target in targets if target.endswith(".svg"))
    assert (ROOT / figure).read_text().startswith("<?xml")
