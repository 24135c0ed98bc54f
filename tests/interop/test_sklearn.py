"""scikit-learn's estimators: its own checks, and that the task of a row is known wherever scikit-learn hands it on."""

from typing import Any

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

import bayesmeta as bm
from bayesmeta.sklearn import MetaClassifier, MetaRegressor


@parametrize_with_checks([MetaRegressor("alpaca-linear", steps=5), MetaClassifier("r2d2", steps=2)])
@pytest.mark.filterwarnings("ignore::bayesmeta.ConvergenceWarning")  # so few steps are not meant to arrive
def test_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    check(estimator)
