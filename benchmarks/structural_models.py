"""Structural models on theoph and indometh: each subject left out, adapted on its first points, and predicted.

Reads the two tables from the folder that BAYESMETA_DATA names (long CSV tables, first column `task`). A one-compartment
model (theoph) and a sum of two exponentials (indometh) with an error that is proportional and additive are fitted on
all subjects but one by `fit_evidence`, adapted on the first points of the one, and asked for 90 % intervals of the
rest.

plug-in    theta at the maximum of the evidence
averaged   theta drawn from its posterior: Laplace's approximation with importance weights, under a weak N(0, 1) around
           the maximum in the coordinates that are searched

The standard error of a coverage is over subjects: points of one subject are missed together. `--fidelity` compares the
posteriors of all subjects with NUTS; `--figures FOLDER` writes the predictions as pictures.
"""

import argparse
import copy
import math
import os
import time
from pathlib import Path

import pandas as pd
import torch
from matplotlib import pyplot as plt
from torch import Tensor

import bayesmeta as bm
from bayesmeta.parametric import Biexponential, OneCompartment, Positive
from benchmarks._report import verdict

SEED = 0
SHOTS = (0, 1, 2, 3, 5)
PICTURED = 3
MEMBERS, TRIED = 16, 64
STEP = 1e-4  # of central differences in theta
INPUTS = {"theoph": ["Time", "Dose"], "indometh": ["time"]}


def learner_for(name: str, proportional: bool) -> bm.Parametric:
    """The model of a table, in float64."""
    likelihood = bm.likelihoods.ProportionalGaussian() if proportional else None
    if name == "theoph":
        scales = {"ka": Positive(1.0, stddev=0.3), "ke": Positive(0.1, stddev=0.3), "Cl": Positive(0.05, stddev=0.3)}
        return bm.Parametric(OneCompartment(), scales, likelihood=likelihood).double()
    starts = {"A1": 3.0, "k1": 2.0, "A2": 0.5, "k2": 0.3}
    scales = {key: Positive(value, stddev=0.3) for key, value in starts.items()}
    return bm.Parametric(Biexponential(), scales, likelihood=likelihood).double()


def averaged(learner: bm.Parametric, tasks: bm.TaskDataset) -> bm.HyperPosterior:
    """Members drawn around the maximum of the evidence."""
    parameters = list(learner.parameters())
    center = torch.nn.utils.parameters_to_vector(parameters).detach()

    def evidence(theta: Tensor) -> Tensor:
        torch.nn.utils.vector_to_parameters(theta, parameters)
        return learner.evidence(tasks.data).sum()

    def gradient(theta: Tensor) -> Tensor:
        return torch.cat([g.flatten() for g in torch.autograd.grad(evidence(theta), parameters)])

    eye = torch.eye(len(center), dtype=center.dtype)
    slopes = [(gradient(center + STEP * e) - gradient(center - STEP * e)) / (2.0 * STEP) for e in eye]
    hessian = -0.5 * (torch.stack(slopes) + torch.stack(slopes).mT) + eye
    sizes, axes = torch.linalg.eigh(hessian)
    sizes = sizes.clamp(min=1.0)  # the weak prior alone, where the evidence bends upwards
    normal = torch.randn(TRIED, len(center), dtype=center.dtype, generator=torch.Generator().manual_seed(SEED))
    draws = center + normal @ (axes / sizes.sqrt()).mT
    weights = []
    with torch.no_grad():
        for draw, z in zip(draws, normal, strict=True):
            try:
                value = evidence(draw).item() - 0.5 * (draw - center).square().sum().item()
            except bm.InferenceError:
                value = -math.inf
            weights.append((value if math.isfinite(value) else -math.inf) + 0.5 * z.square().sum().item())
        weight = torch.tensor(weights, dtype=torch.float64).softmax(0)
        # systematic resampling: a draw appears as often as it weighs, to rounding
        places = (torch.arange(MEMBERS) + 0.5) / MEMBERS
        members = []
        for i in torch.searchsorted(weight.cumsum(0), places.double()).clamp(max=TRIED - 1).tolist():
            torch.nn.utils.vector_to_parameters(draws[i].clone(), parameters)
            members.append(copy.deepcopy(learner))
        torch.nn.utils.vector_to_parameters(center, parameters)
    return bm.HyperPosterior(members)


