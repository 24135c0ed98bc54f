# %% [markdown]
# # Schools: pass or fail, and days absent
#
# Outcomes that are yes or no, or counts, by school: partial pooling, probabilities that mean what they say, and what
# goes wrong when counts scatter more than the model allows.
#
# Forty schools report for each pupil the hours of homework in a week, whether the pupil passed an examination, and the
# days that the pupil was absent. Schools differ, and some reported four pupils only. You want to say something of each
# school, and of a *new* school of which little is known.
#
# Here a school is a **task**: a small data set with its own truth. Its pupils are the points. A model for all schools
# at once learns how schools differ, the *prior*; each school's own pupils turn it into that school's *posterior*. In
# statistics this is a generalised linear mixed model, `glmer` in R.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

import bayesmeta as bm

SCHOOLS = 40  # smoke: 12
NEW_SCHOOLS = 100  # smoke: 14
STEPS = 500  # smoke: 5

# %% [markdown]
# ## The table
#
# We simulate the schools, so that their truth is known. The log odds of passing are $-0.9 + 0.35\,x + b_t$, with $x$
# the hours of homework and $b_t \sim \N(0, 0.9^2)$ what is particular to school $t$. Days of absence are counts whose
# logarithmic mean differs between schools, too, and *pupils* of one school differ in it besides: a few are absent very
# often.


# %%
def simulate(count, seed):
    rng = np.random.default_rng(seed)
    rows = []
    for school in range(count):
        level, absence = rng.normal(0, 0.9), rng.normal(0, 0.6)
        for _ in range(rng.integers(4, 41)):
            hours = round(rng.uniform(0, 6), 1)
            passes = rng.random() < 1 / (1 + np.exp(0.9 - 0.35 * hours - level))
            days = rng.poisson(np.exp(1.2 - 0.05 * hours + absence) * rng.gamma(1.5, 1 / 1.5))
            rows.append((f"{school:02d}", hours, "pass" if passes else "fail", days, level - 0.9))
    return pd.DataFrame(rows, columns=["school", "hours", "result", "days_absent", "truth"])


df, new = simulate(SCHOOLS, seed=2), simulate(NEW_SCHOOLS, seed=100)
print(
    f"{len(df)} pupils of {SCHOOLS} schools, {df.groupby('school').size().min()} to {df.groupby('school').size().max()} each"
)
df.drop(columns="truth").head(5)

# %% [markdown]
# ## Pass or fail
#
# `result` is text, so its outcomes are *classes*. The model is logistic regression in the hours with an intercept of
# each school's own; in R `glmer(result ~ hours + (1 | school), family = binomial)`. `Identity(1)` stands for the
# features $1$ and $x$, and `varying=[0]` says that only the first weight, the intercept, differs between schools.


# %%
def results(frame):
    return bm.TaskDataset.from_frame(frame, task="school", x=["hours"], y=["result"], outcomes=bm.Labels())


def intercepts():
    return bm.priors.FullCovariance(2, varying=[0])


passing = bm.learners.GeneralizedLinearMixedModel(
    bm.Identity(1), likelihood=bm.likelihoods.Bernoulli(), covariance=intercepts()
).double()
bm.fit_evidence(passing, results(df))
print(passing.summary(results(df)))

# %% [markdown]
# Effects are on the scale of log odds. An hour of homework a week multiplies the odds of passing by $e^{0.34} = 1.4$.
# Schools deviate from the typical one by 0.9 in log odds: about the effect of two and a half hours of homework. (The
# truth is -0.9, 0.35 and 0.9.)
#
# ## Partial pooling, seen
#
# What is the pass rate of each school? There are two bad answers. The share of its own pupils who passed is 0 or 1 for
# a school of four pupils, if chance has it so; the share in all schools together denies that schools differ. The
# posterior of a school lies between: it believes large schools and pulls small ones towards the others, and how
# strongly was learned.

# %%
# alt: For each school, sorted by its number of pupils, an arrow from the raw log odds of passing to the estimate with partial pooling. Arrows of small schools are long and point to the common mean, those of large schools are short.
summary = passing.adapt(results(df).data).summary(results(df)).coefficients
estimate = summary["mean"].xs("intercept", level="term")
lower, upper = summary["lower"].xs("intercept", level="term"), summary["upper"].xs("intercept", level="term")
by_school = df.groupby("school")
pupils, share = by_school.size(), by_school.result.apply(lambda result: (result == "pass").mean())
slope, middle = passing.network.location[1].item(), passing.network.location[0].item()
raw = np.log((share + 1e-9) / (1 - share + 1e-9)).clip(-5, 3) - slope * by_school.hours.mean()  # at no homework
order = pupils.sort_values().index
figure, ax = plt.subplots(figsize=(7.0, 3.4), layout="constrained")
places = np.arange(len(order))
ax.vlines(places, lower[order], upper[order], color="#56B4E9", linewidth=3, alpha=0.6, label="90 % interval")
ax.plot(places, estimate[order], "o", color="#0072B2", markersize=4, label="partial pooling")
ax.plot(places, raw[order], "x", color="#D55E00", markersize=5, label="the school alone")
ax.plot(places, by_school.truth.first()[order], "_", color="black", label="truth")
ax.axhline(middle, color="black", linewidth=0.8, linestyle="--")
ax.set_xticks(places[::3], pupils[order].iloc[::3])
ax.set(xlabel="pupils of the school", ylabel="log odds of passing, no homework")
ax.legend(frameon=False, ncols=4, loc="upper center", bbox_to_anchor=(0.5, 1.16))

