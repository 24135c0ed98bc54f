"""What points have said of tasks: by name, in the user's units, with intervals that hold what they say."""

from pathlib import Path

import pandas as pd
import pytest
import torch

import bayesmeta as bm
from bayesmeta.summaries import Coefficients, Columns
from tests.references.test_linear_mixed_models import SLEEPSTUDY_BLUPS


@pytest.mark.data
def test_coefficients_are_fixed_effects_and_blups(real_data: Path) -> None:
    """coef(lmer(Reaction ~ Days + (Days | Subject), REML = FALSE)), three decimals of which are published."""
    frame = pd.read_csv(real_data / "sleepstudy" / "sleepstudy.csv")
    tasks = bm.TaskDataset.from_frame(frame, task="task", x=["Days"], y=["Reaction"])
    learner = bm.Standardized(bm.ALPaCA(bm.Identity(1))).double()
    bm.fit_evidence(learner, tasks)
    table = learner.adapt(tasks.data).summary(tasks).coefficients
    effects = learner.summary(tasks).fixed_effects["estimate"]
    for name, (intercept, slope) in SLEEPSTUDY_BLUPS.items():
        assert table.loc[(name, "intercept"), "mean"] == pytest.approx(effects["intercept"] + intercept, abs=6e-4)
        assert table.loc[(name, "Days"), "mean"] == pytest.approx(effects["Days"] + slope, abs=6e-4)
    # lme4's conditional variances of subject 308: 140.967 and 5.158
    assert table.loc[(308, "intercept"), "stddev"] ** 2 == pytest.approx(140.96703, rel=1e-4)
    assert table.loc[(308, "Days"), "stddev"] ** 2 == pytest.approx(5.15778, rel=1e-4)
    assert table["points"].unique().tolist() == [10.0]


def _tasks() -> bm.TaskDataset:
    rows = [("ann", 0.0, 1.0), ("ann", 1.0, 2.5), ("bob", 0.0, 0.0), ("bob", 1.0, 0.5), ("bob", 2.0, 1.5)]
    frame = pd.DataFrame(rows, columns=["who", "day", "mg"])
    return bm.TaskDataset.from_frame(frame, task="who", x=["day"], y="mg")


def test_shrinkage_is_posterior_over_prior_variance_and_batches_have_names() -> None:
    tasks, learner = _tasks(), bm.ALPaCA(bm.Identity(1)).double()
    posterior = learner.adapt(tasks.data)
    table = posterior.summary(tasks).coefficients
    noise = learner.prior.noise.variance().item()
    after = posterior.feature_covariance.diagonal(dim1=-2, dim2=-1) * noise
    assert table["stddev"].tolist() == pytest.approx(after.sqrt().flatten().tolist())
    assert table["shrinkage"].tolist() == pytest.approx((after / noise).flatten().tolist())  # V is the identity
    assert table.loc["ann"]["points"].tolist() == [2.0, 2.0]
    # of other tasks than those of the names: by their places
    assert posterior.select([1]).summary(tasks).coefficients.index.get_level_values("task").tolist() == [0, 0]
    nothing = learner.adapt(bm.Data.empty(tasks.data)).summary(tasks).coefficients
    assert nothing["shrinkage"].tolist() == pytest.approx([1.0] * 4)


def test_intervals_have_the_probability_that_is_asked_for() -> None:
    tasks, learner = _tasks(), bm.ALPaCA(bm.Identity(1)).double()
    posterior = learner.adapt(tasks.data)
    draws = posterior.sample(20_000, torch.Generator().manual_seed(0))["weight"].flatten(2)
    for level in (0.5, 0.9):
        table = posterior.summary(tasks, level).coefficients
        lower, upper = (torch.tensor(table[name].to_numpy()).reshape(2, 2) for name in ("lower", "upper"))
        inside = ((draws >= lower) & (draws <= upper)).double().mean(0)
        assert bool(((inside - level).abs() < 0.015).all())  # 4 standard errors of 20,000 draws
    with pytest.raises(bm.DataError, match="a level"):
        posterior.summary(tasks, 1.0)


