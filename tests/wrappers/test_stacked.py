"""Mixtures of learners whose weights follow the number of points that a task has shown."""

from pathlib import Path

import pytest
import torch

import bayesmeta as bm
from bayesmeta.wrappers import Stacked
from bayesmeta.wrappers.by_points import interpolated

D = torch.float64
MEMBERS = {"line": bm.Identity(1), "curve": bm.Polynomial(1, 3)}
WEIGHTS = {"line": [0.9, 0.4, 0.1], "curve": [0.1, 0.6, 0.9]}
POINTS = [0, 2, 5]


def _learner() -> Stacked:
    return Stacked({name: bm.ALPaCA(basis).double() for name, basis in MEMBERS.items()}, WEIGHTS, POINTS)


def _tasks(counts: list[int], seed: int = 0) -> bm.Data:
    generator = torch.Generator().manual_seed(seed)
    return bm.Data.stack(
        [bm.Data.from_arrays(*torch.randn(2, count, generator=generator, dtype=D).unbind()) for count in counts]
    )


def test_weights_are_those_of_each_tasks_points() -> None:
    """Given at 0, 2 and 5; between 2 and 5 linear in log(1 + n); beyond 5 those of 5."""
    counts = [2, 0, 3, 5, 9]
    prediction = _learner().adapt(_tasks(counts)).predict(torch.zeros(5, 1, 1, dtype=D))
    assert isinstance(prediction, bm.predictives.EnsemblePredictive)
    share = torch.log(torch.tensor(4.0 / 3.0, dtype=D)) / torch.log(torch.tensor(2.0, dtype=D))
    expected = torch.stack([torch.tensor(0.4, dtype=D), torch.tensor(0.9, dtype=D), 0.4 - 0.3 * share])
    torch.testing.assert_close(prediction.log_weights.exp()[:3, 0], expected)
    torch.testing.assert_close(prediction.log_weights.exp()[3:, 0], torch.full((2,), 0.1, dtype=D))


def test_the_density_is_joint_and_that_of_the_tasks_own_weights() -> None:
    support, query = _tasks([2, 0, 5]), _tasks([4, 4, 4], seed=1)
    learner = _learner()
    each = torch.stack([member.adapt(support).predict(query.x).log_prob(query.y) for member in learner.learners], -1)
    weights = torch.tensor([[0.4, 0.6], [0.9, 0.1], [0.1, 0.9]], dtype=D)
    expected = (each + weights.log()).logsumexp(-1)
    torch.testing.assert_close(learner.adapt(support).predict(query.x).log_prob(query.y), expected)


def test_an_update_moves_the_weights() -> None:
    """As adapting on all points at once, also where tasks of a batch get different numbers of them."""
    all_points, x = _tasks([5, 2, 3]), torch.linspace(-1.0, 1.0, 4, dtype=D)[None, :, None].expand(3, -1, -1)
    first, rest = all_points.points(slice(2)), all_points.points(slice(2, None))
    learner = _learner()
    updated, whole = learner.adapt(first).update(rest), learner.adapt(all_points)
    assert updated.points_seen is not None
    assert updated.points_seen.tolist() == [5, 2, 3]
    torch.testing.assert_close(updated.predict(x).log_prob(x), whole.predict(x).log_prob(x))
    chosen = updated.select(torch.tensor([2, 0]))
    torch.testing.assert_close(chosen.predict(x[:2]).log_prob(x[:2]), whole.predict(x).log_prob(x)[[2, 0]])


def test_draws_come_from_the_members_as_often_as_weights_say() -> None:
    """Members that predict far from each other; the deviation of a frequency in 4,000 draws is at most .008."""
    members = {}
    for name, level in (("low", -100.0), ("high", 100.0)):
        members[name] = bm.ALPaCA(bm.Identity(0)).double()
        members[name].prior.location.data.fill_(level)
    learner = Stacked(members, {"low": [0.8, 0.3], "high": [0.2, 0.7]}, points=[0, 1])
    nothing, one = bm.Data.empty(bm.Data.from_arrays([[]], [0.0])), bm.Data.from_arrays([[]], [0.0])
    for support, share in ((nothing, 0.2), (one, 0.7)):
        prediction = learner.adapt(support.to(D)).predict(torch.zeros(1, 2, 0, dtype=D))
        weights = prediction.log_weights.exp()  # type: ignore[attr-defined]
        assert weights[0, 1].item() == pytest.approx(share)
        draws = prediction.sample(4_000, torch.Generator().manual_seed(0))
        between = draws.mean(2).flatten()  # both points of a task are of one member
        middle = prediction.mean.mean().item()
        assert (between > middle).double().mean().item() == pytest.approx(share, abs=0.032)


