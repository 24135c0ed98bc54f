# %% [markdown]
# # Forecasting a battery from its first cycles
#
# From the first 5, 20 or 50 cycles of a new battery cell to its capacity over 500 cycles, with intervals, the
# probability of an early end of life, and updates as measurements arrive.
#
# A lithium-ion cell loses capacity with every cycle of charging and discharging. A test bench needs months to see how
# fast. Can the first weeks of a *new* cell say how it will end, if a hundred other cells have been tested before?
#
# Here a cell is a **task**: a small data set with a curve of its own. The cells that were tested before teach a
# *prior* over such curves. The first check-ups of the new cell turn it into a *posterior*, from which forecasts
# follow. Nothing in this page is special to batteries: a sensor that drifts, a filter that clogs, a tool that wears
# are the same.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

import bayesmeta as bm

CELLS = 100  # smoke: 12
STEPS = 1_000  # smoke: 5
DRAWS = 500  # smoke: 20

# %% [markdown]
# ## Cells whose truth is known
#
# We simulate the cells, because then the truth is there to compare with. A cell has a nominal capacity of 2.0 Ah. It
# loses capacity almost evenly, until a *knee* from which on it loses it faster and faster:
#
# $$
# Q(n) = Q_0 \left[ 1 - r \left( \tfrac{n}{500} \right)^{p} - 0.35 \left( \tfrac{(n - k)_+}{500} \right)^{2} \right],
# $$
#
# with $n$ the number of cycles, $r$ the share that is lost in 500 cycles without a knee, and $k$ the cycle of the
# knee. Cells that fade faster tend to have an earlier knee. Every five cycles a check-up measures the capacity with a
# standard error of 2 mAh. The learner is told none of this.


# %%
def simulate(lengths, seed):
    rng = np.random.default_rng(seed)
    cells = []
    for number, length in enumerate(lengths):
        z = rng.normal()
        start, share, power = rng.normal(2.0, 0.02), 0.15 * np.exp(0.25 * z), rng.normal(1.0, 0.05)
        knee = 430 - 40 * z + rng.normal(0, 15)
        cycle = np.arange(0, length + 1, 5)
        lost = share * (cycle / 500) ** power + 0.35 * (np.clip(cycle - knee, 0, None) / 500) ** 2
        truth = start * (1 - lost)
        measured = truth + rng.normal(0, 0.002, len(cycle))
        cells.append(pd.DataFrame({"cell": f"{number:03d}", "cycle": cycle, "capacity_Ah": measured, "truth": truth}))
    return pd.concat(cells, ignore_index=True)


lengths = np.random.default_rng(7).integers(150, 601, CELLS) // 5 * 5  # most cells were taken off the bench early
lengths[0] = 1000  # and one was left on it
tested, new = simulate(lengths, seed=0), simulate([600] * 100, seed=1)
tasks = bm.TaskDataset.from_frame(tested, task="cell", x=["cycle"], y=["capacity_Ah"])
test = bm.TaskDataset.from_frame(new, task="cell", x=["cycle"], y=["capacity_Ah"])
print(tasks)

# %%
# alt: Capacity in ampere-hours against cycles for thirty of the tested cells. They start near 2.0 and fade at different rates, most curves end between 150 and 600 cycles, one goes on to 1000 and falls steeply after its knee.
figure, ax = plt.subplots(figsize=(5.6, 3.2), layout="constrained")
for name, rows in list(tested.groupby("cell"))[:30]:
    long = name == "000"
    ax.plot(
        rows.cycle[::4], rows.capacity_Ah[::4], color="#D55E00" if long else "#56B4E9", linewidth=2 if long else 0.8
    )
ax.axhline(1.6, color="black", linestyle="--", linewidth=1)
ax.text(1000, 1.62, "end of life: 80 % of 2.0 Ah", ha="right")
ax.set(xlabel="cycles", ylabel="capacity, Ah")

# %% [markdown]
# The tasks are *ragged*: they have between 31 and 201 check-ups, and the library takes them as they are. No cell is
# cut or filled up. One cell among a hundred ran for a thousand cycles (vermilion), and it is the only one that knows
# what comes after 600.
#
# ## Learning from the tested cells
#
# The learner is [ALPaCA](../methods/alpaca.md): a small network makes features of the cycle, and each cell has weights
# of its own on them, whose posterior is exact. Training maximises the *evidence*: the density of each tested cell as a
# whole, which rewards forecasts from every number of check-ups at once.

# %%
torch.manual_seed(0)
learner = bm.Standardized(bm.ALPaCA(bm.MLP(1, [32, 32])))
result = bm.fit(learner, tasks, steps=STEPS, objective=bm.training.Evidence())
print(result)

