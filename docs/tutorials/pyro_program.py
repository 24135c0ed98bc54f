# %% [markdown]
# # A hierarchical Pyro program
#
# Write a hierarchical model by hand in Pyro, write the same model as a learner, check that they are one and the same
# density, and use whichever of the two does the job: MAP, variational inference, the no-U-turn sampler, predictions,
# updates, ArviZ.
#
# [Pyro](https://pyro.ai) is a language for probabilistic models. A model with *plates* ("for each clinic, for each
# patient") is exactly what this library calls a learner with an explicit prior and likelihood: shared parameters
# $\theta$, task parameters $\phi_t$, and outcomes given $\phi_t$. What you gain by also having it as a learner are
# predictions for *new* tasks, updates, scores and calibration; what you gain from Pyro are its samplers, its guides
# and its diagrams. You need `pip install 'bayesmeta[pyro,arviz]'`.

# %% [markdown]
# ## The data: wounds, doses and clinics
#
# Twenty clinics treat wounds with different doses of a drug. The outcome of a patient is whether the wound has healed
# after 30 days. Clinics differ in how many wounds heal anyway, and in how much the drug helps. The data are
# simulated, so that the truth is known.
#
# $$
# a_t \sim \N(\mu_a, \sigma_a^2), \qquad b_t \sim \N(\mu_b, \sigma_b^2), \qquad
# y_{tn} \sim \mathrm{Bernoulli}\bigl(\sigma(a_t + b_t\, d_{tn})\bigr)
# $$
#
# with $d$ the dose in mg, minus 2. The number of patients differs between clinics.

# %%
import logging
import warnings

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoDelta, AutoMultivariateNormal

import bayesmeta as bm
from bayesmeta.interop.arviz import to_arviz
from bayesmeta.interop.pyro import FullRank, hyper_nuts, hyper_svi, nuts, program, render, svi
from bayesmeta.plotting.style import BLUE, GREEN, ORANGE, SKY, VERMILLION

logging.getLogger("arviz").setLevel(logging.ERROR)
TRUTH = {"typical_intercept": -0.5, "typical_slope": 0.8, "spread_intercept": 0.8, "spread_slope": 0.4}
CLINICS = 20  # smoke: 4
rng = np.random.default_rng(3)


def clinic(name, patients):
    dose = rng.uniform(0.0, 4.0, patients) - 2.0
    intercept = rng.normal(TRUTH["typical_intercept"], TRUTH["spread_intercept"])
    slope = rng.normal(TRUTH["typical_slope"], TRUTH["spread_slope"])
    healed = rng.random(patients) < 1.0 / (1.0 + np.exp(-intercept - slope * dose))
    return pd.DataFrame({"clinic": name, "dose": dose, "healed": healed.astype(int)})


frame = pd.concat([clinic(f"clinic {number}", rng.integers(8, 30)) for number in range(CLINICS)])
tasks = bm.TaskDataset.from_frame(frame, task="clinic", x=["dose"], y=["healed"], outcomes=bm.Labels(2))
print(tasks)

# %% [markdown]
# ## By hand
#
# In Pyro the model is a function that samples. The intercepts and slopes are written as a typical value plus a
# deviation times a standard normal number, the *non-centred* form: samplers have far less trouble with it where a
# deviation is small. A mask takes care of the clinics with fewer patients.

# %%
HYPERPRIOR = {
    "typical_intercept": dist.Normal(0.0, 2.0),
    "typical_slope": dist.Normal(0.0, 2.0),
    "spread_intercept": dist.HalfNormal(1.0),
    "spread_slope": dist.HalfNormal(1.0),
}


def by_hand(data):
    theta = {name: pyro.sample(name, each) for name, each in HYPERPRIOR.items()}
    with pyro.plate("clinics", data.num_tasks, dim=-2):
        intercept = pyro.sample("intercept", dist.Normal(0.0, 1.0))
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        a = theta["typical_intercept"] + theta["spread_intercept"] * intercept
        b = theta["typical_slope"] + theta["spread_slope"] * slope
        with pyro.plate("patients", data.num_points, dim=-1), poutine.mask(mask=data.mask):
            logits = a + b * data.x[..., 0]
            pyro.sample("y", dist.Bernoulli(logits=logits), obs=data.y.to(logits))


# %% [markdown]
# ## The same as a learner
#
# An `ExplicitLearner` says what its task parameters and their prior are, what the likelihood is, and computes the
# outputs of the network (here: the log odds) from them in `forward`. With that it has a log joint density, and a Pyro
# program.
#
# `condition` says what `adapt` does. As $\phi$ is two numbers, a grid is enough here, and is exact for all practical
# purposes: 41 times 41 values, each weighted by its joint density. It will be the yardstick for everything that
# follows.

