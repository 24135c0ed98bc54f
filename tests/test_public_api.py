"""The public names: adding or removing one is a decision, and this list is where it is taken."""

import types

import bayesmeta as bm

NAMES = [
    "ALPaCA",
    "BayesMetaError",
    "Bernoulli",
    "Categorical",
    "Cauchy",
    "Data",
    "DataError",
    "DiagonalGaussian",
    "DiagonalNoise",
    "DiagonalRows",
    "Evaluation",
    "Evidence",
    "ExplicitLearner",
    "FitResult",
    "FullGaussian",
    "FullNoise",
    "FullRows",
    "GPFunctions",
    "Gaussian",
    "GaussianPredictive",
    "HeteroscedasticGaussian",
    "Identity",
    "IndependentPredictive",
    "InferenceError",
    "IsotropicGaussian",
    "IsotropicRows",
    "JointPredictive",
    "Learner",
    "Likelihood",
    "MLP",
    "MarginalPredictive",
    "MatrixNormal",
    "MatrixNormalMixture",
    "MaximumLikelihood",
    "MixtureALPaCA",
    "MixturePredictive",
    "Network",
    "Noise",
    "Pendulum",
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
    "Spline",
    "Split",
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
