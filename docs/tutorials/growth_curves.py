# %% [markdown]
# # Growth curves against lme4
#
# A linear mixed model of growing plants agrees with an independent program digit by digit, and a model of curves then predicts them better.
#
# Thirty-six seedlings were measured on some days each. You want to predict how a *new* seedling will grow from the
# few heights that you have of it. In this library such a seedling is a **task**: a small data set of its own. From
# many tasks a **learner** learns what seedlings have in common and how they differ, the *prior*; a few points of a new
# task then give its *posterior*.
#
# If you know R, you have fitted such data with `lme4`. We begin there: with the same model, the same numbers, and the
# same words. Then we ask whether a straight line was good enough.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import statsmodels.formula.api as smf

import bayesmeta as bm
from bayesmeta.kernels import ConstantKernel, LinearKernel, MaternKernel, SubsetKernel, SumKernel

FOLDS = 4  # smoke: 2
TOLERANCE = 1e-4  # smoke: 1.0

# %% [markdown]
# ## The table
#
# The table comes along with the library. It has one row for each measurement, and one column, `plant`, that says whose
# row it is. This is the usual *long format*; the plants need not have the same number of rows, and they do not. (The
# plants are simulated, by a rule that no model below is told.)

# %%
df = bm.tasks.example_table()
df.head(8)

# %%
# alt: Heights of 36 seedlings against days after sowing, a line for each plant, coloured by the light on its shelf. Growth bends upwards at first, and the lines fan out.
colours = {120: "#56B4E9", 180: "#0072B2", 240: "#009E73", 320: "#D55E00"}
figure, ax = plt.subplots(figsize=(5.6, 3.4), layout="constrained")
for (light, _), rows in df.groupby(["light_umol", "plant"]):
    ax.plot(rows.day, rows.height_cm, ".-", linewidth=0.8, markersize=4, color=colours[light])
for light, colour in colours.items():
    ax.plot([], [], color=colour, label=light)
ax.legend(title="light, µmol m⁻² s⁻¹", frameon=False)
ax.set(xlabel="days after sowing", ylabel="height, cm");

# %% [markdown]
# Three things can be seen. Plants differ, and the differences grow with time. Light explains a part of them. And the
# curves are not straight: seedlings start slowly, then shoot up, then slow down. We keep the third in mind, and start with straight lines anyway,
# because that is what the standard model does.
#
# ## The linear mixed model
#
# In R the model is
#
# ```r
# library(lme4)
# lmer(height_cm ~ day + (day | plant), data = df)     # REML = TRUE is the default
# ```
#
# which reads: all plants have a common line in `day`, and each plant has an intercept and a slope of its own that
# deviate from it. As a formula, with $t$ for the plant and $n$ for its measurements,
#
# $$
# y_{tn} = (\beta_0 + b_{t0}) + (\beta_1 + b_{t1})\, x_{tn} + \varepsilon_{tn}, \qquad
# b_t \sim \N(0, G), \qquad \varepsilon_{tn} \sim \N(0, \sigma^2).
# $$
#
# Here it is [ALPaCA](../methods/alpaca.md), which is Bayesian linear regression with a learned prior, on the features
# $1$ and $x$. `bm.Identity(1)` stands for these features. The **fixed effects** $\beta$ are the mean of the prior, the
# **random effects** $b_t$ are what a task deviates from it, and their covariance $G$ is that of the prior.
# `fit_evidence` maximises the restricted likelihood (REML), as `lmer` does.

# %%
tasks = bm.TaskDataset.from_frame(df, task="plant", x=["day"], y=["height_cm"])
mixed = bm.Standardized(bm.ALPaCA(bm.Identity(1))).double()
bm.fit_evidence(mixed, tasks, bm.training.RestrictedMaximumLikelihood())
summary = mixed.summary(tasks)
print(summary)

# %% [markdown]
# The page reads like that of `summary(lmer(...))`. A typical plant grows 0.62 cm a day; the slopes of plants deviate
# from that by 0.22 cm a day, which is a third of it. The intercept is negative because a straight line through a curve
# that bends upwards has to start below the ground: a first sign of trouble. The correlation of -0.63 says that plants
# with steep lines have low intercepts, which is the same bend once more.
#
# `Standardized` lets the learner work in standard units, where searches are easy, and gives every result back in yours.
#
# ## The same fit by another program
#
# Nobody should believe a mixed model because a library says so. `statsmodels` fits the same model with code that has
# nothing in common with ours:

