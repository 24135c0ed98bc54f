"""Memory-augmented networks: labels come a step late, and the losses of all steps are the evidence."""

import pytest
import torch
from torch import Tensor

import bayesmeta as bm
from bayesmeta.networks.memory import LRUACell, State

D = torch.float64
SAME = {"rtol": 1e-9, "atol": 1e-9}  # float64: the same steps in batches of other sizes
MEMORIES = {"lstm": bm.networks.LSTMMemory(6), "lrua": bm.networks.LRUA(slots=4, width=3, reads=2, size=5)}
every = pytest.mark.parametrize("memory", MEMORIES.values(), ids=MEMORIES)


def learner(memory: bm.networks.Memory, head: bm.heads.OutputHead | None = None) -> bm.MANN:
    """A small one, moved off its starting point."""
    torch.manual_seed(0)
    made = bm.MANN(bm.MLP(1, [4]), head=head, memory=memory).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def curves(num_tasks: int, count: int) -> bm.Data:
    """Random numbers."""
    x, y = torch.randn(2, num_tasks, count, 1, dtype=D, generator=torch.Generator().manual_seed(0))
    return bm.Data.full(x, y)


def classes(num_tasks: int, count: int, ways: int) -> bm.Data:
    """Random points of classes that all have an example where there are enough points."""
    x = torch.randn(num_tasks, count, 1, dtype=D, generator=torch.Generator().manual_seed(0))
    return bm.Data.full(x, (torch.arange(count) % ways).expand(num_tasks, -1))


@every
def test_no_outcome_is_seen_before_it_is_predicted(memory: bm.networks.Memory) -> None:
    """d p_t / d y_s = 0 for s >= t, exactly, and not for s < t."""
    made, data = learner(memory), curves(1, 5)
    y = data.y.clone().requires_grad_()
    mean = made.step_ahead(bm.Data(data.x, y, data.mask)).mean
    for t in range(5):
        (gradient,) = torch.autograd.grad(mean[0, t, 0], y, retain_graph=True, allow_unused=True)
        by_step = torch.zeros(5, dtype=D) if gradient is None else gradient[0, :, 0]
        assert (by_step[t:] == 0.0).all()
        assert (by_step[:t] != 0.0).all()


def test_no_label_is_seen_before_it_is_predicted() -> None:
    """The same of labels, in whose unit vectors one can differentiate."""
    made = learner(MEMORIES["lrua"], bm.heads.OneHotHead(3))
    points = made.head.shown(classes(1, 4, 3)).points
    y = points.y.clone().requires_grad_()
    raw, _ = made.read(bm.Data(points.x, y, points.mask), made.begin(1))
    for t in range(4):
        (gradient,) = torch.autograd.grad(raw[0, t].square().sum(), y, retain_graph=True, allow_unused=True)
        by_step = torch.zeros(4, dtype=D) if gradient is None else gradient[0].abs().sum(-1)
        assert (by_step[t:] == 0.0).all()
        assert (by_step[:t] != 0.0).all()


@every
def test_ragged_sequences_equal_their_unpadded_selves(memory: bm.networks.Memory) -> None:
    """Wherever the padding stands: behind, before, or between the points."""
    made, data = learner(memory), curves(3, 4)
    mask = torch.tensor([[True, True, False, False], [False, False, True, True], [True, False, True, True]])
    ragged, x = bm.Data(data.x, data.y, mask), torch.randn(3, 2, 1, dtype=D)
    together, evidence = made.adapt(ragged).predict(x).mean, made.log_evidence(ragged)
    for task in range(3):
        alone = data.select([task]).points(mask[task])
        torch.testing.assert_close(together[task], made.adapt(alone).predict(x[[task]]).mean[0], **SAME)
        torch.testing.assert_close(evidence[task], made.log_evidence(alone)[0], **SAME)


HEADS: dict[str, tuple[bm.heads.OutputHead, bm.Data]] = {
    "numbers": (bm.heads.GaussianHead(), curves(2, 5)),
    "low rank": (bm.heads.LowRankGaussianHead(2), curves(2, 5)),
    "labels": (bm.heads.OneHotHead(3), classes(2, 5, 3)),
}


@every
@pytest.mark.parametrize(("head", "data"), HEADS.values(), ids=HEADS)
def test_evidence_is_the_chain_of_predictions(
    memory: bm.networks.Memory, head: bm.heads.OutputHead, data: bm.Data
) -> None:
    """By `adapt` on what came before, and by `update` a point at a time."""
    made = learner(memory, head)
    posterior, adapted, updated = made.adapt(bm.Data.empty(data)), torch.zeros(2, dtype=D), torch.zeros(2, dtype=D)
    for n in range(data.num_points):
        point = data.points(slice(n, n + 1))
        adapted += made.adapt(data.points(slice(n))).predict(point.x).log_prob(point.y)
        updated += posterior.predict(point.x).log_prob(point.y)
        posterior = posterior.update(point)
    torch.testing.assert_close(made.log_evidence(data).detach(), adapted, **SAME)
    torch.testing.assert_close(updated, adapted, **SAME)


