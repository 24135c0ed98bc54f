"""Classifiers by heads and by comparison are accurate and calibrated on Omniglot, with no recalibration afterwards.

Conv4-64 on 28 x 28 images; 25 of Lake's background alphabets to train on, each character also turned by 90, 180 and 270
degrees as a class of its own, 5 alphabets kept out: this is harder than 1,200 random characters of all alphabets, which
published figures have. Every learner is trained for a budget of processor seconds of one thread on 20-way episodes of 1
to 5 shots, half of them with 1 to 10 shots by class, and scored on episodes of random kept-out characters: 15 query
images of each class at 5 ways and 5 at 20; accuracy with 95 % interval, NLL, Brier, ECE of 15 bins; the same where
classes have 1 to 10 examples each, next to Snell's softmax of distances with a learned temperature on the same
features; and how well points of none of the classes (5 more characters whose support is left out) are told from the
others, by p(x) where a learner has it and by the largest probability: areas under the ROC curve.

`BAYESMETA_DATA` names the folder that holds `omniglot/`. With `--models` learners are kept in a folder, and training
and scoring can be apart.
"""

import argparse

import torch

import bayesmeta as bm
from benchmarks._omniglot import METRIC, RECIPES, alphabets, train
from benchmarks._report import verdict
from benchmarks._training import keep_memory, trained

# accuracy of 5-way 1-shot, 5-way 5-shot, 20-way 1-shot, 20-way 5-shot, %: other splits (1,200 characters to train on)
PUBLISHED = {
    "MAML (Finn et al. 2017)": (98.7, 99.9, 95.8, 98.9),
    "matching (Vinyals et al. 2016)": (98.1, 98.9, 93.8, 98.5),
    "prototypical (Snell et al. 2017)": (98.8, 99.7, 96.0, 98.9),
    "relation (Sung et al. 2018)": (99.6, 99.8, 97.6, 99.1),
    "graph (Garcia & Bruna 2018)": (99.2, 99.7, 97.4, 99.0),
    "siamese (in Vinyals et al. 2016)": (97.3, 98.4, 88.2, 97.0),
    "SNAIL (Mishra et al. 2018)": (99.07, 99.78, 97.64, 99.36),
}
SETTINGS = ((5, 1), (5, 5), (20, 1), (20, 5))
BARS = {  # accuracy in the four settings, %; after the budget of the recipe
    "Prototypical": (97.5, 99.2, 91.5, 97.3),
    "Matching": (97.0, 99.0, 89.0, 96.5),
    "Relation": (97.0,),
    "Siamese": (96.0,),
    "Graph": (97.0,),
}
LONG, LONG_BARS = 1_500.0, (98.1, 99.5, 93.2, 98.0)  # of prototypical networks, from so many seconds on
ECE_BAR, UNEQUAL_BAR, AUROC_BARS = 0.01, 0.85, (0.92, 0.08)


def unequal_tasks(images: bm.tasks.ImageClasses, ways: int, num_tasks: int) -> bm.TaskBatch:
    """Episodes in which each class has its own number of examples, 1 to 10."""
    tasks = bm.tasks.Episodes(images, ways=ways).dataset(num_tasks, 15, seed=2)
    return tasks.divided(bm.tasks.ClassSplit((1, 10), 5, unequal=1.0), seed=0)


def unequal_scores(learner: bm.Learner, batch: bm.TaskBatch) -> tuple[float, float, str]:
    """Accuracy and NLL; and accuracy of the classes of few examples, and of many."""
    right, nats, shown = [], [], []
    for index in torch.arange(batch.num_tasks).split(4):
        support, query = batch.support.select(index.tolist()), batch.query.select(index.tolist())
        probs = learner.adapt(support).predict(query.x).probs
        counts = bm.heads.Examples.of(support.x.flatten(2)[..., :0], support.y, support.mask, None).counts
        right.append((probs.argmax(-1) == query.y).double().flatten())
        nats.append(-probs.gather(-1, query.y[..., None]).log().flatten())
        shown.append(counts.gather(-1, query.y).flatten())
    ok, counts = torch.cat(right), torch.cat(shown)
    few, many = (100 * ok[chosen].mean() for chosen in (counts <= 2, counts >= 8))
    nll = torch.cat(nats).double().mean().item()
    return ok.mean().item(), nll, f"1-2 shots {few:.1f} %, 8-10 shots {many:.1f} %"


