"""What a page shows as code: run as a reader would run it, page by page, in order, in one folder and one namespace."""

import contextlib
import io
import re
import shlex
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bayesmeta.cli.app import main

BLOCK = re.compile(r"^(?P<indent> *)```(?P<kind>python|console)\n(?P<text>.*?)^ *```$", flags=re.M | re.S)
SLOW = "<!-- slow -->"


@dataclass(frozen=True)
class Block:
    """A block of a page.

    Attributes:
        kind: python, or console: commands behind `$ `, each with what it prints below it.
        text: without the indentation of the list or the tab that it stands in.
    """

    kind: str
    text: str

    @property
    def commands(self) -> list[str]:
        """Those of a console."""
        parts = re.split(r"^\$ ", self.text, flags=re.M)[1:]
        return [re.match(r"(?:.*\\\n)*.*", part)[0] for part in parts]  # type: ignore[index]

    def shown(self, command: str) -> str:
        """What stands below one of the commands."""
        return self.text.partition(f"$ {command}\n")[2].partition("\n$ ")[0].rstrip("\n") + "\n"


def blocks(page: Path) -> list[Block]:
    """Those of a page that run, in order."""
    return [Block(m["kind"], textwrap.dedent(m["text"])) for m in BLOCK.finditer(page.read_text())]


def printed(command: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, int]:
    """What a command prints on both streams, and its status; those of bayesmeta run in this process."""
    if not command.startswith("bayesmeta ") or re.search(r"[|><;&]", command):
        done = subprocess.run(["bash", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return done.stdout, done.returncode
    monkeypatch.setattr("sys.argv", shlex.split(command.replace("\\\n", " ")))
    both, status = io.StringIO(), 0
    with contextlib.redirect_stdout(both), contextlib.redirect_stderr(both):
        try:
            main()
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
    return both.getvalue(), status


def run(page: Path, monkeypatch: pytest.MonkeyPatch, agree: Callable[[str, str, str], None] | None = None) -> None:
    """Run all blocks of a page in the present folder.

    Args:
        page: the README or a page of docs.
        monkeypatch: of the test.
        agree: what is asserted of a command, what it prints, and what the page shows below it.
    """
    namespace: dict[str, object] = {"__name__": "__main__"}
    for number, block in enumerate(blocks(page), 1):
        if block.kind == "python":
            exec(compile(block.text, f"{page.name}, block {number}", "exec"), namespace)
            continue
        for command in block.commands:
            shown, status = printed(command, monkeypatch)
            assert status == 0, f"{page.name}, block {number}: {command}\n{shown}"
            if agree is not None:
                agree(command, shown, block.shown(command))


def pages(root: Path) -> Iterator[Path]:
    """The README and all pages of docs."""
    yield root / "README.md"
    yield from sorted((root / "docs").rglob("*.md"))
