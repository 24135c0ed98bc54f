"""Tasks drawn from parquet are those of the same table in memory, and depend on the generator alone."""

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import bayesmeta as bm
from bayesmeta.errors import DataError, OutcomeWarning
from bayesmeta.tasks import ParquetTasks, PrefixSplit, RandomSplit
from bayesmeta.tasks import parquet_schema as schema_module

pytest.importorskip("pyarrow")


def table(num_tasks: int = 200, most: int = 9) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    counts = rng.integers(2, most, num_tasks)
    frame = pd.DataFrame({"cell": np.repeat(rng.permutation(num_tasks), counts), "arm": "u", "day": 0.0})
    frame["day"] = rng.uniform(size=len(frame))
    frame["arm"] = np.repeat(rng.choice(["u", "v", "w"], num_tasks), counts)
    frame["volt"] = frame.cell + frame.day
    missing = (rng.uniform(size=len(frame)) < 0.2) & (frame.groupby("cell").cumcount() > 0)
    return frame.assign(volt=frame.volt.mask(missing))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    table().to_parquet(tmp_path / "t.parquet", row_group_size=50)
    return tmp_path / "t.parquet"


def of(path: Path, **options: int) -> ParquetTasks:
    return ParquetTasks.from_parquet(path, task="cell", x=["day"], y=["volt"], covariates=["arm"], **options)


def in_memory() -> bm.TaskDataset:
    return bm.TaskDataset.from_frame(table(), task="cell", x=["day"], y=["volt"], covariates=["arm"])


