"""What is said of a trained learner at the end of a fit, and of a training."""

import math

import pandas as pd
import pytest
import torch

import bayesmeta as bm
from bayesmeta.corrections import corrected, require_correctable
from bayesmeta.standing import deviations, standing
from bayesmeta.trainers import ByEvidence, ByGradients, Training, settling
from bayesmeta.training import FitResult

SCHEMA = bm.tasks.Schema("task", x=("x",), y=("level",))


def test_deviations_are_those_of_the_model() -> None:
    """y = phi + ε: τ and σ are theta, whatever the points."""
    learner = bm.ALPaCA(bm.Polynomial(1, 0)).double()
    tasks = bm.tasks.Sawtooth().dataset(30, 5, seed=0)
    noise = learner.prior.noise.variance().sqrt().item()
    between = (learner.prior.covariance.matrix()[..., 0, 0] * noise**2).sqrt().item()
    found = deviations(learner, tasks)
    assert found.noise is not None
    assert found.between is not None
    torch.testing.assert_close(found.noise.item(), noise)
    torch.testing.assert_close(found.between.item(), between)
    torch.testing.assert_close(found.total.item(), math.hypot(noise, between))
    assert found.lowest is not None
    torch.testing.assert_close(found.lowest, found.highest)


def test_units_are_those_of_the_table() -> None:
    frame = pd.DataFrame({"who": list("aaabbbccc"), "t": [0.0, 1, 2] * 3, "y": [1.0, 2, 2.5, 3, 4.2, 5, 0.2, 1, 2.1]})
    found = []
    for unit in (1.0, 1000.0):
        tasks = bm.TaskDataset.from_frame(frame.assign(y=unit * frame["y"]), task="who", x=["t"], y="y")
        learner = bm.Standardized(bm.ALPaCA(bm.Identity(1))).double()
        ByEvidence()(learner, tasks, Training())
        found.append(deviations(learner, tasks))
    # where a search ends moves with rounding
    torch.testing.assert_close(found[1].total, 1000.0 * found[0].total, rtol=1e-5, atol=0.0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: bm.ConditionalNeuralProcess(bm.MLP(1, [4])), "this method does not tell noise from how tasks differ"),
        (lambda: bm.MAML(bm.MLP(1, [4]), posterior=bm.PointEstimate()), "this method does not tell noise from"),
        (lambda: bm.ALPaCA(bm.Identity(1)), "tasks differ by"),
    ],
)
def test_every_kind_of_learner_has_a_line(make, words: str) -> None:
    (line,) = standing(make(), bm.tasks.Sawtooth().dataset(12, 5, seed=0), SCHEMA)
    assert line.startswith("level: ")
    assert words in line


def test_little_noise_and_little_difference_are_said() -> None:
    """Noise that is a millionth of the outcomes' deviation, and tasks that are all alike."""
    x = torch.linspace(0.0, 1.0, 6, dtype=torch.float64)
    exact = bm.TaskDataset.from_list([(x, slope * x) for slope in (1.0, 2.0, 3.0, 4.0)])
    learner = bm.Standardized(bm.ALPaCA(bm.Identity(1))).double()
    with pytest.warns(bm.ConvergenceWarning):
        ByEvidence()(learner, exact, Training())
    assert standing(learner, exact, SCHEMA)[0].endswith(
        "next to no noise is left, so that a task is predicted through its rows"
    )
    noise = torch.randn(40, 6, dtype=torch.float64)
    alike = bm.TaskDataset.from_list([(x, each - each.mean()) for each in noise])
    learner = bm.Standardized(bm.ALPaCA(bm.Polynomial(1, 0))).double()
    ByEvidence()(learner, alike, Training())
    (line,) = standing(learner, alike, SCHEMA)
    assert "tasks hardly differ" in line or "how much tasks differ is" in line


