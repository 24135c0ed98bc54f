"""What every learner of classes keeps, besides the contracts of all."""

import pytest
import torch

import bayesmeta as bm
from bayesmeta.heads import ClassPrior
from tests.registry import CASES, Case

CLASSIFIERS = [case for case in CASES if isinstance(case.outcomes, bm.Labels)]
OWN_CLASSES = [case for case in CLASSIFIERS if case.outcomes == bm.Labels()]
SAME = {"rtol": 1e-8, "atol": 1e-8}  # float64: solvers see the classes in another order
classifiers = pytest.mark.parametrize("case", CLASSIFIERS, ids=lambda case: case.name)


def _ways(support: bm.Data, case: Case) -> list[int]:
    """How many classes each task has."""
    if case.outcomes != bm.Labels():
        return [case.num_classes] * support.num_tasks
    return (torch.where(support.mask, support.y, -1).amax(-1) + 1).tolist()


@classifiers
def test_relabelling_permutes_the_probabilities(case: Case) -> None:
    """With other labels the same classes have the same probabilities.

    Where tasks bring their own classes names mean nothing, and every task is relabelled in its own way. Classes of a
    fixed number have names that all tasks share, and a frequency each (`ClassPrior.location`), which is relabelled,
    too.
    """
    learner, tasks = case.learner(), case.batch(4, 6, 5, seed=3)
    support, x = tasks.support, tasks.query.x
    probs = learner.adapt(support).predict(x).probs
    generator = torch.Generator().manual_seed(0)
    other = torch.arange(probs.shape[-1]).repeat(support.num_tasks, 1)  # B C: the new label of each class
    if case.outcomes == bm.Labels():
        for task, ways in enumerate(_ways(support, case)):
            other[task, :ways] = torch.randperm(ways, generator=generator).roll(1)
    else:
        other = other.roll(1, -1)
        for module in learner.modules():
            if isinstance(module, ClassPrior):
                with torch.no_grad():
                    for shares in (module.location, module.counted):
                        shares.copy_(shares.clone().scatter(0, other[0], shares))
    renamed = bm.Data(support.x, other.gather(1, torch.where(support.mask, support.y, 0)), support.mask)
    found = learner.adapt(renamed).predict(x).probs
    expected = torch.zeros_like(probs).scatter(-1, other[:, None].expand_as(probs), probs)
    if "relabelling_permutes_the_probabilities" in case.exceptions:  # which says so as long as it is true
        assert (found - expected).abs().max() > 1e-3
        return
    torch.testing.assert_close(found, expected, **SAME)


@classifiers
def test_unequal_numbers_of_examples_are_legal(case: Case) -> None:
    """One example of a class and five of another; where classes are fixed, none of the third."""
    learner, tasks = case.learner(), case.batch(2, 6, 4, seed=1, ragged=False)
    labels = torch.tensor([[0, 1, 1, 1, 1, 1], [1, 0, 1, 1, 1, 1]])
    support = bm.Data.full(tasks.support.x, labels)
    query = bm.Data.full(tasks.query.x, torch.tensor([[0, 1, 0, 1], [1, 0, 1, 0]]))
    probs = learner.adapt(support).predict(query.x).probs
    assert torch.isfinite(probs).all()
    torch.testing.assert_close(probs.sum(-1), torch.ones(2, 4, dtype=torch.float64))
    loss = learner.meta_loss(bm.TaskBatch(support, query))
    assert torch.isfinite(loss).all()
    trained = [p for p in learner.parameters() if p.requires_grad]
    if trained:
        loss.sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in trained if p.grad is not None)


@pytest.mark.parametrize("case", OWN_CLASSES, ids=lambda case: case.name)
def test_tasks_of_a_batch_may_differ_in_their_ways(case: Case) -> None:
    """Each task is as it is on its own, also in the loss and while streaming, and what is no class of it has none."""
    learner, tasks = case.learner(), case.batch(6, 6, 4, seed=2)
    ways = _ways(tasks.support, case)
    assert set(ways) == {2, 3}
    probs, losses = learner.adapt(tasks.support).predict(tasks.query.x).probs, learner.meta_loss(tasks)
    for task, count in enumerate(ways):
        assert (probs[task, :, count:] == 0.0).all()
        one = bm.TaskBatch(tasks.support.select([task]), tasks.query.select([task]))
        alone = learner.adapt(one.support).predict(one.query.x).probs
        torch.testing.assert_close(probs[task, :, :count], alone[0], **SAME)
        torch.testing.assert_close(losses[task], learner.meta_loss(one)[0], **SAME)
    first, rest = tasks.support.points(slice(3)), tasks.support.points(slice(3, None))  # three show every class
    streamed = learner.adapt(first).update(rest).predict(tasks.query.x).probs
    torch.testing.assert_close(streamed, probs, **SAME)
    with pytest.raises(bm.DataError, match="shows which classes there are"):
        learner.adapt(bm.Data.empty(tasks.support))
