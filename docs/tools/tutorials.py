"""Tutorials: Python files in cells, from which come a page with what they printed and drew, and a notebook.

python -m docs.tools.tutorials NAME ...    # run them, and record what they print and draw in docs/tutorials/outputs
python -m docs.tools.tutorials             # all whose record is older than their source

A cell begins at a line `# %%` (code) or `# %% [markdown]` (text, behind `# `). Below a cell of code its page shows what
it prints, the value of its last line (where it draws, only a table), and its figures; `# alt: words` on its first line
says what they show. `STEPS = 500  # smoke: 5` is 500 here and 5 in tests. Building the site runs nothing.
"""

import ast
import contextlib
import hashlib
import html
import io
import json
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from docs.tools import svg_figures

FOLDER = Path(__file__).parent.parent / "tutorials"
OUTPUTS = FOLDER / "outputs"
NAVIGATION = FOLDER.parent.parent / "mkdocs.yml"
PACKAGES = ("torch", "numpy", "pandas")


class TutorialError(Exception):
    """A tutorial that cannot be run or shown."""


@dataclass
class Cell:
    """A cell of a tutorial.

    Attributes:
        kind: markdown or code.
        text: without its marks.
        alt: what its figures show, in words.
        outputs: pairs of a kind (text, html, svg) and the content.
    """

    kind: str
    text: str
    alt: str = ""
    outputs: list[tuple[str, str]] = field(default_factory=list)


def names() -> list[str]:
    """Those of all tutorials."""
    return sorted(path.stem for path in FOLDER.glob("*.py"))


def source_of(name: str) -> str:
    """The text of a tutorial."""
    return (FOLDER / f"{name}.py").read_text()


def cells(source: str) -> Iterator[Cell]:
    """The cells of a source."""
    for part in re.split(r"^# %%", source, flags=re.M)[1:]:
        head, _, body = part.partition("\n")
        if "[markdown]" in head:
            yield Cell("markdown", re.sub(r"^# ?", "", body, flags=re.M).strip())
        else:
            alt = re.match(r"\s*# alt: (.*)\n", body)
            yield Cell("code", re.sub(r"\A\s*# alt: .*\n", "", body).strip(), alt[1] if alt else "")


def smoke(source: str) -> str:
    """The source with the small numbers that are given for tests."""
    return re.sub(r"^(\w+ = ).*?  # smoke: (.*)$", r"\1\2", source, flags=re.M)


def plain(source: str) -> str:
    """The source without what is said to tests."""
    return re.sub(r"^(\w+ = .*?)  # smoke: .*$", r"\1", source, flags=re.M)


def run(cell: Cell, scope: dict[str, Any], where: str) -> None:
    """Run a cell of code in a namespace, and keep what it prints and draws.

    Raises:
        TutorialError: it draws, and does not say what is seen.
    """
    import matplotlib.pyplot as plt

    tree = ast.parse(cell.text, where)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, where, "exec"), scope)
        value = None if last is None else eval(compile(ast.Expression(last.value), where, "eval"), scope)
    if printed.getvalue():
        cell.outputs.append(("text", printed.getvalue()))
    if value is not None and not cell.text.endswith(";"):
        if (table := getattr(value, "_repr_html_", None)) is not None:
            cell.outputs.append(("html", _bare(table())))
        elif not plt.get_fignums():  # where a figure is drawn, the last line gives a part of it, such as its legend
            cell.outputs.append(("text", repr(value)))
    for number in plt.get_fignums():
        if not cell.alt:
            raise TutorialError(f"{where}: a figure without `# alt: words`")
        cell.outputs.append(("svg", svg_figures.svg(plt.figure(number))))
    plt.close("all")


def _bare(table: str) -> str:
    """A table without styles of its own."""
    return re.sub(r"<style.*?</style>", "", table.replace(' border="1"', ""), flags=re.S)


def run_all(source: str, name: str) -> list[Cell]:
    """Run a tutorial in this process and in this folder.

    Raises:
        TutorialError: a cell fails; it says which.
    """
    scope: dict[str, Any] = {"__name__": "__main__"}
    parts = list(cells(source))
    for number, cell in enumerate(parts, 1):
        if cell.kind == "code":
            try:
                run(cell, scope, f"{name}.py, cell {number}")
            except TutorialError:
                raise
            except Exception as error:
                what = f"{type(error).__name__}: {error}"
                raise TutorialError(f"{name}.py, cell {number}: {what}\n{cell.text}") from error
    return parts


