"""What each method looks like: a small one, trained for some seconds, drawn beside what is exact.

python -m docs.tools.learner_figures alpaca r2d2     # docs/figures/methods/alpaca.svg and r2d2.svg
python -m docs.tools.learner_figures                 # all

A row of `FIGURES` is a figure: how the learner is made and trained, and what is drawn of it. Learners of numbers are
drawn as bands around a function as points of it are seen, learners of classes as maps of the plane. Nothing is random
but by seeds, and one thread computes it, so that a figure is the same on the same machine.
"""

import argparse
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import bayesmeta as bm
from bayesmeta.kernels import ConstantKernel, LinearKernel, RBFKernel, SumKernel
from bayesmeta.plotting.style import BLUE, GREEN, GREY, ORANGE, VERMILLION
from bayesmeta.tasks.source import TaskSource
from benchmarks import bandits as bandits_benchmark
from benchmarks import noise_of_each_task
from docs.tools import svg_figures
from docs.tools.the_field import DOCS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FOLDER = DOCS / "figures" / "methods"
WAVES = bm.tasks.Sinusoid.maml(noise=0.1)
SMOOTH = bm.tasks.GPFunctions.eq()
BLOBS = bm.tasks.GaussianBlobs(ways=3, dimension=2, spread=2.0, noise=0.8)
COLOURS = (BLUE, ORANGE, GREEN)
SHOTS = (0, 1, 3, 5)
FEW = bm.tasks.RandomSplit((0, 10), 15)
EXAMPLES = bm.tasks.ClassSplit((1, 10), 10)


def fitted(learner: bm.Learner, tasks: TaskSource, steps: int, **arguments: object) -> bm.Learner:
    """The learner, trained: on supports of few points unless a split says otherwise."""
    settings = {"split": FEW, "lr": 3e-3, "progress": False} | arguments
    bm.fit(learner, tasks, steps, **settings)  # type: ignore[arg-type]
    return learner


def classifying(learner: bm.Learner, steps: int, **arguments: object) -> bm.Learner:
    """The learner, trained on blobs."""
    return fitted(learner, BLOBS, steps, **{"split": EXAMPLES} | arguments)


def mlp(*sizes: int, inputs: int = 1) -> bm.MLP:
    """The network that most figures have."""
    return bm.MLP(inputs, list(sizes or (40, 40)))


def bands(learner: bm.Learner, simulator: bm.tasks.Simulator, seed: int = 7, limit: float = 6.0) -> "Figure":
    """A function at 0, 1, 3 and 5 points, beside the exact Bayes predictive where there is one."""
    task = simulator.dataset(1, 25, seed=seed).task(0)
    return band_panels(learner, task, oracle=getattr(simulator, "oracle", None), limit=limit)


def band_panels(
    learner: bm.Learner,
    task: bm.Data,
    shots: Sequence[int] = SHOTS,
    *,
    oracle: bm.Learner | None = None,
    limit: float | None = None,
    x_label: str = "x",
    y_label: str = "y",
    along: int | None = None,
) -> "Figure":
    """Panels two by two, with one legend."""
    panels = grid(2, 2, (6.0, 4.6))
    figure = bm.plotting.predictive_bands(
        learner, task, shots, oracle=oracle, along=along, num_points=61, axes=panels, x_label=x_label, y_label=y_label
    )
    for number, ax in enumerate(panels):
        ax.set_xlabel(x_label if number > 1 else "")
        ax.set_ylabel(y_label if number % 2 == 0 else "")
        if limit is not None:
            ax.set_ylim(-limit, limit)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def maps(learner: bm.Learner, seed: int = 5) -> "Figure":
    """The plane after one and five examples of each of three classes, beside the Bayes classifier."""
    task = BLOBS.episodes(1, per_class=5, seed=seed).task(0)
    panels = grid(2, 2, (6.0, 5.4))
    order = [label * 5 + shot for shot in range(5) for label in range(3)]
    points = bm.Data.full(task.x[:, order], task.y[:, order])
    for column, shots in enumerate((1, 5)):
        support = points.points(slice(3 * shots))
        for row, (who, name) in enumerate(((learner, type(learner).__name__), (BLOBS.oracle, "Bayes classifier"))):
            ax = panels[2 * row + column]
            draw_map(ax, who, support)
            ax.set_title(f"{name}, {shots} {'example' if shots == 1 else 'examples'} a class", fontsize=9)
    return panels[0].figure  # type: ignore[return-value]


