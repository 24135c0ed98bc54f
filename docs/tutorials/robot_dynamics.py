# %% [markdown]
# # Robot dynamics that adapt while the robot moves
#
# Learn the dynamics of a pendulum of unknown mass, length and friction from other pendulums, update the belief at
# every time step, notice a new payload, and export the whole to a machine that has torch and nothing else.
#
# A controller that plans ahead needs a model of what the robot will do next, and an honest statement of how sure that
# model is. No two robots are quite alike, and the same robot changes when it picks something up. Here a *task* is one
# pendulum. From many pendulums ALPaCA learns a prior over dynamics; on a new pendulum a few time steps make it a
# posterior, and each further step is one cheap `update`. All data are simulated in this page.

# %% [markdown]
# ## The pendulums
#
# An arm of length $l$ with a mass $m$ at its end is driven by a motor with torque $u$, and slowed down by friction
# $b$. With $\theta$ the angle from upright, its acceleration is
#
# $$
# \ddot\theta = \frac{g}{l} \sin\theta - \frac{b}{m l^2} \dot\theta + \frac{u}{m l^2} + \text{gusts},
# $$
#
# with gusts of wind of standard deviation 0.3 rad/s² at each step of 0.05 s. The robot sees its angle, its speed, the
# torque and the acceleration. It does not know the formula, nor $m$, $l$ and $b$.

# %%
import math
import time

import matplotlib.pyplot as plt
import pandas as pd
import torch

import bayesmeta as bm
from bayesmeta.plotting.style import BLUE, GREY, ORANGE, VERMILLION

DT, GRAVITY, GUSTS = 0.05, 9.81, 0.3
generator = torch.Generator().manual_seed(0)


def uniform(low, high, count):
    return low + (high - low) * torch.rand(count, generator=generator)


class Pendulums:
    """Some pendulums, each with its own mass (kg), length (m) and friction (N m s)."""

    def __init__(self, count):
        self.mass, self.length = uniform(0.5, 2.0, count), uniform(0.5, 1.2, count)
        self.friction = uniform(0.05, 0.4, count)
        self.angle, self.speed = uniform(-math.pi, math.pi, count), uniform(-2.0, 2.0, count)

    def step(self, torque):
        """One step of time: what was seen (angle as sine and cosine, speed, torque), and the acceleration."""
        seen = torch.stack([self.angle.sin(), self.angle.cos(), self.speed, torque], -1)
        inertia = self.mass * self.length**2
        acceleration = GRAVITY / self.length * self.angle.sin() + (torque - self.friction * self.speed) / inertia
        acceleration = acceleration + GUSTS * torch.randn(acceleration.shape, generator=generator)
        self.speed = self.speed + DT * acceleration
        self.angle = self.angle + DT * self.speed
        return seen, acceleration


