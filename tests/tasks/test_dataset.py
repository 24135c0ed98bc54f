"""TaskDataset and the divisions of its points."""

import math
import resource
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import bayesmeta as bm
from bayesmeta.data import Data
from bayesmeta.errors import DataError, InferenceError, ShapeError
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.simulators.gp_functions import GPFunctions
from bayesmeta.tasks.source import EqualSplit, PrefixSplit, RandomSplit, Split


def _dataset(counts: list[int]) -> TaskDataset:
    """Every point is its own number, so that it can be followed: x = y = 100 task + place."""
    values = [100.0 * t + np.arange(n) for t, n in enumerate(counts)]
    return TaskDataset.from_list([(v, v) for v in values], [f"task {t}" for t in range(len(counts))])


def _real(data: Data, task: int) -> list[float]:
    assert torch.equal(data.x[task, data.mask[task]], data.y[task, data.mask[task]])
    return data.x[task, data.mask[task], 0].tolist()


# ------------------------------------------------------------------------------------------------------- constructors


@pytest.mark.parametrize(
    "groups",
    [
        ["b", "a", "b", "b"],
        np.array(["b", "a", "b", "b"]),
        pd.Series(["b", "a", "b", "b"]),
        pd.Categorical(list("babb")),
    ],
)
def test_from_arrays_groups_in_order_of_appearance(groups: object) -> None:
    tasks = TaskDataset.from_arrays([0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 2.0, 3.0], groups)
    assert tasks.names == ("b", "a")
    assert [_real(tasks.data, t) for t in range(2)] == [[0.0, 2.0, 3.0], [1.0]]
    assert len(tasks) == 2
    assert repr(tasks) == "TaskDataset(2 tasks, 1 to 3 points each)"


def test_groups_may_be_numbers_and_tuples() -> None:
    x = [0.0, 1.0, 2.0]
    assert TaskDataset.from_arrays(x, x, torch.tensor([5, 5, 3])).names == (5, 3)
    assert TaskDataset.from_arrays(x, x, np.array([1.5, 0.5, 1.5])).names == (1.5, 0.5)
    assert TaskDataset.from_arrays(x, x, [("a", 1), ("a", 2), ("a", 1)]).names == (("a", 1), ("a", 2))


