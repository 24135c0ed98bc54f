"""Writes the pages "The field on one page" and "The contract cases": `python -m docs.tools.the_field`.

What a method is stands in the docstring of its module, in the lines phi, prior, likelihood and inference; which cases hold
it to the contracts stands in `tests/registry`. `ROWS` adds what neither can say. A new method is a new row, and nothing else:
tests/test_field.py says what a row lacks, and when the pages are out of date.
"""
# ruff: noqa: E501  (a row is a line)

import functools
import importlib
import pkgutil
import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import bayesmeta as bm
import tests.registry
from tests.registry import Case

DOCS = Path(__file__).parent.parent
LINES = ("phi", "prior", "likelihood", "inference")


@dataclass(frozen=True)
class Row:
    """A method, as one line of the table.

    Attributes:
        names: public names below `bayesmeta`, separated by blanks, of classes of one module.
        page: of docs/, where the method is explained.
        cost: of a meta-step for each task.
        figure: what was measured; all numbers in it stand in the section.
        section: of a page of docs/benchmarks, as its heading begins.
        tests: where a method that is no learner, and has no case in the registry, is tested.
    """

    names: str
    page: str
    cost: str
    figure: str
    section: str
    tests: str = ""

    @property
    def values(self) -> list[type]:
        """The classes."""
        return [_public(name) for name in self.names.split()]

    @property
    def lines(self) -> dict[str, str]:
        """What the module's docstring says after phi, prior, likelihood and inference."""
        said = importlib.import_module(self.values[0].__module__).__doc__ or ""
        return dict(re.findall(rf"^    ({'|'.join(LINES)}) +(\S.*)$", said, flags=re.M))


