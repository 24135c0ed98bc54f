"""Commands that pages show with what they print: run as they are written, in an empty folder, page by page.

python -m docs.tools.readme             # write their output below them, and the figure of one into docs/figures
python -P docs/tools/readme.py --try    # only run those of the first steps, and show what they print

The README has some of the commands of the first steps, without what they print.
"""

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
README = ROOT / "README.md"
FIRST_STEPS = ROOT / "docs" / "start" / "first_steps.md"
FROM_LME4 = ROOT / "docs" / "start" / "from_lme4.md"
PAGES = (FIRST_STEPS, FROM_LME4)
FIGURE = "plant-09.svg"
BLOCK = re.compile(r"^```console\n(.*?)^```$", flags=re.M | re.S)
SKETCH = re.compile(r"^```sh\n(.*?)^```$", flags=re.M | re.S)


def sessions(page: Path = FIRST_STEPS) -> list[tuple[str, str]]:
    """The commands of a page's console blocks, each with the output that is shown below it."""
    return [session for block in BLOCK.findall(page.read_text()) for session in _parts(block)]


def _parts(block: str) -> list[tuple[str, str]]:
    parts = (part.partition("\n") for part in re.split(r"^\$ ", block, flags=re.M)[1:])
    return [(command, output) for command, _, output in parts]


def shell_lines(page: Path) -> list[str]:
    """The commands of a page's blocks without output, without what is said behind them."""
    lines = [
        line.partition("#")[0].strip() for block in SKETCH.findall(page.read_text()) for line in block.splitlines()
    ]
    return [line for line in lines if line]


def ran(command: str, folder: Path) -> str:
    """What a command prints, on both streams. Raises CalledProcessError where it fails."""
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(["bash", "-c", command], cwd=folder, text=True, check=True, **both).stdout  # type: ignore[call-overload]


def renewed(page: Path, folder: Path) -> str:
    """A page with what its commands print now.

    Args:
        page: with console blocks.
        folder: an empty one.
    """

    def again(match: re.Match[str]) -> str:
        lines = [f"$ {command}\n{ran(command, folder)}" for command, _ in _parts(match[1])]
        return f"```console\n{''.join(lines)}```"

    return BLOCK.sub(again, page.read_text())


def main() -> None:
    """Bring the pages and the figure up to date."""
    for page in PAGES:
        with tempfile.TemporaryDirectory() as folder:
            page.write_text(renewed(page, Path(folder)))
            figure = Path(folder, FIGURE)
            if figure.exists():
                (ROOT / "docs" / "figures" / FIGURE).write_bytes(figure.read_bytes())


def try_all() -> None:
    """Run the commands of the first steps and show what they print."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for command, _ in sessions():
            print(f"$ {command}\n{ran(command, Path(folder))}", end="", flush=True)
        files = sorted(path.name for path in Path(folder).iterdir())
    print(f"{', '.join(files)} after {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    try_all() if "--try" in sys.argv else main()
