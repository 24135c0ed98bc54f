"""On real tables of classes: where a learned prior has a lower log loss than frequencies and a pooled regression.

Reads toenail (294 patients, is the infection moderate or severe?) and respiratory (111 patients, is the status good?)
from the folder that BAYESMETA_DATA names. Tasks are held out by cross-validation over tasks. Compared at every number
of support points, on the same query points: methods of the command line; the frequencies of the classes among the
training rows; those of the task itself, shrunk to the former by a Dirichlet prior whose strength maximises the evidence
of the training tasks; and one logistic regression for all tasks. The default method was chosen on a split of the same
tables (docs/benchmarks/classes_and_images.md), so this is no untouched test of that choice.
"""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

import bayesmeta as bm
from bayesmeta.evaluation.bootstrap import resampled
from bayesmeta.recipes import recipe, recipes
from bayesmeta.trainers import Training
from benchmarks._report import verdict

# inputs, covariates, shots
TABLES = {
    "toenail": (["time"], ["treatment"], (0, 1, 2, 3, 5)),
    "respiratory": (["visit"], ["center", "treat", "sex", "age", "baseline"], (0, 1, 2, 3)),
}
METHODS = ("maml", "cavia", "r2d2")
FOLDS, STEPS = 4, 2_000
DEFAULT = next(iter(recipes(bm.Labels(2))))


@dataclass(frozen=True, eq=False, kw_only=True)
class Probabilities(bm.TaskPosterior):
    """Class probabilities by a linear function of the inputs, plus what the counts of the task add to its logits."""

    weights: Tensor
    offset: Tensor

    def at(self, x: Tensor) -> bm.Predictive:
        """The softmax."""
        rows = torch.cat([torch.ones_like(x[..., :1]), x], -1)
        logits = rows @ self.weights + self.offset[:, None]
        return bm.predictives.IndependentPredictive(torch.distributions.Categorical(logits=logits))

    def extended(self, data: bm.Data) -> bm.TaskPosterior:
        """Not asked for here."""
        raise bm.UnsupportedError("baselines are not updated")


class Baseline(bm.Learner):
    """The same logits for all tasks; with a strength, the counts of the support update the frequencies."""

    def __init__(self, weights: Tensor, strength: float | None = None) -> None:
        super().__init__()
        self.register_buffer("weights", weights)
        self.strength, self.x_shape, self.outcomes = strength, (len(weights) - 1,), bm.Labels(weights.shape[1])

    def condition(self, support: bm.Data) -> Probabilities:
        """What is known of each task."""
        offset = torch.zeros(support.num_tasks, self.weights.shape[1], dtype=self.weights.dtype)
        if self.strength is not None:
            prior = self.strength * self.weights[0].softmax(-1)
            offset = torch.log1p(_counts(support, len(prior)) / prior)
        return Probabilities(spec=support.spec, weights=self.weights, offset=offset)


def _counts(data: bm.Data, num_classes: int) -> Tensor:
    vectors = torch.nn.functional.one_hot(torch.where(data.mask, data.y, 0), num_classes).double()
    return (vectors * data.mask[..., None]).sum(1)


def frequencies(train: bm.TaskDataset, num_classes: int) -> Baseline:
    """Of all rows."""
    weights = torch.zeros(train.flat.x.shape[1] + 1, num_classes, dtype=torch.float64)
    weights[0] = torch.bincount(train.flat.y, minlength=num_classes).double().log()
    return Baseline(weights)


def own_frequencies(train: bm.TaskDataset, num_classes: int) -> Baseline:
    """Of the task, shrunk: the Dirichlet-multinomial of highest evidence, by its strength alone."""
    common, counts = frequencies(train, num_classes), _counts(train.data, num_classes)

    def evidence(strength: float) -> float:
        prior = strength * common.weights[0].softmax(-1)
        terms = torch.lgamma(counts + prior).sum(-1) - torch.lgamma(prior).sum()
        total = torch.lgamma(torch.tensor(strength)) - torch.lgamma(counts.sum(-1) + strength)
        return float((terms + total).sum())

    return Baseline(common.weights, max(np.geomspace(1e-2, 1e3, 101).tolist(), key=evidence))


