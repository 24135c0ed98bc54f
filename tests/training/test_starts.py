"""Many starts: the better of two maxima, searches side by side that are those one by one, and starts that fail."""

import math

import pytest
import torch

import bayesmeta as bm
from bayesmeta.training.quasi_newton import Halving, minimise, minimise_all
from bayesmeta.training.starts import search_all
from bayesmeta.training.theta_map import ThetaMap

D = torch.float64


def _waves(num_tasks: int = 8, points: int = 12) -> bm.TaskDataset:
    """Waves of period 1 with noise. The period has a local maximum of the evidence near its start, far too long."""
    generator = torch.Generator().manual_seed(0)
    x = 4.0 * torch.rand(num_tasks, points, 1, dtype=D, generator=generator)
    phase = 2.0 * math.pi * torch.rand(num_tasks, 1, 1, dtype=D, generator=generator)
    y = (2.0 * math.pi * x + phase).sin() + 0.1 * torch.randn(x.shape, dtype=D, generator=generator)
    return bm.TaskDataset(bm.Data.full(x, y))


def _process() -> bm.DeepKernelTransfer:
    wave = bm.kernels.ProductKernel([bm.kernels.RBFKernel(20.0), bm.kernels.CosineKernel(5.0)])
    return bm.DeepKernelTransfer(bm.Identity(1), kernel=wave).double()


def _posterior(learner: bm.Learner) -> bm.Learner:
    return bm.wrappers.WithHyperprior(learner, bm.hyperpriors.LogNormalHyperprior())


def _period(learner: bm.Learner) -> float:
    return next(v for n, v in learner.named_parameters() if n.endswith("raw_period_length")).exp().item()


def test_many_starts_find_the_better_maximum() -> None:
    tasks, one, many, again = _waves(), *(_posterior(_process()) for _ in range(3))
    single = bm.fit_evidence(one, tasks)
    result = bm.fit_evidence(many, tasks, starts=bm.training.Starts(16, seed=0))
    assert single.stopped_early
    assert abs(_period(one) - 1.0) > 0.3
    assert abs(_period(many) - 1.0) < 0.02
    assert many.log_evidence(tasks.data).sum() > one.log_evidence(tasks.data).sum() + 50.0
    assert (len(result.ends), single.ends, single.agreeing) == (16, (), 0)
    assert result.agreeing >= 2  # of 8 that were not given up
    assert f"{result.agreeing} of 16 starts agree" in repr(result)
    # the last search goes on from the best end
    assert -result.losses[-1] * tasks.data.counts.sum() >= max(result.ends) - 1e-9
    other = bm.fit_evidence(again, tasks, starts=bm.training.Starts(16, seed=0))
    assert other.ends == result.ends
    assert _period(again) == _period(many)