def run(
    name: str, tasks: bm.TaskDataset, proportional: bool, average: bool, axes: list[plt.Axes] | None
) -> pd.DataFrame:
    """Coverage and NLL of every subject and number of points."""
    rows = []
    for t in range(len(tasks)):
        train = tasks.select([i for i in range(len(tasks)) if i != t])
        learner = learner_for(name, proportional)
        bm.fit_evidence(learner, train, tolerance=5e-6)
        own = bm.Data(tasks.data.x[t : t + 1], tasks.data.y[t : t + 1], tasks.data.mask[t : t + 1])
        fitted: dict[str, bm.Learner] = {"plug-in": learner}
        if average:
            fitted["averaged"] = averaged(learner, train)
        for kind, each in fitted.items():
            for shots in SHOTS:
                rest = own.points(slice(shots, None))
                prediction = each.adapt(own.points(slice(shots))).predict(rest.x)
                low, high = prediction.interval(0.9)
                inside = ((rest.y >= low) & (rest.y <= high)).double().mean().item()
                nll = -prediction.marginal_log_prob(rest.y).mean().item()
                rows.append({"theta": kind, "shots": shots, "subject": t, "coverage": inside, "nll": nll})
        covered = " ".join(f"{row['coverage']:.2f}" for row in rows if row["subject"] == t)
        print(f"{name}, subject {t + 1} left out: coverage {covered}", flush=True)
        if axes is not None:
            kind = fitted["averaged" if average else "plug-in"]
            unit = "mg/L" if name == "theoph" else "mcg/mL"
            bm.plotting.predictive_bands(
                kind, own, (PICTURED,), axes=[axes[t]], along=0, x_label="time (h)", y_label=f"concentration ({unit})"
            )
            axes[t].set_title(f"subject {t + 1}")
    return pd.DataFrame(rows)


def fidelity(name: str, tasks: bm.TaskDataset) -> None:
    """The posteriors of all subjects after a few points, beside NUTS: KL of the predictive, in nats a point."""
    learner = learner_for(name, proportional=False)
    bm.fit_evidence(learner, tasks, tolerance=5e-6)
    sampler = bm.inference.NUTS(num_chains=8, num_draws=100, num_warmup=150, max_depth=6)
    support = tasks.data.points(slice(5))
    reference = bm.Sampled(learner, sampler, SEED).adapt(support)
    print(f"{name}: predictive KL from NUTS after 5 points, nats a point (median and largest over subjects)")
    for posterior in (bm.learners.WeightedDraws(), bm.Linearized(), bm.PointEstimate()):
        learner.posterior = posterior
        kl = bm.checks.fidelity(learner.adapt(support), reference, tasks.data.x[:, 5:]).predictive_kl
        per_task = kl.flatten(1).mean(1) if kl.ndim > 1 else kl
        print(f"  {type(posterior).__name__:<14}{per_task.median().item():8.4f}{per_task.max().item():8.4f}")


def main() -> None:
    """Leave every subject out once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("BAYESMETA_DATA"))
    parser.add_argument("--tables", nargs="+", default=list(INPUTS), choices=list(INPUTS))
    parser.add_argument(
        "--gaussian", action="store_true", help="noise of one size, in place of proportional and additive"
    )
    parser.add_argument("--no-average", action="store_true", help="theta at the maximum of the evidence alone")
    parser.add_argument("--fidelity", action="store_true")
    parser.add_argument("--figures", type=Path)
    arguments = parser.parse_args()
    if arguments.data is None:
        print("VERDICT: not run; set BAYESMETA_DATA, or pass --data, to the folder of tables")
        return
    torch.set_num_threads(1)
    conclusions = []
    for name in arguments.tables:
        frame = pd.read_csv(arguments.data / name / f"{name}.csv")
        tasks = bm.TaskDataset.from_frame(frame, task="task", x=INPUTS[name], y=["conc"])
        if arguments.fidelity:
            fidelity(name, tasks)
            continue
        figure, axes = None, None
        if arguments.figures is not None:
            columns = 4 if len(tasks) > 6 else 3
            figure, grid = plt.subplots(-(-len(tasks) // columns), columns, figsize=(3.2 * columns, 8), squeeze=False)
            axes = list(grid.flatten())
        start = time.process_time()
        table = run(name, tasks, not arguments.gaussian, not arguments.no_average, axes)
        noise = "one size" if arguments.gaussian else "proportional and additive"
        print(f"\n{name}: {len(tasks)} subjects, noise {noise}, {time.process_time() - start:.0f} processor seconds")
        print(f"{'theta':<10}{'points':>7}{'coverage':>10}{'± s.e.':>8}{'NLL':>8}")
        for (kind, shots), group in table.groupby(["theta", "shots"], sort=False):
            coverage, error = group["coverage"].mean(), group["coverage"].sem()
            print(f"{kind:<10}{shots:>7}{coverage:>10.3f}{error:>8.3f}{group['nll'].mean():>8.3f}", flush=True)
        best = table[table["theta"] == table["theta"].iloc[-1]]
        per_subject = best.groupby("subject")["coverage"].mean()
        off = (best.groupby("shots")["coverage"].mean() - 0.9).abs() / best.groupby("shots")["coverage"].sem()
        conclusions.append(
            f"{name}: 90 % intervals cover {per_subject.mean():.3f} ± {per_subject.sem():.3f}, at each number of "
            f"points within {off.max():.1f} standard errors of .9"
        )
        if figure is not None:
            arguments.figures.mkdir(parents=True, exist_ok=True)
            figure.tight_layout()
            figure.savefig(arguments.figures / f"{name}.png", dpi=120)
    verdict("; ".join(conclusions) if conclusions else "see above", SEED)


if __name__ == "__main__":
    main()