DEMO, SINUSOIDS = "Near the Bayes-optimal predictor", "Gradient-based learners: published sinusoid results"
HEADS, OMNIGLOT = "Heads on Omniglot", "Comparisons on Omniglot"
NEURAL, BELIEVED = (
    "Neural processes on functions of a Gaussian process",
    "Gradient-based learners: can the intervals be believed?",
)
BY_SHOTS, OUTSIDE = "Sinusoids by shots", "Outside the training range"
KINDS = "Outcomes of each kind"
FIDELITY, ALIKE = "How far from NUTS?", "Recalibration on real tables"
ROWS = [
    Row("ALPaCA", "methods/alpaca.md", "1 pass, min(N, F)³", "sinusoids, 10 points: regret 0.0035 ± 0.0015 nats", DEMO),
    Row("MixtureALPaCA", "methods/mixture_alpaca.md", "1 pass, min(N, F)³ for each component", "sinusoids, 1 point: regret 0.036 ± 0.012 nats, ALPaCA 0.179 ± 0.030", DEMO),
    Row("learners.MixedEffects", "methods/mixed_effects.md", "1 pass, min(N, F)³", "rail, 0 points: NLL 4.838, ALPaCA 4.869", "Mixed effects on small tables"),
    Row("R2D2Regressor", "methods/r2d2.md", "1 pass, min(N, F)³", "sinusoids, 5 points: MSE 0.0489 ± 0.1506", "Deep kernels on periodic functions"),
    Row("DeepKernelTransfer", "methods/deep_kernel.md", "1 pass, N³", "sinusoids, 5 points: MSE 0.0154 ± 0.0086", "Deep kernels on periodic functions"),
    Row("HierarchicalProcess", "methods/hierarchical_process.md", "all rows together, cubed; inducing points above 2,000", "Sinusoid-Easy, 5 points: log density 0.711, published best 0.596", "A mean function from 20 tasks"),
    Row("R2D2", "methods/r2d2.md", "1 pass, min(N, F)³", "Omniglot, 5 ways 1 shot: 97.62 ± 0.26 %", HEADS),
    Row("LRD2", "methods/lrd2.md", "1 pass, some ten times C N³", "Omniglot, 5 ways 1 shot: 98.06 ± 0.22 %", HEADS),
    Row("MetaOptNet", "methods/metaoptnet.md", "1 pass, a quadratic program of N C numbers", "Omniglot, 5 ways 1 shot: 97.82 ± 0.24 %", HEADS),
    Row("DeepKernelClassifier", "methods/deep_kernel.md", "1 pass, N³", "Omniglot, 5 ways 1 shot: 97.48 ± 0.26 %", HEADS),
    Row("MAML FirstOrderMAML", "methods/maml.md", "k passes twice over, second order, or once; (NK)³ for the Gaussian", "sinusoids, 5 points, 1 step: MSE 0.643 ± 0.012, published 0.67 ± 0.07", SINUSOIDS),
    Row("MetaSGD", "methods/meta_sgd.md", "as MAML; the Gaussian costs more", "sinusoids, 5 points: MSE 0.790 ± 0.015, published 0.90 ± 0.16", SINUSOIDS),
    Row("MAMLPlusPlus", "methods/maml_plus_plus.md", "as MAML, k losses more", "linear tasks: KL 0.00012 nats from NUTS", FIDELITY),
    Row("AlphaMAML", "methods/alpha_maml.md", "as MAML", "linear tasks: KL 0.00012 nats from NUTS", FIDELITY),
    Row("CAVIA", "methods/cavia.md", "as MAML with small phi", "sinusoids, 10 points, context of 2: MSE 0.217 ± 0.005", SINUSOIDS),
    Row("IMAML", "methods/imaml.md", "the solver's passes without a graph, 10 Hessian products; memory of one pass", "sinusoids, 10 points: MSE 0.148 ± 0.004, MAML of 5 steps 0.205 ± 0.004", SINUSOIDS),
    Row("LLAMA", "methods/llama.md", "damped Gauss-Newton steps without a graph; (NK)³", "sinusoids, 10 points: NLL -0.439 ± 0.016", BELIEVED),
    Row("BMAML", "methods/bmaml.md", "S times MAML, without (NK)³", "sinusoids, 10 points: NLL -0.344 ± 0.017", BELIEVED),
    Row("Parametric", "methods/parametric.md", "Gauss-Newton steps in a few numbers", "theoph: log likelihood -173.24, nlme's -173", "Structural models"),
    Row("learners.GeneralizedLinearMixedModel", "methods/generalized_linear.md", "Newton steps in a few numbers, at each quadrature node", "toenail: log likelihood -625.40, by one node -627.81", KINDS),
    Row("Prototypical", "methods/prototypical.md", "1 pass, M C F", "Omniglot, 5 ways 1 shot: 97.35 ± 0.42 %", OMNIGLOT),
    Row("Matching", "methods/matching.md", "1 pass, M N F, and that of the context", "Omniglot, 5 ways 1 shot: 97.73 ± 0.38 %", OMNIGLOT),
    Row("Siamese", "methods/siamese.md", "1 pass, M N F", "Omniglot, 5 ways 1 shot: 98.47 ± 0.39 %", OMNIGLOT),
    Row("Relation", "methods/relation.md", "1 pass, M C passes of the comparison", "Omniglot, 5 ways 1 shot: 97.29 ± 0.41 %", OMNIGLOT),
    Row("GraphNetwork", "methods/graph.md", "1 pass, M N² pairs in each block", "Omniglot, 5 ways 1 shot: 97.24 ± 0.68 %", OMNIGLOT),
    Row("InfiniteMixturePrototypes", "methods/infinite_mixture_prototypes.md", "1 pass, some rounds of N comparisons", "blobs, 1 shot: regret 0.0046 ± 0.0005 nats", "Comparisons beside the Bayes classifier"),
    Row("ConditionalNeuralProcess", "methods/conditional_neural_process.md", "2 small networks; M N with attention", "EQ functions: log density -0.9341 ± 0.0613, exact -0.6948", NEURAL),
    Row("LatentNeuralProcess", "methods/latent_neural_process.md", "the same, for each draw of z", "EQ functions: joint log density -1.0225 ± 0.0415, exact -0.2541", NEURAL),
    Row("ConvCNP", "methods/conv_cnp.md", "convolutions over the stretch of x near the points", "EQ functions: log density -0.7012 ± 0.0931, exact -0.6948", NEURAL),
    Row("TransformerNeuralProcess", "methods/transformer_neural_process.md", "attention, (N + M) N", "EQ functions: log density -0.6987 ± 0.0936, exact -0.6948", NEURAL),
    Row("SNAIL", "methods/snail.md", "causal convolutions and attention, (N + M) N", "sinusoids, 10 points: MSE 0.274 ± 0.022; phase out of range 6.411 ± 0.287", OUTSIDE),
    Row("MANN", "methods/mann.md", "a step of the controller and its memory for each point", "Omniglot, second presentation: 94.4 ± 1.0 %, published 82.8 %", "Memory by presentation"),
    Row("MetaNetworks", "methods/meta_networks.md", "one gradient of each support point, 1 pass", "sinusoids, 10 points: MSE 0.331 ± 0.015", BY_SHOTS),
    Row("FineTuned", "methods/fine_tuned.md", "1 pass, no meta-gradient; then k steps on the task", "sinusoids, 5 points, 1 step: MSE 2.511 ± 0.076, published 2.41", BY_SHOTS),
    Row("wrappers.Autoregressive", "methods/autoregressive.md", "M predictions for each order", "EQ functions, ConvCNP point by point: 0.0071 ± 0.0026 nats from the exact joint", NEURAL),
    Row("HyperPosterior", "concepts/gold_standards.md", "S learners, in one pass where theta can be mapped over", "tables of 5 or 6 tasks, 1 point: 90 % intervals cover 0.897, the plug-in's 0.791", "Five or six tasks"),
    Row("Sampled", "concepts/gold_standards.md", "thousands of evaluations of the log joint, all tasks at once", "9 parameters: 729.2 effective draws a second, Pyro 10.7", "Our sampler beside Pyro's"),
    Row("wrappers.TaskQuadrature", "methods/task_quadrature.md", "the learner's at each node", "unequal noise, 20 points: 90 % intervals cover 0.917 and 0.896, with one noise 1.000 and 0.804", "Noise of each task's own"),
    Row("wrappers.Stacked", "start/how_to_choose.md", "that of all learners", "sleepstudy: regret -0.002 ± 0.049 nats, of the chosen one 0.118 ± 0.047", "Choosing without test tasks"),
    Row("wrappers.ConceptLearner", "methods/concept_learner.md", "the learner's, and a minibatch of base points", "Omniglot, few episodes: 83.32 ± 0.81 %, alone 82.08 ± 0.80 %", "A discriminator beside few episodes"),
    Row("training.ArchitectureSearch", "methods/architecture_search.md", "that of all trainings", "sinusoids, 2 steps: log density -0.367 ± 0.018, 40-40 -0.928 ± 0.014", "A network for MAML by search", "tests/training/test_architecture_search.py"),
    Row("wrappers.WithHyperprior", "methods/deep_kernel.md", "the learner's", "Sinusoid-Easy, 10 points, a network as mean: log density 0.744", "A mean function from 20 tasks"),
    Row("wrappers.VarianceScaled wrappers.TemperatureScaled wrappers.IsotonicRecalibrated", "concepts/calibration.md", "the learner's", "chickweight: NLL -0.124 by variance, -0.152 isotonic", ALIKE),
    Row("wrappers.LogTransformed", "concepts/outcomes.md", "the learner's", "factors, 3 points: NLL 2.713, without logarithms 3.557", KINDS),
    Row("wrappers.Separately", "concepts/tasks.md", "that of a learner for each outcome", "seven cells of ten missing: NLL 1.646, rows with gaps dropped 1.654", KINDS),
    Row("Standardized", "start/quickstart.md", "the learner's", "sinusoids, ALPaCA in it, 10 points: NLL -0.783 ± 0.016", BELIEVED),
]  # fmt: skip


