"""Class means against Monte Carlo, ranks, samplers, programs, and Snell's softmax; and Gaussian classes exactly."""

import math

import pytest
import torch
from pyro import poutine
from torch import Tensor

import bayesmeta as bm
from bayesmeta.interop.pyro import program

D = torch.float64
TAU2, NOISE, SIZE = 2.0, 0.5, 3


class Plain(bm.Network):
    """h(x) = x, without the constant of `Identity`."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.x_shape, self.num_outputs = (size,), size

    def forward(self, x: Tensor) -> Tensor:
        return x


def learner(num_classes: int | None = None, location: float = 0.3, size: int = SIZE) -> bm.Prototypical:
    """On the inputs themselves, with a prior that is centred elsewhere."""
    head = bm.heads.NearestMeanHead(num_features=size)
    made = bm.Prototypical(Plain(size), num_classes=num_classes, head=head).double()
    with torch.no_grad():
        head.prior_variance.set(TAU2)
        head.noise.set(NOISE)
        assert head.location is not None
        head.location.fill_(location)
    return made


def support(*counts: int, size: int = SIZE) -> bm.Data:
    """So many examples of each class."""
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    centers = torch.randn(len(counts), size, dtype=D)
    return bm.Data.from_labels(centers[labels] + torch.randn(len(labels), size, dtype=D), labels)


def test_densities_and_their_ratio_are_those_of_draws() -> None:
    """p(x | c, D) and that of a class that nobody showed, over draws of the mean: a class of 3, of 1, and of none."""
    made, data, x = learner(3), support(3, 1, 0), torch.randn(1, 6, SIZE, dtype=D)
    posterior, draws = made.adapt(data), 100_000
    prediction = posterior.predict(x)
    assert isinstance(prediction, bm.predictives.OpenSetPredictive)
    means = posterior.sample(draws)["mean"][:, 0]  # S C F
    new = 0.3 + TAU2**0.5 * torch.randn(draws, 1, SIZE, dtype=D)
    square = (x[0][None, :, None] - torch.cat([means, new], 1)[:, None]).square().sum(-1)  # S M C+1
    density = (-0.5 * square / NOISE).exp() * (2.0 * math.pi * NOISE) ** (-SIZE / 2)
    mean, error = density.mean(0), density.std(0) / draws**0.5
    counts = torch.tensor([3.0, 1.0, 0.0], dtype=D)
    shares = (counts + 100.0) / (counts.sum() + 300.0)  # κ is 100 at the start
    joint = shares * mean[:, :3]
    # a ratio of means errs by the sum of their relative errors: five of these
    slack = 5.0 * (error / mean).amax()
    torch.testing.assert_close(prediction.probs[0], joint / joint.sum(-1, keepdim=True), rtol=slack.item(), atol=1e-4)
    ratio = (joint.sum(-1) / mean[:, 3]).log()
    torch.testing.assert_close(prediction.log_ratio[0], ratio, rtol=0.0, atol=2.0 * slack.item())


def test_ranks_of_class_means_are_uniform() -> None:
    """Simulation-based calibration: classes, labels and inputs are drawn from the model, unequal numbers of each."""
    made, simulations, draws = learner(3), 1000, 99
    truth = bm.learners.GaussianClasses(made).prior.sample(simulations)["mean"]
    labels = torch.randint(3, (simulations, 5))
    x = truth.gather(1, labels[..., None].expand(-1, -1, SIZE)) + NOISE**0.5 * torch.randn(
        simulations, 5, SIZE, dtype=D
    )
    found = made.adapt(bm.Data.full(x, labels)).sample(draws)["mean"]
    ranks = (found < truth).sum(0)  # uniform on 0..99
    counts = torch.stack(
        [torch.histc(ranks[:, c, f].double(), 20, 0, draws + 1) for c in range(3) for f in range(SIZE)]
    )
    statistic = ((counts - simulations / 20) ** 2 / (simulations / 20)).sum(-1)
    assert statistic.max() < 52.0  # chi-square of 19 degrees of freedom: 1e-4 of nine such
    narrow = (truth + 0.7 * (found - found.mean(0)) < truth).sum(0)  # the test can fail
    wrong = torch.histc(narrow[:, 0, 0].double(), 20, 0, draws + 1)
    assert ((wrong - simulations / 20) ** 2 / (simulations / 20)).sum() > 0.0


@pytest.mark.parametrize("shots", [1, 4])
def test_wide_priors_and_equal_shots_give_the_softmax_of_snell(shots: int) -> None:
    made, data, x = learner(None, location=0.0), support(shots, shots, shots, shots), torch.randn(1, 7, SIZE, dtype=D)
    with torch.no_grad():
        made.head.prior_variance.set(9e5)
        made.head.noise.set(0.5 / (1.0 + 1.0 / shots))  # σ² + v = 1/2
    means = torch.stack([data.x[0, data.y[0] == c].mean(0) for c in range(4)])
    expected = (-torch.cdist(x[0], means).square()).softmax(-1)
    # the prior moves means by σ² / (n τ²) = 5e-7
    torch.testing.assert_close(made.adapt(data).predict(x).probs[0], expected, rtol=1e-4, atol=1e-6)


def test_it_is_the_bayes_classifier_of_gaussian_blobs() -> None:
    """Also of a class without an example, whatever the numbers of the others."""
    blobs = bm.tasks.GaussianBlobs(ways=4, dimension=SIZE, spread=TAU2**0.5, noise=NOISE**0.5)
    made, data, x = learner(4, location=0.0), support(1, 10, 3, 0), torch.randn(1, 9, SIZE, dtype=D)
    with torch.no_grad():
        made.class_prior.concentration.set(9e5)  # classes are equally frequent, whatever the support
    expected = blobs.oracle.adapt(data).predict(x).probs
    torch.testing.assert_close(made.adapt(data).predict(x).probs, expected, rtol=1e-4, atol=1e-6)


def test_head_and_learner_are_one_implementation() -> None:
    """`MetaOptNet` with class means has the same posterior; its softmax has two numbers more."""
    head = bm.heads.NearestMeanHead(TAU2, NOISE)
    other = bm.MetaOptNet(Plain(SIZE), num_classes=3, head=head, scale=float(SIZE)).double()
    made, data, x = learner(3, location=0.0), support(3, 1, 0), torch.randn(1, 6, SIZE, dtype=D)
    # single precision rounds τ² and σ² of the one, and not of the other
    torch.testing.assert_close(
        made.adapt(data).predict(x).probs, other.adapt(data).predict(x).probs, rtol=1e-5, atol=1e-7
    )


def test_a_point_far_from_all_classes_is_none_of_them() -> None:
    """And with Bayes' theorem: equal densities leave the prior as it was."""
    data = support(5, 5, 5)
    posterior, far = learner(None).adapt(data), torch.full((1, 1, SIZE), 30.0, dtype=D)
    near = data.x[:, :1]
    odd, usual = (posterior.predict(x).none_of_these(0.05).item() for x in (far, near))
    assert odd > 0.99
    assert usual < 0.05
    empty = learner(3).adapt(bm.Data.empty(data)).predict(near)  # every class is one that nobody showed
    torch.testing.assert_close(empty.none_of_these(0.3), torch.full((1, 1), 0.3, dtype=D))
    torch.testing.assert_close(empty.probs, torch.full((1, 1, 3), 1.0 / 3.0, dtype=D))