def test_known_noise_reaches_every_member() -> None:
    support = bm.Data.from_arrays([0.0, 1.0, 2.0], [0.1, 0.9, 5.0], yerr=[0.1, 0.1, 50.0]).to(D)
    learner = _learner()
    assert learner.known_noise
    whole = learner.adapt(support).predict([0.5])
    two = learner.adapt(support.points(slice(2))).predict([0.5])
    assert whole.mean.item() == pytest.approx(two.mean.item(), abs=0.2)  # the third point says next to nothing


def test_a_model_folder_keeps_them(tmp_path: Path) -> None:
    learner = _learner()
    bm.save(learner, tmp_path / "model")
    again = bm.load(tmp_path / "model")
    assert isinstance(again, Stacked)
    assert again.points == (0.0, 2.0, 5.0)
    assert repr(again) == repr(learner)
    support, x = _tasks([1, 4]), torch.zeros(2, 3, 1, dtype=D)
    torch.testing.assert_close(again.adapt(support).predict(x).variance, learner.adapt(support).predict(x).variance)


def test_what_is_said_of_them() -> None:
    learners = {name: bm.ALPaCA(basis) for name, basis in MEMBERS.items()}
    assert repr(Stacked(learners, {"line": 3.0, "curve": 1.0})) == "Stacked: .75 line + .25 curve"
    assert repr(Stacked(learners, {"line": [3.0, 1.0], "curve": [1.0, 0.333]}, [0, 5])) == (
        "Stacked: .75 line + .25 curve"  # the same at both, in two digits
    )
    assert repr(Stacked(learners, {"line": [1.0, 0.0], "curve": 1.0}, [1, 5])) == (
        "Stacked: .50 line + .50 curve at 1 point; 1.00 curve at 5"
    )


def test_a_member_without_weight_is_none() -> None:
    """Weights of zero at one number of points, and no trace in densities, quantiles and derivatives."""
    learners = {name: bm.ALPaCA(basis).double() for name, basis in MEMBERS.items()}
    learner = Stacked(learners, {"line": [1.0, 0.0], "curve": [0.0, 1.0]}, [0, 4])
    x = torch.linspace(-1.0, 1.0, 3, dtype=D)[None, :, None].requires_grad_()
    for support, member in ((_tasks([0]), "line"), (_tasks([4]), "curve")):
        mixed, alone = (each.adapt(support).predict(x) for each in (learner, learners[member]))
        torch.testing.assert_close(mixed.log_prob(x.detach()), alone.log_prob(x.detach()))
        torch.testing.assert_close(mixed.quantile(0.05), alone.quantile(0.05), atol=1e-6, rtol=0.0)  # by bisection
        (slope,) = torch.autograd.grad(mixed.mean.sum(), x)
        assert slope.isfinite().all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weights": {"line": [1.0, 1.0], "curve": [1.0]}}, "a weight at each of 2"),
        ({"weights": {"line": [1.0, 0.0], "curve": [1.0, 0.0]}}, "not all 0"),
        ({"weights": {"line": [1.0, -1.0], "curve": [1.0, 2.0]}}, "of 0 or more"),
        ({"weights": {"line": 1.0}}, "a weight for each"),
        ({"points": [5, 0]}, "increase from 0"),
        ({"points": [-1, 0]}, "increase from 0"),
        ({"points": [0.0, float("nan")]}, "increase from 0"),
        ({"points": []}, "increase from 0"),
    ],
)
def test_weights_that_make_no_sense(changed: dict[str, object], message: str) -> None:
    learners = {name: bm.ALPaCA(basis) for name, basis in MEMBERS.items()}
    given = {"weights": {"line": [0.9, 0.1], "curve": [0.1, 0.9]}, "points": [0, 5]} | changed
    with pytest.raises(bm.DataError, match=message):
        Stacked(learners, **given)  # type: ignore[arg-type]


def test_between_and_beyond_what_is_known() -> None:
    values = torch.tensor([[0.0, 1.0], [1.0, 3.0], [4.0, 0.0]], dtype=D)
    found = interpolated(values, torch.tensor([1, 3, 7]), torch.tensor([0, 1, 3, 5, 7, 100]))
    half = torch.log(torch.tensor(1.5, dtype=D)) / torch.log(torch.tensor(2.0, dtype=D))
    expected = torch.stack([values[0], values[0], values[1], values[1].lerp(values[2], half), values[2], values[2]])
    torch.testing.assert_close(found, expected)


def test_the_summary_has_weights_by_points() -> None:
    summary = _learner().summary()
    lines = [line.split() for line in str(summary).splitlines()]
    assert ["0", "points", "2", "5"] in lines
    assert [line for line in lines if line.count("%") == 3] == [
        ["curve", "10", "%", "60", "%", "90", "%"],
        ["line", "90", "%", "40", "%", "10", "%"],
    ]
    assert str(type(summary).from_json(summary.to_json())) == str(summary)
    assert "nan" not in str(_learner().adapt(_tasks([0, 5])).summary())
