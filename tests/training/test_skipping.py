"""Tasks whose loss or gradient is not finite: left out and named, up to a limit."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import bayesmeta as bm
from bayesmeta.errors import InferenceError
from bayesmeta.training import Callback, StepRecord

MARK = 50.0  # an outcome of the tasks that are broken
HOW = ["loss", "error", "gradient"]


class Fragile(bm.ALPaCA):
    """It fails on tasks with the mark, in one of three ways."""

    def __init__(self, how: str = "loss") -> None:
        super().__init__(bm.MLP(1, [4]), noise=bm.noise.DiagonalNoise(1, 0.3))  # given: it starts there
        self.how = how

    def loss(self, tasks: bm.TaskBatch) -> Tensor:
        broken = (tasks.joined().y == MARK).flatten(1).any(1).nonzero()[:, 0]
        each = super().loss(tasks)
        if not len(broken):
            return each
        if self.how == "error":
            place = int(broken[0])
            raise InferenceError(f"expected a factor, got none in task {place}", place)
        number = self.prior.location.sum()
        bad = each.new_full((), torch.nan) if self.how == "loss" else (number - number.detach()).sqrt()  # 0, slope inf
        return each.index_add(0, broken, bad.expand(len(broken)).to(each))


def learner(how: str) -> Fragile:
    torch.manual_seed(0)
    return Fragile(how)


def tasks(broken: tuple[int, ...], count: int = 6) -> bm.TaskDataset:
    data = bm.tasks.Sinusoid().dataset(count, 6, seed=0).data.clone()
    data.y[list(broken), 0] = MARK
    return bm.TaskDataset(data, names=[f"robot {i}" for i in range(count)])


@pytest.mark.parametrize("how", HOW)
def test_broken_tasks_are_left_out_and_named(how: str) -> None:
    """Every batch has all six tasks, so that it is known what each step computes."""
    steps = []

    class Seen(Callback):
        def on_step(self, record: StepRecord) -> None:
            steps.append(record.skipped)

    one = learner(how)
    start = copy.deepcopy(one)
    arguments = {"batch_size": 6, "progress": False, "split": bm.tasks.PrefixSplit.at(3), "grad_clip": 1e9}
    result = bm.fit(one, tasks((1, 4)), 2, max_skipped=4, callbacks=[Seen()], **arguments)
    assert steps == [2, 2]
    assert sorted(result.skipped) == [(1, "robot 1"), (1, "robot 4"), (2, "robot 1"), (2, "robot 4")]
    assert "4 tasks skipped" in repr(result)
    whole = start.conform_tasks(tasks((1, 4)).divided(bm.tasks.PrefixSplit.at(3)))
    loss = start.loss(whole.select([0, 2, 3, 5])).mean()
    assert result.losses[0] == pytest.approx(loss.item(), rel=1e-6)
    gradient = torch.autograd.grad(loss, [p for p in start.parameters() if p.requires_grad])
    norm = torch.stack([g.double().norm() for g in gradient]).norm().item()
    assert result.gradient_norms[0] == pytest.approx(norm, rel=1e-5)


@pytest.mark.parametrize("how", HOW)
def test_above_the_limit_it_is_an_error(how: str) -> None:
    one = learner(how)
    theta = [p.detach().clone() for p in one.parameters()]
    with pytest.raises(InferenceError, match=r"tasks that fail are 'robot \d', 'robot \d', after 0, and max_skipped=1"):
        bm.fit(one, tasks((1, 4)), 2, batch_size=6, max_skipped=1, progress=False)
    assert all(map(torch.equal, theta, one.parameters()))
    with pytest.raises(InferenceError, match="all of its tasks fail"):
        bm.fit(learner(how), tasks((0, 1, 2, 3, 4, 5)), 2, batch_size=6, max_skipped=100, progress=False)
    with pytest.raises(InferenceError, match="at step 1"):
        bm.fit(learner(how), tasks((1,)), 2, batch_size=6, progress=False)


def test_what_was_skipped_is_kept_with_a_run(tmp_path: Path) -> None:
    arguments = {"batch_size": 6, "progress": False, "checkpoint": tmp_path / "run", "every": 1, "max_skipped": 4}

    class Stop(Callback):
        def on_step(self, record: StepRecord) -> None:
            if record.step == 3:
                raise LookupError

    whole = bm.fit(learner("loss"), tasks((2,)), 4, batch_size=6, max_skipped=4, progress=False)
    with pytest.raises(LookupError):
        bm.fit(learner("loss"), tasks((2,)), 4, callbacks=[Stop()], **arguments)
    result = bm.fit(learner("loss"), tasks((2,)), 4, resume="auto", **arguments)
    assert result.skipped == whole.skipped == tuple((step, "robot 2") for step in (1, 2, 3, 4))
    assert result.losses == whole.losses


def in_two_processes(folder: Path) -> None:
    """What each of two processes, or one, ends with: a task of each part is broken, or a whole part."""
    here, found = bm.training.Processes.here(), []
    for broken, most in (((1, 4), 4), ((3, 4, 5), 6), ((1, 4), 3)):
        one = learner("gradient").double()
        try:
            result = bm.fit(one, tasks(broken), 2, batch_size=6, max_skipped=most, progress=False)
            theta = torch.cat([p.detach().flatten() for p in one.parameters()])
            found.append([sorted(result.skipped), theta.tolist(), result.losses])
        except InferenceError as error:
            found.append([f"max_skipped={most}" in str(error)])
    (folder / f"{here.rank} of {here.count}.json").write_text(json.dumps(found))


@pytest.mark.slow
def test_several_processes_skip_as_one_does(tmp_path: Path) -> None:
    launcher = ["torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m"]
    for each in ([], launcher):
        command = [sys.executable, "-m", *each, "tests.training.test_skipping", str(tmp_path)]
        subprocess.run(command, check=True, timeout=600)
    one, *both = (json.loads((tmp_path / name).read_text()) for name in ("0 of 1.json", "0 of 2.json", "1 of 2.json"))
    for two in both:
        assert [each[0] for each in two] == [each[0] for each in one]
        for ours, theirs in zip(two[:2], one[:2], strict=True):
            assert ours[1] == pytest.approx(theirs[1], abs=1e-9)
            assert ours[2] == pytest.approx(theirs[2], rel=1e-9)


def test_nothing_changes_without_a_failure() -> None:
    results = [bm.fit(learner("loss"), tasks(()), 3, max_skipped=most, progress=False) for most in (0, 5)]
    assert results[0].losses == results[1].losses
    assert results[1].skipped == ()


if __name__ == "__main__":
    in_two_processes(Path(sys.argv[1]))
