"""Conv4 against torch's own layers task by task, and its derivatives against finite differences."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

import bayesmeta as bm
from bayesmeta.description import construct, describe
from bayesmeta.networks import conv4
from bayesmeta.networks.pooling import max_pool
from bayesmeta.networks.task_norm import TaskNorm
from bayesmeta.typing import Params

CLOSE = {"rtol": 1e-9, "atol": 1e-9}  # float64, a few hundred operations: rounding, enlarged by small variances
NORMS = ["group", "task"]


@pytest.fixture(params=["together", "apart"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways in which `stacked` computes."""
    monkeypatch.setattr(conv4, "TOGETHER", math.inf if request.param == "together" else -1)
    return str(request.param)


def _network(norm: str, size: tuple[int, int] = (8, 8)) -> bm.WholeNetwork:
    # one group: on the last map of 1x1 two channels of a group would be ±1, whatever the weights
    network = bm.Conv4((2, *size), 4, norm, num_groups=1).with_outputs(2).double()
    with torch.no_grad():
        for parameter in network.parameters():  # normalisation starts at 1 and 0, where it could be forgotten
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network


def _phi(network: nn.Module, tasks: int, prefix: str = "") -> Params:
    named = {name: value for name, value in network.named_parameters() if name.startswith(prefix)}
    return {n: (v + 0.1 * torch.randn(tasks, *v.shape).to(v)).detach().requires_grad_() for n, v in named.items()}


def _images(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def _loop(network: bm.WholeNetwork, phi: Params, x: Tensor) -> Tensor:
    values = [{name: value[t] for name, value in phi.items()} for t in range(len(x))]
    return torch.cat([functional_call(network, v, (x[t : t + 1],)) for t, v in enumerate(values)])


def _stock(network: bm.WholeNetwork, phi: Params, x: Tensor) -> Tensor:
    """The definition, with torch's own layers: ReLU before the pool, batch norm in training mode."""
    named = {**{n: v.expand(len(x), *v.shape) for n, v in network.named_parameters()}, **phi}
    outputs = []
    for t, z in enumerate(x):
        own = {name: value[t] for name, value in named.items()}
        for b in (f"features.blocks.{i}" for i in range(4)):
            z = F.conv2d(z, own[f"{b}.convolution.weight"], own.get(f"{b}.convolution.bias"), padding=1)
            weight, bias = own[f"{b}.norm.weight"], own[f"{b}.norm.bias"]
            z = (
                F.group_norm(z, 1, weight, bias)
                if network.pointwise
                else F.batch_norm(z, None, None, weight, bias, True)
            )
            z = F.relu(z)
            z = F.max_pool2d(z, [min(n, 2) for n in z.shape[2:]])
        outputs.append(F.linear(z.flatten(1), own["output.weight"], own["output.bias"]))
    return torch.stack(outputs)


def _derivatives(function: Callable[[Params, Tensor], Tensor], phi: Params, x: Tensor) -> list[Tensor]:
    """Values, first derivatives and products with the matrix of second derivatives, in phi and x."""
    generator = torch.Generator().manual_seed(3)
    leaves = [*phi.values(), x]
    out = function(phi, x)
    first = torch.autograd.grad(out.square().sum(), leaves, create_graph=True)
    along = [torch.randn(g.shape, generator=generator, dtype=g.dtype) for g in first]
    product = torch.stack([(g * v).sum() for g, v in zip(first, along, strict=True)]).sum()
    return [out, *first, *torch.autograd.grad(product, leaves)]


@pytest.mark.parametrize("reference", [_loop, _stock])
@pytest.mark.parametrize("norm", NORMS)
def test_stacked_is_a_loop_over_tasks(norm: str, reference: Callable[..., Tensor], path: str) -> None:
    network = _network(norm)
    phi, x = _phi(network, 3), _images(3, 5, 2, 8, 8).requires_grad_()
    found = _derivatives(network.stacked, phi, x)
    expected = _derivatives(lambda p, x: reference(network, p, x), phi, x)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, **CLOSE)


def test_other_numbers_of_blocks_and_kernels() -> None:
    network = bm.networks.ConvNet((1, 9, 6), channels=4, blocks=2, kernel=5, num_groups=2).double()
    x = _images(2, 3, 1, 9, 6)
    z = x.flatten(0, 1)
    for block in network.blocks:
        z = F.conv2d(z, block.convolution.weight, block.convolution.bias, padding=2)
        z = F.max_pool2d(F.relu(F.group_norm(z, 2, block.norm.weight, block.norm.bias)), 2)
    assert network.map_shape == z.shape[1:] == (4, 2, 1)
    torch.testing.assert_close(network(x), z.flatten(1).unflatten(0, (2, 3)), **CLOSE)
    with pytest.raises(bm.DataError, match="expected 1 to 64 blocks, got 0"):
        bm.networks.ConvNet((1, 9, 6), channels=4, blocks=0, num_groups=2)


