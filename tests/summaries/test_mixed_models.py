"""The summary of a linear mixed model: lme4's numbers to their printed digits, and statsmodels' on our own table."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import bayesmeta as bm
from bayesmeta.summaries import MixedModelSummary, Summary


@dataclass(frozen=True)
class Fit:
    """A recorded fit of lme4 or nlme, to the digits that are recorded (lme4's documentation, nlme's test output)."""

    table: str
    x: tuple[str, ...]
    y: str
    restricted: bool
    minus_two_log_likelihood: float
    estimates: tuple[float, ...]
    errors: tuple[float, ...]
    deviations: tuple[float, ...]
    correlations: tuple[float, ...]
    residual: float
    varying: tuple[int, ...] | None = None


FITS = [
    Fit(
        *("sleepstudy", ("Days",), "Reaction", True, 1743.6283),
        *((251.41, 10.467), (6.8246, 1.5458), (24.74, 5.9221), (0.065551,), 25.592),
    ),
    Fit(
        *("sleepstudy", ("Days",), "Reaction", False, 1751.9393),
        *((251.41, 10.467), (6.6323, 1.5022), (23.781, 5.7168), (0.08132,), 25.592),
    ),
    Fit("rail", (), "travel", True, 122.1770, (66.5,), (10.171,), (24.805,), (), 4.0208),
    Fit("rail", (), "travel", False, 128.5600, (66.5,), (9.2848,), (22.624,), (), 4.0208),
    Fit("dyestuff", (), "Yield", True, 319.6543, (1527.5,), (19.383,), (42.001,), (), 49.51),
    Fit(
        *("radon_mn", ("floor",), "log_radon", True, 2171.3053),
        *((1.4616, -0.69299), (0.051576, 0.070431), (0.32822,), (), 0.75559, (0,)),
    ),
    Fit(
        *("exam", ("standLRT",), "normexam", False, 9316.8710),
        *((-0.011505, 0.55673), (0.039783, 0.019937), (0.30074, 0.12056), (0.49755,), 0.74408),
    ),
]


def digits(value: float) -> float:
    """Half a unit of the last recorded digit (and rounding of the binary number)."""
    decimals = len(repr(value).split(".")[1])
    return 0.5000001 * 10.0**-decimals


def agree(found: list[float], recorded: tuple[float, ...]) -> None:
    assert len(found) == len(recorded)
    for ours, theirs in zip(found, recorded, strict=True):
        assert abs(ours - theirs) <= digits(theirs), (ours, theirs)


def fitted(expected: Fit, real_data: Path, standardized: bool) -> tuple[bm.Learner, bm.TaskDataset]:
    frame = pd.read_csv(real_data / expected.table / f"{expected.table}.csv")
    tasks = bm.TaskDataset.from_frame(frame, task="task", x=expected.x, y=[expected.y])
    covariance = bm.priors.FullCovariance(1 + len(expected.x), varying=expected.varying)
    learner: bm.Learner = bm.ALPaCA(bm.Identity(len(expected.x)), covariance=covariance)
    learner = (bm.Standardized(learner) if standardized else learner).double()
    problem = bm.training.RestrictedMaximumLikelihood() if expected.restricted else bm.training.MaximumLikelihood()
    bm.fit_evidence(learner, tasks, problem)
    return learner, tasks


@pytest.mark.parametrize("standardized", [False, True])
def test_reml_with_a_category_is_that_of_treatment_contrasts(standardized: bool) -> None:
    """All levels stand beside the constant; statsmodels, as lme4, leaves the first one out."""
    import statsmodels.formula.api as smf

    frame = bm.tasks.example_table()
    tasks = bm.TaskDataset.from_frame(
        frame, task="plant", x=["day"], y="height_cm", covariates=["light_umol", "cultivar"]
    )
    covariance = bm.priors.FullCovariance(6, varying=[0, 1])
    learner: bm.Learner = bm.ALPaCA(bm.Identity(5), covariance=covariance)
    learner = (bm.Standardized(learner) if standardized else learner).double()
    assert bm.fit_evidence(learner, tasks, bm.training.RestrictedMaximumLikelihood()).stopped_early
    formula = "height_cm ~ day + light_umol + C(cultivar)"
    reference = smf.mixedlm(formula, frame, groups="plant", re_formula="~day").fit(reml=True)
    found = learner.summary(tasks)
    assert found.likelihood is not None
    assert found.likelihood.restricted == pytest.approx(reference.llf, abs=1e-4)
    effects = found.fixed_effects["estimate"]
    names = ["Intercept", "day", "light_umol", "C(cultivar)[T.greek]", "C(cultivar)[T.thai]"]
    np.testing.assert_allclose(effects.to_numpy(), reference.fe_params[names].to_numpy(), rtol=1e-4)


@pytest.mark.data
@pytest.mark.parametrize("expected", FITS, ids=lambda f: f"{f.table}-{'REML' if f.restricted else 'ML'}")
def test_recorded_fits_to_their_digits(expected: Fit, real_data: Path) -> None:
    """In standard units inside, in the user's units outside. The table of radon has random intercepts of a standardised
    input, which are those of the user's: the slope is the same in all counties.
    """
    learner, tasks = fitted(expected, real_data, standardized=True)
    summary = learner.summary(tasks)
    assert isinstance(summary, MixedModelSummary)
    fit = summary.likelihood
    assert fit is not None
    assert fit.criterion == ("REML" if expected.restricted else "ML")
    assert (fit.tasks, fit.points) == (len(tasks), int(tasks.counts.sum()))
    agree([-2.0 * fit.maximum], (expected.minus_two_log_likelihood,))
    agree(summary.fixed_effects["estimate"].tolist(), expected.estimates)
    agree(summary.fixed_effects["std_error"].tolist(), expected.errors)
    *deviations, residual = summary.variance_components["stddev"].tolist()
    agree(deviations, expected.deviations)
    # a likelihood is flat in its correlations: one is off by .7 units of its sixth decimal
    agree(
        [round(each, 5) for each in summary.correlations["correlation"]],
        tuple(round(r, 5) for r in expected.correlations),
    )
    agree([residual], (expected.residual,))


@pytest.mark.data
def test_the_page_of_sleepstudy_has_the_figures_that_lme4_prints(real_data: Path) -> None:
    """summary(lmer(Reaction ~ Days + (Days | Subject), sleepstudy)), as lme4's documentation prints it."""
    learner, tasks = fitted(FITS[0], real_data, standardized=True)
    page = str(learner.summary(tasks))
    numbers = [float(text) for text in re.findall(r"-?\d+\.\d+", page)]
    printed = ["1743.6", "251.405", "6.825", "10.467", "1.546", "612.10", "24.741", "35.07", "5.922", "0.066"]
    for text in [*printed, "654.94", "25.592", "36.84", "6.77"]:
        decimals = len(text.split(".")[1])
        # 612.10 is printed by lme4 where the maximum is at 612.09: its optimiser stops there
        tolerance = 0.0100001 if text == "612.10" else 0.5000001 * 10.0**-decimals
        assert any(abs(number - float(text)) <= tolerance for number in numbers), text
    assert "18 tasks, 180 points" in page
    assert "restricted maximum likelihood (REML)" in page


