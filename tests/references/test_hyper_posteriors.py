"""Full Bayes over theta against published posteriors: eight schools (Gelman et al. 2013, section 5.5), sleepstudy.

The exact posterior of eight schools under flat p(mu, tau) is by numerical integration; the standard errors of
sleepstudy's fixed effects are lme4's, of the maximum-likelihood fit.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

import bayesmeta as bm

UPPER = 200.0


class EightSchools(bm.Learner):
    """phi the effect of a school, N(mu, tau²); y its estimate, whose standard error is the input."""

    x_shape, outcomes = (1,), bm.Numbers(1)

    def __init__(self) -> None:
        super().__init__()
        self.mu = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.raw_tau = nn.Parameter(torch.tensor(math.log(10.0 / (UPPER - 10.0)), dtype=torch.float64))

    @property
    def tau(self) -> Tensor:
        return UPPER * self.raw_tau.sigmoid()

    def evidence(self, data: bm.Data) -> Tensor:
        spread = (self.tau.square() + data.x[..., 0].square()).sqrt()
        each = Normal(self.mu, spread, validate_args=False).log_prob(data.y[..., 0])
        return torch.where(data.mask, each, 0.0).sum(-1)  # one estimate a school

    def log_hyperprior(self) -> Tensor:
        """Flat over tau: the Jacobian of tau in what is stored."""
        return nn.functional.logsigmoid(self.raw_tau) + nn.functional.logsigmoid(-self.raw_tau)

    def condition(self, support: bm.Data) -> "SchoolPosterior":
        tau2, real = self.tau.square(), support.mask.double()
        weight = real / support.x[..., 0].square().clamp(min=1e-9)
        variance = 1.0 / (1.0 / tau2 + weight.sum(-1))
        mean = variance * (self.mu / tau2 + (weight * support.y[..., 0]).sum(-1))
        return SchoolPosterior(spec=support.spec, mean=mean, variance=variance, again=self, support=support)


@dataclass(frozen=True, eq=False, kw_only=True)
class SchoolPosterior(bm.TaskPosterior):
    mean: Tensor
    variance: Tensor
    again: EightSchools
    support: bm.Data

    def at(self, x: Tensor) -> bm.predictives.IndependentPredictive:
        scale = (self.variance[:, None, None] + x.square()).sqrt()
        return bm.predictives.IndependentPredictive(
            Independent(Normal(self.mean[:, None, None].expand_as(scale), scale), 1)
        )

    def extended(self, data: bm.Data) -> "SchoolPosterior":
        return self.again.condition(self.support.append(data))


@pytest.mark.data
def test_eight_schools(real_data: Path) -> None:
    """Within 4 Monte Carlo errors of as many independent draws as there are members."""
    frame = pd.read_csv(real_data / "eight_schools" / "eight_schools.csv")
    reference = json.loads((real_data / "reference_fits" / "eight_schools_exact.json").read_text())
    tasks = bm.TaskDataset.from_frame(frame, task="task", x=["se"], y=["effect"])
    found = bm.training.nuts_hyper_posterior(
        EightSchools(), tasks, sampler=bm.inference.NUTS(32, 100, 100), num_members=1_600, spread=1.0, seed=0
    )
    members = [m for m in found.learners if isinstance(m, EightSchools)]
    mu, tau = (torch.stack(values).detach() for values in ([m.mu for m in members], [m.tau for m in members]))
    count = len(members)
    assert abs(mu.mean() - reference["mu_mean"]) < 4.0 * reference["mu_sd"] / math.sqrt(count)
    assert abs(mu.std() / reference["mu_sd"] - 1.0) < 0.1
    assert abs(tau.mean() - reference["tau_mean"]) < 4.0 * tau.std() / math.sqrt(count)
    expected = reference["tau_quantiles_2_5_25_50_75_97_5"]
    for q, value in zip((0.025, 0.25, 0.5, 0.75, 0.975), expected, strict=True):
        share = (tau < value).double().mean()
        assert abs(share - q) < 4.0 * math.sqrt(q * (1.0 - q) / count)
    # theta has seen these schools: their effects are averaged over it with equal weights
    posteriors = [m.condition(m.conform(tasks.data)) for m in members]
    means = torch.stack([p.mean for p in posteriors]).detach()
    variances = torch.stack([p.variance for p in posteriors]).detach()
    deviation = (variances.mean(0) + means.var(0)).sqrt()
    np.testing.assert_allclose(deviation, reference["theta_sd"], rtol=0.06)
    error = means.std(0) / math.sqrt(count)
    assert ((means.mean(0) - torch.tensor(reference["theta_mean"])).abs() < 4.0 * error).all()


@pytest.mark.slow
@pytest.mark.data
def test_sleepstudy_agrees_with_its_standard_errors(real_data: Path) -> None:
    frame = pd.read_csv(real_data / "sleepstudy" / "sleepstudy.csv")
    tasks = bm.TaskDataset.from_frame(frame, task="task", x=["Days"], y=["Reaction"])
    learner = bm.ALPaCA(bm.Identity(1)).double()
    bm.fit_evidence(learner, tasks)
    found = bm.training.nuts_hyper_posterior(
        bm.wrappers.WithHyperprior(learner, bm.hyperpriors.DeviationHyperprior(scale=50.0)),
        tasks,
        sampler=bm.inference.NUTS(16, 60, 120, metric=bm.inference.DenseMetric()),
        num_members=480,
    )
    inside = [m.learner for m in found.learners if isinstance(m, bm.wrappers.WithHyperprior)]
    members = [m for m in inside if isinstance(m, bm.ALPaCA)]
    beta = torch.stack([m.prior.location[:, 0] for m in members])
    ml, error = torch.tensor([251.4051, 10.46729]), torch.tensor([6.6323, 1.5022])
    assert ((beta.mean(0) - ml).abs() < 0.25 * error).all()  # 4 Monte Carlo errors of 256 independent draws
    # theta's other parts are uncertain too, so that these are somewhat wider than the plug-in standard errors
    ratio = beta.std(0) / error
    assert (ratio > 0.9).all()
    assert (ratio < 1.35).all()
    noise = torch.stack([m.prior.noise.variance()[0] for m in members])
    assert abs(noise.mean() / 654.94 - 1.0) < 0.1