def test_searches_side_by_side_are_those_one_by_one() -> None:
    def function(u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        leaf = u.detach().requires_grad_()
        value = ((1.0 - leaf[..., 0]) ** 2 + 10.0 * (leaf[..., 1] - leaf[..., 0] ** 2) ** 2).cos()
        return value.detach(), torch.autograd.grad(value.sum(), leaf)[0]

    starts = torch.randn(6, 2, dtype=D, generator=torch.Generator().manual_seed(0))
    together = minimise_all(lambda u, rows: function(u), starts, steps=60, tolerance=1e-8)
    for start, found in zip(starts, together, strict=True):
        alone = minimise(lambda u: (float(function(u)[0]), function(u)[1]), start, steps=60, tolerance=1e-8, history=20)
        torch.testing.assert_close(found.point, alone.point, rtol=0.0, atol=1e-12)
        assert (found.steps, found.is_exhausted) == (alone.steps, alone.is_exhausted)


def test_theta_mapped_over_is_theta_one_by_one() -> None:
    tasks, learner = _waves(4, 6), _posterior(_process())
    data = learner.conform(tasks.data)
    total = ThetaMap(learner, lambda: learner.evidence(data).sum() + learner.log_hyperprior(), [data])
    starts = total.flat(bm.training.Starts(5, seed=1).draw(learner, total.names))
    before = total.here
    mapped = total.with_gradients(starts)
    assert total.is_mapping
    total.is_mapping = False
    torch.testing.assert_close(mapped, total.with_gradients(starts))
    torch.testing.assert_close(total.here, before)
    arguments = {"steps": 30, "tolerance": 1e-6, "points": 24, "halving": Halving(10, 2)}
    one_by_one = search_all(total, starts, **arguments)
    total.is_mapping = True
    together = search_all(total, starts, **arguments)
    # the same steps up to rounding, which a search does not forget
    torch.testing.assert_close(together.values, one_by_one.values, rtol=1e-6, atol=1e-6)
    assert together.finished == one_by_one.finished
    assert sum(together.finished) == 2


class _Decides(bm.ALPaCA):
    """What no map over theta can run: it decides by a value. Where the noise is large it fails."""

    def evidence(self, data: bm.Data) -> torch.Tensor:
        if self.prior.noise.variance() > 0.5:
            raise bm.InferenceError("too loud")
        return super().evidence(data)


def test_starts_that_fail_are_passed_over() -> None:
    tasks, learner = _waves(), _Decides(bm.Identity(1), covariance=bm.priors.IsotropicCovariance(2)).double()
    data = learner.conform(tasks.data)
    total = ThetaMap(learner, lambda: learner.evidence(data).sum(), [data])
    starts = total.here.repeat(3, 1)
    noise = [i for i, name in enumerate(total.names) if name.endswith("noise.value.raw")]
    assert noise
    place = sum(p.numel() for p in total.parameters[: noise[0]])
    starts[1, place] = 3.0
    ends = search_all(total, starts, steps=20, tolerance=1e-6, points=96, halving=None)
    assert not total.is_mapping
    assert ends.values[1] == -math.inf
    assert ends.finished == (True, False, True) or ends.finished[1] is False
    assert ends.best == 0
    starts[:, place] = 3.0
    with pytest.raises(bm.InferenceError, match="at one start at least, got none at any of 3"):
        search_all(total, starts, steps=20, tolerance=1e-6, points=96, halving=None)


def test_a_mixed_model_ends_where_it_did() -> None:
    tasks = _waves(10, 5)
    learners = [bm.ALPaCA(bm.Identity(1)).double() for _ in range(2)]
    one = bm.fit_evidence(learners[0], tasks)
    many = bm.fit_evidence(learners[1], tasks, starts=bm.training.Starts(4, seed=0))
    assert math.isclose(one.losses[-1], many.losses[-1], abs_tol=1e-8)


def test_where_starts_are() -> None:
    learner = _process()
    names = [name for name, value in learner.named_parameters() if value.requires_grad]
    before = {name: value.detach().clone() for name, value in learner.named_parameters()}
    hyperprior = bm.hyperpriors.LogNormalHyperprior(median=0.01, scale=0.1, names="kernel")
    for starts in (bm.training.Starts(400, seed=3), bm.training.HyperpriorStarts(hyperprior, 400, seed=3)):
        places = starts.draw(learner, names)
        for name in names:
            assert torch.equal(places[name][0], before[name])
            assert torch.equal(starts.draw(learner, names)[name], places[name])
        logs = places["kernel.kernels.1.base_kernel.raw_period_length"][1:]  # logarithms are what is trained
        center, scale = (
            (math.log(5.0), 1.5)
            if isinstance(starts, bm.training.HyperpriorStarts) is False
            else (
                math.log(0.01),
                0.1,
            )
        )
        assert abs(logs.mean() - center) < 4.0 * scale / 20.0
        assert abs(logs.std() / scale - 1.0) < 0.2
    for arguments in ({"count": 0}, {"scale": 0.0}, {"scale": math.inf}):
        with pytest.raises(bm.DataError):
            bm.training.Starts(**arguments)


def test_the_worst_are_given_up() -> None:
    halving = Halving(first=10, survivors=3)
    assert [halving.left(20, n) for n in (0, 9, 10, 19, 20, 40, 1000)] == [20, 20, 10, 10, 5, 3, 3]
    assert Halving().left(4, 1000) == 4
