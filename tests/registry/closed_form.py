"""Learners solved exactly: last layers, deep kernels and heads for classes."""

from collections.abc import Callable
from typing import Any

import torch

import bayesmeta as bm
from tests.registry.case import Case

ITERATES = {"compiles": "its solver stops where all tasks have converged, which only their values can say"}
OWN_CLASSES = {
    "compiles": "how many classes there are is read from the labels",
    "empty_support_gives_a_finite_prior_predictive": "an empty support shows no classes, which is an error",
    "update_equals_adapting_on_all": "the first part would not show every class: see test_classes.py",
    "log_density_of_draws_and_evidence_agree": "its first prediction would be without classes",
}

WAVE = bm.kernels.ProductKernel([bm.kernels.RBFKernel(8.0), bm.kernels.CosineKernel(4.0)])
LEVEL_LINE_AND_WAVE = bm.kernels.SumKernel([bm.kernels.ConstantKernel(), bm.kernels.LinearKernel(), WAVE])
COMPOSITE = bm.kernels.SumKernel(
    [bm.kernels.SubsetKernel(LEVEL_LINE_AND_WAVE, [0]), bm.kernels.SubsetKernel(bm.kernels.RBFKernel(), [1, 2])]
)


BY_EVIDENCE = {"fit_lowers_the_loss": "its tasks are coupled: fit_evidence trains it, see the tests of both learners"}
COUPLED = BY_EVIDENCE | {
    "compiles": "what it keeps is put side by side by its lengths, which only their values can say",
}


def _knowing(exact_rows: int = 2_000, num_inducing: int = 256) -> bm.HierarchicalProcess:
    """One that knows five tasks, of different lengths."""
    learner = bm.HierarchicalProcess(
        bm.networks.Inputs(1), own_kernel=LEVEL_LINE_AND_WAVE, exact_rows=exact_rows, num_inducing=num_inducing
    )
    tasks = Case("curves", lambda: learner).batch(5, 6, 1, seed=7).support
    learner.remember(learner.conform(tasks))
    return learner


def _classifier(name: str, make: Callable[[], bm.Learner], **arguments: Any) -> Case:
    return Case(name, make, **{"outcomes": bm.Labels(3), "num_inputs": 2, "examples": 6} | arguments)


def _kernel(name: str, make: Callable[[], bm.Learner], **arguments: Any) -> Case:
    """gpytorch's kernels cost several times as much as features."""
    return Case(name, make, examples=6, **arguments)


def _scale() -> bm.priors.TaskScale:
    """Of tails that end where the quadrature of the contracts does; heavier ones have tests of their own."""
    return bm.priors.TaskScale(dof=30.0)


def _taught(learner: bm.learners.MixedEffects) -> bm.learners.MixedEffects:
    """A mixed model that has seen some tasks of its two levels."""
    x = torch.tensor([[[0.3, 0.0], [1.0, 1.0]], [[-0.5, 1.0], [0.1, 1.0]], [[1.5, 0.0], [-1.0, 0.0]]])
    learner.remember(bm.Data.full(x, torch.tensor([[[0.5], [1.0]], [[-1.0], [0.2]], [[2.0], [1.1]]])))
    return learner


