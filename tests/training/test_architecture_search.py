"""The search for an architecture: what it visits, what it costs, what it concludes, and that it can be killed."""

import itertools
import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bayesmeta as bm
from bayesmeta.training import Architecture, ArchitectureSearch, DenseSpace, SearchResult, Steps, Surrogate, Trial
from bayesmeta.training.architectures import search as search_file
from bayesmeta.training.architectures.trials import read_trials

SINUSOIDS = bm.tasks.Sinusoid()
VALIDATION = SINUSOIDS.dataset(12, 8, seed=1)
SPLIT = bm.tasks.RandomSplit((2, 4), 4)


def _space() -> DenseSpace:
    return DenseSpace(1, depths=(1, 2), widths=(4, 8), activations=("tanh", "relu"))


def _search(
    space: bm.training.Space | None = None,
    budget: bm.training.Budget | None = None,
    make: Callable[[bm.Network], bm.Learner] = bm.ALPaCA,
) -> ArchitectureSearch:
    return ArchitectureSearch(
        _space() if space is None else space,
        make,
        Steps((1, 2, 4)) if budget is None else budget,
        candidates=5,
        survivors=2,
        keep=0.5,
        batch_size=2,
        lr=0.01,
        split=SPLIT,
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[SearchResult, Path]:
    """A whole search, and its file."""
    path = tmp_path_factory.mktemp("search") / "trials.jsonl"
    return _search().run(SINUSOIDS, VALIDATION, path), path


def test_it_starts_with_the_smallest_and_grows_what_survives(found: tuple[SearchResult, Path]) -> None:
    result, _ = found
    space, rounds = _space(), [[t for t in result.trials if t.round == number] for number in range(2)]
    assert [t.architecture for t in rounds[0] if t.rung == 0] == space.smallest()
    for number, trials in enumerate(rounds):
        assert {t.architecture["depth"] for t in trials} == {number + 1}
        assert all(t.steps == (1, 2, 4)[t.rung] for t in trials)
        # of n tried on a rung half go on, and two at least
        sizes = [sum(t.rung == rung for t in trials) for rung in range(3)]
        assert sizes[1] == max(math.ceil(sizes[0] / 2), 2)
        assert sizes[2] == max(math.ceil(sizes[1] / 2), 2)
        for rung in (0, 1):  # and these are the best
            here = sorted((t for t in trials if t.rung == rung), key=result.log_joint, reverse=True)
            assert [t.architecture for t in trials if t.rung == rung + 1] == [
                t.architecture for t in here[: sizes[rung + 1]]
            ]
    for before, after in itertools.pairwise(rounds):
        finalists = sorted((t for t in before if t.rung == 2), key=result.log_joint, reverse=True)
        parents = [t.architecture for t in finalists[:2]]
        children = {child for parent in parents for child in space.grown(parent)}
        chosen = [t.architecture for t in after if t.rung == 0]
        assert len(chosen) == len(set(chosen)) == min(5, len(children))
        assert set(chosen) <= children


def test_the_surrogate_chooses_among_the_children(found: tuple[SearchResult, Path]) -> None:
    result, _ = found
    search, space = _search(), _space()
    before = [t for t in result.trials if t.round == 0]
    best = sorted((t for t in before if t.rung == 2), key=result.log_joint, reverse=True)[:2]
    pool = list(dict.fromkeys(child for t in best for child in space.grown(t.architecture)))
    mean, deviation = Surrogate.fit(space, search.budget, before).scores(pool, rung=2)
    value = mean + deviation - 1e-3 * np.array([space.num_parameters(a) for a in pool]) / result.points
    expected = [pool[place] for place in np.argsort(-value, kind="stable")[:5]]
    assert [t.architecture for t in result.trials if t.round == 1 and t.rung == 0] == expected


def test_a_search_that_is_killed_ends_with_the_same_table(
    found: tuple[SearchResult, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, file = found
    path, fit, count = tmp_path / "trials.jsonl", search_file.fit, [0]

    def killed(*arguments: object, **named: object) -> object:
        count[0] += 1
        if count[0] == 7:
            raise KeyboardInterrupt
        return fit(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(search_file, "fit", killed)
    with pytest.raises(KeyboardInterrupt):
        _search().run(SINUSOIDS, VALIDATION, path)
    assert len(path.read_text().splitlines()) == 1 + 6
    torch.rand(7)  # what else is drawn meanwhile does not matter
    resumed = _search().run(SINUSOIDS, VALIDATION, path)
    assert [t.untimed for t in resumed.trials] == [t.untimed for t in whole.trials]  # bit for bit
    assert [_untimed(line) for line in path.read_text().splitlines()] == [
        _untimed(line) for line in file.read_text().splitlines()
    ]
    assert count[0] == 7 + len(whole.trials) - 6  # and nothing was trained twice


def test_a_search_goes_on_in_the_middle_of_a_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = DenseSpace(1, depths=(1,), widths=(2, 4), activations=("relu",), norms=(None,))
    search = ArchitectureSearch(space, bm.ALPaCA, Steps((6,)), batch_size=2, survivors=1)
    source = bm.tasks.Sinusoid()
    whole = search.run(source, VALIDATION)
    inner, draws = bm.tasks.Sinusoid.draw, []

    def draw(self: bm.tasks.Sinusoid, *arguments: Any) -> bm.TaskBatch:
        draws.append(1)
        if len(draws) == 6 + 5:  # of the second trial
            os.kill(os.getpid(), signal.SIGTERM)
        return inner(self, *arguments)

    monkeypatch.setattr(bm.tasks.Sinusoid, "draw", draw)
    where: dict[str, Any] = {"trials": tmp_path / "trials.jsonl", "checkpoint": tmp_path / "run", "every": 2}
    with pytest.raises(KeyboardInterrupt):
        search.run(source, VALIDATION, **where)
    again = search.run(source, VALIDATION, **where)
    assert len(draws) == 2 * 6  # no step was taken twice
    assert [t.untimed for t in again.trials] == [t.untimed for t in whole.trials]
    assert not list((tmp_path / "run").iterdir())  # a trial that is done needs no states


def _untimed(line: str) -> object:
    row = json.loads(line)
    row.pop("seconds", None)
    return row


def test_a_learner_that_is_trained_anew_is_the_one_that_was_scored(found: tuple[SearchResult, Path]) -> None:
    result, path = found
    again = _search().run(SINUSOIDS, VALIDATION, path)  # every trial is in the file: nothing is trained
    trial, x = again.finalists[0], [0.3]
    assert [t.seconds for t in again.trials] == [t.seconds for t in result.trials]
    support = bm.Data.from_arrays([0.0, 1.0], [0.2, 0.4])
    mean, other = (each.learner().adapt(support).predict(x).mean for each in (result, again))
    assert bool((mean == other).all())
    batch = VALIDATION.divided(SPLIT, 0)
    learner = again.learner()
    query = learner.conform(batch.query)
    density = learner.adapt(batch.support).predict(query.x).log_prob(query.y, query.mask) / 4
    assert density.tolist() == pytest.approx(trial.density, rel=1e-6)  # float32


def test_a_file_of_another_search_is_refused(found: tuple[SearchResult, Path], tmp_path: Path) -> None:
    _, path = found
    before = path.read_bytes()
    with pytest.raises(bm.DataError, match=r"one with another budget in .* name another file"):
        _search(budget=Steps((1, 2, 5))).run(SINUSOIDS, VALIDATION, path)
    with pytest.raises(bm.DataError, match="one with another learner in"):
        _search(make=bm.R2D2Regressor).run(SINUSOIDS, VALIDATION, path)
    with pytest.raises(bm.DataError, match="one with another validation in"):
        _search().run(SINUSOIDS, SINUSOIDS.dataset(12, 8, seed=2), path)
    assert path.read_bytes() == before
    broken = tmp_path / "broken.jsonl"
    for text in ("", "no json\n", '{"a": 1}\n', "[]\n"):
        broken.write_text(text)
        with pytest.raises(bm.DataError, match="expected a file of trials, got"):
            read_trials(broken, {}, _space())


def test_scores_are_those_of_the_trained_learner_with_their_bootstrap_error() -> None:
    rng = np.random.default_rng(0)
    density, counts = rng.normal(size=400), rng.integers(1, 9, 400)
    trial = Trial.scored(_trial(4).architecture, density, counts, round=0, rung=0, steps=1, seed=0, parameters=1)
    assert trial.score == pytest.approx(density.mean(), rel=1e-12)
    assert trial.evidence == pytest.approx(density @ counts, rel=1e-12)
    assert trial.error == pytest.approx(density.std() / 20.0, rel=0.1)  # 1,000 resamplings: a deviation to 2.2 %


def _trial(width: int, density: tuple[float, ...] = (-1.0, -1.0), parameters: int = 0, failure: str = "") -> Trial:
    space = DenseSpace(1, depths=(1,), widths=(4, 8, 16, 32), activations=("relu",))
    architecture = next(each for each in space.all() if each["width"] == width)
    about = {"round": 0, "rung": 0, "steps": 1, "seed": 0, "parameters": parameters}
    if failure:
        return Trial(architecture, failure=failure, **about)  # type: ignore[arg-type]
    return Trial.scored(architecture, density, [5] * len(density), **about)


def _result(*trials: Trial, price: float = 0.0, train: Callable[[Trial], bm.Learner] | None = None) -> SearchResult:
    def lines(trial: Trial) -> bm.Learner:
        torch.manual_seed(int(trial.architecture["width"]))  # type: ignore[arg-type]
        return bm.ALPaCA(bm.MLP(1, [3])).double()

    return SearchResult(trials, 10, 0, price, lines if train is None else train)


def test_weights_are_the_prior_times_the_evidence_of_validation_tasks() -> None:
    trials = _trial(4, (-1.0, -0.8), 10), _trial(8, (-0.7, -0.9), 30), _trial(16, failure="diverged")
    weights = _result(*trials, price=0.1).weights()
    joint = np.array([5 * -1.8 - 0.1 * 10, 5 * -1.6 - 0.1 * 30])  # 5 points a task, .1 nats a parameter
    expected = np.exp(joint) / np.exp(joint).sum()
    assert sum(weights.values()) == pytest.approx(1.0, abs=1e-12)
    assert [weights[t.architecture] for t in trials[:2]] == pytest.approx(expected.tolist(), rel=1e-9)


def test_the_average_is_the_mixture_of_the_finalists() -> None:
    result = _result(_trial(4, (-1.0, -0.8)), _trial(8, (-0.9, -0.9)), _trial(32, (-9.0, -9.0)))
    averaged, weights = result.averaged(), result.weights()
    assert len(averaged.names) == 2  # one has no weight worth its training
    support, query = bm.Data.from_arrays([0.0, 1.0], [0.1, 0.7]), torch.tensor([[[0.4], [2.0]]], dtype=torch.float64)
    y = torch.tensor([[[0.3], [0.1]]], dtype=torch.float64)
    densities = [result.learner(a).adapt(support).predict(query).log_prob(y).item() for a in list(weights)[:2]]
    share = np.array(list(weights.values())[:2])
    expected = np.log(share / share.sum() @ np.exp(densities))
    assert averaged.adapt(support).predict(query).log_prob(y).item() == pytest.approx(expected, rel=1e-9)


def test_it_says_what_is_noise() -> None:
    base = np.array([-1.0, -3.0, -2.0, -2.5])  # what makes tasks hard is the same for all, and cancels
    close = base - np.array([0.1, -0.1, 0.12, -0.05])
    far = base - np.array([0.5, 0.6, 0.5, 0.55])
    trials = [_trial(32, tuple(base), 900), _trial(4, tuple(close), 12), _trial(8, tuple(far), 24)]
    result = _result(*trials)
    assert result.best["width"] == 32
    assert result.simplest["width"] == 4
    text = str(result)
    assert "width 4, relu is 0.018 ± 0.055 behind: within noise" in text
    assert "width 8, relu is 0.537 ± 0.024 behind\n" in text
    assert "1 of the 3 finalists is within noise of the best; the smallest of these is depth 1, width 4, relu" in text


def test_the_surrogate_is_the_process_of_its_kernel() -> None:
    space, rng = _space(), np.random.default_rng(0)
    known, asked, budget = space.all()[::3], space.all()[1::3], Steps((10, 100))
    trials = [
        Trial(a, 0, i % 2, 1, 0, 0, density=(0.0,), score=rng.normal(), error=rng.uniform(0.1, 0.5))
        for i, a in enumerate(known)
    ]
    surrogate = Surrogate.fit(space, budget, [*trials, Trial(asked[0], 0, 0, 1, 0, 0, failure="diverged")])
    kernel, middle = surrogate.learner.kernel, surrogate.learner.mean
    h = np.array([[*space.features(t.architecture), 1.0 + t.rung] for t in trials])
    g = np.array([[*space.features(a), 2.0] for a in asked])
    variance, length = kernel.outputscale.item(), kernel.base_kernel.lengthscale.item()

    def k(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return variance * np.exp(-0.5 * ((a[:, None] - b) ** 2).sum(-1) / length**2)

    score = np.array([t.score for t in trials])
    score = np.maximum(score, np.median(score) - 4.0 * (np.quantile(score, 0.75) - np.median(score)))
    center, scale, m = score.mean(), score.std(), middle.item()  # type: ignore[union-attr]
    noise = surrogate.learner.likelihood.noise.covariance().item()
    gram = k(h, h) + np.diag(noise + np.array([t.error for t in trials]) ** 2 / scale**2)
    mean = m + k(g, h) @ np.linalg.solve(gram, (score - center) / scale - m)
    deviation = np.sqrt(np.diag(k(g, g) - k(g, h) @ np.linalg.solve(gram, k(h, g))))
    found = surrogate.scores(asked, rung=1)
    assert found[0] == pytest.approx(center + scale * mean, rel=1e-6)
    assert found[1] == pytest.approx(scale * deviation, rel=1e-5)  # a difference of numbers near each other


def test_one_training_that_went_wrong_does_not_set_the_scale() -> None:
    space = DenseSpace(1, depths=(1,), widths=(2, 4, 8, 16, 32), activations=("relu",))
    scores = [-1e6, -1.4, -1.2, -1.0, -0.8]
    trials = [
        Trial(a, 0, 0, 1, 0, 0, density=(0.0,), score=s, error=0.01) for a, s in zip(space.all(), scores, strict=True)
    ]
    mean, _ = Surrogate.fit(space, Steps((10,)), trials).scores(space.all(), 0)
    assert mean[1:].tolist() == sorted(mean[1:].tolist())
    assert mean.min() > -10.0


def test_what_fails_is_a_row_and_goes_no_further(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fit = search_file.fit

    def failing(learner: bm.Learner, *arguments: object, **named: object) -> object:
        if any(isinstance(module, torch.nn.ReLU) for module in learner.modules()):
            raise bm.InferenceError("expected a finite loss, got nan at step 1: lower lr")
        return fit(learner, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(search_file, "fit", failing)
    space, path = DenseSpace(1, depths=(1, 2), widths=(4,), activations=("tanh", "relu")), tmp_path / "trials.jsonl"
    result = _search(space).run(SINUSOIDS, VALIDATION, path)
    failures = [t for t in result.trials if t.failure]
    assert all(t.architecture["activation"] == "relu" and t.rung == 0 for t in failures)
    assert len(failures) == 2  # alone, and as the only child with another activation
    assert len(result.table()) == len(result.trials)
    assert [t.untimed for t in _search(space).run(SINUSOIDS, VALIDATION, path).trials] == [
        t.untimed for t in result.trials
    ]
    with pytest.raises(bm.InferenceError, match="got failures alone: expected a finite loss"):
        _search(DenseSpace(1, depths=(1,), widths=(4,), activations=("relu",))).run(SINUSOIDS, VALIDATION)


def test_seconds_buy_fewer_steps_of_what_is_slow() -> None:
    budget = bm.training.Seconds((1.0, 3.0))
    assert [budget.steps(1, lambda steps, each=each: each * steps) for each in (0.01, 0.1, 100.0)] == [300, 30, 1]


def test_growth_adds_a_block_and_changes_one_other_choice_at_most() -> None:
    space = DenseSpace(2)
    start = space.of({"depth": 2, "width": 20, "activation": "relu", "norm": None, "skip": True})
    grown = space.grown(start)
    changes = [sum(a[name] != start[name] for name in space.choices) for a in grown]
    assert {a["depth"] for a in grown} == {3}
    assert sorted(changes) == [1] + [2] * (3 + 3 + 1 + 1)
    assert len(set(grown)) == len(grown) == len({str(a) for a in grown})
    assert space.grown(space.all()[-1]) == []
    # one layer has neither normalisation nor skip: 4 x 4 of one layer, 4 x 4 x 2 x 2 of each other depth
    assert len(space.all()) == 16 + 3 * 64


@pytest.mark.parametrize(("norm", "skip"), [(None, False), (None, True), ("layer", False), ("layer", True)])
def test_the_network_of_an_architecture_is_what_it_says(norm: str | None, skip: bool) -> None:
    space = DenseSpace(2, widths=(5,), activations=("silu",))
    choices = {"depth": 3, "width": 5, "activation": "silu", "norm": norm, "skip": skip}
    architecture = space.of(choices)
    network, x = space.network(architecture), torch.randn(2, 4, 2)
    assert space.num_parameters(architecture) == sum(p.numel() for p in network.parameters()) == 15 + 30 + 30
    h = torch.nn.functional.silu(network.layers[0](x))
    for place in (2, 4):
        seen = torch.nn.functional.layer_norm(h, (5,)) if norm else h
        out = torch.nn.functional.silu(network.layers[place](seen))
        h = h + out if skip else out
    assert network(x).flatten().tolist() == pytest.approx(h.flatten().tolist(), abs=1e-5)  # float32


def test_networks_of_convolutions_are_a_space_too() -> None:
    space = bm.training.ConvSpace((1, 8, 8), blocks=(1, 2), channels=(8, 16), kernels=(3, 5))
    assert len(space.all()) == 8
    (architecture, *_) = space.grown(space.smallest()[0])
    assert space.network(architecture)(torch.zeros(1, 3, 1, 8, 8)).shape == (1, 3, 8 * 2 * 2)
    assert space.features(architecture) == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DenseSpace(1, widths=()), "expected distinct values of width, at least one of them"),
        (lambda: DenseSpace(1, activations="relu"), "expected distinct values of activation"),
        (lambda: DenseSpace(1, depths=(2, 2)), "expected distinct values of depth"),
        (lambda: DenseSpace(1, depths=(2, 1)), "expected increasing whole numbers of depth, from 1 on"),
        (lambda: DenseSpace(1, depths=(0, 1)), "expected increasing whole numbers of depth, from 1 on"),
        (lambda: DenseSpace(1, activations=("relu", "sine")), "expected an activation among"),
        (lambda: DenseSpace(1, norms=("batch",)), "expected a norm among"),
        (lambda: DenseSpace(1, widths=(0, 4)), "expected positive widths"),
        (lambda: bm.training.ConvSpace((1, 8, 8), kernels=(4,)), "expected a kernel of an odd size, got 4"),
        (lambda: Steps(()), "expected budgets that increase from rung to rung"),
        (lambda: Steps((3, 2)), "expected budgets that increase"),
        (lambda: Steps((1, 2.5)), "expected a whole number steps"),  # type: ignore[arg-type]
        (lambda: bm.training.Seconds((0.0, 1.0)), "expected budgets that increase"),
        (lambda: ArchitectureSearch("dense", bm.ALPaCA, Steps((1,))), "expected a space such as"),  # type: ignore[arg-type]
        (lambda: ArchitectureSearch(_space(), bm.ALPaCA, 5), "expected a budget"),  # type: ignore[arg-type]
        (lambda: ArchitectureSearch(_space(), bm.ALPaCA, Steps((1,)), keep=0.0), "expected a share to keep"),
        (lambda: ArchitectureSearch(_space(), bm.ALPaCA, Steps((1,)), candidates=0), "whole number candidates"),
        (
            lambda: ArchitectureSearch(_space(), lambda network: network, Steps((1,))).run(SINUSOIDS, VALIDATION),
            "expected make to return a learner, got MLP",
        ),
    ],
)
def test_bad_spaces_and_budgets_are_refused(make: Callable[[], object], message: str, unchecked: None) -> None:
    with pytest.raises(bm.DataError, match=message):
        make()


def test_an_architecture_prints_what_it_has() -> None:
    architecture = Architecture(
        (("depth", 2), ("width", 40), ("activation", "relu"), ("norm", "layer"), ("skip", False))
    )
    assert repr(architecture) == "depth 2, width 40, relu, layer"