def table(seed: int = 0, tasks: int = 40) -> pd.DataFrame:
    """Random intercepts and slopes of a year and a dose, far from zero."""
    generator = np.random.default_rng(seed)
    group = np.repeat(np.arange(tasks), generator.integers(2, 9, tasks))
    x = np.stack([generator.normal(2000, 5, len(group)), generator.normal(0, 0.1, len(group))], 1)
    design = np.column_stack([np.ones(len(group)), x - [2000, 0]])
    effects = generator.normal(size=(tasks, 3)) * [2.0, 0.5, 8.0]
    y = (design * (effects[group] + [10.0, -1.0, 4.0])).sum(1) + generator.normal(0, 0.7, len(group))
    return pd.DataFrame({"site": group, "year": x[:, 0], "dose": x[:, 1], "y": y})


def test_statsmodels_agrees() -> None:
    import statsmodels.api as sm

    frame = table(tasks=25)
    tasks = bm.TaskDataset.from_frame(frame, task="site", x=["year", "dose"], y="y")
    learner = bm.Standardized(bm.ALPaCA(bm.Identity(2))).double()
    bm.fit_evidence(learner, tasks, bm.training.RestrictedMaximumLikelihood())
    summary = learner.summary(tasks)
    assert isinstance(summary, MixedModelSummary)
    # statsmodels' optimiser needs a design that is centred: its slopes and their deviations are ours
    design = np.column_stack([np.ones(len(frame)), frame["year"] - 2000.0, frame["dose"]])
    groups = frame["site"].to_numpy()
    theirs = sm.MixedLM(frame["y"].to_numpy(), design, groups=groups, exog_re=design).fit(reml=True)
    ours = summary.fixed_effects
    assert ours.index.tolist() == ["intercept", "year", "dose"]
    # its optimiser ends where the likelihood is flat to six digits: deviations are known to three
    np.testing.assert_allclose(ours["estimate"][1:], theirs.fe_params[1:], rtol=1e-3)
    at_2000 = ours["estimate"]["intercept"] + 2000.0 * ours["estimate"]["year"]
    np.testing.assert_allclose(at_2000, theirs.fe_params[0], rtol=1e-3)
    # (Σ Xᵀ V⁻¹ X)⁻¹ at its variances; its own `bse_fe` are of the observed Hessian, another estimate, 2 % higher
    information = sum(
        x.T @ np.linalg.solve(x @ theirs.cov_re @ x.T + theirs.scale * np.eye(len(x)), x)
        for x in (design[groups == each] for each in np.unique(groups))
    )
    np.testing.assert_allclose(ours["std_error"][1:], np.sqrt(np.diag(np.linalg.inv(information)))[1:], rtol=2e-3)
    components = summary.variance_components
    assert components.index.names == ["group", "term"]
    slopes = components.loc["site"].loc[["year", "dose"]]
    np.testing.assert_allclose(slopes["variance"], np.diag(theirs.cov_re)[1:], rtol=1e-2)
    np.testing.assert_allclose(components.loc[("residual", "")]["variance"], theirs.scale, rtol=1e-2)
    fit = summary.likelihood
    assert fit is not None
    assert (fit.criterion, fit.parameters) == ("REML", 3 + 6 + 1)
    assert abs(fit.maximum - theirs.llf) < 1e-3  # the restricted likelihood does not know where inputs begin


