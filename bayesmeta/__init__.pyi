"""The public names, once: `__init__.py` gives each when it is first asked for, type checkers read them here."""
# ruff: noqa: I001 (an import for each line of "as" would hide what is a namespace)

from . import (
    calibration as calibration,
    checks as checks,
    evaluation as evaluation,
    heads as heads,
    hyperpriors as hyperpriors,
    inference as inference,
    kernels as kernels,
    learners as learners,
    likelihoods as likelihoods,
    networks as networks,
    noise as noise,
    parametric as parametric,
    plotting as plotting,
    predictives as predictives,
    priors as priors,
    selection as selection,
    summaries as summaries,
    tasks as tasks,
    training as training,
    wrappers as wrappers,
)
from .data import Data as Data, Task as Task, TaskBatch as TaskBatch
from .errors import (
    BayesMetaError as BayesMetaError,
    ConvergenceWarning as ConvergenceWarning,
    DataError as DataError,
    InferenceError as InferenceError,
    OutcomeWarning as OutcomeWarning,
    PrecisionWarning as PrecisionWarning,
    ShapeError as ShapeError,
    UnsupportedError as UnsupportedError,
)
from .evaluation.evaluate import evaluate as evaluate
from .frames import predict_frame as predict_frame
from .interop.exporting.export import export as export
from .learner import (
    ExplicitLearner as ExplicitLearner,
    Learner as Learner,
    LinearMixedModel as LinearMixedModel,
    Refit as Refit,
    TaskPosterior as TaskPosterior,
)
from .learners.amortized.conditional import ConditionalNeuralProcess as ConditionalNeuralProcess
from .learners.amortized.conv_cnp import ConvCNP as ConvCNP
from .learners.amortized.latent import LatentNeuralProcess as LatentNeuralProcess
from .learners.amortized.mann import MANN as MANN
from .learners.amortized.meta_networks import MetaNetworks as MetaNetworks
from .learners.amortized.snail import SNAIL as SNAIL
from .learners.amortized.transformer import TransformerNeuralProcess as TransformerNeuralProcess
from .learners.baselines.fine_tuned import FineTuned as FineTuned
from .learners.closed_form.alpaca import ALPaCA as ALPaCA
from .learners.closed_form.deep_kernel import DeepKernelTransfer as DeepKernelTransfer
from .learners.closed_form.deep_kernel_classifier import DeepKernelClassifier as DeepKernelClassifier
from .learners.closed_form.hierarchical_process import HierarchicalProcess as HierarchicalProcess
from .learners.closed_form.lrd2 import LRD2 as LRD2
from .learners.closed_form.metaoptnet import MetaOptNet as MetaOptNet
from .learners.closed_form.mixture_alpaca import MixtureALPaCA as MixtureALPaCA
from .learners.closed_form.r2d2 import R2D2 as R2D2
from .learners.closed_form.r2d2_regressor import R2D2Regressor as R2D2Regressor
from .learners.gradient.alpha_maml import AlphaMAML as AlphaMAML
from .learners.gradient.bmaml import BMAML as BMAML
from .learners.gradient.cavia import CAVIA as CAVIA
from .learners.gradient.imaml import IMAML as IMAML
from .learners.gradient.llama import LLAMA as LLAMA
from .learners.gradient.maml import MAML as MAML, FirstOrderMAML as FirstOrderMAML
from .learners.gradient.maml_plus_plus import MAMLPlusPlus as MAMLPlusPlus
from .learners.gradient.meta_sgd import MetaSGD as MetaSGD
from .learners.gradient.parametric import Parametric as Parametric
from .learners.gradient.posteriors import (
    Linearized as Linearized,
    LinearizedDiagonal as LinearizedDiagonal,
    PointEstimate as PointEstimate,
)
from .learners.metric.graph import GraphNetwork as GraphNetwork
from .learners.metric.infinite_mixture_prototypes import InfiniteMixturePrototypes as InfiniteMixturePrototypes
from .learners.metric.matching import Matching as Matching
from .learners.metric.prototypical import Prototypical as Prototypical
from .learners.metric.relation import Relation as Relation
from .learners.metric.siamese import Siamese as Siamese
from .networks.bases import (
    AdditiveRadialBasis as AdditiveRadialBasis,
    Identity as Identity,
    Polynomial as Polynomial,
    RadialBasis as RadialBasis,
    Spline as Spline,
)
from .networks.conv4 import Conv4 as Conv4
from .networks.mlp import MLP as MLP
from .networks.network import Network as Network, WholeNetwork as WholeNetwork
from .networks.resnet12 import ResNet12 as ResNet12
from .outcomes import Labels as Labels, Numbers as Numbers, Outcomes as Outcomes
from .predictives import Predictive as Predictive
from .reporting.report import report as report
from .selection.comparison import compare as compare
from .selection.stack import stack as stack
from .tasks.dataset import TaskDataset as TaskDataset
from .streaming.stream import stream as stream
from .training.checkpoint import load as load, save as save
from .training.evidence import fit_evidence as fit_evidence
from .training.fit import fit as fit
from .wrappers.hyper_posterior import HyperPosterior as HyperPosterior
from .wrappers.sampled import Sampled as Sampled
from .wrappers.standardized import Standardized as Standardized

__version__: str
