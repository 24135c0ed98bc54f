"""One Case per learner: what the contracts need to know. A learner that is not here is not in the library."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

import bayesmeta as bm
from bayesmeta.learner import Learner


@dataclass(frozen=True)
class Case:
    """How to make a small learner and fitting data for it.

    Attributes:
        name: shown by pytest.
        make: a fresh learner in float32, from the global seed.
        num_outputs: C of the data to make.
        num_classes: labels of so many classes in place of numbers; 0 for numbers.
        float32_tolerance: largest difference between the float32 and the float64 predictive mean, in predictive
            deviations; of probabilities themselves.
        examples: how many times a property is tried.
        calls: how many calls must leave memory as it was: fewer of learners that are slow to adapt.
        exceptions: names of contracts that this learner does not keep, each with its reason.
    """

    name: str
    make: Callable[[], Learner]
    num_outputs: int = 1
    num_inputs: int = 1
    num_classes: int = 0
    float32_tolerance: float = 1e-4
    examples: int = 25
    calls: int = 200
    exceptions: dict[str, str] = field(default_factory=dict)

    def learner(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> Learner:
        """The learner, prepared for the data that `batch` makes, and moved off its starting point."""
        torch.manual_seed(seed)
        learner = self.make()
        learner.prepare(self.batch(32, 6, 6, seed=99).support.to(torch.float64))
        with torch.no_grad():
            for parameter in learner.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return learner.to(dtype)

    def batch(self, num_tasks: int, support: int, query: int, seed: int = 0, ragged: bool = True) -> bm.TaskBatch:
        """Smooth random tasks in float64, or blobs with labels; ragged supports of 0 to `support` points."""
        generator = torch.Generator().manual_seed(seed)
        total = support + query
        x, y = (self._blobs if self.num_classes else self._curves)(num_tasks, total, generator)
        counts = torch.full((num_tasks,), support)
        if ragged:
            counts = torch.randint(0, support + 1, (num_tasks,), generator=generator)
            counts[0] = support
        mask = torch.arange(support) < counts[:, None]
        full = torch.ones(num_tasks, query, dtype=torch.bool)
        return bm.TaskBatch(
            bm.Data(x[:, :support], y[:, :support], mask), bm.Data(x[:, support:], y[:, support:], full)
        )

    def _curves(self, num_tasks: int, total: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.rand(num_tasks, total, self.num_inputs, generator=generator, dtype=torch.float64) * 4 - 2
        phase = torch.rand(num_tasks, 1, self.num_outputs, generator=generator, dtype=torch.float64) * 3
        slope = torch.randn(num_tasks, 1, self.num_outputs, generator=generator, dtype=torch.float64)
        noise = torch.randn(num_tasks, total, self.num_outputs, generator=generator, dtype=torch.float64)
        y = torch.sin(x.sum(-1, keepdim=True) + phase) + slope * x.mean(-1, keepdim=True) + 0.1 * noise
        return x, y

    def _blobs(self, num_tasks: int, total: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Classes around centers that are each task's own."""
        shape = (num_tasks, self.num_classes, self.num_inputs)
        centers = torch.randn(shape, generator=generator, dtype=torch.float64)
        labels = torch.randint(self.num_classes, (num_tasks, total), generator=generator)
        noise = torch.randn((num_tasks, total, self.num_inputs), generator=generator, dtype=torch.float64)
        return centers[torch.arange(num_tasks)[:, None], labels] + 0.3 * noise, labels


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
COMPARES = {"compiles": "gpytorch asks whether two sets of inputs are the same, by their values"}
DRAWN_THETA = {"compiles": "theta has been drawn: there is nothing to train"}


def _mlp() -> bm.MLP:
    return bm.MLP(1, [8])


def _gradient(name: str, make: Callable[[], Learner], **arguments: Any) -> Case:
    """These cost ten times as much as closed forms: fewer examples."""
    return Case(name, make, examples=6, **arguments)


def _classifier(name: str, make: Callable[[], Learner], **arguments: Any) -> Case:
    return Case(name, make, num_inputs=2, num_classes=3, examples=6, **arguments)


def _kernel(name: str, make: Callable[[], Learner], **arguments: Any) -> Case:
    """gpytorch's kernels cost several times as much as features."""
    return Case(name, make, examples=6, **arguments)


