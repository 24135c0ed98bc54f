"""Everything runs with theta on a device, with data there or on the CPU, and gives the numbers of the CPU.

On the pretended device always; on CUDA where there is one.
"""

import contextlib
import copy
import dataclasses
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import bayesmeta as bm
from bayesmeta.devices import device_of
from bayesmeta.interop.arviz import to_arviz
from bayesmeta.interop.pyro import hyper_nuts, hyper_svi, nuts, prior_predictive, svi
from bayesmeta.linalg import cholesky_with_jitter
from bayesmeta.predictives import Predictive
from bayesmeta.reporting.report import report
from tests.device import DEVICE
from tests.registry import CASES, Case

# what runs on a real device only, and why
BEYOND_THE_PRETENCE = {
    "a compiled step": "inductor knows the pretended device neither by name nor by the memory of its tensors",
}

SHORT = bm.inference.NUTS(num_chains=2, num_draws=4, num_warmup=20, max_depth=2)
# a real device sums in another order, which solvers and eigenvectors amplify
SAME = {"rtol": 1e-5, "atol": 1e-7}


def on(value: Tensor, device: torch.device) -> Tensor:
    """The value on the CPU, after a look at where it was."""
    assert value.device.type == device.type
    return value.detach().cpu()


def same(values: list[Tensor], expected: list[Tensor], device: torch.device) -> None:
    """On the device, and the CPU's numbers."""
    for value, other in zip(values, expected, strict=True):
        torch.testing.assert_close(on(value, device), other.detach(), **SAME)


def summary(predictive: Predictive, y: Tensor) -> list[Tensor]:
    """What a predictive says, all but its draws."""
    values = [predictive.log_prob(y), predictive.marginal_log_prob(y)]
    if not y.is_floating_point():
        return [*values, predictive.probs]
    return [*values, predictive.mean, predictive.stddev, *predictive.interval(0.8), predictive.cdf(y)]


def losses(learner: bm.Learner, tasks: bm.TaskBatch) -> list[Tensor]:
    """The losses, and their gradient in theta."""
    loss, theta = learner.meta_loss(tasks), [p for p in learner.parameters() if p.requires_grad]
    if not theta:
        return [loss]
    return [loss, *torch.autograd.grad(loss.sum(), theta, allow_unused=True, materialize_grads=True)]


def is_comparable(case: Case, device: torch.device) -> bool:
    """Chains of a real device have random numbers of their own."""
    return case.name != "sampled" or device.type != "cuda"


@pytest.fixture(params=CASES, ids=[case.name for case in CASES])
def case(request: pytest.FixtureRequest) -> Case:
    if request.param.name == "sampled":
        return dataclasses.replace(request.param, make=lambda: bm.Sampled(bm.ALPaCA(bm.Polynomial(1, 1)), SHORT))
    return request.param


@pytest.fixture(autouse=True)
def short_chains() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bm.ConvergenceWarning)  # they are here to be run, not to be right
        yield


def test_every_learner_adapts_and_predicts_where_its_theta_is(case: Case, device: torch.device) -> None:
    reference, tasks = case.learner(), case.batch(2, 4, 2)
    learner, there = copy.deepcopy(reference).to(device), tasks.to(device=device)
    adapted = reference.adapt(tasks.support)
    expected = [summary(each.predict(tasks.query.x), tasks.query.y) for each in (adapted, adapted.update(tasks.query))]
    for given in (there, tasks):  # the library moves what is on the CPU
        posterior = learner.adapt(given.support)
        for each, values in zip((posterior, posterior.update(given.query)), expected, strict=True):
            predictive = each.predict(given.query.x)
            found = summary(predictive, there.query.y)
            same(found, values if is_comparable(case, device) else [on(value, device) for value in found], device)
    drawn = predictive.sample((2,), torch.Generator(device).manual_seed(0))
    on(predictive.log_prob(drawn[0], there.query.mask), device)
    on(predictive.sample(), device)  # from the global generator
    with contextlib.suppress(bm.UnsupportedError):  # some have no draws of phi
        for value in posterior.sample(2, torch.Generator(device).manual_seed(0)).values():
            on(value, device)


def test_every_learner_has_its_loss_and_gradient_where_its_theta_is(case: Case, device: torch.device) -> None:
    reference, tasks = case.learner(), case.batch(2, 4, 2)
    learner = copy.deepcopy(reference).to(device)
    expected = losses(reference, tasks)
    for given in (tasks.to(device=device), tasks):
        found = losses(learner, given)
        same(found, expected if is_comparable(case, device) else [on(value, device) for value in found], device)


