"""Thompson sampling: an arm is pulled as often as the posterior holds it for the best.

Thompson 1933; Chapelle & Li 2011. At each step phi is drawn from the posterior, and the arm pulled whose expected
reward is largest under that draw:

    phi ~ p(phi | D, theta),   arm = argmax_k E[y | x_k, phi],   D <- D and the reward
"""

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from typing_extensions import override

from bayesmeta.data import Data
from bayesmeta.errors import DataError, UnsupportedError
from bayesmeta.learner import ExplicitLearner, TaskPosterior
from bayesmeta.predictives import (
    AffinePredictive,
    EnsemblePredictive,
    IndependentPredictive,
    MixturePredictive,
    Predictive,
)
from bayesmeta.tasks.bandits.policy import Policy

ROUNDING = 1e-5  # of f: a deviation that is none


@runtime_checkable
class DrawsRewards(Protocol):
    """A posterior that says itself which rewards one draw of phi leads to expect.

    Most need not: `drawn_rewards` finds them from what every posterior has.

    Example:
        >>> import bayesmeta as bm
        >>> isinstance(bm.tasks.BernoulliBandits(3).oracle.adapt(bm.tasks.BernoulliBandits(3).nothing(1)), DrawsRewards)
        True
    """

    def drawn_rewards(self, x: Float[Tensor, "B M D"], generator: torch.Generator | None) -> Float[Tensor, "B M"]:
        """The expected reward at each point under one draw of phi, the same for all points of a task."""


@dataclass(frozen=True, eq=False)
class Thompson(Policy):
    """Thompson sampling from the posterior of any learner that has draws of the function.

    Start it with the posterior of the bandits before the first step, `learner.adapt(bandits.nothing(B))`, or of what
    is known of them. Every reward updates it.

    Which posteriors have draws: see `drawn_rewards`.

    Attributes:
        posterior: of the bandits that are played, as it is now.

    Example:
        >>> import bayesmeta as bm
        >>> bandits = bm.tasks.GaussianBandits(3)
        >>> process = bm.LatentNeuralProcess(bm.Identity(3), num_draws=8)
        >>> _ = bm.fit(process, bandits, steps=20, split=bm.tasks.RandomSplit((0, 10)), progress=False)
        >>> policy = bm.tasks.Thompson(process.adapt(bandits.nothing(100)))
        >>> bm.tasks.play(bandits, policy, num_bandits=100, steps=10).policy.posterior.points_seen.unique().tolist()
        [10]
    """

    posterior: TaskPosterior

    @override
    def choose(self, options: Float[Tensor, "B K D"], generator: torch.Generator) -> Int[Tensor, "B"]:
        """The best arm of each bandit under a draw of its phi.

        Raises:
            ShapeError: options of other bandits.
            UnsupportedError: the posterior has no draws.
        """
        return drawn_rewards(self.posterior, options, generator).argmax(-1)

    @override
    def after(self, data: Data) -> "Thompson":
        return replace(self, posterior=self.posterior.update(data))


