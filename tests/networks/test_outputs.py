"""The output layer that a learner puts on a network, and networks that are all of f."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import bayesmeta as bm
from bayesmeta.networks.dense_network import DenseNetwork
from bayesmeta.networks.jacobian import DenseJacobian, FactoredJacobian

D = torch.float64
CLOSE = {"rtol": 1e-10, "atol": 1e-11}  # float64: rounding only

NETWORKS: dict[str, Callable[[], bm.Network]] = {
    "MLP": lambda: bm.MLP(2, [4, 3]),
    "Conv4": lambda: bm.Conv4((1, 8, 8), 8, num_groups=4),
    "Conv4 with statistics of a task": lambda: bm.Conv4((1, 8, 8), 8, norm="task"),
    "ResNet12": lambda: bm.ResNet12((1, 8, 8), (4, 4, 4, 4), num_groups=2),
    "without parameters": lambda: bm.RadialBasis(1, 5),
}
ALL = pytest.mark.parametrize("name", NETWORKS)


class Physical(bm.WholeNetwork):
    """Two numbers with a meaning."""

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.level, self.log_rate = nn.Parameter(torch.ones(shape)), nn.Parameter(torch.zeros(shape))
        self.x_shape, self.num_outputs = (1,), 1

    def forward(self, x: Tensor) -> Tensor:
        return self.level * (-self.log_rate.exp() * x).exp()


def _moved(network: bm.Network) -> bm.Network:
    network = network.double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network


@ALL
def test_it_is_a_dense_layer_on_the_features(name: str) -> None:
    features = NETWORKS[name]()
    network = _moved(features.with_outputs(3))
    assert (network.x_shape, network.num_outputs, network.pointwise) == (features.x_shape, 3, features.pointwise)
    x = torch.randn(2, 5, *features.x_shape, dtype=D)
    own = dict(network.named_parameters())
    expected = features(x) @ own["output.weight"].mT + own["output.bias"]
    torch.testing.assert_close(network(x), expected, **CLOSE)
    phi = {key: value.detach() + 0.1 * torch.randn(2, *value.shape, dtype=D) for key, value in own.items()}
    beneath = {key.removeprefix("features."): v for key, v in phi.items() if key.startswith("features.")}
    expected = features.stacked(beneath, x) @ phi["output.weight"].mT + phi["output.bias"][:, None]
    torch.testing.assert_close(network.stacked(phi, x), expected, **CLOSE)
    alone = {"output.bias": phi["output.bias"]}  # the rest is the network's own
    expected = features(x) @ own["output.weight"].mT + alone["output.bias"][:, None]
    torch.testing.assert_close(network.stacked(alone, x), expected, **CLOSE)


@ALL
def test_names_are_the_same_for_every_network(name: str) -> None:
    features = NETWORKS[name]()
    names = [f"features.{key}" for key, _ in features.named_parameters()]
    assert [key for key, _ in features.with_outputs(3).named_parameters()] == [*names, "output.weight", "output.bias"]
    anil = bm.MAML(NETWORKS[name](), adapted=["output"])
    assert anil.adapted == ("output.weight", "output.bias")


def test_the_random_numbers_are_those_of_one_network() -> None:
    """Recorded numbers keep: layers are drawn in their order, and the output last, with nothing in between."""
    torch.manual_seed(3)
    learner = bm.MAML(bm.MLP(2, [5, 4]), num_outputs=3)
    after = torch.rand(())
    torch.manual_seed(3)
    explicit = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    assert torch.equal(after, torch.rand(()))
    for found, expected in zip(learner.network.parameters(), explicit.parameters(), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("kind", [bm.MAML, bm.BMAML, bm.CAVIA, bm.IMAML])
def test_the_output_has_the_precision_of_the_features(kind: type[bm.learners.GradientLearner]) -> None:
    torch.manual_seed(3)
    double = kind(bm.MLP(1, [4]).double())
    torch.manual_seed(3)
    single = kind(bm.MLP(1, [4]))
    for found, expected in zip(double.network.parameters(), single.network.parameters(), strict=True):
        assert found.dtype == D
        assert torch.equal(found, expected.double())  # drawn in float32, whatever the precision


def test_one_network_for_every_learner() -> None:
    data = bm.Data.from_arrays([0.0, 1.0, 2.0], [0.0, 0.8, 0.9])
    for kind in (bm.MAML, bm.ALPaCA, bm.CAVIA, bm.BMAML, bm.R2D2Regressor, bm.DeepKernelTransfer):
        prediction = kind(bm.MLP(1, [4, 4])).adapt(data).predict([0.5])
        assert prediction.mean.shape == (1, 1, 1)


def test_jacobians_of_dense_networks_have_factors() -> None:
    network = _moved(bm.MLP(2, [4, 3]).with_outputs(2))
    assert isinstance(network, DenseNetwork)
    phi = {key: value.detach().expand(3, *value.shape) for key, value in network.named_parameters()}
    x = torch.randn(3, 5, 2, dtype=D)
    found, expected = network.jacobian(phi, x), bm.Network.jacobian(network, phi, x)
    assert isinstance(found, FactoredJacobian)
    assert isinstance(expected, DenseJacobian)
    torch.testing.assert_close(found.dense(), expected.dense(), **CLOSE)
    output = {key: phi[key] for key in ("output.bias", "output.weight")}
    torch.testing.assert_close(
        network.jacobian(output, x).dense(), bm.Network.jacobian(network, output, x).dense(), **CLOSE
    )


def test_a_whole_network_takes_no_output() -> None:
    network = Physical()
    assert network.with_outputs(1) is network
    learner = bm.MAML(network, steps=2)
    assert learner.network is network
    assert learner.adapted == ("level", "log_rate")
    with pytest.raises(bm.ShapeError, match="expected a network with 2 outputs, got 1"):
        network.with_outputs(2)
    whole = bm.MLP(1, [4]).with_outputs(1)
    assert whole.with_outputs(1) is whole  # so that learners can share it
    with pytest.raises(bm.DataError, match="at least one output, got 0"):
        bm.MLP(1, [4]).with_outputs(0)


WEIGHTS: dict[str, Callable[..., bm.learners.WeightLearner]] = {
    "MAML": lambda f, **a: bm.MAML(f, steps=2, lr=0.1, **a),
    "MAML, checkpoint": lambda f, **a: bm.MAML(f, steps=2, lr=0.1, checkpoint=True, **a),
    "MetaSGD": lambda f, **a: bm.MetaSGD(f, lr=0.1, **a),
    "MAML++": lambda f, **a: bm.MAMLPlusPlus(f, steps=2, lr=0.1, **a),
    "IMAML": lambda f, **a: bm.IMAML(f, **a),
    "IMAML, Gauss-Newton": lambda f, **a: bm.IMAML(
        f, solver=bm.inference.GradientAscent(400, 0.1), gauss_newton=True, **a
    ),
    "LLAMA": lambda f, **a: bm.LLAMA(f, **a),
    "BMAML": lambda f, posterior, **a: bm.BMAML(f, steps=2, lr=0.1, **a),
}


@pytest.mark.parametrize("posterior", [bm.Linearized(), bm.LinearizedDiagonal(), bm.PointEstimate()])
@pytest.mark.parametrize("name", WEIGHTS)
def test_parameters_that_are_numbers(name: str, posterior: bm.learners.Approximation) -> None:
    """phi of `B` numbers: the same as with each of them in a vector of length one."""
    found = []
    x = torch.rand(3, 6, 1, generator=torch.Generator().manual_seed(0), dtype=D)
    y = 2.0 * (-3.0 * x).exp()
    tasks = bm.TaskBatch(bm.Data.full(x[:, :4], y[:, :4]), bm.Data.full(x[:, 4:], y[:, 4:]))
    for shape in ((), (1,)):
        torch.manual_seed(0)
        learner = WEIGHTS[name](Physical(shape), posterior=posterior).double()
        losses = learner.meta_loss(tasks)
        losses.sum().backward()
        task_posterior = learner.adapt(tasks.support)
        prediction = task_posterior.predict(x)
        found.append([losses.detach(), learner.network.log_rate.grad.flatten(), prediction.mean, prediction.stddev])
        assert task_posterior.mean["level"].shape == (3, *shape)
        if not isinstance(posterior, bm.PointEstimate):
            assert task_posterior.sample(5)["level"].shape == (5, 3, *shape)
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, **CLOSE)


def test_contexts() -> None:
    network = bm.MLP(2, [5, 4], "relu").double()
    wider = network.with_context(3)
    assert (wider.x_shape, wider.hidden, wider.activation) == ((5,), (5, 4), "relu")
    assert next(wider.parameters()).dtype == D
    whole = network.with_outputs(2).with_context(3)
    assert (whole.x_shape, whole.num_outputs) == ((5,), 2)
    with pytest.raises(bm.UnsupportedError, match=r"got Physical: write Physical.with_context\(size\).*\(D \+ size,\)"):
        Physical().with_context(3)


def test_a_learner_is_described_by_its_features(tmp_path: object) -> None:
    for learner in (bm.MAML(bm.MLP(1, [4]), num_outputs=2), bm.CAVIA(bm.MLP(1, [4]), num_context=2, num_outputs=2)):
        bm.save(learner, f"{tmp_path}/learner")
        again = bm.load(f"{tmp_path}/learner")
        for a, b in zip(learner.parameters(), again.parameters(), strict=True):
            assert torch.equal(a, b)
