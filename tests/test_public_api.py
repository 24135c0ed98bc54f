"""The public names: adding or removing one is a decision, and this list is where it is taken."""

import types

import bayesmeta as bm

NAMES = [
    "ALPaCA",
    "AlphaMAML",
    "BMAML",
    "BayesMetaError",
    "Bernoulli",
    "CAVIA",
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
    "IMAML",
    "Identity",
    "ImpliedPrior",
    "IndependentPredictive",
    "InferenceError",
    "IsotropicGaussian",
    "IsotropicRows",
    "JointPredictive",
    "LBFGS",
    "LLAMA",
    "Learner",
    "Likelihood",
    "Linearized",
    "LinearizedDiagonal",
    "MAML",
    "MAMLPlusPlus",
    "MLP",
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
    "predict_frame",
    "save",
]


def test_public_names_are_these() -> None:
    found = {n for n, v in vars(bm).items() if not n.startswith("_") and not isinstance(v, types.ModuleType)}
    assert found == set(NAMES)


def test_every_public_name_has_a_docstring() -> None:
    for name in NAMES:
        assert getattr(bm, name).__doc__, name


def test_plotting_is_there() -> None:
    assert callable(bm.plotting.predictive_bands)