def _public(path: str) -> type:
    value: object = bm
    for name in path.split("."):
        value = getattr(value, name)
    if not isinstance(value, type):
        raise TypeError(f"expected a class, got {path}")
    return value


def registry() -> list[tuple[ModuleType, list[Case]]]:
    """The files of the registry, each with its Cases, in the order of `CASES`."""
    names = [info.name for info in pkgutil.iter_modules(tests.registry.__path__, "tests.registry.")]
    found = []
    for module in map(importlib.import_module, names):
        lists = [value for name, value in vars(module).items() if name.isupper() and isinstance(value, list)]
        own = [case for each in lists for case in each if isinstance(case, Case)]
        if own:
            found.append((module, own))
    return found


def cases_of() -> dict[type, list[tuple[str, Case]]]:
    """By class of learner: its Cases, each with the name of its file."""
    found: dict[type, list[tuple[str, Case]]] = {}
    for module, cases in registry():
        for case in cases:
            found.setdefault(type(case.make()), []).append((module.__name__.rpartition(".")[2], case))
    return found


@dataclass(frozen=True)
class Section:
    """What a page of docs/benchmarks says below one heading of the second level, with the outputs that it includes."""

    page: str
    text: str


def included(text: str) -> str:
    """A page with the files that it includes."""
    return re.sub(r'^ *--8<-- "(.+)"$', lambda match: (DOCS.parent / match[1]).read_text(), text, flags=re.M)


