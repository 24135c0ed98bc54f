"""Outcomes that are classes, from a table and back: which they are, in which order, and what is never guessed."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

import bayesmeta as bm
from bayesmeta.errors import DataError, OutcomeWarning
from bayesmeta.frames import predict_frame
from bayesmeta.tasks import Schema

ODD = ["007", "NA", " a", "ü 3", "3", "nan", "a,b | c"]


def table(cells: list, tasks: int = 3) -> pd.DataFrame:
    """Rows in turn of so many tasks."""
    count = len(cells)
    return pd.DataFrame({"who": np.arange(count) % tasks, "x": np.linspace(-1.0, 1.0, count), "y": cells})


def read(cells: list, **arguments: object) -> bm.TaskDataset:
    return bm.TaskDataset.from_frame(table(cells), task="who", x=["x"], y="y", **arguments)


KINDS = {
    "text": (["no", "yes", "no", "no"], ("no", "yes"), [0, 1, 0, 0]),
    "truths": ([True, False, True, True], ("False", "True"), [1, 0, 1, 1]),
    "nullable truths": (pd.array([True, False, True, True], "boolean"), ("False", "True"), [1, 0, 1, 1]),
    "truths as objects": (pd.Series([True, False, True, True], dtype=object), ("False", "True"), [1, 0, 1, 1]),
    "string dtype": (pd.array(["b", "a", "b", "a"], "string"), ("a", "b"), [1, 0, 1, 0]),
    "categories in their order": (
        pd.Categorical(["mild", "none", "bad", "none"], ["none", "mild", "bad"]),
        ("none", "mild", "bad"),
        [1, 0, 2, 0],
    ),
    "a category that no row has": (
        pd.Categorical(["mild", "none", "mild", "none"], ["none", "mild", "bad"]),
        ("none", "mild", "bad"),
        [1, 0, 1, 0],
    ),
    "categories of numbers": (pd.Categorical([10, 9, 10, 9]), ("9", "10"), [1, 0, 1, 0]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_a_class_by_itself(kind: str) -> None:
    cells, classes, labels = KINDS[kind]
    tasks = read(cells)
    assert tasks.schema is not None
    assert tasks.schema.classes == classes
    assert tasks.schema.outcome_kind == bm.Labels(len(classes))
    assert tasks.flat.y.dtype == torch.int64
    assert tasks.schema.outcomes(table(cells)).tolist() == labels


NUMBERS = {
    "whole numbers": [10, 9, 10, 9, 2],
    "floats": [10.0, 9.0, 10.0, 9.0, 2.0],
    "nullable": pd.array([10, 9, 10, 9, 2], "Int64"),
    "numbers written as text": ["10", "9", "10", "9", "2"],
    "both": pd.Series(["10", 9, 10.0, "9", 2], dtype=object),
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_are_classes_only_when_asked(kind: str) -> None:
    cells = NUMBERS[kind]
    assert read(cells).flat.y.dtype == torch.float64
    asked = read(cells, outcomes=bm.Labels())
    assert asked.schema is not None
    assert asked.schema.classes == ("2", "9", "10")  # by value, whatever the type of the column
    assert asked.schema.outcomes(table(cells)).tolist() == [2, 1, 2, 1, 0]


def test_names_are_compared_by_the_one_rule() -> None:
    schema = read([1, 3, 1, 3], outcomes=bm.Labels(2)).schema
    assert schema is not None
    for cells in ([3, 1], [3.0, 1.0], ["3", "1"], pd.array([3, 1], "Int64"), pd.Categorical(["3", "1"])):
        assert schema.outcomes(table(cells)).tolist() == [1, 0]
    with pytest.raises(DataError, match=r"classes '1', '3', got '3.0' in row 0; perhaps '3' is meant"):
        schema.outcomes(table(["3.0"]))


CODES = {
    "0 and 1": [0, 1, 1, 0],
    "0 and 1 as floats": [0.0, 1.0, 1.0, 0.0, 1.0, None],
    "0 and 1 as text": ["0", "1", "1", "0"],
    "two whole numbers": [1, 2] * 5,
    "three in a row": [0, 1, 2] * 4,
}


@pytest.mark.parametrize("kind", CODES)
def test_codes_are_not_regressed_silently(kind: str) -> None:
    said = r"column 'y' holds .*outcomes=bm.Labels\(2?\) or --outcome (classes|binary)"
    with pytest.warns(OutcomeWarning, match=said):
        tasks = read(CODES[kind])
    assert tasks.flat.y.is_floating_point()
    for outcomes in (bm.Numbers(), bm.Labels()):  # warnings are errors here
        assert read(CODES[kind], outcomes=outcomes).flat.y.is_floating_point() == (outcomes == bm.Numbers())


@pytest.mark.parametrize(
    "cells", [[0.0, 0.5, 1.0], [3, 5, 3], [0, 1, 2, 3] * 5, [0, 2, 4] * 5, [1.5, 2.5] * 8, [2] * 12]
)
def test_other_numbers_are_numbers_without_a_word(cells: list) -> None:
    assert read(cells).flat.y.is_floating_point()


BAD = {
    "one class": (["a", "a", "a"], {}, "at least 2 classes in column 'y', got 'a' alone"),
    "no class": ([None, None, None], {"outcomes": bm.Labels()}, "at least 2 classes in column 'y', got none"),
    "numbers with units": (["3 kg", "4.5 kg", "3 kg"], {}, "got '3 kg' in row 0: write the number alone.*bm.Labels"),
    "decimal commas": (["0,5", "1,5", "1,5"], {}, "got '0,5' in row 0: write a decimal point. If these are classes"),
    "blank": (["a", " ", "b"], {}, "a class in column 'y' in row 1, got ' '"),
    "dates": (["2020-01-31", "2020-02-01", "2020-02-01"], {}, "got a date or time, '2020-01-31'.*--outcome classes"),
    "times": (pd.date_range("2020", periods=3), {"outcomes": bm.Labels()}, "numbers in column 'y', got datetime64"),
    "lists": ([[1], [2], [3]], {"outcomes": bm.Labels()}, r"numbers or text in column 'y', got \[1\] in row 0"),
    "text and numbers": (["a", "3", "b"], {}, r"got 'a' in row 0. If these are classes, say outcomes=bm.Labels\(\)"),
    "nearly as many as rows": ([f"note {i}" for i in range(30)], {}, "got 30 different cells in 30 rows: group them"),
    "of numbers, too": (list(np.arange(30) / 7), {"outcomes": bm.Labels()}, "got 30 different cells in 30 rows"),
    "another count": (["a", "b", "c"], {"outcomes": bm.Labels(2)}, "2 classes in column 'y', got 3: a, b, c"),
    "another count of numbers": ([1.0, 2.5, 3.0], {"outcomes": bm.Numbers(2)}, "2 outcome columns"),
    "text as a number": (["a", "b", "a"], {"outcomes": bm.Numbers()}, "numbers in column 'y', got 'a' in row 0"),
}


@pytest.mark.parametrize("which", BAD)
def test_bad_outcomes_are_refused_by_name(which: str) -> None:
    cells, arguments, message = BAD[which]
    with pytest.raises(DataError, match=message):
        read(cells, **arguments)


def test_numbers_in_words_are_classes_when_asked() -> None:
    asked = read(["< 5 kg", "5 kg", "5 kg"], outcomes=bm.Labels()).schema
    assert asked is not None
    assert asked.classes == ("5 kg", "< 5 kg")
    assert asked.class_sets(torch.tensor([[True, False], [True, True]])) == [("5 kg",), ("5 kg", "< 5 kg")]
    with pytest.raises(bm.ShapeError, match=r"sets of shape \(rows, 2\), got \(1, 3\)"):
        asked.class_sets([[True, False, True]])


def test_classes_are_a_single_outcome() -> None:
    frame = table(["a", "b", "a"]).assign(z=1.0)
    with pytest.raises(DataError, match=r"one outcome column of classes, got \['y', 'z'\]"):
        bm.TaskDataset.from_frame(frame, task="who", x=["x"], y=["y", "z"], outcomes=bm.Labels())
    with pytest.raises(DataError, match="numbers in column 'y', got 'a'"):
        bm.TaskDataset.from_frame(frame, task="who", x=["x"], y=["y", "z"])


def test_rows_and_tasks_without_an_outcome() -> None:
    frame = pd.DataFrame({"who": list("aabbc"), "x": [0.0, 1, np.nan, 3, 4], "y": ["u", "v", None, None, "v"]})
    with pytest.warns(OutcomeWarning, match="1 task without a class in column 'y' left out: 'b'"):
        tasks = bm.TaskDataset.from_frame(frame, task="who", x=["x"], y="y")
    assert (tasks.names, tasks.flat.y.tolist(), tasks.flat.x.flatten().tolist()) == (("a", "c"), [0, 1, 1], [0, 1, 4])


@pytest.mark.parametrize("classes", [("007", "NA"), tuple(ODD)])
def test_a_schema_keeps_odd_names(classes: tuple) -> None:
    schema = read(list(classes) * 3, outcomes=bm.Labels()).schema
    assert schema is not None
    assert set(schema.classes) == set(classes)
    again = Schema.from_json(json.loads(json.dumps(schema.to_json())))
    assert again == schema
    assert [again.classes[i] for i in again.outcomes(table(list(classes)))] == list(classes)


def test_a_schema_of_before_there_were_classes_has_none() -> None:
    old = Schema("who", ("x",), ("y",)).to_json()
    del old["classes"]
    assert Schema.from_json(old).outcome_kind == bm.Numbers()


def ragged(classes: list[str], seed: int = 0) -> pd.DataFrame:
    """30 tasks of 1 to 8 rows, some of one class alone."""
    rng = np.random.default_rng(seed)
    counts = np.array([1, 1, 2, 8, 5] * 6)
    who = np.repeat(np.arange(30), counts)
    x = rng.normal(size=len(who))
    label = np.where(who % 3 == 0, 0, rng.integers(0, len(classes), len(who)))
    return pd.DataFrame({"who": who, "x": x, "y": np.array(classes, dtype=object)[label]})


LEARNERS = {
    "R2D2": lambda c: bm.R2D2(bm.MLP(1, [8]), num_classes=c),
    "DeepKernelClassifier": lambda c: bm.DeepKernelClassifier(bm.MLP(1, [8]), num_classes=c),
    "MAML": lambda c: bm.MAML(bm.MLP(1, [8]), likelihood=bm.likelihoods.Categorical(c)),
    "CAVIA": lambda c: bm.CAVIA(bm.MLP(1, [8]), likelihood=bm.likelihoods.Categorical(c)),
    "LLAMA": lambda c: bm.LLAMA(bm.Identity(1), likelihood=bm.likelihoods.Categorical(c)),
    "MAML, Bernoulli": lambda c: bm.MAML(bm.MLP(1, [8]), likelihood=bm.likelihoods.Bernoulli()),
    "BMAML, Bernoulli": lambda c: bm.BMAML(bm.MLP(1, [8]), likelihood=bm.likelihoods.Bernoulli()),
}


@pytest.mark.filterwarnings("ignore::bayesmeta.errors.ConvergenceWarning")  # few steps are enough here
@pytest.mark.parametrize("name", LEARNERS)
def test_from_a_ragged_table_to_predictions_by_name(name: str) -> None:
    classes = ["007", "NA"] if "Bernoulli" in name else ODD[:3]
    frame = ragged(classes)
    tasks = bm.TaskDataset.from_frame(frame, task="who", x=["x"], y="y", outcomes=bm.Labels())
    torch.manual_seed(0)
    learner = bm.Standardized(LEARNERS[name](len(classes)))
    bm.fit(learner, tasks, 3, progress=False)
    assert tasks.schema is not None
    context = frame.groupby("who").head(2).reset_index(drop=True)
    context.loc[context.who == 4, "y"] = None  # a task without a labelled point
    query = (
        pd.concat([frame, pd.DataFrame({"who": ["new"], "x": [0.3]})])
        .drop(columns="y")
        .sample(frac=1.0, random_state=0)
    )
    found = predict_frame(learner, tasks.schema, context, query, level=0.8)
    assert found.columns.tolist() == ["who", "x", "predicted", "likely", *(f"p_{c}" for c in tasks.schema.classes)]
    probs = found.filter(like="p_").drop(columns="predicted", errors="ignore").to_numpy()
    np.testing.assert_allclose(probs.sum(1), 1.0, atol=1e-5)  # float32
    assert found["predicted"].tolist() == [tasks.schema.classes[i] for i in probs.argmax(1)]
    for position in (3, 17):  # the same as task by task, by labels
        who = found["who"].iloc[position]
        known, asked = context[(context.who == who) & context.y.notna()], found[found.who == who]
        support = bm.Data.from_labels(known[["x"]], tasks.schema.outcomes(known))
        alone = learner.adapt(support).predict(asked[["x"]].to_numpy()).probs[0]
        # batches of other sizes sum in another order, in float32
        np.testing.assert_allclose(asked.filter(like="p_").to_numpy(), alone, atol=1e-5)
    prior = predict_frame(learner, tasks.schema, context.head(0), query, level=0.8)
    for who in (4, "new"):
        np.testing.assert_allclose(
            found[found.who == who].filter(like="p_"), prior[prior.who == who].filter(like="p_"), atol=1e-5
        )
    evaluation = bm.evaluate(learner, tasks, [0, 1, 3], num_bootstrap=0)
    assert {"nll", "brier", "accuracy", "ece"} <= set(evaluation.table())
    assert np.isfinite(evaluation.table()[["nll", "brier", "accuracy", "ece"]].to_numpy()).all()
    confusion = evaluation.confusion(0)
    assert tuple(confusion.index) == tuple(confusion.columns) == tasks.schema.classes
    result = evaluation.at(0)
    assert result.correct is not None
    assert confusion.to_numpy().trace() == result.correct.sum()


def test_the_likely_classes_are_the_fewest_of_that_probability() -> None:
    class Fixed(bm.Learner):
        """Probabilities .5, .3, .2, whatever is known."""

        outcomes, x_shape = bm.Labels(3), (1,)

        def condition(self, support: bm.Data) -> bm.TaskPosterior:
            return Constant(spec=support.spec)

    class Constant(bm.TaskPosterior):
        points_seen = torch.zeros(1, dtype=torch.long)

        def __init__(self, spec: object) -> None:
            object.__setattr__(self, "spec", spec)

        def at(self, x: torch.Tensor) -> bm.Predictive:
            probs = torch.tensor([0.3, 0.5, 0.2], dtype=torch.float64).expand(*x.shape[:2], 3)
            return bm.predictives.IndependentPredictive(torch.distributions.Categorical(probs))

        def extended(self, data: bm.Data) -> bm.TaskPosterior:
            return self

    frame = table(["b", "a", "c", "b"], tasks=1)
    schema = Schema.of(frame, "who", ["x"], "y")
    for level, likely in ((0.4, "b"), (0.6, "b | a"), (0.9, "b | a | c")):
        found = predict_frame(Fixed(), schema, frame, frame.drop(columns="y"), level=level)
        assert set(found["likely"]) == {likely}
        assert set(found["predicted"]) == {"b"}


@pytest.mark.parametrize(
    ("learner", "message"),
    [
        (bm.ALPaCA(bm.Identity(1)), r"of the 2 classes of 'y' \(num_classes=2\), got Numbers\(count=1\)"),
        (bm.R2D2(bm.MLP(1, [4]), num_classes=3), r"of the 2 classes of 'y' \(num_classes=2\), got Labels\(count=3\)"),
        (bm.R2D2(bm.MLP(1, [4])), r"of the 2 classes of 'y' \(num_classes=2\), got Labels\(count=None\)"),
    ],
)
def test_a_learner_of_other_outcomes_is_refused(learner: bm.Learner, message: str) -> None:
    frame = table(["u", "v"] * 3)
    schema = Schema.of(frame, "who", ["x"], "y")
    with pytest.raises(DataError, match=message):
        predict_frame(learner, schema, frame, frame)


def test_an_unknown_class_is_named_with_its_column() -> None:
    frame = table(["u", "v"] * 3)
    schema = Schema.of(frame, "who", ["x"], "y")
    with pytest.raises(DataError, match=r"column 'y' to hold one of the classes 'u', 'v', got 'w' in row 0.*fit again"):
        bm.TaskDataset.from_schema(frame.replace("u", "w"), schema)
    learner = bm.R2D2(bm.MLP(1, [4]), num_classes=2)
    with pytest.raises(DataError, match="got 'w' in row 0"):
        predict_frame(learner, schema, frame.replace("u", "w"), frame)
    with pytest.raises(DataError, match="got one with 'p_u': rename"):
        predict_frame(learner, schema, frame, frame.assign(p_u=1.0))


def test_the_report_has_names() -> None:
    frame = ragged(["none", "mild <b>", "bad"])
    tasks = bm.TaskDataset.from_frame(frame, task="who", x=["x"], y="y")
    learner = bm.R2D2(bm.MLP(1, [8]), num_classes=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = bm.report(learner, tasks, [0, 1], num_bootstrap=10).html()
    assert "as none" in page
    assert "as mild &lt;b&gt;" in page
    assert "<b>" not in page
