"""Every public class, made with one argument that makes no sense: what is made works, or the error is our own."""

import inspect
import math
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch

import bayesmeta as bm
from bayesmeta.description import Described

NOTHING = object()
BAD = [math.nan, math.inf, -1, 0, 1.5, True, "text", None, [], [math.nan], (2.0, 1.0), 10**400, bm.MLP, NOTHING]
NUMBERS = bm.Data.from_arrays([0.1, 0.4, 0.9, 1.3], [0.3, 0.1, -0.2, 0.4])
CLASSES = bm.Data(torch.randn(1, 6, 2), torch.tensor([[0, 1, 2, 0, 1, 2]]), torch.ones(1, 6, dtype=torch.bool))
YES_OR_NO = bm.Data(NUMBERS.x, torch.tensor([[0, 1, 1, 0]]), NUMBERS.mask)
Use = Callable[[Any], object]
Arguments = dict[str, Any]  # what can be called is called, to give each try its own


def _network() -> bm.MLP:
    return bm.MLP(1, [4])


def _alpaca() -> bm.ALPaCA:
    return bm.ALPaCA(bm.Identity(1))


def _base_points() -> bm.tasks.BasePoints:
    return bm.tasks.BasePoints.from_labels(CLASSES.x[0], CLASSES.y[0])


def _tasks() -> bm.TaskDataset:
    return bm.TaskDataset.from_list([([0.0, 1.0, 2.0, 3.0], [0.1, 1.2, 1.8, 3.1])] * 10)


def _adapt(learner: bm.Learner, data: bm.Data | None = None) -> None:
    """A learner adapts and predicts."""
    if data is None:
        data = NUMBERS if isinstance(learner.outcomes, bm.Numbers) else CLASSES
    if isinstance(learner.outcomes, bm.Numbers):
        data = bm.Data(data.x, data.y.expand(-1, -1, learner.outcomes.count), data.mask)
    if learner.x_shape != data.x.shape[2:]:
        data = bm.Data(torch.randn(*data.x.shape[:2], *learner.x_shape), data.y, data.mask)
    prediction = learner.adapt(data).predict(data.x)
    assert prediction.shape == data.y.shape


def _draws(simulator: bm.tasks.Simulator) -> None:
    assert simulator.dataset(num_tasks=3, num_points=4, seed=0).data.num_tasks == 3


def _functions(kernel: bm.tasks.StationaryKernel) -> None:
    _draws(bm.tasks.GPFunctions(kernel))


def _nodes(posterior: bm.learners.Approximation) -> None:
    covariance = bm.priors.FullCovariance(3, varying=[0])
    likelihood = bm.likelihoods.Categorical(3)
    _adapt(
        bm.learners.GeneralizedLinearMixedModel(
            bm.Identity(2), likelihood=likelihood, covariance=covariance, posterior=posterior
        )
    )


def _features(network: bm.Network) -> None:
    assert network(torch.randn(2, 3, *network.x_shape)).shape == (2, 3, network.num_outputs)


def _head(head: bm.heads.Head) -> None:
    _adapt(bm.R2D2(bm.MLP(2, [4]), num_classes=3, head=head))


def _comparison(head: bm.heads.Head) -> None:
    _adapt(bm.Prototypical(bm.MLP(2, [head.num_features or 4]), num_classes=3, head=head))


def _context(context: bm.heads.Context) -> None:
    _adapt(bm.Matching(bm.MLP(2, [4]), num_classes=3, context=context))


def _aggregation(aggregation: bm.learners.Aggregation) -> None:
    _adapt(bm.ConditionalNeuralProcess(_network(), aggregation=aggregation, width=4, layers=1))


def _output(head: bm.heads.OutputHead) -> None:
    _adapt(bm.ConvCNP(head=head, points_per_unit=4.0, channels=4, layers=1, kernel_size=3))


def _relative(relative: bm.learners.RelativeBias) -> None:
    _adapt(bm.TransformerNeuralProcess(bm.Identity(1), relative=relative, width=4, layers=1, num_heads=1))


def _memory(memory: bm.networks.Memory) -> None:
    _adapt(bm.MANN(_network(), memory=memory, width=4))


def _kernel(kernel: bm.kernels.Kernel) -> None:
    _adapt(bm.DeepKernelTransfer(_network(), kernel=kernel))


def _likelihood(likelihood: bm.likelihoods.Likelihood) -> None:
    data = {bm.likelihoods.Bernoulli: YES_OR_NO, bm.likelihoods.Categorical: CLASSES}.get(type(likelihood))
    _adapt(bm.MAML(_network(), likelihood=likelihood), data)


def _covariance(covariance: bm.priors.FeatureCovariance) -> None:
    _adapt(bm.ALPaCA(bm.MLP(1, [covariance.num_features]), covariance=covariance))


