# %% [markdown]
# # Calibrating, conformal intervals, and surprise
#
# A learner whose intervals are too narrow is found out, repaired, given intervals with a guarantee, and made to raise
# an alarm at a task unlike the others.
#
# An interval of 90 % should hold the outcome nine times in ten. A learner whose intervals do is **calibrated**.
# Whether it is can be measured, and where it is not it can often be mended without training it again. On this page we
# do both, with a learner that we have made wrong on purpose, so that we know what should be found.
#
# The setting: rooms of a cold store. In each room the temperature wanders smoothly around its set point, by about 1 °C
# within four hours, and each room in its own way. A room is a **task**, a small data set with a curve of its own. A
# thermometer reads it with an error of 0.1 °C at some moments (the *shots*), and the temperature at other moments is
# to be predicted.

# %%
import copy

import matplotlib.pyplot as plt
import pandas as pd
import torch

import bayesmeta as bm
from bayesmeta.tasks.simulators.gp_functions import ExponentiatedQuadratic

ROOMS = 150  # smoke: 20
HELD_OUT = 120  # smoke: 20
TOLERANCE = 1e-4  # smoke: 1.0

rooms = bm.tasks.GPFunctions(ExponentiatedQuadratic(length_scale=0.6, variance=1.0), noise=0.1)  # hours, °C
train = rooms.dataset(num_tasks=ROOMS, num_points=20, seed=0)
held_out = rooms.dataset(num_tasks=HELD_OUT, num_points=30, seed=1)  # to mend by
test = rooms.dataset(num_tasks=HELD_OUT, num_points=30, seed=2)  # to judge by

# %% [markdown]
# There are three sets of rooms, and no room is in two of them: one to train on, one to mend by, and one to judge by.
#
# ## A good learner, and a wrong one
#
# The good learner is [ALPaCA](../methods/alpaca.md) on a row of bumps. The wrong one is a copy of it that believes
# rooms to differ three times less than they do (a ninth of the variance). Mistakes of this kind are common: a learner
# that was trained on too few tasks, or whose approximation leaves out a part of the uncertainty, has the same trouble.

# %%
good = bm.ALPaCA(bm.RadialBasis(1, 12)).double()
bm.fit_evidence(good, train, tolerance=TOLERANCE)

narrow = copy.deepcopy(good)
covariance = narrow.prior.covariance
covariance.set_matrix(covariance.matrix().detach() / 9)

shots = [0, 1, 2, 5, 10]
judged = {name: bm.evaluate(each, test, shots=shots, query=15) for name, each in {"good": good, "narrow": narrow}.items()}


def overview(evaluations, *columns):
    return pd.concat({name: each.table()[list(columns)] for name, each in evaluations.items()}, axis=1).round(2)


overview(judged, "coverage", "width", "nll")

# %% [markdown]
# The rows are numbers of known readings. `coverage` is the share of later readings inside of the 90 % intervals,
# `width` is their mean width in °C, and `nll` is minus the log density of a reading (lower is better). The narrow
# learner's intervals hold about half of what they should, and it pays for its confidence in `nll`. It gets better with
# more readings, as data outvote the prior: so always look at *all* numbers of shots that there will be in use, zero
# included.
#
# ## How to see it
#
# The *reliability diagram* shows for every probability $p$ which share of readings fell below the quantile that the
# learner gave for it. On the diagonal the learner means what it says. The *PIT histogram* shows the same differently:
# $F(y)$, the predicted probability of a smaller reading, should be uniform between 0 and 1.

# %%
# alt: Two reliability diagrams. The curves of the good learner lie on the diagonal at all numbers of shots, those of the narrow learner are flat in the middle and steep at the ends, least so with ten shots.
figure, axes = plt.subplots(1, 2, figsize=(7.0, 3.6), sharey=True, layout="constrained")
for ax, (name, evaluation) in zip(axes, judged.items(), strict=True):
    bm.plotting.reliability_diagram(evaluation, ax=ax)
    ax.set_title(name)

# %%
# alt: PIT histograms of the narrow learner at 0, 2 and 10 shots, and of the good one at 2. The narrow learner's have walls at both ends, which shrink with shots, and the good one's is level.
figure, axes = plt.subplots(1, 4, figsize=(7.0, 2.5), layout="constrained")
for ax, (name, shot) in zip(axes, [("narrow", 0), ("narrow", 2), ("narrow", 10), ("good", 2)], strict=True):
    bm.plotting.pit_histogram(judged[name], shots=shot, ax=ax)
    ax.set_title(f"{name}, {shot} shots", fontsize=10)
    ax.set(xlabel="F(y)", ylabel="")
    if ax.get_legend() is not None:
        ax.get_legend().remove()

# %% [markdown]
# Walls at both ends mean *too narrow*; a hump in the middle would mean too wide, and a slope would mean too high or
# too low. The grey band is where the bars of a right learner would lie, if readings were independent.
#
# ## Repair
#
# A correction is learned from held-out rooms, and for each number of shots by itself. `variance_scaling` multiplies
# predictive deviations by one number. `isotonic_recalibration` bends the predicted probabilities by any increasing
# curve. What they return is a learner like any other.

# %%
scaled = bm.calibration.variance_scaling(narrow, held_out, shots=shots)
bent = bm.calibration.isotonic_recalibration(narrow, held_out, shots=shots)
both = bm.calibration.isotonic_recalibration(scaled, held_out, shots=shots)
repaired = {"narrow": narrow, "scaled": scaled, "isotonic": bent, "both": both}
judged |= {name: bm.evaluate(each, test, shots=shots, query=15) for name, each in repaired.items()}
overview(judged, "coverage", "nll")