@pytest.mark.parametrize(
    ("groups", "error", "message"),
    [
        ([1, 1], ShapeError, "one group for each of 3 rows, got 2"),
        (np.zeros((3, 1)), ShapeError, r"groups of shape \(rows,\), got \(3, 1\)"),
        (pd.DataFrame({"g": [1, 1, 2]}), ShapeError, r"got \(3, 1\)"),
        (np.array([1.0, np.nan, np.nan]), DataError, "name of a task in row 1, got nan"),
        (["a", None, "b"], DataError, "name of a task in row 1, got None"),
        (pd.Series([1, None, 2], dtype="Int64"), DataError, "name of a task in row 1, got <NA>"),
        (pd.Series([pd.Timestamp("2020"), pd.NaT, pd.NaT]), DataError, "name of a task in row 1, got NaT"),
        ([[1], [1], [2]], DataError, r"name of a task in row 0, got \[1\]"),
    ],
)
def test_bad_groups_are_refused(groups: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        TaskDataset.from_arrays([0.0, 1.0, 2.0], [0.0, 1.0, 2.0], groups)


def test_from_arrays_refuses_what_data_refuses() -> None:
    with pytest.raises(DataError, match="y to be finite, got nan"):
        TaskDataset.from_arrays([0.0, 1.0], [0.0, math.nan], [0, 1])
    with pytest.raises(ShapeError, match="of one length"):
        TaskDataset.from_arrays([0.0, 1.0], [0.0], [0, 1])
    with pytest.raises(DataError, match="at least one row, got none"):
        TaskDataset.from_arrays([], [], [])


def test_from_list_and_from_labels() -> None:
    tasks = TaskDataset.from_labels([([0.0, 1.0], [0, 1]), ([2.0], [2])])
    assert tasks.names == (0, 1)
    assert tasks.task(1).y.tolist() == [[2]]
    with pytest.raises(DataError, match="in task 'second': expected y to be finite, got nan"):
        TaskDataset.from_list([([0.0], [0.0]), ([0.0], [math.nan])], ["first", "second"])
    with pytest.raises(ShapeError, match="in task 1: expected tasks of one point shape"):
        TaskDataset.from_list([([0.0], [0.0]), (np.zeros((2, 3)), [0.0, 1.0])])
    with pytest.raises(DataError, match=r"in task 1: expected integer labels.*got -1"):
        TaskDataset.from_labels([([0.0], [0]), ([0.0], [-1])])
    for make in (TaskDataset.from_list, TaskDataset.from_labels):
        with pytest.raises(DataError, match="at least one task, got none"):
            make([])


def test_the_constructor_checks_names_and_points() -> None:
    data = Data.stack([Data.from_arrays([0.0], [0.0]), Data.from_arrays([], [])])
    with pytest.raises(DataError, match="at least one point in every task, got none in task 'b'"):
        TaskDataset(data, ["a", "b"])
    full = data.select([0, 0])
    for names, message in ((["a"], "2 distinct task names, got 1"), (["a", "a"], "2 distinct task names, got 1")):
        with pytest.raises(DataError, match=message):
            TaskDataset(full, names)
    with pytest.raises(DataError, match="name of a task in place 1, got nan"):
        TaskDataset(full, ["a", math.nan])
    with pytest.raises(DataError, match="at least one task, got none"):
        TaskDataset(data.select([]))


def test_tasks_by_name_and_by_position() -> None:
    tasks = _dataset([3, 5, 1])
    assert tasks.task("task 1").x.shape == (1, 5, 1)
    with pytest.raises(DataError, match="the name of a task, got 'nobody'; the first are"):
        tasks.task("nobody")
    chosen = tasks.select([2, 0])
    assert chosen.names == ("task 2", "task 0")
    assert chosen.data.num_points == 3  # cropped to the longest that is left
    assert _real(chosen.data, 0) == [200.0]
    gaps = TaskDataset(Data(tasks.data.x, tasks.data.y, tasks.data.mask.flip(1)), tasks.names)
    assert gaps.select([0]).data.counts.tolist() == [3]  # padding in front is not cropped away


# ---------------------------------------------------------------------------------------------------- train and test


@given(tasks=st.integers(2, 20), share=st.floats(0.01, 0.99), seed=st.integers(0, 50))
def test_split_is_by_task(tasks: int, share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    whole = _dataset(rng.integers(1, 5, tasks).tolist())
    train, test = whole.split(share, seed)
    assert set(train.names) | set(test.names) == set(whole.names)
    assert not set(train.names) & set(test.names)
    assert len(test) == min(max(round(share * tasks), 1), tasks - 1)
    for part in (train, test):
        for name in part.names:
            assert torch.equal(part.task(name).x, whole.task(name).x)  # no row has moved
        assert list(part.names) == [name for name in whole.names if name in part.names]  # in order
    assert whole.split(share, seed)[1].names == test.names


def test_split_seeds_differ_and_bad_shares_are_refused() -> None:
    tasks = _dataset([2] * 20)
    assert len({tasks.split(0.25, seed)[1].names for seed in range(5)}) == 5
    for share in (0.0, 1.0, -0.1, 25.0, math.nan):
        with pytest.raises(DataError, match="share of test tasks strictly between 0 and 1"):
            tasks.split(share)
    with pytest.raises(DataError, match="at least 2 tasks to split, got 1"):
        _dataset([5]).split()


def test_the_schema_goes_with_both_sides() -> None:
    frame = pd.DataFrame({"s": [1, 2, 3], "x": ["u", "v", "u"], "y": [0.0, 1.0, 2.0]})
    whole = TaskDataset.from_frame(frame, task="s", x=["x"], y=["y"])
    assert [part.schema for part in whole.split()] == [whole.schema] * 2


# ---------------------------------------------------------------------------------------------- support and query

counts_of_tasks = st.lists(st.integers(1, 9), min_size=1, max_size=5)


@given(
    counts=counts_of_tasks,
    bounds=st.tuples(st.integers(0, 12), st.integers(0, 12)).map(sorted),
    query=st.one_of(st.none(), st.integers(1, 6)),
    seed=st.integers(0, 100),
    kind=st.sampled_from([RandomSplit, EqualSplit, PrefixSplit]),
)
def test_every_split(counts: list[int], bounds: list[int], query: int | None, seed: int, kind: type[Split]) -> None:
    tasks = _dataset(counts)
    batch = tasks.divided(kind(tuple(bounds), query), seed)
    for t, count in enumerate(counts):
        support, rest = _real(batch.support, t), _real(batch.query, t)
        assert len(rest) >= 1
        assert min(bounds[0], count - 1) <= len(support) <= min(bounds[1], count - 1)
        assert len(rest) == (count - len(support) if query is None else min(query, count - len(support)))
        together = support + rest
        assert len(set(together)) == len(together)  # nothing is in both, nothing twice
        assert set(together) <= set((100.0 * t + np.arange(count)).tolist())
        if kind is PrefixSplit:
            assert together == (100.0 * t + np.arange(len(together))).tolist()  # the beginning, and what comes next
    again = tasks.divided(kind(tuple(bounds), query), seed)
    assert torch.equal(again.support.x, batch.support.x)
    assert torch.equal(again.query.mask, batch.query.mask)
    assert batch.names == tasks.names


@given(counts=counts_of_tasks, seed=st.integers(0, 100), query=st.integers(1, 3))
def test_the_query_stays_as_the_support_grows(counts: list[int], seed: int, query: int) -> None:
    tasks = _dataset(counts)
    reference, before = tasks.divided(RandomSplit.at(0, query), seed), None
    for shots in range(8):
        batch = tasks.divided(RandomSplit.at(shots, query), seed)
        for t, count in enumerate(counts):
            if shots + query <= count:  # as long as the points suffice
                assert _real(batch.query, t) == _real(reference.query, t)
            if before is not None:
                assert _real(batch.support, t)[: len(before[t])] == before[t]  # the support grows by one at the end
        before = [_real(batch.support, t) for t in range(len(counts))]


def test_padding_in_front_is_never_taken() -> None:
    data = _dataset([4]).data
    x = torch.cat([torch.full((1, 3, 1), -7.0, dtype=torch.float64), data.x], 1)
    mask = torch.tensor([[False, False, False, True, True, True, True]])
    for kind in (RandomSplit, EqualSplit, PrefixSplit):
        batch = TaskDataset(Data(x, x, mask)).divided(kind.at(2))
        taken = _real(batch.support, 0) + _real(batch.query, 0)
        assert sorted(taken) == [0.0, 1.0, 2.0, 3.0]


def test_support_sizes_are_uniform_and_points_are_fair() -> None:
    tasks = _dataset([6] * 2000)
    batch = tasks.divided(RandomSplit((1, 4)))
    sizes = Counter(batch.support.counts.tolist())
    assert set(sizes) == {1, 2, 3, 4}
    assert all(abs(size - 500) < 5 * math.sqrt(2000 * 0.25 * 0.75) for size in sizes.values())  # five deviations
    first = Counter(int(_real(batch.support, t)[0] - 100.0 * t) for t in range(2000))
    assert all(abs(first[place] - 2000 / 6) < 5 * math.sqrt(2000 / 6) for place in range(6))


def test_equal_supports_have_one_size_for_all_tasks_of_a_draw() -> None:
    functions, generator = GPFunctions.eq(), torch.Generator().manual_seed(0)
    drawn = []
    for _ in range(300):
        counts = functions.draw(4, EqualSplit((1, 3), 2), generator).support.counts.tolist()
        assert len(set(counts)) == 1
        drawn.append(counts[0])
    sizes = Counter(drawn)
    assert set(sizes) == {1, 2, 3}
    assert all(abs(size - 100) < 5 * math.sqrt(300 * 2 / 9) for size in sizes.values())  # five deviations
    ragged = _dataset([1, 4, 9]).divided(EqualSplit((6, 8)))
    size = ragged.support.counts[2]
    assert 6 <= size <= 8
    assert ragged.support.counts[:2].tolist() == [0, 3]  # all but one
    nothing = EqualSplit((0, 3), 2).divide(ragged.support.select([]), generator)
    assert nothing[0].num_tasks == nothing[1].num_tasks == 0


def test_a_task_with_one_point_is_all_query() -> None:
    for kind in (RandomSplit, EqualSplit, PrefixSplit):
        batch = _dataset([1, 3]).divided(kind.at(5))
        assert batch.support.counts.tolist() == [0, 2]
        assert batch.query.counts.tolist() == [1, 1]


def test_bad_splits_are_refused() -> None:
    for support in ((-1, 3), (3, 2)):
        with pytest.raises(DataError, match="support bounds with 0 <= smallest <= largest"):
            RandomSplit(support)
    with pytest.raises(DataError, match="at least one query point, got 0"):
        PrefixSplit((0, 1), 0)
    with pytest.raises(DataError, match="support bounds"):
        RandomSplit.at(-1)


# -------------------------------------------------------------------------------------------------------------- draw


def test_draws_are_different_tasks_and_reproducible() -> None:
    tasks = _dataset([2, 3, 4, 5, 6])
    draws = [tasks.draw(3, RandomSplit(), torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert draws[0].names == draws[1].names
    assert torch.equal(draws[0].support.x, draws[1].support.x)
    assert draws[0].names != draws[2].names
    assert len(set(draws[0].names)) == 3
    for batch in draws:
        for t, name in enumerate(batch.names):
            assert {int(v // 100) for v in _real(batch.support, t) + _real(batch.query, t)} == {int(str(name)[5:])}
    for many in (5, 50):
        assert tasks.draw(many, RandomSplit(), torch.Generator()).names == tasks.names
    generator = torch.Generator().manual_seed(0)
    seen = {tasks.draw(2, RandomSplit(), generator).names for _ in range(20)}
    assert len(seen) > 5  # the generator moves on


def test_drawing_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    tasks = _dataset([4, 4, 4])
    tasks.draw(2, RandomSplit(), torch.Generator())
    tasks.divided(RandomSplit())
    tasks.split()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_pooled_is_everything() -> None:
    tasks = _dataset([2, 3])
    assert torch.equal(tasks.pooled(torch.Generator()).x, tasks.data.x)


def test_a_bare_number_of_support_points_says_what_to_write(unchecked: None) -> None:
    with pytest.raises(DataError, match=r"RandomSplit.at\(5\)"):
        RandomSplit(5)  # type: ignore[arg-type]


def test_tasks_that_cannot_be_padded_say_what_to_do_instead() -> None:
    counts = [5] * 3000 + [100_000]
    x = np.zeros(sum(counts))
    tasks = TaskDataset.from_arrays(x, x, np.repeat(np.arange(3001), counts))
    with pytest.raises(DataError, match=r"3001 tasks of up to 100000 points each, and 115000 in all: .*by_length"):
        _ = tasks.data
    parts = [part for _, part in tasks.by_length()]
    with pytest.raises(DataError, match="by_length"):
        bm.Data.stack([part.data for part in parts])
    assert [len(part) for part in parts] == [3000, 1]
    assert tasks.task(3000).num_points == 100_000
    assert tasks.pooled(torch.Generator()).mask.numel() < 2 * 115_000 + 3001
    batch = tasks.draw(64, RandomSplit(), torch.Generator().manual_seed(0))
    assert batch.num_tasks == 64
    some = tasks.divided(RandomSplit.at(2, 3))  # what comes of it is what is padded
    assert (some.support.num_points, some.query.num_points) == (2, 3)


def test_a_joint_distribution_of_too_many_points_is_refused_before_it_is_made() -> None:
    x = torch.linspace(0.0, 1.0, 30_000)
    for learner in (bm.DeepKernelTransfer(bm.MLP(1, [4])), bm.MAML(bm.MLP(1, [4]))):
        prediction = learner.adapt(bm.Data.from_arrays([0.0], [1.0])).predict(x)
        assert prediction.marginal_log_prob(prediction.mean).shape == (1, 30_000)
        for ask in (
            lambda p=prediction: p.log_prob(p.mean),
            lambda p=prediction: p.rsample(),
            lambda p=prediction: p.covariance(),
            lambda p=prediction: p.noiseless.rsample(),
        ):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            with pytest.raises(InferenceError, match="30000 x 30000: take fewer"):
                ask()
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KB: a mask alone has 900 MB
    joint = bm.ALPaCA(bm.MLP(1, [4])).adapt(bm.Data.from_arrays([0.0], [1.0])).predict(x)
    assert bool(joint.log_prob(joint.mean).isfinite())  # by features


BY_POINTS = {
    "MAML": lambda: bm.MAML(bm.MLP(1, [4])),
    "IMAML": lambda: bm.IMAML(bm.MLP(1, [4]), solver=bm.inference.GradientAscent(1, 0.1)),
    "LLAMA": lambda: bm.LLAMA(bm.MLP(1, [4]), solver=bm.inference.LevenbergMarquardt(1)),
    "CAVIA": lambda: bm.CAVIA(bm.MLP(1, [4])),
    "DeepKernelTransfer": lambda: bm.DeepKernelTransfer(bm.MLP(1, [4])),
    "LRD2": lambda: bm.LRD2(bm.MLP(1, [4]), num_classes=2),
    "MetaOptNet": lambda: bm.MetaOptNet(bm.MLP(1, [4]), num_classes=2),
    "DeepKernelClassifier": lambda: bm.DeepKernelClassifier(bm.MLP(1, [4]), num_classes=2),
}


@pytest.mark.filterwarnings("ignore::bayesmeta.ConvergenceWarning")  # one step
@pytest.mark.parametrize("name", BY_POINTS)
def test_adapting_to_too_many_points_is_refused_where_their_matrix_is_needed(name: str) -> None:
    """30,000 points: 7 GB for the matrix, which torch would ask the system for."""
    learner, x = BY_POINTS[name](), torch.linspace(-1.0, 1.0, 30_000)
    labels = learner.outcomes == bm.Labels(2)
    data = bm.Data.from_labels(x, (x > 0.0).long()) if labels else bm.Data.from_arrays(x, x)
    with pytest.raises(InferenceError, match="30000 x 30000: take fewer"):
        _ = learner.adapt(data).predict([0.0]).marginals