def draw_map(ax: "Axes", learner: bm.Learner, support: bm.Data, reach: float = 5.0) -> None:
    """Where each class has more than half, 80 % and 95 % of the probability, and the examples."""
    along = torch.linspace(-reach, reach, 41)
    places = torch.cartesian_prod(along, along)
    shares = learner.adapt(support).predict(places[None]).probs[0].detach().numpy()  # type: ignore[attr-defined]
    for label, colour in enumerate(COLOURS):
        share = shares[:, label].reshape(41, 41).T
        for level in (0.5, 0.8, 0.95):  # darker where it is surer
            if share.max() > level:
                ax.contourf(along, along, share, levels=[level, 1.001], colors=[colour], alpha=0.28)
        here = support.x[0, support.y[0] == label]
        ax.plot(here[:, 0], here[:, 1], "o", color=colour, markeredgecolor="black", markersize=6)
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach), xticks=[-4, 0, 4], yticks=[-4, 0, 4], aspect="equal")


def grid(rows: int, columns: int, size: tuple[float, float], share: bool = True) -> "list[Axes]":
    """Panels of a new figure, row by row."""
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(rows, columns, figsize=size, sharex=share, sharey=share, squeeze=False, layout="constrained")
    return list(axes.flat)


@dataclass(frozen=True)
class Row:
    """A figure.

    Attributes:
        make: the learner, trained; or what else is drawn.
        draw: the figure of it.
    """

    make: Callable[[], Any]
    draw: Callable[[Any], "Figure"]


def waves(make: Callable[[], bm.Learner], steps: int, **arguments: object) -> Row:
    """Of a learner that is trained on sinusoids."""
    return Row(lambda: fitted(make(), WAVES, steps, **arguments), lambda learner: bands(learner, WAVES))


def smooth(make: Callable[[], bm.Learner], steps: int, **arguments: object) -> Row:
    """Of a learner that is trained on draws of a Gaussian process."""
    return Row(
        lambda: fitted(make(), SMOOTH, steps, **arguments), lambda learner: bands(learner, SMOOTH, seed=1, limit=3.5)
    )


def blobs(make: Callable[[], bm.Learner], steps: int, **arguments: object) -> Row:
    """Of a learner that is trained on three classes in the plane."""
    return Row(lambda: classifying(make(), steps, **arguments), maps)


def curves(learner: bm.Learner) -> "Figure":
    """Draws of whole functions: by points on their own, one after the other, and of the exact process."""
    x = torch.linspace(-1.0, 1.0, 33)
    drawn = SMOOTH.dataset(1, 20, seed=6).task(0)
    data = drawn.points(drawn.x[0, :, 0].abs() < 1.0).points(slice(4))
    panels = grid(1, 3, (6.6, 2.6))
    pointwise, chained = learner.learner.adapt(data), learner.adapt(data)  # type: ignore[union-attr, operator]
    rows = {"each point on its own": pointwise, "one after the other": chained, "exact": SMOOTH.oracle.adapt(data)}
    for ax, (title, posterior) in zip(panels, rows.items(), strict=True):
        torch.manual_seed(1)
        draws = posterior.predict(x).sample((4,))[:, 0, :, 0]
        for draw, colour in zip(draws, (*COLOURS, GREY), strict=True):
            ax.plot(x, draw.detach(), color=colour, linewidth=1.1)
        ax.plot(data.x[0, :, 0], data.y[0, :, 0], "o", color="black", markersize=5)
        ax.set_title(title, fontsize=9)
        ax.set(xlabel="x", ylim=(-3.5, 3.5))
    panels[0].set_ylabel("y")
    return panels[0].figure  # type: ignore[return-value]


