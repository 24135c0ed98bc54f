"""A support vector machine as the last layer is many times faster than by a general QP solver, and costs like ridge.

So are all other heads timed, those that solve and those that compare. Milliseconds an episode, forward and backward:

    dual      the SVM's dual alone: from the Gram matrix to α, and the gradient back; 8 episodes at a time, or in a loop
    heads     the heads on given features: `solve`, the probabilities of 15 queries a class, cross entropy, the gradient
              in features and theta; 4 episodes at a time, or in a loop; 64 features (Conv4 on 28 x 28), 1,600 (on 84 x
              84), and of those that solve 3,584 and 16,000 (ResNet-12), where all are bound by memory
    episode   all of 5-way 5-shot with 15 queries a class by Conv4 with 64 channels on 28 x 28 images, one at a time, in
              float32

The SVM is also solved as MetaOptNet's published code has it, as a quadratic program over all N C numbers, by qpth (Amos
& Kolter 2017), whose answers must be the ones here; in float64 as here, and in float32. Random numbers as features and
images, the features of a class around a center.

`make bench-peers` installs qpth; without it its columns are left out.
"""

import argparse
import importlib
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from bayesmeta.data import Data, TaskBatch
from bayesmeta.heads import Classes, Examples, FeatureClassifier, NearestMeanHead, SVMHead
from bayesmeta.heads.svm import DualScores
from bayesmeta.inference.svm import svm_dual
from bayesmeta.learners.closed_form.lrd2 import LRD2
from bayesmeta.learners.closed_form.metaoptnet import MetaOptNet
from bayesmeta.learners.closed_form.r2d2 import R2D2
from bayesmeta.learners.metric.graph import GraphNetwork
from bayesmeta.learners.metric.infinite_mixture_prototypes import InfiniteMixturePrototypes
from bayesmeta.learners.metric.matching import Matching
from bayesmeta.learners.metric.prototypical import Prototypical
from bayesmeta.learners.metric.relation import Relation
from bayesmeta.learners.metric.siamese import Siamese
from bayesmeta.linalg import cholesky
from bayesmeta.networks.conv4 import Conv4
from bayesmeta.networks.network import Network
from benchmarks._report import interleaved, verdict

SEED = 0
EPISODES, HEAD_EPISODES, QUERIES, PENALTY = 8, 4, 15, 0.1
LENGTH = 30.0  # |x|² of a feature vector, about: some points are within the margin of the SVM, some not
TOLERANCE = 1e-5  # of α / κ: qpth stops at residuals of this size
BARS = {"qpth": 5.0, "episode": 1.5}
FEATURES = (64, 1_600, 3_584, 16_000)
MOST_COMPARED = 1_600  # features at which pairs of points are still compared
SIZES = ((5, 1), (5, 5), (20, 1))  # ways, shots
DUAL_SIZES = (*SIZES, (5, 15))  # what MetaOptNet trains with, too