@pytest.mark.parametrize("norm", NORMS)
def test_forward_shares_its_weights(norm: str) -> None:
    network = _network(norm)
    x = _images(3, 5, 2, 8, 8)
    torch.testing.assert_close(network(x), _stock(network, {}, x), **CLOSE)
    shared = {n: v.expand(3, *v.shape) for n, v in network.named_parameters()}
    torch.testing.assert_close(network.stacked(shared, x), network(x), **CLOSE)


@pytest.mark.parametrize("prefix", ["output", "features.blocks.1.norm", "features.blocks.3", "none of them"])
@pytest.mark.parametrize("norm", NORMS)
def test_weights_that_phi_leaves_out_are_the_networks_own(norm: str, prefix: str, path: str) -> None:
    network = _network(norm)
    phi, x = _phi(network, 2, prefix), _images(2, 4, 2, 8, 8)
    own = list(network.parameters())
    found, expected = network.stacked(phi, x), _stock(network, phi, x)
    torch.testing.assert_close(found, expected, **CLOSE)
    gradients = [torch.autograd.grad(out.square().sum(), own, materialize_grads=True) for out in (found, expected)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, **CLOSE)


@pytest.mark.parametrize("norm", NORMS)
def test_meta_gradient_against_finite_differences(norm: str, path: str) -> None:
    """One inner step; torch has been wrong here in silence: derivatives through a map that holds a gradient."""
    network = _network(norm)
    x, y, new_x, new_y = _images(2, 4, 2, 8, 8), _images(2, 4, 2), _images(2, 6, 2, 8, 8), _images(2, 6, 2)
    names = [name for name, _ in network.named_parameters()]

    def meta_loss(theta: list[Tensor]) -> Tensor:
        phi = {name: value.expand(2, *value.shape) for name, value in zip(names, theta, strict=True)}
        loss = (network.stacked(phi, x) - y).square().mean((1, 2)).sum()
        gradients = torch.autograd.grad(loss, list(phi.values()), create_graph=True)
        phi = {name: value - 0.1 * g for (name, value), g in zip(phi.items(), gradients, strict=True)}
        return (network.stacked(phi, new_x) - new_y).square().mean()

    theta = [value.detach().requires_grad_() for value in network.parameters()]
    gradient = torch.autograd.grad(meta_loss(theta), theta)
    for _ in range(3):
        along = [torch.randn_like(value) for value in theta]
        step = 1e-6
        ends = [meta_loss([(t + s * step * v) for t, v in zip(theta, along, strict=True)]).item() for s in (1, -1)]
        slope = sum((g * v).sum().item() for g, v in zip(gradient, along, strict=True))
        # central differences: step² times third derivatives, and rounding of 1e-16 / step
        assert slope == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_jacobian_against_torch(norm: str) -> None:
    network = _network(norm, (2, 3))
    phi, x = _phi(network, 2), _images(2, 3, 2, 2, 3)
    found = network.jacobian(phi, x).dense()
    names = list(phi)
    for t in range(2):
        blocks = torch.autograd.functional.jacobian(
            lambda *values: functional_call(network, dict(zip(names, values, strict=True)), (x[t : t + 1],))[0],  # noqa: B023
            tuple(value[t].detach() for value in phi.values()),
        )
        torch.testing.assert_close(found[t], torch.cat([b.flatten(2) for b in blocks], -1), **CLOSE)


@pytest.mark.parametrize("norm", NORMS)
def test_only_task_norm_looks_at_other_points(norm: str, path: str) -> None:
    network = _network(norm)
    phi, x = _phi(network, 2), _images(2, 4, 2, 8, 8)
    other = x.clone()
    other[:, 0] += 1.0 + _images(2, 2, 8, 8)
    for function in (network, lambda x: network.stacked(phi, x)):
        moved = (function(other) - function(x)).abs().amax((0, 2))
        assert moved[0] > 1e-3
        assert (moved[1:] < 1e-12).all() if norm == "group" else (moved[1:] > 1e-6).all()
    assert network.pointwise is (norm == "group")


@pytest.mark.parametrize("norm", NORMS)
def test_tasks_do_not_look_at_each_other(norm: str, path: str) -> None:
    network = _network(norm)
    phi, x = _phi(network, 2), _images(2, 4, 2, 8, 8)
    other = torch.stack([x[0], _images(4, 2, 8, 8)])
    for function in (network, lambda x: network.stacked(phi, x)):
        torch.testing.assert_close(function(other)[0], function(x)[0], **CLOSE)


@pytest.mark.parametrize(("size", "last"), [((28, 28), 1), ((84, 84), 25), ((5, 7), 1), ((1, 40), 2), ((32, 16), 2)])
def test_number_of_features(size: tuple[int, int], last: int) -> None:
    network = bm.Conv4((3, *size), 4, num_groups=2)
    assert network.x_shape == (3, *size)
    assert network.num_outputs == 4 * last
    assert network(torch.randn(1, 2, 3, *size)).shape == (1, 2, network.num_outputs)
    assert network.map_shape[0] == 4
    assert math.prod(network.map_shape) == network.num_outputs
    assert network.with_outputs(5).num_outputs == 5


