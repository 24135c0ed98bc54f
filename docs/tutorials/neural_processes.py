# %% [markdown]
# # Neural processes beside the exact posterior
#
# Train three neural processes on functions drawn from a Gaussian process, and measure how far each is from the exact
# answer, which is known here.
#
# A *neural process* is a network that reads a few points of a function and answers with a predictive distribution
# everywhere else, in one pass. There is no optimisation when a new function arrives: the network has learned, from
# many functions, what the posterior usually looks like. That makes it fast, and it makes one question pressing. Does
# the network say what Bayes' rule would say, or only something like it?
#
# Draws of a Gaussian process are the standard place to ask, because there the posterior has a formula. You will
#
# - train a conditional neural process (CNP), an attentive one and a convolutional one (ConvCNP) on the same
#   functions,
# - print their log densities beside the exact ones,
# - look at their bands,
# - ask for the *joint* density of several points, which these networks do not have, and get it all the same,
# - and move to inputs that no network has seen in its training.

# %% [markdown]
# ## The functions
#
# A *task* is one function of one input $x$, observed with noise at some places. Its *support* is the points that the
# learner is shown, and its *query* is the points that the prediction is scored on. The functions have a length scale
# of 0.25 and a variance of 1, inputs are uniform between -2 and 2, and the noise has a standard deviation of 0.22.
# This is the first family of the benchmark of Bruinsma et al. (2023). `functions.oracle` is the exact posterior, as a
# learner like any other.

# %%
import matplotlib.pyplot as plt
import pandas as pd
import torch

import bayesmeta as bm
from bayesmeta.plotting.style import BLUE, GREEN, ORANGE, VERMILLION

TEST_TASKS = 128  # smoke: 4
functions = bm.tasks.GPFunctions.eq()
test = functions.dataset(TEST_TASKS, 60, seed=1)
print(test)
print(functions.oracle.adapt(test.task(0).points(slice(10))).predict([0.0, 0.5]))

# %% [markdown]
# ## Three networks
#
# All three share the encoder-decoder idea and differ in how many points become one description of a function.
#
# - The **CNP** takes a mean over the points. Everything it knows of a function must fit into one vector.
# - The **attentive CNP** lets each query look up the support points that matter to it.
# - The **ConvCNP** lays the points on a fine lattice and runs convolutions over it, so that it sees the same thing
#   wherever on the axis it is.
#
# Each step of the training draws 16 fresh functions, so there is no training set that could be learned by heart. The
# size of the support is drawn anew each time, from no point to 30. The numbers of steps are chosen so that each
# network trains for roughly the same time.

# %%
CNP_STEPS = 1_000  # smoke: 2
ATTENTIVE_STEPS = 700  # smoke: 2
CONV_STEPS = 400  # smoke: 2

torch.manual_seed(0)
recipes = {
    "CNP": (bm.ConditionalNeuralProcess(bm.Identity(1)), CNP_STEPS, 2e-3),
    "attentive CNP": (
        bm.ConditionalNeuralProcess(bm.Identity(1), aggregation=bm.learners.CrossAttention(64, 4)),
        ATTENTIVE_STEPS,
        1e-3,
    ),
    "ConvCNP": (bm.ConvCNP(channels=32), CONV_STEPS, 4e-3),
}
learners = {}
for name, (learner, steps, lr) in recipes.items():
    bm.fit(learner, functions, steps, lr=lr, split=bm.tasks.RandomSplit((0, 30), 20), progress=False)
    learners[name] = learner
    print(f"{name:14} {sum(p.numel() for p in learner.parameters()):>7,} weights after {steps} steps")

# %% [markdown]
# ## How far from the exact answer?
#
# The score is the log density of the query points, in nats a point, averaged over new functions: higher is better,
# and no method that predicts each point on its own can do better in the mean than the exact posterior. The *regret*
# is what is missing, the exact log density less that of the learner. It is a Kullback-Leibler divergence, so that
# zero means "says the same as Bayes' rule".

# %%
SHOTS = [0, 1, 3, 10, 30]
everyone = {"exact posterior": functions.oracle} | learners
evaluations = {name: bm.evaluate(each, test, shots=SHOTS, query=30, seed=0) for name, each in everyone.items()}
tables = {name: each.table() for name, each in evaluations.items()}
pd.DataFrame({name: -table["nll"] for name, table in tables.items()}).round(3)

