"""The expected improvement of a task's prediction: exact for mixtures of any weights, and for Student's t."""

import math

import torch
from botorch.acquisition.analytic import AnalyticAcquisitionFunction
from botorch.utils.transforms import t_batch_mode_transform
from jaxtyping import Float
from torch import Tensor

from bayesmeta.errors import UnsupportedError
from bayesmeta.interop.botorch.parts import Parts
from bayesmeta.interop.botorch.task_model import TaskModel

NODES, STEP, FIRST = 80, 0.6, -8.0  # of the average over a scale, in deviations of its logarithm
FAR = -1e4  # where the improvement is φ(u) / u² to all digits
LEAST = 1e-12  # variances below it, of the units of y squared, count as this one, as BoTorch has it


class LogExpectedImprovement(AnalyticAcquisitionFunction):
    """log E max(f(x) - best, 0) of a `TaskModel`, in log units of y.

    BoTorch's function of this name is the same where the prediction is one Gaussian, or an ensemble. Where the weights
    of a mixture differ, or where points are Student's t, as with a `TaskScale`, that one would see a Gaussian of the
    same mean and variance; this one averages the improvement over the parts, and over the scale of the task.

    Args:
        model: of one output.
        best_f: what is to be improved on: a number, or one for each t-batch.
        maximize: False where small values are good.

    Raises:
        UnsupportedError: the model is of several outputs, or no `TaskModel`.

    Example:
        >>> import bayesmeta as bm
        >>> from bayesmeta.interop.botorch import LogExpectedImprovement, TaskModel
        >>> learner = bm.ALPaCA(bm.Polynomial(1, 2), scale=bm.priors.TaskScale())
        >>> x, y = torch.tensor([[0.0], [0.5]]).double(), torch.tensor([[0.1], [0.6]]).double()
        >>> acquisition = LogExpectedImprovement(TaskModel.adapted(learner, x, y), best_f=y.max())
        >>> near, far = acquisition(torch.tensor([[[0.5]], [[3.0]]]).double())  # what is far is less known
        >>> bool(far > near)
        True
    """

    best_f: Tensor

    def __init__(self, model: TaskModel, best_f: float | Tensor, maximize: bool = True) -> None:
        if not isinstance(model, TaskModel) or model.num_outputs != 1:
            found = f"{model.num_outputs} outputs" if isinstance(model, TaskModel) else type(model).__name__
            raise UnsupportedError(f"expected a TaskModel of one output, got {found}")
        super().__init__(model=model)
        self.task_model = model
        best = best_f if isinstance(best_f, Tensor) else torch.tensor(best_f, dtype=torch.float64)
        self.register_buffer("best_f", best)
        self.maximize = maximize

    @t_batch_mode_transform(expected_q=1)  # type: ignore[arg-type]
    def forward(self, X: Float[Tensor, "*b 1 d"]) -> Float[Tensor, "*b"]:
        """Of each t-batch, which is a single point.

        Args:
            X: the points.
        """
        found = self.task_model.parts(X)
        gain = found.mean[..., 0, 0] - self.best_f.to(found.mean)[..., None]
        gain = gain if self.maximize else -gain
        deviation = found.covariance[..., 0, 0].clamp(min=LEAST).sqrt()
        return (found.log_weights + _log_improvement(gain, deviation, found)).logsumexp(-1)


def _log_improvement(gain: Tensor, deviation: Tensor, found: Parts) -> Float[Tensor, "*b S"]:
    """Of each part: log σ + log(φ(u) + u Φ(u)) with u = gain / σ, averaged over σ² = λ K where the part has a scale."""
    u = gain / deviation
    if found.scale is None:
        return deviation.log() + _log_h(u)
    certain = found.scale.shape.isinf()
    shape, rate = (torch.where(certain, 2.0, each) for each in (found.scale.shape, found.scale.rate))
    # where the integrand over log λ has its mass: that of λ after one more number, as far away as the best is
    further = u.detach().clamp(max=0.0).square()
    middle = ((rate + 0.5 * further) / (shape + 0.5)).log().detach()[..., None]
    step = STEP / (shape + 0.5).sqrt().detach()[..., None]
    nodes = FIRST / STEP + torch.arange(NODES, dtype=u.dtype, device=u.device)
    log_factor = middle + step * nodes
    a, b = shape[..., None], rate[..., None]
    log_density = a * b.log() - torch.lgamma(a) - a * log_factor - b * (-log_factor).exp()  # of log λ
    each = log_density + step.log() + 0.5 * log_factor + _log_h(u[..., None] * (-0.5 * log_factor).exp())
    return deviation.log() + torch.where(certain, _log_h(u), each.logsumexp(-1))


def _log_h(u: Tensor) -> Tensor:
    """log(φ(u) + u Φ(u)), without cancellation where u is far below 0."""
    near = u.clamp(min=-1.0)
    above = ((-0.5 * near.square()).exp() / math.sqrt(2.0 * math.pi) + near * torch.special.ndtr(near)).log()
    below = u.clamp(min=FAR, max=-1.0)
    # φ(u) (1 - |u| Φ(u) / φ(u)), and Φ(-v) / φ(v) = √(π/2) erfcx(v / √2)
    tail = torch.log1p(below * math.sqrt(0.5 * math.pi) * torch.special.erfcx(-below / math.sqrt(2.0)))
    farther = -2.0 * u.clamp(max=FAR).neg().log()
    log_phi = -0.5 * u.square() - 0.5 * math.log(2.0 * math.pi)
    return torch.where(u > -1.0, above, log_phi + torch.where(u > FAR, tail, farther))
