"""A file imports only from its own layer or a lower one (docs/design.md, section 2), and a learner never a sibling."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "bayesmeta"
LAYERS = [
    ("foundations", ["errors", "typing", "torch_private", "description"]),
    ("data", ["outcomes", "snapshot", "data", "linalg", "distributions", "swapped"]),
    ("parts", ["noise", "predictives", "networks", "hyperpriors", "kernels", "priors", "likelihoods"]),
    ("inference", ["inference"]),
    ("learner", ["learner"]),
    ("heads and tasks", ["heads", "tasks"]),
    ("evaluation", ["evaluation"]),
    ("learners", ["wrappers", "learners"]),
    ("training and trust", ["training", "checks", "calibration"]),
    ("people", ["recipes", "frames"]),
    ("bridges", ["interop", "cli", "plotting", "reporting", "demo"]),
]
SHARED = {"base", "posteriors", "hypergradient"}  # of a family: no methods, but what methods are made of
HEAVY = {"pyro", "arviz", "botorch", "sklearn", "matplotlib", "typer", "gpytorch"}
FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def _level(module: str) -> int:
    for level, (_, names) in enumerate(LAYERS):
        if module in names:
            return level
    raise AssertionError(f"bayesmeta.{module} is in no layer")


def _imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            found += [f"bayesmeta.{a.name}" for a in node.names] if node.module == "bayesmeta" else [node.module]
    return found


def _name(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path: Path) -> None:
    own = _level(_name(path))
    for module in _imports(path):
        if module.startswith("bayesmeta."):
            assert _level(module.split(".")[1]) <= own, f"{path} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_learner_imports_no_sibling(path: Path) -> None:
    if _name(path) == "learners":
        family = path.parent.name
        for module in _imports(path):
            if module.startswith("bayesmeta.learners"):
                stem = module.removeprefix(f"bayesmeta.learners.{family}.")
                assert stem.startswith("_") or stem in SHARED, f"{path} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_packages_stay_in_the_top_layer(path: Path) -> None:
    heavy = {module.split(".")[0] for module in _imports(path)} & HEAVY
    allowed = _level(_name(path)) == len(LAYERS) - 1 or path.name == "kernels.py"
    assert allowed or not heavy, f"{path} imports {heavy}"


def test_the_rule_itself_can_fail() -> None:
    assert _level("learners") > _level("data")
    assert "bayesmeta.data" in _imports(ROOT / "learner.py")
