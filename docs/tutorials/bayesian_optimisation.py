# %% [markdown]
# # Bayesian optimisation that has seen other tasks
#
# Tune the hyper-parameters of a network on a new data set with a surrogate that has learned from thirty data sets
# tuned before, compare it with a fresh Gaussian process, and run the same through Ax.
#
# *Bayesian optimisation* looks for the best setting of something that is expensive to try: it fits a model (the
# *surrogate*) to what was tried, and tries next where the model promises most. Usually the surrogate is a Gaussian
# process that starts from nothing. But whoever tunes one network has mostly tuned others, and those runs are a table
# somewhere. A learner that is trained on them is a prior for the next data set: it knows from the first trial on
# where good learning rates tend to be, how steeply accuracy falls on either side, and how differently data sets
# behave.
#
# The table here is **simulated**, after the pattern of LCBench (Zimmer, Lindauer and Hutter 2021), where a *task* is
# a data set and a point is one configuration with its validation accuracy. On LCBench itself the same learner needs
# 5.6 evaluations until its regret is below 5 %, and a fresh Gaussian process 12.9: [numbers and
# command](../benchmarks/index.md#bayesian-optimisation-that-has-seen-other-tasks-meta_bo). You need `pip install
# 'bayesmeta[ax]'`.

# %% [markdown]
# ## Thirty data sets, tuned before
#
# Three hyper-parameters: the learning rate and the weight decay, both on a logarithmic scale, and the dropout rate.
# Every data set has its own best learning rate, and above it accuracy falls faster than below, as training diverges.
# Hard data sets like more regularisation. Some react violently to everything, some hardly at all.

# %%
import logging
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from botorch.acquisition import LogExpectedImprovement as OfOneGaussian
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from botorch.models.transforms import Normalize, Standardize
from gpytorch.mlls import ExactMarginalLogLikelihood

import bayesmeta as bm
from bayesmeta.interop.botorch import LogExpectedImprovement, TaskModel
from bayesmeta.plotting.style import BLUE, GREY, ORANGE, VERMILLION

INPUTS = ["log10_learning_rate", "log10_weight_decay", "dropout"]
LOW, HIGH = np.array([-4.0, -6.0, 0.0]), np.array([-0.5, -2.0, 0.8])
rng = np.random.default_rng(0)


class DataSet:
    """Validation accuracy, in %, as a function of the three hyper-parameters."""

    def __init__(self):
        self.hardness, self.violence = rng.beta(2.0, 4.0), np.exp(rng.normal(0.0, 0.8))
        self.rate = rng.normal(-2.2, 0.4)
        self.decay = -4.5 + 1.5 * self.hardness + rng.normal(0.0, 0.3)
        self.dropout = np.clip(0.1 + 0.6 * self.hardness + rng.normal(0.0, 0.08), 0.0, 0.8)

    def error(self, x):
        off = x[..., 0] - self.rate
        loss = np.where(off > 0.0, 2.5 * off**2, 0.6 * off**2)
        loss = loss + 0.15 * (x[..., 1] - self.decay + 0.3 * off) ** 2 + 3.0 * (x[..., 2] - self.dropout) ** 2
        return (0.02 + 0.4 * self.hardness) * np.exp(0.5 * self.violence * np.minimum(loss, 4.0))

    def accuracy(self, x, noise=0.05):
        spread = np.exp(noise * rng.normal(size=x.shape[:-1]))
        return 100.0 * (1.0 - np.minimum(self.error(x) * spread, 0.98))


def configurations(count):
    return LOW + (HIGH - LOW) * rng.random((count, 3))


EARLIER = 30  # smoke: 6
TRIED = 50  # smoke: 8
frames = []
for number in range(EARLIER):
    x = configurations(TRIED)
    frames.append(pd.DataFrame(x, columns=INPUTS).assign(data_set=f"d{number:02}", accuracy=DataSet().accuracy(x)))
table = pd.concat(frames, ignore_index=True)
table.groupby("data_set").accuracy.describe()[["count", "min", "50%", "max"]].head(5).round(1)

# %% [markdown]
# Accuracies near 100 % are squeezed together, so that a tenth of a per cent may be worth as much there as ten per
# cent elsewhere. The score that is modelled is minus the logarithm of the error (plus one per cent), as on LCBench;
# more is better.

# %%
score = lambda accuracy: -np.log(1.01 - accuracy / 100.0)
table["score"] = score(table.accuracy)
tasks = bm.TaskDataset.from_frame(table, task="data_set", x=INPUTS, y=["score"])
print(tasks)

# %% [markdown]
# ## The surrogate
#
# ALPaCA is Bayesian linear regression on features that are learned from all tasks. A `TaskScale` gives each task a
# factor of its own for its variances, as data sets differ in how strongly they react. It is trained once, on the
# evidence of whole tasks. A sixth of the data sets is kept for `validation`, and the best weights are kept.

