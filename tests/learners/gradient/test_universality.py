"""One gradient step of a constructed network is any function of (support, query): Finn & Levine 2018.

The network is one of ReLU layers whose biases `memory`, 0 before the step, say after it where the support point was and
what its outcome was. It works on a grid of inputs and outcomes, as finely as one likes.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import relu

import bayesmeta as bm

GRID = torch.linspace(-1.0, 1.0, 9, dtype=torch.float64)
OUTCOMES = torch.linspace(-1.0, 1.0, 5, dtype=torch.float64)


class Universal(bm.WholeNetwork):
    """f(x; memory) = baseline + written(x) + read(x).

    written is such that ∂f/∂memory at x is the unit vector of the grid point x, so that a step of gradient ascent
    leaves memory = e there, with e = -dloss/df at the baseline. read is 0, and flat, while memory is 0; then it
    looks up what f should be in a table, by the place of the support, e, and the query.

    Args:
        table: what f shall be, by places of support, outcome and query.
        pulls: e of each outcome: distinct, of absolute values of at least 1 and below 4.
        baseline: f before the step.
    """

    def __init__(self, table: Tensor, pulls: Tensor, baseline: float) -> None:
        super().__init__()
        self.x_shape, self.num_outputs, self.baseline = (1,), 1, baseline
        self.memory = nn.Parameter(torch.zeros(len(GRID)))
        self.width = min(1.0, pulls.diff().abs().min().item())  # of a hat around e
        written = baseline + pulls[:, None] * torch.eye(len(GRID), dtype=torch.float64)[:, None]
        self.register_buffer("table", table - written)
        self.register_buffer("pulls", pulls)

    def forward(self, x: Tensor) -> Tensor:
        memory, table, pulls = self.memory, self.get_buffer("table"), self.get_buffer("pulls")
        near = hat((x - GRID) / (GRID[1] - GRID[0]))  # B N G: 1 at its place, 0 at the others
        written = relu(memory + 8.0 * near - 4.0).sum(-1) - 4.0
        filled = 1.0 - relu(1.0 - relu(memory) - relu(-memory))  # G: where the support was
        which = hat((memory.sum() - pulls) / self.width)  # Y: what e was
        all_three = relu(filled[:, None, None] + which[:, None] + near[..., None, None, :] - 2.0)  # B N G Y G
        return (self.baseline + written + (table * all_three).sum((-1, -2, -3)))[..., None]


def hat(t: Tensor) -> Tensor:
    """1 at 0, and 0 from 1 on to both sides."""
    return relu(t + 1.0) - 2.0 * relu(t) + relu(t - 1.0)


def nearest_label(labels: Tensor, x_0: float, y_0: float) -> Tensor:
    """The label of the nearest of the support point and an example (x_0, y_0) that all tasks share; `G Y G`."""
    own = (GRID - GRID[:, None]).abs() <= (GRID - x_0).abs()  # support, query
    return torch.where(own[:, None], labels[:, None], torch.full_like(labels[:, None], y_0))


def adapted(table: Tensor, pulls: Tensor, baseline: float, lr: float, **choices: Any) -> bm.MAML:
    """MAML that takes one step, of this size."""
    network = Universal(table, pulls, baseline)
    learner = bm.MAML(network, steps=1, posterior=bm.PointEstimate(), adapted=["memory"], **choices).double()
    learner.rate.set(lr)
    return learner


def outputs(learner: bm.MAML, support: bm.Data) -> Tensor:
    """f at the grid for every task."""
    learner = learner.frozen()
    assert isinstance(learner, bm.MAML)
    phi = learner.find_mode(learner.conform(support))
    return learner.forward(phi, GRID[:, None].expand(support.num_tasks, -1, -1))[..., 0].detach()


def supports(outcomes: Tensor) -> bm.Data:
    """A task with one support point for each grid point and outcome."""
    x = GRID.repeat_interleave(len(outcomes))[:, None, None]
    y = outcomes.repeat(len(GRID))
    return bm.Data.full(x, y[:, None, None] if y.is_floating_point() else y[:, None])


TABLES = {
    "nearest neighbour": nearest_label(OUTCOMES, x_0=0.5, y_0=-0.25),
    "any": torch.randn(9, 5, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),
}


@pytest.mark.parametrize("name", TABLES)
def test_one_step_on_the_squared_error_is_any_function(name: str) -> None:
    learner = adapted(TABLES[name], OUTCOMES + 2.0, baseline=-2.0, lr=1.0)  # e = y - f = y + 2
    before = learner.network(GRID[None, :, None])
    torch.testing.assert_close(before, torch.full_like(before, -2.0))  # the same everywhere: nothing is known yet
    found = outputs(learner, supports(OUTCOMES)).reshape(9, 5, 9)
    assert (found - TABLES[name]).abs().max() < 1e-6
    prediction = learner.adapt(bm.Data.from_arrays([GRID[2].item()], [0.5])).predict(GRID)
    torch.testing.assert_close(prediction.mean[0, :, 0], TABLES[name][2, 3], atol=1e-6, rtol=0.0)


def test_one_step_on_the_cross_entropy_is_any_function() -> None:
    labels = torch.tensor([0, 1])
    table = nearest_label(torch.tensor([-5.0, 5.0], dtype=torch.float64), x_0=-0.5, y_0=5.0)  # logits
    # at f = 0 the derivative is y - 1/2: with a step of 2, e is -1 or 1
    pulls = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    learner = adapted(table, pulls, baseline=0.0, lr=2.0, likelihood=bm.likelihoods.Bernoulli())
    assert (outputs(learner, supports(labels)).reshape(9, 2, 9) - table).abs().max() < 1e-6


def test_a_loss_whose_gradient_does_not_tell_labels_apart_cannot() -> None:
    """Student's t pulls with (dof + 1) r / (dof scale² + r²): as much at r = 1 as at r = 3, with dof 3 and scale 1."""
    torch.manual_seed(0)
    likelihood = bm.likelihoods.StudentT(initial_scale=1.0, initial_dof=3.0)
    learner = bm.MAML(bm.MLP(1, [8]), steps=1, lr=0.5, likelihood=likelihood, posterior=bm.PointEstimate()).double()
    f = learner.network(torch.zeros(1, 1, 1, dtype=torch.float64)).item()
    one, three, five = (
        outputs(learner, bm.Data.full(torch.zeros(1, 1, 1).double(), torch.full((1, 1, 1), f + residual).double()))
        for residual in (1.0, 3.0, 5.0)
    )
    torch.testing.assert_close(one, three, rtol=0.0, atol=1e-6)  # the scale is a trained number in float32, at first
    assert (one - five).abs().max() > 1e-2