# %% [markdown]
# ## A forecast from the first 5, 20 and 50 cycles
#
# A cell after five cycles has had two check-ups (at cycles 0 and 5), after twenty it has had five, after fifty eleven.
# The new cells were never seen in training. We take one, adapt to its beginning, and predict the rest.

# %%
# alt: Three panels of one new cell, from its first 5, 20 and 50 cycles. The 90 % band is wide after 5 cycles, narrower after 20, and narrow around the later measurements after 50.
known_cycles = {5: 2, 20: 5, 50: 11}  # cycles: check-ups
cycles = torch.arange(0, 601, 10)
example = test.task("044")
figure, axes = plt.subplots(1, 3, figsize=(7.0, 2.9), sharey=True, layout="constrained")
for ax, (cycle, count) in zip(axes, known_cycles.items(), strict=True):
    posterior = learner.adapt(example.points(slice(count)))
    prediction = posterior.predict(cycles)
    lower, upper = (end.flatten() for end in prediction.interval(0.9))
    ax.fill_between(cycles, lower, upper, color="#56B4E9", alpha=0.4, linewidth=0, label="90 % interval")
    ax.plot(cycles, prediction.mean.flatten(), color="#0072B2", label="mean")
    ax.plot(example.x[0, ::6], example.y[0, ::6], ".", color="black", markersize=3, label="measured, later")
    ax.axhline(1.6, color="black", linestyle="--", linewidth=1)
    ax.axvspan(0, cycle, color="#E69F00", alpha=0.4, linewidth=0, label="known")
    ax.set(title=f"after {cycle} cycles", xlabel="cycles")
axes[0].set_ylabel("capacity, Ah")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)

# %% [markdown]
# The black points are the later check-ups, which the learner did not see. After five cycles the forecast is hardly
# more than what is true of cells in general. After fifty it knows that this is a fast one.
#
# One cell is an anecdote. Over all new cells the intervals can be checked. `PrefixSplit` makes the known points the
# *beginning* of each task, as a forecast needs it, and all later check-ups are judged:

# %%
evaluation = bm.evaluate(learner, test, shots=list(known_cycles.values()), split=bm.tasks.PrefixSplit)
table = evaluation.table()
table.index = pd.Index(known_cycles, name="cycles known")
table[["tasks", "rmse", "width", "coverage", "coverage_low", "coverage_high"]].round(3)

# %% [markdown]
# `rmse` and `width` (the mean width of the 90 % intervals) are in Ah. `coverage` is the share of measurements that the
# intervals held, with a 95 % interval for what it would be over ever more cells. So the forecast gets sharper with
# every check-up while its intervals keep about what they promise. Where they did not, [they could be
# repaired](calibration.md).
#
# ## Will it last 500 cycles?
#
# A buyer does not ask for a curve. The question is: *what is the probability that this cell falls below 80 % of its
# nominal capacity, 1.6 Ah, before cycle 500?* An interval at each cycle cannot answer it, because the question is
# about the whole curve. The answer needs *joint draws*: whole curves that are all possible after what was measured.
# `noiseless` asks for the capacity itself rather than for what a check-up would show.

# %%
grid = torch.arange(0, 601, 10)


def end_of_life(posterior, num_tasks=1):
    """Draws of the first cycle below 1.6 Ah, draws x cells; infinite where there is none up to 600."""
    curves = posterior.predict(grid[None, :, None].expand(num_tasks, -1, -1)).noiseless.sample((DRAWS,))
    is_below = curves[..., 0] < 1.6
    first = grid[is_below.int().argmax(-1)].double()
    return torch.where(is_below.any(-1), first, torch.inf)


def really(name):
    rows = new[(new.cell == name) & (new.truth < 1.6)]
    return rows.cycle.min() if len(rows) else np.inf