# %%
STEPS = 800  # smoke: 3
torch.manual_seed(0)
learner = bm.Standardized(bm.ALPaCA(bm.MLP(3, [64, 32]), scale=bm.priors.TaskScale())).double()
train, held_out = tasks.split(test=1 / 6, seed=0)
result = bm.fit(
    learner,
    train,
    STEPS,
    lr=2e-3,
    objective=bm.training.Evidence(),
    validation=held_out,
    validate_every=100,
    progress=False,
)
evaluation = bm.evaluate(learner, held_out, shots=[0, 1, 3, 7] if TRIED < 20 else [0, 1, 5, 20], query=30)
evaluation.table()[["rmse", "coverage", "width", "nll"]].round(3)

# %% [markdown]
# These are predictions of scores for data sets that it was not trained on. Look at `rmse` and `width` in the first
# rows: a single trial says much, since it tells hard data sets from easy ones. The 90 % intervals are too wide
# without a trial and a little too narrow after twenty (`coverage`); with five held-out data sets these shares are
# rough.

# %%
# alt: Predicted score along the learning rate for a new data set; before any trial the band is wide with a maximum near 0.01, and after one and three trials it follows the true curve.
example = DataSet()
grid = np.column_stack([np.linspace(LOW[0], HIGH[0], 61), np.full(61, -4.0), np.full(61, 0.3)])
tried = np.array([[-3.4, -3.0, 0.2], [-1.6, -5.0, 0.5], [-2.4, -4.0, 0.3]])
outcome = score(example.accuracy(tried))
figure, axes = plt.subplots(1, 3, figsize=(7.0, 2.9), sharey=True, layout="constrained")
for ax, shown in zip(axes, (0, 1, 3), strict=True):
    posterior = learner.adapt(bm.Data.from_arrays(tried[:shown], outcome[:shown]))
    prediction = posterior.predict(grid)
    low, high = (end[0, :, 0] for end in prediction.interval(0.9))
    ax.fill_between(10 ** grid[:, 0], low, high, color=BLUE, alpha=0.25, linewidth=0, label="90 %")
    ax.plot(10 ** grid[:, 0], prediction.mean[0, :, 0], color=BLUE, label="mean")
    ax.plot(10 ** grid[:, 0], score(example.accuracy(grid, noise=0.0)), color="black", linestyle="--", label="truth")
    ax.plot(10 ** tried[:shown, 0], outcome[:shown], "o", color=VERMILLION)
    ax.set(xscale="log", xlabel="learning rate", title=f"{shown} trials")
axes[0].set_ylabel("score")
axes[0].legend(fontsize="small", loc="lower left");
# %% [markdown]
# The curves are a cut at a weight decay of 0.0001 and a dropout of 0.3; the dots are trials at other values of these
# two, so that they need not lie on the curve. The prior already says "around 0.005, and beware of larger rates".
#
# ## Against a fresh Gaussian process
#
# New data sets, each with a pool of 200 configurations. All methods start from the same random one. The learner then
# tries the configuration with the largest *expected improvement*; its posterior is a BoTorch model by `TaskModel`,
# and is updated with each trial. The fresh process is BoTorch's `SingleTaskGP` with its defaults, fitted anew after
# every trial; as is usual it first takes four random configurations, and then goes by expected improvement, too. The
# *regret* is the distance to the best of the pool, in % of the range of the pool.

# %%
TASKS = 12  # smoke: 2
TRIALS = 12  # smoke: 3
POOL = 200  # smoke: 12
FIRST = 4  # smoke: 2


def search_learned(x, y, start):
    model, chosen = TaskModel.adapted(learner, x[[start]], y[[start], None]), [start]
    while len(chosen) < TRIALS:
        with torch.no_grad():
            value = LogExpectedImprovement(model, best_f=y[chosen].max())(x[:, None])
        value[chosen] = -torch.inf
        chosen.append(int(value.argmax()))
        model = model.condition_on_observations(x[[chosen[-1]]], y[[chosen[-1]], None])
    return chosen


def search_fresh(x, y, start):
    chosen = [start, *(i for i in rng.permutation(POOL).tolist() if i != start)][:FIRST]
    bounds = torch.tensor(np.stack([LOW, HIGH]))
    while len(chosen) < TRIALS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a single point has no deviation; a fit that tries again
            process = SingleTaskGP(
                x[chosen],
                y[chosen, None],
                input_transform=Normalize(3, bounds=bounds),
                outcome_transform=Standardize(1),
            )
            fit_gpytorch_mll(ExactMarginalLogLikelihood(process.likelihood, process))
            with torch.no_grad():
                value = OfOneGaussian(process, best_f=y[chosen].max())(x[:, None])
        value[chosen] = -torch.inf
        chosen.append(int(value.argmax()))
    return chosen


def search_random(x, y, start):
    return [start, *(i for i in rng.permutation(POOL).tolist() if i != start)][:TRIALS]


searches = {"meta-learned": search_learned, "fresh Gaussian process": search_fresh, "random": search_random}
regrets = {name: [] for name in searches}
for _ in range(TASKS):
    new, pool = DataSet(), configurations(POOL)
    x, y = torch.tensor(pool), torch.tensor(score(new.accuracy(pool)))
    regret = 100 * (y.max() - y) / (y.max() - y.min())
    start = int(rng.integers(POOL))
    for name, search in searches.items():
        regrets[name].append(regret[search(x, y, start)].cummin(0).values)