def pooled(train: bm.TaskDataset, num_classes: int) -> Baseline:
    """One logistic regression for all tasks, by maximum likelihood (with a variance of 100 for a weight)."""
    x, y = train.flat.x, train.flat.y
    shift, scale = x.mean(0), x.std(0)
    rows = torch.cat([torch.ones_like(x[:, :1]), (x - shift) / scale], 1)
    weights = torch.zeros(rows.shape[1], num_classes, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = torch.nn.functional.cross_entropy(rows @ weights, y, reduction="sum") + weights.square().sum() / 200.0
        value.backward()
        return value

    optimiser.step(loss)
    fitted = weights.detach().clone()
    fitted[1:] /= scale[:, None]
    fitted[0] -= shift @ fitted[1:]
    return Baseline(fitted)


BASELINES = {"frequencies": frequencies, "own frequencies": own_frequencies, "pooled logistic": pooled}


def compare(name: str, folder: Path) -> list[str]:
    """Print the comparison of one table; returns where a baseline is clearly not beaten by the default."""
    x, covariates, shots = TABLES[name]
    frame = pd.read_csv(folder / name / f"{name}.csv")
    tasks = bm.TaskDataset.from_frame(frame, task="task", x=x, covariates=covariates, y="outcome", outcomes=bm.Labels())
    classes = len(tasks.schema.classes)
    order = torch.randperm(len(tasks), generator=torch.Generator().manual_seed(0)).tolist()
    parts: dict[str, list[pd.DataFrame]] = {}
    errors: dict[tuple[str, int], list[float]] = {}
    for fold in range(FOLDS):
        held_out = sorted(order[fold::FOLDS])
        train, test = tasks.select(sorted(set(order) - set(held_out))), tasks.select(held_out)
        learners: dict[str, bm.Learner] = {label: make(train, classes) for label, make in BASELINES.items()}
        for method in METHODS:
            torch.manual_seed(0)
            chosen = recipe(method, bm.Labels(classes))
            learners[method] = chosen.for_table(tasks.schema, len(train))
            chosen.train(learners[method], train, Training(steps=STEPS, progress=False))
        for label, learner in learners.items():
            evaluation = bm.evaluate(learner, test, shots, num_bootstrap=0)
            parts.setdefault(label, []).append(evaluation.per_task())
            for shot, row in evaluation.table().iterrows():
                errors.setdefault((label, int(shot)), []).append(row["ece"])
    scores = {label: pd.concat(each) for label, each in parts.items()}
    print(f"\n{name}: {tasks!r}, {FOLDS} folds, classes {', '.join(tasks.schema.classes)}")
    heads = f"{'shots':>5} {'tasks':>6}  {'method':<16}{'log loss':>9}{'default less by (95 %)':>26}"
    print(f"{heads}{'Brier':>8}{'right':>7}{'ECE':>7}")
    worse = []
    for shot in shots:
        at = {label: each[each["shots"] == shot].set_index("task") for label, each in scores.items()}
        for label, each in at.items():
            gain = (each["nll"] - at[DEFAULT]["nll"].reindex(each.index)).to_numpy()
            draws = np.concatenate([w @ gain / len(gain) for w in resampled(len(gain), 2_000)])
            low, high = np.quantile(draws, [0.025, 0.975])
            shown = "" if label == DEFAULT else f"{gain.mean():.3f} ({low:.3f} to {high:.3f})"
            right = np.average(each["accuracy"], weights=each["points"])
            ece = np.mean(errors[label, shot])
            start = f"{shot:>5} {len(each):>6}  {label:<16}{each['nll'].mean():>9.3f}{shown:>26}"
            print(f"{start}{each['brier'].mean():>8.3f}{right:>7.2f}{ece:>7.3f}")
            if label in BASELINES and low <= 0.0:
                worse.append(f"{name} at {shot} ({label})")
    return worse


def main() -> None:
    """Compare on both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("BAYESMETA_DATA"))
    folder = parser.parse_args().data
    if folder is None:
        print("VERDICT: not run; set BAYESMETA_DATA, or pass --data, to the folder of tables")
        return
    torch.set_num_threads(1)
    worse = [place for name in TABLES for place in compare(name, folder)]
    where = "everywhere" if not worse else f"but not clearly at {', '.join(worse)}"
    verdict(f"{DEFAULT} has a lower log loss than every baseline, {where}", seed=0)


if __name__ == "__main__":
    main()
