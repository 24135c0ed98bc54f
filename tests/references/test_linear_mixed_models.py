"""ALPaCA with identity features and the evidence is a linear mixed model: published fits, digit by digit.

Anchors: lme4's documentation (sleepstudy, Dyestuff), MixedModels.jl's output (sleepstudy ML), nlme's recorded test
output (Rail, Orthodont); ML values with all digits from an exact profiled likelihood cross-checked with statsmodels.
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import bayesmeta as bm


@dataclass(frozen=True)
class Fit:
    table: str
    x: tuple[str, ...]
    y: str
    log_likelihood: float
    beta: tuple[float, ...]
    sigma_b: tuple[float, ...]  # variances, then the covariance where it is not fixed at zero
    noise: float
    rows: str = "full"
    restricted: bool = False


FITS = [
    Fit("sleepstudy", ("Days",), "Reaction", -875.969672, (251.4051, 10.46729), (565.5153, 32.6822, 11.0554), 654.9410),
    Fit("sleepstudy", ("Days",), "Reaction", -897.039322, (251.4051, 10.46729), (1296.8699,), 954.5278, "intercept"),
    Fit("sleepstudy", ("Days",), "Reaction", -876.001628, (251.4051, 10.46729), (584.2501, 33.6331), 653.1160, "diag"),
    Fit("dyestuff", (), "Yield", -163.663530, (1527.5,), (1388.3334,), 2451.2500),
    Fit("rail", (), "travel", -64.280018, (66.5,), (511.8612,), 16.166666),
    Fit("orthodont", ("age",), "distance", -219.605801, (16.7611, 0.6601852), (4.81409, 0.0461926, -0.27421), 1.7162),
    Fit("chickweight", ("Time",), "weight", -2414.922715, (29.1766, 8.45354), (136.7358, 13.85127, -41.4716), 163.5023),
    Fit("radon_mn", ("floor",), "log_radon", -1081.825287, (1.461158, -0.692637), (0.1052769,), 0.5702661, "intercept"),
    Fit(
        "radon_mn",
        ("floor",),
        "log_radon",
        -1080.554395,
        (1.46244, -0.682458),
        (0.118519, 0.107765, -0.0383654),
        0.55702,
    ),
    Fit(
        "sleepstudy",
        ("Days",),
        "Reaction",
        -871.814136,
        (251.40510, 10.46729),
        (612.10, 35.07, 9.604),
        654.94,
        restricted=True,
    ),
    Fit("rail", (), "travel", -61.088500, (66.5,), (615.31,), 16.1667, restricted=True),
    Fit(
        "orthodont",
        ("age",),
        "distance",
        -221.318343,
        (16.76111, 0.660185),
        (5.41509, 0.0512696, -0.321061),
        1.7162,
        restricted=True,
    ),
    Fit("dyestuff", (), "Yield", -159.827138, (1527.5,), (1764.0492,), 2451.2502, restricted=True),
]


def _learner(expected: Fit) -> bm.ALPaCA:
    features = bm.Identity(len(expected.x))
    size = features.num_outputs
    rows = {
        "full": bm.priors.FullCovariance(size),
        "diag": bm.priors.DiagonalCovariance(size),
        "intercept": bm.priors.FullCovariance(size, varying=[0]),
    }
    return bm.ALPaCA(features, covariance=rows[expected.rows]).double()


def _tasks(expected: Fit, real_data: Path) -> bm.TaskDataset:
    import pandas as pd

    frame = pd.read_csv(real_data / expected.table / f"{expected.table}.csv")
    return bm.TaskDataset.from_frame(frame, task="task", x=expected.x, y=[expected.y])


@pytest.mark.data
@pytest.mark.parametrize("expected", FITS, ids=lambda f: f"{f.table}-{f.rows}-{'REML' if f.restricted else 'ML'}")
def test_published_fit(expected: Fit, real_data: Path) -> None:
    learner, tasks = _learner(expected), _tasks(expected, real_data)
    problem = bm.training.RestrictedMaximumLikelihood() if expected.restricted else bm.training.MaximumLikelihood()
    start = time.perf_counter()
    result = bm.fit_evidence(learner, tasks, problem)
    assert time.perf_counter() - start < 5.0
    assert result.stopped_early  # converged
    data = learner.conform(tasks.data)
    value = learner.restricted_log_evidence(data) if expected.restricted else learner.log_evidence(data).sum()
    assert abs(value.item() - expected.log_likelihood) < 1e-5
    noise = learner.prior.noise.variance()
    sigma_b = learner.prior.covariance.matrix() * noise
    found = [sigma_b[i, i].item() for i in range(len(sigma_b)) if sigma_b[i, i] > 0]
    found += [sigma_b[0, 1].item()] if len(expected.sigma_b) == 3 else []
    # four significant digits: the likelihood is flat at its top, so that lme4 and MixedModels.jl differ in the fifth
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected.sigma_b), rtol=1e-4, atol=0.0)
    beta = learner.prior.location.flatten().float()
    torch.testing.assert_close(beta, torch.tensor(expected.beta), rtol=1e-5, atol=0.0)
    torch.testing.assert_close(noise.float(), torch.tensor([expected.noise]), rtol=1e-4, atol=0.0)


ORIGINS = {"pascal": (1e5, 10.0), "years": (2000.0, 1.0), "mol/l": (0.0, 1e-6), "kelvin": (273.15, 1.0)}


@pytest.mark.data
@pytest.mark.parametrize("unit", ORIGINS)
@pytest.mark.parametrize("table", ["sleepstudy", "orthodont", "chickweight"])
def test_published_fits_in_other_units(table: str, unit: str, real_data: Path) -> None:
    """x' = a + b x changes no likelihood, and theta as it must: b V' bᵀ and the like are the published numbers."""
    shift, scale = ORIGINS[unit]
    for expected in (each for each in FITS if each.table == table and each.rows == "full"):
        learner, tasks = _learner(expected), _tasks(expected, real_data)
        data = tasks.data
        tasks = bm.TaskDataset(
            bm.Data(torch.where(data.mask[..., None], shift + scale * data.x, 0.0), data.y, data.mask)
        )
        problem = bm.training.RestrictedMaximumLikelihood() if expected.restricted else bm.training.MaximumLikelihood()
        result = bm.fit_evidence(learner, tasks, problem)
        assert result.stopped_early
        assert len(result.losses) < 150
        value = learner.log_evidence(tasks.data).sum()
        if expected.restricted:  # the prior mean is flat in x', too
            value = learner.restricted_log_evidence(tasks.data) + math.log(scale)
        assert abs(value.item() - expected.log_likelihood) < 1e-5
        back = torch.tensor([[1.0, shift], [0.0, scale]], dtype=torch.float64)
        sigma_b = back @ learner.prior.covariance.matrix() @ back.mT * learner.prior.noise.variance()
        found = torch.stack([sigma_b[0, 0], sigma_b[1, 1], sigma_b[0, 1]]).float()
        torch.testing.assert_close(found, torch.tensor(expected.sigma_b), rtol=1e-4, atol=0.0)
        beta = (back @ learner.prior.location).flatten().float()
        torch.testing.assert_close(beta, torch.tensor(expected.beta), rtol=1e-5, atol=0.0)
        torch.testing.assert_close(
            learner.prior.noise.variance().float(), torch.tensor([expected.noise]), rtol=1e-4, atol=0.0
        )


# conditional modes (intercept, slope) of the sleepstudy ML fit, subjects in the table's order
SLEEPSTUDY_BLUPS = {
    308: (2.8157, 9.0755), 309: (-40.0485, -8.6441), 310: (-38.4332, -5.5134), 330: (22.8323, -4.6588),
    331: (21.5500, -2.9445), 332: (8.8156, -0.2352), 333: (16.4420, -0.1588), 334: (-6.9967, 1.0327),
    335: (-1.0374, -10.5994), 337: (34.6663, 8.6324), 349: (-24.5582, 1.0644), 350: (-12.3346, 6.4717),
    351: (4.2741, -2.9553), 352: (20.6222, 3.5617), 369: (3.2585, 0.8717), 370: (-24.7103, 4.6597),
    371: (0.7233, -0.9711), 372: (12.1189, 1.3107),
}  # fmt: skip


@pytest.mark.data
def test_sleepstudy_task_posteriors_are_the_blups(real_data: Path) -> None:
    learner, tasks = _learner(FITS[0]), _tasks(FITS[0], real_data)
    bm.fit_evidence(learner, tasks)
    posterior = learner.adapt(tasks.data)
    effects = posterior.mean["weight"][..., 0] - learner.prior.location[:, 0]
    expected = torch.tensor([SLEEPSTUDY_BLUPS[name] for name in tasks.names], dtype=torch.float64)
    # three decimals, and half a unit of the fourth that the published ones are rounded to
    torch.testing.assert_close(effects.detach(), expected, rtol=0.0, atol=5.5e-4)
    covariance = posterior.feature_covariance[0] * learner.prior.noise.variance()
    published = torch.tensor([[140.96703, -20.60445], [-20.60445, 5.15778]], dtype=torch.float64)
    torch.testing.assert_close(covariance.detach(), published, rtol=1e-4, atol=0.0)


def test_statsmodels_agrees_on_simulated_data() -> None:
    """The same comparison without any data files, and with more features than the classics have."""
    import numpy as np
    import pandas as pd
    import statsmodels.api as sm

    generator = np.random.default_rng(0)
    group = np.repeat(np.arange(40), generator.integers(2, 9, 40))
    x = np.stack([generator.normal(3, 2, len(group)), generator.normal(0, 0.1, len(group))], 1)
    effects = generator.normal(size=(40, 3)) * [2.0, 0.5, 8.0]
    design = np.column_stack([np.ones(len(group)), x])
    y = (design * (effects[group] + [10.0, -1.0, 4.0])).sum(1) + generator.normal(0, 0.7, len(group))
    frame = pd.DataFrame({"g": group, "a": x[:, 0], "b": x[:, 1], "y": y})
    tasks = bm.TaskDataset.from_frame(frame, task="g", x=["a", "b"], y=["y"])
    for restricted in (False, True):
        learner = bm.ALPaCA(bm.Identity(2)).double()
        problem = bm.training.RestrictedMaximumLikelihood() if restricted else bm.training.MaximumLikelihood()
        bm.fit_evidence(learner, tasks, problem)
        model = sm.MixedLM(y, design, groups=group, exog_re=design)
        reference = model.fit(reml=restricted)
        data = learner.conform(tasks.data)
        ours = learner.restricted_log_evidence(data) if restricted else learner.log_evidence(data).sum()
        assert ours.item() > reference.llf - 1e-5  # neither optimiser may stop below the other by more than this
        assert abs(ours.item() - reference.llf) < 1e-3
        np.testing.assert_allclose(learner.prior.location.detach()[:, 0], reference.fe_params, rtol=1e-3)
