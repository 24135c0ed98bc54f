"""The sections of docstrings are what the pages of the API can show: an error, or a warning, to an entry."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "bayesmeta").rglob("*.py"))
NAME = r"[A-Z]\w*(?:Error|Warning|Interrupt|Exception)"
OWN_NAMES = {"Exception", "Stopped", "StopIteration"}


def faults(docstring: str) -> list[str]:
    """Entries of `Raises:` and `Warns:` that name several errors, or none.

    The page makes a row of an entry, `Name: when`. What follows the first name, be it another, stands in its text.
    """
    found = []
    for section in re.findall(r"^(?:Raises|Warns):\n((?: {4}.*(?:\n|$))+)", docstring, flags=re.M):
        for entry in re.split(r"\n(?= {4}\S)", section.rstrip()):
            name, _, text = " ".join(entry.split()).partition(": ")
            alone = re.fullmatch(NAME, name) or name in OWN_NAMES
            if not alone or not text or re.search(rf"\b{NAME}(?:, {NAME})*(?: \([^)]*\))?: |\b{NAME}, too: ", text):
                found.append(f"{name}: {text}")
    return found


def test_an_error_has_an_entry_of_its_own() -> None:
    found = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                found += [f"{path}, {node.name}: {fault}" for fault in faults(ast.get_docstring(node) or "")]
    assert found == []


@pytest.mark.parametrize(
    "entry",
    [
        "DataError: no tasks. ShapeError: other shapes.",
        "DataError: no tasks,\n        or too many. ShapeError: other shapes.",
        "DataError, ShapeError: as elsewhere.",
        "InferenceError (when solved): it does not converge.",
        "when there are no tasks.",
    ],
)
def test_entries_that_say_less_on_the_page_are_found(entry: str) -> None:
    assert len(faults(f"Does it.\n\nRaises:\n    {entry}\n\nExample:\n    None.")) == 1


def test_entries_that_are_as_they_should_be() -> None:
    text = "Does it.\n\nRaises:\n    DataError: no tasks; the\n        error's `task` is None.\n    ShapeError: others."
    assert faults(text) == []
