"""The page of the command line is made from the code, and every command that a page shows is one."""

import re
import shlex
from pathlib import Path

import pytest

from docs.tools import the_command_line
from tests import blocks

ROOT = the_command_line.DOCS.parent
COMMANDS = the_command_line.commands()
FENCED = re.compile(r"^( *)```([a-z]*)[^\n]*\n(.*?)^\1```$", flags=re.M | re.S)
SHOWN = [
    (page, line.strip())
    for page in blocks.pages(ROOT)
    for _, kind, block in FENCED.findall(page.read_text())
    if kind in ("", "sh", "console", "bash")
    for line in block.replace("\\\n", " ").splitlines()
    if re.match(r" *(\$ )?bayesmeta [a-z]", line)
]


def test_the_page_is_up_to_date() -> None:
    found = the_command_line.PAGE.read_text()
    assert found == the_command_line.command_line(), "run python -m docs.tools.the_command_line"
    assert ": reference/command_line.md\n" in (ROOT / "mkdocs.yml").read_text()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained(name: str) -> None:
    for parameter in the_command_line.parameters(COMMANDS[name]):
        assert parameter.help[-1:] in ".?!", parameter.names or parameter.help == ""
        assert parameter.help, f"{name} {parameter.names[0]} has no help"


@pytest.mark.parametrize(("page", "line"), SHOWN, ids=lambda part: str(part)[-60:])
def test_what_is_shown_can_be_called(page: Path, line: str) -> None:
    _, name, *words = shlex.split(line.removeprefix("$ "), comments=True)
    if "[OPTIONS]" in words or name == "COMMAND":
        return
    assert name in COMMANDS, page
    found = the_command_line.parameters(COMMANDS[name])
    options = {option for each in found if each.is_option for option in each.names} | {"--help"}
    assert {word.split("=")[0] for word in words if re.match("--?[a-z]", word)} <= options, line
    if "--config" not in words:
        given = set(words)
        missing = [each.names for each in found if each.is_option and each.is_required and not given & {*each.names}]
        assert missing == [], line


def test_commands_are_shown() -> None:
    assert {shlex.split(line, comments=True)[1] for _, line in SHOWN} >= {"fit", "evaluate", "report", "predict"}