def _noise(noise: Any) -> None:
    _adapt(bm.ALPaCA(_network(), num_outputs=noise.num_outputs, noise=noise))


def _solver(solver: bm.inference.Solver) -> None:
    _adapt(bm.IMAML(_network(), solver=solver))


def _belief(posterior: Any) -> None:
    _adapt(bm.MAML(_network(), posterior=posterior))


def _chaser(objective: bm.training.Chaser) -> None:
    learner = bm.BMAML(_network(), num_particles=2, steps=2)
    bm.fit(learner, _tasks(), steps=1, objective=objective, progress=False)


def _order(order: bm.wrappers.Order) -> None:
    prediction = bm.wrappers.Autoregressive(_alpaca(), order).adapt(NUMBERS).predict(NUMBERS.x)
    assert torch.isfinite(prediction.log_prob(NUMBERS.y.float())).all()


def _scales() -> dict[str, bm.parametric.Scale]:
    return {"Vmax": bm.parametric.Positive(1.0), "Km": bm.parametric.Positive(1.0)}


def _scale(scale: bm.parametric.Scale) -> None:
    _adapt(bm.Parametric(bm.parametric.MichaelisMenten(), _scales() | {"Km": scale}))


def _formula(formula: bm.parametric.Formula) -> None:
    scales = {name: bm.parametric.Positive(1.0) for name in formula.names[0]}
    _adapt(
        bm.Parametric(formula, scales), bm.Data(NUMBERS.x.expand(-1, -1, formula.num_inputs), NUMBERS.y, NUMBERS.mask)
    )


def _made(made: object) -> None:
    """It is enough that it was made."""


GRADIENT: Arguments = {
    "network": _network,
    "steps": 2,
    "lr": 0.01,
    "num_outputs": 1,
    "likelihood": bm.likelihoods.Gaussian,
    "posterior": bm.Linearized,
    "adapted": lambda: ["output"],
}
EXPLICIT = GRADIENT | {"precision": 10.0}
HEAD: Arguments = {
    "features": lambda: bm.MLP(2, [4]),
    "num_classes": 3,
    "scale": 1.0,
    "spread": 1.0,
}
METRIC: Arguments = {name: HEAD[name] for name in ("features", "num_classes")}
NEURAL: Arguments = {
    "features": _network,
    "head": bm.heads.GaussianHead,
    "width": 4,
    "layers": 1,
}
LAYER: Arguments = {"features": _network, "num_outputs": 1, "noise": bm.noise.DiagonalNoise}
SCALED: Arguments = LAYER | {"scale": bm.priors.TaskScale}
COVARIANCE: Arguments = {"num_features": 4, "variance": 1.0, "varying": lambda: [0, 1]}
NOISE: Arguments = {"num_outputs": 1, "initial": 0.1, "bounds": (1e-8, 1e8)}
SHOTS: Arguments = {"shots": 2, "score": bm.calibration.StandardizedResidual, "query": 2, "seed": 0, "batch_size": 4}
SHOTS |= {"learner": _alpaca, "split": lambda: bm.tasks.RandomSplit}
RANGE = (0.0, 1.0)


def _without(arguments: Arguments, *names: str) -> Arguments:
    return {name: value for name, value in arguments.items() if name not in names}


def _mean() -> dict[str, torch.Tensor]:
    return {"a": torch.zeros(2)}


