"""From 5 points on, a task from another family of sinusoids is told from one that was learned from: AUC above 0.9.

Learned from: y = A sin(ω x - b) + ε with A ~ U(1, 2), b ~ U(0, 2π), ω ~ U(.9, 1.1), x ~ U(-5, 5) and noise of deviation
.1. Other families have ω, A or the noise times a factor; the bars are at ω x 2, A x 2.5 and noise x 5. AUC is the
probability that a task of the other family is more surprising (has a smaller p-value) than one of the family. `ceiling`
is that of the likelihood ratio of the two families, each evidence computed by quadrature: it knows both, and no test
can beat it (Neyman & Pearson 1933).

False alarms are counted on tasks of the family, with 40 sets of 199 reference tasks and 100 new tasks for each; the
95 % interval is over the sets. The last part trains on 200 tasks only, and takes the same tasks for reference: those
that the learner was trained on fit it better than new ones do.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

import bayesmeta as bm
from benchmarks._report import verdict

FAMILY = {"amplitude": (1.0, 2.0), "frequency": (0.9, 1.1), "noise": 0.1}
SHOTS = (1, 2, 5, 10)
LEVELS = (0.01, 0.05, 0.1)
FACTORS = {
    "frequency": (0.5, 0.8, 1.2, 1.5, 2.0, 3.0),
    "amplitude": (0.4, 0.7, 1.5, 2.5, 4.0),
    "noise": (0.2, 0.5, 2.0, 3.0, 5.0, 10.0),
}
BARS = {"frequency": 2.0, "amplitude": 2.5, "noise": 5.0}
SETS, REFERENCES, NEW, SHIFTED = 40, 199, 100, 400


def family(**changes: object) -> bm.tasks.Sinusoid:
    """The family, or one with something else about it."""
    return bm.tasks.Sinusoid(phase=(0.0, 2 * math.pi), **{**FAMILY, **changes})


def shifted(what: str, factor: float) -> bm.tasks.Sinusoid:
    """The family with one of its properties times a factor."""
    value = FAMILY[what]
    return family(**{what: factor * value if what == "noise" else tuple(factor * end for end in value)})


def trained(tasks: bm.tasks.TaskSource, steps: int) -> bm.Learner:
    """ALPaCA on a network of two layers of 64."""
    torch.manual_seed(0)
    learner = bm.ALPaCA(bm.MLP(1, [64, 64]), num_outputs=1)
    bm.fit(learner, tasks, steps, lr=3e-3, split=bm.tasks.RandomSplit((0, 10), 20), seed=0, progress=False)
    return learner


def auc(usual: Tensor, other: Tensor) -> float:
    """P(other < usual) of p-values, ties counting half."""
    less, equal = other[:, None] < usual, other[:, None] == usual
    return float((less.double() + 0.5 * equal).mean())


def false_alarms(p_values: Sequence[Tensor]) -> tuple[list[str], Tensor]:
    """The share of p-values up to each level, with a 95 % interval over the sets; and how many standard errors off."""
    levels = torch.tensor(LEVELS, dtype=torch.float64)
    shares = torch.stack([(each[:, None] <= levels + 1e-9).double().mean(0) for each in p_values])
    mean, error = shares.mean(0), shares.std(0) / math.sqrt(len(shares))
    return [f"{m:.4f} ± {1.96 * e:.4f}" for m, e in zip(mean, error, strict=True)], (mean - levels) / error


def ceiling(other: bm.tasks.Sinusoid, shots: int) -> float:
    """AUC of the likelihood ratio between the families, on 200 tasks of each."""
    oracles = [each.oracle for each in (other, family())]
    ratios = []
    for source, seed in ((family(), 50), (other, 51)):
        data = source.simulate(200, shots, torch.Generator().manual_seed(seed)).to(torch.float64)
        first, second = (oracle.log_evidence(data) for oracle in oracles)
        ratios.append(second - first)  # small where the other family is likelier
    return auc(*ratios)


def row(label: str, cells: Sequence[object]) -> None:
    """One line of a table."""
    print(f"{label:<18}" + "".join(f"{cell:>20}" for cell in cells))


def main() -> None:
    """False alarms, AUC by shift and shots, and reference tasks that were trained on."""
    torch.set_num_threads(1)
    learner = trained(family(), 2000)
    pool = family().dataset(SETS * (REFERENCES + NEW), max(SHOTS) + 1, seed=1)
    parts = torch.arange(len(pool)).split(REFERENCES + NEW)
    points = {shot: pool.divided(bm.tasks.RandomSplit.at(shot), seed=3).support for shot in SHOTS}
    fitted = [bm.checks.Surprise.fit(learner, pool.select(part[:REFERENCES].tolist()), SHOTS) for part in parts]
    print("false alarms on tasks of the family, at levels")
    row("shots", LEVELS)
    usual, off = {}, []
    for shot in SHOTS:
        each = [fit.p_value(points[shot].select(part[REFERENCES:])) for fit, part in zip(fitted, parts, strict=True)]
        cells, errors = false_alarms(each)
        row(str(shot), cells)
        off += errors.abs().tolist()
        usual[shot] = fitted[0].p_value(points[shot].select(torch.cat([part[REFERENCES:] for part in parts[:4]])))
    chosen = parts[0][REFERENCES:]
    tail = {shot: learner.surprise(points[shot].select(chosen)) for shot in SHOTS}

    print("\nAUC by number of shots: p-value of Surprise (tail probability under theta alone); share flagged at .05")
    row("family", [*SHOTS, "ceiling at 5"])
    found: dict[tuple[str, float], float] = {}
    for what, factors in FACTORS.items():
        for factor in factors:
            tasks = shifted(what, factor)
            cells: list[str] = []
            for shot in SHOTS:
                data = tasks.simulate(SHIFTED, shot, torch.Generator().manual_seed(4))
                p_value = fitted[0].p_value(data)
                own = auc(tail[shot], learner.surprise(data.select(slice(NEW))))
                area = auc(usual[shot], p_value)
                cells.append(f"{area:.3f} ({own:.3f}) {float((p_value <= 0.05 + 1e-9).double().mean()):.2f}")
                if shot == 5:
                    found[what, factor] = area
            bar = BARS[what] == factor
            row(f"{what} x {factor:g}{' *' if bar else ''}", [*cells, f"{ceiling(tasks, 5):.3f}" if bar else ""])

    few = family().dataset(200, 11, seed=5)
    overfit = trained(few, 2000)
    reference = bm.checks.Surprise.fit(overfit, few, SHOTS)
    print("\nfalse alarms where the reference tasks are the 200 tasks of the training")
    row("shots", LEVELS)
    for shot in SHOTS:
        row(str(shot), false_alarms([reference.p_value(points[shot].select(part)) for part in parts[:10]])[0])

    bars = {what: found[what, factor] for what, factor in BARS.items()}
    areas = ", ".join(f"{what} x {BARS[what]:g} {area:.3f}" for what, area in bars.items())
    ok = "holds" if all(area > 0.9 for area in bars.values()) else "fails"
    inside = sum(error <= 1.96 for error in off)
    verdict(
        f"AUC above 0.9 at 5 shots {ok} ({areas}); {inside} of {len(off)} false alarm rates are within their 95 % "
        f"interval of .01, .05 and .1, and none is further off than {max(off):.1f} standard errors",
        seed=0,
    )


if __name__ == "__main__":
    main()
