"""Few-shot learning with uncertainty that can be trusted.

The whole of it in four lines:

    learner = bayesmeta.ALPaCA(bayesmeta.MLP(1, [64, 64]))   theta, a prior and a likelihood
    bayesmeta.fit(learner, tasks)                            learn theta from many tasks
    posterior = learner.adapt(support)                       p(phi | D, theta) of a new task
    posterior.predict(x)                                     p(y | x, D, theta)
"""

from bayesmeta import heads, plotting
from bayesmeta.calibration.conformal import HierarchicalConformal, SplitConformal
from bayesmeta.calibration.conformity_scores import (
    CentralProbability,
    CumulativeProbability,
    MissingProbability,
    StandardizedResidual,
)
from bayesmeta.calibration.few_shot_conformal import FewShotConformal
from bayesmeta.calibration.recalibration import isotonic_recalibration, temperature_scaling, variance_scaling
from bayesmeta.checks.fidelity import Fidelity, fidelity
from bayesmeta.checks.sbc import RankStatistics, predictive_sbc, sbc
from bayesmeta.checks.surprise import Surprise, shrinkage
from bayesmeta.data import Data, Task, TaskBatch
from bayesmeta.errors import (
    BayesMetaError,
    ConvergenceWarning,
    DataError,
    InferenceError,
    ShapeError,
    UnsupportedError,
)
from bayesmeta.evaluation.evaluate import evaluate
from bayesmeta.evaluation.scores import Evaluation
from bayesmeta.frames import predict_frame
from bayesmeta.hyperpriors import DeviationHyperprior, GaussianHyperprior, Hyperprior
from bayesmeta.inference.implied_prior import ImpliedPrior
from bayesmeta.inference.nuts import NUTS, DenseMetric, DiagonalMetric
from bayesmeta.inference.solvers import LBFGS, GradientAscent, Solver
from bayesmeta.kernels import (
    CosineSimilarityKernel,
    Kernel,
    LinearKernel,
    MaternKernel,
    RBFKernel,
    SpectralMixtureKernel,
)
from bayesmeta.learner import ExplicitLearner, Learner, Refit, TaskPosterior
from bayesmeta.learners.closed_form.alpaca import ALPaCA
from bayesmeta.learners.closed_form.deep_kernel import DeepKernelTransfer
from bayesmeta.learners.closed_form.deep_kernel_classifier import DeepKernelClassifier
from bayesmeta.learners.closed_form.lrd2 import LRD2
from bayesmeta.learners.closed_form.metaoptnet import MetaOptNet
from bayesmeta.learners.closed_form.mixture_alpaca import MixtureALPaCA
from bayesmeta.learners.closed_form.r2d2 import R2D2
from bayesmeta.learners.closed_form.r2d2_regressor import R2D2Regressor
from bayesmeta.learners.gradient.alpha_maml import AlphaMAML
from bayesmeta.learners.gradient.base import AscentLearner, ExplicitWeightLearner, GradientLearner, WeightLearner
from bayesmeta.learners.gradient.bmaml import BMAML
from bayesmeta.learners.gradient.cavia import CAVIA
from bayesmeta.learners.gradient.imaml import IMAML
from bayesmeta.learners.gradient.llama import LLAMA
from bayesmeta.learners.gradient.maml import MAML, FirstOrderMAML
from bayesmeta.learners.gradient.maml_plus_plus import MAMLPlusPlus
from bayesmeta.learners.gradient.meta_sgd import MetaSGD
from bayesmeta.learners.gradient.posteriors import Approximation, Linearized, LinearizedDiagonal, PointEstimate
from bayesmeta.likelihoods import (
    Bernoulli,
    Categorical,
    Gaussian,
    HeteroscedasticGaussian,
    Likelihood,
    StudentT,
)
from bayesmeta.networks.bases import Identity, Polynomial, RadialBasis, Spline
from bayesmeta.networks.conv4 import Conv4
from bayesmeta.networks.mlp import MLP
from bayesmeta.networks.network import Network, WholeNetwork
from bayesmeta.networks.resnet12 import ResNet12
from bayesmeta.noise import DiagonalNoise, FullNoise, Noise
from bayesmeta.outcomes import Labels, Numbers, Outcomes
from bayesmeta.predictives import (
    DenseGaussianPredictive,
    EnsemblePredictive,
    GaussianPredictive,
    IndependentPredictive,
    MixturePredictive,
    Predictive,
)
from bayesmeta.priors import (
    DiagonalGaussian,
    DiagonalRows,
    FullGaussian,
    FullRows,
    IsotropicGaussian,
    IsotropicRows,
    MatrixNormal,
    MatrixNormalMixture,
    Prior,
    Ridge,
    StandardNormal,
)
from bayesmeta.reporting.report import Report, report
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.images.episodes import Episodes
from bayesmeta.tasks.images.image_classes import ImageClasses
from bayesmeta.tasks.images.omniglot import download_omniglot, omniglot, omniglot_runs
from bayesmeta.tasks.simulators.cauchy import Cauchy
from bayesmeta.tasks.simulators.gaussian_blobs import GaussianBlobs
from bayesmeta.tasks.simulators.gp_functions import GPFunctions
from bayesmeta.tasks.simulators.metal_benchmark import metal_benchmark
from bayesmeta.tasks.simulators.pendulum import Pendulum
from bayesmeta.tasks.simulators.sawtooth import Sawtooth
from bayesmeta.tasks.simulators.simulator import Simulator
from bayesmeta.tasks.simulators.sinusoid import Sinusoid
from bayesmeta.tasks.simulators.sloped_sinusoid import SlopedSinusoid
from bayesmeta.tasks.simulators.step import Step
from bayesmeta.tasks.simulators.task_mixture import TaskMixture
from bayesmeta.tasks.source import ClassSplit, PrefixSplit, RandomSplit, Split, TaskSource
from bayesmeta.tasks.table import Schema
from bayesmeta.training.chaser import Chaser
from bayesmeta.training.checkpoint import load, save
from bayesmeta.training.evidence import fit_evidence
from bayesmeta.training.fit import fit
from bayesmeta.training.objectives import (
    Evidence,
    JointPredictive,
    MarginalPredictive,
    MaximumLikelihood,
    RestrictedMaximumLikelihood,
)
from bayesmeta.training.result import FitResult
from bayesmeta.training.theta_posterior import nuts_hyper_posterior, svgd_hyper_posterior, vi_hyper_posterior
from bayesmeta.wrappers.hyper_posterior import HyperPosterior
from bayesmeta.wrappers.recalibrated import IsotonicRecalibrated, TemperatureScaled, VarianceScaled
from bayesmeta.wrappers.sampled import DrawsPosterior, Sampled
from bayesmeta.wrappers.standardized import Standardized

