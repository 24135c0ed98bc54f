"""What a learner predicts is one typed attribute, and labels and numbers confused give one clear error everywhere."""

import pytest
import torch

import bayesmeta as bm
from bayesmeta.outcomes import require_kind


def test_shapes() -> None:
    assert bm.Numbers(3).y_shape == (3,)
    assert bm.Labels(3).y_shape == bm.Labels().y_shape == ()
    assert bm.Data.from_arrays([0.0], [[1.0, 2.0]]).outcomes == bm.Numbers(2)
    assert bm.Data.from_labels([0.0], [1]).outcomes == bm.Labels()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("count", [0, -1, True, 2.0, "two"])
def test_counts_that_are_none(count: object) -> None:
    for kind in (bm.Numbers, bm.Labels):
        with pytest.raises(bm.DataError, match=r"expected (a whole number of outputs|at least 2 classes)"):
            kind(count)
    with pytest.raises(bm.DataError, match="at least 2 classes, got 1"):
        bm.Labels(1)


def test_one_error_wherever_they_are_confused() -> None:
    numbers, labels = bm.Data.from_arrays([0.0, 1.0], [1.0, 2.0]), bm.Data.from_labels([0.0, 1.0], [0, 1])
    regression, classifier = bm.ALPaCA(bm.MLP(1, [4])), bm.R2D2(bm.MLP(1, [4]), num_classes=2)
    for learner, right, wrong in ((regression, numbers, labels), (classifier, labels, numbers)):
        posterior = learner.adapt(right)
        kinds = r"expected (numbers|labels) for .*, got (labels|numbers): take a (classifier|learner)"
        for question in (learner.adapt, learner.log_evidence, learner.surprise, posterior.update, right.append):
            with pytest.raises(bm.DataError, match=kinds):
                question(wrong)
        with pytest.raises(bm.DataError, match=kinds):
            learner.meta_loss(bm.TaskBatch(right, wrong))
    require_kind((2,), (1,))  # how many is a matter of shape, not of kind


def test_standardized_takes_every_classifier() -> None:
    """The docs promise it; classes may be fixed or those of each task's support."""
    torch.manual_seed(0)
    x, labels = 1e3 + torch.randn(12, 2), torch.arange(12) % 3
    for num_classes in (3, None):
        for make in (bm.R2D2, bm.LRD2, bm.MetaOptNet, bm.DeepKernelClassifier):
            inner = make(bm.MLP(2, [8]), num_classes=num_classes)
            learner = bm.Standardized(inner)
            assert learner.outcomes == bm.Labels(num_classes)
            data = bm.Data.from_labels(x, labels)
            learner.prepare(data)
            probs = learner.adapt(data).predict(x).probs
            scaled = (x - x.mean(0)) / x.std(0)
            expected = inner.adapt(bm.Data.from_labels(scaled, labels)).predict(scaled).probs
            torch.testing.assert_close(probs, expected, rtol=0.0, atol=1e-3)  # inputs of 1e3 in float32