# %%
from dataclasses import dataclass


class DoseResponse(bm.ExplicitLearner):
    """Log odds a + b (dose - 2), with an intercept and a slope of each clinic."""

    outcomes, x_shape = bm.Labels(2), (1,)

    def __init__(self):
        super().__init__()
        self.prior = bm.priors.StandardNormal({"intercept": (), "slope": ()})
        self.likelihood = bm.likelihoods.Bernoulli()
        self.typical_intercept = torch.nn.Parameter(torch.tensor(0.0))
        self.typical_slope = torch.nn.Parameter(torch.tensor(0.0))
        self.spread_intercept, self.spread_slope = (bm.noise.Positive((), 1.0, (1e-3, 1e2)) for _ in range(2))

    def forward(self, phi, x):
        a = self.typical_intercept + self.spread_intercept() * phi["intercept"]
        b = self.typical_slope + self.spread_slope() * phi["slope"]
        return a[..., None, None] + b[..., None, None] * x

    def grid(self, num_tasks):
        axis = torch.linspace(-5.0, 5.0, 41, dtype=self.typical_slope.dtype)
        first, second = torch.meshgrid(axis, axis, indexing="ij")
        return {
            "intercept": first.reshape(-1, 1).expand(-1, num_tasks),  # draws x tasks
            "slope": second.reshape(-1, 1).expand(-1, num_tasks),
        }

    def condition(self, support):
        return OnGrid(spec=support.spec, learner=self, support=support)

    def evidence(self, data):
        return self.joint(data)(self.grid(data.num_tasks)).logsumexp(0) + 2 * np.log(0.25)


@dataclass(frozen=True, eq=False, kw_only=True)
class OnGrid(bm.Refit):
    """p(phi | D, theta) on a grid: its points, and their log weights."""

    def at(self, x):
        phi = self.learner.grid(self.support.num_tasks)
        log_weights = self.learner.joint(self.support)(phi).mT  # tasks x draws
        f = self.learner.forward(phi, x).transpose(0, 1)  # tasks x draws x points x 1
        components = bm.predictives.IndependentPredictive(self.learner.likelihood(f.flatten(0, 1)))
        return bm.predictives.MixturePredictive(log_weights, components)


torch.manual_seed(0)
learner = DoseResponse().double()
print(learner)

# %% [markdown]
# ## One density
#
# `program(learner, hyperprior)` is the learner's model as a Pyro program. The check: draw all sites from one program,
# put the same values into the other, and compare the log densities of the traces.

# %%
data = tasks.data
ours = program(learner, HYPERPRIOR)
pyro.set_rng_seed(0)
for _ in range(3):
    trace = poutine.trace(ours).get_trace(data)
    values = {
        name: site["value"]
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not site["is_observed"]
    }
    theirs = poutine.trace(poutine.condition(by_hand, values)).get_trace(data)
    print(f"by the library {trace.log_prob_sum():.6f}   by hand {theirs.log_prob_sum():.6f}")
dot = render(learner, data, HYPERPRIOR).source
print(*[line.strip() for line in dot.splitlines() if "->" in line], sep="\n")

# %% [markdown]
# The two agree to every digit shown, which says more than reading both programs would. The lines below are the arrows
# of the plate diagram, which `render` writes in the DOT language. With Graphviz installed, `render(...,
# file="model.svg")` draws the whole of it; here the same arrows drawn by matplotlib.

# %%
# alt: Plate diagram: four shared numbers, typical intercept and slope and their spreads, point to the outcome y in the inner plate of patients; intercept and slope of a clinic lie in the outer plate of clinics and point to y, too.
figure, ax = plt.subplots(figsize=(6.6, 3.6), layout="constrained")
places = {name: (2.2 * number, 2.2) for number, name in enumerate(HYPERPRIOR)} | {
    "intercept": (1.3, 0.4),
    "slope": (5.3, 0.4),
    "y": (3.3, -0.5),
}
for line in dot.splitlines():
    if "->" in line:
        start, end = (word.strip() for word in line.split("->"))
        ax.annotate(
            "",
            places[end],
            places[start],
            arrowprops={"arrowstyle": "->", "shrinkA": 16, "shrinkB": 16, "color": "black"},
        )
for name, (x, y) in places.items():
    ax.text(
        x,
        y,
        name.replace("_", "\n"),
        ha="center",
        va="center",
        fontsize="small",
        bbox={"boxstyle": "round,pad=0.4", "facecolor": SKY if name == "y" else "white", "edgecolor": "black"},
    )
for (x, y, width, height), label in {(0.6, -1.3, 5.4, 2.2): "clinics", (2.3, -1.1, 2.0, 1.1): "patients"}.items():
    ax.add_patch(plt.Rectangle((x, y), width, height, fill=False, edgecolor="black"))
    ax.text(x + width - 0.1, y + 0.08, label, ha="right", fontsize="small")
