"""Few-shot learning with uncertainty that can be trusted.

    learner = bayesmeta.ALPaCA(bayesmeta.MLP(1, [64, 64]))   theta, a prior and a likelihood
    bayesmeta.fit(learner, tasks)                            learn theta from many tasks
    posterior = learner.adapt(support)                       p(phi | D, theta) of a new task
    posterior.predict(x)                                     p(y | x, D, theta)
"""

from bayesmeta import plotting
from bayesmeta.data import Data, Task, TaskBatch
from bayesmeta.errors import BayesMetaError, DataError, InferenceError, ShapeError, UnsupportedError
from bayesmeta.evaluation.evaluate import Evaluation, evaluate
from bayesmeta.frames import predict_frame
from bayesmeta.learner import ExplicitLearner, Learner, TaskPosterior
from bayesmeta.learners.closed_form.alpaca import ALPaCA
from bayesmeta.likelihoods import (
    Bernoulli,
    Categorical,
    DiagonalNoise,
    FullNoise,
    Gaussian,
    HeteroscedasticGaussian,
    Likelihood,
    Noise,
    StudentT,
)
from bayesmeta.networks.bases import Identity, Polynomial, RadialBasis, Spline
from bayesmeta.networks.mlp import MLP
from bayesmeta.networks.network import Network
from bayesmeta.predictives import GaussianPredictive, IndependentPredictive, MixturePredictive, Predictive
from bayesmeta.priors import (
    DiagonalGaussian,
    DiagonalRows,
    FullGaussian,
    FullRows,
    IsotropicGaussian,
    IsotropicRows,
    MatrixNormal,
    Prior,
)
from bayesmeta.tasks.dataset import TaskDataset
from bayesmeta.tasks.sinusoid import Sinusoid
from bayesmeta.tasks.source import PrefixSplit, RandomSplit, Split, TaskSource
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
from bayesmeta.tasks.table import Schema
from bayesmeta.transforms import Standardized

__version__ = "0.1.0"