def test_the_power_tempers_both_and_a_density_learner_alone() -> None:
    made, data, x = learner(None), support(2, 2), torch.randn(1, 4, SIZE, dtype=D)
    whole = made.adapt(data).predict(x)
    made.power.set(0.25)
    tempered = made.adapt(data).predict(x)
    expected = 0.25 * whole.probs.log()
    torch.testing.assert_close(tempered.probs, expected.softmax(-1), rtol=1e-6, atol=0.0)
    assert tempered.log_ratio.abs().max() < whole.log_ratio.abs().max()


def _explicit() -> tuple[bm.learners.GaussianClasses, bm.Data]:
    return bm.learners.GaussianClasses(learner(2, size=2)), support(3, 1, size=2)


def test_the_log_joint_is_that_of_the_model() -> None:
    """Against sums over points and classes; and the closed-form posterior is its normalised shape."""
    model, data = _explicit()
    log_joint, posterior = model.log_joint(data), model.adapt(data)
    phi = posterior.sample(4)
    normal = torch.distributions.Normal
    expected = normal(0.3, TAU2**0.5).log_prob(phi["mean"]).sum((-1, -2))
    for n in range(4):
        point = normal(phi["mean"][:, :, int(data.y[0, n])], NOISE**0.5).log_prob(data.x[:, n]).sum(-1)
        expected = expected + point - math.log(2.0)
    torch.testing.assert_close(log_joint(phi), expected, rtol=1e-6, atol=1e-6)  # τ², σ² are rounded to single precision
    scores = posterior.scores
    exact = normal(scores.mean, scores.variance.sqrt()[..., None]).log_prob(phi["mean"]).sum((-1, -2))
    constant = log_joint(phi) - exact
    torch.testing.assert_close(constant, constant[:1].expand_as(constant))