# %% [markdown]
# The rows are numbers of support points. Without a point (the first row) all four say the same: each network has
# learned the spread of the functions. Then they part. The exact posterior gains most from the third to the thirtieth
# point, as on an axis that is sixteen length scales long three points say little; the ConvCNP follows it, the
# attentive CNP follows at a distance, and the CNP hardly moves. The next table has the regret at thirty points with
# its 95 % interval over tasks, and the share of query points that lie within the 90 % interval of the prediction.

# %%
rows = {}
for name, table in tables.items():
    last = table.iloc[-1]
    interval = f"{last['regret_low']:.3f} to {last['regret_high']:.3f}"
    rows[name] = {
        "regret": round(last["regret"], 3),
        "95 % interval": interval,
        "coverage of 90 %": round(last["coverage"], 3),
    }
pd.DataFrame(rows).T

# %% [markdown]
# Look at the last column as well: all of them cover about nine in ten. A network can be calibrated and still know
# little. The CNP is honest about what it lost in its one vector, and says so by wide bands. Calibration does not ask
# how *narrow* a prediction could have been; the regret does.

# %% [markdown]
# ## What the bands look like
#
# The same function for each learner, after ten points. Bands are the central 50 % and 90 % of an observation; the
# orange lines are the mean and, dashed, the 90 % interval of the exact posterior.

# %%
# alt: One function and the 50 % and 90 % bands of the three networks after ten points; the band of the convolutional network lies on the lines of the exact posterior, that of the attentive one nearly, that of the plain one is wide and smooth.
figure, axes = plt.subplots(3, 1, figsize=(6.5, 6.6), sharex=True, sharey=True, layout="constrained")
for ax, (name, learner) in zip(axes, learners.items(), strict=True):
    bm.plotting.predictive_bands(learner, test.task(0), [10], oracle=functions.oracle, num_points=81, axes=[ax])
    ax.set_title(name)
    ax.label_outer()
figure.legend(
    *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize="small"
);
# %% [markdown]
# The band of the CNP is that of a slow curve with much noise: the mean over the points has blurred the details. The
# attentive CNP bends towards the points, and the ConvCNP lies on the exact lines nearly everywhere, also in the gaps.

# %% [markdown]
# ## Several points together
#
# Each network predicts every query point on its own. If you ask for the sum over a stretch, or for the most likely
# place of the maximum, you need the *joint* distribution, in which neighbours move together. `Autoregressive` gives a
# joint distribution to any learner, without training: it predicts a point, takes the outcome into the support,
# predicts the next one, and multiplies the densities (the chain rule of probability).

# %%
JOINT_TASKS = 64  # smoke: 2
few = test.select(range(JOINT_TASKS))
conv = learners["ConvCNP"]
candidates = {
    "exact posterior": functions.oracle,
    "ConvCNP, each point on its own": conv,
    "ConvCNP, point by point, one order": bm.wrappers.Autoregressive(conv, bm.wrappers.Random(1)),
    "ConvCNP, point by point, three orders": bm.wrappers.Autoregressive(conv, bm.wrappers.Random(3)),
}
joint = {
    name: -bm.evaluate(each, few, shots=[10], query=15, seed=0).table()["joint_nll"].iloc[0]
    for name, each in candidates.items()
}
pd.DataFrame({"joint log density of 15 points, nats a point": joint}).round(3)

# %% [markdown]
# The second row is what independence costs: a quarter of a nat a point. Point by point most of that is won back. As a
# network is not quite consistent, another order of the points gives a slightly different density. Several orders can
# be mixed, which changes little here.
#
# Draws show the same. On the left each point is drawn on its own, which is noise around the mean. On the right the
# draws are functions.