def snell_nll(learner: bm.heads.FeatureClassifier, fitted_on: bm.TaskBatch, batch: bm.TaskBatch) -> float:
    """NLL of softmax(-t |h - mean_c|²) on the same features, with the t that is best on training classes."""

    def distances(tasks: bm.TaskBatch) -> tuple[torch.Tensor, torch.Tensor]:
        found = []
        for index in torch.arange(tasks.num_tasks).split(4):
            support, query = (learner.conform(side.select(index.tolist())) for side in (tasks.support, tasks.query))
            with torch.no_grad():
                examples = bm.heads.Examples.of(learner.rows(support.x), support.y, support.mask, None)
                mean = examples.targets.mT @ examples.rows / examples.counts[..., None]
                found.append(torch.cdist(learner.rows(query.x), mean.to(examples.rows.dtype)).square().double())
        return torch.cat(found), tasks.query.y

    distance, y = distances(fitted_on)
    log_t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_t], max_iter=100, line_search_fn="strong_wolfe")

    def nll(distance: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        log_probs = (-log_t.exp() * distance).log_softmax(-1)
        return -log_probs.gather(-1, y[..., None]).mean()

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = nll(distance, y)
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        return nll(*distances(batch)).item()


def main() -> None:
    """Train, score, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--learner", choices=list(RECIPES), action="append", help="one alone; can be repeated")
    parser.add_argument("--seconds", type=float, help="processor seconds to train; by default those of the bars")
    parser.add_argument("--episodes", type=int, default=600, help="episodes to score on")
    parser.add_argument("--ways", type=int, choices=[5, 20], help="one alone to score at; both by default")
    parser.add_argument("--models", help="a folder of models: those that are there are scored, others are put there")
    parser.add_argument("--train-only", action="store_true", help="train, and leave the scores for another run")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    training, test = alphabets()
    print(
        f"{training.num_classes} characters to train on; kept out: {', '.join(map(str, test.group_names))}", flush=True
    )
    met: list[str] = []
    missed: list[str] = []
    for name in arguments.learner or list(METRIC):
        recipe = RECIPES[name]
        seconds = recipe.seconds if arguments.seconds is None else arguments.seconds
        learner, took = trained(
            f"{name}-{seconds:.0f}",
            lambda recipe=recipe, s=seconds: train(recipe, training.rotated(), s),
            arguments.models,
        )
        print(f"\n{name}: {took}", flush=True)
        if arguments.train_only:
            continue
        print(f"{'ways':>5}{'shots':>6}{'accuracy, %':>18}{'NLL':>18}{'Brier':>8}{'ECE':>8}")
        accuracies, worst = [], 0.0
        for ways, query in ((5, 15), (20, 5)):
            if arguments.ways not in (None, ways):
                continue
            tasks = bm.tasks.Episodes(test, ways=ways).dataset(arguments.episodes, 5 + query, seed=1)
            table = bm.evaluate(learner, tasks, (1, 5), split=bm.tasks.ClassSplit, query=query, batch_size=4).table()
            for shots in (1, 5):
                row = table.loc[shots]
                accuracy = f"{100 * row.accuracy:.2f} ± {50 * (row.accuracy_high - row.accuracy_low):.2f}"
                nll = f"{row.nll:.4f} ± {(row.nll_high - row.nll_low) / 2:.4f}"
                print(f"{ways:>5}{shots:>6}{accuracy:>18}{nll:>18}{row.brier:>8.4f}{row.ece:>8.4f}", flush=True)
                accuracies.append(100 * row.accuracy)
                worst = max(worst, row.ece)
            batch = unequal_tasks(test, ways, arguments.episodes)
            share, nll, few = unequal_scores(learner, batch)
            text = f"{ways:>5}{'1-10':>6}{100 * share:>18.2f}{nll:>18.4f}   {few}"
            if isinstance(learner, bm.heads.FeatureClassifier):
                snell = snell_nll(learner, unequal_tasks(training, ways, 200), batch)
                text += f"; Snell with a temperature on the same features {snell:.4f}, ratio {nll / snell:.2f}"
                if name == "Prototypical":
                    (met if nll <= UNEQUAL_BAR * snell else missed).append(f"unequal {ways}-way {nll / snell:.2f}")
            print(text, flush=True)
        opened = bm.tasks.Episodes(test, ways=10).dataset(arguments.episodes, 1 + 15, seed=3)
        row = (
            bm.evaluate(learner, opened, (1,), split=bm.tasks.ClassSplit, query=15, batch_size=4, unseen=5)
            .table()
            .loc[1]
        )
        density = row.get("none_auroc")
        by = f"by p(x) {density:.3f}, " if density is not None else ""
        print(
            f"    5-way 1-shot, none of these: AUROC {by}by the largest probability {row.max_prob_auroc:.3f}",
            flush=True,
        )
        bars = LONG_BARS if name == "Prototypical" and seconds >= LONG else BARS.get(name, ())
        scored = [setting for setting in zip(SETTINGS, bars, strict=False) if arguments.ways in (None, setting[0][0])]
        for ((ways, shots), bar), accuracy in zip(scored, accuracies, strict=False):
            (met if accuracy >= bar else missed).append(f"{name} {ways}w{shots}s {accuracy:.2f} (bar {bar})")
        if name == "Prototypical":
            (met if worst <= ECE_BAR else missed).append(f"largest ECE {worst:.4f}")
            good = density is not None and density >= AUROC_BARS[0] and density - row.max_prob_auroc >= AUROC_BARS[1]
            (met if good else missed).append(f"AUROC {density:.3f}")
    print("\npublished accuracy, %: 5-way 1-shot, 5-way 5-shot, 20-way 1-shot, 20-way 5-shot")
    for name, figures in PUBLISHED.items():
        print(f"  {name:<34}" + "".join(f"{value:>8.2f}" for value in figures))
    verdict(f"met: {', '.join(met) or 'none'}; missed: {', '.join(missed) or 'none'}", seed=0)


if __name__ == "__main__":
    main()