def test_a_mixture_of_beliefs_has_their_moments_and_quantiles() -> None:
    parts = [
        Coefficients(("a",), torch.tensor([[mean]]).double(), torch.tensor([[sd]]).double())
        for mean, sd in ((-3.0, 0.5), (2.0, 1.0))
    ]
    mixed = Coefficients.mixture(parts, torch.tensor([[0.25, 0.75]]))
    assert mixed.mean.item() == pytest.approx(0.75)
    assert mixed.stddev.item() ** 2 == pytest.approx(0.25 * (0.25 + 9.0) + 0.75 * (1.0 + 4.0) - 0.75**2)
    low, high = mixed.interval(0.8)  # 10 % below: a share of .4 of the first; 10 % above: .1333 of the second
    normal = torch.distributions.Normal(0.0, 1.0)
    assert low.item() == pytest.approx(-3.0 + 0.5 * normal.icdf(torch.tensor(0.4)).item(), abs=0.01)
    assert high.item() == pytest.approx(2.0 + normal.icdf(torch.tensor(1.0 - 0.1 / 0.75)).item(), abs=0.01)


def test_an_average_over_theta_mixes_what_each_believes() -> None:
    tasks, members = _tasks(), []
    for location in (0.0, 2.0):
        member = bm.ALPaCA(bm.Identity(1)).double()
        member.prior.location.data.fill_(location)
        members.append(bm.Standardized(member).double())
        members[-1].prepare(tasks.data)
    posterior = bm.HyperPosterior(members).adapt(tasks.data)
    weights = torch.stack([member.log_evidence(tasks.data) for member in members], -1).softmax(-1).detach()
    means = torch.stack(
        [
            torch.tensor(m.adapt(tasks.data).summary(tasks).coefficients["mean"].to_numpy()).reshape(2, 2)
            for m in members
        ],
        -1,
    )
    expected = (weights[:, None] * means).sum(-1).flatten().tolist()
    assert posterior.summary(tasks).coefficients["mean"].tolist() == pytest.approx(expected)


def test_what_has_no_closed_form_is_drawn() -> None:
    tasks = _tasks()
    scaled = bm.ALPaCA(bm.Identity(1), scale=bm.priors.TaskScale()).double().adapt(tasks.data)
    found = scaled.coefficients(Columns.of((1,), bm.Numbers(1), tasks.schema))
    assert found is not None
    assert found.draws is not None
    # Student's t of weights: its mean is that of the Gaussian, and the draws are fixed
    assert torch.allclose(found.mean, scaled.mean["weight"][..., 0].detach(), atol=0.03)
    again = scaled.coefficients(Columns.of((1,), bm.Numbers(1), tasks.schema))
    assert again is not None
    assert torch.equal(found.draws, again.draws)
    mixture = bm.MixtureALPaCA(bm.Identity(1), num_components=2).double().adapt(tasks.data).summary(tasks)
    assert mixture.coefficients.loc["bob"].index.tolist() == ["intercept", "day"]
    network = bm.MAML(bm.MLP(1, [8])).adapt(tasks.data).summary(tasks)
    assert len(network.coefficients) == 0
    assert "mean nothing one by one" in str(network)


def test_several_outcomes_have_rows_of_their_own() -> None:
    data = bm.Data.from_arrays([0.0, 1.0, 2.0], [[0.0, 0.5], [1.0, -1.0], [2.0, -2.5]])
    table = bm.ALPaCA(bm.Identity(1), num_outputs=2).double().adapt(data).summary().coefficients
    assert table.index.names == ["task", "outcome", "term"]
    assert table.loc[(0, "y1", "x"), "mean"] < 0.0 < table.loc[(0, "y0", "x"), "mean"]