def signature(source: str) -> str:
    """What a record says of the code that it is of; words may change without another run."""
    code = "\n".join(cell.text for cell in cells(plain(source)) if cell.kind == "code")
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def record(name: str) -> None:
    """Run a tutorial, and write what it printed and drew, how long it took, and on what."""
    import matplotlib as mpl

    mpl.use("Agg")
    source, before, cpu_before = source_of(name), time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        parts = run_all(plain(source), name)
    made = {
        "source": signature(source),
        "date": date.today().isoformat(),
        "seconds": round(time.perf_counter() - before, 1),
        "cpu_seconds": round(time.process_time() - cpu_before, 1),  # what other programs on the machine do not change
        "memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread"
        if os.environ.get("OMP_NUM_THREADS") == "1"
        else f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version()} | {package: version(package) for package in PACKAGES},
        "outputs": [cell.outputs for cell in parts if cell.kind == "code"],
    }
    OUTPUTS.mkdir(exist_ok=True)
    (OUTPUTS / f"{name}.json").write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n")
    print(f"{name}: {made['cpu_seconds']} s of a processor, {made['seconds']} s in all, {made['memory_mib']} MiB")


def recorded(name: str) -> dict[str, Any]:
    """What was recorded of a tutorial; empty if nothing was."""
    path = OUTPUTS / f"{name}.json"
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def is_recorded(name: str) -> bool:
    """Whether the record is one of the tutorial as it is."""
    return bool(recorded(name).get("source") == signature(source_of(name)))


def shown_cells(name: str) -> list[Cell]:
    """The cells of a tutorial with their recorded outputs.

    Raises:
        TutorialError: what was recorded is of another source.
    """
    parts = list(cells(plain(source_of(name))))
    if not is_recorded(name):
        raise TutorialError(f"{name}.py has changed since it was run: python -m docs.tools.tutorials {name}")
    code = [cell for cell in parts if cell.kind == "code"]
    for cell, outputs in zip(code, recorded(name)["outputs"], strict=True):
        cell.outputs = [(kind, content) for kind, content in outputs]
    return parts


def page(name: str) -> str:
    """The Markdown of a tutorial's page."""
    out = []
    for number, cell in enumerate(shown_cells(name), 1):
        if cell.kind == "markdown":
            title, _, rest = cell.text.partition("\n")
            out.append(f"{title}\n\n{_facts(name)}\n\n{rest.strip()}" if number == 1 else cell.text)
            continue
        out.append(f"```python\n{cell.text}\n```")
        for place, (kind, content) in enumerate(cell.outputs):
            if kind == "text":
                out.append(f"```{{ .text .output .no-copy data-search-exclude }}\n{content.rstrip()}\n```")
            elif kind == "html":
                out.append(f'<div class="output" data-search-exclude>{re.sub(chr(10) + "+", chr(10), content)}</div>')
            else:
                out.append(_one_line(svg_figures.shown(content, f"{name}-{number}-{place}", cell.alt)))
    return "\n\n".join(out) + "\n"


def _facts(name: str) -> str:
    made = recorded(name)
    versions = ", ".join(f"{package} {number}" for package, number in made["versions"].items())
    cpu = made.get("cpu_seconds")
    seconds = f"{made['seconds']:.0f} seconds" if cpu is None else f"{cpu:.0f} seconds of a processor"
    return (
        f"[Download as a notebook]({name}.ipynb){{ .md-button download }}\n\n"
        f"It took {seconds} and {made['memory_mib']} MiB of memory "
        f"({made['machine']}; {versions}; {made['date']}).\n{{ .facts }}"
    )


def _one_line(drawing: str) -> str:
    return re.sub(r"\s*\n\s*", " ", drawing)


def notebook(name: str) -> str:
    """The tutorial as a notebook that has not been run."""
    made = []
    for number, cell in enumerate(cells(plain(source_of(name)))):
        base: dict[str, Any] = {"cell_type": cell.kind, "id": f"cell-{number}", "metadata": {}}
        base["source"] = cell.text.splitlines(keepends=True)
        made.append(base | ({"execution_count": None, "outputs": []} if cell.kind == "code" else {}))
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return json.dumps({"cells": made, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}, indent=1) + "\n"


def gallery() -> str:
    """A card for each tutorial, in the order of the navigation: its first figure, its title, its first sentence."""
    made = []
    order = re.findall(r"tutorials/(\w+)\.md", NAVIGATION.read_text())
    for name in sorted(names(), key=lambda each: order.index(each) if each in order else len(order)):
        parts = shown_cells(name)
        title, _, rest = parts[0].text.partition("\n")
        first = re.split(r"(?<=[.?!])\s", " ".join(rest.split()))[0]
        drawings = [(cell.alt, content) for cell in parts for kind, content in cell.outputs if kind == "svg"]
        picture = _one_line(svg_figures.shown(drawings[0][1], f"card-{name}", drawings[0][0])) if drawings else ""
        made.append(
            f'<a class="card" href="{name}/">{picture}<strong>{html.escape(title.lstrip("# "))}</strong>'
            f"<span>{html.escape(first)}</span></a>"
        )
    return f'<div class="gallery">{"".join(made)}</div>'


def main(wanted: list[str]) -> None:
    """Record the tutorials of these names, or all that changed, each in a process of its own."""
    for name in wanted or [name for name in names() if not is_recorded(name)]:
        if wanted == [name]:
            record(name)
        else:
            subprocess.run([sys.executable, "-m", "docs.tools.tutorials", name], check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