for cycle, count in known_cycles.items():
    ends = end_of_life(learner.adapt(example.points(slice(count))))
    early, late = ends.sort(0).values[[DRAWS // 20, DRAWS // 2]].flatten().tolist()
    print(
        f"after {cycle:2d} cycles: P(end before 500) = {(ends < 500).double().mean():.2f}; "
        f"one draw in twenty ends by cycle {early:.0f}, one in two by {late:.0f}"
    )
print(f"in truth it ended at cycle {really('044')}")

# %% [markdown]
# Is such a probability worth its name? Of the cells for which it says 30 %, three in ten should end before cycle 500.
# We ask for all new cells, and compare with what happened. The *Brier score* is the mean squared difference between
# the probability and what happened (1 or 0); lower is better, and always stating the share among all cells is the
# score to beat.

# %%
# alt: Share of cells that ended before cycle 500 against the stated probability, in four groups, after 5, 20 and 50 cycles. The points follow the diagonal roughly, and after 50 cycles they reach further towards 0 and 1.
ended = torch.tensor([really(name) < 500 for name in test.names]).double()
figure, ax = plt.subplots(figsize=(4.6, 3.6), layout="constrained")
ax.plot([0, 1], [0, 1], color="black", linewidth=1, linestyle="--")
base = ended.var(correction=0)
print(f"{ended.mean():.2f} of the new cells ended before cycle 500: Brier score {base:.3f} without a forecast")
for (cycle, count), marker, colour in zip(known_cycles.items(), "osD", ["#56B4E9", "#0072B2", "#D55E00"], strict=True):
    ends = end_of_life(learner.adapt(test.data.points(slice(count))), len(test))
    stated = (ends < 500).double().mean(0)
    print(f"after {cycle:2d} cycles: Brier score {(stated - ended).square().mean():.3f}")
    group = torch.bucketize(stated, torch.tensor([0.05, 0.2, 0.6]).double())
    places = [(stated[group == g].mean(), ended[group == g].mean()) for g in group.unique()]
    ax.plot(*zip(*places, strict=True), marker=marker, color=colour, label=f"after {cycle} cycles")
ax.set(xlabel="stated probability", ylabel="share that ended before 500")
ax.legend(frameon=False)

# %% [markdown]
# ## Streaming: one check-up at a time
#
# On the bench, measurements arrive one by one. `update` takes the posterior and the new check-up, and gives the next
# posterior, without training or adapting anew. The cost of an update does not depend on how many check-ups came
# before.

# %%
# alt: Probability of an end before cycle 500 against the cycle of the last check-up, for three new cells. One rises quickly to 1, one falls quickly to 0, and one stays undecided for longer.
figure, ax = plt.subplots(figsize=(5.6, 3.2), layout="constrained")
for name, colour in {"079": "#D55E00", "036": "#0072B2", "071": "#009E73"}.items():
    data = test.task(name)
    posterior = learner.adapt(bm.Data.from_arrays([], []))
    course = []
    for place in range(0, 80):
        posterior = posterior.update(data.points(slice(place, place + 1)))
        if place % 2 == 0:
            course.append((5 * place, (end_of_life(posterior) < 500).double().mean().item()))
    ended_at = really(name)
    fate = f"ends at {ended_at}" if ended_at < 500 else "lasts beyond 500"
    ax.plot(*zip(*course, strict=True), color=colour, label=f"cell {name}: {fate}")
ax.set(xlabel="cycle of the last check-up", ylabel="P(end before 500)")
ax.legend(frameon=False)

# %% [markdown]
# ## Where few cells have been
#
# Most of the tested cells ended before cycle 600, and a single one went on to 1000. How far can the learner be trusted
# beyond?

# %%
posterior = learner.adapt(example.points(slice(11)))
late = [300, 500, 600, 800, 1000]
prediction = posterior.predict(late)
lower, upper = prediction.interval(0.9)
rows = {"cells tested so far": [int((lengths >= cycle).sum()) for cycle in late]}
rows |= {"mean": prediction.mean.flatten(), "lower": lower.flatten(), "upper": upper.flatten()}
pd.DataFrame(rows, index=pd.Index(late, name="cycle")).round(2)

# %% [markdown]
# The interval at cycle 1000 is nearly 0.8 Ah wide: the learner knows that it knows little there. This is as it should
# be, and it is not to be taken for granted: a learned feature may be confident where no cell has been. Look at a table
# like this one before you believe a forecast at the end of your data.
#
# ## What was learned
#
# - Tasks of any lengths train one learner. What a hundred cells have in common turns ten check-ups into a forecast of
#   hundreds of cycles, and the Brier score and the coverage over *new* cells say what it is worth.
# - A question about a whole curve (will it ever fall below ...?) is answered by joint draws, `prediction.sample`, and
#   never by the ends of intervals.
# - `update` takes measurements as they arrive.
#
# Where to go next:
#
# - [ALPaCA](../methods/alpaca.md), the learner of this page, and [how to choose](../start/how_to_choose.md) another.
# - [Calibrating, conformal intervals and surprise](calibration.md): intervals with a guarantee, and an alarm for a
#   cell that is unlike the tested ones.
# - [Exporting to a robot](../how_to/exporting.md): the forecast on a small computer beside the battery.
