"""Scores by angle."""

import pytest
import torch

import bayesmeta as bm


def test_long_weights_score_by_angle_and_short_ones_by_projection() -> None:
    network = bm.networks.Cosine(bm.MLP(2, [6]), scale=4.0).with_outputs(3).double()
    x = torch.randn(1, 5, 2, dtype=torch.float64)
    rows, direction = network.features.features(x), torch.randn(3, 6, dtype=torch.float64)
    angle = torch.nn.functional.cosine_similarity(rows[:, :, None], direction, dim=-1)
    with torch.no_grad():
        network.output.weight.copy_(1e6 * direction)
    # features of length 1 are up to 1e-6 of their square
    torch.testing.assert_close(network(x), 4.0 * angle, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        network.output.weight.copy_(1e-6 * direction)
    torch.testing.assert_close(network(x), 4e-6 * angle * direction.norm(dim=-1), rtol=1e-4, atol=1e-11)


def test_nothing_scores_nothing_and_has_a_derivative() -> None:
    network = bm.networks.Cosine(bm.MLP(2, [6])).with_outputs(3)
    torch.nn.init.zeros_(network.output.weight)
    out = network(torch.randn(1, 5, 2))
    assert (out == 0.0).all()
    out.sum().backward()
    assert (network.output.weight.grad != 0.0).any()


def test_stacked_weights_are_those_of_each_task() -> None:
    network = bm.networks.Cosine(bm.MLP(2, [6])).with_outputs(3).double()
    phi = {name: torch.randn(2, *value.shape, dtype=torch.float64) for name, value in network.named_parameters()}
    x = torch.randn(2, 5, 2, dtype=torch.float64)
    for task in range(2):
        own = {name: value[task] for name, value in phi.items()}
        expected = torch.func.functional_call(network, own, (x[[task]],))
        torch.testing.assert_close(network.stacked(phi, x)[[task]], expected)
    shared = {"output.weight": phi["output.weight"]}
    rows = network.features(x)
    torch.testing.assert_close(network.stacked(shared, x), network.of_features(shared, rows))
    assert network.jacobian(phi, x).dense().shape[:3] == (2, 5, 3)


def test_a_scale_is_positive() -> None:
    with pytest.raises(bm.DataError, match="positive scale, got 0"):
        bm.networks.Cosine(bm.Identity(2), scale=0.0)