@functools.cache
def sections() -> dict[str, Section]:
    """Those of all pages of docs/benchmarks, by their headings."""
    found = {}
    for path in sorted((DOCS / "benchmarks").glob("*.md")):
        parts = re.split(r"^## (.*)$", included(path.read_text()), flags=re.M)
        page = path.relative_to(DOCS).as_posix()
        found |= {title: Section(page, text) for title, text in zip(parts[1::2], parts[2::2], strict=True)}
    return found


def heading(row: Row) -> str:
    """That of the row's section.

    Raises:
        ValueError: none begins so, or several do.
    """
    found = [title for title in sections() if title.startswith(row.section)]
    if len(found) != 1:
        raise ValueError(f"expected one section of docs/benchmarks that begins {row.section!r}, got {found}")
    return found[0]


def anchor(title: str) -> str:
    """A heading as Python-Markdown's table of contents names it."""
    words = re.sub(r"[^\w\s-]", "", title.encode("ascii", "ignore").decode()).strip().lower()
    return re.sub(r"[-\s]+", "-", words)


def cells(row: Row, cases: dict[type, list[tuple[str, Case]]]) -> list[str]:
    """What the table says of a method."""
    own = [found for value in row.values for found in cases.get(value, [])]
    names = [f"[{v.__name__}][{v.__module__}.{v.__qualname__}]" for v in row.values]
    held = [f"[{case.name}](../project/contract_cases.md#{file})" for file, case in own[:1]]
    if len(own) > 1:
        held.append(f"and {len(own) - 1} more")
    numbers = f"{row.figure} ([row](../{sections()[heading(row)].page}#{anchor(heading(row))}))" if row.figure else ""
    page = f"[{Path(row.page).stem.replace('_', ' ')}](../{row.page})" if row.page else ""
    said = [plain(row.lines.get(line, "")) for line in LINES]
    tested = f"`{row.tests}`" if row.tests else ""
    return [", ".join(names), *said, row.cost, numbers, page, " ".join(held) or tested]


def plain(text: str) -> str:
    """Without what Markdown would take for its own."""
    code = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([|*_<])", r"\\\1", part) for part in code)


