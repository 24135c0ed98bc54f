"""Gradient-based learners."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import bayesmeta as bm
from tests.registry.case import Case

LAPLACE_EVIDENCE = {
    "log_density_of_draws_and_evidence_agree": "the evidence is an approximation; exact ones are compared elsewhere"
}


AS_USED = {
    "constant_memory_and_no_graph": "slow with a solver that is so tight: see imaml-as-used",
    "fit_lowers_the_loss": "slow with a solver that is so tight: see imaml-as-used",
}
TIGHT = dict.fromkeys(
    (
        "padding_never_matters",
        "support_order_never_matters",
        "a_batch_equals_a_loop_over_its_tasks",
        "update_equals_adapting_on_all",
        "marginals_ignore_the_other_query_points",
        "meta_gradient_equals_finite_differences",
        "float32_agrees_with_float64",
    ),
    "holds up to the solver's tolerance: see imaml, whose solver is tight",
)


ITERATES = {"compiles": "its solver stops where all tasks have converged, which only their values can say"}
NOT_EQUIVARIANT = {
    "relabelling_permutes_the_probabilities": "labels enter through the output layer, whose weights differ by class"
}


def _growth() -> bm.Parametric:
    real, positive = bm.parametric.Real, bm.parametric.Positive
    scales = {"Asym": real(1.0), "xmid": real(0.0), "scal": positive(1.0, stddev=0.3)}
    return bm.Parametric(bm.parametric.LogisticGrowth(), scales)


class TwoWaves(bm.parametric.Formula):
    """A wave, and a share of it beside the second input."""

    names, num_inputs = (("size", "phase", "share"),), 2

    def __call__(self, x: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        wave = parameters["size"] * (x[..., 0] + parameters["phase"]).sin()
        return torch.stack([wave, parameters["share"] * wave + x[..., 1]], -1)


def _waves() -> bm.Parametric:
    scales = {
        "size": bm.parametric.Positive(1.0, stddev=0.0),
        "phase": bm.parametric.Real(0.0, stddev=0.5),
        "share": bm.parametric.Interval(-1.0, 1.0, stddev=0.3),
    }
    covariance = bm.priors.DiagonalCovariance(3, varying=[1, 2])
    noise = bm.likelihoods.Gaussian(bm.noise.FullNoise(2))
    return bm.Parametric(TwoWaves(), scales, covariance=covariance, likelihood=noise, posterior=bm.Linearized())


def _mixed(num_inputs: int, likelihood: bm.likelihoods.Likelihood) -> bm.learners.GeneralizedLinearMixedModel:
    covariance = bm.priors.FullCovariance(num_inputs + 1, varying=[0, 1])
    return bm.learners.GeneralizedLinearMixedModel(
        bm.Identity(num_inputs), likelihood=likelihood, covariance=covariance
    )


def _mlp() -> bm.MLP:
    return bm.MLP(1, [8])


def _gradient(name: str, make: Callable[[], bm.Learner], **arguments: Any) -> Case:
    """These cost ten times as much as closed forms: fewer examples."""
    return Case(name, make, **{"examples": 6} | arguments)


GRADIENT = [
    _gradient("maml", lambda: bm.MAML(bm.MLP(1, [8, 8]), steps=2, lr=0.05)),
    _gradient("maml-point", lambda: bm.MAML(_mlp(), steps=2, lr=0.05, posterior=bm.PointEstimate())),
    _gradient(
        "maml-two-outputs-full-noise",
        lambda: bm.MAML(bm.MLP(2, [8]), steps=2, lr=0.05, likelihood=bm.likelihoods.Gaussian(bm.noise.FullNoise(2))),
        outcomes=bm.Numbers(2),
        num_inputs=2,
    ),
    _gradient(
        "maml-last-layer-diagonal",
        lambda: bm.MAML(_mlp(), steps=3, lr=0.05, posterior=bm.LinearizedDiagonal(), adapted=["output"]),
    ),
    _gradient(
        "maml-classes",
        lambda: bm.MAML(bm.MLP(2, [8]), steps=2, lr=0.1, likelihood=bm.likelihoods.Categorical(3)),
        outcomes=bm.Labels(3),
        num_inputs=2,
        steps=150,
        exceptions=NOT_EQUIVARIANT,
    ),
    _gradient(
        "first-order-maml",
        lambda: bm.FirstOrderMAML(_mlp(), steps=2, lr=0.05),
        exceptions={"meta_gradient_equals_finite_differences": "first order leaves out a part of it on purpose"},
    ),
    _gradient("meta-sgd", lambda: bm.MetaSGD(_mlp(), steps=2, lr=0.05)),
    _gradient("maml++", lambda: bm.MAMLPlusPlus(_mlp(), steps=2, lr=0.05)),
    _gradient("alpha-maml", lambda: bm.AlphaMAML(_mlp(), steps=2, lr=0.05)),
    _gradient("cavia", lambda: bm.CAVIA(_mlp(), num_context=2, steps=2, lr=0.5)),
    _gradient(
        "imaml",
        # update and a permutation change nothing up to the solver's tolerance, which is therefore tight
        lambda: bm.IMAML(
            _mlp(),
            precision=100.0,
            solver=bm.inference.LBFGS(100, 1e-12, history=30),
            solve_steps=60,
            solve_tolerance=1e-12,
        ),
        examples=3,
        float32_tolerance=1e-3,  # L-BFGS stops where float32 no longer sees a gain
        exceptions=AS_USED | ITERATES,
    ),
    _gradient("imaml-as-used", lambda: bm.IMAML(_mlp(), precision=100.0), exceptions=TIGHT | ITERATES),
    _gradient(
        "imaml-factored-gauss-newton",
        lambda: bm.IMAML(
            _mlp(), precision=20.0, prior=bm.priors.FactoredGaussian, solver=bm.inference.GaussNewton(steps=2)
        ),
        examples=3,
        calls=20,
        steps=40,
    ),
    _gradient(
        "llama",
        lambda: bm.LLAMA(_mlp(), precision=20.0),
        examples=3,
        calls=20,
        steps=15,
        float32_tolerance=1e-3,  # the solver stops at √eps posterior deviations
        exceptions=LAPLACE_EVIDENCE | ITERATES,
    ),
    _gradient(
        "llama-factored-gauss-newton",
        lambda: bm.LLAMA(
            _mlp(), precision=20.0, prior=bm.priors.FactoredGaussian, solver=bm.inference.GaussNewton(steps=2)
        ),
        examples=3,
        calls=20,
        steps=20,
        exceptions=LAPLACE_EVIDENCE,
    ),
    # their solver takes second derivatives, and a mode a step: as few tries as say something
    Case(
        "parametric",
        _growth,
        float32_tolerance=1e-3,
        examples=3,
        calls=12,
        steps=12,
        exceptions=LAPLACE_EVIDENCE | ITERATES,
    ),
    Case(
        "parametric-two-outputs",
        _waves,
        outcomes=bm.Numbers(2),
        num_inputs=2,
        float32_tolerance=1e-3,
        examples=3,
        calls=12,
        steps=8,
        exceptions=LAPLACE_EVIDENCE | ITERATES,
    ),
    Case(
        "glmm-binary",
        lambda: _mixed(2, bm.likelihoods.Bernoulli()),
        outcomes=bm.Labels(2),
        num_inputs=2,
        float32_tolerance=1e-3,
        examples=3,
        calls=12,
        steps=20,
        exceptions=LAPLACE_EVIDENCE | ITERATES | NOT_EQUIVARIANT,
    ),
    Case(
        "glmm-classes",
        lambda: _mixed(2, bm.likelihoods.Categorical(3)),
        outcomes=bm.Labels(3),
        num_inputs=2,
        float32_tolerance=1e-3,
        examples=2,
        calls=12,
        steps=40,
        exceptions=LAPLACE_EVIDENCE | ITERATES | NOT_EQUIVARIANT,
    ),
    Case(
        "glmm-counts",
        lambda: _mixed(1, bm.likelihoods.NegativeBinomial()),
        outcomes=bm.tasks.Counts(1),
        float32_tolerance=1e-3,
        examples=3,
        calls=12,
        steps=20,
        exceptions=LAPLACE_EVIDENCE | ITERATES,
    ),
    _gradient("bmaml", lambda: bm.BMAML(_mlp(), num_particles=3, steps=2, lr=0.02)),
]
