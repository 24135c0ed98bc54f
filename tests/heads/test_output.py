"""What the last numbers of a network mean."""

import pytest
import torch
from torch.distributions import MultivariateNormal

import bayesmeta as bm
from bayesmeta.predictives import LowRankGaussianPredictive


def _raw(head: bm.heads.OutputHead, tasks: int = 2, points: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(tasks, points, head.size, generator=generator, dtype=torch.float64)


def _support(outputs: int) -> bm.Data:
    return bm.Data.full(torch.zeros(2, 1, 1), torch.zeros(2, 1, outputs))


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("head", [bm.heads.GaussianHead, bm.heads.MixtureHead, bm.heads.LowRankGaussianHead])
def test_zeros_are_a_reasonable_start(head: type[bm.heads.OutputHead], outputs: int) -> None:
    """A network that gives 0 predicts outcomes of mean 0 and a deviation of about 1."""
    made = head(num_outputs=outputs)
    prediction = made.predictive(torch.zeros(2, 5, made.size), made.shown(_support(outputs)))
    torch.testing.assert_close(prediction.mean, torch.zeros(2, 5, outputs), rtol=0.0, atol=1e-6)
    assert ((prediction.stddev > 0.9) & (prediction.stddev < 1.4)).all()


@pytest.mark.parametrize("outputs", [1, 2])
def test_low_rank_is_the_dense_gaussian(outputs: int) -> None:
    """Joint density with and without padding, variances and covariance: as the whole matrix has them."""
    head = bm.heads.LowRankGaussianHead(3, outputs)
    prediction = head.predictive(_raw(head), head.shown(_support(outputs)))
    factor = prediction.factor.flatten(1, 2)
    covariance = factor @ factor.mT + torch.diag_embed(prediction.variances.flatten(1))
    y = torch.randn(2, 5, outputs, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    dense = MultivariateNormal(prediction.location.flatten(1), covariance)
    torch.testing.assert_close(prediction.log_prob(y), dense.log_prob(y.flatten(1)), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        prediction.variance.flatten(1), covariance.diagonal(dim1=-2, dim2=-1), rtol=1e-12, atol=1e-12
    )
    keep = torch.tensor([True, False, True, True, False])
    real = keep.repeat_interleave(outputs)
    part = MultivariateNormal(prediction.location.flatten(1)[:, real], covariance[:, real][:, :, real])
    masked = prediction.log_prob(torch.where(keep[:, None], y, 1e6), keep.expand(2, -1))
    torch.testing.assert_close(masked, part.log_prob(y.flatten(1)[:, real]), rtol=1e-10, atol=1e-10)
    one = prediction.log_prob(y, torch.tensor([True, False, False, False, False]).expand(2, -1))
    torch.testing.assert_close(one, prediction.marginal_log_prob(y)[:, 0], rtol=1e-10, atol=1e-10)


def test_draws_of_low_rank_have_its_covariance() -> None:
    """40,000 draws: a covariance is off by at most 5 / sqrt(40,000) of the product of deviations."""
    head = bm.heads.LowRankGaussianHead(2)
    prediction = head.predictive(_raw(head, 1, 3), head.shown(_support(1)))
    draws = prediction.sample((40_000,), torch.Generator().manual_seed(0))[:, 0, :, 0]
    factor = prediction.factor[0].flatten(0, 1)
    covariance = factor @ factor.mT + prediction.variances[0].flatten().diag()
    scale = covariance.diagonal().sqrt()
    assert ((draws.T.cov() - covariance).abs() / (scale[:, None] * scale) < 0.025).all()


def test_low_rank_of_no_points() -> None:
    """Nothing to predict has density 1."""
    empty = LowRankGaussianPredictive(torch.zeros(2, 0, 1), torch.zeros(2, 0, 1, 3), torch.ones(2, 0, 1))
    assert empty.log_prob(torch.zeros(2, 0, 1)).tolist() == [0.0, 0.0]
    assert empty.sample((4,)).shape == (4, 2, 0, 1)


def test_a_mixture_is_what_it_says() -> None:
    """Its density is the weighted sum of Gaussians over both outputs together."""
    head = bm.heads.MixtureHead(3, 2)
    raw = _raw(head)
    prediction = head.predictive(raw, head.shown(_support(2)))
    each = raw.unflatten(-1, (3, 5))
    weights = each[..., 0].softmax(-1)
    mean = each[..., 1:3] + head.start.double()[:, None]
    scale = 1e-3 + torch.nn.functional.softplus(each[..., 3:] + 0.541324854612918)
    y = torch.zeros(2, 5, 2, dtype=torch.float64)
    density = torch.distributions.Normal(mean, scale).log_prob(y[:, :, None]).sum(-1).exp()
    expected = (weights * density).sum(-1).log()
    torch.testing.assert_close(prediction.marginal_log_prob(y), expected, rtol=1e-6, atol=1e-6)  # START in float64
    low, high = prediction.interval(0.8)
    torch.testing.assert_close(
        prediction.cdf(high) - prediction.cdf(low), torch.full((2, 5, 2), 0.8).double(), rtol=0.0, atol=1e-6
    )


def test_labels_are_shown_class_by_class() -> None:
    """Each class of each task sees its own points as ones; padding is zero, and classes that a task lacks have none."""
    support = bm.Data.stack([bm.Data.from_labels([1.0, 2.0, 3.0], [0, 2, 1]), bm.Data.from_labels([4.0, 5.0], [1, 0])])
    shown = bm.heads.CategoricalHead().shown(support.to(torch.float64))
    assert shown.points.y[..., 0].tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0]]
    assert shown.points.x[3:, :2, 0].tolist() == [[4.0, 5.0]] * 3
    assert shown.counts is not None
    assert shown.counts.tolist() == [[1, 1, 1], [1, 1, 0]]


