"""Positive numbers by their values, and the log-normal hyperprior of them: densities, Jacobians, maps over theta."""

import math

import gpytorch
import pytest
import torch
from torch.func import vmap

import bayesmeta as bm
from bayesmeta.positive_numbers import positive_numbers
from bayesmeta.swapped import swapped

D = torch.float64


def _learner() -> bm.Learner:
    """Raw numbers of three kinds: logarithms, gpytorch's softplus, and our own between bounds."""
    kernel = gpytorch.kernels.ScaleKernel(gpytorch.kernels.RBFKernel())
    plain = bm.DeepKernelTransfer(bm.Identity(1), kernel=kernel)
    return bm.Standardized(plain).double()


def test_values_and_where_they_come_from() -> None:
    for learner in (_learner(), bm.DeepKernelTransfer(bm.Identity(1)).double(), bm.ALPaCA(bm.Identity(1)).double()):
        found = positive_numbers(learner)
        assert found
        assert set(found) <= set(dict(learner.named_parameters()))
        for each in found.values():
            torch.testing.assert_close(each.raw_of(each.value), each.raw.double())
            assert (each.value > 0.0).all()
    assert positive_numbers(bm.MLP(1, [3])) == {}


def test_the_density_of_values_is_the_log_normal_one() -> None:
    values = {"a": torch.tensor([0.01, 1.0, 30.0], dtype=D), "b": torch.tensor(2.0, dtype=D)}
    for median, scale in ((1.0, 2.3), (0.2, 0.5)):
        found = bm.hyperpriors.LogNormalHyperprior(median, scale).log_prob(values)
        exact = torch.distributions.LogNormal(math.log(median), scale)
        torch.testing.assert_close(found, sum(exact.log_prob(value).sum() for value in values.values()))


@pytest.mark.parametrize("shift", [-3.0, 0.0, 4.0])
def test_the_density_of_what_is_trained_has_the_jacobian(shift: float) -> None:
    """By central differences, whose error is of the order of step² times the third derivative of the value."""
    learner, hyperprior = _learner(), bm.hyperpriors.LogNormalHyperprior(0.5, 1.5)
    numbers = hyperprior.numbers(learner)
    with torch.no_grad():
        for each in numbers.values():
            each.raw.add_(shift)
    step, expected = 1e-4, 0.0
    exact = torch.distributions.LogNormal(math.log(0.5), 1.5)
    for each in numbers.values():
        raw = each.raw.detach()
        slope = (each.value_of(raw + step) - each.value_of(raw - step)) / (2.0 * step)
        expected += (exact.log_prob(each.value_of(raw)) + slope.log()).sum().item()
    assert math.isclose(hyperprior.of(learner).item(), expected, abs_tol=1e-6)


def test_it_is_mapped_over_theta_and_differentiated() -> None:
    learner, hyperprior = _learner(), bm.hyperpriors.LogNormalHyperprior()
    raw = {name: each.raw for name, each in hyperprior.numbers(learner).items()}
    generator = torch.Generator().manual_seed(0)
    theta = {n: (v.detach() + torch.randn(4, *v.shape, dtype=D, generator=generator)) for n, v in raw.items()}

    def at(values: dict[str, torch.Tensor]) -> torch.Tensor:
        with swapped(learner, {raw[name]: value for name, value in values.items()}):
            return hyperprior.of(learner)

    leaves = {name: value.requires_grad_() for name, value in theta.items()}
    mapped = vmap(at)(leaves)
    each = torch.stack([at({name: value[i] for name, value in leaves.items()}) for i in range(4)])
    torch.testing.assert_close(mapped, each)
    one = torch.autograd.grad(mapped.sum(), list(leaves.values()))
    other = torch.autograd.grad(each.sum(), list(leaves.values()))
    torch.testing.assert_close(one, other)


def test_names_choose_and_wrappers_do_not_matter() -> None:
    learner = _learner()
    everything, kernel = (bm.hyperpriors.LogNormalHyperprior(names=names) for names in ((), "kernel"))
    assert set(everything.numbers(learner)) - set(kernel.numbers(learner)) == {"learner.likelihood.noise.value.raw"}
    assert kernel.of(learner) == kernel.of(learner.learner)
    wrapped = bm.wrappers.WithHyperprior(learner, kernel)
    assert wrapped.log_hyperprior() == kernel.of(learner)
    with pytest.raises(bm.DataError, match="positive numbers nothing in the learner"):
        bm.hyperpriors.LogNormalHyperprior(names="nothing").of(learner)
    with pytest.raises(bm.DataError, match="a positive number, got 0"):
        bm.hyperpriors.LogNormalHyperprior(scale=0.0)
