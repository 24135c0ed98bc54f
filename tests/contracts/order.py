"""A learner's word on whether the order of the support matters, held against what it does."""

import torch

import bayesmeta as bm

SAME = {"rtol": 1e-9, "atol": 1e-9}  # float64: the same mathematics in another order of summation


def check_order(learner: bm.Learner, tasks: bm.TaskBatch, seed: int = 0) -> None:
    """Predictions stay as they are under a shuffled support; or do not, where the learner is not exchangeable."""
    support = tasks.support
    order = torch.randperm(support.num_points, generator=torch.Generator().manual_seed(seed))
    a, b = (learner.adapt(data).predict(tasks.query.x) for data in (support, support.points(order)))
    if learner.exchangeable:
        torch.testing.assert_close(_density(a), _density(b), **SAME)
        torch.testing.assert_close(a.log_prob(tasks.query.y), b.log_prob(tasks.query.y), **SAME)
        return
    backwards = learner.adapt(support.points(torch.arange(support.num_points).flip(0))).predict(tasks.query.x)
    changes = [(_density(a) - _density(other)).abs().max() for other in (b, backwards)]
    assert max(changes) > 1e-6, f"{learner.title} says that the order of the support matters, and it does not"


def _density(prediction: bm.Predictive) -> torch.Tensor:
    """What a prediction says of each point: mean and deviation, or probabilities."""
    if isinstance(prediction.marginals, torch.distributions.Categorical | torch.distributions.Bernoulli):
        return prediction.probs
    return torch.stack([prediction.mean, prediction.stddev])
