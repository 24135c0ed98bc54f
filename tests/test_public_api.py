"""The public names are kept once: in the stub of the root, and in the `__all__` of each namespace."""

import ast
import importlib
import inspect
import types
from pathlib import Path

import pytest

import bayesmeta as bm

NAMESPACES = sorted(name for name in bm.__all__ if isinstance(getattr(bm, name), types.ModuleType))


def test_the_root_is_small() -> None:
    """Verbs, core types, learners, networks and errors: a new name here is a decision."""
    found = _written(bm)
    assert found == set(bm.__all__) - set(NAMESPACES)
    assert len(found) <= 81  # 79, and two verbs: stream and export


def _written(module: types.ModuleType) -> set[str]:
    """What the stub takes from files, each under its own name."""
    tree = ast.parse(Path(inspect.getsourcefile(module) or "").with_suffix(".pyi").read_text())
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module is not None]
    aliases = [alias for node in imports for alias in node.names]
    assert all(alias.asname == alias.name for alias in aliases)  # what type checkers see as public
    return {alias.name for alias in aliases}


def _public() -> list[tuple[str, object]]:
    names = {f"bayesmeta.{name}": getattr(bm, name) for name in bm.__all__ if name not in NAMESPACES}
    for space in NAMESPACES:
        module = getattr(bm, space)
        listed = getattr(module, "__all__", None) or [
            name
            for name, value in vars(module).items()
            if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
        ]
        names |= {f"bayesmeta.{space}.{name}": getattr(module, name) for name in listed}
    return sorted(names.items())


PUBLIC = _public()


def test_a_name_is_public_in_one_place() -> None:
    places: dict[int, list[str]] = {}
    for path, value in PUBLIC:
        if isinstance(value, type) or inspect.isfunction(value):
            places.setdefault(id(value), []).append(path)
    for paths in places.values():
        assert len(paths) == 1, paths


@pytest.mark.parametrize(("path", "value"), PUBLIC, ids=[path for path, _ in PUBLIC])
def test_every_public_name_says_what_it_is(path: str, value: object) -> None:
    assert (value.__doc__ or "").strip(), path
    assert importlib.import_module(getattr(value, "__module__", "bayesmeta"))


def test_plotting_is_there() -> None:
    assert callable(bm.plotting.predictive_bands)
