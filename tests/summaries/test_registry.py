"""Every learner of the library prints as a line and has a summary, trained or not; so has what it gives."""

import inspect

import pytest
from torch import nn

import bayesmeta as bm
from bayesmeta.description import Described
from bayesmeta.summaries import MixedModelSummary, PlainSummary, Summary
from tests.registry import CASES, Case

LONGEST = 125  # characters of a line of a page; names of columns may be longer


def assert_tells(shown: str, lines: int) -> None:
    """It is short, and neither an address nor torch's dump of modules."""
    assert 0 < len(shown.splitlines()) <= lines, shown
    assert " at 0x" not in shown


@pytest.mark.filterwarnings("ignore::bayesmeta.errors.ConvergenceWarning")  # of learners that have not been trained
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_learners_posteriors_and_predictions_say_what_they_are(case: Case) -> None:
    learner, batch = case.learner(), case.batch(3, 4, 2, ragged=False)
    tasks = bm.TaskDataset(batch.support, names=["ann", "bob", "cid"])
    assert_tells(repr(learner), 1)  # torch's dump of modules is longer
    for summary in (learner.summary(), learner.summary(tasks)):
        page = str(summary)
        assert_tells(page, 80)
        assert max(map(len, page.splitlines())) <= LONGEST, page
        assert Summary.from_json(summary.to_json()) == summary
        assert summary.kind
        if isinstance(summary, PlainSummary):
            assert len(summary.method) == 4, "expected phi, prior, likelihood and inference in the module's docstring"
    assert "3 tasks, 12 points" in page
    posterior = learner.adapt(batch.support)
    found = posterior.summary(tasks)
    assert_tells(repr(posterior), 1)
    assert_tells(str(found), 60)
    table = found.coefficients
    if len(table):
        assert table.index.get_level_values("task").unique().tolist() == ["ann", "bob", "cid"]
        assert bool((table["lower"] <= table["upper"]).all())
    prediction = posterior.predict(batch.query.x)
    assert_tells(repr(prediction), 1)


def test_what_is_measured_is_said() -> None:
    by_name = {case.name: case for case in CASES}
    learner = by_name["standardized-alpaca"].learner()
    tasks = bm.TaskDataset(by_name["standardized-alpaca"].batch(20, 6, 2, ragged=False).support)
    learned = dict(learner.summary(tasks).learned)
    assert learned["numbers of theta"] == f"{sum(p.numel() for p in learner.parameters()):,}"
    noise = float(learner.noise_stddev())
    assert learned["noise"] == f"deviation {noise:.3f}"
    prior = learner.adapt(bm.Data.empty(tasks.data)).predict(tasks.data.x)
    share = (prior.noiseless.variance.mean() / prior.variance.mean()).item()
    assert f"({100 * share:.0f} % of the variance)" in learned["tasks differ"]
    assert learned["logLik"].startswith(f"{learner.log_evidence(tasks.data).sum().item():.2f}")


def test_data_and_values_print_as_a_line() -> None:
    tasks = bm.tasks.Sinusoid().dataset(6, 8, seed=0)
    learner = bm.ALPaCA(bm.Identity(1)).double()
    batch = tasks.divided(bm.tasks.RandomSplit((0, 3)))
    data = bm.Data.stack(
        [bm.Data.from_arrays([0.0], [1.0], yerr=0.1), bm.Data.from_arrays([0.0] * 3, [1.0] * 3, yerr=0.1)]
    )
    assert repr(data) == "Data(2 tasks, 1 to 3 points each, 1 input, 1 number, known noise)"
    assert repr(bm.Data.from_labels([[0.0, 1.0]], [1])) == "Data(1 task, 1 point each, 2 inputs, labels)"
    values = [
        *(tasks, tasks.flat, tasks.data, batch, bm.Task(data.x[1], data.y[1], data.x[1], data.y[1])),
        *(learner.parts(tasks.data), learner.theta(), bm.Standardized(learner).mixed_model),
        *(bm.training.Evidence(), bm.training.MaximumLikelihood(), bm.tasks.Sinusoid(), bm.ResNet12((3, 32, 32))),
        *(learner.prior, learner.prior.covariance, bm.kernels.MaternKernel(), bm.Conv4((1, 28, 28))),
        learner.adapt(tasks.data).coefficients(bm.summaries.Columns.of((1,), bm.Numbers(1))),
    ]
    for value in values:
        assert_tells(repr(value), 1)
    assert_tells(repr(bm.evaluate(learner, tasks, shots=[0, 2])), 12)
    assert repr(bm.MLP(1, [64, 64])) == "MLP(1, [64, 64])"
    assert repr(learner) == "ALPaCA(Identity(1)): 1 number from 1 input, 6 numbers in theta, noise deviation 0.316"


