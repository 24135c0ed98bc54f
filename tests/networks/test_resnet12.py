"""ResNet-12 against a plain one, its second derivatives, and what it refuses."""

import pytest
import torch
import torch.nn.functional as F

import bayesmeta as bm
from bayesmeta.networks.pooling import max_pool

CHANNELS = (2, 4, 4, 6)


def _network(average: bool = False) -> bm.ResNet12:
    torch.manual_seed(0)
    return bm.ResNet12((3, 20, 17), CHANNELS, average, num_groups=2)


def _plain(network: bm.ResNet12, x: torch.Tensor) -> torch.Tensor:
    z = x
    for block in network.blocks:
        parts = dict(block.named_parameters())
        norm = lambda name, v: F.group_norm(v, 2, parts[f"{name}.weight"], parts[f"{name}.bias"])  # noqa: B023
        out = z
        for i in range(3):
            out = norm(f"norms.{i}", F.conv2d(out, parts[f"convolutions.{i}.weight"], padding=1))
            out = F.leaky_relu(out, 0.1) if i < 2 else out
        out = F.leaky_relu(out + norm("shortcut_norm", F.conv2d(z, parts["shortcut.weight"])), 0.1)
        z = F.max_pool2d(out, [min(n, 2) for n in out.shape[2:]])
    return z


@pytest.mark.parametrize("average", [False, True])
def test_it_is_the_plain_network_at_every_point(average: bool) -> None:
    network = _network(average).double()
    x = torch.randn(2, 3, 3, 20, 17, dtype=torch.float64)
    plain = _plain(network, x.flatten(0, 1))
    expected = plain.mean((2, 3)) if average else plain.flatten(1)
    assert network.num_outputs == (6 if average else 6 * 1 * 1)  # 20 -> 10 -> 5 -> 2 -> 1, 17 -> 8 -> 4 -> 2 -> 1
    assert network.map_shape == (6, 1, 1)
    torch.testing.assert_close(network(x).flatten(0, 1), expected, rtol=1e-10, atol=1e-10)  # rounding


def test_the_paper_has_16000_features() -> None:
    assert bm.ResNet12((3, 84, 84)).num_outputs == 16_000
    assert bm.ResNet12((3, 84, 84)).map_shape == (640, 5, 5)
    assert bm.ResNet12((3, 32, 32), average=True).num_outputs == 640


def test_stacked_weights_and_second_derivatives() -> None:
    network = _network().double()
    x = torch.randn(2, 2, 3, 20, 17, dtype=torch.float64)
    phi = {name: value.detach().expand(2, *value.shape) for name, value in network.named_parameters()}
    torch.testing.assert_close(network.stacked(phi, x), network(x), rtol=1e-10, atol=1e-10)
    learner = bm.MAML(
        network, steps=1, lr=0.1, posterior=bm.PointEstimate(), likelihood=bm.likelihoods.Categorical(6)
    ).double()
    labels, mask = torch.tensor([[0, 1], [2, 3]]), torch.ones(2, 2, dtype=torch.bool)
    tasks = bm.TaskBatch(bm.Data(x, labels, mask), bm.Data(x.flip(1), labels, mask))
    weight = network.blocks[0].shortcut.weight
    (gradient,) = torch.autograd.grad(learner.meta_loss(tasks).sum(), weight)
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ends = []
    for step in (1e-6, -1e-6):
        with torch.no_grad():
            weight.add_(step * direction)
            ends.append(learner.meta_loss(tasks).sum().item())
            weight.sub_(step * direction)
    # central differences err by rounding / h ~ 1e-9, or by a kink within h
    torch.testing.assert_close(
        torch.tensor((ends[0] - ends[1]) / 2e-6, dtype=torch.float64),
        (gradient * direction).sum(),
        rtol=1e-5,
        atol=1e-7,
    )


def test_pooling_leaves_an_axis_of_one() -> None:
    z = torch.randn(2, 3, 5, 1)
    assert torch.equal(max_pool(z), F.max_pool2d(z, (2, 1)))


def test_bad_sizes() -> None:
    for make, error, message in (
        (lambda: bm.ResNet12((3, 0, 8)), bm.ShapeError, "sizes >= 1"),
        (
            lambda: bm.ResNet12((3, 8, 8), (8, 8, 8)),
            bm.DataError,
            r"four positive numbers of channels, got \(8, 8, 8\)",
        ),
        (lambda: bm.ResNet12((3, 8, 8), (8, 8, 8, 12)), bm.DataError, "groups that divides"),
        (lambda: bm.ResNet12((3, 8, 8), (8, 8, 8, 8)), bm.DataError, "single number has no variance"),
    ):
        with pytest.raises(error, match=message):
            make()
    with pytest.raises(bm.ShapeError, match=r"\(B, N, 3, 20, 17\), got \(1, 2, 3, 17, 20\)"):
        _network()(torch.zeros(1, 2, 3, 17, 20))