CLOSED_FORM = [
    Case("alpaca", lambda: bm.ALPaCA(bm.MLP(1, [16, 8]))),
    Case("alpaca-many-points", lambda: bm.ALPaCA(bm.Identity(1))),  # more points than features: feature space
    Case(
        "alpaca-two-outputs-full-noise",
        lambda: bm.ALPaCA(bm.MLP(2, [16, 8]), num_outputs=2, noise=bm.noise.FullNoise(2)),
        outcomes=bm.Numbers(2),
        num_inputs=2,
    ),
    Case("alpaca-diagonal-rows", lambda: bm.ALPaCA(bm.RadialBasis(1, 7), covariance=bm.priors.DiagonalCovariance(8))),
    Case("alpaca-isotropic-rows", lambda: bm.ALPaCA(bm.Polynomial(1, 3), covariance=bm.priors.IsotropicCovariance(4))),
    Case(
        "alpaca-fixed-effects",
        lambda: bm.ALPaCA(bm.Spline([-1.0, 0.0, 1.0], 1), covariance=bm.priors.FullCovariance(5, varying=[0, 1])),
    ),
    Case("alpaca-known-noise", lambda: bm.ALPaCA(bm.MLP(1, [16, 8])), known_noise=True, examples=6),
    Case(
        "mixed-effects-two-groupings-two-outputs",
        lambda: bm.learners.MixedEffects(bm.MLP(1, [8, 3]), [2, 3], num_outputs=2, noise=bm.noise.FullNoise(2)),
        outcomes=bm.Numbers(2),
        num_inputs=3,
        examples=6,
        exceptions=BY_EVIDENCE,
    ),
    Case(
        "mixed-effects-taught",
        lambda: _taught(bm.learners.MixedEffects(bm.Identity(1), [2], shared=[bm.priors.DiagonalCovariance(2)])),
        num_inputs=2,
        examples=6,
        exceptions=BY_EVIDENCE,
    ),
    Case(
        "alpaca-heteroscedastic",
        lambda: bm.ALPaCA(bm.MLP(1, [16, 8]), noise=bm.noise.HeteroscedasticNoise(bm.MLP(1, [4]))),
        examples=6,
    ),
    Case("mixture-alpaca", lambda: bm.MixtureALPaCA(bm.MLP(1, [16, 8]), num_components=3)),
    Case(
        "mixture-alpaca-two-outputs",
        lambda: bm.MixtureALPaCA(bm.Identity(2), num_components=2, num_outputs=2, noise=bm.noise.FullNoise(2)),
        outcomes=bm.Numbers(2),
        num_inputs=2,
    ),
    # every task has a scale of its own
    Case("alpaca-task-scale", lambda: bm.ALPaCA(bm.MLP(1, [16, 8]), scale=_scale()), examples=6),
    Case(
        "mixture-alpaca-task-scale",
        lambda: bm.MixtureALPaCA(bm.Identity(1), num_components=2, scale=_scale()),
        examples=3,
    ),
    Case("r2d2-regressor-task-scale", lambda: bm.R2D2Regressor(bm.MLP(1, [8]), scale=_scale()), examples=3),
    Case("r2d2-regressor", lambda: bm.R2D2Regressor(bm.MLP(1, [16, 8]))),
    Case(
        "r2d2-regressor-two-outputs",
        lambda: bm.R2D2Regressor(bm.MLP(2, [16, 8]), num_outputs=2, noise=bm.noise.FullNoise(2)),
        outcomes=bm.Numbers(2),
        num_inputs=2,
    ),
    _classifier("r2d2", lambda: bm.R2D2(bm.MLP(2, [16, 8]), num_classes=3)),
    _classifier("r2d2-few-features", lambda: bm.R2D2(bm.MLP(2, [4]), num_classes=3)),  # feature space
    _classifier("lrd2", lambda: bm.LRD2(bm.MLP(2, [16, 8]), num_classes=3), exceptions=ITERATES),
    _classifier("metaoptnet-svm", lambda: bm.MetaOptNet(bm.MLP(2, [16, 8]), num_classes=3), exceptions=ITERATES),
    _classifier(
        "metaoptnet-svm-few-features", lambda: bm.MetaOptNet(bm.MLP(2, [4]), num_classes=3), exceptions=ITERATES
    ),
    _classifier(
        "metaoptnet-ridge", lambda: bm.MetaOptNet(bm.MLP(2, [16, 8]), num_classes=3, head=bm.heads.RidgeHead())
    ),
    _classifier(
        "metaoptnet-nearest-mean",
        lambda: bm.MetaOptNet(bm.MLP(2, [16, 8]), num_classes=3, head=bm.heads.NearestMeanHead()),
    ),
    _kernel("deep-kernel", lambda: bm.DeepKernelTransfer(bm.MLP(1, [16, 8]))),
    _kernel(
        "deep-kernel-task-scale",
        lambda: bm.DeepKernelTransfer(bm.MLP(1, [16, 8]), scale=_scale()),
    ),
    _kernel(
        "deep-kernel-known-noise",
        lambda: bm.DeepKernelTransfer(bm.MLP(1, [16, 8])),
        known_noise=True,
    ),
    _kernel(
        "deep-kernel-on-inputs",
        lambda: bm.wrappers.WithHyperprior(
            bm.DeepKernelTransfer(bm.networks.Inputs(1), kernel=bm.kernels.MaternKernel()),
            bm.hyperpriors.GaussianHyperprior(1.0, names="kernel"),
        ),
    ),
    _kernel(
        "deep-kernel-composite",  # constant, line and wave of x, beside a learned feature; a mean that is a network
        lambda: bm.DeepKernelTransfer(
            bm.networks.Concatenated([bm.networks.Inputs(1), bm.MLP(1, [4, 2])]), kernel=COMPOSITE, mean=bm.MLP(1, [4])
        ),
    ),
    _kernel(
        "deep-kernel-spectral-mixture",
        lambda: bm.DeepKernelTransfer(bm.MLP(1, [16, 8]), kernel=bm.kernels.SpectralMixtureKernel(2)),
    ),
    _kernel(
        "deep-kernel-two-outputs-full-noise",
        lambda: bm.DeepKernelTransfer(
            bm.MLP(2, [16, 8]), num_outputs=2, kernel=bm.kernels.LinearKernel(), noise=bm.noise.FullNoise(2)
        ),
        outcomes=bm.Numbers(2),
        num_inputs=2,
    ),
    Case("hierarchical-process", _knowing, examples=4, calls=40, exceptions=COUPLED),
    Case("hierarchical-process-inducing", lambda: _knowing(0, 7), examples=4, calls=40, exceptions=COUPLED),
    _classifier(
        "deep-kernel-classifier",
        lambda: bm.DeepKernelClassifier(bm.MLP(2, [16, 8]), num_classes=3),
    ),
    # the classes are those of each task's support: tasks of a batch have different ways
    _classifier("r2d2-own-classes", lambda: bm.R2D2(bm.MLP(2, [16, 8])), outcomes=bm.Labels(), exceptions=OWN_CLASSES),
    _classifier(
        "metaoptnet-own-classes",
        lambda: bm.MetaOptNet(bm.MLP(2, [16, 8]), head=bm.heads.NearestMeanHead()),
        outcomes=bm.Labels(),
        exceptions=OWN_CLASSES,
    ),
]