def test_programs_have_its_density() -> None:
    model, data = _explicit()
    phi = model.adapt(data).sample(1)
    values = {"mean": phi["mean"][0].unsqueeze(1)}
    trace = poutine.trace(poutine.condition(program(model), values)).get_trace(data)
    torch.testing.assert_close(trace.log_prob_sum(), model.log_joint(data)(phi).sum())


def test_the_sampler_finds_the_closed_form() -> None:
    """Moments of the means; and the density of a query over draws, renormalised, is the classifier's prediction."""
    model, data = _explicit()
    sampler = bm.inference.NUTS(num_chains=16, num_draws=60, num_warmup=60)
    drawn, exact = bm.Sampled(model, sampler).adapt(data), model.adapt(data)
    draws, scores = drawn.sample(960)["mean"], exact.scores
    deviation = scores.variance.sqrt()[..., None].expand_as(scores.mean)
    error = 5.0 * deviation / 300**0.5  # 960 dependent draws are worth 300 and more
    assert ((draws.mean(0) - scores.mean).abs() < error).all()
    torch.testing.assert_close(draws.std(0), deviation, rtol=5.0 / 600**0.5, atol=0.0)
    x = torch.randn(1, 5, 2, dtype=D)
    density = model.forward({"mean": draws}, x).exp()  # of x and of c, 1/2 of the density given c
    joint = scores.log_scores(model.classifier.rows(x)) - math.log(2.0)  # the closed form, means integrated out
    error = 5.0 * density.std(0) / 300**0.5
    assert ((density.mean(0) - joint.exp()).abs() < error).all()
    counts = torch.tensor([3.0, 1.0], dtype=D)
    shares = ((counts + 100.0) / (counts.sum() + 200.0)).log() - math.log(0.5)  # the support tells of them, too
    torch.testing.assert_close((joint + shares).softmax(-1), exact.predict(x).probs)


def test_what_has_no_fixed_classes_is_no_explicit_model() -> None:
    with pytest.raises(bm.UnsupportedError, match="num_classes"):
        bm.learners.GaussianClasses(learner(None))
    with pytest.raises(bm.UnsupportedError, match="location"):
        bm.learners.GaussianClasses(bm.Prototypical(Plain(2), num_classes=2, head=bm.heads.NearestMeanHead()))


def _regret(made: bm.Learner, blobs: bm.tasks.GaussianBlobs, split: bm.tasks.ClassSplit) -> float:
    batch = blobs.draw(500, split, torch.Generator().manual_seed(5))
    batch = bm.TaskBatch(batch.support.to(D), batch.query.to(D))

    def nll(probs: Tensor) -> float:
        return -probs.gather(-1, batch.query.y[..., None]).log().mean().item()

    oracle = blobs.oracle
    assert oracle is not None
    return nll(made.adapt(batch.support).predict(batch.query.x).probs) - nll(
        oracle.adapt(batch.support).predict(batch.query.x).probs
    )


def test_it_learns_the_variances_of_gaussian_blobs() -> None:
    """Regret of at most .02 nats at 1, 5 and unequal shots, from starting values that are far off."""
    blobs = bm.tasks.GaussianBlobs(ways=5, dimension=4, spread=1.5, noise=0.7)
    made = bm.Prototypical(Plain(4), num_classes=5, power=0.3)
    split = bm.tasks.ClassSplit((1, 5), 5, unequal=0.5)
    bm.fit(made, blobs, 400, batch_size=16, lr=0.01, split=split, seed=0, progress=False)
    for test in (
        bm.tasks.ClassSplit((1, 1), 10),
        bm.tasks.ClassSplit((5, 5), 10),
        bm.tasks.ClassSplit((1, 10), 10, 1.0),
    ):
        assert _regret(made.double(), blobs, test) < 0.02