def test_update_reads_the_new_points_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    made, data = learner(MEMORIES["lrua"]), curves(2, 6)
    posterior = made.adapt(data.points(slice(5)))
    steps, forward = [], LRUACell.forward

    def counted(self: LRUACell, x: Tensor, state: State) -> object:
        steps.append(len(x))
        return forward(self, x, state)

    monkeypatch.setattr(LRUACell, "forward", counted)
    posterior.update(data.points(slice(5, None)))
    assert steps == [2]


def test_slots_serve_fewer_classes_and_refuse_more() -> None:
    made, x = learner(MEMORIES["lrua"], bm.heads.ClassSlots(3)), torch.randn(1, 4, 1, dtype=D)
    fewer = classes(1, 6, 2)
    posterior = made.adapt(fewer)
    assert posterior.predict(x).probs.shape == (1, 4, 2)
    torch.testing.assert_close(posterior.predict(x).probs.sum(-1), torch.ones(1, 4, dtype=D))
    # a class that is new comes with a place that was free
    more = posterior.update(bm.Data.full(torch.zeros(1, 1, 1, dtype=D), torch.tensor([[2]])))
    assert more.predict(x).probs.shape == (1, 4, 3)
    with pytest.raises(bm.DataError, match="expected at most 3 classes, got a task with 4"):
        made.adapt(classes(1, 8, 4))


def test_evidence_of_slots_is_given_which_classes_there_are() -> None:
    """Given a support that shows all of them it is that of what follows."""
    made, data = learner(MEMORIES["lrua"], bm.heads.ClassSlots(3)), classes(2, 6, 2)
    chain, shown = torch.zeros(2, dtype=D), data.points(slice(2))
    for n in range(2, 6):
        point = data.points(slice(n, n + 1))
        chain += made.adapt(data.points(slice(n))).predict(point.x).log_prob(point.y)
    torch.testing.assert_close((made.log_evidence(data) - made.log_evidence(shown)).detach(), chain, **SAME)


def test_a_head_that_reads_class_by_class_is_refused() -> None:
    with pytest.raises(bm.UnsupportedError, match="take OneHotHead"):
        bm.MANN(bm.Identity(1), head=bm.heads.CategoricalHead(3))


@pytest.mark.parametrize("reads", [1, 3])
def test_begins_as_a_table_of_what_was_seen(reads: int) -> None:
    """Before any training a point that was seen is recognised, and its label is what is predicted."""
    torch.manual_seed(0)
    memory = bm.networks.LRUA(slots=8, width=16, reads=reads, size=4)
    made, x = bm.MANN(bm.Identity(3), head=bm.heads.OneHotHead(3), memory=memory), 2.0 * torch.eye(3)[None]
    posterior = made.adapt(bm.Data.full(x, torch.tensor([[2, 0, 1]])))
    assert posterior.predict(x).probs.argmax(-1).tolist() == [[2, 0, 1]]
    assert (posterior.predict(x).probs.amax(-1) > 0.5).all()


def test_begins_with_numbers_that_were_seen() -> None:
    torch.manual_seed(0)
    made = bm.MANN(bm.Identity(3), memory=bm.networks.LRUA(slots=4, width=16, reads=2, size=4))
    x, y = 2.0 * torch.eye(3)[None], torch.tensor([[[-0.8], [0.1], [0.6]]])
    mean = made.adapt(bm.Data.full(x, y)).predict(x).mean
    torch.testing.assert_close(mean, y, rtol=0.0, atol=0.1)  # other points are read a little, and tanh bends


@pytest.mark.usefixtures("unchecked")
def test_what_was_seen_is_remembered() -> None:
    """Trained on the evidence of tasks with a level of their own, it comes near to their predictive."""
    torch.manual_seed(0)
    made = bm.MANN(bm.Identity(1), memory=bm.networks.LRUA(slots=8, width=8, reads=1, size=16), width=16)
    tasks = bm.TaskDataset.from_list([([0.0] * 4, [level] * 4) for level in torch.linspace(-1.0, 1.0, 16).tolist()])
    bm.fit(made, tasks, steps=60, lr=1e-2, objective=bm.training.Evidence(), progress=False)
    posterior = made.adapt(bm.Data.from_arrays([0.0, 0.0], [0.8, 0.8]))
    assert abs(posterior.predict([0.0]).mean.item() - 0.8) < 0.3