# %%
truth = by_school.truth.first()
small = pupils <= 10
for name, values in {
    "the school alone": raw,
    "all schools together": raw * 0 + middle,
    "partial pooling": estimate,
}.items():
    error = (values - truth).pow(2)
    print(f"{name:22s} error {error.mean() ** 0.5:.2f}, in schools of up to 10 pupils {error[small].mean() ** 0.5:.2f}")

# %% [markdown]
# ## A new school
#
# A school that was in no table starts from the prior, and learns from its pupils. Are the probabilities that it states
# any good? We simulate a hundred new schools, and compare with two baselines: `pooled`, one network for all schools
# that knows no differences between them, and `alone`, one logistic regression for each school by itself.

# %%
torch.manual_seed(0)  # of the network
rivals = {
    "partial pooling": passing,
    "pooled": bm.selection.pooled(results(df), STEPS),
    "alone": bm.selection.alone(results(df)),
}
judged = {name: bm.evaluate(each, results(new), shots=[0, 3, 10], query=20) for name, each in rivals.items()}
pd.concat({name: each.table() for name, each in judged.items()})[["nll", "accuracy", "ece", "ece_noise"]].round(3)


# %% [markdown]
# `nll` is minus the logarithm of the probability that was given to what came (lower is better). The expected
# calibration error `ece` compares stated probabilities with shares, and `ece_noise` is how large it would be by
# chance. At no known pupil nothing can be better than `pooled`. With ten known pupils the mixed model knows the school
# better than `alone`, which has to learn everything from these ten, and than `pooled`, which cannot learn from them at
# all. Its probabilities are calibrated at every number of known pupils to about the noise. (`alone` is calibrated at
# none: it says one half of everybody before it has seen a pupil.)

# %%
# alt: Reliability diagram of the mixed model at 0, 3 and 10 known pupils: observed shares against stated probabilities lie near the diagonal.
bm.plotting.reliability_diagram(judged["partial pooling"])

# %% [markdown]
# ## Days of absence
#
# The days are counts. The usual model of counts is Poisson's, whose variance is its mean. Real counts scatter more,
# since pupils differ in ways that no column says. The *negative binomial* distribution has one number more, the
# dispersion, for that.


# %%
def absences(frame):
    return bm.TaskDataset.from_frame(frame, task="school", x=["hours"], y=["days_absent"], outcomes=bm.tasks.Counts())


counts, rows = {}, {}
kinds = {"Poisson": bm.likelihoods.Poisson(), "negative binomial": bm.likelihoods.NegativeBinomial()}
for name, likelihood in kinds.items():
    learner = bm.learners.GeneralizedLinearMixedModel(bm.Identity(1), likelihood=likelihood, covariance=intercepts())
    counts[name] = learner.double()
    bm.fit_evidence(counts[name], absences(df))
    found = counts[name].summary(absences(df))
    rows[name] = {
        "effect of an hour": found.fixed_effects.estimate["hours"],
        "its std. error": found.fixed_effects.std_error["hours"],
        "deviation of schools": found.variance_components["stddev"]["school", "intercept"],
        "log-likelihood": found.likelihood.log_likelihood,
        "AIC": found.likelihood.aic,
    }
pd.DataFrame(rows).T.round(3)

# %% [markdown]
# Both find about the same effect and the same differences between schools. But the negative binomial explains the
# table far better (its AIC is lower by hundreds), and Poisson's standard error is only half as large: it would call an
# effect certain that is not. What does that do to predictions for new schools?

# %%
judged_counts = {name: bm.evaluate(each, absences(new), shots=[0, 3, 10]) for name, each in counts.items()}
columns = ["nll", "coverage", "coverage_low", "coverage_high", "width"]
pd.concat({name: each.table() for name, each in judged_counts.items()})[columns].round(2)

# %%
# alt: Two histograms of the probability integral transform with ten known pupils. Poisson's has walls at both ends far above the band of a right model, the negative binomial's stays near the band.
figure, axes = plt.subplots(1, 2, figsize=(7.0, 2.9), sharey=True, layout="constrained")
for ax, (name, evaluation) in zip(axes, judged_counts.items(), strict=True):
    bm.plotting.pit_histogram(evaluation, shots=10, ax=ax)
    ax.set_title(name)

# %% [markdown]
# Poisson's intervals of 90 % hold two thirds of the counts, and it gets *worse* the more pupils are known: then the
# model believes that it knows the school, and has nothing else to explain how its pupils scatter. The negative
# binomial's intervals hold what they promise. The histograms show the same: `F(y)`, the probability of a smaller
# count, should be uniform. Poisson has walls at both ends, which is the mark of intervals that are too narrow.
#
# A new school of whose pupils three were absent on 2, 0 and 7 days:

# %%
posterior = counts["negative binomial"].adapt(bm.Data.from_arrays([1.0, 5.0, 3.0], [2.0, 0.0, 7.0]))
prediction = posterior.predict([2.0])
lower, upper = prediction.interval(0.9)
print(
    f"a pupil of 2 hours: {prediction.mean.item():.1f} days expected, 90 % from {lower.item():.0f} to {upper.item():.0f}"
)

# %% [markdown]
# ## What was learned
#
# - Classes and counts need nothing but another `outcomes=` and another likelihood; `adapt`, `predict` and `evaluate`
#   stay the same.
# - Partial pooling is what a learned prior does. Its error was about half of that of either extreme, for small schools
#   as for all.
# - A model may have the right mean and be wrong about scatter. Coverage by the number of known points shows it; the
#   mean error does not.
#
# Where to go next:
#
# - [Outcomes](../concepts/outcomes.md): all kinds, and what the command line makes of them.
# - [Mixed effects, nested and crossed](../methods/mixed_effects.md): classes within schools.
# - [Calibrating](calibration.md): what to do when coverage is not what was promised.