# %%
# alt: Three draws of the ConvCNP given six points; on the left each point is drawn on its own and the draws are jagged noise, on the right they are drawn point by point and are coherent curves.
DRAWS = 3  # smoke: 1
shown, places = test.task(2).points(slice(6)), torch.linspace(-2.0, 2.0, 49)
torch.manual_seed(0)
point_by_point = bm.wrappers.Autoregressive(conv, bm.wrappers.Random())
figure, axes = plt.subplots(1, 2, figsize=(7.0, 2.8), sharey=True, layout="constrained")
for ax, learner, title in zip(axes, (conv, point_by_point), ("each point on its own", "point by point"), strict=True):
    posterior = learner.adapt(shown)
    drawn = posterior.predict(places).sample((DRAWS,))
    for curve, colour in zip(drawn[:, 0, :, 0], (BLUE, ORANGE, GREEN), strict=False):
        ax.plot(places, curve, color=colour, linewidth=1)
    ax.plot(shown.x.flatten(), shown.y.flatten(), "o", color="black", markersize=4)
    ax.set(title=title, xlabel="x")
axes[0].set_ylabel("y");
# %% [markdown]
# The draws contain the noise of an observation, so they are rough on a fine scale in both panels. What differs is
# whether neighbours agree.

# %% [markdown]
# ## Where nobody has been
#
# All networks were trained between -2 and 2. Here are the same kind of functions between 2 and 6. The exact posterior
# does not care, as its kernel looks at differences of inputs alone.

# %%
elsewhere = bm.tasks.GPFunctions(bm.tasks.ExponentiatedQuadratic(0.25), x=(2.0, 6.0)).dataset(TEST_TASKS, 60, seed=1)
regrets = {}
for name, learner in learners.items():
    beyond = bm.evaluate(learner, elsewhere, shots=[10], query=30, seed=0).table().iloc[0]
    inside = tables[name].loc[10]
    regrets[name] = {
        "regret, -2 to 2": inside["regret"],
        "regret, 2 to 6": beyond["regret"],
        "coverage of 90 %, 2 to 6": beyond["coverage"],
    }
pd.DataFrame(regrets).T.round(3)

# %%
# alt: Bands of the three networks across the edge of the training range at 2; beyond it those of the plain and attentive networks no longer follow the points, and those of the convolutional network do.
shifted = elsewhere.task(0)
border = bm.Data.from_arrays(shifted.x.flatten() - 1.5, shifted.y.flatten())
figure, axes = plt.subplots(3, 1, figsize=(6.5, 6.0), sharex=True, sharey=True, layout="constrained")
for ax, (name, learner) in zip(axes, learners.items(), strict=True):
    bm.plotting.predictive_bands(learner, border, [30], oracle=functions.oracle, num_points=81, axes=[ax])
    ax.axvspan(2.0, 4.5, color=VERMILLION, alpha=0.08, linewidth=0)
    ax.set_title(f"{name}: the shaded range was not in the training")
    ax.label_outer()
figure.legend(
    *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize="small"
);

# %% [markdown]
# The ConvCNP has the same regret in both columns, because a convolution does not know where it is. The other two see
# the number $x$ itself, and have never seen a 5: their regret is a multiple of what it was. Nothing in the training
# forbids a confident answer there. The plain CNP gives one, and its 90 % intervals hold three points in four; those
# of the attentive network happen to be wide enough, for which there is no guarantee either.

# %% [markdown]
# ## What was learned
#
# - A neural process can be held against the exact posterior, in nats, wherever the tasks come from a Gaussian process
#   or another simulator with an oracle. `bm.evaluate` reports the regret by itself.
# - Being calibrated is not being informed: all three networks cover nine in ten within the range of training, and
#   their regrets differ by a factor of ten and more.
# - How a network is built decides what it can know elsewhere. An equivariant one (ConvCNP) carries over to other
#   places, the others do not.
# - Joint densities and coherent draws come from `Autoregressive`, at the price of one adaptation a point.
# - These were minutes of training in total. With 60 to 300 seconds for each learner the distances are smaller: the
#   [benchmark](../benchmarks/index.md#neural-processes-neural_process_benchmark) has them with the command that made
#   them.
#
# Where to go next: the pages of [conditional neural processes](../methods/conditional_neural_process.md),
# [ConvCNP](../methods/conv_cnp.md), [transformer neural processes](../methods/transformer_neural_process.md) and
# [Autoregressive](../methods/autoregressive.md); [amortised inference](../concepts/amortised_inference.md) on why a
# network that is trained this way approaches the posterior; and [a benchmark of methods](../methods/field.md) for
# everything else.
