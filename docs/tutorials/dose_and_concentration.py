# %% [markdown]
# # Dose and concentration: a formula whose parameters differ between patients
#
# A compartment model with a clearance of each patient's own, learned from patients with few samples, tells the next
# dose of a new patient from one or two of them.
#
# A patient swallows a dose. How high is the concentration of the drug in the blood some hours later, and how much of
# it should the next dose be? Pharmacologists have a formula for the curve. Its parameters differ between patients, and
# each patient gives only a handful of blood samples. Here a patient is a **task**, a small data set; the formula is
# the *structural model*; and what is learned from many patients is how their parameters are distributed. This is
# nonlinear mixed-effects modelling, as in NONMEM or nlme, with posteriors and predictions that are ready for the next
# patient.

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

import bayesmeta as bm

PATIENTS = 30  # smoke: 6
NEW_PATIENTS = 60  # smoke: 8
TOLERANCE = 1e-5  # smoke: 1.0
DRAWS = 4_000  # smoke: 50

# %% [markdown]
# ## The formula, and simulated patients
#
# The one-compartment model with oral absorption says
#
# $$
# c(t) = \frac{\text{dose} \cdot k_a}{V (k_a - k_e)} \left( e^{-k_e t} - e^{-k_a t} \right), \qquad k_e = \frac{Cl}{V},
# $$
#
# with the dose in mg, $t$ the hours after it, $c$ the concentration (mg/L), $k_a$ the rate of absorption (1/h), $V$
# the volume in which the drug spreads (L), and $Cl$ the **clearance** (L/h): how much blood is freed of the drug in an
# hour. The clearance decides how much drug a patient can take.
#
# We simulate thirty patients, so that the truth is known. They have between two and nine samples at unequal times. The
# assay errs by 10 % and by 0.05 mg/L besides, and cannot see concentrations below 0.6 mg/L: then the limit itself is
# written down.

# %%
LIMIT = 0.6  # mg/L: below, the assay sees nothing
formula = bm.parametric.OneCompartment()  # of the hours and the dose


def simulate(count, seed):
    rng = np.random.default_rng(seed)
    times = np.array([0.5, 1, 2, 3, 4, 6, 8, 12, 16, 24, 30, 36])
    rows, truth = [], {}
    for number in range(count):
        patient = f"{number:02d}"
        ka, volume, clearance = np.array([1.2, 32.0, 3.0]) * np.exp(np.array([0.3, 0.2, 0.4]) * rng.normal(size=3))
        truth[patient] = {"ka": ka, "V": volume, "Cl": clearance}
        hours, dose = np.sort(rng.choice(times, rng.integers(2, 10), replace=False)), rng.choice([200, 300, 400])
        ke = clearance / volume
        true = dose * ka / (volume * (ka - ke)) * (np.exp(-ke * hours) - np.exp(-ka * hours))
        measured = true * (1 + 0.1 * rng.normal(size=len(hours))) + 0.05 * rng.normal(size=len(hours))
        rows += [
            {"patient": patient, "hours": h, "dose_mg": dose, "mg_per_l": round(max(m, LIMIT), 3), "below": m < LIMIT}
            for h, m in zip(hours, measured, strict=True)
        ]
    return pd.DataFrame(rows), pd.DataFrame(truth).T


table, truth = simulate(PATIENTS, seed=0)
tasks = bm.TaskDataset.from_frame(table, task="patient", x=["hours", "dose_mg"], y=["mg_per_l"])
print(tasks)
print(f"{table.below.sum()} of {len(table)} samples are below the limit")
table.head(7)

# %%
# alt: Concentration in mg/L against hours after the dose for thirty patients. The curves rise within two hours and fall at very different rates, and some late samples lie at the limit of 0.6 mg/L.
figure, ax = plt.subplots(figsize=(5.6, 3.2), layout="constrained")
for _, rows in table.groupby("patient"):
    ax.plot(rows.hours, rows.mg_per_l, ".-", color="#0072B2", linewidth=0.6, markersize=4, alpha=0.8)