regrets = {name: torch.stack(each) for name, each in regrets.items()}
columns = [n for n in (1, 2, 3, 5, 8, 12) if n <= TRIALS]
error = lambda each: each.std(0) / len(each) ** 0.5
pd.DataFrame(
    {
        name: [f"{each.mean(0)[n - 1]:.1f} ± {error(each)[n - 1]:.1f}" for n in columns]
        for name, each in regrets.items()
    },
    index=pd.Index(columns, name="trials"),
)

# %%
# alt: Mean regret by trial with standard errors for the three methods; the meta-learned surrogate falls within a few trials to nearly zero, the fresh Gaussian process and random search fall far more slowly.
figure, ax = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
for (name, each), colour, marker in zip(regrets.items(), (BLUE, ORANGE, GREY), "os^", strict=True):
    ax.errorbar(
        range(1, TRIALS + 1),
        each.mean(0),
        error(each),
        color=colour,
        marker=marker,
        markersize=4,
        capsize=2,
        label=name,
    )
ax.set(xlabel="trials", ylabel="regret, % of the range", ylim=(0, None))
ax.legend();
# %% [markdown]
# The numbers are means over the data sets, with their standard errors. The first trial is random for all. From the
# second on the learned prior is far ahead: it knows where good configurations lie before the fresh process has seen
# enough to fit anything.

# %%
wins = (regrets["meta-learned"] < regrets["fresh Gaussian process"]).double().mean(0)
ties = (regrets["meta-learned"] == regrets["fresh Gaussian process"]).double().mean(0)
pd.DataFrame(
    {"meta-learned is ahead": wins[[n - 1 for n in columns]], "both are level": ties[[n - 1 for n in columns]]},
    index=pd.Index(columns, name="trials"),
).round(2)

# %% [markdown]
# ## The same through Ax
#
# [Ax](https://ax.dev) runs experiments: it keeps the trials, proposes the next, and stores what came of them. One
# line tells it to use the learner, `client.set_generation_strategy(generation_strategy(learner))`. The first trial is
# then where the learner expects most without any data. Parameters go by the names and units of the learner's inputs,
# so logarithms stay logarithms.

# %%
from ax.api.client import Client
from ax.api.configs import RangeParameterConfig

from bayesmeta.interop.botorch.ax import generation_strategy

logging.getLogger("ax.api.client").setLevel(logging.ERROR)
AX_TRIALS = 6  # smoke: 2
rng = np.random.default_rng(11)
new = DataSet()
client = Client()
client.configure_experiment(
    name="data set 31",
    parameters=[
        RangeParameterConfig(name=name, parameter_type="float", bounds=(low, high))
        for name, low, high in zip(INPUTS, LOW.tolist(), HIGH.tolist(), strict=True)
    ],
)
client.configure_optimization(objective="score")
client.set_generation_strategy(generation_strategy(learner))
torch.manual_seed(0)
rows = []
for _ in range(AX_TRIALS):
    for index, parameters in client.get_next_trials(max_trials=1).items():
        accuracy = new.accuracy(np.array([parameters[name] for name in INPUTS])).item()
        client.complete_trial(index, raw_data={"score": score(accuracy)})
        rows.append(
            {
                "learning rate": f"{10 ** parameters[INPUTS[0]]:.5f}",
                "weight decay": f"{10 ** parameters[INPUTS[1]]:.6f}",
                "dropout": f"{parameters[INPUTS[2]]:.2f}",
                "accuracy, %": round(accuracy, 1),
            }
        )
best_possible = new.accuracy(np.array([new.rate, new.decay, new.dropout]), noise=0.0).item()
best, _, _, _ = client.get_best_parameterization(use_model_predictions=False)
print("best by Ax:", {name: round(value, 2) for name, value in best.items()}, f"of at most {best_possible:.1f} %")
pd.DataFrame(rows, index=pd.RangeIndex(1, len(rows) + 1, name="trial"))

# %% [markdown]
# The first proposal is the mean opinion of the earlier data sets, made before any trial, and the next ones correct it
# for this one. The accuracy has noise, so a trial may even be a little above what is possible without.
#
# ## What was learned
#
# - Earlier experiments are tasks. A learner that is trained on their table is a surrogate for the next experiment, in
#   the units of the table.
# - `TaskModel.adapted(learner, x, y)` is a BoTorch model, `condition_on_observations` is an update, and acquisition
#   functions work as they do with a Gaussian process.
# - The gain is largest in the first trials and shrinks as the task's own data add up. It rests on the new task being
#   like the earlier ones: [surprise](../concepts/calibration.md) tests that.
# - `generation_strategy(learner)` is all that Ax needs.
#
# Where to go next: [BoTorch and Ax](../how_to/botorch.md), with what every posterior becomes, known noise and
# Thompson sampling; [ALPaCA](../methods/alpaca.md#tasks-that-scatter-unlike-each-other) on scales of tasks; and the
# [benchmark on LCBench](../benchmarks/index.md#bayesian-optimisation-that-has-seen-other-tasks-meta_bo).
