"""A posterior is a value: nothing that is written, loaded, converted or moved later reaches it; it can be divided."""

import copy
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

import bayesmeta as bm
from tests.faults.subjects import SUBJECTS, Subject, check_same, summary
from tests.registry import CASES, Case

pytestmark = [pytest.mark.filterwarnings("ignore::bayesmeta.ConvergenceWarning"), pytest.mark.usefixtures("unchecked")]
SAME = 1e-9  # the same mathematics in another order of summation


def _overwrite(*tensors: Tensor) -> None:
    for tensor in tensors:
        tensor.zero_()


@pytest.mark.parametrize("case", SUBJECTS, ids=lambda case: case.name)
def test_what_is_written_later_reaches_no_value(case: Case) -> None:
    """In the precision of the learner, so that nothing is copied by conversion."""
    subject = Subject.of(case)
    learner, support, query = (subject.learner, *(each.to(torch.float32) for each in _parts(subject.tasks)))
    given, more, x = support.clone(), query.clone(), query.x.clone()
    posterior = learner.adapt(given)
    predictive, updated = posterior.predict(x), posterior.update(more)
    wanted, after = subject.answers(predictive), summary(updated.predict(query.x))
    _overwrite(given.x, given.y, given.mask, more.x, more.y, more.mask, x)
    check_same(subject.answers(predictive), wanted)
    check_same(subject.answers(posterior.predict(query.x)), wanted)
    check_same(summary(updated.predict(query.x)), after)


def _parts(tasks: bm.TaskBatch) -> tuple[bm.Data, bm.Data]:
    return tasks.support, tasks.query


@pytest.mark.parametrize("case", SUBJECTS, ids=lambda case: case.name)
def test_no_later_theta_reaches_the_posterior_of_a_frozen_learner(case: Case) -> None:
    subject = Subject.of(case)
    learner, other, x = (
        subject.learner.requires_grad_(False),
        case.learner(torch.float32, seed=7),
        subject.tasks.query.x,
    )
    posterior = learner.adapt(subject.tasks.support)
    wanted = subject.answers(posterior.predict(x))
    updated = summary(posterior.update(subject.tasks.query).predict(x))
    learner.load_state_dict(other.state_dict())
    check_same(subject.answers(posterior.predict(x)), wanted)
    learner.double()
    check_same(subject.answers(posterior.predict(x)), wanted)
    learner.to("meta")
    check_same(subject.answers(posterior.predict(x)), wanted)
    check_same(summary(posterior.update(subject.tasks.query).predict(x)), updated)


@pytest.mark.parametrize("case", SUBJECTS, ids=lambda case: case.name)
def test_a_part_of_a_posterior_is_the_posterior_of_a_part(case: Case) -> None:
    """Unequal supports, one of them perhaps without points; in any order, and updated afterwards."""
    learner, tasks = case.learner(), case.batch(5, 4, 2, seed=3)
    order = [3, 0]
    chosen = tasks.query.select(order)
    posterior = learner.adapt(tasks.support)
    got = posterior.select(order)
    assert got.spec.num_tasks == 2
    if got.points_seen is not None:
        assert got.points_seen.tolist() == tasks.support.counts[order].tolist()
    whole = summary(posterior.predict(tasks.query.x))
    check_same(summary(got.predict(chosen.x)), [value[order] for value in whole], SAME)
    if case.name == "sampled":  # draws of a batch are other draws than those of a part
        return
    alone = learner.adapt(tasks.support.select(order))
    check_same([got.predict(chosen.x).log_prob(chosen.y)], [alone.predict(chosen.x).log_prob(chosen.y)], 1e-7)
    check_same(summary(got.update(chosen).predict(chosen.x)), summary(alone.update(chosen).predict(chosen.x)), 1e-7)
    check_same(
        summary(posterior.update(tasks.query).select(order).predict(chosen.x)),
        summary(alone.update(chosen).predict(chosen.x)),
        1e-7,
    )


@pytest.mark.parametrize(
    "tasks", [slice(1, None), torch.tensor([1, 2]), torch.tensor([False, True, True]), [-2, -1], np.array([1, 2])]
)
def test_select_takes_what_an_index_may_be(tasks: object) -> None:
    data = bm.Data.stack([bm.Data.from_arrays([0.0] * count, [1.0] * count) for count in (1, 2, 3)])
    posterior = bm.ALPaCA(bm.Identity(1)).adapt(data)
    assert posterior.select(tasks).points_seen.tolist() == [2, 3]  # type: ignore[arg-type, union-attr]