def test_classes_have_base_rates() -> None:
    frame = pd.DataFrame(
        {"who": list("aabbcc"), "t": [0.0, 1, 0, 1, 0, 1], "ill": ["no", "yes", "no", "no", "no", "no"]}
    )
    tasks = bm.TaskDataset.from_frame(frame, task="who", x=["t"], y="ill")
    learner = bm.MAML(bm.MLP(1, [4]), likelihood=bm.likelihoods.Categorical(2))
    (line,) = standing(learner, tasks, tasks.schema)
    assert line.startswith("ill: before a row of a task is known, probabilities (and frequencies) are no 0.")
    assert "(0.83), yes 0." in line
    assert line.endswith("(0.17)")


@pytest.mark.parametrize(
    ("result", "steps", "words"),
    [
        (
            FitResult((1.0,) * 30, ((10, 1.0), (30, 2.0)), 10, True, 1.0),
            100,
            "converged: validation was best at step 10",
        ),
        (
            FitResult((1.0,) * 100, tuple((s, 2.0) for s in range(10, 101, 10)), 10, False, 1.0),
            100,
            "converged: the val",
        ),
        (
            FitResult((1.0,) * 100, tuple((s, -s / 50) for s in range(10, 101, 10)), 100, False, 1.0),
            100,
            "fell by 0.40",
        ),
        (
            FitResult(tuple(5.0 - 0.01 * s for s in range(100)), (), 100, False, 1.0),
            100,
            "the training loss fell by 0.20",
        ),
        (FitResult(tuple(float(s % 2) for s in range(100)), (), 100, False, 1.0), 100, "converged: the training loss"),
        (FitResult((1.0, 1.0), (), 2, False, 1.0), 2, "2 steps are too few to tell"),
    ],
)
def test_whether_steps_have_settled(result: FitResult, steps: int, words: str) -> None:
    assert words in settling(result, steps)


def test_whether_a_search_has_arrived() -> None:
    tasks = bm.tasks.Sawtooth().dataset(12, 5, seed=0)
    learner = bm.Standardized(bm.ALPaCA(bm.Identity(1))).double()
    with pytest.warns(bm.ConvergenceWarning):
        trained = ByEvidence()(learner, tasks, Training(steps=1))
    assert trained.convergence == "not converged in 1 iterations: raise --steps, up to 500"
    assert ByEvidence()(learner, tasks, Training()).convergence == "converged: nothing more was to be gained"


@pytest.mark.parametrize(
    "wrong", [{"validation": 1.0}, {"validation": -0.1}, {"lr": 0.0}, {"lr": math.inf}, {"steps": 0}]
)
def test_training_is_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(bm.DataError, match="expected"):
        Training(**wrong)


def test_the_rate_and_the_device_reach_the_steps(device: torch.device) -> None:
    tasks = bm.tasks.Sawtooth().dataset(12, 5, seed=0)
    learners = [bm.Standardized(bm.ALPaCA(bm.MLP(1, [4]))) for _ in range(2)]
    learners[1].load_state_dict(learners[0].state_dict())
    for learner, lr in zip(learners, (1e-6, 0.1), strict=True):
        ByGradients()(learner, tasks, Training(steps=1, validation=0.0, lr=lr, device=device, progress=False))
        assert learner.placement()[1].type == device.type
    small, large = ([p.detach().clone() for p in each.parameters()] for each in learners)
    assert max((a - b).abs().max().item() for a, b in zip(small, large, strict=True)) > 0.05


def test_corrections_need_tasks_and_unknown_noise() -> None:
    tasks = bm.tasks.GPFunctions.eq().dataset(12, 4, seed=0)
    noisy = bm.tasks.Schema("task", x=("x",), y=("y",), yerr=("e",))
    with pytest.raises(bm.UnsupportedError, match="expected no known noise where predictions are corrected"):
        require_correctable(tasks, noisy)
    with pytest.raises(bm.DataError, match="expected at least 10 tasks"):
        corrected(bm.ALPaCA(bm.Identity(1)), tasks.select(range(9)), SCHEMA)
    exact, said = corrected(bm.tasks.GPFunctions.eq().oracle, tasks, SCHEMA)
    assert exact.shots == (0, 1, 2)  # no task has a sixth point
    assert said == "nothing was to be corrected, by 12 tasks" or said.startswith("deviations are multiplied by")