# %%
other = smf.mixedlm("height_cm ~ day", df, groups="plant", re_formula="~day").fit(reml=True)
ours, theirs = summary.variance_components["variance"], other.cov_re.to_numpy()
covariance = summary.correlations.correlation[0] * np.sqrt(ours["plant", "intercept"] * ours["plant", "day"])
pd.DataFrame(
    {
        "bayesmeta": [
            summary.fixed_effects.estimate["intercept"],
            summary.fixed_effects.estimate["day"],
            ours["plant", "intercept"],
            ours["plant", "day"],
            covariance,
            ours["residual"].item(),
            summary.likelihood.maximum,
        ],
        "statsmodels": [*other.fe_params, theirs[0, 0], theirs[1, 1], theirs[0, 1], other.scale, other.llf],
    },
    index=[
        "intercept, cm",
        "slope, cm / day",
        "variance of intercepts",
        "variance of slopes",
        "covariance of both",
        "variance of the noise",
        "restricted log-likelihood",
    ],
).round(4)

# %% [markdown]
# The two programs agree to the digits that are shown. The tests of the library hold such agreements for published
# tables of `lme4`, `nlme` and others ([mixed effects](../methods/mixed_effects.md)).
#
# ## Plant by plant: BLUPs
#
# The best linear unbiased predictions of the random effects, `ranef` in R, are simply the means of the tasks' posteriors.
# `adapt` makes the posterior of each plant from its points, and its summary has deviations and intervals besides.

# %%
posterior = mixed.adapt(tasks.data)
coefficients = posterior.summary(tasks).coefficients
blups = pd.DataFrame(other.random_effects).T
blups.columns = ["intercept", "day"]
difference = coefficients["mean"].unstack("term") - summary.fixed_effects.estimate - blups
print(f"largest difference from statsmodels: {difference.abs().max().max():.1e}")
coefficients.loc[["03", "08"]].round(3)

# %% [markdown]
# `shrinkage` is the share of a coefficient's variance that its own points have *not* removed: near 0 the plant speaks for
# itself, near 1 the prior speaks for it. Plant 03 has six rows, and its slope is its own (0.04). Plant 08 has two, and
# its slope is mostly that of plants in general (0.75).
#
# ## A new plant
#
# A seedling that was in no table has been measured twice. Its posterior is one call away, and so is the height that it
# will have on day 21, with a 90 % interval. With no point at all the prior answers.

# %%
for days, heights in [([], []), ([4.0], [0.9]), ([4.0, 9.0], [0.9, 3.1])]:
    plant = mixed.adapt(bm.Data.from_arrays(days, heights))
    prediction = plant.predict([21.0])
    lower, upper = prediction.interval(0.9)
    print(f"known rows {len(days)}: {prediction.mean.item():5.2f} cm, 90 % from {lower.item():5.2f} to {upper.item():5.2f}")

# %% [markdown]
# Two early rows narrow the interval from 13 cm to 9 cm. Is that all that they tell, or all that a straight line can make
# of them?
#
# ## Is a line good enough?
#
# A model is judged by tasks that it was not trained on. `bm.compare` divides the plants into folds, trains each candidate
# on the others, lets it see the first 0, 1 or 3 rows of a held-out plant, and notes the log density that it gave to the
# heights that came later. A higher density means that the prediction was near *and* its stated uncertainty was right.
#
# Light and cultivar are known before a plant has a single row, so they are **covariates** of the task. The candidates are
#
# - **line**: the covariates shift the line and change its slope; in R
#   `height_cm ~ day * (light_umol + cultivar) + (day | plant)`;
# - **parabola**: the same with the square of the day, which differs between plants, too;
# - **curves**: no formula, but [two levels of Gaussian processes](../methods/hierarchical_process.md): a smooth function of
#   day, light and cultivar that all plants have in common, and a smooth function of the day that is the plant's own;
# - **alone**: one regression for each plant by itself, which learns nothing from other plants. It is there to be beaten.

# %%
known = bm.TaskDataset.from_frame(df, task="plant", x=["day"], y=["height_cm"], covariates=["light_umol", "cultivar"])
num_covariates = known.schema.num_covariates  # light, and a 0/1 input for each of three cultivars


def polynomial(degree):
    features = bm.networks.TaskCovariates(bm.Polynomial(1, degree), num_covariates)
    return bm.Standardized(bm.ALPaCA(features)).double()


def curves():
    shared = SumKernel([LinearKernel(), MaternKernel(2.5)])  # of day, light and cultivar: what plants have in common
    own = SumKernel([ConstantKernel(0.3), LinearKernel(0.1), MaternKernel(2.5, variance=0.1)])  # of the day: its own
    inputs = bm.networks.Inputs(1 + num_covariates)
    process = bm.HierarchicalProcess(inputs, shared_kernel=shared, own_kernel=SubsetKernel(own, [0]))
    return bm.Standardized(process).double()