class Features(Network):
    """Features that are given: h(x) = x."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.x_shape, self.num_outputs = (size,), size

    def forward(self, x: Tensor) -> Tensor:
        return x


class Episode(NamedTuple):
    """Features and labels as unit vectors of support and query, `B N F` and `B N C`."""

    rows: Tensor
    targets: Tensor
    queries: Tensor
    answers: Tensor

    @classmethod
    def draw(cls, episodes: int, features: int, ways: int, shots: int) -> "Episode":
        generator = torch.Generator().manual_seed(SEED)
        labels = torch.arange(ways).repeat(shots + QUERIES)
        shape = (episodes, len(labels), features)
        centers = torch.randn(episodes, ways, features, generator=generator, dtype=torch.float64)
        x = centers[:, labels] + 2.0 * torch.randn(shape, generator=generator, dtype=torch.float64)
        x = x * (LENGTH / (5.0 * features)) ** 0.5
        hot = functional.one_hot(labels, ways).double().expand(episodes, -1, -1)
        cut = ways * shots
        return cls(x[:, :cut].clone(), hot[:, :cut], x[:, cut:].clone(), hot[:, cut:])

    def one_by_one(self) -> "list[Episode]":
        return [Episode(*(value[i : i + 1] for value in self)) for i in range(len(self.rows))]


def qpth_dual(qp: ModuleType, kernel: Tensor, targets: Tensor) -> Tensor:
    """α: min ½ αᵀ (K ⊗ I) α - yᵀ α,  α <= κ y,  Σ_c α_nc = 0."""
    episodes, points, ways = targets.shape
    one = partial(torch.eye, dtype=kernel.dtype)
    hessian = torch.einsum("bnm,cd->bncmd", kernel, one(ways)).reshape(episodes, points * ways, points * ways)
    y = targets.reshape(episodes, -1)
    equality = torch.kron(one(points), torch.ones(1, ways, dtype=kernel.dtype)).expand(episodes, -1, -1)
    zeros = torch.zeros(episodes, points, dtype=kernel.dtype)
    solve = qp.QPFunction(verbose=-1)
    alpha: Tensor = solve(hessian, -y, one(points * ways).expand(episodes, -1, -1), PENALTY * y, equality, zeros)
    return alpha.view(targets.shape)


class QPHead(SVMHead):
    """The SVM with its dual by qpth."""

    def __init__(self, qp: ModuleType) -> None:
        super().__init__(PENALTY)
        self.qp = qp

    def solve(self, examples: Examples) -> DualScores:
        rows = examples.rows
        kernel, eye = rows @ rows.mT, torch.eye(rows.shape[1], dtype=rows.dtype)
        dual = qpth_dual(self.qp, kernel, examples.targets)
        return DualScores(rows, dual, cholesky(kernel + eye / self.penalty().to(rows.dtype), "support covariance"))


Make = Callable[[Network, int], FeatureClassifier]

COMPARISONS: dict[str, Make] = {
    "prototypical": lambda network, ways: Prototypical(network, num_classes=ways),
    "matching": lambda network, ways: Matching(network, num_classes=ways),
    "siamese": lambda network, ways: Siamese(network, num_classes=ways),
    "relation": lambda network, ways: Relation(network, num_classes=ways),
    "mixtures": lambda network, ways: InfiniteMixturePrototypes(network, num_classes=ways),
    "graph": lambda network, ways: GraphNetwork(network, num_classes=ways),
}


def heads(qp: ModuleType | None) -> dict[str, Make]:
    """What makes a learner from a network and a number of ways."""
    found: dict[str, Make] = {
        "ridge": lambda network, ways: R2D2(network, num_classes=ways),
        "logistic": lambda network, ways: LRD2(network, num_classes=ways),
        "nearest mean": lambda network, ways: MetaOptNet(network, num_classes=ways, head=NearestMeanHead()),
        "SVM": lambda network, ways: MetaOptNet(network, num_classes=ways, head=SVMHead(PENALTY)),
    }
    if qp is not None:
        found["SVM, qpth"] = lambda network, ways: MetaOptNet(network, num_classes=ways, head=QPHead(qp))
    return found


def show(title: str, rows: dict[str, list[float]], columns: tuple[str, ...]) -> None:
    print(f"\n{title}   ms\n  {'':14}" + "".join(f"{column:>9}" for column in columns))
    for name, values in rows.items():
        print(f"  {name:14}" + "".join(f"{value * 1e3:9.2f}" for value in values), flush=True)


def dual_alone(qp: ModuleType | None, rounds: int) -> list[dict[str, float]]:
    """Seconds an episode by solver, for each size."""
    rows, results = {}, []
    for ways, shots in DUAL_SIZES:
        episode = Episode.draw(EPISODES, FEATURES[0], ways, shots)
        kernel, targets = episode.rows @ episode.rows.mT, episode.targets
        classes = torch.ones(EPISODES, ways, dtype=torch.bool)
        mask = torch.ones(EPISODES, ways * shots, dtype=torch.bool)
        penalty = torch.tensor(PENALTY, dtype=torch.float64)

        def own(kernel: Tensor, targets: Tensor, mask: Tensor = mask, classes: Tensor = classes) -> Tensor:
            return svm_dual(kernel, targets, mask[: len(kernel)], classes[: len(kernel)], penalty)  # noqa: B023

        def step(solve: Callable[[Tensor, Tensor], Tensor], kernel: Tensor, targets: Tensor) -> None:
            leaf = kernel.detach().requires_grad_()
            solve(leaf, targets).square().sum().backward()

        def loop(kernel: Tensor = kernel, targets: Tensor = targets, own: Callable[..., Tensor] = own) -> None:
            for i in range(EPISODES):
                step(own, kernel[i : i + 1], targets[i : i + 1])

        steps: dict[str, Callable[[], object]] = {"here": partial(step, own, kernel, targets), "loop": loop}
        if qp is not None:
            solve = partial(qpth_dual, qp)
            off = ((own(kernel, targets) - solve(kernel, targets)) / PENALTY).abs().max().item()
            assert off < TOLERANCE, f"{ways}-way {shots}-shot: α of qpth differs by {off:.1e} of its bound"
            steps["qpth"] = partial(step, solve, kernel, targets)
            steps["float32"] = partial(step, solve, kernel.float(), targets.float())
        times = {name: value / EPISODES for name, value in interleaved(steps, rounds).items()}
        rows[f"{ways}-way {shots}-shot"] = list(times.values())
        results.append(times)
    show("the dual of the SVM, an episode", rows, ("here", "loop", "qpth", "float32")[: len(results[0])])
    return results


def head_step(learner: FeatureClassifier, episodes: list[Episode]) -> None:
    """Forward and backward."""
    learner.zero_grad()
    dtype = next(learner.parameters()).dtype if learner.head.precision is None else learner.head.precision
    for episode in episodes:
        rows, queries = (each.to(dtype).detach().requires_grad_() for each in (episode.rows, episode.queries))
        mask = torch.ones(rows.shape[:2], dtype=torch.bool)
        classes = Classes(torch.ones(len(rows), episode.targets.shape[-1], dtype=torch.bool))
        examples = Examples(rows, episode.targets.to(dtype), mask, classes)
        log_probs = learner.logits(learner.head.solve(examples), queries, examples).log_softmax(-1)
        (-(log_probs * episode.answers).sum(-1).mean()).backward()


def on_features(qp: ModuleType | None, rounds: int) -> None:
    for features in FEATURES:
        makers = heads(qp) | (COMPARISONS if features <= MOST_COMPARED else {})
        for ways, shots in SIZES:
            episode = Episode.draw(HEAD_EPISODES, features, ways, shots)
            steps: dict[str, Callable[[], object]] = {}
            for name, make in makers.items():
                learner = make(Features(features), ways)
                steps[name] = partial(head_step, learner, [episode])
                steps[f"{name}, loop"] = partial(head_step, learner, episode.one_by_one())
            times = {name: value / HEAD_EPISODES for name, value in interleaved(steps, rounds).items()}
            rows = {name: [times[name], times[f"{name}, loop"]] for name in makers}
            show(f"heads, {ways}-way {shots}-shot, {features} features, an episode", rows, ("batched", "loop"))


def whole_episode(qp: ModuleType | None, rounds: int) -> dict[str, float]:
    """Seconds with the backbone, by head."""
    generator = torch.Generator().manual_seed(SEED)

    def data(per_class: int) -> Data:
        x, labels = (
            torch.rand(1, 5 * per_class, 1, 28, 28, generator=generator),
            torch.arange(5).repeat(per_class)[None],
        )
        return Data(x, labels, torch.ones_like(labels, dtype=torch.bool))

    tasks = TaskBatch(data(5), data(QUERIES))
    steps: dict[str, Callable[[], object]] = {}
    for name, make in (heads(qp) | COMPARISONS).items():
        torch.manual_seed(SEED)
        learner = make(Conv4((1, 28, 28), 64), 5)

        def step(learner: FeatureClassifier = learner) -> None:
            learner.zero_grad()
            learner.meta_loss(tasks).mean().backward()

        steps[name] = step
    times = interleaved(steps, rounds)
    rows = {name: [value] for name, value in times.items()}
    show("a whole episode, 5-way 5-shot, Conv4-64 on 28 x 28", rows, ("",))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    try:
        qp = importlib.import_module("qpth.qp")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("qpth", "cvxpy"):
            raise
        qp = None
    duals = dual_alone(qp, arguments.rounds)
    on_features(qp, arguments.rounds)
    episode = whole_episode(qp, 3 * arguments.rounds)
    ratio = episode["SVM"] / episode["ridge"]
    text = f"a whole episode with the SVM takes {ratio:.2f} times one with ridge (bar {BARS['episode']})"
    if qp is None:
        verdict(f"{text}; qpth is absent (make bench-peers installs it)", SEED)
        return
    gains, single = ([times[name] / times["here"] for times in duals] for name in ("qpth", "float32"))
    verdict(
        f"the SVM's dual is {min(gains):.1f} to {max(gains):.0f} times faster than by qpth {version('qpth')} "
        f"(bar {BARS['qpth']:.0f}), {min(single):.1f} to {max(single):.0f} times than by qpth in float32; {text}",
        SEED,
    )


if __name__ == "__main__":
    main()