SOLVED = _without(EXPLICIT, "steps", "lr") | {"prior": lambda: bm.priors.FactoredGaussian}
CLASSES_OF: dict[type, tuple[Use, Arguments]] = {
    bm.MAML: (_adapt, GRADIENT | {"checkpoint": False}),
    bm.FirstOrderMAML: (_adapt, GRADIENT | {"checkpoint": False}),
    bm.MetaSGD: (_adapt, GRADIENT | {"checkpoint": False}),
    bm.AlphaMAML: (_adapt, GRADIENT | {"inner_hyper_lr": 0.01, "outer_hyper_lr": 0.01}),
    bm.MAMLPlusPlus: (_adapt, GRADIENT | {"multi_step_share": 0.15, "first_order_share": 0.0}),
    bm.CAVIA: (_adapt, _without(GRADIENT, "adapted") | {"num_context": 2}),
    bm.BMAML: (_adapt, _without(EXPLICIT, "posterior") | {"num_particles": 2, "spread": 0.1}),
    bm.LLAMA: (_adapt, SOLVED | {"solver": bm.inference.LevenbergMarquardt}),
    bm.IMAML: (
        _adapt,
        SOLVED | {"solver": bm.inference.LBFGS, "gauss_newton": False, "solve_steps": 3, "solve_tolerance": 1e-6},
    ),
    bm.TransformerNeuralProcess: (
        _adapt,
        {
            "features": _network,
            "head": bm.heads.GaussianHead,
            "width": 8,
            "layers": 2,
            "num_heads": 2,
            "relative": bm.learners.RelativeBias,
        },
    ),
    bm.SNAIL: (
        _adapt,
        {
            "features": _network,
            "head": bm.heads.GaussianHead,
            "max_points": 5,
            "channels": 4,
            "attention": ((4, 2), (4, 2)),
        },
    ),
    bm.MANN: (
        _adapt,
        {"features": _network, "head": bm.heads.GaussianHead, "memory": lambda: bm.networks.LSTMMemory(4), "width": 4},
    ),
    bm.networks.LSTMMemory: (_memory, {"size": 4}),
    bm.networks.LRUA: (_memory, {"slots": 3, "width": 2, "reads": 1, "size": 4, "decay": 0.9}),
    bm.MetaNetworks: (_adapt, {"features": _network, "head": bm.heads.GaussianHead, "width": 4, "num_keys": 3}),
    bm.FineTuned: (
        _adapt,
        _without(EXPLICIT, "steps", "lr")
        | {"likelihood": lambda: bm.likelihoods.Categorical(3), "num_outputs": 3, "base_classes": 4}
        | {"solver": bm.inference.GradientSteps},
    ),
    bm.learners.RelativeBias: (_relative, {"reach": 4.0, "num_bumps": 4, "hidden": 4}),
    bm.Parametric: (
        _adapt,
        {
            "function": bm.parametric.MichaelisMenten,
            "parameters": _scales,
            "covariance": lambda: bm.priors.DiagonalCovariance(2),
            "num_inputs": 1,
            "likelihood": bm.likelihoods.Gaussian,
            "posterior": bm.Linearized,
            "steps": 5,
        },
    ),
    bm.learners.GeneralizedLinearMixedModel: (
        _adapt,
        {
            "features": lambda: bm.Identity(2),
            "likelihood": lambda: bm.likelihoods.Categorical(3),
            "covariance": lambda: bm.priors.FullCovariance(3, varying=[0]),
            "nodes": 2,
            "posterior": bm.learners.WeightedDraws,
            "steps": 9,
        },
    ),
    bm.learners.AdaptiveQuadrature: (_nodes, {"nodes": 3}),
    bm.parametric.Curve: (
        _features,
        {"function": bm.parametric.MichaelisMenten, "scales": _scales, "num_inputs": 1},
    ),
    bm.parametric.Positive: (_scale, {"initial": 1.0, "stddev": 0.5}),
    bm.parametric.Real: (_scale, {"initial": 1.0, "stddev": 0.5}),
    bm.parametric.Interval: (_scale, {"lower": 0.0, "upper": 2.0, "initial": 1.0, "stddev": 0.5}),
    bm.parametric.Arrhenius: (_formula, {"reference": 298.0}),
    bm.parametric.Biexponential: (_formula, {}),
    bm.parametric.LogisticGrowth: (_formula, {}),
    bm.parametric.MichaelisMenten: (_formula, {}),
    bm.parametric.OneCompartment: (_formula, {"dose": 4.0}),
    bm.learners.WeightedDraws: (
        lambda posterior: _adapt(bm.Parametric(bm.parametric.MichaelisMenten(), _scales(), posterior=posterior)),
        {"num_draws": 8},
    ),
    bm.Linearized: (_belief, {"draws": 2}),
    bm.LinearizedDiagonal: (_belief, {"draws": 2}),
    bm.PointEstimate: (_belief, {}),
    bm.R2D2: (_adapt, HEAD | {"head": bm.heads.RidgeHead}),
    bm.LRD2: (_adapt, HEAD | {"head": bm.heads.LogisticHead}),
    bm.MetaOptNet: (_adapt, HEAD | {"head": bm.heads.SVMHead}),
    bm.DeepKernelClassifier: (_adapt, HEAD | {"head": lambda: bm.heads.GaussianProcessHead(4)}),
    bm.Prototypical: (
        _adapt,
        METRIC | {"head": lambda: bm.heads.NearestMeanHead(num_features=4), "power": 1.0},
    ),
    bm.Matching: (_adapt, METRIC | {"context": lambda: bm.heads.SetAttention(4)}),
    bm.Siamese: (_adapt, METRIC | {"head": lambda: bm.heads.PairHead(4)}),
    bm.Relation: (_adapt, METRIC | {"map_shape": (4, 1, 1)}),
    bm.ConvCNP: (
        _adapt,
        {
            "head": bm.heads.GaussianHead,
            "points_per_unit": 4.0,
            "channels": 4,
            "layers": 1,
            "kernel_size": 3,
        },
    ),
    bm.heads.GaussianHead: (_output, {"num_outputs": 2, "min_stddev": 1e-3}),
    bm.heads.MixtureHead: (_output, {"num_components": 2, "num_outputs": 2, "min_stddev": 1e-3}),
    bm.heads.LowRankGaussianHead: (_output, {"rank": 2, "num_outputs": 2, "min_stddev": 1e-3}),
    bm.heads.CategoricalHead: (_output, {"num_classes": 3}),
    bm.heads.OneHotHead: (_output, {"num_classes": 3}),
    bm.heads.ClassSlots: (_output, {"num_classes": 3}),
    bm.ConditionalNeuralProcess: (_adapt, NEURAL | {"aggregation": bm.learners.MeanPool}),
    bm.LatentNeuralProcess: (
        _adapt,
        NEURAL | {"aggregation": bm.learners.BayesianPool, "path": bm.learners.CrossAttention, "num_draws": 2},
    ),
    bm.learners.LatentModel: (_adapt, {"process": lambda: bm.LatentNeuralProcess(bm.Identity(1))}),
    bm.learners.MeanPool: (_aggregation, {"size": 4}),
    bm.learners.BayesianPool: (_aggregation, {"size": 4}),
    bm.learners.CrossAttention: (_aggregation, {"size": 4, "num_heads": 2}),
    bm.learners.GaussianClasses: (
        _adapt,
        {"classifier": lambda: bm.Prototypical(bm.MLP(2, [4]), num_classes=3)},
    ),
    bm.InfiniteMixturePrototypes: (_adapt, METRIC | {"head": lambda: bm.heads.ClusterHead(4), "power": 1.0}),
    bm.GraphNetwork: (_adapt, METRIC | {"head": lambda: bm.heads.GraphHead(4)}),
    bm.ALPaCA: (_adapt, SCALED | {"covariance": lambda: bm.priors.FullCovariance(4)}),
    bm.learners.MixedEffects: (
        _adapt,
        LAYER
        | {
            "levels": lambda: [2],
            "covariance": lambda: bm.priors.FullCovariance(4),
            "shared": lambda: [bm.priors.DiagonalCovariance(4)],
        },
    ),
    bm.MixtureALPaCA: (_adapt, SCALED | {"num_components": 2}),
    bm.R2D2Regressor: (_adapt, SCALED | {"ridge": 1.0}),
    bm.HierarchicalProcess: (
        _adapt,
        LAYER
        | {"shared_kernel": bm.kernels.RBFKernel, "own_kernel": bm.kernels.RBFKernel, "mean": _network}
        | {"exact_rows": 100, "num_inducing": 10},
    ),
    bm.DeepKernelTransfer: (_adapt, SCALED | {"kernel": bm.kernels.RBFKernel, "mean": _network}),
    bm.MLP: (
        _features,
        {"num_inputs": 1, "hidden": lambda: [4, 4], "activation": "tanh", "norm": "layer", "skip": True},
    ),
    bm.networks.ConvNet: (
        _features,
        {"x_shape": (1, 8, 8), "channels": 8, "blocks": 2, "kernel": 3, "norm": "group", "num_groups": 4},
    ),
    bm.Conv4: (_features, {"x_shape": (1, 8, 8), "channels": 8, "norm": "group", "num_groups": 4}),
    bm.ResNet12: (_features, {"x_shape": (1, 8, 8), "channels": (4, 4, 4, 4), "average": False, "num_groups": 2}),
    bm.Identity: (_features, {"num_inputs": 1}),
    bm.Polynomial: (_features, {"num_inputs": 1, "degree": 2}),
    bm.RadialBasis: (_features, {"num_inputs": 1, "num_centers": 3, "bounds": (-1.0, 1.0), "width": 1.0}),
    bm.AdditiveRadialBasis: (_features, {"num_inputs": 1, "num_centers": 3, "bounds": (-1.0, 1.0), "width": 1.0}),
    bm.Spline: (_features, {"knots": lambda: [0.0, 1.0], "degree": 3}),
    bm.networks.CosineOutput: (_features, {"features": lambda: bm.networks.Cosine(_network()), "num_outputs": 2}),
    bm.networks.Cosine: (_features, {"features": _network, "scale": 10.0}),
    bm.networks.LowPrecision: (_features, {"features": _network}),
    bm.networks.LowPrecisionOutput: (
        _features,
        {"features": lambda: bm.networks.LowPrecision(_network()), "num_outputs": 2},
    ),
    bm.networks.Concatenated: (_features, {"parts": lambda: [_network(), bm.networks.Inputs(1)]}),
    bm.networks.Inputs: (_features, {"num_inputs": 1}),
    bm.networks.FourierFeatures: (_features, {"num_inputs": 1, "num_frequencies": 3, "bounds": (0.5, 10.0)}),
    bm.networks.TaskCovariates: (_features, {"features": _network, "covariates": 2, "shifted": lambda: [0]}),
    bm.networks.SplitOutput: (
        _features,
        {"features": lambda: bm.networks.TaskCovariates(bm.Identity(1), 1), "num_outputs": 2},
    ),
    bm.networks.DenseOutput: (_features, {"features": _network, "num_outputs": 2}),
    bm.networks.TaskNorm: (_made, {"num_channels": 4, "eps": 1e-5}),
    bm.Standardized: (_made, {"learner": _alpaca}),
    bm.wrappers.LogTransformed: (_made, {"learner": _alpaca}),
    bm.HyperPosterior: (_adapt, {"members": lambda: [_alpaca(), _alpaca()]}),
    bm.Sampled: (_made, {"learner": _alpaca, "sampler": bm.inference.NUTS, "seed": 0}),
    bm.wrappers.Autoregressive: (_adapt, {"learner": _alpaca, "order": bm.wrappers.LeftToRight}),
    bm.wrappers.WithHyperprior: (
        _adapt,
        {"learner": _alpaca, "hyperprior": lambda: bm.hyperpriors.GaussianHyperprior(1.0, "prior")},
    ),
    bm.wrappers.ConceptLearner: (
        _adapt,
        {"learner": lambda: bm.R2D2(bm.MLP(2, [4]), num_classes=3), "points": _base_points, "weight": 1.0}
        | {"batch_size": 4},
    ),
    bm.tasks.BasePoints: (_made, {"num_classes": 3, "x_shape": (2,), "seed": 0}),
    bm.wrappers.TaskQuadrature: (_adapt, {"learner": _alpaca, "vary": bm.wrappers.NoiseScale, "nodes": 3}),
    bm.wrappers.NoiseScale: (_made, {"deviation": 0.3}),
    bm.wrappers.SignalScale: (_made, {"deviation": 0.3}),
    bm.wrappers.InputScale: (_made, {"deviation": 0.3}),
    bm.wrappers.Stacked: (
        _adapt,
        {"learners": lambda: {"a": _alpaca(), "b": _alpaca()}, "weights": lambda: {"a": 1.0, "b": 2.0}}
        | {"points": (0,)},
    ),
    bm.wrappers.Separately: (_adapt, {"learners": lambda: {"a": _alpaca(), "b": _alpaca()}}),
    bm.wrappers.Given: (_order, {}),
    bm.wrappers.LeftToRight: (_order, {}),
    bm.wrappers.Random: (_order, {"num_orders": 2, "seed": 0}),
    bm.wrappers.VarianceScaled: (_adapt, {"learner": _alpaca, "shots": (0, 1)}),
    bm.wrappers.IsotonicRecalibrated: (_adapt, {"learner": _alpaca, "shots": (0, 1), "num_outputs": 1}),
    bm.wrappers.TemperatureScaled: (
        _adapt,
        {"learner": lambda: bm.R2D2(bm.MLP(2, [4]), num_classes=3), "shots": (0, 1)},
    ),
    bm.heads.GaussianProcessHead: (_head, {"num_features": 4, "kernel": bm.kernels.RBFKernel, "noise": 0.1}),
    bm.heads.LogisticHead: (_head, {"ridge": 1.0}),
    bm.heads.NearestMeanHead: (_head, {"prior_variance": 1.0, "noise": 1.0, "num_features": 4}),
    bm.heads.KernelCountsHead: (
        _comparison,
        {"num_features": 4, "sharpness": 10.0, "concentration": 0.01, "context": lambda: bm.heads.SetAttention(4)},
    ),
    bm.heads.PairHead: (_comparison, {"num_features": 4}),
    bm.heads.RelationHead: (_comparison, {"map_shape": (4, 1, 1), "channels": 8, "hidden": 2}),
    bm.heads.BiLSTM: (_context, {"num_features": 4, "reads": 2}),
    bm.heads.SetAttention: (_context, {"num_features": 4, "num_heads": 2}),
    bm.heads.ClusterHead: (
        _head,
        {"num_features": 4, "alpha": 0.1, "radius": 1.0, "prior_variance": 1.0, "noise": 1.0},
    ),
    bm.heads.GraphHead: (_head, {"num_features": 4, "blocks": 2, "width": 3, "channels": 2, "temperature": 0.25}),
    bm.heads.RidgeHead: (_head, {"ridge": 1.0}),
    bm.heads.SVMHead: (_head, {"penalty": 0.1}),
    bm.hyperpriors.DeviationHyperprior: (_made, {"scale": 2.5, "dof": 3.0}),
    bm.hyperpriors.GaussianHyperprior: (_made, {"scale": 1.0, "names": lambda: ["features"]}),
    bm.hyperpriors.LogNormalHyperprior: (_made, {"median": 1.0, "scale": 2.3, "names": lambda: ["likelihood"]}),
    bm.inference.LBFGS: (_solver, {"steps": 5, "tolerance": 1e-5, "history": 10}),
    bm.inference.GaussNewton: (_solver, {"steps": 2}),
    bm.inference.LevenbergMarquardt: (_solver, {"steps": 5, "history": 10}),
    bm.inference.GradientSteps: (_solver, {"steps": 5, "lr": 0.01}),
    bm.inference.GradientAscent: (_solver, {"steps": 5, "lr": 0.01, "momentum": 0.0, "tolerance": 0.0}),
    bm.inference.NUTS: (
        _made,
        {
            "num_chains": 2,
            "num_draws": 4,
            "num_warmup": 20,
            "metric": bm.inference.DiagonalMetric,
            "target_acceptance": 0.8,
            "compile": False,
            "max_depth": 3,
        },
    ),
    bm.inference.DenseMetric: (_made, {}),
    bm.inference.DiagonalMetric: (_made, {}),
    bm.kernels.ConstantKernel: (_kernel, {"variance": 1.0}),
    bm.kernels.CosineKernel: (_kernel, {"period": 1.0, "variance": 1.0, "per_feature": False}),
    bm.kernels.CosineSimilarityKernel: (_kernel, {"variance": 1.0}),
    bm.kernels.PeriodicKernel: (_kernel, {"period": 1.0, "lengthscale": 1.0, "variance": 1.0, "per_feature": False}),
    bm.kernels.ProductKernel: (_kernel, {"kernels": lambda: [bm.kernels.RBFKernel(), bm.kernels.CosineKernel()]}),
    bm.kernels.ScaledKernel: (_kernel, {"kernel": bm.kernels.RBFKernel, "variance": 1.0}),
    bm.kernels.SubsetKernel: (_kernel, {"kernel": bm.kernels.RBFKernel, "columns": lambda: [0, -1]}),
    bm.kernels.SumKernel: (_kernel, {"kernels": lambda: [bm.kernels.RBFKernel(), bm.kernels.LinearKernel()]}),
    bm.kernels.LinearKernel: (_kernel, {"variance": 1.0}),
    bm.kernels.RBFKernel: (_kernel, {"lengthscale": 1.0, "variance": 1.0, "per_feature": False}),
    bm.kernels.MaternKernel: (_kernel, {"nu": 2.5, "lengthscale": 1.0, "variance": 1.0, "per_feature": False}),
    bm.kernels.SpectralMixtureKernel: (
        _kernel,
        {"num_mixtures": 2, "frequency": 0.5, "bandwidth": 0.01, "variance": 1.0},
    ),
    bm.likelihoods.Bernoulli: (_likelihood, {}),
    bm.likelihoods.Categorical: (_likelihood, {"num_classes": 3}),
    bm.likelihoods.Censored: (_likelihood, {"likelihood": bm.likelihoods.Gaussian, "limit": -10.0}),
    bm.likelihoods.Gaussian: (_likelihood, {"noise": bm.noise.DiagonalNoise, "num_outputs": 1}),
    bm.likelihoods.HeteroscedasticGaussian: (_likelihood, {"num_outputs": 1, "bounds": (1e-8, 1e8)}),
    bm.likelihoods.ScaledGaussian: (_likelihood, {"noise": bm.noise.DiagonalNoise, "num_outputs": 1}),
    bm.likelihoods.ProportionalGaussian: (
        _likelihood,
        {
            "num_outputs": 1,
            "initial_additive": 0.1,
            "initial_proportional": 0.1,
            "additive_bounds": (1e-6, 1e6),
            "proportional_bounds": (1e-4, 10.0),
        },
    ),
    bm.likelihoods.Poisson: (_made, {"num_outputs": 1}),
    bm.likelihoods.NegativeBinomial: (
        _made,
        {"num_outputs": 1, "initial_dispersion": 0.5, "bounds": (1e-4, 1e2)},
    ),
    bm.likelihoods.StudentT: (
        _likelihood,
        {
            "num_outputs": 1,
            "initial_scale": 0.3,
            "initial_dof": 5.0,
            "scale_bounds": (1e-4, 1e4),
            "dof_bounds": (2.0, 200.0),
        },
    ),
    bm.noise.DiagonalNoise: (_noise, NOISE),
    bm.noise.FullNoise: (_noise, NOISE),
    bm.noise.HeteroscedasticNoise: (
        _noise,
        {"features": lambda: bm.Identity(1), "noise": bm.noise.DiagonalNoise, "range": 1e4},
    ),
    bm.noise.Positive: (_made, {"shape": (2,), "initial": 0.1, "bounds": (1e-8, 1e8)}),
    bm.priors.FullCovariance: (_covariance, COVARIANCE),
    bm.priors.DiagonalCovariance: (_covariance, COVARIANCE),
    bm.priors.IsotropicCovariance: (_covariance, COVARIANCE),
    bm.priors.DiagonalGaussian: (_made, {"mean": _mean, "variance": 1.0, "bounds": (1e-8, 1e8)}),
    bm.priors.IsotropicGaussian: (_made, {"mean": _mean, "precision": 1.0, "bounds": (1e-8, 1e8)}),
    bm.priors.LayerwiseGaussian: (_made, {"mean": _mean, "precision": 1.0, "bounds": (1e-8, 1e8)}),
    bm.priors.FactoredGaussian: (_made, {"mean": _mean, "variance": 1.0, "bounds": (1e-8, 1e8)}),
    bm.priors.FullGaussian: (_made, {"num_parameters": 2, "variance": 1.0, "name": "phi"}),
    bm.priors.StandardNormal: (_made, {"shapes": lambda: {"a": [2]}}),
    bm.priors.MatrixNormal: (
        _made,
        {
            "covariance": lambda: bm.priors.FullCovariance(4),
            "noise": bm.noise.DiagonalNoise,
            "scale": bm.priors.TaskScale,
        },
    ),
    bm.priors.SharedEffects: (
        _made,
        {
            "covariance": lambda: bm.priors.FullCovariance(2),
            "shared": lambda: [bm.priors.FullCovariance(2)],
            "levels": lambda: [2],
            "noise": bm.noise.DiagonalNoise,
        },
    ),
    bm.priors.MatrixNormalMixture: (
        _made,
        {
            "num_features": 4,
            "num_components": 2,
            "noise": bm.noise.DiagonalNoise,
            "scale": bm.priors.TaskScale,
        },
    ),
    bm.priors.Ridge: (
        _made,
        {
            "num_features": 4,
            "noise": bm.noise.DiagonalNoise,
            "precision": 1.0,
            "bounds": (1e-8, 1e8),
            "scale": bm.priors.TaskScale,
        },
    ),
    bm.priors.TaskScale: (_made, {"dof": 4.0, "bounds": (2.5, 100.0)}),
    bm.tasks.BernoulliBandits: (_draws, {"num_arms": 2, "alpha": 1.0, "beta": 1.0}),
    bm.tasks.Cauchy: (_draws, {"noise": 0.05}),
    bm.tasks.ExponentiatedQuadratic: (_functions, {"length_scale": 0.5, "variance": 1.0}),
    bm.tasks.GaussianBandits: (_draws, {"num_arms": 2, "mean": 0.0, "spread": 1.0, "noise": 1.0}),
    bm.tasks.GaussianBlobs: (_draws, {"ways": 3, "dimension": 2, "spread": 2.0, "noise": 1.0}),
    bm.tasks.GPFunctions: (
        _draws,
        {"kernel": lambda: bm.tasks.GPFunctions.eq().kernel, "noise": 0.2, "x": (-2.0, 2.0)},
    ),
    bm.tasks.LinearBandits: (
        _draws,
        {"num_arms": 2, "mean": (0.0, 1.0), "covariance": ((1.0, 0.0), (0.0, 1.0)), "noise": 1.0},
    ),
    bm.tasks.Matern52: (_functions, {"length_scale": 0.5, "variance": 1.0}),
    bm.tasks.Pendulum: (_draws, {"length": (0.5, 1.5), "noise": 0.1}),
    bm.tasks.Sawtooth: (_draws, {"frequency": (2.0, 4.0), "x": (-2.0, 2.0), "noise": 0.0}),
    bm.tasks.Sinusoid: (
        _draws,
        {
            "amplitude": (0.1, 5.0),
            "phase": (0.0, 3.0),
            "frequency": (1.0, 1.0),
            "x": (-5.0, 5.0),
            "noise": 0.1,
            "phase_sign": -1,
        },
    ),
    bm.tasks.SlopedSinusoid: (
        _draws,
        {"slope": RANGE, "amplitude": RANGE, "period": (1.0, 2.0), "x_shift": RANGE, "y_shift": RANGE, "noise": 0.1}
        | {"x": (-5.0, 5.0)},
    ),
    bm.tasks.Step: (_draws, {"switches": (-2.5, 2.5), "num_switches": 3, "x": (-5.0, 5.0), "noise": 0.2}),
    bm.tasks.TaskMixture: (
        _draws,
        {"components": lambda: [bm.tasks.Sinusoid(), bm.tasks.Sawtooth()], "whole_batches": False},
    ),
    bm.tasks.WeaklyPeriodic: (_functions, {"length_scale": 0.5, "period": 0.25, "variance": 1.0}),
    bm.training.Chaser: (_chaser, {"lead": 1}),
    bm.training.Starts: (_made, {"count": 2, "seed": 0, "scale": 1.5, "halving": bm.training.Halving}),
    bm.training.HyperpriorStarts: (
        _made,
        {"hyperprior": bm.hyperpriors.LogNormalHyperprior, "count": 2, "seed": 0, "scale": 1.5}
        | {"halving": bm.training.Halving},
    ),
    bm.calibration.SplitConformal: (
        _made,
        {"learner": _alpaca, "score": bm.calibration.StandardizedResidual},
    ),
    bm.calibration.HierarchicalConformal: (_made, SHOTS | {"tasks": _tasks}),
    bm.Labels: (_made, {"count": 3}),
    bm.Numbers: (_made, {"count": 1}),
    bm.tasks.Counts: (_made, {"count": 1}),
    bm.tasks.Positives: (_made, {"count": 1}),
}