def test_units_are_undone_for_any_known_features() -> None:
    """A model in standard units and the same one in the user's have one summary, digit by digit."""
    frame = table(tasks=12)
    frame["year"] -= 2000.0  # a polynomial of years is too ill-conditioned to compare digits
    tasks = bm.TaskDataset.from_frame(frame, task="site", x=["year", "dose"], y="y")
    for features in (bm.Polynomial(2, 2), bm.networks.TaskCovariates(bm.Identity(1), 1)):
        inner = bm.ALPaCA(features, covariance=bm.priors.FullCovariance(features.num_outputs, 0.5)).double()
        torch.manual_seed(0)
        inner.prior.location.data.normal_()
        inner.prior.covariance.lower.data.add_(0.2 * torch.randn_like(inner.prior.covariance.lower))
        outer = bm.Standardized(inner).double()
        outer.prepare(tasks.data)
        own = bm.ALPaCA(features, covariance=bm.priors.FullCovariance(features.num_outputs)).double()
        found = outer.summary(tasks)
        assert isinstance(found, MixedModelSummary)
        estimates = torch.tensor(found.fixed_effects["estimate"].to_numpy())
        own.prior.location.data.copy_(estimates[:, None])
        spread = features.terms(outer.seen(columns_of(tasks)).inputs)
        assert spread is not None
        own.prior.covariance.set_matrix(spread.covariance(inner.prior.covariance.matrix().detach()))
        own.prior.noise.set_covariance(inner.prior.noise.covariance().detach() * outer.y_scale.square())
        again = own.summary(tasks)
        assert isinstance(again, MixedModelSummary)
        pd.testing.assert_frame_equal(found.fixed_effects, again.fixed_effects, rtol=1e-8)
        pd.testing.assert_frame_equal(found.variance_components, again.variance_components, rtol=1e-8)
        pd.testing.assert_frame_equal(found.correlations, again.correlations, rtol=1e-7)
        assert found.intraclass_correlation["site"] == pytest.approx(again.intraclass_correlation["site"])
        ours, theirs = found.likelihood, again.likelihood
        assert ours is not None
        assert theirs is not None
        assert ours.log_likelihood == pytest.approx(theirs.log_likelihood, abs=1e-6)
        assert ours.restricted == pytest.approx(theirs.restricted, abs=1e-6)


def columns_of(tasks: bm.TaskDataset) -> bm.summaries.Columns:
    return bm.summaries.Columns.of((2,), bm.Numbers(1), tasks.schema)


