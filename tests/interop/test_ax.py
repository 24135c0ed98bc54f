"""The bridge to Ax, through its client: an experiment that is one more task."""

import logging
import warnings

import pytest
import torch

import bayesmeta as bm
from bayesmeta.errors import UnsupportedError

pytest.importorskip("botorch", reason="the bridge to BoTorch is an extra: pip install 'bayesmeta[botorch]'")
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Ax's own moves of its own modules
    pytest.importorskip("ax", reason="the bridge to Ax is an extra: pip install 'bayesmeta[ax]'")
    from ax.api.client import Client
    from ax.api.configs import RangeParameterConfig
    from botorch.models.transforms import Standardize

    from bayesmeta.interop.botorch.ax import AxModel, generation_strategy

BEST = torch.tensor([3.0, 5.0])


def _score(x: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """A peak of height 3 at a place of the task's own."""
    return 3.0 - (x - place).square().sum(-1, keepdim=True) / 10.0


@pytest.fixture(scope="module")
def learner() -> bm.Learner:
    """What 30 tasks say of peaks, in the units of the experiment: places of 0 to 10."""
    generator = torch.Generator().manual_seed(0)
    tasks = []
    for _ in range(30):
        x = 10.0 * torch.rand(12, 2, generator=generator)
        y = _score(x, 2.0 + 4.0 * torch.rand(2, generator=generator))
        tasks.append((x, y + 0.02 * torch.randn(12, 1, generator=generator)))
    learner = bm.Standardized(bm.ALPaCA(bm.Polynomial(2, 2)))
    bm.fit_evidence(learner, bm.TaskDataset.from_list(tasks))
    return learner


def _client(learner: bm.Learner, objective: str = "score", kind: str = "float") -> Client:
    client = Client()
    names = [RangeParameterConfig(name=n, parameter_type=kind, bounds=(0, 10)) for n in ("a", "b")]
    client.configure_experiment(name="one more task", parameters=names)
    client.configure_optimization(objective=objective)
    client.set_generation_strategy(generation_strategy(learner))
    return client


def _regrets(client: Client, trials: int, sign: float = 1.0) -> list[float]:
    """How far from the best of each trial."""
    found = []
    for _ in range(trials):
        for index, parameters in client.get_next_trials(max_trials=1).items():
            score = _score(torch.tensor([parameters["a"], parameters["b"]]).float(), BEST).item()
            client.complete_trial(index, raw_data={"score": sign * score})
            found.append(3.0 - score)
    return found


@pytest.fixture(autouse=True)
def _quiet() -> None:
    logging.getLogger("ax").setLevel(logging.WARNING)


def test_the_third_trial_is_at_the_peak(learner: bm.Learner) -> None:
    """The first is where peaks are in the mean, (4, 4), which has a regret of .2; then the shape is known."""
    regrets = _regrets(_client(learner), 4)
    assert regrets[0] < 0.5
    assert min(regrets[:3]) < 0.05
    assert regrets[3] < 0.05


def test_trials_that_are_attached_count(learner: bm.Learner) -> None:
    client = _client(learner)
    for x in ([1.0, 1.0], [6.0, 2.0], [2.0, 7.0]):
        index = client.attach_trial({"a": x[0], "b": x[1]})
        client.complete_trial(index, raw_data={"score": _score(torch.tensor(x), BEST).item()})
    assert _regrets(client, 1)[0] < 0.05


def test_what_is_small_may_be_wanted(learner: bm.Learner) -> None:
    """The learner predicts -score where tasks had -score; here one that knows scores is asked for the least."""
    client = _client(learner, objective="-score")
    (parameters,) = client.get_next_trials(max_trials=1).values()
    assert _score(torch.tensor([parameters["a"], parameters["b"]]), torch.tensor([4.0, 4.0])).item() < 0.0


def test_pending_trials_differ_and_whole_numbers_stay_whole(learner: bm.Learner) -> None:
    trials = list(_client(learner, kind="int").get_next_trials(max_trials=3).values())
    assert len({(each["a"], each["b"]) for each in trials}) == 3
    assert all(isinstance(value, int) for each in trials for value in each.values())


def test_the_first_trial_keeps_to_constraints(learner: bm.Learner) -> None:
    client = Client()
    names = [RangeParameterConfig(name=n, parameter_type="float", bounds=(0, 10)) for n in ("a", "b")]
    client.configure_experiment(name="one more task", parameters=names, parameter_constraints=["a + b <= 5"])
    client.configure_optimization(objective="score")
    client.set_generation_strategy(generation_strategy(learner))
    (parameters,) = client.get_next_trials(max_trials=1).values()
    assert 4.0 < parameters["a"] + parameters["b"] <= 5.0  # peaks are at (4, 4) in the mean


def test_the_model_of_the_trials() -> None:
    x, y = torch.rand(3, 2).double(), torch.rand(3, 1).double()
    learner = bm.ALPaCA(bm.Polynomial(2, 2))
    model = AxModel(x, y, torch.tensor([[float("nan")], [0.0], [0.0]]).double(), learner=learner)
    assert model.data.noise is None
    assert model.condition_on_observations(x, y).data.num_points == 6
    noisy = AxModel(x, y, torch.full((3, 1), 0.3).double(), learner=learner)
    assert bool((noisy.posterior(x).variance > model.posterior(x).variance).all())
    with pytest.raises(UnsupportedError, match="expected no outcome_transform, got Standardize"):
        AxModel(x, y, learner=learner, outcome_transform=Standardize(1))
    with pytest.raises(UnsupportedError, match="expected a learner, got none"):
        AxModel(x, y)
