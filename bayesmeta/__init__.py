"""Few-shot learning with uncertainty that can be trusted.

The whole of it in four lines:

    learner = bayesmeta.ALPaCA(bayesmeta.MLP(1, [64, 64]))   theta, a prior and a likelihood
    bayesmeta.fit(learner, tasks)                            learn theta from many tasks
    posterior = learner.adapt(support)                       p(phi | D, theta) of a new task
    posterior.predict(x)                                     p(y | x, D, theta)

Here are the verbs, the core types, the learners, their networks and the errors. The rest is a namespace deeper:

    tasks         simulators, images, splits            likelihoods, noise     p(y | f)
    training      objectives, draws of theta            priors, hyperpriors    p(phi | theta), p(theta)
    calibration   recalibration, conformal prediction   kernels, heads         what learners are made of
    parametric    formulas with named parameters
    checks        sbc, fidelity, surprise               inference, predictives NUTS, solvers; what predictions are
    plotting      figures                               networks, learners, wrappers   base classes to inherit
    selection     candidates, cross-validation, stacking
"""

from bayesmeta import (
    calibration,
    checks,
    evaluation,
    heads,
    hyperpriors,
    inference,
    kernels,
    learners,
    likelihoods,
    networks,
    noise,
    parametric,
    plotting,
    predictives,
    priors,
    selection,
    tasks,
    training,
    wrappers,
)
from bayesmeta.data import Data, Task, TaskBatch
from bayesmeta.errors import (
    BayesMetaError,
    ConvergenceWarning,
    DataError,
    InferenceError,
    OutcomeWarning,
    PrecisionWarning,
    ShapeError,
    UnsupportedError,
)
from bayesmeta.evaluation.evaluate import evaluate
from bayesmeta.frames import predict_frame
from bayesmeta.learner import ExplicitLearner, Learner, LinearMixedModel, Refit, TaskPosterior
from bayesmeta.learners.amortized.conditional import ConditionalNeuralProcess
from bayesmeta.learners.amortized.conv_cnp import ConvCNP
from bayesmeta.learners.amortized.latent import LatentNeuralProcess
from bayesmeta.learners.amortized.snail import SNAIL
from bayesmeta.learners.amortized.transformer import TransformerNeuralProcess
from bayesmeta.learners.closed_form.alpaca import ALPaCA
from bayesmeta.learners.closed_form.deep_kernel import DeepKernelTransfer
from bayesmeta.learners.closed_form.deep_kernel_classifier import DeepKernelClassifier
from bayesmeta.learners.closed_form.hierarchical_process import HierarchicalProcess
from bayesmeta.learners.closed_form.lrd2 import LRD2
from bayesmeta.learners.closed_form.metaoptnet import MetaOptNet
from bayesmeta.learners.closed_form.mixture_alpaca import MixtureALPaCA
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
from bayesmeta.learners.gradient.parametric import Parametric
from bayesmeta.learners.gradient.posteriors import Linearized, LinearizedDiagonal, PointEstimate
from bayesmeta.learners.metric.graph import GraphNetwork
from bayesmeta.learners.metric.infinite_mixture_prototypes import InfiniteMixturePrototypes
from bayesmeta.learners.metric.matching import Matching
from bayesmeta.learners.metric.prototypical import Prototypical
from bayesmeta.learners.metric.relation import Relation
from bayesmeta.learners.metric.siamese import Siamese
from bayesmeta.networks.bases import AdditiveRadialBasis, Identity, Polynomial, RadialBasis, Spline
from bayesmeta.networks.conv4 import Conv4
from bayesmeta.networks.mlp import MLP
from bayesmeta.networks.network import Network, WholeNetwork
from bayesmeta.networks.resnet12 import ResNet12
from bayesmeta.outcomes import Labels, Numbers, Outcomes
from bayesmeta.predictives import Predictive
from bayesmeta.reporting.report import report
from bayesmeta.selection.comparison import compare
from bayesmeta.selection.stack import stack
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.training.checkpoint import load, save
from bayesmeta.training.evidence import fit_evidence
from bayesmeta.training.fit import fit
from bayesmeta.version import VERSION
from bayesmeta.wrappers.hyper_posterior import HyperPosterior
from bayesmeta.wrappers.sampled import Sampled
from bayesmeta.wrappers.standardized import Standardized

__version__ = VERSION

__all__ = [
    "BMAML",
    "CAVIA",
    "IMAML",
    "LLAMA",
    "LRD2",
    "MAML",
    "MLP",
    "R2D2",
    "SNAIL",
    "ALPaCA",
    "AdditiveRadialBasis",
    "AlphaMAML",
    "BayesMetaError",
    "ConditionalNeuralProcess",
    "Conv4",
    "ConvCNP",
    "ConvergenceWarning",
    "Data",
    "DataError",
    "DeepKernelClassifier",
    "DeepKernelTransfer",
    "ExplicitLearner",
    "FirstOrderMAML",
    "GraphNetwork",
    "HierarchicalProcess",
    "HyperPosterior",
    "Identity",
    "InferenceError",
    "InfiniteMixturePrototypes",
    "Labels",
    "LatentNeuralProcess",
    "Learner",
    "LinearMixedModel",
    "Linearized",
    "LinearizedDiagonal",
    "MAMLPlusPlus",
    "Matching",
    "MetaOptNet",
    "MetaSGD",
    "MixtureALPaCA",
    "Network",
    "Numbers",
    "OutcomeWarning",
    "Outcomes",
    "Parametric",
    "PointEstimate",
    "Polynomial",
    "PrecisionWarning",
    "Predictive",
    "Prototypical",
    "R2D2Regressor",
    "RadialBasis",
    "Refit",
    "Relation",
    "ResNet12",
    "Sampled",
    "ShapeError",
    "Siamese",
    "Spline",
    "Standardized",
    "Task",
    "TaskBatch",
    "TaskDataset",
    "TaskPosterior",
    "TransformerNeuralProcess",
    "UnsupportedError",
    "WholeNetwork",
    "calibration",
    "checks",
    "compare",
    "evaluate",
    "evaluation",
    "fit",
    "fit_evidence",
    "heads",
    "hyperpriors",
    "inference",
    "kernels",
    "learners",
    "likelihoods",
    "load",
    "networks",
    "noise",
    "parametric",
    "plotting",
    "predict_frame",
    "predictives",
    "priors",
    "report",
    "save",
    "selection",
    "stack",
    "tasks",
    "training",
    "wrappers",
]