ax.set(xlim=(-0.9, 7.5), ylim=(-1.5, 2.8))
ax.axis("off");
# %% [markdown]
# ## $\theta$, four ways
#
# All four use Pyro and the same program. MAP takes the highest point of the joint density of $\theta$ and all
# $\phi_t$. The two variational ones fit a Gaussian, once with independent numbers and once with one covariance over
# all of them. The no-U-turn sampler draws from the posterior itself.

# %%
STEPS = 300  # smoke: 3
CHAIN = 80  # smoke: 4
draws = {
    "MAP": hyper_svi(learner, data, HYPERPRIOR, AutoDelta, steps=STEPS, lr=0.05, num_draws=2),
    "SVI, independent": hyper_svi(learner, data, HYPERPRIOR, steps=STEPS, lr=0.05, num_draws=1_000),
    "SVI, full": hyper_svi(learner, data, HYPERPRIOR, AutoMultivariateNormal, steps=STEPS, lr=0.05, num_draws=1_000),
}
with warnings.catch_warnings():
    warnings.simplefilter("ignore", bm.ConvergenceWarning)  # R-hat is printed below
    sampler = bm.inference.NUTS(num_chains=2, num_draws=CHAIN, num_warmup=CHAIN)
    draws["NUTS"] = hyper_nuts(learner, data, HYPERPRIOR, sampler, jit_compile=True)
rows = {"truth": {name: f"{value:.2f}" for name, value in TRUTH.items()}}
for method, each in draws.items():
    numbers = {name: value.flatten() for name, value in each.theta.items()}
    rows[method] = {name: f"{value.mean():.2f} ± {value.std():.2f}" for name, value in numbers.items()}
print("R-hat of NUTS:", {name: round(draws["NUTS"].r_hat[name].item(), 2) for name in TRUTH})
pd.DataFrame(rows).T

# %% [markdown]
# Read the columns of the spreads. The row of NUTS holds the truth within its uncertainty. The two variational rows
# are near it at a fraction of the cost, and too sure of themselves, the more so where all numbers are taken to be
# independent. MAP is far off. The highest point of a joint density of $\theta$ and all $\phi_t$ is not where its
# probability is: in this form of the model it rewards standard normal numbers near zero, and makes up for them by
# large spreads. In the other form, with $a_t$ and $b_t$ themselves as parameters, the density is highest where all
# clinics are alike, and the spreads go to zero. Nothing is wrong with the optimiser; do not fit a hierarchical model
# by joint MAP.

# %%
# alt: Draws of the spread of intercepts and of slopes by the sampler as a cloud, with the mean of each method; the point of MAP lies far outside of the cloud, at large spreads.
figure, ax = plt.subplots(figsize=(5.6, 4.0), layout="constrained")
cloud = {name: value.flatten() for name, value in draws["NUTS"].theta.items()}
ax.plot(
    cloud["spread_intercept"][::2],
    cloud["spread_slope"][::2],
    ".",
    color=BLUE,
    markersize=3,
    alpha=0.4,
    label="NUTS, draws",
)
for (method, each), marker, colour in zip(draws.items(), "Ds^o", (VERMILLION, ORANGE, GREEN, BLUE), strict=True):
    mean = (each.theta["spread_intercept"].mean(), each.theta["spread_slope"].mean())
    ax.plot(*mean, marker, color=colour, markersize=9, markeredgecolor="white", label=f"{method}, mean")
ax.plot(TRUTH["spread_intercept"], TRUTH["spread_slope"], "k*", markersize=12, label="truth")
ax.set(xlabel="spread of intercepts", ylabel="spread of slopes", xlim=(0, None), ylim=(0, None))
ax.legend(fontsize="small");
# %% [markdown]
# ## A new clinic
#
# The draws of $\theta$ become a learner for tasks that were not among the twenty: `hyper_posterior` averages over
# them. Here are the chances of healing in a new clinic, before any patient and after six, with what MAP would have
# said.

# %%
MEMBERS = 50  # smoke: 2
averaged, best = draws["NUTS"].hyper_posterior(MEMBERS), draws["MAP"].learner_at(0)
new = bm.Data.from_labels([-1.5, -1.0, -0.5, 0.5, 1.0, 1.5], [1, 1, 0, 1, 1, 1])
doses = torch.linspace(-2.0, 2.0, 5)
chances = {}
for shown, support in {"no patient": bm.Data.empty(new), "six patients": new}.items():
    for name, each in {"NUTS, averaged": averaged, "MAP": best}.items():
        chances[shown, name] = each.adapt(support).predict(doses).probs[0, :, 1].tolist()
