"""The commands of the README: run as they are written, in an empty folder, so that what it shows is what they print.

python -m docs.tools.readme             # write their output below them, and the figure into docs/figures
python -P docs/tools/readme.py --try    # only run them, show what they print, and say how long it took
"""

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
README = ROOT / "README.md"
FIGURE = "plant-09.svg"
BLOCK = re.compile(r"^```console\n(.*?)^```$", flags=re.M | re.S)


def sessions() -> list[tuple[str, str]]:
    """The commands of the README's console blocks, each with the output that is shown below it."""
    found = []
    for block in BLOCK.findall(README.read_text()):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output))
    return found


def ran(command: str, folder: Path) -> str:
    """What a command prints, on both streams. Raises CalledProcessError where it fails."""
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(["bash", "-c", command], cwd=folder, text=True, check=True, **both).stdout  # type: ignore[call-overload]


def main() -> None:
    """Bring the README and its figure up to date."""
    with tempfile.TemporaryDirectory() as folder:
        lines = [f"$ {command}\n{ran(command, Path(folder))}" for command, _ in sessions()]
        figure = Path(folder, FIGURE).read_bytes()
    (ROOT / "docs" / "figures" / FIGURE).write_bytes(figure)
    text = "".join(lines)
    README.write_text(BLOCK.sub(lambda _: f"```console\n{text}```", README.read_text()))


def try_all() -> None:
    """Run the commands and show what they print."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for command, _ in sessions():
            print(f"$ {command}\n{ran(command, Path(folder))}", end="", flush=True)
        files = sorted(path.name for path in Path(folder).iterdir())
    print(f"{', '.join(files)} after {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    try_all() if "--try" in sys.argv else main()