hidden = table[table.below]
ax.plot(hidden.hours, hidden.mg_per_l, "v", color="#D55E00", markersize=5, label="below the limit")
ax.set(xlabel="hours after the dose", ylabel="concentration, mg/L")
ax.legend(frameon=False)

# %% [markdown]
# ## Fit
#
# A [structural model](../methods/parametric.md) is made of the formula, of what each parameter is, and of the noise.
# `Positive` says that a parameter is above zero and that its *logarithm* is normally distributed between patients; its
# number is only where the search starts. `ProportionalGaussian` is an error that grows with the concentration on top
# of one that is always there, and `Censored` around it says what a sample at the limit means: *somewhere below*.


# %%
def model(likelihood):
    parameters = {
        "ka": bm.parametric.Positive(1.0, stddev=0.3),  # 1/h
        "V": bm.parametric.Positive(20.0, stddev=0.3),  # L
        "Cl": bm.parametric.Positive(2.0, stddev=0.3),  # L/h
    }
    return bm.Parametric(formula, parameters, likelihood=likelihood).double()


proportional = bm.likelihoods.ProportionalGaussian
learner = model(bm.likelihoods.Censored(proportional(), limit=LIMIT))
bm.fit_evidence(learner, tasks, tolerance=TOLERANCE)
learner = learner.frozen()  # trained: what is computed from it below needs no gradients

spread = learner.covariance.matrix().diagonal().sqrt().tolist()
pd.DataFrame(
    {
        "typical, learned": pd.Series(learner.typical),
        "typical, truth": [1.2, 32.0, 3.0],
        "deviation of the log, learned": spread,
        "deviation of the log, truth": [0.3, 0.2, 0.4],
    }
).round(2)

# %% [markdown]
# A deviation of 0.4 on the logarithm means that patients' clearances differ by a factor of about $e^{0.4} = 1.5$ up or
# down. With thirty patients of few samples each, the truth is met about as well as can be hoped for.
#
# ## A new patient, from no, one and two samples
#
# A patient who was not among the thirty swallows 300 mg. One sample is taken after two hours (7.1 mg/L), another after
# eight (2.6 mg/L). `adapt` gives the posterior of this patient's parameters, `predict` the concentrations to come.

# %%
# alt: Three panels of concentration against hours, from no, one and two samples. The 90 % band of the concentration is wide without samples, hardly narrower late after the first sample at two hours, and narrow after the second at eight hours. The true curve lies within all three.
samples = [(2.0, 7.1), (8.0, 2.6)]
actual = {"ka": 1.3, "V": 31.0, "Cl": 5.2}  # what nobody knows


def curve(hours, dose, parameters):
    """The concentration for one set of parameters or for draws of them, one row a draw."""
    x = torch.stack([hours, torch.full_like(hours, dose)], -1)[None]
    return formula(x, {name: torch.as_tensor(value).double().reshape(-1, 1) for name, value in parameters.items()})


def patient_after(count):
    x = [[hours, 300.0] for hours, _ in samples[:count]]
    return learner.adapt(bm.Data.from_arrays(np.array(x).reshape(-1, 2), [mg for _, mg in samples[:count]]))


hours = torch.linspace(0.1, 36, 80).double()
figure, axes = plt.subplots(1, 3, figsize=(7.0, 2.9), sharey=True, layout="constrained")
for count, ax in enumerate(axes):
    draws = learner.values(patient_after(count).sample(DRAWS))
    low, middle, high = curve(hours, 300.0, draws).quantile(torch.tensor([0.05, 0.5, 0.95]).double(), 0)
    ax.fill_between(hours, low, high, color="#56B4E9", alpha=0.4, linewidth=0, label="90 % interval")
    ax.plot(hours, middle, color="#0072B2", label="median")
    ax.plot(hours, curve(hours, 300.0, actual)[0], color="#D55E00", linestyle="--", label="truth")
    ax.plot(*zip(*samples[:count], strict=True) if count else ([], []), "o", color="black", label="samples")
    ax.axhline(LIMIT, color="black", linewidth=0.8, linestyle=":")
    ax.set(title=f"{count} sample{'s' * (count != 1)}", xlabel="hours after the dose")
