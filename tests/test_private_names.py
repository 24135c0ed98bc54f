"""What is private elsewhere is used in `bayesmeta/torch_private.py` alone, so that a new torch can break one file only.

Private is a name with one leading underscore that the library does not define, or that torch has for itself. Names in
strings (`getattr(module, "_buffers")`) are not seen.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributions import Distribution

ROOT = Path(__file__).parent.parent / "bayesmeta"
FILES = sorted(ROOT.rglob("*.py"))
NAMED_TUPLE = {"_replace", "_asdict", "_fields"}  # private by name alone
ASKED_FOR = {"interop/botorch/posteriors.py": {"_extended_shape"}}  # BoTorch asks a posterior of anyone's for it
TORCHS = {name for kind in (nn.Module(), torch.Tensor, Distribution) for name in dir(kind)}  # what ours may inherit


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _defined(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Names of functions, classes, fields and variables, and of attributes that an object gives itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            yield node.attr, node.lineno


def _used(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Names of attributes, and parts of what is imported from others."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr, node.lineno
        elif isinstance(node, ast.Import):
            yield from ((part, node.lineno) for alias in node.names for part in alias.name.split("."))
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] != "bayesmeta":
            parts = [*node.module.split("."), *(alias.name for alias in node.names)]
            yield from ((part, node.lineno) for part in parts)


OWN = {name for path in FILES for name, _ in _defined(ast.parse(path.read_text())) if _is_private(name)} - TORCHS


def _foreign(source: str) -> list[str]:
    """Lines with private names of others."""
    tree = ast.parse(source)
    defined = [(name, line) for name, line in _defined(tree) if name in TORCHS]  # would hide or override torch's
    found = {(line, name) for name, line in [*_used(tree), *defined] if _is_private(name)}
    return [f"line {line}: {name}" for line, name in sorted(found) if name not in OWN | NAMED_TUPLE]


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.name != "torch_private.py"], ids=lambda p: str(p.relative_to(ROOT))
)
def test_no_private_name_of_others(path: Path) -> None:
    asked = ASKED_FOR.get(str(path.relative_to(ROOT)), set())
    found = [line for line in _foreign(path.read_text()) if line.split()[-1] not in asked]
    assert not found, f"expected these in torch_private.py, behind public names, got them in {path}: {found}"


def test_the_one_file_holds_some() -> None:
    found = _foreign((ROOT / "torch_private.py").read_text())
    assert {line.split()[-1] for line in found} > {"_NormBase", "_inductor", "_apply", "_buffers"}


@pytest.mark.parametrize(
    "line",
    [
        "module._buffers",
        "torch.compiler._is_compiling_flag = True",
        "from torch import _inductor",
        "import torch._inductor",
        "from torch._subclasses import FakeTensorMode",
        "from torch.nn.modules.batchnorm import _NormBase",
        "import torch._C as backend",
        "class A(nn.Module):\n    def _apply(self, fn): ...",
        "class A:\n    def __init__(self):\n        self._parameters = []",
    ],
)
def test_the_rule_itself_can_fail(line: str) -> None:
    assert _foreign(line)


def test_what_the_library_defines_is_its_own() -> None:
    source = "from bayesmeta.learners._base import _a\nlearner._theta()\nspec._replace(x=1)\nx.__len__()"
    assert _foreign(source) == []
