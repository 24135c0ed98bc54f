"""Learners solved exactly: last layers, deep kernels and heads for classes."""

from collections.abc import Callable
from typing import Any

import bayesmeta as bm
from tests.registry.case import Case

ITERATES = {"compiles": "its solver stops where all tasks have converged, which only their values can say"}
COMPARES = {"compiles": "gpytorch asks whether two sets of inputs are the same, by their values"}
OWN_CLASSES = {
    "compiles": "how many classes there are is read from the labels",
    "empty_support_gives_a_finite_prior_predictive": "an empty support shows no classes, which is an error",
    "update_equals_adapting_on_all": "the first part would not show every class: see test_classes.py",
    "log_density_of_draws_and_evidence_agree": "its first prediction would be without classes",
}


def _classifier(name: str, make: Callable[[], bm.Learner], **arguments: Any) -> Case:
    return Case(name, make, **{"outcomes": bm.Labels(3), "num_inputs": 2, "examples": 6} | arguments)


def _kernel(name: str, make: Callable[[], bm.Learner], **arguments: Any) -> Case:
    """gpytorch's kernels cost several times as much as features."""
    return Case(name, make, examples=6, **arguments)


def _scale() -> bm.priors.TaskScale:
    """Of tails that end where the quadrature of the contracts does; heavier ones have tests of their own."""
    return bm.priors.TaskScale(dof=30.0)


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
    Case("alpaca-task-scale", lambda: bm.ALPaCA(bm.MLP(1, [16, 8]), scale=_scale()), examples=6, calls=60),
    Case(
        "mixture-alpaca-task-scale",
        lambda: bm.MixtureALPaCA(bm.Identity(1), num_components=2, scale=_scale()),
        examples=3,
        calls=60,
    ),
    Case("r2d2-regressor-task-scale", lambda: bm.R2D2Regressor(bm.MLP(1, [8]), scale=_scale()), examples=3, calls=60),
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
    _kernel("deep-kernel", lambda: bm.DeepKernelTransfer(bm.MLP(1, [16, 8])), exceptions=COMPARES),
    _kernel(
        "deep-kernel-known-noise",
        lambda: bm.DeepKernelTransfer(bm.MLP(1, [16, 8])),
        known_noise=True,
        exceptions=COMPARES,
    ),
    _kernel(
        "deep-kernel-task-scale",
        lambda: bm.DeepKernelTransfer(bm.MLP(1, [16, 8]), scale=_scale()),
        calls=60,
        exceptions=COMPARES,
    ),
    _kernel(
        "deep-kernel-on-inputs",
        lambda: bm.DeepKernelTransfer(bm.Identity(1), kernel=bm.kernels.MaternKernel()),
        exceptions=COMPARES,
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
    _classifier(
        "deep-kernel-classifier",
        lambda: bm.DeepKernelClassifier(bm.MLP(2, [16, 8]), num_classes=3),
        exceptions=COMPARES,
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
