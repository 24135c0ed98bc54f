"""Several processes: who is who, how steps are divided, and that two and four of them train as one does."""

import importlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from torch import Tensor

import bayesmeta as bm
from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.training import Processes, alone
from bayesmeta.training.divided import divided
from bayesmeta.training.loop import Batches, BatchStep, Validation, guarded, losses_of
from bayesmeta.training.runs.folder import Unkept
from bayesmeta.training.shared_run import SharedRun

ROOT = Path(__file__).parents[2]
LAUNCHED = {"RANK": "1", "WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
SINUSOIDS = bm.tasks.Sinusoid().dataset(11, 9, seed=0)
UNEQUAL = bm.TaskDataset.from_list(
    [(SINUSOIDS.data.x[t, : 3 + t % 7], SINUSOIDS.data.y[t, : 3 + t % 7]) for t in range(11)]
)


def test_one_process_where_nobody_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Processes.here()
    assert (here, here.is_first, here.connect(), here.share(5)) == (Processes(0, 1), True, here, slice(0, 5))
    assert here.device.type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name, value in LAUNCHED.items():
        monkeypatch.setenv(name, value)
    assert Processes.here() == Processes(1, 3)
    with alone():
        assert Processes.here() == Processes()
    monkeypatch.setenv("WORLD_SIZE", "many")
    with pytest.raises(DataError, match="a whole number in the environment variable WORLD_SIZE, got 'many'"):
        Processes.here()
    monkeypatch.delenv("MASTER_PORT")  # set by something else than a launcher
    assert Processes.here() == Processes()


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_shares_are_all_tasks_once(count: int) -> None:
    for num_tasks in (0, 1, 5, 16):
        shares = [Processes(rank, count).share(num_tasks) for rank in range(count)]
        assert [i for share in shares for i in range(num_tasks)[share]] == list(range(num_tasks))
        sizes = [share.stop - share.start for share in shares]
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("rank", "count"), [(3, 3), (0, 0), (-1, 2)])
def test_a_rank_is_one_of_them(rank: Any, count: Any) -> None:
    with pytest.raises(DataError):
        Processes(rank, count)


def test_alone_everything_is_ones_own() -> None:
    here, value = Processes(), torch.ones(2)
    assert here.add(value) is value
    assert here.gathered(3) == [3]
    assert here.of_first(3) == 3
    assert here.first_does(lambda: 3) == 3
    here.agree({"seed": 0})
    here.copy_from_first([value])
    here.require_devices(torch.device("cuda", 0))
    here.fail_together(None)
    with pytest.raises(KeyError):
        here.fail_together(KeyError("x"))


@dataclass(frozen=True)
class _OneByOne(Processes):
    """Processes that are computed one after the other: what each would add is kept."""

    given: list[Tensor] = field(default_factory=list)

    def add(self, value: Tensor) -> Tensor:
        self.given.append(value)
        return value

    def of_first(self, value: Any) -> Any:
        return value

    def gathered(self, value: Any) -> list[Any]:
        return [value]


class _Plain(BatchStep):
    def __init__(self, learner: bm.Learner, batches: Batches, objective: bm.training.Objective | None) -> None:
        super().__init__(learner, batches)
        self.loss_of = losses_of(learner, objective)

    def gradient_of(self, batch: bm.TaskBatch, step: int) -> Tensor:
        total = self.batches.total_points
        loss = guarded(self.loss_of, batch, step).mean() - self.learner.log_hyperprior() / total
        loss.backward()
        return loss.detach()


def _gradient(step: Any, learner: bm.Learner) -> Tensor:
    learner.zero_grad(set_to_none=True)
    loss = step.gradient(1)
    return torch.cat([loss[None], *[p.grad.flatten() for p in learner.parameters() if p.grad is not None]])


OBJECTIVES = [None, bm.training.Evidence(), bm.training.MarginalPredictive()]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda each: type(each).__name__)
@pytest.mark.parametrize(("count", "size"), [(2, 5), (3, 11), (4, 3)])
def test_gradients_of_parts_add_up(objective: bm.training.Objective | None, count: int, size: int) -> None:
    """Parts of unequal size, tasks of unequal length, a process without tasks, and a hyperprior that counts once."""
    learner = bm.wrappers.WithHyperprior(bm.ALPaCA(bm.MLP(1, [4])), bm.hyperpriors.GaussianHyperprior()).double()
    plain = _Plain(learner, Batches(UNEQUAL, size, bm.tasks.RandomSplit((0, 4)), 3), objective)
    watched = Validation(learner, plain.loss_of, [learner.conform_tasks(plain.batches.draw(2))], 1, None, lambda: None)
    wanted, found, scores = _gradient(plain, learner), torch.zeros(()), 0.0
    with torch.no_grad():  # as a look is
        score = watched.mean_loss(1)
    for rank in range(count):
        run = SharedRun(_OneByOne(rank, count), Unkept)
        step, shared = divided(plain, watched, run, objective)
        before = torch.get_rng_state()
        part = _gradient(step, learner)
        found = found + (part if len(part) > 1 else 0.0)
        assert torch.equal(before, torch.get_rng_state())
        assert shared is not None
        with torch.no_grad():
            scores += shared.mean_loss(1)
    assert (found - wanted).abs().max() < 1e-13  # a sum in another order
    assert abs(scores - score) < 1e-13


class _ByTheBatch(bm.training.Objective):
    def loss(self, learner: bm.Learner, tasks: bm.TaskBatch) -> Tensor:
        return learner.loss(tasks) / tasks.query.y.square().mean()


