# %% [markdown]
# # Judging a posterior: NUTS, simulation-based calibration, ArviZ
#
# Is the posterior that a learner gives *the* posterior? One task is compared with the exact answer and with NUTS, then
# a thousand simulated tasks are ranked, and a wrong posterior shows its face.
#
# A learner gives p(parameters of a task | its data): the **posterior**. For most models that is an approximation.
# Whether the *model* is right is asked of real outcomes ([calibration](calibration.md)). Whether the *inference* is
# right, given the model, is another question, and it has an answer that needs no real data at all. This page shows
# three ways to ask it.
#
# The setting: a **task** is a small school whose few pupils pass an examination or not, and what is unknown is the
# school's level, one number. That is a model in which the exact posterior can be had by brute force, and the usual
# approximation, Laplace's, is visibly off.

# %%
import arviz as az
import matplotlib.pyplot as plt
import pandas as pd
import torch

import bayesmeta as bm
from bayesmeta.interop.arviz import to_arviz

SIMULATIONS = 2_000  # smoke: 100
NUTS_SIMULATIONS = 100  # smoke: 20
CHAINS = 8
CHAIN_DRAWS = 250  # smoke: 150
SHORT_DRAWS = 100
WARMUP = 150  # smoke: 100

# %% [markdown]
# ## The model
#
# Pupil $n$ of a school passes with log odds $f(x_n) = 1 \cdot x_n + 3\,b$, where $x_n$ is how well the pupil was
# prepared and $b \sim \N(0, 1)$ is the school's level in units of what schools differ by. The numbers $1$ and $3$ are
# *meta-parameters*; they would be learned from many schools ([here](schools.md) is how), and are simply given on this
# page. Schools differ much, so that few pupils leave a posterior that is far from a Gaussian.

# %%
Logistic = bm.learners.GeneralizedLinearMixedModel


def make(kind=Logistic, **options):
    covariance = bm.priors.FullCovariance(2, varying=[0])
    learner = kind(bm.Identity(1), likelihood=bm.likelihoods.Bernoulli(), covariance=covariance, **options).double()
    with torch.no_grad():
        learner.network.location.copy_(torch.tensor([[0.0], [1.0]]))
        learner.covariance.set_matrix(torch.tensor([[9.0, 0.0], [0.0, 0.0]], dtype=torch.float64))
    return learner.frozen()


model = make()
school = bm.Data.from_labels([-1.0, 0.0, 0.5, 1.0], [1, 1, 1, 1])  # four pupils, and all passed

# %% [markdown]
# ## One task: exact, Laplace, NUTS
#
# - **Exact**: with one unknown number, its posterior is the prior times the likelihood on a fine grid, divided by the
#   sum.
# - **Laplace**: a Gaussian around the most probable value, with the curvature there. In the library:
#   `bm.Linearized()`.
# - **Quadrature**: what this learner does by itself; a weighted set of values that is meant to be exact.
# - **NUTS**: the no-U-turn sampler, by which `bm.Sampled` replaces the inference of any learner with explicit prior
#   and likelihood. It is slow, and right up to the number of draws.

# %%
# alt: The posterior density of the level b after four passes. The exact density is skewed to the right, a histogram of NUTS draws follows it, and Laplace's Gaussian is symmetric, too far left and too narrow on the right.
laplace = make(posterior=bm.Linearized())
nuts = bm.Sampled(model, bm.inference.NUTS(num_chains=CHAINS, num_draws=CHAIN_DRAWS, num_warmup=WARMUP))

b = torch.linspace(-2, 4, 601).double()
log_joint = model.log_joint(school)({"effects": b[:, None, None, None]})[:, 0]  # a density for each value of b
exact = (log_joint - log_joint.max()).exp()
exact = exact / exact.sum() / (b[1] - b[0])