def test_random_intercepts_have_the_classic_intraclass_correlation() -> None:
    generator = np.random.default_rng(0)
    group = np.repeat(np.arange(30), 4)
    frame = pd.DataFrame({"batch": group, "y": generator.normal(0, 3, 30)[group] + generator.normal(0, 1, 120)})
    tasks = bm.TaskDataset.from_frame(frame, task="batch", x=[], y="y")
    learner = bm.ALPaCA(bm.Identity(0)).double()
    bm.fit_evidence(learner, tasks)
    summary = learner.summary(tasks)
    between, within = summary.variance_components["variance"]
    assert summary.intraclass_correlation["batch"] == pytest.approx(between / (between + within))


def test_a_singular_fit_is_said_in_plain_words() -> None:
    """Tasks that differ in nothing, in the intercept alone, and along one line."""
    generator = np.random.default_rng(1)
    group, x = np.repeat(np.arange(12), 6), np.tile(np.arange(6.0), 12)
    noise = generator.normal(0, 1, 72)
    effect = generator.normal(0, 3, 12)[group]
    noise = noise - _lines(noise, group, x)
    outcomes = {
        "the variance of x between the levels of g is zero": 2.0 * x + effect + noise,
        "the correlation of intercept and x between the levels of g is +1": effect * (1.0 + x) + noise,
    }
    for words, y in outcomes.items():
        tasks = bm.TaskDataset.from_frame(pd.DataFrame({"g": group, "x": x, "y": y}), task="g", x=["x"], y="y")
        learner = bm.Standardized(bm.ALPaCA(bm.Identity(1))).double()
        bm.fit_evidence(learner, tasks)
        notes = learner.summary(tasks).notes
        assert any(words in note and "singular fit" in note for note in notes), (words, notes)
    assert not learner.summary(bm.TaskDataset.from_frame(table(), task="site", x=["dose"], y="y")).notes[1:]


