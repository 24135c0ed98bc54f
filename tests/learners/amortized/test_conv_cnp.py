"""The convolutional neural process: its lattice, its equivariance, and what it costs."""

import pytest
import torch

import bayesmeta as bm

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def _learner(head: bm.heads.OutputHead | None = None, points_per_unit: float = 8.0, **sizes: int) -> bm.ConvCNP:
    torch.manual_seed(0)
    learner = bm.ConvCNP(head=head, points_per_unit=points_per_unit, **({"channels": 8, "layers": 3} | sizes)).double()
    with torch.no_grad():
        for parameter in learner.parameters():  # no bias at zero
            parameter.add_(0.2 * torch.randn_like(parameter))
    return learner


def _data(shift: float = 0.0, points: int = 7, seed: int = 0) -> tuple[bm.Data, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = 4.0 * torch.rand(2, points, 1, generator=generator, dtype=torch.float64) - 2.0
    y = torch.randn(2, points, 1, generator=generator, dtype=torch.float64)
    query = 6.0 * torch.rand(2, 9, 1, generator=generator, dtype=torch.float64) - 3.0
    return bm.Data.full(x + shift, y), query + shift


@pytest.mark.parametrize("shift", [0.125, -3.0, 1024.0])
def test_shifts_by_cells_change_nothing(shift: float) -> None:
    """Prediction and support move together, by multiples of the spacing: to rounding."""
    learner, (support, query), (moved, moved_query) = _learner(), _data(), _data(shift)
    expected, found = learner.adapt(support).predict(query), learner.adapt(moved).predict(moved_query)
    torch.testing.assert_close(found.mean, expected.mean, **EXACT)
    torch.testing.assert_close(found.stddev, expected.stddev, **EXACT)


def test_shifts_within_a_cell_change_little() -> None:
    """The lattice stays where it is: a shift by half a cell is not exact, which is what a finer lattice is for."""
    support, query = _data()
    moved, moved_query = _data(0.5 / 8.0)
    change = []
    for points_per_unit in (8.0, 8.0 * 16):
        learner = _learner(points_per_unit=points_per_unit)
        before, after = learner.adapt(support).predict(query).mean, learner.adapt(moved).predict(moved_query).mean
        change.append((after - before).abs().max())
    assert change[0] > 1e-6
    assert change[1] < 1e-10  # half a cell of the coarse lattice is eight of the fine one


@pytest.mark.parametrize("far", [3.0, 50.0, 1e6, -1e6, 1e15])
def test_other_queries_are_of_no_matter(far: float) -> None:
    """Neither to the prediction nor to what is held in memory, however far they are."""
    learner, (support, query) = _learner(), _data()
    posterior = learner.adapt(support)
    alone, among = posterior.predict(query), posterior.predict(torch.cat([query, torch.full((2, 1, 1), far)], 1))
    assert torch.equal(alone.mean, among.mean[:, :-1])
    assert posterior.kept.values.shape[1] < 8.0 * 4 + 2 * learner.margin + 2


def test_far_from_all_points_is_the_prior() -> None:
    """To rounding, beyond `reach`; and nearer than that it is not."""
    learner = _learner()
    nothing = learner.adapt(bm.Data.from_arrays([], [])).predict([0.3])
    posterior = learner.adapt(bm.Data.from_arrays([0.0], [2.0]))
    beyond, near = posterior.predict([learner.reach + 0.2, -learner.reach - 0.2]), posterior.predict([0.5])
    torch.testing.assert_close(beyond.mean, nothing.mean.expand(1, 2, 1), rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(beyond.stddev, nothing.stddev.expand(1, 2, 1), rtol=1e-14, atol=1e-14)
    assert (near.mean - nothing.mean).abs() > 1e-3


def test_points_far_apart_have_windows_of_their_own() -> None:
    """The same predictions as of each group of points alone, in memory for two groups and not for what is between."""
    learner = _learner()
    near, there = [0.0, 0.7, -0.3], [1e5 + 0.25, 1e5 + 1.0]
    both = learner.adapt(bm.Data.from_arrays([*near, *there], [1.0, 2.0, -1.0, 0.5, 0.7]))
    first = learner.adapt(bm.Data.from_arrays(near, [1.0, 2.0, -1.0])).predict([0.1, 1.0]).mean
    second = learner.adapt(bm.Data.from_arrays(there, [0.5, 0.7])).predict([1e5 + 0.5, 1e5 + 9.0]).mean
    found = both.predict([0.1, 1.0, 1e5 + 0.5, 1e5 + 9.0]).mean
    torch.testing.assert_close(found, torch.cat([first, second], 1), **EXACT)
    assert both.kept.values.shape[:2].numel() < 4 * learner.margin + 40


def test_windows_that_nearly_meet() -> None:
    """Two points at every distance around the one at which they no longer share a window: as on one long lattice."""
    learner = _learner()
    margin = learner.margin
    for cells in (2 * margin - 1, 2 * margin, 2 * margin + 1, 2 * margin + 2):
        apart = cells / 8.0
        query = [0.0, 0.3, apart / 2, apart - 0.3, apart + 0.01]
        two = bm.Data.from_arrays([0.0, apart], [1.0, -2.0])
        bridge = [*torch.arange(0.0, apart, 1.0).tolist()]  # masked points: they hold no cells and are in the way
        x = torch.tensor([[[0.0], [apart], *[[v] for v in bridge]]], dtype=torch.float64)
        y = torch.zeros_like(x)
        y[0, :2, 0] = torch.tensor([1.0, -2.0])
        mask = torch.zeros(1, x.shape[1], dtype=torch.bool)
        mask[0, :2] = True
        expected = learner.adapt(two).predict(query).mean
        torch.testing.assert_close(learner.adapt(bm.Data(x, y, mask)).predict(query).mean, expected, **EXACT)
        far = learner.adapt(bm.Data.from_arrays([apart], [-2.0])).predict(query).mean
        torch.testing.assert_close(expected[:, -1:], far[:, -1:], **EXACT)  # out of the first point's reach


def test_too_many_cells_are_refused() -> None:
    """A support of more windows than memory holds is refused before any of it is made; two far windows are not."""
    learner = _learner(points_per_unit=1000.0)
    x = torch.arange(0.0, 500_000.0, dtype=torch.float64)  # a window of 49 cells for each point
    with pytest.raises(bm.InferenceError, match="points_per_unit"):
        learner.adapt(bm.Data.full(x[None, :, None], torch.zeros(1, len(x), 1)))
    learner.adapt(bm.Data.from_arrays([0.0, 1e9], [0.0, 0.0]))


def test_deviations_have_no_floor() -> None:
    """Precise outcomes are predicted precisely: trained on noiseless levels, the deviation is far below .1."""
    torch.manual_seed(0)
    levels = bm.TaskDataset.from_list([([0.0, 0.5, 1.0], [a] * 3) for a in (-1.0, -0.5, 0.0, 0.5, 1.0)])
    learner = bm.ConvCNP(points_per_unit=2.0, channels=8, layers=1)
    bm.fit(learner, levels, 200, batch_size=5, lr=1e-2, split=bm.tasks.RandomSplit.at(2), seed=0, progress=False)
    stddev = learner.adapt(bm.Data.from_arrays([0.0, 0.5], [0.5, 0.5])).predict([1.0]).stddev.item()
    assert stddev < 0.05


def test_the_number_of_points_is_not_lost() -> None:
    """The same points twice are more than once: the density says so."""
    learner = _learner()
    once, twice = bm.Data.from_arrays([0.0, 1.0], [1.0, 2.0]), bm.Data.from_arrays([0.0, 1.0] * 2, [1.0, 2.0] * 2)
    assert (learner.adapt(once).predict([0.5]).mean - learner.adapt(twice).predict([0.5]).mean).abs() > 1e-4


def test_theta_is_differentiated_twice() -> None:
    """Gradients of gradients exist, as learners that adapt by gradients need them."""
    learner, (support, query) = _learner(), _data()
    loss = learner.meta_loss(bm.TaskBatch(support, bm.Data.full(query, torch.zeros_like(query)))).sum()
    gradients = torch.autograd.grad(loss, list(learner.parameters()), create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in gradients), list(learner.parameters()))
    assert all(bool(g.isfinite().all()) for g in second)


@pytest.mark.parametrize(
    ("sizes", "error"),
    [
        ({"channels": 0}, "channel"),
        ({"layers": 0}, "layer"),
        ({"kernel_size": 4}, "odd"),
        ({"points_per_unit": 0.0}, "cells in a unit"),
    ],
)
def test_sizes_that_make_no_sense(sizes: dict[str, int], error: str) -> None:
    """Each is refused in words."""
    with pytest.raises(bm.DataError, match=error):
        bm.ConvCNP(**sizes)


def test_it_learns_what_a_gaussian_process_knows() -> None:
    """On smooth functions it comes within a third of the distance to the exact predictive in a few seconds."""
    torch.manual_seed(0)
    functions = bm.tasks.GPFunctions.eq()
    learner = bm.ConvCNP(points_per_unit=8.0, channels=16, layers=3)
    split = bm.tasks.RandomSplit((0, 20), 20)
    test = functions.draw(64, bm.tasks.RandomSplit.at(15, 20), torch.Generator().manual_seed(1))
    exact = functions.oracle.adapt(test.support).predict(test.query.x).marginal_log_prob(test.query.y).mean()

    def gap() -> float:
        own = learner.adapt(test.support).predict(test.query.x).marginal_log_prob(test.query.y).mean()
        return (exact - own.double()).item()

    before = gap()
    bm.fit(learner, functions, 250, batch_size=16, lr=3e-3, split=split, seed=0, progress=False)
    assert gap() < before / 3
