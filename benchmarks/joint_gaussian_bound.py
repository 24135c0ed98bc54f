"""No jointly Gaussian predictive, however trained, comes within 0.16 nats of the Bayes predictor at one sinusoid point.

MAML's sinusoids with noise deviation 0.1, the tasks of `make demo`, and 4,000 others for a smaller error. The learner
has the exact features and the family's own mean and covariance. For every pair of inputs it then has the exact
regression coefficient and residual variance, so that no predictive that is jointly Gaussian has a lower expected NLL
at 0 or 1 point.
"""

import math

import torch
from torch import Tensor

import bayesmeta as bm
from benchmarks._report import verdict


class SineAndCosine(bm.Network):
    """The exact features of sinusoids of frequency 1."""

    def __init__(self) -> None:
        super().__init__()
        self.x_shape, self.num_outputs = (1,), 2

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([torch.sin(x), torch.cos(x)], -1)


def best_joint_gaussian() -> bm.ALPaCA:
    """y = A cos b sin x - A sin b cos x with the mean and covariance of (A cos b, -A sin b), A ~ U(.1, 5), b ~ U(0, π).

    For every pair of inputs it has the exact regression coefficient and residual variance, so that no predictive that
    is jointly Gaussian has a lower expected NLL at 0 or 1 point.
    """
    mean, square = 2.55, (5.0**3 - 0.1**3) / (3 * 4.9)
    learner = bm.ALPaCA(SineAndCosine()).double()
    learner.prior.noise.set_covariance(torch.tensor([[0.01]]))
    with torch.no_grad():
        learner.prior.location.copy_(torch.tensor([[0.0], [-mean * 2 / math.pi]]))
    variances = torch.tensor([square / 2, square / 2 - (mean * 2 / math.pi) ** 2])
    learner.prior.covariance.set_matrix(torch.diag(variances / 0.01))
    return learner


def main() -> None:
    """Print its regret at 0 to 3 points."""
    torch.set_num_threads(1)
    learner, tasks = best_joint_gaussian(), bm.tasks.Sinusoid.maml(noise=0.1)
    table = bm.evaluate(learner, tasks.dataset(1_000, 40, seed=1), (0, 1, 2, 3), query=20).table()
    print("tasks of the demonstration")
    print(table[["regret", "regret_low", "regret_high", "floor", "coverage"]].round(4).to_string())
    more = bm.evaluate(learner, tasks.dataset(4_000, 40, seed=2), (1,), query=20).table()
    print("\n4,000 other tasks")
    print(more[["regret", "regret_low", "regret_high", "floor", "coverage"]].round(4).to_string())
    low = more.regret_low[1]
    verdict(f"regret of the best joint Gaussian at 1 point: {more.regret[1]:.3f}, 95 % interval from {low:.3f}", seed=1)


if __name__ == "__main__":
    main()