pd.DataFrame(chances, index=[f"{dose + 2:.0f} mg" for dose in doses.tolist()]).round(2)

# %% [markdown]
# Before a patient, the spreads that MAP exaggerates pull its chances towards one half. After six patients it goes
# further with what little this clinic has shown.
#
# ## $\phi$ given $\theta$: four ways, and the exact answer
#
# Now hold $\theta$ at the mean of its draws and look at the two numbers of the new clinic. `svi` and `nuts` are
# Pyro's; `Sampled` is the library's own sampler; `adapt` is the grid. All of them are posteriors that predict and can
# be updated.

# %%
DRAWS = 100  # smoke: 20
with torch.no_grad():
    for name, value in draws["NUTS"].theta.items():
        place = getattr(learner, name)
        place.set(value.mean()) if isinstance(place, bm.noise.Positive) else place.copy_(value.mean())
short = bm.inference.NUTS(num_chains=2, num_draws=DRAWS, num_warmup=DRAWS)
with warnings.catch_warnings():
    warnings.simplefilter("ignore", bm.ConvergenceWarning)
    posteriors = {
        "exact, on the grid": learner.adapt(new),
        "MAP (AutoDelta)": svi(learner, new, AutoDelta, steps=STEPS // 2, lr=0.05, num_draws=2),
        "SVI (FullRank)": svi(learner, new, FullRank(), steps=STEPS // 2, lr=0.05),
        "NUTS, by Pyro": nuts(learner, new, short, jit_compile=True),
        "NUTS, by the library": bm.Sampled(learner, short).adapt(new),
    }
after = {name: each.predict(doses).probs[0, :, 1].tolist() for name, each in posteriors.items()}
table = pd.DataFrame(after, index=[f"{dose + 2:.0f} mg" for dose in doses.tolist()]).T
table["largest difference to the exact one"] = (table - table.iloc[0]).abs().max(axis=1)
table.round(3)

# %%
# alt: Chance of healing against the dose in the new clinic after six patients: the curves of the exact posterior, SVI and both samplers lie on each other, and that of MAP is a little apart; points show the six patients.
figure, ax = plt.subplots(figsize=(6.2, 3.4), layout="constrained")
fine = torch.linspace(-2.0, 2.0, 41)
styles = {
    "exact, on the grid": ("black", "-"),
    "MAP (AutoDelta)": (VERMILLION, "--"),
    "SVI (FullRank)": (GREEN, "-."),
    "NUTS, by the library": (BLUE, ":"),
}
for name, (colour, line) in styles.items():
    ax.plot(fine + 2, posteriors[name].predict(fine).probs[0, :, 1], line, color=colour, label=name)
ax.plot(new.x.flatten() + 2, new.y.flatten().double() * 1.04 - 0.02, "o", color=ORANGE, label="patients")
ax.set(xlabel="dose, mg", ylabel="chance of healing")
ax.legend(fontsize="small");
# %% [markdown]
# ## To ArviZ
#
# `to_arviz` gives draws with names, log likelihoods and posterior predictive draws of all clinics, for everything
# that ArviZ does. The chains come in their chains, so that R-hat and effective sample sizes are those of the sampler.

# %%
few = tasks.select(range(3))
with warnings.catch_warnings():
    warnings.simplefilter("ignore", bm.ConvergenceWarning)
    inference_data = to_arviz(bm.Sampled(learner, short), few, num_draws=2 * DRAWS)
az.summary(inference_data, var_names=["intercept", "slope"])[["mean", "sd", "ess_bulk", "r_hat"]]

# %% [markdown]
# The numbers are in units of the spreads: a clinic with an intercept of 1 lies one deviation above the typical one.
#
# ## What was learned
#
# - A hierarchical model with plates and a learner with an explicit prior and likelihood are the same thing. `program`
#   goes from the learner to Pyro, and equal log densities show that nothing was lost.
# - Joint MAP does not find deviations between tasks, and what it finds depends on how the model is written. Average
#   over $\theta$ (`hyper_nuts`, `hyper_svi`, `hyper_posterior`), or integrate $\phi$ out, as `evidence` does here.
# - Where $\phi$ is one or two numbers a grid is exact, and makes a good yardstick for every other method.
# - What `svi`, `nuts` and `hyper_posterior` return predicts, is updated and is evaluated like every other posterior
#   or learner.
#
# Where to go next: [Pyro](../how_to/pyro.md) with all guides and hyperpriors; [gold
# standards](../concepts/gold_standards.md) on NUTS and on averaging over $\theta$; [ArviZ](../how_to/arviz.md); the
# ready-made [generalised linear mixed model](../concepts/outcomes.md#binary-outcomes-and-classes) for such data; and
# [extending](../how_to/extending.md) for learners of your own.