__version__ = "0.1.0"

__all__ = [
    "BMAML",
    "CAVIA",
    "IMAML",
    "LBFGS",
    "LLAMA",
    "LRD2",
    "MAML",
    "MLP",
    "NUTS",
    "R2D2",
    "ALPaCA",
    "AlphaMAML",
    "Approximation",
    "AscentLearner",
    "BayesMetaError",
    "Bernoulli",
    "Categorical",
    "Cauchy",
    "CentralProbability",
    "Chaser",
    "ClassSplit",
    "Conv4",
    "ConvergenceWarning",
    "CosineSimilarityKernel",
    "CumulativeProbability",
    "Data",
    "DataError",
    "DeepKernelClassifier",
    "DeepKernelTransfer",
    "DenseGaussianPredictive",
    "DenseMetric",
    "DeviationHyperprior",
    "DiagonalGaussian",
    "DiagonalMetric",
    "DiagonalNoise",
    "DiagonalRows",
    "DrawsPosterior",
    "EnsemblePredictive",
    "Episodes",
    "Evaluation",
    "Evidence",
    "ExplicitLearner",
    "ExplicitWeightLearner",
    "FewShotConformal",
    "Fidelity",
    "FirstOrderMAML",
    "FitResult",
    "FullGaussian",
    "FullNoise",
    "FullRows",
    "GPFunctions",
    "Gaussian",
    "GaussianBlobs",
    "GaussianHyperprior",
    "GaussianPredictive",
    "GradientAscent",
    "GradientLearner",
    "HeteroscedasticGaussian",
    "HierarchicalConformal",
    "HyperPosterior",
    "Hyperprior",
    "Identity",
    "ImageClasses",
    "ImpliedPrior",
    "IndependentPredictive",
    "InferenceError",
    "IsotonicRecalibrated",
    "IsotropicGaussian",
    "IsotropicRows",
    "JointPredictive",
    "Kernel",
    "Labels",
    "Learner",
    "Likelihood",
    "LinearKernel",
    "Linearized",
    "LinearizedDiagonal",
    "MAMLPlusPlus",
    "MarginalPredictive",
    "MaternKernel",
    "MatrixNormal",
    "MatrixNormalMixture",
    "MaximumLikelihood",
    "MetaOptNet",
    "MetaSGD",
    "MissingProbability",
    "MixtureALPaCA",
    "MixturePredictive",
    "Network",
    "Noise",
    "Numbers",
    "Outcomes",
    "Pendulum",
    "PointEstimate",
    "Polynomial",
    "Predictive",
    "PrefixSplit",
    "Prior",
    "R2D2Regressor",
    "RBFKernel",
    "RadialBasis",
    "RandomSplit",
    "RankStatistics",
    "Refit",
    "Report",
    "ResNet12",
    "RestrictedMaximumLikelihood",
    "Ridge",
    "Sampled",
    "Sawtooth",
    "Schema",
    "ShapeError",
    "Simulator",
    "Sinusoid",
    "SlopedSinusoid",
    "Solver",
    "SpectralMixtureKernel",
    "Spline",
    "Split",
    "SplitConformal",
    "StandardNormal",
    "Standardized",
    "StandardizedResidual",
    "Step",
    "StudentT",
    "Surprise",
    "Task",
    "TaskBatch",
    "TaskDataset",
    "TaskMixture",
    "TaskPosterior",
    "TaskSource",
    "TemperatureScaled",
    "UnsupportedError",
    "VarianceScaled",
    "WeightLearner",
    "WholeNetwork",
    "download_omniglot",
    "evaluate",
    "fidelity",
    "fit",
    "fit_evidence",
    "heads",
    "isotonic_recalibration",
    "load",
    "metal_benchmark",
    "nuts_hyper_posterior",
    "omniglot",
    "omniglot_runs",
    "plotting",
    "predict_frame",
    "predictive_sbc",
    "report",
    "save",
    "sbc",
    "shrinkage",
    "svgd_hyper_posterior",
    "temperature_scaling",
    "variance_scaling",
    "vi_hyper_posterior",
]