def _own(value: Any) -> Any:
    return value() if callable(value) else value


def _public(space: types.ModuleType) -> set[type]:
    """Classes that a user can make, and that are described by their arguments."""
    found: set[type] = set()
    for name in getattr(space, "__all__", ()):
        value = getattr(space, name)
        if isinstance(value, types.ModuleType):
            found |= _public(value)
        elif isinstance(value, type) and issubclass(value, Described) and not inspect.isabstract(value):
            found.add(value)
    return found


def test_every_public_class_is_here() -> None:
    assert sorted(each.__name__ for each in _public(bm) - set(CLASSES_OF)) == []


@pytest.mark.filterwarnings("ignore::bayesmeta.ConvergenceWarning")  # rates that overshoot say so, rightly
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("made", list(CLASSES_OF), ids=lambda made: made.__name__)
def test_what_is_made_works_or_is_refused(made: type) -> None:
    use, arguments = CLASSES_OF[made]
    use(made(**{name: _own(value) for name, value in arguments.items()}))
    raw = []
    for name in arguments:
        for bad in BAD:
            given = {other: _own(value) for other, value in arguments.items()}
            try:
                use(made(**{**given, name: bad}))
            except bm.BayesMetaError:
                pass
            except Exception as error:
                raw.append(f"{name}={bad!r}: {type(error).__name__}: {error}"[:300])
    assert raw == []


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bm.MAML(_network(), steps=1.5), "expected steps to be a whole number, got 1.5"),
        (lambda: bm.MAML(_network(), posterior="diagonal"), "posterior to be an Approximation or None, got 'diagonal'"),
        (lambda: bm.MAML(_network(), likelihood=bm.likelihoods.Gaussian), r"the class Gaussian: call it, Gaussian\("),
        (lambda: bm.MAML(_network(), lr=math.nan), "got nan"),
        (lambda: bm.R2D2(bm.MLP(2, [4]), num_classes=math.nan), "expected .*, got nan"),
        (lambda: bm.R2D2(bm.MLP(2, [4]), num_classes=2.5), "at least 2 classes, got 2.5"),
        (lambda: bm.R2D2(bm.MLP(2, [4]), num_classes=1), "at least 2 classes, got 1"),
        (lambda: bm.Siamese(_network(), head=bm.heads.RidgeHead()), "expected head to be a PairHead or None"),
        (lambda: bm.Matching(_network(), context=bm.heads.BiLSTM(5)), "context for 4 features, got one for 5"),
        (lambda: bm.Relation(_network(), map_shape=(4, 1)), r"a map shape \(channels, height, width\)"),
        (lambda: bm.Relation(_network(), map_shape=[2, 1, 1]), "a head on 4 features, got one on 2"),
        (lambda: _comparison(bm.heads.RidgeHead()), "scores in nats .*, got RidgeHead"),
        (lambda: bm.inference.LBFGS(tolerance=math.nan), "got nan"),
        (lambda: bm.IMAML(_network(), solver=bm.inference.LBFGS), r"the class LBFGS: call it, LBFGS\("),
        (lambda: bm.MLP(1, [8, 0]), "positive widths"),
        (lambda: bm.MLP(1, [True]), r"hidden to be a list, each a whole number, got \[True\]"),
        (lambda: bm.MLP(1, [1.5]), r"hidden to be a list, each a whole number, got \[1.5\]"),
        (lambda: bm.BMAML(_network(), num_particles=0), "num_particles|particle"),
        (lambda: bm.Standardized(bm.Standardized), r"the class Standardized: call it, Standardized\("),
        (lambda: bm.ALPaCA(_network(), covariance="full"), "covariance to be a FeatureCovariance or None, got 'full'"),
        (lambda: bm.ALPaCA(_network(), noise=-0.1), "noise to be a Noise or None, got -0.1"),
        (lambda: bm.ALPaCA(_network(), num_outputs=0), "output"),
        (lambda: bm.IMAML(_network(), precision=0.0), "precision|bounds|between"),
    ],
)
def test_messages_name_the_argument(make: Callable[[], object], message: str) -> None:
    with pytest.raises(bm.BayesMetaError, match=message):
        make()


def test_missing_and_unknown_arguments_are_pythons_own_errors() -> None:
    with pytest.raises(TypeError, match=r"missing .* argument: 'hidden'"):
        bm.MLP(1)
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        bm.MLP(1, [2], layers=3)