def at(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_all_tasks_are_those_in_memory(source: Path) -> None:
    tasks, memory = of(source), in_memory()
    assert len(tasks) == len(memory)
    assert tasks.total_points == memory.total_points
    assert tasks.schema == memory.schema
    everything = tasks.sample(10_000)
    assert everything.names == memory.names
    torch.testing.assert_close(everything.flat.x, memory.flat.x, rtol=0, atol=0)
    torch.testing.assert_close(everything.flat.y, memory.flat.y, rtol=0, atol=0)
    torch.testing.assert_close(everything.counts, memory.counts)
    batch = tasks.draw(10_000, PrefixSplit.at(1), at(0))
    torch.testing.assert_close(batch.query.counts, memory.divided(PrefixSplit.at(1)).query.counts)


@pytest.mark.parametrize("options", [{}, {"memory": 1}, {"row_groups": 2}, {"row_groups": 1, "memory": 1}])
def test_a_draw_depends_on_its_generator_alone(source: Path, options: dict[str, int]) -> None:
    """Whatever was drawn before, in another process, and however little of the table is held."""
    tasks, memory = of(source, **options), in_memory()
    wanted = [tasks.draw(5, RandomSplit.at(1), at(step)) for step in range(8)]
    other = pickle.loads(pickle.dumps(tasks))
    for step in (6, 2, 7):
        found = other.draw(5, RandomSplit.at(1), at(step))
        assert found.names == wanted[step].names
        assert torch.equal(found.support.x, wanted[step].support.x)
    for batch in wanted:
        assert batch.names is not None
        assert len(set(batch.names)) == 5
        for place, name in enumerate(batch.names):
            ours = torch.cat([side.y[place][side.mask[place]] for side in (batch.support, batch.query)])
            assert ours.sort(0).values.equal(memory.task(name).y[0].sort(0).values)
    if options.get("memory") == 1:
        assert len(tasks._cache) == 1


def test_every_task_is_as_likely(source: Path) -> None:
    """In one stage and in two: 200 tasks, 4 of 3,000 draws each 60 times."""
    for tasks in (of(source), of(source, row_groups=2)):
        positions = [tasks._drawn(4, at(seed), tasks.row_groups) for seed in range(3000)]
        counts = np.bincount(np.concatenate(positions), minlength=200)
        # in two stages draws of a batch go together: a chi-square of 199 is then larger, by less than the batch's size
        assert ((counts - 60.0) ** 2 / 60.0).sum() < 4.0 * (199 + 4 * np.sqrt(2 * 199))
        assert counts.min() > 20


def test_sides_of_a_split_have_no_task_in_common(source: Path) -> None:
    tasks = of(source)
    train, test = tasks.split(0.3, seed=1)
    inner, validation = train.split(0.5, seed=2)
    names = [set(side.sample(1000).names) for side in (inner, validation, test)]
    assert sum(map(len, names)) == len(set.union(*names)) == len(tasks) == len(train) + len(test)
    assert 30 < len(test) < 90  # 60 of 200, five deviations of 6.5
    drawn = {name for step in range(20) for name in inner.draw(8, RandomSplit(), at(step)).names or ()}
    assert drawn <= names[0]
    assert len(inner.pooled(at(0)).x) > 0
    with pytest.raises(DataError, match="on both sides"):
        tasks.split(1e-9)


def test_fit_learns_from_a_stream(source: Path) -> None:
    """The loss of validation tasks falls, and what is learned depends on the seed alone."""
    train, held_out = of(source).split(0.3)
    losses = []
    for _ in range(2):
        torch.manual_seed(0)
        learner = bm.Standardized(bm.ALPaCA(bm.MLP(4, [8])))
        validation = held_out.sample(20)
        result = bm.fit(learner, train, 20, lr=0.02, validation=validation, validate_every=10, progress=False)
        losses.append(result.losses)
    assert result.validation[1][1] < result.validation[0][1] - 0.1
    assert losses[0] == losses[1]


def test_levels_of_the_whole_table_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that only the last rows have, of inputs and of classes."""
    monkeypatch.setattr(schema_module, "FIRST", 10)
    frame = table().assign(pain=["none", "mild"] * (len(table()) // 2) + ["none"] * (len(table()) % 2))
    frame.loc[frame.index[-1], ["arm", "pain"]] = ["x", "bad"]
    frame["arm"] = frame.groupby("cell").arm.transform("last")
    frame.to_parquet(tmp_path / "t.parquet", row_group_size=50)
    tasks = ParquetTasks.from_parquet(tmp_path / "t.parquet", task="cell", x=["day"], y="pain", covariates=["arm"])
    assert tasks.schema.levels["arm"] == ("u", "v", "w", "x")
    assert tasks.schema.classes == ("bad", "mild", "none")
    assert tasks.draw(4, RandomSplit(), at(0)).query.y.dtype == torch.int64


def test_tasks_without_outcome_are_left_out_and_counted(tmp_path: Path) -> None:
    frame = table()
    frame["volt"] = frame.volt.mask(frame.cell < 50)
    frame.to_parquet(tmp_path / "t.parquet", row_group_size=50)
    with pytest.warns(OutcomeWarning, match="50 tasks without an outcome left out"):
        tasks = of(tmp_path / "t.parquet")
    assert len(tasks) == 150
    assert min(tasks.sample(1000).names) == 50
    assert min(min(tasks.draw(9, RandomSplit(), at(seed)).names or ()) for seed in range(9)) >= 50
    frame.assign(volt=np.nan).to_parquet(tmp_path / "u.parquet")
    with pytest.raises(DataError, match="at least one task with an outcome"):
        of(tmp_path / "u.parquet")


def test_several_outcomes_with_gaps_and_bars(tmp_path: Path) -> None:
    frame = table().assign(amp=lambda f: 2.0 * f.day, err=0.1, bar=0.2)
    frame.to_parquet(tmp_path / "t.parquet", row_group_size=50)
    columns = {"task": "cell", "x": ["day"], "y": ["volt", "amp"], "yerr": ["err", "bar"]}
    found = ParquetTasks.from_parquet(tmp_path / "t.parquet", **columns).sample(1000)
    memory = bm.TaskDataset.from_frame(frame, **columns)
    torch.testing.assert_close(found.flat.noise, memory.flat.noise, rtol=0, atol=0)
    torch.testing.assert_close(found.flat.y, memory.flat.y, rtol=0, atol=0)


def test_the_index_takes_a_byte_a_task(source: Path) -> None:
    tasks = of(source)
    assert tasks.index.counts.dtype == np.uint8
    assert tasks.index.counts.nbytes + tasks.index.anchors.nbytes < 220 + 16
    assert repr(tasks).startswith("ParquetTasks(200 tasks, ")
