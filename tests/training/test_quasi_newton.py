"""The search: smooth valleys, functions that cannot be computed everywhere, and rounding."""

import math

import pytest
import torch
from torch import Tensor

from bayesmeta.training.quasi_newton import minimise

D = torch.float64


def _rosenbrock(u: Tensor) -> tuple[float, Tensor]:
    a, b = u.tolist()
    gradient = [-2.0 * (1.0 - a) - 400.0 * a * (b - a * a), 200.0 * (b - a * a)]
    return (1.0 - a) ** 2 + 100.0 * (b - a * a) ** 2, torch.tensor(gradient, dtype=D)


def test_a_curved_valley() -> None:
    found = minimise(_rosenbrock, torch.tensor([-1.2, 1.0], dtype=D), steps=200, tolerance=1e-9)
    assert (found.point - 1.0).abs().max() < 1e-8
    assert not found.is_exhausted
    assert found.steepness <= 1e-6
    assert found.steps < 60


def test_points_that_cannot_be_computed() -> None:
    """The minimum next to a wall, behind which the value is infinite, or NaN, or has no gradient."""
    for wall in ((math.inf, 1.0), (math.nan, 1.0), (0.0, math.nan)):

        def function(u: Tensor, wall: tuple[float, float] = wall) -> tuple[float, Tensor]:
            value, gradient = _rosenbrock(u)
            return (wall[0], gradient * wall[1]) if u[0] > 1.0 + 1e-6 else (value, gradient)

        found = minimise(function, torch.tensor([-1.2, 1.0], dtype=D), steps=300, tolerance=1e-9)
        assert (found.point - 1.0).abs().max() < 1e-4


def test_numbers_of_any_size() -> None:
    scales = torch.logspace(-3, 3, 7, dtype=D)
    function = lambda u: (float((scales * u.square()).sum() / 2.0 + 1e3), scales * u)
    found = minimise(function, torch.ones(7, dtype=D), steps=200, tolerance=1e-9)
    assert found.point.abs().max() < 1e-3  # what rounding leaves: the value is 1e3, known to 1e-13
    assert not found.is_exhausted


def test_a_function_with_noise_ends() -> None:
    calls = 0

    def function(u: Tensor) -> tuple[float, Tensor]:
        nonlocal calls
        calls += 1
        return float(u.square().sum()) + 1.0 + 1e-13 * math.sin(1e9 * float(u[0])), 2.0 * u + 1e-8

    found = minimise(function, torch.ones(3, dtype=D), steps=500, tolerance=1e-12)
    assert found.point.abs().max() < 1e-6
    assert calls < 200


def test_no_more_steps() -> None:
    found = minimise(_rosenbrock, torch.tensor([-1.2, 1.0], dtype=D), steps=3, tolerance=1e-9)
    assert (found.steps, found.is_exhausted) == (3, True)
    assert found.value < _rosenbrock(torch.tensor([-1.2, 1.0], dtype=D))[0]
    flat = minimise(lambda u: (1.0, torch.zeros_like(u)), torch.ones(2, dtype=D), steps=3, tolerance=1e-9)
    assert (flat.steps, flat.is_exhausted) == (0, False)


def test_a_saddle_and_a_maximum_are_left_downhill() -> None:
    function = lambda u: (float((u**4).sum() / 4.0 - u.square().sum() / 2.0), u**3 - u)
    found = minimise(function, torch.tensor([1e-3, -1e-3], dtype=D), steps=100, tolerance=1e-9)
    torch.testing.assert_close(found.point, torch.tensor([1.0, -1.0], dtype=D))


@pytest.mark.parametrize("start", [5.0, 8.0, 40.0])
def test_a_first_step_into_what_cannot_be_computed(start: float) -> None:
    """Where scipy's L-BFGS-B says that it has converged at 4, 3 and 19, and torch's ends in NaN."""

    def barrier(u: torch.Tensor) -> tuple[float, torch.Tensor]:
        return (float(50.0 * (u - 2.0 * u.log()).sum()), 50.0 * (1.0 - 2.0 / u)) if u > 0.0 else (math.inf, u)

    found = minimise(barrier, torch.tensor([start], dtype=torch.float64), steps=100, tolerance=1e-9)
    assert abs(found.point.item() - 2.0) < 1e-6
