"""What is said on standard error."""

import warnings

import pytest

import bayesmeta as bm
from bayesmeta.cli.speaking import show_warning


def test_deprecations_of_other_packages_are_not_for_users(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = show_warning
        warnings.warn("a function of another package is deprecated", DeprecationWarning, stacklevel=1)
        warnings.warn("it will be another one", FutureWarning, stacklevel=1)
        warnings.warn("the search has not arrived", bm.ConvergenceWarning, stacklevel=1)
    assert capsys.readouterr().err == "warning: the search has not arrived\n"
