"""Few-shot learning with uncertainty that can be trusted.

The whole of it in four lines:

    learner = bayesmeta.ALPaCA(bayesmeta.MLP(1, [64, 64]))   theta, a prior and a likelihood
    bayesmeta.fit(learner, tasks)                            learn theta from many tasks
    posterior = learner.adapt(support)                       p(phi | D, theta) of a new task
    posterior.predict(x)                                     p(y | x, D, theta)
"""

from bayesmeta import plotting
from bayesmeta.data import Data, Task, TaskBatch
from bayesmeta.errors import BayesMetaError, DataError, InferenceError, ShapeError, UnsupportedError
from bayesmeta.evaluation.evaluate import evaluate
from bayesmeta.evaluation.scores import Evaluation
from bayesmeta.frames import predict_frame
from bayesmeta.inference.implied_prior import ImpliedPrior
from bayesmeta.inference.solvers import LBFGS, GradientAscent, Solver
from bayesmeta.learner import ExplicitLearner, Learner, TaskPosterior
from bayesmeta.learners.closed_form.alpaca import ALPaCA
from bayesmeta.learners.closed_form.mixture_alpaca import MixtureALPaCA
from bayesmeta.learners.gradient._posteriors import Linearized, LinearizedDiagonal, PointEstimate
from bayesmeta.learners.gradient.alpha_maml import AlphaMAML
from bayesmeta.learners.gradient.bmaml import BMAML, Chaser
from bayesmeta.learners.gradient.cavia import CAVIA
from bayesmeta.learners.gradient.imaml import IMAML
from bayesmeta.learners.gradient.llama import LLAMA
from bayesmeta.learners.gradient.maml import MAML, FirstOrderMAML
from bayesmeta.learners.gradient.maml_plus_plus import MAMLPlusPlus
from bayesmeta.learners.gradient.meta_sgd import MetaSGD
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
from bayesmeta.networks.network import Network
from bayesmeta.noise import DiagonalNoise, FullNoise, Noise
from bayesmeta.predictives import (
    DenseGaussianPredictive,
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
    StandardNormal,
)
from bayesmeta.tasks.cauchy import Cauchy
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.gp_functions import GPFunctions
from bayesmeta.tasks.metal_benchmark import metal_benchmark
from bayesmeta.tasks.pendulum import Pendulum
from bayesmeta.tasks.sawtooth import Sawtooth
from bayesmeta.tasks.simulator import Simulator
from bayesmeta.tasks.sinusoid import Sinusoid
from bayesmeta.tasks.sloped_sinusoid import SlopedSinusoid
from bayesmeta.tasks.source import PrefixSplit, RandomSplit, Split, TaskSource
from bayesmeta.tasks.step import Step
from bayesmeta.tasks.table import Schema
from bayesmeta.tasks.task_mixture import TaskMixture
from bayesmeta.training.checkpoint import load, save
from bayesmeta.training.evidence import fit_evidence
from bayesmeta.training.fit import FitResult, fit
from bayesmeta.training.objectives import (
    Evidence,
    JointPredictive,
    MarginalPredictive,
    MaximumLikelihood,
    RestrictedMaximumLikelihood,
)
from bayesmeta.transforms import Standardized

__version__ = "0.1.0"

__all__ = [
    "BMAML",
    "CAVIA",
    "IMAML",
    "LBFGS",
    "LLAMA",
    "MAML",
    "MLP",
    "ALPaCA",
    "AlphaMAML",
    "BayesMetaError",
    "Bernoulli",
    "Categorical",
    "Cauchy",
    "Chaser",
    "Conv4",
    "Data",
    "DataError",
    "DenseGaussianPredictive",
    "DiagonalGaussian",
    "DiagonalNoise",
    "DiagonalRows",
    "Evaluation",
    "Evidence",
    "ExplicitLearner",
    "FirstOrderMAML",
    "FitResult",
    "FullGaussian",
    "FullNoise",
    "FullRows",
    "GPFunctions",
    "Gaussian",
    "GaussianPredictive",
    "GradientAscent",
    "HeteroscedasticGaussian",
    "Identity",
    "ImpliedPrior",
    "IndependentPredictive",
    "InferenceError",
    "IsotropicGaussian",
    "IsotropicRows",
    "JointPredictive",
    "Learner",
    "Likelihood",
    "Linearized",
    "LinearizedDiagonal",
    "MAMLPlusPlus",
    "MarginalPredictive",
    "MatrixNormal",
    "MatrixNormalMixture",
    "MaximumLikelihood",
    "MetaSGD",
    "MixtureALPaCA",
    "MixturePredictive",
    "Network",
    "Noise",
    "Pendulum",
    "PointEstimate",
    "Polynomial",
    "Predictive",
    "PrefixSplit",
    "Prior",
    "RadialBasis",
    "RandomSplit",
    "RestrictedMaximumLikelihood",
    "Sawtooth",
    "Schema",
    "ShapeError",
    "Simulator",
    "Sinusoid",
    "SlopedSinusoid",
    "Solver",
    "Spline",
    "Split",
    "StandardNormal",
    "Standardized",
    "Step",
    "StudentT",
    "Task",
    "TaskBatch",
    "TaskDataset",
    "TaskMixture",
    "TaskPosterior",
    "TaskSource",
    "UnsupportedError",
    "evaluate",
    "fit",
    "fit_evidence",
    "load",
    "metal_benchmark",
    "plotting",
    "predict_frame",
    "save",
]
