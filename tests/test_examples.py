"""The examples in docstrings run, and say what they say."""

import doctest
import importlib
import pkgutil
import warnings

import pytest
import torch

import bayesmeta

MODULES = sorted(info.name for info in pkgutil.walk_packages(bayesmeta.__path__, "bayesmeta."))


def _examples(name: str) -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = finder.find(importlib.import_module(name))
    return [test for test in found if test.examples]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(str(tmp_path))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=bayesmeta.ConvergenceWarning)  # examples are short
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
        for test in _examples(name):
            torch.manual_seed(0)
            runner.run(test)
    assert runner.failures == 0, f"{runner.failures} examples of {name} fail: run this test with -s"


def test_there_are_examples() -> None:
    assert len(_examples("bayesmeta.heads.head")) == 3
