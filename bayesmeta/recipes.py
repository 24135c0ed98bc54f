"""Recipes: a learner for a table of a given width, and how to train it. What the command line offers as methods."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from typing_extensions import override

from bayesmeta import default_stack
from bayesmeta.errors import DataError
from bayesmeta.heads.output import CategoricalHead, GaussianHead, OutputHead
from bayesmeta.hyperpriors import GaussianHyperprior
from bayesmeta.inference.gauss_newton import LevenbergMarquardt
from bayesmeta.inference.solvers import LBFGS
from bayesmeta.learner import Learner
from bayesmeta.learners.amortized.conditional import ConditionalNeuralProcess
from bayesmeta.learners.amortized.conv_cnp import ConvCNP
from bayesmeta.learners.amortized.transformer import TransformerNeuralProcess
from bayesmeta.learners.closed_form.alpaca import ALPaCA
from bayesmeta.learners.closed_form.deep_kernel import DeepKernelTransfer
from bayesmeta.learners.closed_form.deep_kernel_classifier import DeepKernelClassifier
from bayesmeta.learners.closed_form.lrd2 import LRD2
from bayesmeta.learners.closed_form.metaoptnet import MetaOptNet
from bayesmeta.learners.closed_form.r2d2 import R2D2
from bayesmeta.learners.closed_form.r2d2_regressor import R2D2Regressor
from bayesmeta.learners.gradient.alpha_maml import AlphaMAML
from bayesmeta.learners.gradient.base import WeightLearner
from bayesmeta.learners.gradient.bmaml import BMAML
from bayesmeta.learners.gradient.cavia import CAVIA
from bayesmeta.learners.gradient.generalized_linear import GeneralizedLinearMixedModel
from bayesmeta.learners.gradient.imaml import IMAML
from bayesmeta.learners.gradient.llama import LLAMA
from bayesmeta.learners.gradient.maml import MAML, FirstOrderMAML
from bayesmeta.learners.gradient.maml_plus_plus import MAMLPlusPlus
from bayesmeta.learners.gradient.meta_sgd import MetaSGD
from bayesmeta.likelihoods import Bernoulli, Categorical, Likelihood, NegativeBinomial, Poisson
from bayesmeta.networks.bases import AdditiveRadialBasis, Identity, Polynomial
from bayesmeta.networks.concatenated import Concatenated
from bayesmeta.networks.fourier import FourierFeatures
from bayesmeta.networks.mlp import MLP
from bayesmeta.networks.network import Network
from bayesmeta.networks.task_covariates import TaskCovariates
from bayesmeta.outcomes import Counts, Labels, Numbers, Outcomes, Positives
from bayesmeta.priors import DiagonalCovariance
from bayesmeta.selection.cross_validation import Factory
from bayesmeta.tasks.source import RandomSplit
from bayesmeta.tasks.table import Schema
from bayesmeta.trainers import MANY, ByEvidence, ByGradients, OnLogScale, Trainer, Training
from bayesmeta.training.objectives import Evidence, RestrictedMaximumLikelihood
from bayesmeta.wrappers.log_transformed import LogTransformed
from bayesmeta.wrappers.standardized import Standardized
from bayesmeta.wrappers.with_hyperprior import WithHyperprior


@dataclass(frozen=True)
class Recipe:
    """A learner and how it is trained on a table.

    Attributes:
        summary: one line for people who choose.
        build: (D, C) -> an untrained learner of C numbers, or of C classes.
        train: trains it.
        with_covariates: (D, k, C) -> the same where the last k inputs are covariates of the task, whose effects do not
            differ between tasks; None where covariates are inputs like others.

    Example:
        >>> learner = recipe("maml").build(3, 1)  # three inputs, one outcome
        >>> learner.x_shape
        (3,)
    """

    summary: str
    build: Callable[[int, int], Learner]
    train: Trainer
    with_covariates: Callable[[int, int, int], Learner] | None = None

    def for_table(self, schema: Schema, num_tasks: int = 0) -> Learner:
        """An untrained learner for tables of a schema.

        Where the method is linear, the effects of covariates are the same in all tasks (fixed effects), and what varies
        within a task has an effect of each task's own. A column that is constant within a task has one, too, where it
        is among `x`. A method on a network has effects of covariates that are linear and the same in all tasks where
        there are fewer than a hundred: each task shows one value of a covariate, and a network would learn the tasks
        by heart.

        Args:
            schema: of the table.
            num_tasks: how many tasks there are to learn from; few, where it is not said.

        Example:
            >>> from bayesmeta.tasks.table import Schema
            >>> schema = Schema(task="child", x=("age",), y=("distance",), covariates=("weight",))
            >>> recipe("alpaca-linear").for_table(schema).learner.prior.covariance.varying  # the constant and the age
            (0, 1)
        """
        inputs, outputs = len(schema.x_names), len(schema.classes) or len(schema.y)
        apart = self.apart(num_tasks) if schema.num_covariates else None
        return self.build(inputs, outputs) if apart is None else apart(inputs, schema.num_covariates, outputs)

    def apart(self, num_tasks: int) -> Callable[[int, int, int], Learner] | None:
        """What builds a learner whose effects of covariates do not differ between tasks, as `with_covariates`.

        None where covariates are inputs like others.

        Args:
            num_tasks: how many tasks there are to learn from.

        Example:
            >>> [recipe(name).apart(50) is None for name in ("alpaca-linear", "alpaca", "cavia")]
            [False, False, True]
            >>> recipe("alpaca").apart(500) is None  # of so many tasks a network may learn what covariates do
            True
        """
        return self.with_covariates

    def factory(self, schema: Schema, training: Training) -> Factory:
        """What makes a trained learner of tasks, for comparisons and cross-validation.

        Args:
            schema: of their table.
            training: how it is trained.

        Example:
            >>> import pandas as pd
            >>> import bayesmeta as bm
            >>> frame = pd.DataFrame({"who": list("aabb"), "t": [0.0, 1, 0, 1], "y": [1.0, 2, 3, 5]})
            >>> tasks = bm.TaskDataset.from_frame(frame, task="who", x=["t"], y=["y"])
            >>> make = recipe("alpaca-linear").factory(tasks.schema, Training(steps=3))
            >>> make(tasks).title
            'Standardized(ALPaCA)'
        """
        return lambda tasks: self.train(self.for_table(schema, len(tasks)), tasks, training).learner


OnNetwork = Callable[[Network, int], Learner]
"""(network, C) -> an untrained learner of C numbers, or of C classes."""


@dataclass(frozen=True, kw_only=True)
class NetworkRecipe(Recipe):
    """A recipe of a method that takes any network: what can be searched for.

    Attributes:
        on_network: (network, C) -> an untrained learner of C numbers, or of C classes.
        train: trains it.
        hidden: widths of the hidden layers of the network that is taken where none is searched for.

    Example:
        >>> import bayesmeta as bm
        >>> network_recipe("maml").on_network(bm.MLP(2, [8, 8, 8]), 1).title
        'Standardized(MAML)'
    """

    on_network: OnNetwork
    train: ByGradients
    hidden: tuple[int, ...]

    @classmethod
    def of(cls, summary: str, on_network: OnNetwork, hidden: Sequence[int], train: ByGradients) -> "NetworkRecipe":
        """The recipe with the network that is taken where none is searched for.

        Args:
            summary: one line for people who choose.
            on_network: (network, C) -> an untrained learner.
            hidden: widths of the hidden layers.
            train: trains it.
        """
        build = lambda num_inputs, count: on_network(MLP(num_inputs, hidden), count)
        return cls(summary=summary, build=build, train=train, on_network=on_network, hidden=tuple(hidden))


@dataclass(frozen=True, kw_only=True)
class ShiftedRecipe(NetworkRecipe):
    """A recipe of a method whose network may leave covariates to a layer of their own: of few tasks it does.

    Example:
        >>> from bayesmeta.tasks.table import Schema
        >>> schema = Schema(task="child", x=("age",), y=("distance",), covariates=("weight",))
        >>> few, many = (recipe("alpaca").for_table(schema, num_tasks) for num_tasks in (50, 500))
        >>> type(few.learner.features).__name__, type(many.learner.features).__name__
        ('TaskCovariates', 'MLP')
    """

    @override
    def apart(self, num_tasks: int) -> Callable[[int, int, int], Learner] | None:
        return None if num_tasks >= MANY else self._shifted

    def _shifted(self, num_inputs: int, num_covariates: int, count: int) -> Learner:
        varying = num_inputs - num_covariates
        features: Network = Identity(0)
        if varying:
            features = Concatenated([Polynomial(varying, 0), MLP(varying, self.hidden)])
        return self.on_network(default_stack.shifting(features, num_covariates), count)


def _linear(features: Network, num_outputs: int) -> Learner:
    return Standardized(ALPaCA(features, num_outputs=num_outputs)).double()


def _line(num_inputs: int, num_outputs: int) -> Learner:
    return _linear(Identity(num_inputs), num_outputs)


def _line_with_covariates(num_inputs: int, num_covariates: int, num_outputs: int) -> Learner:
    return _linear(default_stack.shifting(Identity(num_inputs - num_covariates), num_covariates), num_outputs)


def _bumps(features: Network, num_outputs: int) -> Learner:
    # a full covariance over bumps has directions that no data bound: one variance for each bump is enough
    covariance = DiagonalCovariance(features.num_outputs, varying=features.varying)
    return Standardized(ALPaCA(features, num_outputs=num_outputs, covariance=covariance)).double()


def _bump_features(num_inputs: int) -> Network:
    return AdditiveRadialBasis(num_inputs, 8) if num_inputs else Identity(0)


def _mixed(features: Network, likelihood: Likelihood) -> Learner:
    """A generalised linear mixed model whose theta has weak hyperpriors, so that separated outcomes have a maximum."""
    learner: Learner = GeneralizedLinearMixedModel(features, likelihood=likelihood)
    for name in ("network.location", "covariance"):
        learner = WithHyperprior(learner, GaussianHyperprior(WEAK, names=name))
    return Standardized(learner).double()


def _mixed_recipe(summary: str, likelihood: Callable[[int], Likelihood]) -> Recipe:
    return Recipe(
        summary,
        lambda num_inputs, count: _mixed(Identity(num_inputs), likelihood(count)),
        ByEvidence(),
        lambda num_inputs, k, count: _mixed(default_stack.shifting(Identity(num_inputs - k), k), likelihood(count)),
    )


def _of_classes(count: int) -> Likelihood:
    return Bernoulli() if count == 2 else Categorical(count)


NUMBER = Numbers()
WEAK = 5.0  # deviation of log odds and log rates, for an input of deviation 1: a factor of 150
HIDDEN = (40, 40)  # the network of the papers
# by few points and by none, as people ask: otherwise theta, which is the prediction without a point, is seldom trained
# as one, and is sure of itself where few tasks are learned by heart
FROM_NONE = ByGradients(split=RandomSplit((0, 5)))


def _layers(kind: Callable[..., Learner], network: Network) -> dict[str, Any]:
    """Which layers adapt: all but those that are the same in all tasks by intention, the effects of covariates."""
    if not (isinstance(network, TaskCovariates) and isinstance(kind, type) and issubclass(kind, WeightLearner)):
        return {}
    return {"adapted": ["output", *(["features"] if any(True for _ in network.parameters()) else [])]}


def _outputs(kind: Callable[..., Learner], **arguments: Any) -> OnNetwork:
    """Numbers as outcomes."""
    return lambda network, num_outputs: Standardized(
        kind(network, num_outputs=num_outputs, **_layers(kind, network), **arguments)
    )


def _softmax(kind: Callable[..., Learner], **arguments: Any) -> OnNetwork:
    """A softmax over the classes."""
    return lambda network, num_classes: Standardized(
        kind(network, likelihood=Categorical(num_classes), **_layers(kind, network), **arguments)
    )


def _headed(kind: Callable[..., Learner]) -> OnNetwork:
    """A head that is solved on the features."""
    return lambda network, num_classes: Standardized(kind(network, num_classes=num_classes))


def _pooled(num_inputs: int, head: OutputHead) -> Learner:
    return Standardized(ConditionalNeuralProcess(Identity(num_inputs), head=head))


def _convolutional(num_inputs: int, head: OutputHead) -> Learner:
    if num_inputs != 1:
        raise DataError(
            f"expected a single input for convcnp, which is for functions of one number, got {num_inputs} (a column of "
            "categories counts as one for each level): take transformer"
        )
    return Standardized(ConvCNP(head=head, points_per_unit=8.0))  # so that it sees ten deviations of the input


def _transformer(num_inputs: int, head: OutputHead) -> Learner:
    return Standardized(TransformerNeuralProcess(FourierFeatures(num_inputs), head=head))


def _amortized(summary: str, make: Callable[[int, OutputHead], Learner], head: Callable[[int], OutputHead]) -> Recipe:
    return Recipe(summary, lambda num_inputs, count: make(num_inputs, head(count)), ByGradients())


def _neural_processes(head: Callable[[int], OutputHead]) -> dict[str, Recipe]:
    """Of numbers or of classes, by their heads."""
    return {
        "cnp": _amortized("Conditional neural process: a network reads a mean of all points", _pooled, head),
        "convcnp": _amortized(
            "Convolutional neural process: one input, curves that look alike wherever they begin; hundreds of tasks",
            _convolutional,
            head,
        ),
        "transformer": _amortized(
            "Transformer neural process: a network looks up which points tell of a query; hundreds of tasks",
            _transformer,
            head,
        ),
    }


RECIPES: dict[str, Recipe] = {
    "stack": Recipe(
        "Lines and curves, mixed as held-out tasks say, with ten tasks or more; with 100 or more alpaca among them",
        default_stack.untrained,
        default_stack.ByStacking(),
        default_stack.untrained_with_covariates,
    ),
    "alpaca": ShiftedRecipe.of(
        "ALPaCA on learned features (two layers of 64): any smooth relation, needs some tens of tasks",
        default_stack.on_network,
        default_stack.HIDDEN,
        default_stack.OF_NETWORK,
    ),
    "alpaca-linear": Recipe(
        "ALPaCA on 1, x_1, ..., x_D: the linear mixed model, by maximum likelihood; good with few tasks",
        _line,
        ByEvidence(),
        _line_with_covariates,
    ),
    "linear-reml": Recipe(
        "As alpaca-linear, by restricted maximum likelihood (REML), as lme4 fits by default",
        _line,
        ByEvidence(RestrictedMaximumLikelihood()),
        _line_with_covariates,
    ),
    "alpaca-rbf": Recipe(
        "ALPaCA on 8 Gaussian bumps along each input: smooth curves, by maximum likelihood",
        lambda num_inputs, num_outputs: _bumps(_bump_features(num_inputs), num_outputs),
        ByEvidence(),
        lambda num_inputs, k, num_outputs: _bumps(
            default_stack.shifting(_bump_features(num_inputs - k), k), num_outputs
        ),
    ),
    "r2d2": ShiftedRecipe.of(
        "R2-D2 on learned features: as alpaca, with a prior of mean zero and one variance",
        _outputs(R2D2Regressor),
        (64, 64),
        ByGradients(Evidence()),
    ),
    "dkt": ShiftedRecipe.of(
        "Deep kernel transfer: a Gaussian process on learned features; smooth curves that no few features span",
        _outputs(DeepKernelTransfer),
        (64, 16),
        ByGradients(Evidence()),
    ),
    "maml": ShiftedRecipe.of(
        "MAML, 5 steps, with the posterior that its steps imply; for relations that adapt everywhere in the network",
        _outputs(MAML, lr=0.1),
        HIDDEN,
        FROM_NONE,
    ),
    "first-order-maml": ShiftedRecipe.of(
        "MAML without second derivatives: faster training, a little worse",
        _outputs(FirstOrderMAML, lr=0.1),
        HIDDEN,
        FROM_NONE,
    ),
    "meta-sgd": ShiftedRecipe.of(
        "Meta-SGD: one step, with a learned rate for every weight", _outputs(MetaSGD, lr=0.1), HIDDEN, FROM_NONE
    ),
    "maml++": ShiftedRecipe.of(
        "MAML++: 5 steps, with learned rates for every layer and step",
        _outputs(MAMLPlusPlus, lr=0.1),
        HIDDEN,
        FROM_NONE,
    ),
    "alpha-maml": ShiftedRecipe.of(
        "Alpha MAML: 5 steps, with learning rates that adapt themselves",
        _outputs(AlphaMAML, lr=0.1),
        HIDDEN,
        FROM_NONE,
    ),
    "cavia": NetworkRecipe.of(
        "CAVIA: a shared network, and a context of 4 numbers for each task; tasks that differ in few ways",
        _outputs(CAVIA, num_context=4, steps=5, lr=0.5),
        HIDDEN,
        ByGradients(),
    ),
    "imaml": ShiftedRecipe.of(
        "iMAML: an explicit Gaussian prior over the weights of a network; slower training, intervals from the prior",
        _outputs(IMAML, precision=10.0, solver=LBFGS(10, 1e-3)),
        HIDDEN,
        ByGradients(),
    ),
    "llama": ShiftedRecipe.of(
        "LLAMA: as imaml, trained on the Laplace evidence of whole tasks",
        _outputs(LLAMA, solver=LevenbergMarquardt(20), precision=10.0),
        HIDDEN,
        ByGradients(),
    ),
    "bmaml": ShiftedRecipe.of(
        "BMAML: 5 particles of a network, moved together",
        _outputs(BMAML, lr=0.1, precision=10.0, spread=0.1),
        HIDDEN,
        ByGradients(),
    ),
    **_neural_processes(GaussianHead),
}


CLASS_RECIPES: dict[str, Recipe] = {
    "glmm": _mixed_recipe(
        "Generalised linear mixed model: logistic regression whose weights differ between tasks; good with few tasks",
        _of_classes,
    ),
    "maml": ShiftedRecipe.of(
        "MAML, 5 steps: inputs tell of a task before it has a labelled point, too",
        _softmax(MAML, lr=0.1),
        HIDDEN,
        ByGradients(),
    ),
    "first-order-maml": ShiftedRecipe.of(
        "MAML without second derivatives: faster training, a little worse",
        _softmax(FirstOrderMAML, lr=0.1),
        HIDDEN,
        ByGradients(),
    ),
    "meta-sgd": ShiftedRecipe.of(
        "Meta-SGD: one step, with a learned rate for every weight", _softmax(MetaSGD, lr=0.1), HIDDEN, ByGradients()
    ),
    "maml++": ShiftedRecipe.of(
        "MAML++: 5 steps, with learned rates for every layer and step",
        _softmax(MAMLPlusPlus, lr=0.1),
        HIDDEN,
        ByGradients(),
    ),
    "alpha-maml": ShiftedRecipe.of(
        "Alpha MAML: 5 steps, with learning rates that adapt themselves",
        _softmax(AlphaMAML, lr=0.1),
        HIDDEN,
        ByGradients(),
    ),
    "cavia": NetworkRecipe.of(
        "CAVIA: a shared network, and a context of 4 numbers for each task; tasks that differ in few ways",
        _softmax(CAVIA, num_context=4, steps=5, lr=0.5),
        HIDDEN,
        ByGradients(),
    ),
    "imaml": ShiftedRecipe.of(
        "iMAML: an explicit Gaussian prior over the weights of a network; slower training",
        _softmax(IMAML, precision=10.0, solver=LBFGS(10, 1e-3)),
        HIDDEN,
        ByGradients(),
    ),
    "llama": ShiftedRecipe.of(
        "LLAMA: as imaml, trained on the Laplace evidence of whole tasks; slow",
        _softmax(LLAMA, solver=LevenbergMarquardt(20), precision=10.0),
        HIDDEN,
        ByGradients(),
    ),
    "bmaml": ShiftedRecipe.of(
        "BMAML: 5 particles of a network, moved together",
        _softmax(BMAML, lr=0.1, precision=10.0, spread=0.1),
        HIDDEN,
        ByGradients(),
    ),
    "r2d2": ShiftedRecipe.of(
        "R2-D2: ridge regression on learned features in each task; without a labelled point, frequencies alone",
        _headed(R2D2),
        (64, 64),
        ByGradients(),
    ),
    "lrd2": ShiftedRecipe.of(
        "LR-D2: as r2d2, with a logistic regression in each task", _headed(LRD2), (64, 64), ByGradients()
    ),
    "metaoptnet": ShiftedRecipe.of(
        "MetaOptNet: as r2d2, with a support vector machine in each task", _headed(MetaOptNet), (64, 64), ByGradients()
    ),
    "dkt": ShiftedRecipe.of(
        "Deep kernel transfer: a Gaussian process for each class on learned features",
        _headed(DeepKernelClassifier),
        (64, 16),
        ByGradients(),
    ),
    **_neural_processes(CategoricalHead),
}
"""Methods for outcomes that are classes. The first is the one that is taken where none is named."""


def _counts(kind: Callable[..., Learner], **arguments: Any) -> OnNetwork:
    """Negative binomial counts around a rate that a network gives."""
    return lambda network, count: Standardized(
        kind(network, likelihood=NegativeBinomial(count), **_layers(kind, network), **arguments)
    )


COUNT_RECIPES: dict[str, Recipe] = {
    "glmm": _mixed_recipe(
        "Generalised linear mixed model: negative binomial counts, log-linear in 1, x_1, ..., x_D; good with few tasks",
        NegativeBinomial,
    ),
    "glmm-poisson": _mixed_recipe(
        "The same with Poisson counts, which vary by no more than chance around the rate of their task", Poisson
    ),
    "imaml": ShiftedRecipe.of(
        "iMAML: an explicit Gaussian prior over the weights of a network that gives log rates; hundreds of tasks",
        _counts(IMAML, precision=10.0, solver=LBFGS(10, 1e-3)),
        HIDDEN,
        ByGradients(),
    ),
    "llama": ShiftedRecipe.of(
        "LLAMA: as imaml, trained on the Laplace evidence of whole tasks; slow",
        _counts(LLAMA, solver=LevenbergMarquardt(20), precision=10.0),
        HIDDEN,
        ByGradients(),
    ),
    "maml": ShiftedRecipe.of(
        "MAML, 5 steps, on a network that gives log rates; hundreds of tasks",
        _counts(MAML, lr=0.1),
        HIDDEN,
        ByGradients(),
    ),
}
"""Methods for outcomes that are counts. The first is the one that is taken where none is named."""


def _log_scale(recipe: Recipe) -> Recipe:
    """The same method on the logarithms of positive outcomes."""
    summary = f"{recipe.summary}; on the logarithm"
    if isinstance(recipe, NetworkRecipe):
        on_network = recipe.on_network
        return replace(
            recipe,
            summary=summary,
            build=lambda num_inputs, count: LogTransformed(recipe.build(num_inputs, count)),
            on_network=lambda network, count: LogTransformed(on_network(network, count)),
        )
    with_covariates = recipe.with_covariates
    return Recipe(
        summary,
        lambda num_inputs, count: LogTransformed(recipe.build(num_inputs, count)),
        OnLogScale(recipe.train),
        None if with_covariates is None else lambda d, k, count: LogTransformed(with_covariates(d, k, count)),
    )


POSITIVE_RECIPES: dict[str, Recipe] = {name: _log_scale(each) for name, each in RECIPES.items()}
"""Methods for positive outcomes: those for numbers, of logarithms."""


def recipes(outcomes: Outcomes) -> dict[str, Recipe]:
    """The methods for outcomes of a kind, by name; the first is the one that is taken where none is named.

    Args:
        outcomes: numbers, positive numbers, counts or labels.

    Example:
        >>> import bayesmeta as bm
        >>> kinds = bm.Numbers(), bm.tasks.Positives(), bm.tasks.Counts(), bm.Labels(3)
        >>> [next(iter(recipes(kind))) for kind in kinds]
        ['stack', 'stack', 'glmm', 'glmm']
    """
    return _offered(outcomes)[1]


def _offered(outcomes: Outcomes) -> tuple[str, dict[str, Recipe]]:
    """What outcomes of a kind are called, and the methods for them."""
    if isinstance(outcomes, Labels):
        return "classes", CLASS_RECIPES
    if isinstance(outcomes, Counts):
        return "counts", COUNT_RECIPES
    return ("positive numbers", POSITIVE_RECIPES) if isinstance(outcomes, Positives) else ("numbers", RECIPES)


def usual(outcomes: Outcomes) -> list[str]:
    """The methods that a comparison takes where none is named: the default one, and the simplest.

    Args:
        outcomes: numbers or labels.

    Example:
        >>> import bayesmeta as bm
        >>> usual(bm.Numbers()), usual(bm.Labels(3))
        (['stack', 'alpaca-linear'], ['glmm', 'maml'])
    """
    offered = list(recipes(outcomes))
    simple = [name for name in ("alpaca-linear", "glmm-poisson", "maml") if name in offered[1:]]
    return [offered[0], *simple[:1]]


def recipe(name: str, outcomes: Outcomes = NUMBER) -> Recipe:
    """The recipe of that name. Raises DataError for one that is unknown, or that is not for such outcomes.

    Example:
        >>> import bayesmeta as bm
        >>> recipe("maml", bm.Labels(3)).build(2, 3).outcomes  # two inputs, three classes
        Labels(count=3)
    """
    kind, known = _offered(outcomes)
    if name not in known:
        elsewhere = any(name in each for each in (RECIPES, CLASS_RECIPES, COUNT_RECIPES))
        why = f", which is not for {kind}" if elsewhere else ""
        raise DataError(f"expected a method for {kind} among {sorted(known)}, got {name!r}{why}")
    return known[name]


def require_uses(name: str, outcomes: Outcomes, options: Iterable[str]) -> None:
    """Raise DataError where a method has no use for an option of `Training` that a user has given.

    Args:
        name: of the method.
        outcomes: numbers or labels.
        options: "lr", "validation", as the user has given them.

    Example:
        >>> require_uses("maml", NUMBER, ["lr"])
        >>> require_uses("alpaca-linear", NUMBER, ["lr"])
        Traceback (most recent call last):
        ...
        bayesmeta.errors.DataError: expected no lr for 'alpaca-linear', which has no use for it; ...
    """
    for option in options:
        if option not in recipe(name, outcomes).train.uses:
            others = [other for other, each in recipes(outcomes).items() if option in each.train.uses]
            raise DataError(
                f"expected no {option} for {name!r}, which has no use for it; these have: {', '.join(others)}"
            )


def network_recipes(outcomes: Outcomes) -> dict[str, NetworkRecipe]:
    """The methods that take any network, by name; the first is the one that is taken where none is named.

    Args:
        outcomes: numbers or labels.

    Example:
        >>> import bayesmeta as bm
        >>> next(iter(network_recipes(bm.Numbers()))), next(iter(network_recipes(bm.Labels(3))))
        ('alpaca', 'maml')
    """
    return {name: each for name, each in recipes(outcomes).items() if isinstance(each, NetworkRecipe)}


def network_recipe(name: str, outcomes: Outcomes = NUMBER) -> NetworkRecipe:
    """The recipe of that name. Raises DataError for one that is unknown, or that takes no network.

    Example:
        >>> network_recipe("alpaca-linear")
        Traceback (most recent call last):
        ...
        bayesmeta.errors.DataError: expected a method that takes any network, among [...], got 'alpaca-linear'
    """
    known = network_recipes(outcomes)
    if name not in known:
        raise DataError(f"expected a method that takes any network, among {sorted(known)}, got {name!r}")
    return known[name]
