"""scikit-learn's estimators: its own checks, and that the task of a row is known wherever scikit-learn hands it on."""

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import GridSearchCV, GroupKFold, HalvingGridSearchCV, KFold, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import bayesmeta as bm
from bayesmeta.predictives.covariances import covariance_of_points
from bayesmeta.sklearn import MetaClassifier, MetaRegressor, mean_log_density

pytestmark = pytest.mark.filterwarnings("ignore::bayesmeta.ConvergenceWarning")  # a few steps are not meant to arrive
LINEAR = MetaRegressor("alpaca-linear", task="who", steps=8)


@parametrize_with_checks([MetaRegressor("alpaca-linear", steps=5), MetaClassifier("r2d2", steps=2)])
def test_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    check(estimator)


def _table(tasks: int = 8, points: int = 5, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Lines whose levels differ much more than they are noisy."""
    random = np.random.default_rng(seed)
    who, t = np.repeat(np.arange(tasks), points), np.tile(np.arange(points, dtype=float), tasks)
    y = 10.0 * random.normal(size=tasks)[who] + 2.0 * t + 0.1 * random.normal(size=len(t))
    return pd.DataFrame({"who": [f"s{each}" for each in who], "t": t}), y


def _rows(who: list[Any], t: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"who": who, "t": t})


def test_it_predicts_as_predict_frame_does() -> None:
    X, y = _table()
    model = clone(LINEAR).fit(X, y)
    query = _rows(["s0", "new", "s3"], [9.0, 9.0, 9.0])
    mean, sd = model.predict(query, return_std=True)
    expected = bm.predict_frame(model.learner_, model.schema_, context=X.assign(y=y), query=query)
    np.testing.assert_allclose(mean, expected["mean"], rtol=1e-10)
    np.testing.assert_allclose(sd, expected["sd"], rtol=1e-10)
    lower, upper = model.predict_interval(query, 0.9)
    np.testing.assert_allclose(np.stack([lower, upper]), expected[["lower", "upper"]].to_numpy().T, rtol=1e-8)
    assert sd[1] > 10.0 * sd[0]


def test_rows_without_a_task_are_predicted_from_the_prior() -> None:
    X, y = _table()
    model = clone(LINEAR).fit(X, y)
    mean, sd = model.predict(_rows(["new", None, np.nan, " "], [3.0] * 4), return_std=True)
    prior = model.learner_.adapt(bm.Data.from_arrays(np.zeros((0, 1)), np.zeros(0))).predict([3.0])
    np.testing.assert_allclose(mean, prior.mean.item(), rtol=1e-10)
    np.testing.assert_allclose(sd, prior.stddev.item(), rtol=1e-10)


def test_partial_fit_updates_posteriors_and_leaves_theta() -> None:
    X, y = _table()
    model = clone(LINEAR).fit(X, y)
    theta = {name: value.clone() for name, value in model.learner_.state_dict().items()}
    more, values = _rows(["new", "s1", "new"], [0.0, 5.0, 1.0]), np.array([3.0, 7.0, 5.0])
    model.partial_fit(more, values)
    assert all(torch.equal(value, theta[name]) for name, value in model.learner_.state_dict().items())
    posterior = model.learner_.adapt(bm.Data.from_arrays([0.0, 1.0], [3.0, 5.0]))
    np.testing.assert_allclose(model.predict(_rows(["new"], [4.0])), posterior.predict([4.0]).mean.item(), rtol=1e-10)
    assert model.tasks_.task("s1").counts.item() == 6
    known = model.tasks_.task("s1")
    updated = model.learner_.adapt(known.points(slice(5))).update(known.points(slice(5, 6)))
    np.testing.assert_allclose(model.predict(_rows(["s1"], [4.0])), updated.predict([4.0]).mean.item(), rtol=1e-8)


@pytest.mark.parametrize("method", ["alpaca-linear", "maml"])
def test_covariance_and_draws_agree(method: str) -> None:
    X, y = _table(4)
    model = MetaRegressor(method, task="who", steps=3).fit(X, y)
    query = _rows(["s0", "new", "s0", None, "new"], [6.0, 6.0, 7.0, 6.0, 7.0])
    mean, sd = model.predict(query, return_std=True)
    again, covariance = model.predict(query, return_cov=True)
    np.testing.assert_allclose(again, mean, rtol=1e-8)
    np.testing.assert_allclose(np.sqrt(np.diag(covariance)), sd, rtol=1e-8)
    assert covariance[0, 1] == covariance[1, 3] == 0.0
    assert covariance[1, 4] > 0.0
    draws = model.sample_y(query, 4000, random_state=1)
    assert draws.shape == (5, 4000)
    # the standard error of a correlation of 4000 draws is at most .016
    np.testing.assert_allclose(np.corrcoef(draws), covariance / np.outer(sd, sd), atol=0.07)
    np.testing.assert_array_equal(draws, model.sample_y(query, 4000, random_state=1))


def test_several_outcomes() -> None:
    X, y = _table()
    both = pd.DataFrame({"u": y, "v": 3.0 - y + np.sin(X["t"])})
    model = clone(LINEAR).fit(X, both)
    assert model.schema_.y == ("u", "v")
    mean, covariance = model.predict(X, return_cov=True)
    assert mean.shape == (40, 2)
    assert covariance.shape == (40, 40, 2)
    np.testing.assert_allclose(
        np.sqrt(np.diagonal(covariance, axis1=0, axis2=1)).T, model.predict(X, return_std=True)[1], rtol=1e-8
    )
    assert model.sample_y(X, 3).shape == (40, 2, 3)
    assert model.score(X, both) > 0.9


def test_a_mixture_has_a_covariance() -> None:
    gaussian = bm.ALPaCA(bm.Identity(1)).double()
    stacked = bm.wrappers.Stacked({"a": gaussian, "b": bm.ALPaCA(bm.Identity(1)).double()}, {"a": 0.3, "b": 0.7})
    with torch.no_grad():
        stacked.learners[1].prior.location.add_(2.0)
    predictive = stacked.adapt(bm.Data.from_arrays([0.0], [1.0])).predict([1.0, 2.0])
    covariance = covariance_of_points(predictive)
    torch.testing.assert_close(covariance.diagonal(dim1=-2, dim2=-1).mT, predictive.variance)
    draws = predictive.sample((40_000,), torch.Generator().manual_seed(0))[:, 0, :, 0]
    # deviations of an entry over 40,000 draws are below a hundredth of the variances
    torch.testing.assert_close(torch.cov(draws.T), covariance[0, 0], rtol=0.05, atol=0.05)


def test_new_tasks_and_new_points_are_different_questions() -> None:
    X, y = _table()
    new_points = cross_val_score(LINEAR, X, y, cv=KFold(2, shuffle=True, random_state=0))
    new_tasks = cross_val_score(LINEAR, X, y, groups=X["who"], cv=GroupKFold(2))
    assert new_points.min() > 0.99
    assert new_tasks.max() < 0.9


def test_groups_in_place_of_a_column() -> None:
    X, y = _table()
    model = MetaRegressor("alpaca-linear", steps=8).fit(X[["t"]], y, groups=X["who"])
    expected = clone(LINEAR).fit(X, y)
    query = _rows(["s0", "new"], [9.0, 9.0])
    np.testing.assert_allclose(model.predict(query[["t"]], groups=["s0", None]), expected.predict(query), rtol=1e-10)
    unknown = model.predict(query[["t"]])  # nobody says whose they are
    np.testing.assert_allclose(unknown, expected.predict(_rows([None, None], [9.0, 9.0])), rtol=1e-10)
    scores = cross_val_score(
        model, X[["t"]], y, groups=X["who"], params={"groups": X["who"]}, cv=GroupKFold(2), scoring=mean_log_density
    )
    column = cross_val_score(LINEAR, X, y, groups=X["who"], cv=GroupKFold(2), scoring=mean_log_density)
    np.testing.assert_allclose(scores, column, rtol=1e-8)


def test_searches() -> None:
    X, y = _table()
    candidates = {"method": [_level, _linear]}
    search = GridSearchCV(LINEAR, candidates, cv=KFold(2, shuffle=True, random_state=0), scoring=mean_log_density)
    assert search.fit(X, y).best_params_ == {"method": _linear}
    halving = HalvingGridSearchCV(
        MetaRegressor("maml", task="who"),
        {"random_state": [0, 1]},
        resource="steps",
        min_resources=2,
        max_resources=4,
        factor=2,
        cv=GroupKFold(2),
    ).fit(X, y, groups=X["who"])
    assert halving.best_estimator_.steps == 4


def test_pipelines_leave_the_task_alone() -> None:
    X, y = _table()
    scaled = ColumnTransformer([("scale", StandardScaler(), ["t"])], remainder="passthrough")
    by_place = Pipeline([("columns", scaled), ("model", MetaRegressor("alpaca-linear", task=-1, steps=8))]).fit(X, y)
    scaled = clone(scaled).set_params(verbose_feature_names_out=False).set_output(transform="pandas")
    by_name = Pipeline([("columns", scaled), ("model", clone(LINEAR))]).fit(X, y)
    expected = clone(LINEAR).fit(X, y).predict(X)
    np.testing.assert_allclose(by_place.predict(X), expected, rtol=1e-6)  # standardised twice, the fit ends elsewhere
    np.testing.assert_allclose(by_name.predict(X), by_place.predict(X), rtol=1e-8)
    assert mean_log_density(by_name, X, y) == pytest.approx(clone(LINEAR).fit(X, y).log_density(X, y).mean(), rel=1e-6)


def test_arrays_of_numbers_and_of_texts() -> None:
    X, y = _table()
    numbers = np.stack([X["who"].str[1:].astype(float), X["t"]], 1)
    model = MetaRegressor("alpaca-linear", task=0, steps=8)
    expected = clone(LINEAR).fit(X, y).predict(X)
    np.testing.assert_allclose(clone(model).fit(numbers, y).predict(numbers), expected, rtol=1e-8)
    for array in (X.to_numpy(dtype=object), X.to_numpy(dtype=str)):
        np.testing.assert_allclose(clone(model).fit(array, y).predict(array), expected, rtol=1e-8)


def test_categories_and_covariates() -> None:
    X, y = _table()
    arm = np.where(X["who"].isin(["s0", "s1", "s2"]), "drug", "none")
    model = clone(LINEAR).set_params(covariates=["arm"]).fit(X.assign(arm=arm), y)
    assert model.schema_.x_names == ("t", "arm=drug", "arm=none")
    assert model.schema_.num_covariates == 2
    rows = pd.DataFrame({"who": [None, None], "t": [0.0, 0.0], "arm": ["drug", "none"]})  # two tasks that nobody names
    assert model.predict(rows).shape == (2,)


def test_a_fitted_estimator_is_pickled_whole() -> None:
    X, y = _table()
    model = clone(LINEAR).fit(X, y)
    again = pickle.loads(pickle.dumps(model)).partial_fit(_rows(["new"], [0.0]), [1.0])
    np.testing.assert_array_equal(again.predict(X), model.predict(X))


def test_learners_and_functions_that_make_them() -> None:
    X, y = _table()
    learner = bm.Standardized(bm.ALPaCA(bm.Identity(1))).double()
    model = MetaRegressor(learner, task="who", steps=8).fit(X, y)
    assert learner.y_scale.item() == 0.0  # what is given stays untrained
    again = MetaRegressor(model.learner_, task="who", steps=0).fit(X.head(20), y[:20])  # theta as it is, other rows
    np.testing.assert_allclose(again.predict(X.head(20)), model.predict(X.head(20)), rtol=1e-10)
    made = MetaRegressor(_linear, task="who", steps=8).fit(X, y)
    np.testing.assert_allclose(made.predict(X), model.predict(X), rtol=1e-8)


def _linear(num_inputs: int, num_outputs: int) -> bm.Learner:
    return bm.Standardized(bm.ALPaCA(bm.Identity(num_inputs), num_outputs=num_outputs)).double()


def _level(num_inputs: int, num_outputs: int) -> bm.Learner:
    return bm.Standardized(bm.ALPaCA(bm.Polynomial(num_inputs, 0), num_outputs=num_outputs)).double()


def test_counts_and_positive_numbers() -> None:
    X, y = _table()
    counts = np.random.default_rng(0).poisson(np.exp(1.0 + 0.03 * y + 0.2 * X["t"]))
    model = MetaRegressor("glmm-poisson", task="who", steps=20, outcome="count").fit(X, counts)
    assert model.learner_.outcomes == bm.tasks.Counts(1)
    query = _rows(["s0", "new"], [2.0, 2.0])
    mean, sd = model.predict(query, return_std=True)
    lower, upper = model.predict_interval(query, 0.9)
    assert (lower >= 0.0).all()
    assert (lower < upper).all()
    draws = model.sample_y(query, 4000)
    np.testing.assert_array_equal(draws, draws.round())
    np.testing.assert_allclose(draws.mean(1), mean, atol=0.15 * sd.max())  # five standard errors and a heavy tail
    assert np.isfinite(model.log_density(X, counts)).all()
    with pytest.raises(ValueError, match="expected counts"):
        model.partial_fit(X, y)
    positive = MetaRegressor("alpaca-linear", task="who", steps=8, outcome="positive").fit(X, np.exp(0.1 * y))
    of_logs = clone(LINEAR).fit(X, 0.1 * y)
    bounds = zip(positive.predict_interval(query), of_logs.predict_interval(query), strict=True)
    for bound, log_bound in bounds:
        np.testing.assert_allclose(bound, np.exp(log_bound), rtol=1e-6)


def test_classes_of_tasks() -> None:
    X, y = _table()
    labels = np.where(y > np.median(y), "high", "low")
    model = MetaClassifier("r2d2", task="who", steps=5).fit(X, labels)
    assert model.classes_.tolist() == ["high", "low"]
    probs = model.predict_proba(X)
    np.testing.assert_allclose(probs.sum(1), 1.0, rtol=1e-10)
    np.testing.assert_allclose(np.exp(model.predict_log_proba(X)), probs, rtol=1e-10)
    draws = model.sample_y(_rows(["s0"], [0.0]), 2000)
    share = (draws == "high").mean()
    assert abs(share - model.predict_proba(_rows(["s0"], [0.0]))[0, 0]) < 0.05  # four standard errors of 2000 draws
    before = model.predict_proba(_rows(["new"], [2.0]))[0]
    model.partial_fit(_rows(["new"] * 3, [1.0, 2.0, 3.0]), ["high"] * 3)
    assert model.predict_proba(_rows(["new"], [2.0]))[0, 0] > before[0]
    assert cross_val_score(model, X, labels, cv=KFold(2, shuffle=True, random_state=0)).mean() > 0.7


def test_the_first_part_may_lack_a_class() -> None:
    X, y = _table()
    model = MetaClassifier("r2d2", task="who", steps=2)
    model.partial_fit(X, np.where(y > 0.0, "b", "c"), classes=["c", "a", "b"])
    assert model.predict_proba(X).shape == (40, 3)
    with pytest.raises(ValueError, match="expected classes among"):
        model.partial_fit(X, ["d"] * 40)


X, Y = _table()


@pytest.mark.parametrize(
    ("arguments", "rows", "message"),
    [
        ({"task": "nobody"}, {}, "expected task to be a column of X, got 'nobody'"),
        ({"task": 2}, {}, "position 2 of 2 columns"),
        ({"task": True}, {}, "expected task by name or by position"),
        ({"task": "who"}, {"groups": X["who"]}, "a column or by groups"),
        ({"task": "who", "covariates": ["who"]}, {}, "every column in one role"),
        ({"task": "who", "covariates": ["t"]}, {}, "covariate 't' to be constant within a task"),
        ({"task": "who", "method": "linear"}, {}, "expected a method for numbers among"),
        ({"task": "who", "method": 3}, {}, "expected the name of a method, a Learner or a function"),
        ({"task": "who", "method": bm.R2D2(bm.Identity(1), num_classes=2)}, {}, "expected a learner of Numbers"),
        ({"task": "who", "steps": -1}, {}, "expected a whole number steps"),
        ({"task": "who", "outcome": "binary"}, {}, "expected an outcome among"),
        ({"task": "who", "outcome": "count"}, {}, "expected counts .* got .* in row 0"),
        ({}, {"groups": ["a"]}, "expected groups of shape"),
        ({}, {"groups": [None] * 40}, "expected the task of every row, got none in row 0"),
    ],
)
def test_wrong_calls(arguments: dict[str, Any], rows: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MetaRegressor(**{"method": "alpaca-linear"} | arguments).fit(X if "task" in arguments else X[["t"]], Y, **rows)


def test_wrong_questions() -> None:
    model = clone(LINEAR).fit(X, Y)
    with pytest.raises(ValueError, match="at most one of return_std"):
        model.predict(X, return_std=True, return_cov=True)
    with pytest.raises(ValueError, match="expected no groups"):
        model.predict(X, groups=X["who"])
    with pytest.raises(ValueError, match="got none in row 1"):
        model.partial_fit(_rows(["s0", None], [0.0, 0.0]), [0.0, 0.0])
    with pytest.raises(ValueError, match="expected 1 outcomes in each row"):
        model.partial_fit(X, np.stack([Y, Y], 1))