def _lines(noise: np.ndarray, group: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The line that fits the noise of each task: without it tasks differ in nothing but what they are made of."""
    found = np.zeros_like(noise)
    for each in np.unique(group):
        own = group == each
        found[own] = np.polyval(np.polyfit(x[own], noise[own], 1), x[own])
    return found


def test_levels_of_a_category_are_differences_from_the_first() -> None:
    """As if the first level had no column: the same effects, errors and number of parameters."""
    frame = table(tasks=12)
    frame["arm"] = np.array(["a", "b", "c"])[frame["site"] % 3]
    frame["b"], frame["c"] = (frame["arm"] == "b").astype(float), (frame["arm"] == "c").astype(float)
    found = []
    for covariates, count in ((["arm"], 3), (["b", "c"], 2)):
        tasks = bm.TaskDataset.from_frame(frame, task="site", x=["dose"], covariates=covariates, y="y")
        features = bm.networks.TaskCovariates(bm.Identity(1), count, shifted=[0])
        learner = bm.Standardized(bm.ALPaCA(features)).double()
        bm.fit_evidence(learner, tasks)
        found.append(learner.summary(tasks))
    arms, columns = found
    assert arms.fixed_effects.index.tolist() == ["intercept", "dose", "arm=b - a", "arm=c - a"]
    assert "The intercept is of rows with arm=a; effects of other levels are differences from these." in arms.notes
    # two searches for one maximum
    np.testing.assert_allclose(arms.fixed_effects.to_numpy(), columns.fixed_effects.to_numpy(), rtol=1e-4, atol=1e-5)
    assert arms.likelihood.parameters == columns.likelihood.parameters
    assert arms.likelihood.log_likelihood == pytest.approx(columns.likelihood.log_likelihood, abs=1e-6)


def test_effects_that_the_inputs_do_not_determine_have_no_error() -> None:
    frame = table(tasks=10)
    frame["half"], frame["other"] = (frame["site"] % 2).astype(float), 1.0 - (frame["site"] % 2)
    tasks = bm.TaskDataset.from_frame(frame, task="site", x=["dose"], covariates=["half", "other"], y="y")
    features = bm.networks.TaskCovariates(bm.Identity(1), 2, shifted=[0])
    learner = bm.Standardized(bm.ALPaCA(features)).double()
    bm.fit_evidence(learner, tasks)
    summary = learner.summary(tasks)
    errors = summary.fixed_effects["std_error"]
    assert errors.index.tolist() == ["intercept", "dose", "half", "other"]
    assert errors.isna().tolist() == [True, False, True, True]
    assert any("do not determine the fixed effects of intercept, half, other" in note for note in summary.notes)


def test_groupings_have_variances_of_their_own() -> None:
    generator = np.random.default_rng(2)
    school, pupils = np.repeat(np.arange(8), 6), 5
    rows = [
        {"school": f"s{s}", "room": r, "score": 50 + a + b + e}
        for r, (s, a, b) in enumerate(
            zip(school, generator.normal(0, 5, 8)[school], generator.normal(0, 2, 48), strict=True)
        )
        for e in generator.normal(0, 1, pupils)
    ]
    tasks = bm.TaskDataset.from_frame(pd.DataFrame(rows), task=["school", "room"], x=[], y="score")
    learner = bm.Standardized(bm.learners.MixedEffects(bm.Identity(0), tasks.schema.group_sizes)).double()
    bm.fit_evidence(learner, tasks, bm.training.RestrictedMaximumLikelihood())
    summary = learner.summary(tasks)
    assert isinstance(summary, MixedModelSummary)
    assert summary.variance_components.index.tolist() == [
        ("room", "intercept"),
        ("school", "intercept"),
        ("residual", ""),
    ]
    assert list(summary.intraclass_correlation) == ["room", "school"]
    assert summary.likelihood is not None
    assert summary.likelihood.criterion == "REML"
    frame = pd.DataFrame(rows)
    alike = {name: np.equal.outer(frame[name].to_numpy(), frame[name].to_numpy()) for name in ("room", "school")}
    variances = {group: value for (group, _), value in summary.variance_components["variance"].items()}
    v = variances["residual"] * np.eye(len(frame)) + sum(variances[name] * alike[name] for name in alike)
    inverse, ones, y = np.linalg.inv(v), np.ones(len(frame)), frame["score"].to_numpy()
    information = ones @ inverse @ ones
    mean = ones @ inverse @ y / information
    dense = np.linalg.slogdet(v)[1] + np.log(information) + (y - mean) @ inverse @ (y - mean)
    dense = -0.5 * (dense + (len(frame) - 1) * np.log(2.0 * np.pi))
    assert summary.likelihood.maximum == pytest.approx(dense, abs=1e-6)
    assert summary.fixed_effects["estimate"]["intercept"] == pytest.approx(mean, rel=1e-9)
    assert summary.fixed_effects["std_error"]["intercept"] == pytest.approx(information**-0.5, rel=1e-9)
    posterior = learner.adapt(tasks.data).summary(tasks)
    assert "intercept school=s3" in posterior.coefficients.index.get_level_values("term")


def test_an_average_over_theta_has_intervals_of_deviations() -> None:
    tasks = bm.TaskDataset.from_frame(table(tasks=6), task="site", x=["dose"], y="y")
    members = []
    for seed in range(5):
        torch.manual_seed(seed)
        member = bm.ALPaCA(bm.Identity(1)).double()
        for parameter in member.parameters():
            parameter.data.add_(0.3 * torch.randn_like(parameter))
        members.append(member)
    summary = bm.HyperPosterior(members).summary(tasks)
    assert isinstance(summary, MixedModelSummary)
    assert summary.averaged == 5
    locations = torch.stack([member.prior.location[1, 0] for member in members]).detach()
    assert summary.fixed_effects["estimate"]["dose"] == pytest.approx(locations.mean().item())
    assert summary.fixed_effects["std_error"]["dose"] == pytest.approx(locations.std().item())
    page = summary.page(0.5)
    assert "averaged over 5 draws of theta" in page
    assert "50 % from" in page
    assert Summary.from_json(summary.to_json()) == summary


@pytest.mark.usefixtures("unchecked")
def test_without_tasks_there_are_no_errors_and_no_likelihood() -> None:
    summary = bm.ALPaCA(bm.Identity(2), num_outputs=2, noise=bm.noise.FullNoise(2)).summary()
    assert isinstance(summary, MixedModelSummary)
    assert summary.likelihood is None
    assert summary.fixed_effects["std_error"].isna().all()
    assert summary.fixed_effects.index.tolist() == [(y, x) for y in ("y0", "y1") for x in ("intercept", "x0", "x1")]
    with pytest.raises(bm.DataError, match="expected a TaskDataset, got int"):
        bm.ALPaCA(bm.Identity(2)).summary(3)  # type: ignore[arg-type]
    with pytest.raises(bm.DataError, match="a level"):
        summary.page(1.5)
    with pytest.raises(bm.DataError, match="expected a summary"):
        Summary.from_json({"class": "Nothing"})
