"""The examples in docstrings run, and say what they say."""

import doctest
import importlib
import inspect
import pkgutil
import warnings

import pytest
import torch

import bayesmeta
from tests.test_public_api import PUBLIC

OPTIONAL = {"bayesmeta.interop.skpro": "skpro"}  # modules of packages that a development environment may lack
MODULES = sorted(info.name for info in pkgutil.walk_packages(bayesmeta.__path__, "bayesmeta."))


def _examples(name: str) -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = finder.find(importlib.import_module(name))
    return [test for test in found if test.examples]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in OPTIONAL:
        pytest.importorskip(OPTIONAL[name])
    monkeypatch.chdir(str(tmp_path))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=bayesmeta.ConvergenceWarning)  # examples are short
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
        for test in _examples(name):
            torch.manual_seed(0)
            runner.run(test)
    assert runner.failures == 0, f"{runner.failures} examples of {name} fail: run this test with -s"


WITHOUT = {"bayesmeta.tasks.download_omniglot": "it reaches the network"}


PLAIN = {"bayesmeta.Outcomes", "bayesmeta.predictives.LOG_2PI"}  # a union of classes, and a number: nothing to run


def _is_shown(value: object) -> bool:
    return isinstance(value, type) or inspect.isfunction(value)


def _lacks_an_example(path: str, value: object) -> bool:
    """Whether its docstring has no example, or one that is excused from having any."""
    return (">>>" in (value.__doc__ or "")) == (path in WITHOUT)


@pytest.mark.parametrize(("path", "value"), [(path, value) for path, value in PUBLIC if _is_shown(value)])
def test_every_public_class_and_function_has_an_example(path: str, value: object) -> None:
    assert not _lacks_an_example(path, value)


def test_what_is_neither_a_class_nor_a_function_is_known() -> None:
    assert {path for path, value in PUBLIC if not _is_shown(value)} == PLAIN


def test_a_name_without_an_example_is_found() -> None:
    def bare() -> None:
        """Does nothing, and shows nothing."""

    assert _lacks_an_example("bayesmeta.bare", bare)
    assert not _lacks_an_example("bayesmeta.fit", bayesmeta.fit)
    assert not _lacks_an_example("bayesmeta.tasks.download_omniglot", bare)


BRIDGES = ["bayesmeta.interop.botorch", "bayesmeta.interop.pyro", "bayesmeta.interop.arviz", "bayesmeta.sklearn"]


@pytest.mark.parametrize("name", BRIDGES)
def test_every_name_of_a_bridge_has_an_example(name: str) -> None:
    module = importlib.import_module(name)
    own = {key: value for key, value in vars(module).items() if _is_shown(value) and not key.startswith("_")}
    shown = {key: value for key, value in own.items() if value.__module__.startswith(name)}
    assert shown
    assert {key for key, value in shown.items() if _lacks_an_example(f"{name}.{key}", value)} == set()