posteriors = {"quadrature": model.adapt(school), "Laplace": laplace.adapt(school), "NUTS": nuts.adapt(school)}
draws = {name: each.sample(CHAINS * CHAIN_DRAWS)["effects"].flatten() for name, each in posteriors.items()}
figure, ax = plt.subplots(figsize=(5.6, 3.2), layout="constrained")
ax.hist(draws["NUTS"].numpy(), bins=40, density=True, color="#56B4E9", label="NUTS")
ax.plot(b, exact, color="black", label="exact")
gaussian = torch.distributions.Normal(draws["Laplace"].mean(), draws["Laplace"].std())
ax.plot(b, gaussian.log_prob(b).exp(), color="#D55E00", linestyle="--", label="Laplace")
ax.set(xlabel="level of the school, b", ylabel="density")
ax.legend(frameon=False)

# %%
step = b[1] - b[0]
mean = (b * exact).sum() * step
rows = {"exact": {"mean": mean.item(), "deviation": ((b - mean).square() * exact).sum().mul(step).sqrt().item()}}
for name, values in draws.items():
    rows[name] = {"mean": values.mean().item(), "deviation": values.std().item()}
for name, each in posteriors.items():
    rows[name]["P(next pupil of x = -2 passes)"] = each.predict([-2.0]).probs[0, 0, 1].item()
certain = torch.sigmoid(-2 + 3 * b)
rows["exact"]["P(next pupil of x = -2 passes)"] = ((certain * exact).sum() * step).item()
pd.DataFrame(rows).T.round(3)

# %% [markdown]
# Quadrature and NUTS agree with the exact answer (NUTS up to the chance of its draws). Laplace's mean is too low:
# after four passes out of four the level may be very high, and a Gaussian around the most probable value cannot say
# so.
#
# How far is that, in a number that can be compared between models? `fidelity` measures the distance of a posterior
# from a reference, here NUTS. The first column counts most: how much the *predictions* differ, in nats.

# %%
query = torch.linspace(-3, 3, 7).double()[None, :, None]
found = {}
for name in ("quadrature", "Laplace"):
    found[name] = bm.checks.fidelity(posteriors[name], posteriors["NUTS"], query).table().iloc[0]
columns = ["predictive_kl", "mean_error", "log_scale", "sliced_wasserstein", "sliced_wasserstein_floor"]
pd.DataFrame(found).T[columns].astype(float).round(4)

# %% [markdown]
# `mean_error` is in deviations of the reference, `log_scale` is the logarithm of the ratio of deviations (below 0: too
# narrow), and the *floor* is the distance between two sets of draws of the reference itself. Quadrature is at the
# floor, Laplace above it.
#
# ## Can NUTS be believed?
#
# A reference must be checked, too. Chains that started at different places should agree. ArviZ has the diagnostics for
# it, and `to_arviz` brings any posterior there, by the names of your tasks: as an `InferenceData` with ArviZ 0.x, as a
# `DataTree` with 1.x. We take three schools from a table.

# %%
table = pd.DataFrame(
    {
        "school": ["oak"] * 4 + ["elm"] * 3 + ["ash"] * 6,
        "prepared": [-1.0, 0.0, 0.5, 1.0, -1.0, 0.0, 2.0, -2.0, -1.0, 0.0, 0.5, 1.0, 2.0],
        "passed": [1, 1, 1, 1, 0, 0, 1, 0, 0, 1, 0, 1, 1],
    }
)
schools = bm.TaskDataset.from_frame(table, task="school", x=["prepared"], y=["passed"], outcomes=bm.Labels())
data = to_arviz(nuts, schools)
az.summary(data, var_names=["effects"])

# %% [markdown]
# `r_hat` compares the variance between chains with that within them: 1.00 means that they agree, and above 1.05
# nothing should be believed. `ess_bulk` and `ess_tail` say how many independent draws the dependent ones are worth.
# Both are fine here. Oak, where everybody passed, has the highest level and a wide posterior.

# %%
# alt: Traces of eight NUTS chains for the level of school oak, plotted against the number of the draw. All chains wander over the same range, from about 0 to 3, without drift.
levels = data["posterior"]["effects"].sel(task="oak").values.reshape(CHAINS, -1)
figure, ax = plt.subplots(figsize=(5.6, 2.6), layout="constrained")
for number, chain in enumerate(levels[:4]):
    ax.plot(chain[:150], linewidth=0.7, label=f"chain {number + 1}")
