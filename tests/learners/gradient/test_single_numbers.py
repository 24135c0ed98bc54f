"""phi may hold single numbers: a physical model whose parameters have no shape adapts with every gradient learner."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import bayesmeta as bm


class Decay(bm.WholeNetwork):
    """f = amplitude * exp(-rate * x)."""

    def __init__(self) -> None:
        super().__init__()
        self.log_rate, self.amplitude = nn.Parameter(torch.zeros(())), nn.Parameter(torch.ones(()))
        self.x_shape, self.num_outputs = (1,), 1

    def forward(self, x: Tensor) -> Tensor:
        return self.amplitude * (-self.log_rate.exp() * x).exp()


class Vectors(Decay):
    """The same with parameters of one number each."""

    def __init__(self) -> None:
        super().__init__()
        self.log_rate, self.amplitude = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.ones(1))


LEARNERS: list[Callable[[bm.Network], bm.Learner]] = [
    lambda network: bm.MAML(network, steps=3, lr=0.1),
    lambda network: bm.MetaSGD(network, lr=0.1),
    lambda network: bm.MAMLPlusPlus(network, steps=2, lr=0.1),
    lambda network: bm.IMAML(network, precision=1.0),
    lambda network: bm.LLAMA(network),
    lambda network: bm.BMAML(network, num_particles=3, steps=2, lr=0.1, spread=0.1),
]


@pytest.mark.parametrize("make", LEARNERS, ids=["MAML", "MetaSGD", "MAML++", "iMAML", "LLAMA", "BMAML"])
def test_numbers_and_vectors_of_one_number_are_the_same(make: Callable[[bm.Network], bm.Learner]) -> None:
    x = torch.linspace(0.0, 2.0, 6, dtype=torch.float64)
    data = bm.Data.full(
        x[None, :, None].expand(3, -1, -1), torch.stack([(-r * x).exp() for r in (0.5, 1.0, 2.0)])[..., None]
    )
    tasks = bm.TaskBatch(data.points(slice(4)), data.points(slice(4, None)))
    results = []
    for network in (Decay(), Vectors()):
        torch.manual_seed(0)
        learner = make(network).double()
        loss = learner.meta_loss(tasks)
        loss.sum().backward()
        prediction = learner.adapt(tasks.support).predict(tasks.query.x)
        gradient = torch.stack([p.grad.reshape(()) for p in learner.network.parameters()])
        results.append((loss.detach(), gradient, prediction.mean, prediction.stddev))
    torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-9)  # the same mathematics