def alpaca(device: torch.device) -> bm.ALPaCA:
    torch.manual_seed(0)
    return bm.ALPaCA(bm.MLP(1, [6, 4])).double().to(device)


def linear(device: torch.device) -> bm.ALPaCA:
    torch.manual_seed(0)
    return bm.ALPaCA(bm.Polynomial(1, 1)).double().to(device)


def classifier(device: torch.device) -> bm.R2D2:
    torch.manual_seed(0)
    return bm.R2D2(bm.MLP(2, [6, 4]), num_classes=2).double().to(device)


def numbers(num_tasks: int = 12, points: int = 8) -> bm.TaskDataset:
    return bm.tasks.Sinusoid().dataset(num_tasks=num_tasks, num_points=points, seed=0)


def labels(num_tasks: int = 12, points: int = 8) -> bm.TaskDataset:
    case = dataclasses.replace(CASES[0], outcomes=bm.Labels(2), num_inputs=2)
    return bm.TaskDataset(case.batch(num_tasks, 0, points, ragged=False).query)


def test_fit_trains_where_theta_is(device: torch.device, tmp_path: Path) -> None:
    train, held_out = numbers(12), numbers(4)
    for make, arguments in (
        (lambda: bm.Standardized(alpaca(torch.device("cpu"))), {"validation": held_out, "validate_every": 2}),
        (lambda: bm.MAMLPlusPlus(bm.MLP(1, [4]), steps=2).double(), {}),
        (lambda: alpaca(torch.device("cpu")), {"objective": bm.training.Evidence()}),
    ):
        torch.manual_seed(0)
        reference = make()
        learner = copy.deepcopy(reference).to(device)
        results = [bm.fit(each, train, steps=3, batch_size=3, **arguments) for each in (reference, learner)]
        assert results[1].losses == pytest.approx(results[0].losses, rel=1e-5)
        same([p.detach() for p in learner.parameters()], [p.detach() for p in reference.parameters()], device)
    episodes = bm.tasks.Episodes(images(device), ways=2)
    learner = bm.R2D2(bm.Conv4((1, 16, 16), 4, num_groups=2), num_classes=2).to(device)
    result = bm.fit(
        learner, episodes, steps=1, batch_size=2, split=bm.tasks.ClassSplit((1, 1)), checkpoint=tmp_path / "model"
    )
    assert len(result.losses) == 1