ax.set(xlabel="draw", ylabel="level of oak, b")
ax.legend(frameon=False, ncols=4, loc="upper center", bbox_to_anchor=(0.5, 1.2), fontsize=9)

# %% [markdown]
# ## A thousand tasks: simulation-based calibration
#
# One task is one task. *Simulation-based calibration* (SBC) asks of many: draw a level from the prior, simulate pupils
# from it, adapt, and look at which place the true level has among draws of the posterior. If the posterior is right,
# every place is equally probable: the *ranks* are uniform. The truth is known because it was drawn, and the model is
# right by construction, so that whatever is found is the inference's fault.
#
# To see what faults look like, we also judge three learners that are wrong:
#
# - **Laplace**, as above;
# - **twice**, which counts every pupil twice, a mistake that is easily made where data are merged;
# - **deaf**, which ignores its data and answers with the prior.

# %%
class Twice(Logistic):
    def condition(self, support):
        return super().condition(support.append(support))


class Deaf(Logistic):
    def condition(self, support):
        return super().condition(bm.Data.empty(support))


x = 4 * torch.rand(SIMULATIONS, 5, 1, generator=torch.Generator().manual_seed(0)).double() - 2
judges = {"quadrature": model, "Laplace": laplace, "twice": make(Twice), "deaf": make(Deaf)}
ranks = {name: bm.checks.sbc(model, x, judge=judge) for name, judge in judges.items()}
few = bm.Sampled(model, bm.inference.NUTS(num_chains=CHAINS, num_draws=SHORT_DRAWS, num_warmup=WARMUP))
ranks["NUTS"] = bm.checks.sbc(model, x[:NUTS_SIMULATIONS], judge=few, num_draws=19)
pd.concat({name: each.table() for name, each in ranks.items()}).round(3)

# %%
# alt: Rank histograms of the level in the upper row and of the log likelihood in the lower, for four learners. Quadrature is level in both, Laplace is uneven, twice has walls at both ends, and deaf is level above but piled up on one side below.
shown = ["quadrature", "Laplace", "twice", "deaf"]
figure, axes = plt.subplots(2, 4, figsize=(7.0, 3.9), sharex=True, layout="constrained")
for name, (above, below) in zip(shown, axes.T, strict=True):
    bm.plotting.rank_histograms(ranks[name], ["effects[0,0]", "log likelihood"], bins=20, axes=[above, below])
    above.set_title(name, fontsize=10)
    below.set_title("")
axes[0, 0].set_ylabel("level b")
axes[1, 0].set_ylabel("log likelihood")
figure.supxlabel("rank of the truth among draws, over their number", fontsize=10)

# %% [markdown]
# Read the table and the picture together:
#
# - **quadrature** and **NUTS** are uniform in everything that is ranked.
# - **Laplace** is called too narrow: its deviation is about 91 % of the right one. What was seen in one school is true
#   of schools in general. For many purposes a posterior that is 9 % too narrow will do; now you know.
# - **twice** has walls at both ends. They are the face of a posterior that is too sure of itself: the truth lies
#   beyond all of its draws too often. Its `width` is 0.79.
# - **deaf** has perfectly uniform ranks of the level! Averaged over the prior, the prior *is* right. It is found by
#   the rank of the *log likelihood*, which depends on the data as well. This is why it is always among what is ranked.
#
# ## What was learned
#
# - Ask twice: is the *model* right (predictions of real outcomes), and is the *inference* right (SBC, NUTS)? Each can
#   be wrong alone.
# - One task beside an exact posterior or NUTS shows *how* an approximation is wrong, `fidelity` says how much it
#   matters, and SBC says whether it is wrong in general.
# - Chains must agree before they may judge.
#
# Where to go next:
#
# - [Gold standards](../concepts/gold_standards.md): NUTS, and theta averaged over;
#   [calibration](../concepts/calibration.md#is-the-posterior-the-posterior) for every number of the table.
# - [ArviZ](../how_to/arviz.md): all groups and names; [which diagnostic for which
#   question](../how_to/which_diagnostic.md).
# - [Schools](schools.md), where the meta-parameters of this page's model are learned.