def noises(learner: bm.Learner) -> "Figure":
    """A quiet and a loud task of ten points: with one noise for all tasks, and with a noise of each task's own."""
    train, _ = noise_of_each_task.tasks(40, 20, 0)
    one = noise_of_each_task.process()
    bm.fit_evidence(one, bm.TaskDataset(train), tolerance=1e-6)
    tasks, _ = noise_of_each_task.tasks(2, 40, 3)
    panels = grid(2, 2, (6.0, 4.6))
    for row, (who, name) in enumerate(((one, "one noise for all"), (learner, "a noise of its own"))):
        for column, kind in enumerate(("quiet task", "loud task")):
            ax = panels[2 * row + column]
            bm.plotting.predictive_bands(who, tasks.select([column]), (10,), num_points=61, axes=[ax])
            ax.set_title(f"{kind}, {name}", fontsize=9)
            ax.set(xlabel="x" if row else "", ylabel="" if column else "y", ylim=(-4, 4))
    handles, labels = panels[0].get_legend_handles_labels()
    panels[0].figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    return panels[0].figure  # type: ignore[return-value]


def seedlings(make: Callable[[], bm.Learner], **columns: object) -> Row:
    """Of a learner that is fitted to the table of seedlings, on a plant that it was not fitted to."""
    frame = bm.tasks.example_table()
    settings: dict[str, object] = {"task": "plant", "x": ["day"], "y": ["height_cm"]} | columns
    train, test = bm.TaskDataset.from_frame(frame, **settings).split(test=0.25, seed=0)  # type: ignore[arg-type]

    def fit() -> bm.Learner:
        learner = make()
        bm.fit_evidence(learner, train)
        return learner

    def draw(learner: bm.Learner) -> "Figure":
        return band_panels(learner, test.task(test.names[0]), along=0, x_label="day", y_label="height in cm")

    return Row(fit, draw)


def few_waves() -> bm.Learner:
    """Two levels of processes on twenty tasks of five points."""
    train, _ = bm.tasks.metal_benchmark("sinusoid_easy", context=5)
    own = SumKernel([ConstantKernel(0.1), LinearKernel(0.1), RBFKernel(lengthscale=1.0, variance=0.1)])
    learner = bm.Standardized(bm.HierarchicalProcess(bm.networks.Inputs(1), own_kernel=own)).double()
    bm.fit_evidence(learner, train)
    return learner


def few_waves_drawn(learner: bm.Learner) -> "Figure":
    """A further task of theirs."""
    _, test = bm.tasks.metal_benchmark("sinusoid_easy", context=5)
    return band_panels(learner, test.task(0).points(slice(25)))


def chained() -> bm.Learner:
    """A convolutional process, drawn from point by point."""
    learner = bm.ConvCNP(points_per_unit=16.0, channels=32)
    fitted(learner, SMOOTH, 500, split=bm.tasks.RandomSplit((0, 30), 30))
    return bm.wrappers.Autoregressive(learner, bm.wrappers.Random(1))


def own_noises() -> bm.Learner:
    """A process whose tasks have noises of their own."""
    train, _ = noise_of_each_task.tasks(40, 20, 0)
    learner = bm.wrappers.TaskQuadrature(noise_of_each_task.process(), bm.wrappers.NoiseScale(), nodes=15)
    bm.fit_evidence(learner, bm.TaskDataset(train), tolerance=1e-6)
    return learner


def mixture() -> bm.Learner:
    """ALPaCA, its prior split in four, and trained on."""
    alpaca = bm.ALPaCA(mlp(32, 32, 16))
    fitted(alpaca, WAVES, 800, objective=EVIDENCE, lr=5e-3)
    learner = bm.MixtureALPaCA.split_prior(alpaca.features, alpaca.prior, num_components=4)
    return fitted(learner, WAVES, 500, objective=EVIDENCE)


def with_base_classes() -> bm.Learner:
    """Prototypes on features that a discriminator of twelve classes helps to shape."""
    generator = torch.Generator().manual_seed(0)
    centres = 2.0 * torch.randn(12, 2, generator=generator)
    labels = torch.arange(12).repeat(20)
    points = bm.tasks.BasePoints.from_labels(centres[labels] + 0.8 * torch.randn(240, 2, generator=generator), labels)
    inner = bm.Prototypical(mlp(inputs=2))
    return classifying(bm.wrappers.ConceptLearner(inner, points, weight=0.5, batch_size=32), 400)