def drawn_rewards(
    posterior: TaskPosterior, x: Float[Tensor, "B M D"], generator: torch.Generator | None = None
) -> Float[Tensor, "B M"]:
    """The expected reward at each point under one draw of phi, which the points of a task share.

    It is found in the first of these ways that the posterior has:

    - it says so itself (`DrawsRewards`);
    - its predictive is joint over points and separates f from its noise: a draw of f at all options together. That is
      exactly a draw of phi, seen at these options (ALPaCA, Gaussian processes, the linearised posteriors of MAML and
      its kin);
    - its predictive is a mixture, each component of one phi: a component is drawn (latent neural processes, `Sampled`);
    - its learner is an `ExplicitLearner`: phi is drawn by `sample`, and the mean of the likelihood taken.

    Args:
        posterior: of numbers with one output, or of labels, of which 1 is the reward.
        x: the options, as for `predict`.
        generator: of the draw; torch's global one when None.

    Raises:
        UnsupportedError: none of them.
        DataError: several outputs, or more than two classes.
        ShapeError: as `predict`.

    Example:
        >>> import bayesmeta as bm
        >>> posterior = bm.ALPaCA(bm.Identity(1)).adapt(bm.Data.from_arrays([0.0, 1.0], [0.0, 1.0]))
        >>> x = torch.tensor([[[2.0], [3.0], [4.0]]])
        >>> line = bm.tasks.drawn_rewards(posterior, x, torch.Generator().manual_seed(0))
        >>> bool((line[0, 2] - line[0, 1] - (line[0, 1] - line[0, 0])).abs() < 1e-6)  # all of one line
        True
        >>> point = bm.MAML(bm.MLP(1, [4]), posterior=bm.PointEstimate()).adapt(bm.Data.from_arrays([0.0], [1.0]))
        >>> try:
        ...     bm.tasks.drawn_rewards(point, x)
        ... except bm.UnsupportedError as error:
        ...     print(str(error).split(":")[0])
        expected a posterior with draws of the function, got PointPosterior
    """
    if posterior.spec.y_shape not in ((), (1,)):
        raise DataError(f"expected a posterior of one output, the reward, got one of {posterior.spec.y_shape[0]}")
    if isinstance(posterior, DrawsRewards):
        return posterior.drawn_rewards(posterior.spec.queries(x), generator)
    predictive = posterior.predict(x)
    drawn = _drawn(predictive, generator)
    learner = getattr(posterior, "learner", None)
    if drawn is None and isinstance(learner, ExplicitLearner):
        x = posterior.spec.queries(x)
        phi = {name: value[0].to(x.dtype) for name, value in posterior.sample(1, generator).items()}
        drawn = _expected(IndependentPredictive(learner.likelihood(learner.forward(phi, x))))
    if drawn is None:
        raise UnsupportedError(
            f"expected a posterior with draws of the function, got {type(posterior).__name__}: its predictive is of "
            "each point on its own. Learners with a joint predictive of f have them (ALPaCA, DeepKernelTransfer, MAML "
            "with Linearized()), and mixtures over draws of phi (LatentNeuralProcess, Sampled)"
        )
    return drawn


def _drawn(predictive: Predictive, generator: torch.Generator | None) -> Float[Tensor, "B M"] | None:
    """By the predictive alone; None where it has no draws of f that points share."""
    if isinstance(predictive, AffinePredictive):
        inner = _drawn(predictive.base, generator)
        return None if inner is None else (predictive.shift + predictive.scale * inner[..., None])[..., 0]
    if isinstance(predictive, EnsemblePredictive):
        found = [_drawn(component, generator) for component in predictive.components]
        each = [component for component in found if component is not None]
        return _picked(predictive, torch.stack(each, 1), generator) if len(each) == len(found) else None
    # a subclass draws the points of a component together, whatever the components are at single points
    if type(predictive) is MixturePredictive and isinstance(predictive.components, IndependentPredictive):
        if not _is_of_one_phi(predictive.components):
            return None
        return _picked(
            predictive, _expected(predictive.components).unflatten(0, predictive.log_weights.shape), generator
        )
    latent = _noiseless(predictive)
    if latent is None or isinstance(latent, IndependentPredictive):
        return None
    return latent.sample((), generator)[..., 0]


def _picked(
    mixture: MixturePredictive | EnsemblePredictive, each: Float[Tensor, "B S M"], generator: torch.Generator | None
) -> Float[Tensor, "B M"]:
    """One component of each task, by its weight."""
    chosen = torch.multinomial(mixture.log_weights.exp(), 1, generator=generator)
    return torch.take_along_dim(each, chosen[..., None], 1)[:, 0]


def _noiseless(predictive: Predictive) -> Predictive | None:
    try:
        return predictive.noiseless
    except UnsupportedError:
        return None


def _is_of_one_phi(components: IndependentPredictive) -> bool:
    """Whether each component knows its f, up to rounding: then its mean is the expected reward."""
    latent = _noiseless(components)
    return latent is None or bool(
        (latent.stddev <= ROUNDING * latent.mean.abs() + torch.finfo(latent.mean.dtype).tiny ** 0.5).all()
    )


def _expected(predictive: Predictive) -> Float[Tensor, "B M"]:
    """The mean reward of each point: the probability of label 1, or the mean of the only output."""
    if len(predictive.shape) == 3:
        return predictive.mean[..., 0]
    if predictive.probs.shape[-1] != 2:
        raise DataError(f"expected rewards of 0 or 1, got labels of {predictive.probs.shape[-1]} classes")
    return predictive.probs[..., 1]
