"""A hyperprior for any learner: it is in every objective, and nowhere else."""

from collections.abc import Callable

import pytest
import torch

import bayesmeta as bm
from bayesmeta.description import describe
from bayesmeta.hyperpriors import GaussianHyperprior
from bayesmeta.wrappers import WithHyperprior


def _tasks() -> bm.TaskDataset:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(6, 5, 1, generator=generator, dtype=torch.float64)
    slope = 3.0 + 0.3 * torch.randn(6, 1, 1, generator=generator, dtype=torch.float64)
    noise = 0.1 * torch.randn(6, 5, 1, generator=generator, dtype=torch.float64)
    return bm.TaskDataset(bm.Data.full(x, slope * x + noise))


def test_the_maximum_is_that_of_the_posterior_of_theta(tmp_path: object) -> None:
    """Where a mixed model has a closed form, too, which knows nothing of hyperpriors: it is where the search begins."""
    tasks, hyperprior = _tasks(), GaussianHyperprior(0.5, names="prior.location")
    plain = bm.ALPaCA(bm.Identity(1)).double()
    wrapped = WithHyperprior(bm.ALPaCA(bm.Identity(1)).double(), hyperprior)
    assert wrapped.title == "WithHyperprior(ALPaCA)"
    for learner in (plain, wrapped):
        bm.fit_evidence(learner, tasks)
    location = wrapped.learner.prior.location
    assert 0.3 < location[1].item() < plain.prior.location[1].item() - 0.3  # drawn to zero
    value = wrapped.log_evidence(tasks.data).sum() + wrapped.log_hyperprior()
    (gradient,) = torch.autograd.grad(value, location)
    assert gradient.abs().max() < 1e-4  # nats for a unit of a weight
    support = tasks.data.select([0])
    expected = wrapped.learner.adapt(support).predict([0.5])
    assert torch.equal(wrapped.adapt(support).predict([0.5]).mean, expected.mean)
    bm.save(wrapped, f"{tmp_path}/model")
    loaded = bm.load(f"{tmp_path}/model")
    assert describe(loaded) == describe(wrapped)
    assert torch.equal(loaded.log_hyperprior(), wrapped.log_hyperprior())


@pytest.mark.parametrize(
    ("make", "objective"),
    [
        (lambda: bm.MAML(bm.MLP(1, [4])), None),
        (lambda: bm.ConditionalNeuralProcess(bm.Identity(1), width=4, layers=1), None),
        (lambda: bm.LatentNeuralProcess(bm.Identity(1), width=4, layers=1), bm.training.VariationalBound()),
    ],
    ids=["maml", "conditional", "latent"],
)
def test_every_learner_may_have_one(make: Callable[[], bm.Learner], objective: object) -> None:
    """With a tight one on everything, training moves to zero what it is on."""
    torch.manual_seed(0)
    learner = make()
    names = [name.split(".")[0] for name, _ in learner.named_parameters()]
    wrapped = WithHyperprior(learner, GaussianHyperprior(1e-3, names=names))
    before = sum(p.square().sum().item() for p in learner.parameters())
    bm.fit(wrapped, _tasks(), steps=20, lr=1e-2, objective=objective, progress=False)
    assert sum(p.square().sum().item() for p in learner.parameters()) < before
