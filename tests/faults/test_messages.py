"""Errors that can be acted on: they name the task, the missing method, the missing shape."""

from collections.abc import Callable

import pandas as pd
import pytest
import torch
from torch.distributions import Distribution, Independent, Poisson

import bayesmeta as bm
from bayesmeta.errors import DataError, InferenceError, UnsupportedError, retelling

NAMES = ["ann", "bob", "cy", "dot", "eve", "flo", "gus", "hal", "ida", "jim", "kim", "leo"]
BAD = "hal"


class _Breaks(bm.Network):
    """Features that are not finite for one task: the one with an input above 100."""

    def __init__(self) -> None:
        super().__init__()
        self.x_shape, self.num_outputs = (1,), 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, torch.where(x > 100.0, torch.inf, x.square())], -1)


def _frame() -> pd.DataFrame:
    rows = [(name, 200.0 if name == BAD else float(i), 0.1 * i) for name in NAMES for i in range(6)]
    return pd.DataFrame(rows, columns=["name", "x", "y"])


def _tasks() -> bm.TaskDataset:
    return bm.TaskDataset.from_frame(_frame(), task="name", x=["x"], y=["y"])


LEARNERS: dict[str, Callable[[], bm.Learner]] = {
    "alpaca": lambda: bm.ALPaCA(_Breaks()),
    "alpaca-feature-space": lambda: bm.ALPaCA(_Breaks(), covariance=bm.priors.FullCovariance(2, varying=[1])),
    "mixture": lambda: bm.MixtureALPaCA(_Breaks(), num_components=2),
    "kernel": lambda: bm.DeepKernelTransfer(_Breaks()),
    "ridge": lambda: bm.R2D2Regressor(_Breaks()),
    "maml": lambda: bm.MAML(_Breaks(), posterior=bm.PointEstimate()),
}


@pytest.mark.filterwarnings("ignore::bayesmeta.ConvergenceWarning")  # a network that is not trained overshoots
@pytest.mark.parametrize("name", LEARNERS)
def test_failures_name_the_task(name: str) -> None:
    learner, tasks, frame = LEARNERS[name](), _tasks(), _frame()
    split = bm.tasks.RandomSplit.at(3)
    tries: dict[str, Callable[[], object]] = {
        "fit": lambda: bm.fit(learner, tasks, steps=2, batch_size=12, split=split, progress=False),
        "evaluate": lambda: bm.evaluate(learner, tasks, shots=[3], num_bootstrap=0, batch_size=5),
        "surprise": lambda: bm.checks.Surprise.fit(learner, tasks, shots=[3], batch_size=5),
        "predict_frame": lambda: bm.predict_frame(learner, tasks.schema, context=frame, query=frame),
        "conformal": lambda: bm.calibration.HierarchicalConformal(learner, tasks, shots=3, batch_size=5),
    }
    for what, run in tries.items():
        with pytest.raises(InferenceError) as caught:
            run()
        assert BAD in str(caught.value), f"{what}: {caught.value}"
        assert "batch index" not in str(caught.value)


def test_a_failure_in_a_batch_says_where() -> None:
    data = _tasks().data
    for name in ("alpaca", "kernel", "ridge"):
        learner = LEARNERS[name]()
        with pytest.raises(InferenceError, match=rf"\btask {NAMES.index(BAD)}\b") as caught:
            learner.adapt(data).predict(data.x).log_prob(data.y, data.mask)
        assert caught.value.task == NAMES.index(BAD)


def test_retelling_counts_and_names() -> None:
    def fail() -> None:
        raise InferenceError("got NaN in task 2 and not in task 21", task=2)

    with pytest.raises(InferenceError, match=r"in task 'c' and not in task 21") as caught, retelling(names="abc"):
        fail()
    assert caught.value.task is None
    with pytest.raises(InferenceError, match=r"in task 12 and not in task 21") as caught, retelling(lambda i: i + 10):
        fail()
    assert caught.value.task == 12
    plain = InferenceError("singular")
    with pytest.raises(InferenceError) as caught, retelling(lambda i: i + 10, "abc"):
        raise plain
    assert caught.value is plain
    with pytest.raises(InferenceError, match=r"in task 'a.*1' and"), retelling(names=[0, 0, "a\\1"]):
        fail()


class Counts(bm.likelihoods.Likelihood):
    """Poisson, which torch gives no distribution function."""

    outcomes, network_outputs = bm.Numbers(1), 1

    def forward(self, f: torch.Tensor) -> Distribution:
        return Independent(Poisson(f.exp(), validate_args=False), 1)

    def marginal(self, mean: torch.Tensor, variance: torch.Tensor) -> Distribution:
        return Independent(Poisson((mean + 0.5 * variance).exp(), validate_args=False), 1)

    def curvature_root(self, f: torch.Tensor) -> torch.Tensor:
        return (0.5 * f).exp()[..., None]


class Bare(Distribution):
    """A distribution with a density alone."""

    def __init__(self, mean: torch.Tensor) -> None:
        super().__init__(mean.shape[:-1], mean.shape[-1:], validate_args=False)


class Densities(Counts):
    """A likelihood whose marginal has no moments."""

    def marginal(self, mean: torch.Tensor, variance: torch.Tensor) -> Distribution:
        return Bare(mean)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("likelihood", "ask", "method"),
    [
        (Counts, lambda p: p.quantile(0.1), "cdf, got Poisson"),
        (Counts, lambda p: p.interval(0.9), "cdf, got Poisson"),
        (Counts, lambda p: p.cdf(torch.ones(1, 1, 1)), "cdf, got Poisson"),
        (Densities, lambda p: p.mean, "mean, got Bare"),
        (Densities, lambda p: p.stddev, "variance, got Bare"),
        (Densities, lambda p: p.variance, "variance, got Bare"),
    ],
)
def test_a_distribution_without_a_method_is_named(
    likelihood: type[bm.likelihoods.Likelihood], ask: Callable[[bm.Predictive], object], method: str
) -> None:
    prediction = (
        bm.MAML(bm.MLP(1, [4]), likelihood=likelihood()).adapt(bm.Data.from_arrays([0.0], [1.0])).predict([0.5])
    )
    with pytest.raises(UnsupportedError, match=f"expected a distribution with {method} without it"):
        ask(prediction)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "make",
    [
        bm.ALPaCA,
        bm.MixtureALPaCA,
        bm.R2D2Regressor,
        bm.DeepKernelTransfer,
        bm.R2D2,
        bm.MAML,
        bm.LLAMA,
        bm.CAVIA,
        bm.BMAML,
    ],
)
def test_a_network_without_its_shapes_is_refused(make: type[bm.Learner]) -> None:
    class Shapeless(bm.Network):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    with pytest.raises(DataError, match=r"expected Shapeless to say x_shape, such as \(2,\), and num_outputs"):
        make(Shapeless())
