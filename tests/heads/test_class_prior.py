"""How frequent classes are: the Dirichlet posterior, what starts it, and what a classifier says with it."""

import math

import pytest
import torch
from torch.distributions import Dirichlet

import bayesmeta as bm
from bayesmeta.heads import ClassPrior, GaussianProcessHead, Head, LogisticHead, NearestMeanHead, RidgeHead, SVMHead

D = torch.float64
HEADS = [RidgeHead, LogisticHead, SVMHead, NearestMeanHead, lambda: GaussianProcessHead(2)]
IDS = ["ridge", "logistic", "svm", "means", "gp"]


def test_it_is_the_mean_of_the_dirichlet_posterior() -> None:
    prior = ClassPrior(3).double()
    prior.concentration.set(2.5)
    with torch.no_grad():
        prior.location.copy_(torch.tensor([0.3, -1.0, 0.0]))
    counts = torch.tensor([[0.0, 0.0, 0.0], [4.0, 0.0, 1.0]], dtype=D)
    found = prior(counts, torch.ones(2, 3, dtype=torch.bool)).exp()
    concentration = 2.5 * 3.0 * prior.location.detach().softmax(-1) + counts
    torch.testing.assert_close(found, Dirichlet(concentration).mean)


def test_classes_of_a_tasks_own_have_no_names() -> None:
    prior = ClassPrior(None).double()
    assert prior.location is None
    prior.concentration.set(1.0)
    counts, classes = torch.tensor([[1.0, 3.0, 0.0]], dtype=D), torch.tensor([[True, True, False]])
    assert prior(counts, classes).exp()[0, :2].tolist() == pytest.approx([2 / 6, 4 / 6])
    prior.take_frequencies(torch.tensor([0, 0, 1]))
    assert prior(counts.flip(1), classes.flip(1)).exp()[0, 1:].tolist() == pytest.approx([4 / 6, 2 / 6])


def test_frequencies_are_taken_once_and_only_where_they_are_learned() -> None:
    labels = torch.tensor([0] * 93 + [1] * 6)
    prior, frozen = ClassPrior(3).double(), ClassPrior(3).requires_grad_(False)
    for each in (prior, frozen):
        each.take_frequencies(labels)
    assert prior.location.softmax(-1).tolist() == pytest.approx([93.5 / 100.5, 6.5 / 100.5, 0.5 / 100.5])
    assert (frozen.location == 0.0).all()
    prior.take_frequencies(labels.flip(0) * 2)
    assert prior.location.argmax() == 0
    with pytest.raises(bm.DataError, match="expected labels from 0 to 2, got labels from 0 to 3"):
        ClassPrior(3).take_frequencies(torch.tensor([0, 3]))


@pytest.mark.parametrize("make", HEADS, ids=IDS)
def test_without_an_example_a_classifier_says_the_pooled_frequencies(make: type[Head]) -> None:
    """6 % positive: .227 nats, where 1/2 each has .693; and an example of the frequent class changes no verdict."""
    labels = torch.tensor([[0] * 47 + [1] * 3])
    x = torch.randn(1, 50, 1, dtype=D)
    learner = bm.MetaOptNet(bm.Identity(1), num_classes=2, head=make()).double()
    learner.prepare(bm.Data.full(x, labels))
    support, query = bm.Data.full(x[:, :0], labels[:, :0]), torch.randn(1, 7, 1, dtype=D)
    probs = learner.adapt(support).predict(query).probs
    expected = torch.tensor([47.5, 3.5], dtype=D) / 51.0
    torch.testing.assert_close(probs, expected.expand_as(probs))
    nll = -(0.94 * probs[..., 0].log() + 0.06 * probs[..., 1].log()).mean().item()
    assert nll < 0.23
    assert nll >= -0.94 * math.log(0.94) - 0.06 * math.log(0.06)
    after = learner.adapt(bm.Data.from_labels([[0.3]], [0])).predict(query).probs
    assert (after[..., 0] > 0.8).all()


def test_a_task_without_an_example_has_what_was_counted() -> None:
    """Whatever training makes of the location; a task with an example has that."""
    prior = ClassPrior(2).double()
    prior.take_frequencies(torch.tensor([0] * 9 + [1]))
    with torch.no_grad():
        prior.location.copy_(torch.tensor([-1.0, 1.0]))
    counts = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=D)
    found = prior(counts, torch.ones(2, 2, dtype=torch.bool)).exp()
    assert found[0].tolist() == pytest.approx([9.5 / 11.0, 1.5 / 11.0])
    assert found[1, 1] > 0.8
    prior.load_state_dict(ClassPrior(2).double().state_dict())  # nothing counted: the location serves all
    assert prior(counts, torch.ones(2, 2, dtype=torch.bool)).exp()[0].tolist() == pytest.approx([0.5, 0.5])


def test_training_keeps_the_base_rate_and_learns_how_tasks_differ() -> None:
    """Base rates that are each task's own, Beta(.6, 9.4), and inputs that say nothing: only the numbers count."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    rates = torch.distributions.Beta(0.6, 9.4).sample((300, 1))
    labels = (torch.rand(300, 40, generator=generator) < rates).long()
    tasks = bm.TaskDataset(bm.Data.full(torch.zeros(300, 40, 1), labels))
    learner = bm.R2D2(bm.Identity(1), num_classes=2)
    split = bm.tasks.RandomSplit((0, 20), 20)
    bm.fit(learner, tasks, 120, batch_size=50, lr=2e-2, split=split, progress=False)
    found = bm.evaluate(learner, tasks, (0, 1, 20), query=20, num_bootstrap=0).table().nll
    # the exact predictive: the mean of Beta(.6 + positives, 9.4 + negatives)
    batch = tasks.divided(bm.tasks.RandomSplit.at(20, 20))
    positive = (0.6 + batch.support.y.sum(1)) / 30.0
    y = batch.query.y
    exact = -torch.where(y == 1, positive[:, None].log(), (-positive[:, None]).log1p()).mean().item()
    share = tasks.data.y.double().mean().item()
    entropy = -share * math.log(share) - (1.0 - share) * math.log(1.0 - share)
    # 6,000 labels of 300 tasks: half of them are others than those of `share`, whose log odds have an error of .1
    assert found[0] < entropy + 0.02
    assert found[1] < found[0]
    assert found[20] < exact + 0.01
