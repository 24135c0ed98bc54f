"""Deep kernel classification: its scores are regressions by deep kernel transfer; training, storage."""

import torch
from torch import Tensor

import bayesmeta as bm
from bayesmeta.heads import GaussianProcessHead
from bayesmeta.hyperpriors import GaussianHyperprior
from bayesmeta.kernels import RBFKernel
from bayesmeta.learners.closed_form.deep_kernel import DeepKernelTransfer
from bayesmeta.learners.closed_form.deep_kernel_classifier import DeepKernelClassifier

D = torch.float64
CLOSE = {"rtol": 1e-8, "atol": 1e-8}  # both sides take the same float64 kernel matrices


def _labelled(seed: int = 0) -> tuple[bm.Data, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(6).expand(2, -1) % 3  # as many of each class in the first task
    centers = 2.0 * torch.randn(2, 3, 2, generator=generator, dtype=D)
    at = lambda y: centers[torch.arange(2)[:, None], y] + 0.3 * torch.randn(*y.shape, 2, generator=generator, dtype=D)
    return bm.Data(at(labels), labels, torch.tensor([[True] * 6, [True] * 4 + [False] * 2])), at(labels)


def test_scores_are_regressions_of_one_class_against_the_rest() -> None:
    torch.manual_seed(0)
    learner = DeepKernelClassifier(
        bm.MLP(2, [8, 3]), head=GaussianProcessHead(3, kernel=RBFKernel(), noise=0.2)
    ).double()
    support, query = _labelled()
    posterior = learner.adapt(support)
    mean, variance = posterior.scores.at(posterior.learner.rows(query))
    regression = DeepKernelTransfer(learner.features, kernel=RBFKernel(), noise=bm.noise.DiagonalNoise(1, 0.2)).double()
    regression.kernel.load_state_dict(learner.head.kernel.state_dict())
    for c in range(3):
        support, query, mean, variance = support.select([0]), query[:1], mean[:1], variance[:1]
        y = torch.where(support.y == c, 1.0, -1.0).double()[..., None]
        expected = regression.adapt(bm.Data(support.x, y, support.mask)).predict(query)
        # the two noise variances have different bounds: 1e-6 of .2
        torch.testing.assert_close(mean[..., c : c + 1], expected.mean, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(variance, expected.noiseless.variance, rtol=1e-5, atol=1e-5)


def test_a_constant_mean_would_change_no_probability() -> None:
    torch.manual_seed(0)
    learner = DeepKernelClassifier(bm.MLP(2, [8, 3])).double()
    support, query = _labelled()
    posterior = learner.adapt(support)
    rows = posterior.learner.rows(query)
    mean, variance = posterior.scores.at(rows)
    scores = posterior.scores
    white = torch.linalg.solve_triangular(scores.belief.factor, scores.root, upper=False)
    constant, _ = type(scores.belief)(scores.belief.factor, white, support.mask).predict(
        scores.root * scores.kernel(posterior.examples.rows, rows) / scores.noise, variance[..., 0]
    )
    width = (1.0 + variance).sqrt()  # of every class
    shifted = ((mean + 0.4 * (1.0 - constant)) / width).softmax(-1)  # f = m + k S⁻¹ (y - m)
    torch.testing.assert_close(shifted, (mean / width).softmax(-1), **CLOSE)


def test_it_learns_to_classify_and_is_stored(tmp_path: object) -> None:
    torch.manual_seed(0)
    learner = bm.wrappers.WithHyperprior(
        DeepKernelClassifier(bm.MLP(2, [16, 16]), scale=0.5), GaussianHyperprior(10.0)
    ).double()
    support, query = _labelled()
    before = learner.meta_loss(bm.TaskBatch(support, bm.Data.full(query, support.y)))
    optimizer = learner.configure_optimizer(1e-2)
    for step in range(60):
        batch_support, batch_query = _labelled(step + 1)
        tasks = bm.TaskBatch(batch_support, bm.Data.full(batch_query, batch_support.y))
        optimizer.zero_grad()
        (learner.meta_loss(tasks).mean() - 1e-3 * learner.log_hyperprior()).backward()
        optimizer.step()
    after = learner.meta_loss(bm.TaskBatch(support, bm.Data.full(query, support.y)))
    assert after.mean() < before.mean() - 0.05
    bm.save(learner, f"{tmp_path}/model")
    loaded = bm.load(f"{tmp_path}/model")
    assert torch.equal(loaded.adapt(support).predict(query).probs, learner.adapt(support).predict(query).probs)