# %% [markdown]
# One number for each number of shots was enough: with `scaled` the coverage is 0.9 again. `isotonic` alone helps less,
# because its curve ends at the 1 % and 99 % levels, and this learner's readings lie far beyond them; on top of the
# scaling it finds hardly anything left to bend.
#
# Compare `nll` of `scaled` with that of `good` at five and ten shots, too. A repair makes intervals *honest*. It does
# not make the learner *good*: it still weighs readings against a wrong prior, and its intervals have to be wider to be
# right. Where you can train a better learner, do that first.
#
# ## A guarantee: conformal intervals
#
# Recalibration makes intervals right on average, as far as the held-out tasks tell. *Conformal prediction* promises
# more: intervals that hold the outcome of a new task with a probability of **at least** 90 %, whatever the learner, as
# long as the new task is drawn like the held-out ones.

# %%
rows = {}
for name, learner in {"good": good, "narrow": narrow, "scaled": scaled}.items():
    conformal = bm.calibration.HierarchicalConformal(learner, held_out, shots=5)
    found = conformal.evaluate(test, 0.9).table()
    plain = judged[name].table().loc[5]
    rows[name] = {
        "coverage, conformal": float(found["coverage"].iloc[0]),
        "width, conformal": float(found["width"].iloc[0]),
        "coverage, its own": plain.coverage,
        "width, its own": plain.width,
    }
pd.DataFrame(rows).T.round(2)

# %% [markdown]
# Even the narrow learner gets intervals that hold. Conformal intervals say nothing of densities, and nothing of
# several moments at once; but what they say needs no belief in the learner. In use they are called like a posterior:

# %%
conformal = bm.calibration.HierarchicalConformal(narrow, held_out, shots=5)
room = test.data.select([0])
posterior = conformal.adapt(room.points(slice(5)))
lower, upper = posterior.interval(room.x[:, 5:8], level=0.9)
for time, low, high, reading in zip(room.x[0, 5:8, 0], lower.flatten(), upper.flatten(), room.y[0, 5:8, 0], strict=True):
    print(f"at {time:5.2f} h: 90 % from {low:5.2f} to {high:5.2f} °C, read {reading:5.2f} °C")

# %% [markdown]
# ## Surprise: a room unlike the others
#
# Everything so far is promised for new tasks that are drawn *like the old ones*. A probe that has come loose, or a
# room with an open door, gets intervals as confident as everybody's. So ask first whether the readings of a task look
# like those of other tasks. `Surprise` compares them with held-out tasks, and gives a p-value: at a level of 5 %, one
# in twenty ordinary rooms raises an alarm, whatever is wrong with the learner.

# %%
surprise = bm.checks.Surprise.fit(good, held_out, shots=[10])
kinds = {
    "ordinary rooms": rooms,
    "a door that opens and closes": bm.tasks.GPFunctions(ExponentiatedQuadratic(0.15, variance=1.0), noise=0.1),
    "a probe that flickers": bm.tasks.GPFunctions(ExponentiatedQuadratic(0.6, variance=1.0), noise=0.5),
    "a room that hardly changes": bm.tasks.GPFunctions(ExponentiatedQuadratic(2.0, variance=1.0), noise=0.1),
}
drawn = {name: kind.dataset(num_tasks=HELD_OUT, num_points=10, seed=5) for name, kind in kinds.items()}
values = {name: surprise.p_value(tasks.data) for name, tasks in drawn.items()}
alarms = {name: (value <= 0.05).double().mean().item() for name, value in values.items()}
pd.Series(alarms, name="share of alarms").to_frame().round(2)

# %%
# alt: Share of rooms with a p-value of at most p against p, for four kinds of rooms. Ordinary rooms follow the diagonal, rooms with a door and flickering probes rise steeply at once, and rooms that hardly change stay near the diagonal.
figure, ax = plt.subplots(figsize=(4.8, 3.4), layout="constrained")
levels = torch.linspace(0, 1, 101).double()
for (name, value), style in zip(values.items(), ["-", "-", "--", ":"], strict=True):
    ax.plot(levels, [(value <= level + 1e-9).double().mean() for level in levels], style, label=name)
ax.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle="--")
ax.set(xlabel="p", ylabel="share of rooms with a p-value up to p")
ax.legend(frameon=False, fontsize=9)

# %% [markdown]
# From ten readings nine in ten doors and flickering probes are found, and 3 % of the ordinary rooms raise an alarm. A
# room that hardly changes is hard to tell: an ordinary room may look like that, too. *No alarm is no proof.*
#
# ## What was learned
#
# - Judge a learner by coverage, reliability and PIT **at each number of shots** on tasks that it has not seen. Walls
#   mean too narrow.
# - Repair with held-out tasks that you judge by no more: scaling first, isotonic where the shape is wrong. It is no
#   replacement for a better learner.
# - Conformal intervals hold whatever the learner. Surprise says when the promise does not apply.
#
# Where to go next:
#
# - [Calibration](../concepts/calibration.md): every definition, and what the numbers cannot tell.
# - [Recalibrate](../how_to/recalibrate.md), [conformal intervals](../how_to/conformal.md) and [unlike
#   tasks](../how_to/surprise.md), in short.
# - [Judging a posterior](judging_a_posterior.md): whether the *inference* is right, which is another question.