axes[0].set_ylabel("concentration, mg/L")
figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)

# %% [markdown]
# The bands are those of the concentration in the blood itself. The first sample, near the top of the curve, says much
# of the volume and little of the clearance. The second sample says how quickly the drug goes.
#
# The parameters are what a physician asks about. Draws of the posterior are draws of the parameters, in their units,
# and any function of them has a posterior, too: the half-life is $\ln 2 \cdot V / Cl$.

# %%
# alt: Posterior densities of the clearance in litres per hour after no, one and two samples, as steps. One sample hardly changes the density, the second moves it to the right and narrows it around the truth of 5.2.
rows = {}
figure, ax = plt.subplots(figsize=(5.6, 2.8), layout="constrained")
for count, colour in enumerate(["#56B4E9", "#E69F00", "#0072B2"]):
    draws = learner.values(patient_after(count).sample(DRAWS))
    clearance = draws["Cl"].flatten()
    half_life = 0.693 * (draws["V"] / draws["Cl"]).flatten()
    rows[f"{count} samples"] = {
        f"{name}, {word}": values.quantile(q).item()
        for name, values in {"clearance, L/h": clearance, "half-life, h": half_life}.items()
        for word, q in {"5 %": 0.05, "median": 0.5, "95 %": 0.95}.items()
    }
    look = {"density": True, "histtype": "step", "linewidth": 1.6, "color": colour}
    ax.hist(clearance.numpy(), bins=np.linspace(0, 10, 41), label=f"{count} samples", **look)
ax.axvline(actual["Cl"], color="#D55E00", linestyle="--", label="truth")
ax.set(xlabel="clearance, L/h", ylabel="density")
ax.legend(frameon=False)
pd.DataFrame(rows).T.round(2)

# %% [markdown]
# The first sample leaves the clearance where it was for patients in general. The second moves the median from 3.1 to
# 5.4 L/h, and leaves a 90 % interval from 4.5 to 6.3 that holds the truth. So *when* a sample is taken decides what it
# tells.
#
# ## Choosing the next dose
#
# The second dose is due 24 hours after the first. Twelve hours after it, the concentration should lie between 1.5 and
# 3.5 mg/L: below, the drug does not work, and above it harms. What is left of the first dose adds to it. For each draw
# of the parameters the formula gives the concentration, and the share of draws inside the window is the probability
# that the dose is right.

# %%
# alt: Probability that the concentration is in the window, below it and above it, against the next dose in mg. The probability to be inside rises to a broad maximum and falls again.
doses = torch.arange(100, 1001, 25).double()
draws = learner.values(patient_after(2).sample(DRAWS))
left = curve(torch.tensor([36.0]).double(), 300.0, draws)  # of the first dose, 36 hours after it
per_mg = curve(torch.tensor([12.0]).double(), 1.0, draws)  # the model is linear in the dose
concentration = left + per_mg * doses  # draws x doses
below, above = (concentration < 1.5).double().mean(0), (concentration > 3.5).double().mean(0)
inside = 1 - below - above
best = inside.argmax()
figure, ax = plt.subplots(figsize=(5.6, 2.8), layout="constrained")
colours = {"inside": "#0072B2", "too low": "#E69F00", "too high": "#D55E00"}
for values, (label, colour) in zip([inside, below, above], colours.items(), strict=True):
    ax.plot(doses, values, label=label, color=colour)
