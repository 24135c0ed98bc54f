"""Single numbers as arguments: numpy's are Python's, and what is no number is an error of ours, everywhere."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import bayesmeta as bm
from bayesmeta.arguments import draw_shape, generator_of, probability, seed_of, shot_counts, whole
from bayesmeta.predictives.predictive import Predictive

NOT_WHOLE = [True, np.True_, torch.tensor(True), 2.5, 3.0, "3", None, [3], np.arange(2), math.nan, torch.tensor(3.0)]
NOT_PROBABILITIES = [0.0, 1.0, 0, 1, -0.1, 1.5, math.nan, True, "0.5", None, [0.5], np.full(1, 0.5), 0.5j]


def test_whole_numbers() -> None:
    for value in (3, np.int64(3), np.uint8(3), np.array(3), torch.tensor(3)):
        found = whole(value, "steps", 1, 5)
        assert (found, type(found)) == (3, int)
    for value in (*NOT_WHOLE, 0, -1, 6, 2**70):
        with pytest.raises(bm.DataError, match="expected a whole number steps from 1 to 5, got"):
            whole(value, "steps", 1, 5)


def test_seeds() -> None:
    assert seed_of(np.uint64(2**63 - 1)) == 2**63 - 1
    for seed in (*NOT_WHOLE, -1, 2**63, 2**70, np.int64(-1)):
        with pytest.raises(bm.DataError, match="expected a whole number seed from 0"):
            generator_of(seed)
    same = [torch.rand(3, generator=generator_of(seed)) for seed in (7, np.int32(7), torch.tensor(7))]
    assert torch.equal(same[0], same[1])
    assert torch.equal(same[0], same[2])


def test_probabilities() -> None:
    for value in (0.25, np.float32(0.25), np.array(0.25), torch.tensor(0.25)):
        found = probability(value, "level")
        assert (found, type(found)) == (0.25, float)
    for value in NOT_PROBABILITIES:
        with pytest.raises(bm.DataError, match="expected level strictly between 0 and 1, got"):
            probability(value, "level")


def test_shots() -> None:
    some = [0, 2, 5]
    for shots in (some, tuple(some), np.array(some), (shot for shot in some), pd.Series(some), dict.fromkeys(some)):
        assert shot_counts(shots) == (0, 2, 5)
    assert shot_counts(range(3)) == shot_counts(torch.arange(3)) == shot_counts(pd.Index([0, 1, 2])) == (0, 1, 2)
    for shots in ([], [1, 1], [0, 2.5], [True], [-1], 5, "05", None, torch.tensor(3), [[1]], np.array([1.0])):
        with pytest.raises(bm.DataError, match="shots"):
            shot_counts(shots)


def test_shapes_of_draws() -> None:
    for shape in ((2, 3), [2, 3], torch.Size([2, 3]), np.array([2, 3])):
        assert draw_shape(shape) == (2, 3)
    assert draw_shape(np.int64(4)) == (4,)
    for shape in (2.5, (2, -1), (True,), "3", None, (2.0,)):
        with pytest.raises(bm.DataError, match="whole number of draws"):
            draw_shape(shape)


# -------------------------------------------------------------------------------------------- wherever numbers come in


def _tasks() -> bm.TaskDataset:
    return bm.tasks.Sinusoid(noise=0.1).dataset(12, 6, seed=0)


def _learner() -> bm.ALPaCA:
    torch.manual_seed(0)
    return bm.ALPaCA(bm.Identity(1)).double()


def _blobs() -> bm.tasks.GaussianBlobs:
    return bm.tasks.GaussianBlobs(ways=2)


def _posterior() -> bm.TaskPosterior:
    return _learner().adapt(bm.Data.from_arrays([0.0], [1.0]))


SHORT = bm.inference.NUTS(num_chains=2, num_draws=4, num_warmup=20, max_depth=1)
X = torch.zeros(25, 2, 1, dtype=torch.float64)
SEEDED: dict[str, Callable[[Any], Any]] = {
    "split": lambda s: _tasks().split(seed=s),
    "divided": lambda s: _tasks().divided(bm.tasks.RandomSplit.at(2), s),
    "fit": lambda s: bm.fit(_learner(), _tasks(), steps=1, seed=s, progress=False),
    "fit with validation": lambda s: bm.fit(
        _learner(), _tasks(), steps=1, validation=_tasks(), validate_every=1, seed=s, progress=False
    ),
    "evaluate": lambda s: bm.evaluate(_learner(), _tasks(), [1], num_bootstrap=2, seed=s).table(),
    "report": lambda s: bm.report(_learner(), _tasks(), [1], num_bootstrap=2, seed=s),
    "dataset": lambda s: bm.tasks.Sinusoid().dataset(3, 3, seed=s),
    "episodes": lambda s: _blobs().episodes(3, 3, seed=s),
    "metal benchmark": lambda s: bm.tasks.metal_benchmark("cauchy", num_train=1, num_test=1, test_points=1, seed=s),
    "surprise of a learner": lambda s: _learner().surprise(bm.Data.from_arrays([0.0], [1.0]), 5, seed=s),
    "Surprise": lambda s: bm.checks.Surprise.fit(_learner(), _tasks(), [2], seed=s),
    "sbc": lambda s: bm.checks.sbc(_learner(), X, num_draws=4, seed=s),
    "predictive sbc": lambda s: bm.checks.predictive_sbc(_learner(), X, X, num_draws=4, seed=s),
    "fidelity": lambda s: bm.checks.fidelity(_posterior(), _posterior(), [0.0], num_draws=5, num_projections=2, seed=s),
    "variance scaling": lambda s: bm.calibration.variance_scaling(_learner(), _tasks(), [2], seed=s),
    "isotonic": lambda s: bm.calibration.isotonic_recalibration(_learner(), _tasks(), [2], seed=s),
    "hierarchical conformal": lambda s: bm.calibration.HierarchicalConformal(_learner(), _tasks(), 2, seed=s),
    "few-shot conformal": lambda s: bm.calibration.FewShotConformal(_learner(), _tasks(), _tasks(), 2, seed=s),
    "Sampled": lambda s: bm.Sampled(_learner(), SHORT, seed=s).adapt(bm.Data.from_arrays([0.0], [1.0])),
    "svgd": lambda s: bm.training.svgd_hyper_posterior([_learner(), _learner()], _tasks(), steps=1, seed=s),
    "vi": lambda s: bm.training.vi_hyper_posterior(_learner(), _tasks(), steps=1, num_members=2, seed=s),
    "nuts": lambda s: bm.training.nuts_hyper_posterior(_learner(), _tasks(), sampler=SHORT, num_members=2, seed=s),
}


@pytest.mark.filterwarnings("ignore::bayesmeta.ConvergenceWarning")
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("call", SEEDED.values(), ids=SEEDED)
def test_every_seed_may_be_numpys_and_nothing_else(call: Callable[[Any], Any]) -> None:
    for seed in (np.int64(3), np.uint8(255)):
        call(seed)
    for seed in (True, 2.5, -1, 2**70, "3", np.int64(-3)):
        with pytest.raises(bm.DataError, match="expected a whole number seed"):
            call(seed)


COUNTED: dict[str, Callable[[Any], Any]] = {
    "fit steps": lambda n: bm.fit(_learner(), _tasks(), steps=n, progress=False),
    "fit batch": lambda n: bm.fit(_learner(), _tasks(), steps=1, batch_size=n, progress=False),
    "fit validate_every": lambda n: bm.fit(_learner(), _tasks(), steps=1, validate_every=n, progress=False),
    "evaluate batch": lambda n: bm.evaluate(_learner(), _tasks(), [1], num_bootstrap=0, batch_size=n),
    "evaluate bootstrap": lambda n: bm.evaluate(_learner(), _tasks(), [1], num_bootstrap=n).table(),
    "evaluate shots": lambda n: bm.evaluate(_learner(), _tasks(), [0, n], num_bootstrap=0),
    "evaluate query": lambda n: bm.evaluate(_learner(), _tasks(), [0], query=n, num_bootstrap=0),
    "split at": bm.tasks.RandomSplit.at,
    "dataset tasks": lambda n: bm.tasks.Sinusoid().dataset(n, 3),
    "dataset points": lambda n: bm.tasks.Sinusoid().dataset(3, n),
    "episodes": lambda n: _blobs().episodes(n, 3),
    "episodes per class": lambda n: _blobs().episodes(3, n),
    "metal benchmark": lambda n: bm.tasks.metal_benchmark("sinusoid_easy", num_train=n, num_test=1),
    "Surprise shots": lambda n: bm.checks.Surprise.fit(_learner(), _tasks(), [n]),
    "Surprise batch": lambda n: bm.checks.Surprise.fit(_learner(), _tasks(), [2], batch_size=n),
    "surprise draws": lambda n: _learner().surprise(bm.Data.from_arrays([0.0], [1.0]), n),
    "sbc batch": lambda n: bm.checks.sbc(_learner(), X, num_draws=4, batch_size=n),
    "sbc thin": lambda n: bm.checks.sbc(_learner(), X, num_draws=4, thin=n),
    "fidelity draws": lambda n: bm.checks.fidelity(_posterior(), _posterior(), [0.0], num_draws=n),
    "fidelity projections": lambda n: bm.checks.fidelity(
        _posterior(), _posterior(), [0.0], num_draws=5, num_projections=n
    ),
    "scaling shots": lambda n: bm.calibration.variance_scaling(_learner(), _tasks(), [n]),
    "VarianceScaled shots": lambda n: bm.wrappers.VarianceScaled(_learner(), [0, n]),
    "conformal shots": lambda n: bm.calibration.HierarchicalConformal(_learner(), _tasks(), n),
    "conformal batch": lambda n: bm.calibration.HierarchicalConformal(_learner(), _tasks(), 2, batch_size=n),
    "vi members": lambda n: bm.training.vi_hyper_posterior(_learner(), _tasks(), steps=1, num_members=n),
    "nuts members": lambda n: bm.training.nuts_hyper_posterior(_learner(), _tasks(), sampler=SHORT, num_members=n),
    "posterior draws": lambda n: _posterior().sample(n),
    "predictive draws": lambda n: _posterior().predict([0.0]).sample(n),
    "report examples": lambda n: bm.report(_learner(), _tasks(), [1], num_bootstrap=0, examples=n),
}


@pytest.mark.filterwarnings("ignore::bayesmeta.ConvergenceWarning")
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("call", COUNTED.values(), ids=COUNTED)
def test_every_count_may_be_numpys_and_nothing_else(call: Callable[[Any], Any]) -> None:
    call(np.int64(3))
    for number in (True, 2.5, 3.0, -1, "3", np.float64(2.0)):
        with pytest.raises(bm.DataError):
            call(number)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("wrong", [0.0, 1.0, math.nan, [0.1, 0.9], torch.tensor([0.1, 0.9]), "0.5", True, None])
def test_every_level_is_one_probability(wrong: Any) -> None:
    predictive = _posterior().predict([0.0, 1.0])
    conformal = bm.calibration.HierarchicalConformal(_learner(), _tasks(), 2)
    surprise = bm.checks.Surprise.fit(_learner(), _tasks(), [2])
    support, ranks = _tasks().data.points(slice(2)), bm.checks.sbc(_learner(), X, num_draws=4)
    calls: list[Callable[[Any], Any]] = [
        predictive.quantile,
        predictive.interval,
        conformal.threshold,
        lambda level: conformal.adapt(support).interval(X[:12], level),
        lambda level: surprise.flagged(support, level),
        ranks.is_uniform,
        lambda level: bm.evaluate(_learner(), _tasks(), [1], level=level),
        lambda level: bm.report(_learner(), _tasks(), [1], level=level),
        lambda level: _tasks().split(level),
        lambda level: bm.evaluation.metrics.interval_width(predictive, level=level),
    ]
    for call in calls:
        with pytest.raises(bm.DataError, match="strictly between 0 and 1, got"):
            call(wrong)
    assert torch.equal(predictive.quantile(np.float64(0.3)), predictive.quantile(0.3))
    assert torch.equal(predictive.interval(torch.tensor(0.5))[0], predictive.interval(0.5)[0])


# --------------------------------------------------------------------------------------------------------- predictives


def _predictives() -> dict[str, Predictive]:
    torch.manual_seed(0)
    support = bm.Data.stack([bm.Data.from_arrays([0.0, 1.0], [0.3, 0.7]), bm.Data.from_arrays([0.5, 2.0], [1.3, 0.7])])
    x = torch.tensor([[[0.0], [1.0], [3.0]]] * 2, dtype=torch.float64)
    alpaca, standardized = _learner(), bm.Standardized(_learner())
    standardized.prepare(support)
    isotonic, scaled = bm.wrappers.IsotonicRecalibrated(_learner(), [2]), bm.wrappers.VarianceScaled(_learner(), [2])
    learners = {
        "kronecker": alpaca,
        "affine": standardized,
        "exponential": bm.wrappers.LogTransformed(_learner()),
        "student t": bm.ALPaCA(bm.Identity(1), scale=bm.priors.TaskScale()).double(),
        "recalibrated": isotonic,
        "scaled": scaled,
        "autoregressive": bm.wrappers.Autoregressive(_learner(), bm.wrappers.Random(2)),
        "dense": bm.MAML(bm.MLP(1, [4])).double(),
        "independent": bm.MAML(bm.MLP(1, [4]), likelihood=bm.likelihoods.StudentT(1)).double(),
        "mixture": bm.BMAML(bm.MLP(1, [4]), num_particles=2).double(),
        "ensemble": bm.HyperPosterior([alpaca, alpaca]),
        "task quadrature": bm.wrappers.TaskQuadrature(alpaca, bm.wrappers.NoiseScale()),
        "low rank": bm.ConvCNP(head=bm.heads.LowRankGaussianHead(2), channels=4, layers=1).double(),
        "side by side": bm.wrappers.Separately({"y": _learner()}),
        "step oracle": bm.tasks.Step().oracle,
        "sinusoid oracle": bm.tasks.Sinusoid(noise=0.1).oracle,
    }
    found = {name: learner.adapt(support).predict(x) for name, learner in learners.items()}
    labels = bm.Data.from_labels([0.0, 1.0], [0, 1])
    classes = {"categorical": bm.likelihoods.Categorical(3), "bernoulli": bm.likelihoods.Bernoulli()}
    for name, likelihood in classes.items():
        learner = bm.MAML(bm.MLP(1, [4]), likelihood=likelihood).double()
        found[name] = learner.adapt(labels).predict([0.0, 1.0, 3.0])
    return found


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", _predictives())
def test_draws_and_densities_of_every_predictive(name: str) -> None:
    predictive = _predictives()[name]
    shape = predictive.shape
    for sizes, expected in ((10, (10,)), (np.int64(4), (4,)), ((2, 3), (2, 3)), ([2], (2,)), ((), ()), (0, (0,))):
        assert predictive.sample(sizes).shape == (*expected, *shape)
        assert predictive.rsample(sizes).shape == (*expected, *shape)
    for sizes in (2.5, -1, (2, -1), True, "3", (2.0,), None):
        for method in (predictive.sample, predictive.rsample):
            with pytest.raises(bm.DataError, match="whole number of draws"):
                method(sizes)
    y = predictive.sample()
    mask = torch.ones(shape[:2], dtype=torch.bool)
    mask[0, 1] = False
    assert predictive.log_prob(y, mask).shape == shape[:1]
    wrong = [y[0], y[:, :2], y[..., None], y[None], y.flatten(), torch.zeros(())]
    for value in wrong:
        for density in (predictive.log_prob, lambda v: predictive.log_prob(v, mask), predictive.marginal_log_prob):
            with pytest.raises(bm.ShapeError, match="expected y of shape"):
                density(value)
    for value in (y.tolist(), y.numpy(), None):
        with pytest.raises(bm.DataError, match="expected y to be a tensor"):
            predictive.log_prob(value)
    for value in (mask[0], mask[:, :2], mask[..., None]):
        with pytest.raises(bm.ShapeError, match="expected mask of shape"):
            predictive.log_prob(y, value)
    with pytest.raises(bm.DataError, match="boolean mask"):
        predictive.log_prob(y, mask.double())
    if len(shape) == 3:
        for value in wrong[:5]:
            with pytest.raises(bm.ShapeError):
                predictive.cdf(value)
    else:
        for label in (-1, 7):
            with pytest.raises(bm.DataError, match=f"expected labels from 0 to ., got {label}"):
                predictive.log_prob(torch.full(shape, label))
            assert predictive.log_prob(torch.where(mask, 0, label), mask).isfinite().all()  # padding


def test_every_rsample_checks_its_shape() -> None:
    """The test above tries them; here, that none is forgotten."""

    def below(kind: type) -> set[type]:
        return {kind, *(each for child in kind.__subclasses__() for each in below(child))}

    tried = {type(predictive) for predictive in _predictives().values()}
    written = {
        kind
        for kind in below(Predictive) - {Predictive}
        if "rsample" in vars(kind) and kind.__module__.startswith("bayesmeta")
    }
    assert not written - {parent for kind in tried for parent in kind.__mro__}
