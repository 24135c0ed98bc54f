"""Learners that wrap a learner."""

import torch

import bayesmeta as bm
from tests.registry.case import Case

FROZEN = {
    "fit_lowers_the_loss": "a recalibrated learner refuses to be trained",
    "every_theta_gets_a_finite_gradient": "theta is frozen",
    "meta_gradient_equals_finite_differences": "theta is frozen",
}
DRAWN = {
    "a_batch_equals_a_loop_over_its_tasks": "tasks of a batch have random numbers of their own",
    "float32_agrees_with_float64": "theta that is rounded sends chains along other trajectories",
    "log_density_of_draws_and_evidence_agree": "the evidence is the learner's own, exact; predictives are by draws",
}
JUMPS = {"densities_integrate_to_one": "the density jumps at the knots: integrated in tests/calibration"}


DRAWN_THETA = {"compiles": "theta has been drawn: there is nothing to train"}


def _variance_scaled() -> bm.Learner:
    learner = bm.wrappers.VarianceScaled(bm.ALPaCA(bm.MLP(1, [16, 8])), (0, 2, 5))
    learner.log_factors.copy_(torch.tensor([0.3, -0.2, 0.1]))
    return learner


def _temperature_scaled() -> bm.Learner:
    learner = bm.wrappers.TemperatureScaled(bm.R2D2(bm.MLP(2, [16, 8]), num_classes=3), (0, 2, 5))
    learner.log_temperatures.copy_(torch.tensor([0.3, -0.2, 0.1]))
    return learner


def _isotonic() -> bm.Learner:
    learner = bm.wrappers.IsotonicRecalibrated(bm.ALPaCA(bm.MLP(1, [16, 8])), (0, 4))
    learner.maps.pow_(1.3)
    return learner


def _hyper_posterior() -> bm.Learner:
    return bm.HyperPosterior([bm.ALPaCA(bm.MLP(1, [8, 4])) for _ in range(3)])


def _sampled() -> bm.Learner:
    return bm.Sampled(bm.ALPaCA(bm.Polynomial(1, 1)), bm.inference.NUTS(num_chains=8, num_draws=15, num_warmup=25))


def _autoregressive() -> bm.Learner:
    return bm.wrappers.Autoregressive(bm.ALPaCA(bm.MLP(1, [16, 8])), bm.wrappers.LeftToRight())


def _autoregressive_labels() -> bm.Learner:
    return bm.wrappers.Autoregressive(bm.R2D2(bm.MLP(2, [16, 8]), num_classes=3), bm.wrappers.Random(2))


def _noise_scale() -> bm.Learner:
    return bm.wrappers.TaskQuadrature(bm.ALPaCA(bm.MLP(1, [16, 8])), bm.wrappers.NoiseScale(0.2), nodes=15)


def _input_scale() -> bm.Learner:
    return bm.wrappers.TaskQuadrature(bm.DeepKernelTransfer(bm.Identity(1)), bm.wrappers.InputScale(0.1), nodes=15)


def _stacked() -> bm.Learner:
    learners = {"features": bm.ALPaCA(bm.MLP(1, [8, 4])), "process": bm.DeepKernelTransfer(bm.Identity(1))}
    weights = {"features": [0.9, 0.6, 0.2], "process": [0.1, 0.4, 0.8]}
    return bm.wrappers.Stacked(learners, weights, points=[0, 2, 6])


def _separately() -> bm.Learner:
    return bm.wrappers.Separately({"first": bm.ALPaCA(bm.MLP(1, [8, 4])), "second": bm.MAML(bm.MLP(1, [8]), lr=0.05)})


def _concept() -> bm.Learner:
    points = bm.tasks.BasePoints.from_labels(torch.randn(24, 2), torch.arange(24) % 6)
    return bm.wrappers.ConceptLearner(bm.R2D2(bm.MLP(2, [16, 8]), num_classes=3), points, weight=0.1, batch_size=8)


WRAPPED = [
    Case(
        "concept-r2d2",
        _concept,
        outcomes=bm.Labels(3),
        num_inputs=2,
        examples=3,
        calls=20,
        steps=60,
        exceptions={"every_theta_gets_a_finite_gradient": "the discriminator is in the hyperprior, not in the loss"},
    ),
    Case("autoregressive-alpaca", _autoregressive, examples=6),
    Case("autoregressive-r2d2", _autoregressive_labels, outcomes=bm.Labels(3), num_inputs=2, examples=6),
    Case("variance-scaled", _variance_scaled, examples=6, exceptions=FROZEN),
    Case(
        "temperature-scaled",
        _temperature_scaled,
        outcomes=bm.Labels(3),
        num_inputs=2,
        examples=6,
        exceptions=FROZEN,
    ),
    Case("isotonic-recalibrated", _isotonic, examples=6, exceptions=FROZEN | JUMPS),
    Case("task-quadrature-alpaca", _noise_scale, examples=2, calls=10, steps=30),
    Case("task-quadrature-dkt", _input_scale, examples=2, calls=10, steps=30),
    Case("stacked", _stacked, examples=3, calls=20, exceptions=FROZEN | DRAWN_THETA),
    Case("separately", _separately, outcomes=bm.Numbers(2), examples=3, calls=20, steps=30),
    Case("hyper-posterior", _hyper_posterior, examples=6, exceptions=FROZEN | DRAWN_THETA),
    Case("sampled", _sampled, examples=1, calls=3, exceptions=FROZEN | DRAWN | DRAWN_THETA),
    Case(
        "log-transformed",
        lambda: bm.wrappers.LogTransformed(bm.Standardized(bm.ALPaCA(bm.MLP(1, [8, 4])))),
        outcomes=bm.tasks.Positives(1),
        examples=6,
    ),
    Case("standardized-alpaca", lambda: bm.Standardized(bm.ALPaCA(bm.MLP(1, [16, 8])))),
    Case(
        "standardized-r2d2",
        lambda: bm.Standardized(bm.R2D2(bm.MLP(2, [16, 8]), num_classes=3)),
        outcomes=bm.Labels(3),
        num_inputs=2,
        examples=6,
    ),
]