def test_fit_moves_the_learner_and_leaves_it_there(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    if device.type == DEVICE.type:  # torch does not know of it (which device is "auto": test_named_devices)
        monkeypatch.setattr(
            "bayesmeta.training.fit.device_of", lambda asked: device if asked == "auto" else device_of(asked)
        )
    reference = alpaca(torch.device("cpu"))
    expected = bm.fit(reference, numbers(), steps=3, progress=False)
    for asked in ("auto", device):
        learner = alpaca(torch.device("cpu"))
        result = bm.fit(learner, numbers(), steps=3, device=asked, max_skipped=1, progress=False)
        assert result.losses == pytest.approx(expected.losses, rel=1e-5)
        assert result.gradient_norms == pytest.approx(expected.gradient_norms, rel=1e-4)
        same([p.detach() for p in learner.parameters()], [p.detach() for p in reference.parameters()], device)
        on(learner.adapt(numbers().data).predict(numbers().data.x).mean, device)
    bm.fit(learner, numbers(), steps=1, device="cpu", progress=False)
    assert next(learner.parameters()).device.type == "cpu"


def test_features_in_bfloat16(device: torch.device) -> None:
    """Where the device has autocast they are those to rounding, and where it has none (as the pretended) the same."""
    torch.manual_seed(0)
    learner = bm.ALPaCA(bm.networks.LowPrecision(bm.MLP(1, [6, 4]))).to(device)
    x = numbers().data.x.float()
    features = on(learner.features(x.to(device)), device)
    torch.testing.assert_close(features, on(learner.features.features(x.to(device)), device), rtol=0.02, atol=0.02)
    found = losses(learner, numbers().divided(bm.tasks.PrefixSplit.at(3)))
    assert all(bool(on(value, device).isfinite().all()) for value in found)


def test_jitter_is_added_where_the_matrix_is(device: torch.device) -> None:
    matrices = torch.stack([torch.ones(3, 3), torch.eye(3)]).double()
    factors = []
    for at in (torch.device("cpu"), device):
        with pytest.warns(bm.PrecisionWarning, match="added to 1"):
            factors.append(cholesky_with_jitter(matrices.to(at)))
    same([factors[1][1]], [factors[0][1]], device)
    torch.testing.assert_close(on(factors[1] @ factors[1].mT, device), matrices, rtol=0.0, atol=1e-7)
    with pytest.raises(bm.InferenceError, match="in task 1, size 3, eigenvalues from -2"):
        cholesky_with_jitter(torch.stack([torch.eye(3), torch.eye(3) - 1.0]).double().to(device))


def images(device: torch.device) -> bm.tasks.ImageClasses:
    pixels = torch.randint(0, 256, (12, 1, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return bm.tasks.ImageClasses.from_arrays(pixels, torch.arange(4).repeat_interleave(3)).to(device)


def test_sources_of_images_draw_where_the_images_are(device: torch.device) -> None:
    """Their choices are those of the CPU, and so are the images."""
    pixels = torch.rand(48, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    character, maker = torch.arange(48) % 12, torch.arange(48) // 12
    here = bm.tasks.ImageClasses.from_arrays(pixels, character, character % 3, maker)
    augment = bm.tasks.Composed(
        [bm.tasks.Affine(degrees=20.0, shear=0.2, scale=0.2, shift=0.1), bm.tasks.StrokeWidth(0.5)]
    )
    split = bm.tasks.ClassSplit.at(1, 1)
    for make in (
        lambda images: bm.tasks.Episodes(images, (2, 4), augment=augment),
        lambda images: bm.tasks.SuperClassEpisodes(images, ways=2, members=3, augment=augment),
        lambda images: bm.tasks.OneShotRuns(images, ways=3, augment=augment),
    ):
        reference, there = (make(images) for images in (here, here.to(device)))
        batches = [each.draw(3, split, torch.Generator().manual_seed(1)) for each in (reference, there)]
        for side in ("support", "query"):
            cpu, other = (getattr(batch, side) for batch in batches)
            same([other.x, other.y, other.mask], [cpu.x, cpu.y, cpu.mask], device)
        same([there.pooled(torch.Generator()).x], [reference.pooled(torch.Generator()).x], device)
        frozen = {"per_class": 2} if isinstance(there, bm.tasks.Episodes) else {}
        assert torch.equal(there.dataset(2, **frozen).data.x, reference.dataset(2, **frozen).data.x)
        drawn = there.draw(3, split, torch.Generator(device))  # a generator may be there, too
        assert drawn.support.x.device == device


def test_evaluate(device: torch.device) -> None:
    for make, tasks in ((alpaca, numbers()), (classifier, labels())):
        tables = [
            bm.evaluate(make(at), tasks, [0, 2], num_bootstrap=10).table() for at in (torch.device("cpu"), device)
        ]
        assert tables[1].to_numpy(dtype=float) == pytest.approx(tables[0].to_numpy(dtype=float), rel=1e-5, nan_ok=True)


def test_fit_evidence(device: torch.device) -> None:
    problems: list[bm.EvidenceProblem] = [bm.training.MaximumLikelihood(), bm.training.RestrictedMaximumLikelihood()]
    for problem in problems:
        reference, learner = linear(torch.device("cpu")), linear(device)
        for each in (reference, learner):
            with warnings.catch_warnings(action="ignore", category=bm.ConvergenceWarning):  # so few steps
                bm.fit_evidence(each, numbers(), problem=problem, max_iterations=3)
        same([p.detach() for p in learner.parameters()], [p.detach() for p in reference.parameters()], device)


def test_one_long_task_among_short_ones(device: torch.device) -> None:
    """Tasks of like length at a time: groups are chosen on the CPU, points stay where they are."""
    x = [torch.rand(count, 1, generator=torch.Generator().manual_seed(count)).double() for count in (3, 6000, 5, 90, 2)]
    tasks = bm.TaskDataset.from_list([(each, each.sin()) for each in x])
    assert len(tasks.by_length()) > 1
    batch, found, tables = tasks.divided(bm.tasks.PrefixSplit.at(1)), [], []
    for at in (torch.device("cpu"), device):
        learner = alpaca(at)
        loss = bm.training.Evidence()(learner, batch)
        theta = [p for p in learner.parameters() if p.requires_grad]
        found.append([loss, *torch.autograd.grad(loss.sum(), theta)])
        with warnings.catch_warnings(action="ignore", category=bm.ConvergenceWarning):  # so few steps
            bm.fit_evidence(learner, tasks, max_iterations=3)
        bm.fit(learner, tasks, 2, batch_size=5, progress=False)
        tables.append(bm.evaluate(learner, tasks, [0, 1], split=bm.tasks.PrefixSplit, num_bootstrap=0).table())
        bm.calibration.HierarchicalConformal(learner, tasks, 1).evaluate(tasks, 0.5)
    same(found[1], [value.cpu() for value in found[0]], device)
    assert tables[1]["nll"].to_numpy() == pytest.approx(tables[0]["nll"].to_numpy(), rel=1e-4)


def test_surprise_and_shrinkage(device: torch.device) -> None:
    for make, tasks in ((alpaca, numbers()), (classifier, labels())):
        found = []
        for at in (torch.device("cpu"), device):
            support = tasks.data.select(slice(3)).to(device=at)
            surprise = bm.checks.Surprise.fit(make(at), tasks, [2, 3])
            found.append([surprise.p_value(support), surprise.smallest_p_value(support)])
            assert 0.25 <= make(at).surprise(support.select(slice(1)), num_draws=3) <= 1.0
            if make is alpaca:
                found[-1].append(bm.checks.shrinkage(make(at), support))
            again = bm.checks.Surprise.from_json(make(at), surprise.to_json())
            torch.testing.assert_close(again.p_value(support), found[-1][0])
        torch.testing.assert_close(found[1], found[0], **SAME)


@pytest.mark.parametrize(
    "method",
    [bm.calibration.variance_scaling, bm.calibration.isotonic_recalibration, bm.calibration.temperature_scaling],
)
def test_recalibration(device: torch.device, method: Callable[..., bm.Learner]) -> None:
    make, tasks = (classifier, labels(24)) if method is bm.calibration.temperature_scaling else (alpaca, numbers(24))
    support = tasks.data.select(slice(2))
    values = []
    for at in (torch.device("cpu"), device):
        recalibrated = method(make(at), tasks, [0, 3])
        values.append(summary(recalibrated.adapt(support).predict(support.x), support.y.to(at)))
    same(values[1], values[0], device)


def test_conformal_regions(device: torch.device) -> None:
    for make, tasks in ((alpaca, numbers(24)), (classifier, labels(24))):
        found = []
        for at in (torch.device("cpu"), device):
            learner, regions = make(at), []
            five = bm.Data(tasks.data.x[:2, :5], tasks.data.y[:2, :5], tasks.data.mask[:2, :5])
            for posterior in (
                bm.calibration.HierarchicalConformal(learner, tasks).adapt(five),
                bm.calibration.SplitConformal(learner).adapt(five, five),
                bm.calibration.FewShotConformal(learner, tasks, tasks).adapt(five),
            ):
                if make is alpaca:
                    regions += [*posterior.interval(tasks.data.x[:2], 0.6)]
                else:
                    regions += [posterior.label_set(tasks.data.x[:2], 0.6)]
            found.append(regions)
        if device.type == "cuda":  # the last rest on a network, whose training magnifies rounding
            last = 2 if make is alpaca else 1
            assert all(on(value, device).shape == found[0][-1].shape for value in found[1][-last:])
            found = [each[:-last] for each in found]
        same(found[1], found[0], device)


def test_sbc_and_fidelity(device: torch.device) -> None:
    learner = linear(device)
    x = torch.linspace(-1.0, 1.0, 3, dtype=torch.float64)[None, :, None].expand(20, -1, -1)
    assert bm.checks.sbc(learner, x, num_draws=9).ranks.shape[0] == 20
    assert bm.checks.predictive_sbc(learner, x, x[:, :1], num_draws=9).ranks.shape[0] == 20
    support = numbers().data.select(slice(2))
    exact, approximate = learner.adapt(support), alpaca(device).adapt(support)
    assert bm.checks.fidelity(exact, exact, support.x, num_draws=5).predictive_kl.abs().max() < 1e-6
    assert (
        bm.checks.fidelity(bm.Sampled(learner, SHORT).adapt(support), exact, support.x, num_draws=5).parameters
        is not None
    )
    with pytest.raises(bm.ShapeError):
        bm.checks.fidelity(approximate, exact, support.x, num_draws=5)


def test_hyper_posteriors(device: torch.device) -> None:
    tasks, x = numbers(6, 4), torch.zeros(6, 2, 1)
    wrap, gaussian = bm.wrappers.WithHyperprior, bm.hyperpriors.GaussianHyperprior()
    for found in (
        bm.training.nuts_hyper_posterior(
            wrap(linear(device), bm.hyperpriors.DeviationHyperprior()), tasks, sampler=SHORT, num_members=2
        ),
        bm.training.svgd_hyper_posterior([wrap(alpaca(device), gaussian) for _ in range(2)], tasks, steps=2),
        bm.training.vi_hyper_posterior(wrap(alpaca(device), gaussian), tasks, steps=2, num_members=2),
    ):
        posterior = found.adapt(tasks.data)
        assert on(posterior.predict(x).mean, device).isfinite().all()
        on(posterior.sample(3, torch.Generator(device).manual_seed(0))["weight"], device)


def test_implied_prior(device: torch.device) -> None:
    learner = bm.MAML(bm.MLP(1, [4]), steps=2, lr=0.01).double().to(device)
    prior = learner.implied_prior(numbers().data.select(slice(2)))
    for value in prior.sample(torch.Generator(device).manual_seed(0)).values():
        on(value, device)


def test_saving_and_loading(device: torch.device, tmp_path: Path) -> None:
    tasks = numbers().data
    learner = bm.Standardized(alpaca(device))
    learner.prepare(tasks)
    learner = bm.calibration.variance_scaling(learner, numbers(24), [0, 3])
    bm.save(learner, tmp_path / "model")
    loaded = bm.load(tmp_path / "model")  # on the CPU
    values = summary(learner.adapt(tasks).predict(tasks.x), tasks.y.to(device))
    same(values, summary(loaded.adapt(tasks).predict(tasks.x), tasks.y), device)
    same(
        summary(loaded.to(device).adapt(tasks).predict(tasks.x), tasks.y.to(device)),
        [on(v, device) for v in values],
        device,
    )


def test_tables(device: torch.device) -> None:
    import pandas as pd

    frame = pd.DataFrame({"task": ["a", "a", "b", "b"], "x": [0.0, 1.0, 0.5, 2.0], "y": [1.0, 2.0, 0.0, -1.0]})
    tasks = bm.TaskDataset.from_frame(frame, task="task", x=["x"], y=["y"])
    assert tasks.schema is not None
    tables = [bm.predict_frame(linear(at), tasks.schema, frame, frame) for at in (torch.device("cpu"), device)]
    pd.testing.assert_frame_equal(tables[1], tables[0])


def test_a_compiled_step(device: torch.device) -> None:
    if device.type == DEVICE.type:
        pytest.skip(BEYOND_THE_PRETENCE["a compiled step"])
    results = []
    for compiled in (False, True):
        torch.manual_seed(0)
        learner = bm.MAML(bm.MLP(1, [4]), steps=2, lr=0.01).double().to(device)
        results.append(bm.fit(learner, numbers(), steps=3, batch_size=3, compile=compiled).losses)
    assert results[1] == pytest.approx(results[0], rel=1e-5)


def test_to_pyro(device: torch.device) -> None:
    from pyro.infer.autoguide import AutoIAFNormal

    torch.manual_seed(0)
    learner, support = linear(device), numbers().data.select(slice(2))
    network = bm.LLAMA(bm.MLP(1, [2])).double().to(device)
    for posterior in (
        svi(network, support, steps=1, num_draws=2),
        svi(network, support, AutoIAFNormal, steps=1, num_draws=2),
        hyper_svi(learner, support, bm.hyperpriors.DeviationHyperprior(), steps=1, num_draws=4)
        .hyper_posterior(2)
        .adapt(support),
        hyper_nuts(learner, support, bm.hyperpriors.DeviationHyperprior(), sampler=SHORT)
        .hyper_posterior(2)
        .adapt(support),
    ):
        on(posterior.predict(support.x).mean, device)
    one = support.select(slice(1))
    on(nuts(learner, one, SHORT).predict(one.x).mean, device)
    on(prior_predictive(learner, support, num_draws=2)["y"], device)


def test_to_arviz_and_a_report(device: torch.device) -> None:
    learner, tasks = linear(device), numbers()
    to_arviz(learner, tasks, tasks.data, num_draws=2)
    reference = bm.checks.Surprise.fit(learner, tasks, [2])
    assert "ALPaCA" in str(report(learner, tasks, [2], num_bootstrap=2, examples=1, surprise=reference))