@pytest.mark.parametrize("tasks", [[3], [-4], 0, "ab", [0.5], [[0, 1]], torch.tensor([True, False])])
def test_select_refuses_what_is_no_list_of_positions(tasks: object) -> None:
    data = bm.Data.stack([bm.Data.from_arrays([0.0], [1.0]) for _ in range(3)])
    with pytest.raises(bm.DataError, match="positions"):
        bm.ALPaCA(bm.Identity(1)).adapt(data).select(tasks)  # type: ignore[arg-type]


def test_select_says_which_posterior_cannot_be_divided() -> None:
    @dataclass(frozen=True, eq=False, kw_only=True)
    class Whole(bm.TaskPosterior):
        def at(self, x: Tensor) -> bm.Predictive:
            raise NotImplementedError

        def extended(self, data: bm.Data) -> bm.TaskPosterior:
            raise NotImplementedError

    with pytest.raises(bm.UnsupportedError, match="Whole cannot be divided"):
        Whole(spec=bm.Data.from_arrays([0.0], [1.0]).spec).select([0])


def test_many_tasks_in_many_chunks_are_divided() -> None:
    """Beliefs of a large batch are held in chunks."""
    learner = bm.ALPaCA(bm.MLP(1, [64])).double()
    generator = torch.Generator().manual_seed(0)
    data = bm.Data.full(*torch.randn((2, 400, 30, 1), generator=generator, dtype=torch.float64))
    posterior, order = learner.adapt(data), [399, 5, 200]
    assert len(posterior.beliefs) > 1  # type: ignore[attr-defined]
    x = data.x[:, :3]
    check_same(
        summary(posterior.select(order).predict(x[order])), [v[order] for v in summary(posterior.predict(x))], SAME
    )


def test_data_from_torch_are_copies_as_those_from_numpy_are() -> None:
    for make in (torch.tensor, np.array):
        x, y, labels = make([0.0, 1.0, 2.0]), make([3.0, 4.0, 5.5]), make([0, 1, 1])
        data, classes = bm.Data.from_arrays(x, y), bm.Data.from_labels(x, labels)
        tasks = bm.TaskDataset.from_arrays(x, y, [0, 0, 1])
        listed, one = bm.TaskDataset.from_list([(x, y)]), bm.Data.stack([bm.Data.from_arrays(x, y)])
        x[:], y[:], labels[:] = 9.0, 9.0, 9
        assert data.x.flatten().tolist() == classes.x.flatten().tolist() == [0.0, 1.0, 2.0]
        assert data.y.flatten().tolist() == one.y.flatten().tolist() == [3.0, 4.0, 5.5]
        assert classes.y.tolist() == [[0, 1, 1]]
        assert tasks.task(0).y.flatten().tolist() == [3.0, 4.0]
        assert listed.data.y.flatten().tolist() == [3.0, 4.0, 5.5]


def test_gradients_reach_the_tensor_that_data_were_made_of() -> None:
    x, y = torch.tensor([0.0, 1.0, 2.0], requires_grad=True), torch.tensor([3.0, 4.0, 5.5], requires_grad=True)
    learner = bm.ALPaCA(bm.MLP(1, [4]))
    learner.log_evidence(bm.Data.from_arrays(x, y)).sum().backward()
    assert x.grad is not None
    assert y.grad is not None
    assert y.grad.abs().min() > 0


def test_a_frozen_learner_inside_others_is_cut_off() -> None:
    """Wrappers of wrappers: a learner that is frozen, and loaded into later, at every depth."""
    tasks = bm.tasks.GPFunctions.eq().dataset(12, 8, seed=0)
    inner = bm.Standardized(bm.ALPaCA(bm.MLP(1, [4])))
    inner.prepare(tasks.data)
    learner = bm.wrappers.VarianceScaled(inner.requires_grad_(False))
    surprise = bm.checks.Surprise.fit(learner, tasks, [3])
    conformal = bm.calibration.HierarchicalConformal(learner, tasks, shots=3)
    full = bm.HyperPosterior([inner, copy.deepcopy(inner)])
    few = tasks.data.points(slice(3))
    said = lambda: [
        surprise.p_value(few),
        conformal.adapt(few).interval(tasks.data.x, 0.5)[0],
        full.adapt(few).predict(tasks.data.x).mean,
    ]
    before = said()
    inner.learner.load_state_dict(bm.ALPaCA(bm.MLP(1, [4])).state_dict())
    inner.y_shift.add_(1.0)
    learner.log_factors.add_(1.0)
    check_same(said(), before)


def test_every_learner_is_asked() -> None:
    assert {case.name for case in CASES} - {case.name for case in SUBJECTS} == {"imaml"}
