"""What a wheel holds: all of the package with its types and its table, and nothing else.

python -m docs.tools.wheel dist/bayesmeta-0.1.0-py3-none-any.whl
"""

import sys
import zipfile
from pathlib import Path

PACKAGE = Path(__file__).parent.parent.parent / "bayesmeta"
BESIDE_CODE = {"bayesmeta/py.typed", "bayesmeta/__init__.pyi", "bayesmeta/example_table.csv"}


def faults(names: set[str]) -> list[str]:
    """What is wrong with a wheel of files with these names, in sentences."""
    wanted = {f"bayesmeta/{path.relative_to(PACKAGE).as_posix()}" for path in PACKAGE.rglob("*.py")} | BESIDE_CODE
    package = {name for name in names if not name.split("/")[0].endswith(".dist-info")}
    missing, more = sorted(wanted - package), sorted(package - wanted)
    found = [f"expected {name} in the wheel, got none" for name in missing]
    found += [f"expected files of the package alone, got {name}" for name in more]
    if not any(name.endswith(".dist-info/licenses/LICENSE") for name in names):
        found.append("expected the licence in the wheel, got none")
    return found


if __name__ == "__main__":
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        wrong = faults(set(wheel.namelist()))
        size = sum(each.compress_size for each in wheel.infolist())
    print("\n".join(wrong) or f"{Path(sys.argv[1]).name}: {size / 1e6:.1f} MB, all of the package and nothing else")
    sys.exit(bool(wrong))