def binary(num_tasks: int, seed: int) -> tuple[bm.Data, torch.Tensor]:
    """Tasks of sixteen yes or no by time, with levels and slopes of their own; and their logits at 41 times."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.tensor([-1.0, 2.0]) + torch.randn(num_tasks, 2, generator=generator) * torch.tensor([2.0, 1.0])
    x = torch.rand(num_tasks, 16, 1, generator=generator) * 4.0 - 2.0
    chance = (weights[:, None, :1] + weights[:, None, 1:] * x).sigmoid()
    labels = (torch.rand(chance.shape, generator=generator) < chance)[..., 0].long()
    along = torch.linspace(-2.0, 2.0, 41)
    return bm.Data.full(x.double(), labels), weights[:, :1] + weights[:, 1:] * along


def logistic() -> bm.Learner:
    """A mixed logistic model of such tasks."""
    learner = bm.learners.GeneralizedLinearMixedModel(bm.Identity(1), likelihood=bm.likelihoods.Bernoulli()).double()
    bm.fit_evidence(learner, bm.TaskDataset(binary(80, 0)[0]))
    return learner


def chances(learner: bm.Learner) -> "Figure":
    """The chance of a yes in a new task, as yes and no are seen."""
    data, logits = binary(1, 7)
    along = torch.linspace(-2.0, 2.0, 41, dtype=torch.float64)
    panels = grid(2, 2, (6.0, 4.6))
    for number, (ax, shots) in enumerate(zip(panels, (0, 2, 6, 16), strict=True)):
        posterior = learner.adapt(data.points(slice(shots)))
        torch.manual_seed(0)
        draws = learner(posterior.sample(400), along[None, :, None]).sigmoid()[:, 0, :, 0].detach()
        for low, high, alpha in ((0.05, 0.95, 0.2), (0.25, 0.75, 0.35)):
            band = [draws.quantile(level, 0) for level in (low, high)]
            label = f"{round(100 * (high - low))} % band of the chance"
            ax.fill_between(along, *band, color=BLUE, alpha=alpha, linewidth=0, label=label)
        shares = posterior.predict(along[None, :, None]).probs[0, :, 1].detach()  # type: ignore[attr-defined]
        ax.plot(along, shares, color=BLUE, linewidth=1.8, label="predicted")
        ax.plot(along, logits[0].sigmoid(), color=VERMILLION, linewidth=1.2, linestyle="--", label="true chance")
        ax.plot(data.x[0, :shots, 0], data.y[0, :shots], "o", color="black", markersize=5, label="seen")
        ax.set_title(f"{shots} points", fontsize=10)
        ax.set(xlabel="time" if number > 1 else "", ylabel="" if number % 2 else "chance of yes")
    handles, labels = panels[0].get_legend_handles_labels()
    panels[0].figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return panels[0].figure  # type: ignore[return-value]


def searched() -> bm.training.SearchResult:
    """A short search for the network of a MAML."""
    search = bm.training.ArchitectureSearch(
        bm.training.DenseSpace(1, depths=(1, 2), widths=(10, 40), norms=(None,), activations=("relu", "tanh")),
        lambda network: bm.MAML(network, steps=2, lr=0.02),
        bm.training.Steps((20, 80, 240)),
        candidates=4,
        lr=0.01,
    )
    validation = WAVES.dataset(100, 20, seed=1)
    with tempfile.TemporaryDirectory() as folder:
        return search.run(WAVES, validation, Path(folder) / "trials.jsonl")


def trials(result: bm.training.SearchResult) -> "Figure":
    """Every trial: what its network scores on validation tasks, by its parameters and its budget."""
    table = result.table()
    panels = grid(1, 1, (6.0, 3.4))
    for steps, colour, marker in zip(sorted(table.steps.unique()), COLOURS, "os^", strict=True):
        rows = table[table.steps == steps]
        panels[0].errorbar(
            rows.parameters, rows.score, yerr=rows.error, fmt=marker, color=colour, markersize=5, label=f"{steps} steps"
        )
    panels[0].set(xscale="log", xlabel="parameters of the network", ylabel="log density, nats a point")
    panels[0].set_yscale("symlog", linthresh=1.0)
    panels[0].legend(frameon=False)
    return panels[0].figure  # type: ignore[return-value]


def played() -> dict[str, bm.tasks.Play]:
    """Policies of linear bandits, one of which has learned its prior from other bandits."""
    bandits = bandits_benchmark.family()
    learner = bm.ALPaCA(bm.Identity(5))
    bm.fit_evidence(learner, bandits.dataset(200, 30))
    nothing = bandits.nothing(500)
    policies = {
        "random arms": bm.tasks.RandomArms(),
        "Thompson, untrained prior": bm.tasks.Thompson(bm.ALPaCA(bm.Identity(5)).adapt(nothing)),
        "Thompson, learned prior": bm.tasks.Thompson(learner.adapt(nothing)),
        "Thompson, true prior": bm.tasks.Thompson(bandits.oracle.adapt(nothing)),
    }
    return {name: bm.tasks.play(bandits, policy, num_bandits=500, steps=100) for name, policy in policies.items()}


def regrets(plays: dict[str, bm.tasks.Play]) -> "Figure":
    """What each policy has lost by each step."""
    panels = grid(1, 1, (6.0, 3.4))
    for (name, play), colour in zip(plays.items(), (GREY, *COLOURS), strict=True):
        lost = play.regret_by_step.cumsum(1).mean(0)
        panels[0].plot(range(1, 101), lost, color=colour, label=name, linestyle="--" if "true" in name else "-")
    panels[0].set(xlabel="step", ylabel="regret so far", ylim=(0, 45))
    panels[0].legend(frameon=False)
    return panels[0].figure  # type: ignore[return-value]


EVIDENCE = bm.training.Evidence()
TARGETS = bm.tasks.RandomSplit((0, 15), 20)
FIGURES: dict[str, Row] = {
    # solved exactly
    "alpaca": waves(lambda: bm.ALPaCA(mlp(64, 64)), 1500, objective=EVIDENCE),
    "mixture_alpaca": Row(mixture, lambda learner: bands(learner, WAVES)),
    "mixed_effects": seedlings(
        lambda: bm.learners.MixedEffects(bm.Polynomial(1, 2), [3]).double(), task=["cultivar", "plant"]
    ),
    "r2d2_regressor": waves(lambda: bm.R2D2Regressor(mlp(64, 64)), 1500),
    "r2d2": blobs(lambda: bm.R2D2(mlp(inputs=2), num_classes=3), 500),
    "lrd2": blobs(lambda: bm.LRD2(mlp(inputs=2), num_classes=3), 300),
    "metaoptnet": blobs(lambda: bm.MetaOptNet(mlp(inputs=2), num_classes=3), 200),
    "deep_kernel": waves(lambda: bm.DeepKernelTransfer(mlp(), kernel=RBFKernel()), 800, lr=1e-2),
    "deep_kernel_classifier": blobs(
        lambda: bm.DeepKernelClassifier(
            mlp(inputs=2), num_classes=3, head=bm.heads.GaussianProcessHead(40, kernel=RBFKernel())
        ),
        300,
    ),
    "hierarchical_process": Row(few_waves, few_waves_drawn),
    # by gradient steps
    "maml": waves(lambda: bm.MAML(mlp(), steps=5, lr=0.01), 1200),
    "meta_sgd": waves(lambda: bm.MetaSGD(mlp(), steps=3, lr=0.01), 900),
    "maml_plus_plus": waves(lambda: bm.MAMLPlusPlus(mlp(), steps=3, lr=0.01), 900),
    "alpha_maml": waves(lambda: bm.AlphaMAML(mlp(), steps=3, lr=0.01), 900),
    "imaml": waves(
        lambda: bm.IMAML(mlp(), precision=100.0, prior=bm.priors.FactoredGaussian, solver=bm.inference.GaussNewton(2)),
        500,
    ),
    "llama": waves(lambda: bm.LLAMA(mlp(16, 16), precision=10.0), 60, batch_size=4, lr=1e-2),
    "cavia": waves(lambda: bm.CAVIA(mlp(), num_context=4, steps=2), 1200),
    "bmaml": waves(lambda: bm.BMAML(mlp(20, 20), num_particles=5, steps=3, lr=0.05), 600),
    "fine_tuned": waves(lambda: bm.FineTuned(mlp(), solver=bm.inference.GradientSteps(10, lr=0.02)), 1500),
    "parametric": seedlings(
        lambda: bm.Parametric(
            bm.parametric.LogisticGrowth(),
            {
                "Asym": bm.parametric.Positive(20.0, stddev=0.3),
                "xmid": bm.parametric.Real(15.0, stddev=3.0),
                "scal": bm.parametric.Positive(4.0, stddev=0.3),
            },
        ).double()
    ),
    "generalized_linear": Row(logistic, chances),
    # by comparison
    "prototypical": blobs(lambda: bm.Prototypical(bm.networks.Inputs(2), num_classes=3), 400, lr=1e-2),
    "matching": blobs(lambda: bm.Matching(mlp(inputs=2), num_classes=3), 600),
    "siamese": blobs(lambda: bm.Siamese(mlp(inputs=2), num_classes=3), 600, objective=bm.training.MarginalPredictive()),
    "relation": blobs(lambda: bm.Relation(mlp(inputs=2), num_classes=3), 600),
    "infinite_mixture_prototypes": blobs(
        lambda: bm.InfiniteMixturePrototypes(bm.networks.Inputs(2), num_classes=3), 200, lr=1e-2
    ),
    "graph": blobs(
        lambda: bm.GraphNetwork(mlp(inputs=2), num_classes=3), 250, split=bm.tasks.ClassSplit((1, 5), 3), batch_size=4
    ),
    # by one pass of a network
    "conditional_neural_process": waves(
        lambda: bm.ConditionalNeuralProcess(bm.Identity(1), width=64), 2000, split=TARGETS
    ),
    "latent_neural_process": waves(
        lambda: bm.LatentNeuralProcess(bm.Identity(1), aggregation=bm.learners.BayesianPool(32), num_draws=8, width=64),
        1200,
        split=TARGETS,
    ),
    "conv_cnp": smooth(lambda: bm.ConvCNP(points_per_unit=16.0, channels=32), 500, split=TARGETS),
    "transformer_neural_process": smooth(
        lambda: bm.TransformerNeuralProcess(
            bm.Identity(1), relative=bm.learners.RelativeBias(reach=4.0), width=32, layers=3, num_heads=4
        ),
        600,
        split=TARGETS,
    ),
    "snail": waves(lambda: bm.SNAIL(mlp(32, 32), max_points=10), 600),
    "mann": waves(lambda: bm.MANN(mlp(32, 32), memory=bm.networks.LSTMMemory(64)), 500, objective=EVIDENCE),
    "meta_networks": waves(lambda: bm.MetaNetworks(mlp(32, 32), width=32), 600),
    # around a learner
    "autoregressive": Row(chained, curves),
    "task_quadrature": Row(own_noises, noises),
    "concept": Row(with_base_classes, maps),
    "architecture_search": Row(searched, trials),
    "bandits": Row(played, regrets),
}


def round_coordinates(path: Path) -> None:
    """Lines of a file with one decimal of a point, which is less than can be seen."""

    def short(line: re.Match[str]) -> str:
        return re.sub(r"-?\d+\.\d{2,}", lambda number: f"{float(number[0]):.1f}", line[0])

    path.write_text(re.sub(r' d="[^"]*"', short, path.read_text()))


def write(name: str) -> float:
    """Train, draw and write one figure; the seconds that it took."""
    torch.manual_seed(0)
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bm.ConvergenceWarning)  # trainings are short
        figure = FIGURES[name].draw(FIGURES[name].make())
    svg_figures.save(figure, FOLDER / f"{name}.svg")
    round_coordinates(FOLDER / f"{name}.svg")
    return time.process_time() - start


def main() -> None:
    """Write the figures that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *FIGURES], help="of figures; by default all")
    names = parser.parse_args().names or list(FIGURES)
    torch.set_num_threads(1)
    for name in names:
        print(f"{name}: {write(name):.0f} s, {(FOLDER / f'{name}.svg').stat().st_size / 1024:.0f} KB", flush=True)


if __name__ == "__main__":
    main()
