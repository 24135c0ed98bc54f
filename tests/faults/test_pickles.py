"""Learners, posteriors, predictives and results come back from a process pool, a copy and `torch.save` as they were."""

import copy
import io
import multiprocessing
import pickle
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import torch

import bayesmeta as bm
from tests.faults.subjects import SUBJECTS, Subject, check_same, summary
from tests.registry import Case

pytestmark = [pytest.mark.filterwarnings("ignore::bayesmeta.ConvergenceWarning"), pytest.mark.usefixtures("unchecked")]


def _saved(value: Any) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES: list[Callable[[Any], Any]] = [lambda value: pickle.loads(pickle.dumps(value)), copy.deepcopy, _saved]


@pytest.mark.parametrize("case", SUBJECTS, ids=lambda case: case.name)
def test_learners_posteriors_and_predictives_come_back_as_they_were(case: Case) -> None:
    subject = Subject.of(case)
    posterior, x = subject.learner.adapt(subject.tasks.support), subject.tasks.query.x
    predictive = posterior.predict(x)
    wanted, updated = subject.answers(predictive), summary(posterior.update(subject.tasks.query).predict(x))
    for copied in COPIES:
        check_same(subject.answers(copied(predictive)), wanted)
        again = copied(posterior)
        check_same(subject.answers(again.predict(x)), wanted)
        check_same(summary(again.update(subject.tasks.query).predict(x)), updated)
        check_same(subject.answers(copied(subject.learner).adapt(subject.tasks.support).predict(x)), wanted)


def _frame() -> pd.DataFrame:
    return pd.DataFrame(
        {"who": ["a", "a", "b", "b"], "x": [0.0, 1.0, 0.0, 1.0], "arm": list("uvuv"), "y": [0, 1, 2, 4]}
    )


def _values() -> dict[str, Any]:
    """One of every kind of result."""
    tasks, learner = bm.tasks.GPFunctions.eq().dataset(12, 8, seed=0), bm.ALPaCA(bm.MLP(1, [4]))
    few = tasks.data.points(slice(3))
    table = bm.TaskDataset.from_frame(_frame(), task="who", x=["x", "arm"], y=["y"])
    conformal = bm.calibration.HierarchicalConformal(learner, tasks, shots=3)
    split = bm.calibration.SplitConformal(learner)
    scaled = bm.calibration.isotonic_recalibration(learner, tasks, shots=[0, 3])
    full = bm.training.vi_hyper_posterior(learner, tasks, steps=2, num_members=2, progress=False)
    return {
        "schema": table.schema,
        "table": table,
        "dataset": tasks,
        "batch": tasks.divided(bm.tasks.RandomSplit.at(3)),
        "fit": bm.fit(learner, tasks, steps=2, progress=False),
        "evaluation": bm.evaluate(learner, tasks, [0, 3], num_bootstrap=0),
        "surprise": bm.checks.Surprise.fit(learner, tasks, [3]),
        "ranks": bm.checks.sbc(bm.ALPaCA(bm.Identity(1)), torch.rand(20, 4, 1, dtype=torch.float64)),
        "conformal": conformal,
        "conformal-posterior": conformal.adapt(few),
        "split": split,
        "split-posterior": split.adapt(few, tasks.data.points(slice(3, 8))),
        "recalibrated": scaled,
        "recalibrated-marginals": scaled.adapt(few).predict(tasks.data.x).marginals,
        "hyper-posterior": full,
        "hyper-predictive": full.adapt(few).predict(tasks.data.x),
        "implied-prior": bm.MAML(bm.MLP(1, [4])).implied_prior(few.to(torch.float32)),
        "student": bm.MAML(bm.MLP(1, [4]), likelihood=bm.likelihoods.StudentT()).adapt(few).predict(tasks.data.x),
        "simulator": bm.tasks.Sinusoid(),
        **{
            f"kernel-{name}": bm.DeepKernelTransfer(bm.Identity(1), kernel=kernel)
            for name, kernel in _kernels().items()
        },
    }


def _kernels() -> dict[str, bm.kernels.Kernel]:
    return {
        "rbf": bm.kernels.RBFKernel(),
        "matern": bm.kernels.MaternKernel(),
        "linear": bm.kernels.LinearKernel(),
        "cosine": bm.kernels.CosineSimilarityKernel(),
        "mixture": bm.kernels.SpectralMixtureKernel(2),
    }


def test_results_come_back() -> None:
    for name, value in _values().items():
        for copied in COPIES:
            again = copied(value)
            assert type(again) is type(value), name
            assert repr(again).split(" at 0x")[0] == repr(value).split(" at 0x")[0], name


SIMULATORS: dict[str, Callable[[], bm.tasks.Simulator]] = {
    "gp": bm.tasks.GPFunctions.eq,
    "sinusoid": bm.tasks.Sinusoid,
    "step": bm.tasks.Step,
    "cauchy": bm.tasks.Cauchy,
    "blobs": bm.tasks.GaussianBlobs,
}


@pytest.mark.parametrize("name", list(SIMULATORS))
def test_oracles_come_back(name: str) -> None:
    simulator = SIMULATORS[name]()
    data = simulator.dataset(2, 6, seed=0).data
    assert simulator.oracle is not None
    predictive = simulator.oracle.adapt(data.points(slice(3))).predict(data.x)
    said = lambda each: [each.log_prob(data.y), each.marginal_log_prob(data.y), *summary(each)]
    for copied in COPIES:
        check_same(said(copied(predictive)), said(predictive))
        again = copied(simulator.oracle).adapt(data.points(slice(3)))
        check_same(said(again.predict(data.x)), said(predictive))


def _predicted(learner: bm.Learner) -> bm.Predictive:
    torch.set_num_threads(1)
    return learner.adapt(bm.Data.from_arrays([0.0, 1.0, 2.0], [3.0, 4.0, 5.5])).predict([0.5, 1.5])


def test_predictives_come_back_from_a_process_pool() -> None:
    learners = [bm.ALPaCA(bm.MLP(1, [8])), bm.DeepKernelTransfer(bm.MLP(1, [4])), bm.MAML(bm.MLP(1, [8]))]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.map(_predicted, learners)
    y = torch.tensor([[[3.0], [4.0]]])
    for got, learner in zip(found, learners, strict=True):
        check_same([got.log_prob(y)], [_predicted(learner).log_prob(y)])