GRADIENT = [
    _gradient("maml", lambda: bm.MAML(bm.MLP(1, [8, 8]), steps=2, lr=0.05)),
    _gradient("maml-point", lambda: bm.MAML(_mlp(), steps=2, lr=0.05, posterior=bm.PointEstimate())),
    _gradient(
        "maml-two-outputs-full-noise",
        lambda: bm.MAML(bm.MLP(2, [8]), steps=2, lr=0.05, likelihood=bm.likelihoods.Gaussian(bm.noise.FullNoise(2))),
        num_outputs=2,
        num_inputs=2,
    ),
    _gradient(
        "maml-last-layer-diagonal",
        lambda: bm.MAML(_mlp(), steps=3, lr=0.05, posterior=bm.LinearizedDiagonal(), adapted=["output"]),
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
        float32_tolerance=1e-3,  # L-BFGS stops where float32 no longer sees a gain
        exceptions=AS_USED | ITERATES,
    ),
    _gradient("imaml-as-used", lambda: bm.IMAML(_mlp(), precision=100.0), exceptions=TIGHT | ITERATES),
    _gradient("llama", lambda: bm.LLAMA(_mlp(), steps=2, lr=0.02, precision=2.0), exceptions=LAPLACE_EVIDENCE),
    _gradient("bmaml", lambda: bm.BMAML(_mlp(), num_particles=3, steps=2, lr=0.02)),
]

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


def _variance_scaled() -> Learner:
    learner = bm.wrappers.VarianceScaled(bm.ALPaCA(bm.MLP(1, [16, 8])), (0, 2, 5))
    learner.log_factors.copy_(torch.tensor([0.3, -0.2, 0.1]))
    return learner


def _temperature_scaled() -> Learner:
    learner = bm.wrappers.TemperatureScaled(bm.R2D2(bm.MLP(2, [16, 8]), num_classes=3), (0, 2, 5))
    learner.log_temperatures.copy_(torch.tensor([0.3, -0.2, 0.1]))
    return learner


def _isotonic() -> Learner:
    learner = bm.wrappers.IsotonicRecalibrated(bm.ALPaCA(bm.MLP(1, [16, 8])), (0, 4))
    learner.maps.pow_(1.3)
    return learner


def _hyper_posterior() -> Learner:
    return bm.HyperPosterior([bm.ALPaCA(bm.MLP(1, [8, 4])) for _ in range(3)])


def _sampled() -> Learner:
    return bm.Sampled(bm.ALPaCA(bm.Polynomial(1, 1)), bm.inference.NUTS(num_chains=8, num_draws=15, num_warmup=25))


CASES = [
    Case("alpaca", lambda: bm.ALPaCA(bm.MLP(1, [16, 8]))),
    Case("alpaca-many-points", lambda: bm.ALPaCA(bm.Identity(1))),  # more points than features: feature space
    Case(
        "alpaca-two-outputs-full-noise",
        lambda: bm.ALPaCA(bm.MLP(2, [16, 8]), num_outputs=2, noise=bm.noise.FullNoise(2)),
        num_outputs=2,
        num_inputs=2,
    ),
    Case("alpaca-diagonal-rows", lambda: bm.ALPaCA(bm.RadialBasis(1, 7), covariance=bm.priors.DiagonalCovariance(8))),
    Case("alpaca-isotropic-rows", lambda: bm.ALPaCA(bm.Polynomial(1, 3), covariance=bm.priors.IsotropicCovariance(4))),
    Case(
        "alpaca-fixed-effects",
        lambda: bm.ALPaCA(bm.Spline([-1.0, 0.0, 1.0], 1), covariance=bm.priors.FullCovariance(5, varying=[0, 1])),
    ),
    Case("mixture-alpaca", lambda: bm.MixtureALPaCA(bm.MLP(1, [16, 8]), num_components=3)),
    Case(
        "mixture-alpaca-two-outputs",
        lambda: bm.MixtureALPaCA(bm.Identity(2), num_components=2, num_outputs=2, noise=bm.noise.FullNoise(2)),
        num_outputs=2,
        num_inputs=2,
    ),
    *GRADIENT,
    Case("r2d2-regressor", lambda: bm.R2D2Regressor(bm.MLP(1, [16, 8]))),
    Case(
        "r2d2-regressor-two-outputs",
        lambda: bm.R2D2Regressor(bm.MLP(2, [16, 8]), num_outputs=2, noise=bm.noise.FullNoise(2)),
        num_outputs=2,
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
        num_outputs=2,
        num_inputs=2,
    ),
    _classifier(
        "deep-kernel-classifier",
        lambda: bm.DeepKernelClassifier(bm.MLP(2, [16, 8]), num_classes=3),
        exceptions=COMPARES,
    ),
    Case("variance-scaled", _variance_scaled, examples=6, exceptions=FROZEN),
    _classifier("temperature-scaled", _temperature_scaled, exceptions=FROZEN),
    Case("isotonic-recalibrated", _isotonic, examples=6, exceptions=FROZEN | JUMPS),
    Case("hyper-posterior", _hyper_posterior, examples=6, exceptions=FROZEN | DRAWN_THETA),
    Case("sampled", _sampled, examples=1, calls=5, exceptions=FROZEN | DRAWN | DRAWN_THETA),
    Case("standardized-alpaca", lambda: bm.Standardized(bm.ALPaCA(bm.MLP(1, [16, 8])))),
]
