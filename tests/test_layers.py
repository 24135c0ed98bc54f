"""A file imports only from its own layer or a lower one (docs/design.md, section 2), and a learner never a sibling."""

import ast
import inspect
import re
from pathlib import Path

import pytest

import bayesmeta

ROOT = Path(__file__).parent.parent / "bayesmeta"
LAYERS = [
    (
        "foundations",
        [
            *("errors", "typing", "version", "torch_private", "annotations", "arguments", "description", "one_line"),
            *("modes", "rounding", "task_names", "outputs", "devices", "frame_kinds"),
        ],
    ),
    (
        "data",
        [
            *("outcomes", "snapshot", "data", "flat", "linalg", "swapped", "smoothed_student_t", "left_censored"),
            "count_distributions",
            *("multivariate_student_t", "inverse_gamma", "distributions"),
        ],
    ),
    (
        "parts",
        [
            *("noise", "predictives", "networks", "positive_numbers", "hyperpriors", "kernels", "priors"),
            *("likelihoods", "parametric", "summaries"),
        ],
    ),
    ("inference", ["inference"]),
    ("learner", ["learner"]),
    ("heads and tasks", ["heads", "tasks"]),
    ("evaluation", ["evaluation"]),
    ("learners", ["wrappers", "learners"]),
    ("training and trust", ["training", "checks", "calibration"]),
    (
        "people",
        [
            *("recipes", "trainers", "default_stack", "selection", "frames", "csv_text", "table_files", "table_cells"),
            *("table_account", "unlike_tasks", "standing", "corrections", "conformal_frames", "separate_outcomes"),
            "streaming",
        ],
    ),
    ("bridges", ["interop", "sklearn", "cli", "plotting", "reporting", "demo"]),
]
HEAVY = {"pyro", "arviz", "ax", "botorch", "sklearn", "skpro", "matplotlib", "typer", "gpytorch"}
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


def _module(path: Path) -> str:
    return ".".join(("bayesmeta", *path.relative_to(ROOT).with_suffix("").parts))


def _is_method(path: Path) -> bool:
    classes = [node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]
    found = [getattr(bayesmeta, name) for name in classes if name in bayesmeta.__all__]
    return _name(path) == "learners" and any(
        issubclass(each, bayesmeta.Learner) and not inspect.isabstract(each) for each in found
    )


METHODS = {path for path in FILES if _is_method(path)}
"""Files of learners that users name; the others of a family are what its methods share."""


@pytest.mark.parametrize("path", sorted(path for path in FILES if _name(path) == "learners"), ids=_module)
def test_a_learner_imports_no_other_method(path: Path) -> None:
    methods = {_module(method) for method in METHODS}
    assert len(methods) > 10
    for module in _imports(path):
        if module.startswith("bayesmeta.learners") and path.name != "__init__.py":
            own = module.split(".")[2] == path.parent.name
            # a baseline is a family's inference with theta trained otherwise
            assert own or path.parent.name == "baselines", f"{path} imports another family: {module}"
            assert module not in methods, f"{path} imports the method {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_packages_stay_in_the_top_layer(path: Path) -> None:
    heavy = {module.split(".")[0] for module in _imports(path)} & HEAVY
    allowed = _level(_name(path)) == len(LAYERS) - 1 or path.parent.name == "kernels"
    assert allowed or not heavy, f"{path} imports {heavy}"


def _private_uses() -> list[str]:
    """Attributes and imports with one leading underscore that the user's own file does not define."""
    trees = {path: ast.parse(path.read_text()) for path in ROOT.rglob("*.py")}
    defined: dict[Path, set[str]] = {}
    for path, tree in trees.items():
        names = defined.setdefault(path, set())
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                names.add(node.attr)
    found = []
    for path, tree in trees.items():
        for node in ast.walk(tree):
            used = [node.attr] if isinstance(node, ast.Attribute) else []
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("bayesmeta"):
                folder = ROOT.parent.joinpath(*node.module.split(".")).parent
                parts = node.module.split(".")[1:]
                used += [name for name in (*parts, *(a.name for a in node.names)) if folder != path.parent]
            for name in used:
                is_private = name.startswith("_") and not name.endswith("__") and name not in NAMED_TUPLE
                if is_private and name not in defined[path] and path.name != "torch_private.py":
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno} {name}")
    return found


NAMED_TUPLE = {"_replace", "_asdict", "_fields"}  # private by name alone


def test_no_private_member_is_used_outside_its_file() -> None:
    assert _private_uses() == []


def _circles() -> list[list[str]]:
    """Files that import each other, also where only for types or inside of a function."""
    modules = {_module(path): path for path in FILES if path.name != "__init__.py"}
    after = {
        name: sorted({found for found in _imports(path) if found in modules and found != name})
        for name, path in modules.items()
    }
    done: set[str] = set()
    circles: list[list[str]] = []

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            circles.append(path[path.index(name) :])
        elif name not in done:
            for following in after[name]:
                visit(following, [*path, name])
            done.add(name)

    for name in modules:
        visit(name, [])
    return circles


def test_no_circle_of_imports() -> None:
    assert _circles() == []


def test_the_design_names_every_file() -> None:
    design = (ROOT.parent / "docs" / "design.md").read_text()
    start = design.index("**The rooms, lower floors first.**")
    words = set(re.findall(r"\w+", design[start : design.index("**The root is small**")]))
    files = {path.stem for path in FILES if path.stem != "__init__"}
    assert sorted(files - words) == []


def test_the_rule_itself_can_fail() -> None:
    assert _level("learners") > _level("data")
    assert "bayesmeta.data" in _imports(ROOT / "learner.py")
