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


def _is_shown(value: object) -> bool:
    return isinstance(value, type) or inspect.isfunction(value)


@pytest.mark.parametrize(("path", "value"), [(path, value) for path, value in PUBLIC if _is_shown(value)])
def test_every_public_class_and_function_has_an_example(path: str, value: object) -> None:
    assert (">>>" in (value.__doc__ or "")) != (path in WITHOUT), path