def train(learner, tasks):
    bm.fit_evidence(learner, tasks, tolerance=TOLERANCE)


candidates = {
    "line": bm.selection.Candidate(lambda: polynomial(1), train),
    "parabola": bm.selection.Candidate(lambda: polynomial(2), train),
    "curves": bm.selection.Candidate(curves, train),
}
found = bm.selection.cross_validate(
    candidates,
    known,
    shots=[0, 1, 3],
    folds=FOLDS,
    split=bm.tasks.PrefixSplit,
    baselines={"alone": bm.selection.alone},
)
table = found.table()
table[["nll", "rmse", "coverage", "width"]].round(2)

# %% [markdown]
# The columns are minus the log density of a point (`nll`, in nats: lower is better), the error of the mean (`rmse`, in
# cm), the share of 90 % intervals that held the height (`coverage`), and how wide these were (`width`, in cm). All are
# averages over plants that the learner was not trained on.
#
# Are the differences real? They are paired by plant, and thirty-six plants are enough to say so:

# %%
print(found.recommendation)

# %%
# alt: Negative log density per point against the number of known rows, with 95 % intervals over plants. The curves are lowest everywhere and fall most with three rows, the single-plant regression is highest.
figure, ax = plt.subplots(figsize=(5.6, 3.2), layout="constrained")
styles = {"alone": ("#CC79A7", "D"), "line": ("#E69F00", "s"), "parabola": ("#009E73", "^"), "curves": ("#0072B2", "o")}
for place, (name, (colour, marker)) in enumerate(styles.items()):
    rows = table.xs(name, level=1)
    bars = [rows.nll - rows.nll_low, rows.nll_high - rows.nll]
    ax.errorbar(rows.index + 0.06 * (place - 1.5), rows.nll, yerr=bars, marker=marker, color=colour, label=name)
ax.set(xlabel="known rows of the new plant", ylabel="nll, nats per point", xticks=[0, 1, 3])
ax.legend(frameon=False);

# %% [markdown]
# With three rows the curves' error is half of the line's (0.98 cm against 1.95 cm). The line does not profit from early rows, because to it the
# first week and the third are the same line; the curves know which starts lead to which ends. And the regression of each
# plant alone shows what it costs to ignore other plants: with three rows its error is four times that of the curves.
#
# ## What the difference looks like
#
# Plant 09 is one of nine plants that are now held out of both fits. The upper row is the line, the lower row the curves,
# from none, one and three of the plant's rows.

# %%
# alt: Two rows of three panels for plant 09 with no, one and three known rows. The line's 90 % bands stay wide and are straight; the bands of the curves bend upwards, narrow quickly and hold the later heights.
train_tasks, held_out = known.split(test=0.25, seed=0)  # by plant, never by row
models = {"line": polynomial(1), "curves": curves()}
figure, axes = plt.subplots(2, 3, figsize=(7.0, 4.6), sharex=True, sharey=True, layout="constrained")
for (name, model), panels in zip(models.items(), axes, strict=True):
    train(model, train_tasks)
    bm.plotting.task_panels(model, held_out, "09", shots=[0, 1, 3], axes=list(panels))
    panels[0].set_ylabel(f"{name}\nheight, cm")
for above, below in zip(*axes, strict=True):
    above.set_xlabel("")
    below.set_title("")
figure.legend(*axes[0, 2].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False, fontsize=9);

# %% [markdown]
# With three rows known, the line's intervals miss most of the later heights of this plant: they are narrow around the
# wrong curve. Those of the curves are narrower, and hold them.
#
# ## What was learned
#
# - A linear mixed model *is* a meta-learner: its fixed effects are the mean of a prior, its random effects the parameters
#   of tasks, its BLUPs the means of posteriors. Two independent programs gave the same numbers.
# - A new task is predicted by `adapt` and `predict`, and an interval comes with it, even before the first measurement.
# - The standard model was not the best one. It takes one call to find out, with an interval for the difference.
#
# Where to go next:
#
# - [Mixed effects, nested and crossed](../methods/mixed_effects.md) and [ALPaCA](../methods/alpaca.md) for `lme4` users;
#   [summaries](../concepts/summary.md) for every number of the page above.
# - [How to choose a learner](../start/how_to_choose.md), and [what the scores mean](../concepts/calibration.md).
# - [Schools](schools.md), if your outcomes are yes or no, or counts; [dose and
#   concentration](dose_and_concentration.md), if you know the formula of the curve.