def test_labels_as_unit_vectors() -> None:
    """Padding is zero; of classes of their own, a task has those of its support, and no more than there are places."""
    support = bm.Data.stack([bm.Data.from_labels([1.0, 2.0, 3.0], [0, 2, 1]), bm.Data.from_labels([4.0, 5.0], [1, 0])])
    named, own = bm.heads.OneHotHead(4), bm.heads.ClassSlots(4)
    expected = [[[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0]], [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]]
    assert named.shown(support).points.y.tolist() == own.shown(support).points.y.tolist() == expected
    raw = _raw(named)
    torch.testing.assert_close(named.predictive(raw, named.shown(support)).probs, raw.softmax(-1))
    probs = own.predictive(raw, own.shown(support)).probs
    torch.testing.assert_close(probs[0], raw[0, :, :3].softmax(-1))
    torch.testing.assert_close(probs[1, :, :2], raw[1, :, :2].softmax(-1))
    assert (probs[1, :, 2] == 0.0).all()
    with pytest.raises(bm.DataError, match="at most 2 classes, got a task with 3"):
        bm.heads.ClassSlots(2).shown(support)
    with pytest.raises(bm.DataError, match="labels from 0 to 1"):
        bm.heads.OneHotHead(2).shown(support)


def test_frequencies_of_classes_with_names() -> None:
    """Without a point they are those of the training tasks; a network that says nothing leaves them."""
    learner = bm.ConvCNP(head=bm.heads.CategoricalHead(2), channels=4, layers=1)
    learner.prepare(bm.Data.from_labels([0.0] * 100, [0] * 90 + [1] * 10))
    probs = learner.adapt(bm.Data.from_labels([], [])).predict([0.0, 7.0]).probs
    torch.testing.assert_close(probs[0, :, 1], torch.full((2,), 10.5 / 101), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: bm.heads.GaussianHead(min_stddev=0.0), "least deviation"),
        (lambda: bm.heads.MixtureHead(0), "component"),
        (lambda: bm.heads.LowRankGaussianHead(0), "rank"),
        (lambda: bm.heads.GaussianHead(0), "outputs"),
        (lambda: bm.heads.CategoricalHead(1), "2 classes"),
        (lambda: bm.heads.OneHotHead(1), "2 classes"),
        (lambda: bm.heads.ClassSlots(None), "got None"),  # type: ignore[arg-type]
    ],
)
def test_heads_that_make_no_sense(make: object, error: str) -> None:
    """Each is refused in words."""
    with pytest.raises(bm.DataError, match=error):
        make()  # type: ignore[operator]
