"""Nested and crossed effects against the one Gaussian over all points that they say, written out in float64."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import bayesmeta as bm
from bayesmeta.learners import MixedEffects

EXACT = {"rtol": 1e-8, "atol": 1e-8}  # float64: rounding of two ways through matrices of sixty rows
UNKNOWN = 9.0  # a level that is none of those known


def _learner(num_outputs: int = 1, levels: tuple[int, ...] = (3, 4)) -> MixedEffects:
    """Intercepts and slopes of each task and of the first grouping, intercepts of the second; theta at random."""
    torch.manual_seed(1)
    shared = [bm.priors.FullCovariance(2), bm.priors.DiagonalCovariance(2, varying=[0])][: len(levels)]
    noise = bm.noise.FullNoise(num_outputs)
    learner = MixedEffects(bm.Identity(1), levels, num_outputs=num_outputs, shared=shared, noise=noise).double()
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(0.4 * torch.randn_like(parameter))
    return learner


def _points(num_tasks: int, seed: int, num_outputs: int = 1, known: bool = False) -> bm.Data:
    """Ragged tasks of 0 to 6 points, at levels of which some are not known; the fourth task has a single point."""
    generator = torch.Generator().manual_seed(seed)
    number = {"generator": generator, "dtype": torch.float64}
    x, y = torch.randn(num_tasks, 6, 1, **number), torch.randn(num_tasks, 6, num_outputs, **number)
    first = torch.randint(0, 3, (num_tasks, 1, 1), generator=generator).expand(-1, 6, -1).double()  # nested
    second = torch.randint(0, 4 if known else 5, (num_tasks, 6, 1), generator=generator).double()  # crossed
    if not known:
        first = torch.where(torch.arange(num_tasks)[:, None, None] == 2, UNKNOWN, first)
    counts = torch.randint(0, 7, (num_tasks, 1), generator=generator)
    counts[3] = 1
    return bm.Data(torch.cat([x, first, second], -1), y, torch.arange(6) < counts)


class Truth:
    """All points of all tasks in one row: design, outcomes, and their covariance in units of the noise."""

    def __init__(self, learner: MixedEffects, data: bm.Data) -> None:
        task, _ = data.mask.nonzero(as_tuple=True)
        x, self.y = data.x[data.mask], data.y[data.mask]
        self.design = torch.cat([torch.ones_like(x[:, :1]), x[:, :1]], 1)
        prior = learner.prior
        same = task[:, None] == task
        self.covariance = torch.eye(len(x)).double() + same * self._between(prior.covariance.matrix())
        for group, (count, each) in enumerate(zip(prior.levels, prior.groupings, strict=True)):
            level = x[:, 1 + group]
            is_known = level < count
            # a level that is not known is one within its task, and another in every other
            alike = (level[:, None] == level) & torch.where(is_known, True, same)
            self.covariance += alike * self._between(each.matrix())
        self.covariance = self.covariance.detach()

    def _between(self, matrix: Tensor) -> Tensor:
        return self.design @ matrix @ self.design.mT


def _log_density(residual: Tensor, covariance: Tensor, noise: Tensor) -> Tensor:
    """Of a matrix normal: covariance between rows, in units of the noise between columns."""
    whole = torch.kron(covariance, noise)
    normal = torch.distributions.MultivariateNormal(torch.zeros(len(whole)).double(), whole)
    return normal.log_prob(residual.flatten())


@pytest.mark.parametrize("num_outputs", [1, 2])
def test_evidence_of_all_tasks(num_outputs: int) -> None:
    """In several batches as in one, restricted and not; K_0 and the noise have closed forms."""
    learner, data = _learner(num_outputs), _points(7, 0, num_outputs)
    noise, location = learner.prior.noise.covariance().detach(), learner.prior.location.detach()
    truth = Truth(learner, data)
    expected = _log_density(truth.y - truth.design @ location, truth.covariance, noise)
    parts = [data.select([0, 1, 2]), data.select([3, 4, 5, 6]).points(slice(6))]
    for given in ([data], parts):
        torch.testing.assert_close(learner.joint_evidence(*given).detach(), expected, **EXACT)

    solved = torch.linalg.solve(truth.covariance, truth.design)
    precision = truth.design.mT @ solved
    best = torch.linalg.solve(precision, solved.mT @ truth.y)
    expected = _log_density(truth.y - truth.design @ best, truth.covariance, noise)
    information = torch.kron(precision.contiguous(), torch.linalg.inv(noise).contiguous())
    expected += 0.5 * (len(information) * math.log(2.0 * math.pi) - torch.logdet(information))
    torch.testing.assert_close(learner.restricted_log_evidence(*parts).detach(), expected, **EXACT)

    learner.maximise_exactly(data)
    torch.testing.assert_close(learner.prior.location.detach(), best, **EXACT)
    residual = truth.y - truth.design @ best
    scatter = residual.mT @ torch.linalg.solve(truth.covariance, residual) / len(residual)
    torch.testing.assert_close(learner.prior.noise.covariance().detach(), scatter, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("num_outputs", [1, 2])
def test_a_new_task_is_one_of_all(num_outputs: int) -> None:
    """It starts from what the training tasks say of its levels and of K_0 (flat before), and an update goes on."""
    learner = _learner(num_outputs)
    training, new = _points(7, 0, num_outputs), _points(4, 5, num_outputs)
    learner.remember(training.select([0, 1, 2]), training.select([3, 4, 5, 6]))
    query = _points(4, 6, num_outputs)
    query = bm.Data.full(query.x, query.y)
    query.x[..., 1] = new.x[:, :1, 1]  # nested
    posterior = learner.adapt(new.points(slice(2))).update(new.points(slice(2, 6)))
    noise = learner.prior.noise.covariance().detach()
    for position in range(4):
        seen, asked = new.select([position]), query.select([position])
        prediction = posterior.select([position]).predict(asked.x)
        both = seen.append(asked)
        padded = bm.Data.stack([training, both])
        truth = Truth(learner, padded)
        first = len(truth.y) - 6
        design, covariance = truth.design, truth.covariance
        known = covariance[:first, :first]
        gain = torch.linalg.solve(known, covariance[:first, first:]).mT
        solved = torch.linalg.solve(known, design[:first])
        precision = design[:first].mT @ solved
        best = torch.linalg.solve(precision, solved.mT @ truth.y[:first])
        mean = design[first:] @ best + gain @ (truth.y[:first] - design[:first] @ best)
        rest = design[first:] - gain @ design[:first]
        spread = (
            covariance[first:, first:]
            - gain @ covariance[:first, first:]
            + rest @ torch.linalg.solve(precision, rest.mT)
        )
        torch.testing.assert_close(prediction.mean[0].detach(), mean, **EXACT)
        expected = _log_density(asked.y[0] - mean, spread, noise)
        torch.testing.assert_close(prediction.log_prob(asked.y)[0].detach(), expected, **EXACT)


def test_what_is_remembered_is_forgotten_by_the_next() -> None:
    learner, other = _learner(), _learner()
    learner.remember(_points(5, 3))
    learner.remember(_points(7, 0))
    other.remember(_points(7, 0))
    for name, value in other.state_dict().items():
        torch.testing.assert_close(learner.state_dict()[name], value, rtol=0.0, atol=0.0)
    mean, stddev = learner.level_effects(1)
    assert mean.shape == stddev.shape == (4, 1, 1)
    with pytest.raises(bm.DataError, match="a grouping from 0 to 1, got 2"):
        learner.level_effects(2)


def _classes() -> pd.DataFrame:
    """Classes of schools; class names repeat, look like numbers, and one class has a single pupil."""
    rng = np.random.default_rng(0)
    rows = []
    for school, size in (("01", 3), ("1", 4), ("b", 2), ("c", 4)):
        level = rng.normal(0, 2)
        for name in range(1, size + 1):
            mean = 10 + level + rng.normal()
            pupils = 1 if (school, name) == ("b", 2) else 4
            rows += [{"school": school, "class": str(name), "score": mean + 0.3 * rng.normal()} for _ in range(pupils)]
    return pd.DataFrame(rows)


def test_classes_of_schools_from_a_table(tmp_path: Path) -> None:
    """A class is one of its school; a school that was not seen is a level that is not known; folders remember."""
    frame = _classes()
    tasks = bm.TaskDataset.from_frame(frame, task=["school", "class"], x=[], y="score")
    assert tasks.names[:4] == (("01", "1"), ("01", "2"), ("01", "3"), ("1", "1"))
    assert len(tasks) == 13
    assert tasks.schema.group_sizes == (4,)
    assert tasks.schema.x_names == ("school",)
    assert tasks.task(("1", "2")).x.unique().tolist() == [1.0]
    learner = bm.Standardized(MixedEffects(bm.Identity(0), tasks.schema.group_sizes)).double()
    assert bm.fit_evidence(learner, tasks).stopped_early
    assert learner.x_scale.tolist() == [1.0]  # a code is no quantity
    plain = MixedEffects(bm.Identity(0), tasks.schema.group_sizes).double()
    bm.fit_evidence(plain, tasks)
    torch.testing.assert_close(
        learner.joint_evidence(tasks.data).detach(), plain.joint_evidence(tasks.data).detach(), rtol=0.0, atol=1e-6
    )
    new = pd.DataFrame({"school": ["1", "d", "b"], "class": ["9", "1", "9"]})
    predicted = bm.predict_frame(learner, tasks.schema, frame.head(0), new)
    means = frame.groupby("school")["score"].mean()
    assert abs(predicted["mean"][0] - means["1"]) < abs(predicted["mean"][1] - means["1"])
    assert predicted["sd"][0] < predicted["sd"][2] < predicted["sd"][1]  # four classes seen, two, none
    bm.save(learner, tmp_path / "model")
    again = bm.predict_frame(bm.load(tmp_path / "model"), tasks.schema, frame.head(0), new)
    pd.testing.assert_frame_equal(again, predicted)
    schema = bm.tasks.Schema.from_json(tasks.schema.to_json())
    assert schema == tasks.schema
    with pytest.raises(bm.DataError, match="a task in column 'school' of every row, got none in row 0"):
        bm.TaskDataset.from_frame(frame.assign(school=None), task=["school", "class"], x=[], y="score")


def test_three_levels() -> None:
    """Districts, schools of districts, classes of schools: names of schools repeat between districts."""
    frame = pd.concat([_classes().assign(district=name) for name in ("north", "south")])
    tasks = bm.TaskDataset.from_frame(frame, task=["district", "school", "class"], x=[], y="score")
    assert tasks.schema.group_sizes == (2, 8)
    assert tasks.task(("south", "01", "1")).x.unique(dim=1).flatten().tolist() == [1.0, 4.0]


def test_samples_on_plates_from_a_table() -> None:
    """Crossed; an empty cell is a sample that is not known, and another name an error. Levels may go unused."""
    frame = pd.DataFrame({"plate": [1, 1, 2, 2, 3], "sample": ["A", "B", "A", "B", "C"], "size": [1.0, 2, 2, 3, 5]})
    tasks = bm.TaskDataset.from_frame(frame, task="plate", x=[], groups=["sample"], y="size")
    assert tasks.data.x[tasks.data.mask].flatten().tolist() == [0.0, 1.0, 0.0, 1.0, 2.0]
    learner = MixedEffects(bm.Identity(0), tasks.schema.group_sizes).double()
    learner.remember(tasks.select([0, 1]).data.to(torch.float64))  # without C
    mean, stddev = learner.level_effects()
    assert mean[2].item() == 0.0
    assert stddev[2] > stddev[0]
    new = pd.DataFrame({"plate": [4, 4], "sample": ["A", None]})
    assert tasks.schema.inputs(new).tolist() == [[0.0], [3.0]]
    with pytest.raises(bm.DataError, match="got 'D' in row 0: leave the cell empty where the level is new"):
        tasks.schema.inputs(new.assign(sample="D"))
    for arguments in ({"groups": "sample"}, {"groups": ["plate"]}, {"groups": ["nothing"]}):
        with pytest.raises(bm.DataError, match="expected"):
            bm.TaskDataset.from_frame(frame, task="plate", x=[], y="size", **arguments)


def test_one_task_and_arguments() -> None:
    one = bm.Data.from_arrays([[0.5, 0.0]], [1.0])
    learner = MixedEffects(bm.Identity(1), [1]).double()
    learner.remember(one)
    assert learner.adapt(bm.Data.empty(one)).predict([[0.5, 0.0]]).mean.isfinite().all()
    for levels in ([0], [2, -1], [3_001]):
        with pytest.raises(bm.DataError, match="expected"):
            MixedEffects(bm.Identity(0), levels)
    with pytest.raises(bm.ShapeError, match="covariances over 2 features, got one over 3"):
        MixedEffects(bm.Identity(1), [2], shared=[bm.priors.FullCovariance(3)])
    with pytest.raises(bm.ShapeError, match="each of 2 groupings, got 1"):
        MixedEffects(bm.Identity(1), [2, 2], shared=[bm.priors.FullCovariance(2)])
    # one of its two columns is left out, as in lme4; then no contrast is left, and their density is one
    assert learner.restricted_log_evidence(one).item() == pytest.approx(0.0, abs=1e-9)


def test_without_groupings_it_is_alpaca_with_an_uncertain_mean() -> None:
    """Of few tasks: as ALPaCA, and wider by the variance of K_0 by generalised least squares."""
    some = _points(5, 0)
    data = bm.Data(some.x[..., :1], some.y, some.mask)
    alpaca = bm.ALPaCA(bm.Identity(1)).double()
    learner = MixedEffects(bm.Identity(1), []).double()
    torch.testing.assert_close(learner.joint_evidence(data), alpaca.log_evidence(data).sum(), **EXACT)
    torch.testing.assert_close(learner.restricted_log_evidence(data), alpaca.restricted_log_evidence(data), **EXACT)
    learner.remember(data)
    alpaca.maximise_location(data)
    empty, query = bm.Data.empty(data.select([0])), [[0.0], [2.0]]
    ours, theirs = (each.adapt(empty).predict(query) for each in (learner, alpaca))
    torch.testing.assert_close(ours.mean, theirs.mean, **EXACT)
    truth = Truth(learner, data)
    precision = truth.design.mT @ torch.linalg.solve(truth.covariance, truth.design)
    design = torch.tensor([[1.0, 0.0], [1.0, 2.0]]).double()
    wider = (design @ torch.linalg.inv(precision) * design).sum(-1) * learner.prior.noise.variance()
    torch.testing.assert_close(ours.variance[0, :, 0] - theirs.variance[0, :, 0], wider, **EXACT)


def test_the_prior_has_a_density_where_all_features_vary() -> None:
    learner = MixedEffects(bm.Identity(1), [2], shared=[bm.priors.FullCovariance(2, varying=[0])]).double()
    some = _points(7, 0, known=True)
    learner.remember(bm.Data(some.x[..., :2], some.y, some.mask))
    draws = learner.prior.sample(3000, torch.Generator().manual_seed(0))
    factor = learner.prior.full_factor()
    covariance = factor @ factor.mT * learner.prior.noise.variance()
    scatter = draws["weight"][..., 0].mT.cov()
    torch.testing.assert_close(scatter, covariance.detach(), rtol=0.0, atol=0.15)  # deviations of about .05
    fixed = MixedEffects(bm.Identity(1), [2], covariance=bm.priors.FullCovariance(2, varying=[0]))
    with pytest.raises(bm.UnsupportedError, match="has no density"):
        fixed.prior.log_prob(fixed.prior.sample(2))


def _shown(num_tasks: int) -> bm.Data:
    """Tasks of which all have points."""
    data = _points(num_tasks, seed=3, known=True)
    return data.select(data.counts.nonzero().flatten())


@pytest.mark.filterwarnings("ignore::bayesmeta.ConvergenceWarning")  # of so few draws
def test_each_theta_teaches_of_the_levels_what_it_says() -> None:
    """The belief in the levels depends on theta: that of the learner before the chains is of another theta."""
    torch.manual_seed(0)
    learner = MixedEffects(bm.Identity(0), [2]).double()
    level = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    data = bm.Data.full(level[:, None, None].expand(-1, 2, -1), torch.randn(4, 2, 1, dtype=torch.float64))
    hyperprior, few = bm.hyperpriors.GaussianHyperprior(1.0, "prior"), bm.inference.NUTS(2, 4, 20)
    wrapped = bm.wrappers.WithHyperprior(learner, hyperprior)
    full = bm.training.nuts_hyper_posterior(wrapped, bm.TaskDataset(data), sampler=few, num_members=2)
    members = [each.learner for each in full.learners if isinstance(each, bm.wrappers.WithHyperprior)]
    assert len(members) == 2
    for member in members:
        again = MixedEffects(bm.Identity(0), [2]).double()
        again.load_state_dict(member.state_dict())
        again.remember(data)
        assert isinstance(member, MixedEffects)
        torch.testing.assert_close(again.prior.shared_mean, member.prior.shared_mean)
        torch.testing.assert_close(again.prior.shared_root, member.prior.shared_root)
    assert not torch.allclose(*(m.get_buffer("prior.shared_mean") for m in members))


def test_what_takes_tasks_one_by_one_refuses_coupled_ones() -> None:
    tasks = bm.TaskDataset(_shown(8))
    with pytest.raises(bm.UnsupportedError, match="tasks share theta alone"):
        bm.wrappers.TaskQuadrature(bm.Standardized(_learner()), bm.wrappers.InputScale())
    with pytest.raises(bm.UnsupportedError, match="tasks that share theta alone"):
        bm.training.svgd_hyper_posterior([_learner(), _learner()], tasks)
    with pytest.raises(bm.UnsupportedError, match="tasks that share theta alone"):
        bm.training.vi_hyper_posterior(_learner(), tasks)


def test_fit_is_refused() -> None:
    with pytest.raises(bm.UnsupportedError, match="fit_evidence to train MixedEffects, got fit"):
        bm.fit(bm.Standardized(_learner()), bm.TaskDataset(_shown(8)), steps=1, progress=False)