def test_the_network_of_the_literature() -> None:
    """Snell et al. 2017: 64 · 10 + 3 · 64 · 577 numbers in convolutions, 4 · 128 in normalisation; 64 features."""
    assert sum(p.numel() for p in bm.Conv4((1, 28, 28)).parameters()) == 111_936
    # without the four biases that batch statistics take away
    assert sum(p.numel() for p in bm.Conv4((1, 28, 28), norm="task").parameters()) == 111_936 - 4 * 64
    assert bm.Conv4((1, 28, 28)).num_outputs == 64


@pytest.mark.parametrize("norm", NORMS)
def test_ties_are_resolved_as_torch_does(norm: str) -> None:
    """Constant images, as the background of a letter: the pool gives the gradient to the first of equal numbers."""
    network = _network(norm)
    phi = _phi(network, 2)
    x = _images(2, 3, 2, 8, 8).round().clamp(0.0, 1.0).requires_grad_()
    found = _derivatives(network.stacked, phi, x)
    for a, b in zip(found, _derivatives(lambda p, x: _stock(network, p, x), phi, x), strict=True):
        torch.testing.assert_close(a, b, **CLOSE)
    z = torch.randint(0, 3, (4, 2, 7, 6)).double().requires_grad_()
    (pooled,) = torch.autograd.grad(max_pool(z).square().sum(), z)
    (expected,) = torch.autograd.grad(F.max_pool2d(z, 2).square().sum(), z)
    assert torch.equal(pooled, expected)


@pytest.mark.parametrize("norm", NORMS)
def test_no_points(norm: str, path: str) -> None:
    network = _network(norm)
    phi, x = _phi(network, 2), _images(2, 0, 2, 8, 8)
    out = network.stacked(phi, x)
    assert out.shape == network(x).shape == (2, 0, 2)
    assert network.jacobian(phi, x).dense().shape == (2, 0, 2, sum(v[0].numel() for v in phi.values()))
    for gradient in torch.autograd.grad(out.sum(), list(phi.values()), materialize_grads=True):
        assert not gradient.any()


@pytest.mark.parametrize("norm", NORMS)
def test_no_graph_where_nothing_needs_one(norm: str, path: str) -> None:
    network = _network(norm)
    phi, x = _phi(network, 2), _images(2, 3, 2, 8, 8)
    with torch.no_grad():
        assert not network.stacked(phi, x).requires_grad
    constant = {name: value.detach() for name, value in phi.items()}
    network.requires_grad_(False)
    assert not network.stacked(constant, x).requires_grad
    assert not network.jacobian(constant, x).dense().requires_grad


def test_task_norm_standardises() -> None:
    norm = TaskNorm(3).double()
    z = 5.0 + 2.0 * _images(2, 4, 3, 6)
    out = norm(z)
    assert out.mean((1, 3)).abs().max() < 1e-12
    assert (out.var((1, 3), correction=0) - 1.0).abs().max() < 1e-5  # eps
    assert norm(z[..., 0]).shape == (2, 4, 3)


def test_description_round_trip() -> None:
    network = bm.Conv4((1, 28, 28), 8, num_groups=4)
    copy = construct(describe(network))
    copy.load_state_dict(network.state_dict())
    x = torch.randn(1, 2, 1, 28, 28)
    assert torch.equal(copy(x), network(x))


@pytest.mark.parametrize("x_shape", [(28, 28), (0, 28, 28), (1, 28, 0), (1, 1, 28, 28)])
def test_bad_image_shapes(x_shape: tuple[int, ...], unchecked: None) -> None:
    with pytest.raises(bm.ShapeError, match=r"expected x_shape \(channels, height, width\).*got"):
        bm.Conv4(x_shape)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 0}, "expected at least one channel, got 0"),
        ({"norm": "batch"}, r"expected a norm among \['group', 'task'\], got 'batch'"),
        ({"channels": 12}, "expected a number of groups that divides 12 channels, got 8"),
        ({"num_groups": 0}, "expected a number of groups that divides 64 channels, got 0"),
        ({"num_groups": 64, "x_shape": (1, 8, 8)}, "expected groups of more than one number, got 64 groups"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(bm.DataError, match=message):
        bm.Conv4(**{"x_shape": (1, 28, 28), **arguments})  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(2, 3, 1, 28, 27), (2, 3, 28, 28), (3, 1, 28, 28), (2, 3, 3, 28, 28)])
def test_images_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(bm.ShapeError, match=r"expected x of shape \(B, N, 1, 28, 28\), got"):
        bm.Conv4((1, 28, 28), 8)(torch.randn(shape))


def test_a_single_number_has_no_variance() -> None:
    bm.Conv4((1, 28, 28), 4, norm="task")(torch.randn(2, 1, 1, 28, 28))  # the last map is 3x3 before its pool
    with pytest.raises(
        bm.DataError, match=r"expected more than one number per channel.*got z of shape \(2, 1, 4, 1, 1\)"
    ):
        bm.Conv4((1, 8, 8), 4, norm="task")(torch.randn(2, 1, 1, 8, 8))
    with pytest.raises(bm.DataError, match="expected at least one channel"):
        TaskNorm(0)