def torques(count, steps):
    """Torques that are held for ten steps each, in N m."""
    return uniform(-4.0, 4.0, (-(-steps // 10), count)).repeat_interleave(10, 0)[:steps]


def trajectory(pendulums, torque):
    x, y = zip(*(pendulums.step(each) for each in torque), strict=True)
    return bm.Data.full(torch.stack(x, 1), torch.stack(y, 1)[..., None])


PENDULUMS = 600  # smoke: 20
STEPS_OF_TIME = 60  # smoke: 12
train = bm.TaskDataset(trajectory(Pendulums(PENDULUMS), torques(PENDULUMS, STEPS_OF_TIME)))
print(train, "with inputs sin, cos, rad/s and N m, and accelerations in rad/s²")

# %% [markdown]
# ## A prior over dynamics
#
# ALPaCA is Bayesian linear regression on features that a network learns from all tasks, with a prior over the weights
# that is learned as well. Because the last layer is solved exactly, its posterior can be updated point by point at a
# constant cost. The training maximises the evidence of whole trajectories, which scores the prediction after zero,
# one, two, ... points at once.

# %%
STEPS = 2_000  # smoke: 3
torch.manual_seed(0)
learner = bm.Standardized(bm.ALPaCA(bm.MLP(4, [64, 32])))
bm.fit(learner, train, STEPS, lr=3e-3, objective=bm.training.Evidence(), progress=False)
print(f"noise that it has learned: {learner.noise_stddev().item():.2f} rad/s²")

# %%
TEST_PENDULUMS = 100  # smoke: 5
test = bm.TaskDataset(trajectory(Pendulums(TEST_PENDULUMS), torques(TEST_PENDULUMS, STEPS_OF_TIME)))
evaluation = bm.evaluate(
    learner, test, shots=[0, 1, 3, 10, 30] if len(test) > 5 else [0, 3], split=bm.tasks.PrefixSplit, query=20
)
evaluation.table()[["rmse", "coverage", "width", "nll"]].round(3)

# %% [markdown]
# The rows are numbers of time steps seen, and the columns are of the accelerations in the twenty steps that follow.
# Without a point the error is that of a pendulum of unknown mass. A single step takes a third of it away, and after
# thirty steps, one and a half seconds, it is near the 0.3 rad/s² of the gusts, which nobody can predict. The 90 %
# intervals narrow with it (`width`), and hold about nine in ten at every size (`coverage`).

# %% [markdown]
# ## One step after the other, and a new payload
#
# Now a single pendulum runs for eight seconds. At each step the learner predicts the acceleration before it sees it,
# and then takes it in. After four seconds the robot grabs a payload: the mass grows from 0.8 to 1.8 kg.

# %%
SECONDS = 8.0  # smoke: 2.0
GRAB = 4.0  # smoke: 1.0
steps = round(SECONDS / DT)
generator.manual_seed(5)
robot, torque = Pendulums(1), torques(1, steps)
robot.mass, robot.length, robot.friction = torch.tensor([0.8]), torch.tensor([0.9]), torch.tensor([0.1])
points = []
for number in range(steps):
    if number == round(GRAB / DT):
        robot.mass = robot.mass + 1.0
    seen, acceleration = robot.step(torque[number])
    points.append(bm.Data.full(seen[:, None], acceleration[:, None, None]))

nothing = bm.Data.empty(points[0])


def stream(restart):
    """Predict, see, update; with `restart` begin anew where five predictions in a row were too far off."""
    posterior, rows, recent = learner.adapt(nothing), [], []
    for number, point in enumerate(points):
        begin = time.perf_counter()
        prediction = posterior.predict(point.x)
        deviations = ((point.y - prediction.mean) / prediction.stddev).item()
        posterior = posterior.update(point)
        milliseconds = 1e3 * (time.perf_counter() - begin)
        recent = [*recent[-4:], deviations**2]
        began_anew = restart and len(recent) == 5 and sum(recent) > 20.5  # 1 in 1,000 of five squared normals
        if began_anew:
            posterior, recent = learner.adapt(nothing), []
            for late in points[max(number - 4, 0) : number + 1]:
                posterior = posterior.update(late)
        rows.append([number * DT, prediction.stddev.item(), deviations, milliseconds, began_anew])
    return pd.DataFrame(rows, columns=["time", "sd", "deviations", "milliseconds", "began anew"])


stubborn, alert = stream(restart=False), stream(restart=True)
first, last = slice(5, 25), slice(-20, None)
print(
    f"a step of the stream: {stubborn.milliseconds[first].median():.1f} ms early, {stubborn.milliseconds[last].median():.1f} ms at the end"
)
print("began anew after", alert.time[alert["began anew"]].round(2).tolist(), "s")
pd.DataFrame(
    {
        name: {
            "first second": (each.deviations[each.time < 1.0] ** 2).mean(),
            "until the payload": (each.deviations[(each.time >= 1.0) & (each.time < GRAB)] ** 2).mean(),
            "the second after": (each.deviations[(each.time >= GRAB) & (each.time < GRAB + 1.0)] ** 2).mean(),
            "later": (each.deviations[each.time >= GRAB + 1.0] ** 2).mean(),
        }
        for name, each in {"update alone": stubborn, "with a restart": alert}.items()
    }
).round(2)

# %% [markdown]
# The table has mean squared errors in units of the predicted variance: 1 is what an honest prediction has, and more
# says that it was too sure. Until the payload both streams are the same. Then `update` alone fails, and not because
# anything is wrong with it: its model says that a pendulum has *one* mass for good, so four seconds of evidence for
# 0.8 kg outweigh what comes after. The restart is one line of judgement around it. Five predictions that are too far
# off together, by a test that an honest model fails once in a thousand, send the stream back to the prior with the
# last five points. From there it needs a handful of steps.

# %%
# alt: Errors of one-step predictions over eight seconds with the band of two predicted deviations; after the payload at four seconds the errors of the stream that is only updated leave the band, and those of the stream that begins anew return into it.
figure, axes = plt.subplots(2, 1, figsize=(6.8, 4.4), sharex=True, sharey=True, layout="constrained")
for ax, each, title in zip(axes, (stubborn, alert), ("update alone", "with a restart"), strict=True):
    ax.fill_between(each.time, -2 * each.sd, 2 * each.sd, color=BLUE, alpha=0.25, linewidth=0, label="± 2 predicted sd")
    ax.plot(each.time, each.deviations * each.sd, ".", color=ORANGE, markersize=4, label="error")
    ax.axvline(GRAB, color=GREY, linestyle="--", linewidth=1, label="payload")
    ax.set(title=title, ylabel="rad/s²", ylim=(-4, 4))
axes[0].legend(ncols=3, fontsize="small", loc="upper right")
axes[1].set_xlabel("time, s");
# %% [markdown]
# ## Where will it be in a second?
#
# A planner asks for the distribution of the angle many steps ahead. The uncertainty has two sources: gusts, which are
# new at every step, and the weights, which are unknown but the *same* at every step. A draw of a future must keep its
# weights. There is a simple way to get that exactly: make a copy of the posterior for each draw, let every copy
# predict and draw its own next acceleration, and update the copy with what it has drawn. By the chain rule these are
# draws of the joint predictive distribution.

# %%
DRAWS = 200  # smoke: 4
AHEAD = 20  # smoke: 3
SUPPORT = 5  # smoke: 3


def futures(posterior, pendulum, torque, keep):
    """Draws of the angle at each step ahead, `steps x draws`, given the torques that will be applied."""
    copies = posterior.select([pendulum[0]] * DRAWS)
    angle, speed = (value.expand(DRAWS).clone() for value in pendulum[1:])
    angles = []
    for each in torque:
        x = torch.stack([angle.sin(), angle.cos(), speed, each.expand(DRAWS)], -1)[:, None]
        acceleration = copies.predict(x).sample()  # draws x 1 point x 1 outcome
        if keep:
            copies = copies.update(bm.Data.full(x, acceleration.float()))
        speed = speed + DT * acceleration[:, 0, 0].float()
        angle = angle + DT * speed
        angles.append(angle)
    return torch.stack(angles)


RUNS = 100  # smoke: 3
generator.manual_seed(7)
torch.manual_seed(0)
many, plan = Pendulums(RUNS), torques(RUNS, AHEAD)
posterior = learner.adapt(trajectory(many, torques(RUNS, SUPPORT)))
start = many.angle, many.speed
inside, shown = {True: [], False: []}, {}
truth = []
for each in plan:
    many.step(each)
    truth.append(many.angle)
truth = torch.stack(truth)  # steps x pendulums
for number in range(RUNS):
    for keep in inside:
        drawn = futures(posterior, (number, start[0][number], start[1][number]), plan[:, number], keep)
        low, high = drawn.quantile(0.05, 1), drawn.quantile(0.95, 1)
        inside[keep].append((low <= truth[:, number]) & (truth[:, number] <= high))
        if number == 1:
            shown[keep] = low, high, drawn
coverage = {
    "each draw keeps its weights": torch.stack(inside[True]).double().mean(0),
    "weights drawn anew each step": torch.stack(inside[False]).double().mean(0),
}
times = [1, AHEAD // 4, AHEAD // 2, AHEAD] if AHEAD > 4 else [1, AHEAD]
pd.DataFrame({name: {f"{n * DT:.2f} s": each[n - 1].item() for n in times} for name, each in coverage.items()}).round(2)

# %% [markdown]
# Both methods predict a single step equally well. After a second the second one is too sure: if the weights are drawn
# anew in every step their errors average out, as if twenty different pendulums took turns. The first column is what a
# planner can rely on. (With 60 runs a share of 0.90 has a standard error of 0.04.)

# %%
# alt: The angle of one pendulum over the next second with 90 % intervals from draws; those of draws that keep their weights are clearly wider than those of weights drawn anew at every step.
figure, ax = plt.subplots(figsize=(6.8, 3.0), layout="constrained")
ahead = DT * torch.arange(1, AHEAD + 1)
low, high, drawn = shown[True]
ax.fill_between(ahead, low, high, color=BLUE, alpha=0.25, linewidth=0, label="90 %, weights kept")
ax.plot(ahead, drawn[:, :8], color=BLUE, linewidth=0.6, alpha=0.7)
low, high, _ = shown[False]
ax.plot(
    ahead,
    torch.stack([low, high], 1),
    color=VERMILLION,
    linestyle="--",
    linewidth=1.2,
    label=["90 %, weights drawn anew", None],
)
ax.plot(ahead, truth[:, 1], "o", color="black", markersize=3, label="what happened")
ax.set(xlabel="time ahead, s", ylabel="angle, rad")
ax.legend(fontsize="small", loc="upper left");
# %% [markdown]
# ## Onto the robot
#
# `bm.export` writes the learner as programs that torch alone can run: `adapt_predict` for a batch of points, `update`
# and `predict` for a stream, whose state has a fixed size. `Standardized` is inside, so inputs and outcomes stay in
# radians and newton metres. The script below is what runs on the robot, in a process of its own, and says itself
# whether this library was imported.

# %%
import subprocess
import sys
from pathlib import Path

bm.export(learner, "robot")
for path in sorted(Path("robot").iterdir()):
    print(f"{path.name:20} {path.stat().st_size / 1024:6.0f} kB")

# %%
UPDATES = 200  # smoke: 3
script = """
import json, statistics, sys, time
import torch

torch.set_num_threads(1)
manifest = json.load(open("robot/manifest.json"))
load = lambda name: torch.export.load("robot/" + manifest["programs"][name]["files"]["torch"]).module()
update, predict = load("update"), load("predict")
state = torch.load("robot/" + manifest["state"]["files"]["torch"], weights_only=True)
points = torch.load("points.pt", weights_only=True)
seconds = []
for _ in range(int(sys.argv[1])):
    x, y = points["x"][:1], points["y"][:1]
    begin = time.perf_counter()
    update(x, y, *state.values())
    seconds.append(time.perf_counter() - begin)
for x, y in zip(points["x"].split(1), points["y"].split(1)):
    after = update(x, y, *state.values())
    state = {name: after[f"next_{name}"] for name in state}
told = predict(points["query"], *state.values())
print("bayesmeta imported:", "bayesmeta" in sys.modules)
print(f"an update: {1e3 * statistics.median(seconds):.2f} ms (median of {len(seconds)})")
print(f"mean {told['mean'].item():.5f} rad/s2, sd {told['variance'].sqrt().item():.5f}")
"""
Path("on_the_robot.py").write_text(script)
seen = (
    torch.cat([point.x[0] for point in points[:20]]).double(),
    torch.cat([point.y[0] for point in points[:20]]).double(),
)
torch.save({"x": seen[0], "y": seen[1], "query": points[20].x.double()}, "points.pt")
print(
    subprocess.run([sys.executable, "on_the_robot.py", str(UPDATES)], capture_output=True, text=True, check=True).stdout
)
here = learner.adapt(bm.Data.full(seen[0][None], seen[1][None])).predict(points[20].x)
print(f"the library itself: mean {here.mean.item():.5f} rad/s2, sd {here.stddev.item():.5f}")

# %% [markdown]
# The last two lines agree. The time of an update is that of a single thread of the machine that is named at the top
# of this page; it does not depend on how many points came before.

# %% [markdown]
# ## What was learned
#
# - Dynamics that differ from robot to robot are a task for ALPaCA: a prior from many robots, an exact posterior from
#   half a second of a new one.
# - `posterior.update(point)` is a step of a stream at constant cost, and returns a new posterior.
# - A posterior believes that its task stays the same. Where it may change, test the one-step predictions and go back
#   to the prior: an honest predictive distribution is what makes that test possible.
# - Draws of a future must keep their weights. Copies of the posterior that are updated with their own draws do that
#   exactly.
# - `bm.export` takes the same learner to a process with torch alone, with the same numbers.
#
# Where to go next: [ALPaCA](../methods/alpaca.md); [export](../how_to/exporting.md) with ONNX, AOTInductor and the
# table of which learners can be exported; [mixtures of ALPaCA priors](../methods/mixture_alpaca.md) where robots come
# in kinds; and [calibration](../concepts/calibration.md) for the surprise of a whole task.