def test_no_public_class_of_the_library_prints_as_an_address() -> None:
    public = [value for name in bm.__all__ for value in _public(getattr(bm, name)) if inspect.isclass(value)]
    kinds = [
        kind for kind in public if not issubclass(kind, BaseException) and not getattr(kind, "_is_protocol", False)
    ]
    assert len(kinds) > 200
    assert [kind for kind in kinds if kind.__repr__ is object.__repr__] == []
    modules = [kind for kind in kinds if issubclass(kind, bm.Learner | bm.Network | Described)]
    assert [kind for kind in modules if kind.__repr__ is nn.Module.__repr__] == []


def _public(value: object) -> list[object]:
    return [getattr(value, name) for name in getattr(value, "__all__", [])] if inspect.ismodule(value) else [value]


def test_the_numbers_of_a_structural_model_are_its_parameters() -> None:
    growth = {"Asym": bm.parametric.Positive(190.0), "xmid": bm.parametric.Positive(700.0)}
    growth |= {"scal": bm.parametric.Positive(350.0, stddev=0.0)}  # the same for all tasks
    learner = bm.Parametric(bm.parametric.LogisticGrowth(), growth).double()
    assert dict(learner.summary().learned)["scal"] == "350 in a typical task, the same for all tasks"
    posterior = learner.adapt(bm.Data.from_arrays([118.0, 484.0, 1004.0], [30.0, 58.0, 120.0]))
    assert posterior.summary().coefficients.index.get_level_values("term").tolist() == ["Asym", "xmid", "scal"]


def test_mixed_models_in_a_mixture_are_shown_by_name() -> None:
    tasks = bm.TaskDataset(bm.tasks.Sawtooth().dataset(6, 5, seed=0).data)
    line = bm.Standardized(bm.ALPaCA(bm.Identity(1))).double()
    bm.fit_evidence(line, tasks)
    mixture = bm.wrappers.Stacked({"line": line, "net": bm.MAML(bm.MLP(1, [4]))}, {"line": 0.2, "net": 0.8})
    summary = mixture.summary(tasks)
    assert isinstance(summary.member("line"), MixedModelSummary)
    page = str(summary)
    assert any(line.split() == ["net", "80", "%"] for line in page.splitlines())
    assert "net   Model-agnostic meta-learning" in page
    assert "line  a linear mixed model" in page
    by_points = bm.wrappers.Stacked({"line": line, "other": line}, {"line": [0.9, 0.2], "other": [0.1, 0.8]}, [1, 5])
    page = str(by_points.summary(tasks))
    assert "by the points that a task has shown" in page
    assert any(line.split() == ["line", "90", "%", "20", "%"] for line in page.splitlines())
    assert "The model 'line'" in page
    with pytest.raises(bm.DataError, match="expected one of line, net, got 'curve'"):
        summary.member("curve")
    numbers = mixture.adapt(tasks.data).summary(tasks).numbers
    assert numbers is not None  # those of the line
    assert numbers.names == ("intercept", "x")
