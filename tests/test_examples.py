"""The examples in docstrings run, and say what they show: every module's, as a reader would run them."""

import ast
import doctest
import importlib
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "bayesmeta").rglob("*.py"))
    if ">>> " in path.read_text()
]
MOST_SECONDS = 20.0  # an example takes two at most; machines are shared, and shape checks are on


def _docstrings_with_examples(path: Path) -> int:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, documented)]
    return sum(">>> " in (ast.get_docstring(node) or "") for node in nodes)


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    module = importlib.import_module(name)
    tests = [test for test in doctest.DocTestFinder(exclude_empty=True).find(module) if test.examples]
    written = _docstrings_with_examples(Path(str(module.__file__)))
    assert len(tests) == written, f"expected the {written} examples of {name} to be found, got {len(tests)}"
    for test in tests:
        start = time.monotonic()
        failed, _ = doctest.DocTestRunner(verbose=False).run(test)
        assert not failed, f"{test.name}: see the captured output"
        assert time.monotonic() - start < MOST_SECONDS, test.name


def test_a_wrong_example_fails() -> None:
    wrong = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, None)
    assert doctest.DocTestRunner(verbose=False).run(wrong, out=lambda text: None).failed == 1
