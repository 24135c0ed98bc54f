"""Recipes: a learner for a table of a given width, and how to train it. What the command line offers as methods."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bayesmeta import few_tasks
from bayesmeta.errors import DataError
from bayesmeta.heads.output import CategoricalHead, GaussianHead, OutputHead
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
from bayesmeta.learners.gradient.bmaml import BMAML
from bayesmeta.learners.gradient.cavia import CAVIA
from bayesmeta.learners.gradient.imaml import IMAML
from bayesmeta.learners.gradient.llama import LLAMA
from bayesmeta.learners.gradient.maml import MAML, FirstOrderMAML
from bayesmeta.learners.gradient.maml_plus_plus import MAMLPlusPlus
from bayesmeta.learners.gradient.meta_sgd import MetaSGD
from bayesmeta.likelihoods import Categorical
from bayesmeta.networks.bases import AdditiveRadialBasis, Identity
from bayesmeta.networks.fourier import FourierFeatures
from bayesmeta.networks.mlp import MLP
from bayesmeta.networks.network import Network
from bayesmeta.outcomes import Labels, Numbers, Outcomes
from bayesmeta.priors import DiagonalCovariance
from bayesmeta.tasks.table import Schema
from bayesmeta.trainers import ByEvidence, ByGradients, Trainer
from bayesmeta.training.objectives import Evidence
from bayesmeta.wrappers.standardized import Standardized


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

    def for_table(self, schema: Schema) -> Learner:
        """An untrained learner for tables of a schema.

        Where the method is linear, the effects of covariates are the same in all tasks (fixed effects), and what varies
        within a task has an effect of each task's own. A column that is constant within a task has one, too, where it
        is among `x`.

        Example:
            >>> from bayesmeta.tasks.table import Schema
            >>> schema = Schema(task="child", x=("age",), y=("distance",), covariates=("weight",))
            >>> recipe("alpaca-linear").for_table(schema).learner.prior.covariance.varying  # the constant and the age
            (0, 1)
        """
        inputs, outputs = len(schema.x_names), len(schema.classes) or len(schema.y)
        if self.with_covariates is None or not schema.num_covariates:
            return self.build(inputs, outputs)
        return self.with_covariates(inputs, schema.num_covariates, outputs)


def _linear(features: Network, num_outputs: int) -> Learner:
    return Standardized(ALPaCA(features, num_outputs=num_outputs)).double()


def _bumps(features: Network, num_outputs: int) -> Learner:
    # a full covariance over bumps has directions that no data bound: one variance for each bump is enough
    covariance = DiagonalCovariance(features.num_outputs, varying=features.varying)
    return Standardized(ALPaCA(features, num_outputs=num_outputs, covariance=covariance)).double()


def _bump_features(num_inputs: int) -> Network:
    return AdditiveRadialBasis(num_inputs, 8) if num_inputs else Identity(0)


NUMBER = Numbers()
HIDDEN = (40, 40)  # the network of the papers


def _standardized(kind: Callable[..., Learner], **arguments: Any) -> Callable[[int, int], Learner]:
    return lambda num_inputs, num_outputs: Standardized(
        kind(MLP(num_inputs, HIDDEN), num_outputs=num_outputs, **arguments)
    )


def _softmax(kind: Callable[..., Learner], **arguments: Any) -> Callable[[int, int], Learner]:
    """The same network with a softmax over the classes."""
    return lambda num_inputs, num_classes: Standardized(
        kind(MLP(num_inputs, HIDDEN), likelihood=Categorical(num_classes), **arguments)
    )


def _headed(kind: Callable[..., Learner], hidden: tuple[int, ...]) -> Callable[[int, int], Learner]:
    """Learned features with a head that is solved on them."""
    return lambda num_inputs, num_classes: Standardized(kind(MLP(num_inputs, hidden), num_classes=num_classes))


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
        few_tasks.untrained,
        few_tasks.ByStacking(),
        few_tasks.untrained_with_covariates,
    ),
    "alpaca": Recipe(
        "ALPaCA on learned features (two layers of 64): any smooth relation, needs some tens of tasks",
        few_tasks.network,
        few_tasks.OF_NETWORK,
    ),
    "alpaca-linear": Recipe(
        "ALPaCA on 1, x_1, ..., x_D: the linear mixed model, by maximum likelihood; good with few tasks",
        lambda num_inputs, num_outputs: _linear(Identity(num_inputs), num_outputs),
        ByEvidence(),
        lambda num_inputs, k, num_outputs: _linear(few_tasks.shifting(Identity(num_inputs - k), k), num_outputs),
    ),
    "alpaca-rbf": Recipe(
        "ALPaCA on 8 Gaussian bumps along each input: smooth curves, by maximum likelihood",
        lambda num_inputs, num_outputs: _bumps(_bump_features(num_inputs), num_outputs),
        ByEvidence(),
        lambda num_inputs, k, num_outputs: _bumps(few_tasks.shifting(_bump_features(num_inputs - k), k), num_outputs),
    ),
    "r2d2": Recipe(
        "R2-D2 on learned features: as alpaca, with a prior of mean zero and one variance",
        lambda num_inputs, num_outputs: Standardized(R2D2Regressor(MLP(num_inputs, [64, 64]), num_outputs=num_outputs)),
        ByGradients(Evidence()),
    ),
    "dkt": Recipe(
        "Deep kernel transfer: a Gaussian process on learned features; smooth curves that no few features span",
        lambda num_inputs, num_outputs: Standardized(
            DeepKernelTransfer(MLP(num_inputs, [64, 16]), num_outputs=num_outputs)
        ),
        ByGradients(Evidence()),
    ),
    "maml": Recipe(
        "MAML, 5 steps, with the posterior that its steps imply; for relations that adapt everywhere in the network",
        _standardized(MAML, lr=0.1),
        ByGradients(),
    ),
    "first-order-maml": Recipe(
        "MAML without second derivatives: faster training, a little worse",
        _standardized(FirstOrderMAML, lr=0.1),
        ByGradients(),
    ),
    "meta-sgd": Recipe(
        "Meta-SGD: one step, with a learned rate for every weight",
        _standardized(MetaSGD, lr=0.1),
        ByGradients(),
    ),
    "maml++": Recipe(
        "MAML++: 5 steps, with learned rates for every layer and step",
        _standardized(MAMLPlusPlus, lr=0.1),
        ByGradients(),
    ),
    "alpha-maml": Recipe(
        "Alpha MAML: 5 steps, with learning rates that adapt themselves",
        _standardized(AlphaMAML, lr=0.1),
        ByGradients(),
    ),
    "cavia": Recipe(
        "CAVIA: a shared network, and a context of 4 numbers for each task; tasks that differ in few ways",
        _standardized(CAVIA, num_context=4, steps=5, lr=0.5),
        ByGradients(),
    ),
    "imaml": Recipe(
        "iMAML: an explicit Gaussian prior over the weights of a network; slower training, intervals from the prior",
        _standardized(IMAML, precision=10.0, solver=LBFGS(10, 1e-3)),
        ByGradients(),
    ),
    "llama": Recipe(
        "LLAMA: as imaml, trained on the Laplace evidence of whole tasks",
        _standardized(LLAMA, solver=LevenbergMarquardt(20), precision=10.0),
        ByGradients(),
    ),
    "bmaml": Recipe(
        "BMAML: 5 particles of a network, moved together",
        _standardized(BMAML, lr=0.1, precision=10.0, spread=0.1),
        ByGradients(),
    ),
    **_neural_processes(GaussianHead),
}


CLASS_RECIPES: dict[str, Recipe] = {
    "maml": Recipe(
        "MAML, 5 steps: inputs tell of a task before it has a labelled point, too",
        _softmax(MAML, lr=0.1),
        ByGradients(),
    ),
    "first-order-maml": Recipe(
        "MAML without second derivatives: faster training, a little worse",
        _softmax(FirstOrderMAML, lr=0.1),
        ByGradients(),
    ),
    "meta-sgd": Recipe(
        "Meta-SGD: one step, with a learned rate for every weight", _softmax(MetaSGD, lr=0.1), ByGradients()
    ),
    "maml++": Recipe(
        "MAML++: 5 steps, with learned rates for every layer and step", _softmax(MAMLPlusPlus, lr=0.1), ByGradients()
    ),
    "alpha-maml": Recipe(
        "Alpha MAML: 5 steps, with learning rates that adapt themselves", _softmax(AlphaMAML, lr=0.1), ByGradients()
    ),
    "cavia": Recipe(
        "CAVIA: a shared network, and a context of 4 numbers for each task; tasks that differ in few ways",
        _softmax(CAVIA, num_context=4, steps=5, lr=0.5),
        ByGradients(),
    ),
    "imaml": Recipe(
        "iMAML: an explicit Gaussian prior over the weights of a network; slower training",
        _softmax(IMAML, precision=10.0, solver=LBFGS(10, 1e-3)),
        ByGradients(),
    ),
    "llama": Recipe(
        "LLAMA: as imaml, trained on the Laplace evidence of whole tasks; slow",
        _softmax(LLAMA, solver=LevenbergMarquardt(20), precision=10.0),
        ByGradients(),
    ),
    "llama-linear": Recipe(
        "LLAMA on 1, x_1, ..., x_D: a logistic mixed model with one variance for all effects, by Laplace; slow",
        lambda num_inputs, num_classes: Standardized(
            LLAMA(Identity(num_inputs), solver=LevenbergMarquardt(20), likelihood=Categorical(num_classes))
        ),
        ByGradients(),
        lambda num_inputs, k, num_classes: Standardized(
            LLAMA(
                few_tasks.shifting(Identity(num_inputs - k), k),
                solver=LevenbergMarquardt(20),
                likelihood=Categorical(num_classes),
                adapted=["output"],
            )
        ),
    ),
    "bmaml": Recipe(
        "BMAML: 5 particles of a network, moved together",
        _softmax(BMAML, lr=0.1, precision=10.0, spread=0.1),
        ByGradients(),
    ),
    "r2d2": Recipe(
        "R2-D2: ridge regression on learned features in each task; without a labelled point, frequencies alone",
        _headed(R2D2, (64, 64)),
        ByGradients(),
    ),
    "lrd2": Recipe(
        "LR-D2: as r2d2, with a logistic regression in each task",
        _headed(LRD2, (64, 64)),
        ByGradients(),
    ),
    "metaoptnet": Recipe(
        "MetaOptNet: as r2d2, with a support vector machine in each task",
        _headed(MetaOptNet, (64, 64)),
        ByGradients(),
    ),
    "dkt": Recipe(
        "Deep kernel transfer: a Gaussian process for each class on learned features",
        _headed(DeepKernelClassifier, (64, 16)),
        ByGradients(),
    ),
    **_neural_processes(CategoricalHead),
}
"""Methods for outcomes that are classes. The first is the one that is taken where none is named."""


def recipes(outcomes: Outcomes) -> dict[str, Recipe]:
    """The methods for outcomes of a kind, by name; the first is the one that is taken where none is named.

    Args:
        outcomes: numbers or labels.

    Example:
        >>> import bayesmeta as bm
        >>> next(iter(recipes(bm.Numbers()))), next(iter(recipes(bm.Labels(3))))
        ('stack', 'maml')
    """
    return CLASS_RECIPES if isinstance(outcomes, Labels) else RECIPES


def recipe(name: str, outcomes: Outcomes = NUMBER) -> Recipe:
    """The recipe of that name. Raises DataError for one that is unknown, or that is not for such outcomes.

    Example:
        >>> import bayesmeta as bm
        >>> recipe("maml", bm.Labels(3)).build(2, 3).outcomes  # two inputs, three classes
        Labels(count=3)
    """
    known, others = recipes(outcomes), recipes(Numbers() if isinstance(outcomes, Labels) else Labels())
    if name not in known:
        kind = "classes" if isinstance(outcomes, Labels) else "numbers"
        why = f", which is not for {kind}" if name in others else ""
        raise DataError(f"expected a method for {kind} among {sorted(known)}, got {name!r}{why}")
    return known[name]