HEAD = """# The field on one page

This page has every method of the library, each as the same four choices: what the parameters of a task are (phi), what is believed of
them before a task has a point (the prior), how outcomes scatter (the likelihood), and how the belief is worked out (the inference).
[One idea](../concepts/one_idea.md) explains the four, and [How to choose](../start/how_to_choose.md) says when to use which.

*Cost* is that of a training step for each task: N are support points, M query points, K network outputs, C classes, F features, k
steps, S members or particles, and a *pass* is one of the network over all points. *Measured* is one row of the
[benchmarks](../benchmarks/index.md). *Tested by* names the [case](../project/contract_cases.md) that holds the method to the contracts of all learners.
A name leads to the page that explains the method.

"""
COLUMNS = ["method", *LINES, "cost", "numbers", "page", "contract case"]
FAMILIES = {
    "learners.closed_form": (
        "Solved exactly",
        "Given the shared features, the belief about a task is the solution of a linear system or of a small convex problem.",
    ),
    "learners.gradient": (
        "By gradient steps",
        "The parameters of a task are found by steps up its log likelihood, or up to the mode of an explicit posterior.",
    ),
    "learners.metric": (
        "By comparison",
        "For classes: a query is compared with the examples of each class, or with what stands for them.",
    ),
    "learners.amortized": (
        "By one pass of a network",
        "A network was trained to read a support and to give the answer: [amortised inference](../concepts/amortised_inference.md).",
    ),
    "learners.baselines": ("A baseline", "What all of the others should beat."),
    "wrappers": (
        "Around a learner",
        "These change what another learner does: its units, its inference, what its predictions are corrected by.",
    ),
    "training": ("Around a training", "This chooses what is trained."),
}
"""By where a method is found below `bayesmeta`: a heading, and what its methods have in common."""


def family(row: Row) -> str:
    """The key of `FAMILIES` that a method belongs to."""
    module = row.values[0].__module__.removeprefix("bayesmeta.")
    return next(key for key in FAMILIES if module.startswith(f"{key}."))


def field() -> str:
    """The page docs/methods/field.md: a table for each family, of four columns."""
    cases = cases_of()
    parts = [HEAD]
    for key, (title, words) in FAMILIES.items():
        parts.append(f'## {title}\n\n{words}\n\n<div class="cards-on-phones" markdown>\n\n')
        parts.append("| method | model | inference and cost | measured |\n|---|---|---|---|\n")
        parts += [f"| {' | '.join(_four(row, cases))} |\n" for row in ROWS if family(row) == key]
        parts.append("\n</div>\n\n")
    return "".join(parts).rstrip() + "\n"


def _four(row: Row, cases: dict[type, list[tuple[str, Case]]]) -> list[str]:
    """The nine cells of a method in four, which a page has room for."""
    said = dict(zip(COLUMNS, cells(row, cases), strict=True))
    names = "<br>".join(f"[**{value.__name__}**](../{row.page})" for value in row.values)
    api = ", ".join(f"[API][{value.__module__}.{value.__qualname__}]" for value in row.values)
    model = "<br>".join(f"*{line}* {said[line]}" for line in LINES[:3])
    return [
        f"{names}<br>{api}",
        model,
        f"{said['inference']}<br>*cost* {said['cost']}",
        f"{said['numbers']}<br>*tested by* {said['contract case']}",
    ]


CASES_HEAD = """# The contract cases

Every learner is held to the same [contracts](../design.md), on small data, as each of these Cases makes it; what it does not keep is
declared in its Case, with the reason. `make learner NAME=maml` runs those of one learner.
"""


def contract_cases() -> str:
    """The page docs/project/contract_cases.md: the files of the registry, as they are."""
    parts = [CASES_HEAD]
    for module, _ in registry():
        path = f"{module.__name__.replace('.', '/')}.py"
        name = module.__name__.rpartition(".")[2]
        title = name.replace("_", " ").capitalize()
        parts.append(f'\n## {title} {{#{name}}}\n\n```{{.py}}\n--8<-- "{path}"\n```\n')
    return "".join(parts)


PAGES = {"methods/field.md": field, "project/contract_cases.md": contract_cases}

if __name__ == "__main__":
    for name, write in PAGES.items():
        (DOCS / name).write_text(write())