ax.axvline(doses[best], color="black", linewidth=0.8, linestyle=":")
ax.set(xlabel="next dose, mg", ylabel="probability")
ax.legend(frameon=False)
low, high = concentration[:, best].quantile(torch.tensor([0.05, 0.95]).double())
chosen, old = doses[best].item(), (doses == 300).nonzero().item()
print(f"{chosen:.0f} mg is inside with probability {inside[best]:.2f}, 90 % from {low:.1f} to {high:.1f} mg/L")
print(f"300 mg, the old dose, is inside with probability {inside[old]:.2f}")
after, before = torch.tensor([12.0]).double(), torch.tensor([36.0]).double()
achieved = curve(before, 300.0, actual) + curve(after, chosen, actual)
print(f"in truth {chosen:.0f} mg gives {achieved.item():.1f} mg/L")

# %% [markdown]
# Note what decides here: not the best guess of the parameters, but all that are possible after two samples. Where too
# much harms more than too little, weigh the two probabilities by what they cost.
#
# ## Are the intervals right?
#
# For one patient anything may happen. We simulate new patients, let the learner see the first 0, 1 or 2 samples of
# each, and look whether the 90 % intervals hold the later ones.

# %%
new_table, _ = simulate(NEW_PATIENTS, seed=1)
new_tasks = bm.TaskDataset.from_frame(new_table, task="patient", x=["hours", "dose_mg"], y=["mg_per_l"])
evaluation = bm.evaluate(learner, new_tasks, shots=[0, 1, 2], split=bm.tasks.PrefixSplit)
evaluation.table()[["tasks", "points", "rmse", "width", "coverage", "coverage_low", "coverage_high"]].round(2)

# %% [markdown]
# `rmse` and `width` are in mg/L. With no sample and with one the intervals hold what they promise. With two the
# coverage is 0.83, and the 95 % interval of this number just reaches 0.9: perhaps it is chance, and perhaps the
# intervals are a little too narrow, because they take what was learned of patients in general for certain, and thirty
# patients do not make it certain. [Averaging over it](../concepts/gold_standards.md) is the remedy where that matters.
#
# ## Why not leave the hidden samples out?
#
# Samples below the limit are those of patients who got rid of the drug quickly. Who leaves them out keeps the slow
# ones, and who takes the limit for a measured value says that the drug stays for longer than it does. Both bend the
# end of the curve:

# %%
ways = {
    "below the limit, said so": learner,
    "left out": model(proportional()),
    "taken as measured": model(proportional()),
}
seen = bm.TaskDataset.from_frame(table[~table.below], task="patient", x=["hours", "dose_mg"], y=["mg_per_l"])
bm.fit_evidence(ways["left out"], seen, tolerance=TOLERANCE)
bm.fit_evidence(ways["taken as measured"], tasks, tolerance=TOLERANCE)
times = torch.tensor([2.0, 12.0, 24.0, 36.0]).double()
rows = {name: curve(times, 300.0, each.typical)[0] for name, each in ways.items()}
rows["truth"] = curve(times, 300.0, {"ka": 1.2, "V": 32.0, "Cl": 3.0})[0]
pd.DataFrame(rows, index=[f"{time:.0f} h" for time in times]).T.astype(float).round(2)

# %% [markdown]
# The rows are the concentration of a typical patient after 300 mg, in mg/L. At the top of the curve it hardly matters
# what is done with the hidden samples. Late it does: at 36 hours both usual ways are a third too high, and a dose
# every day would be chosen too low because of it. Said as what they are, samples below the limit cost nothing and bend
# nothing.
#
# ## What was learned
#
# - A formula with named parameters becomes a meta-learner: what differs between patients is learned from few samples
#   of each.
# - Draws of a patient's posterior are draws of clearance, volume and half-life, in their units. Any question about
#   them, such as the probability that a dose ends inside of a window, is a share of draws.
# - An outcome that is hidden below a limit is not missing, and not at the limit. `Censored` says what it is.
#
# Where to go next:
#
# - [Structural models](../methods/parametric.md): formulas of your own, other parameters, numbers.
# - [Noise](../concepts/noise.md): errors that grow with what is measured, error bars, limits.
# - [Growth curves](growth_curves.md), if you have no formula.