@pytest.mark.parametrize(("count", "size"), [(2, 6), (5, 5)])
def test_losses_that_depend_on_other_tasks_are_refused(count: int, size: int) -> None:
    learner = bm.ALPaCA(bm.MLP(1, [4]))
    plain = _Plain(learner, Batches(UNEQUAL, size, bm.tasks.RandomSplit((0, 4)), 3), _ByTheBatch())
    run = SharedRun(_OneByOne(0, count), Unkept)
    step, _ = divided(plain, None, run, _ByTheBatch())
    with pytest.raises(UnsupportedError, match="tasks do not depend on each other"):
        step.gradient(1)


# ------------------------------------------------------------------------------------------------- processes, started


def _tried(folder: Path, counts: list[int], steps: int) -> dict[str, Any]:
    command = [sys.executable, "-W", "error", "-m", "tests.training.together", str(folder), *map(str, counts)]
    environment = {name: value for name, value in os.environ.items() if name not in LAUNCHED}
    environment |= {"OMP_NUM_THREADS": "1", "STEPS": str(steps)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert all(each is not None for count in counts for each in found[str(count)]), done.stderr
    return found


def _check_same(found: dict[str, Any], count: int, tolerance: float) -> None:
    """All processes end with the same bits, and with what one process ends with."""
    (one,), several = found["1"], found[str(count)]
    for name, wanted in one.items():
        first = several[0][name]
        assert all(other[name] == first for other in several), name
        assert torch.tensor(first["theta"]).sub(torch.tensor(wanted["theta"])).abs().max() < tolerance, name
        for key in ("losses", "seen"):
            assert first[key] == pytest.approx(wanted[key], abs=tolerance), name
        assert first["rest"][:2] == wanted["rest"][:2], name  # the best step, and what was skipped
        assert bool(first["rest"][1]) is (name == "skipping")


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return _tried(tmp_path_factory.mktemp("together"), [1, 2], steps=12)


def test_two_processes_train_as_one(together: dict[str, Any]) -> None:
    _check_same(together, 2, 1e-10)  # rounding, which Adam may enlarge


@pytest.mark.slow
def test_two_and_four_processes_train_as_one_after_200_steps(tmp_path: Path) -> None:
    found = _tried(tmp_path, [1, 2, 4], steps=200)
    for count in (2, 4):
        _check_same(found, count, 1e-10)


def test_what_fails_in_one_fails_in_all(together: dict[str, Any]) -> None:
    first, second = (each["failures"] for each in together["2"])
    assert {name for name in first if first[name] != second[name]} == {"own", "callback", "told"}
    for name, start in {
        "not finite": "InferenceError: expected finite losses, got nan at step 1 for task 4.",
        "singular": "InferenceError: at step 1 (3): singular: task 3",
        "held out": "InferenceError: expected finite losses, got nan at step 1 for task ",
        "written": "DataError: expected a folder that can be written, got ",
        "seeds": "DataError: expected the same seed in all 2 processes, got 0 in process 0 and 1 in process 1: ",
        "tasks": "DataError: expected the same tasks in all 2 processes, got ",
        "coupled": "UnsupportedError: expected losses of ALPaCA in which tasks do not depend on each other, ",
        "alone": "none",
        "own": "KeyError: 'no such column'",
        "callback": "LookupError: enough",
        "too many": "InferenceError: expected finite losses, got ",
        "told": "2",
    }.items():
        assert first[name].startswith(start), first[name]
    assert second["told"] == "0"
    assert second["callback"].endswith("got LookupError in process 0: enough")
    assert "the tasks that fail are 0, after 2, and max_skipped=2" in first["too many"]
    assert second["own"] == (
        "InferenceError: expected all processes to go on, got KeyError in process 0: 'no such column'"
    )


def test_a_killed_run_and_a_stopped_one_go_on_to_the_same_bits(together: dict[str, Any]) -> None:
    assert together["killed"][0].startswith("expected all processes to go on, got none from another one")
    assert together["killed"][1] is None
    runs = [each["runs"] for each in together["2"]]
    assert runs[0] == runs[1]
    for name, run in runs[0].items():
        assert run["interrupted"] is (name == "stopped")
        assert (run["steps"] < 14) is (name == "stopped")
        assert (run["theta"] == runs[0]["unbroken"]["theta"]) is (name != "stopped"), name


def test_what_is_not_divided_is_the_same_in_all(together: dict[str, Any]) -> None:
    first, second = (each["searched"] for each in together["2"])
    assert first == second


@pytest.mark.slow
def test_torchrun_starts_a_killed_training_again(tmp_path: Path) -> None:
    """A worker is killed in the first sitting; the second one ends with the bits of a training without that."""
    ends = []
    for name in ("killed", "unbroken"):
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1"]
        command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "-m", "tests.training.restarted"]
        done = subprocess.run([*command, str(tmp_path / name)], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        ends.append([(tmp_path / name / f"{rank}.json").read_text() for rank in range(2)])
    assert len({*ends[0], *ends[1]}) == 1
    assert (tmp_path / "killed" / "sittings").read_text() == "2"
    assert (tmp_path / "unbroken" / "sittings").read_text() == "1"


# ------------------------------------------------------------------------------------------------------------ recipes


def test_recipes_of_launchers_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """With stand-ins for Ray, which nobody needs for this."""
    monkeypatch.syspath_prepend(ROOT / "docs" / "programs")
    for name in ("ray", "ray.train", "ray.train.torch"):
        monkeypatch.setitem(sys.modules, name, MagicMock())
    recipe = importlib.import_module("ray_train")
    assert callable(recipe.train.main)
    for name in ("train", "ray_train"):
        monkeypatch.delitem(sys.modules, name)
