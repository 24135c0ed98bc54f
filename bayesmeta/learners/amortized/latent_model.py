"""The model of latent neural processes with its z by name: for samplers, programs, and whoever writes densities down.

z ~ N(0, I),   y_n ~ head(decoder(h(x_n), z))
"""

from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution
from typing_extensions import override

from bayesmeta.data import Data
from bayesmeta.errors import UnsupportedError
from bayesmeta.heads.output import PointwiseHead
from bayesmeta.learner import ExplicitLearner, TaskPosterior
from bayesmeta.learners.amortized.latent_base import LatentLearner
from bayesmeta.likelihoods import Likelihood
from bayesmeta.priors import StandardNormal
from bayesmeta.typing import Params


class LatentModel(ExplicitLearner):
    """A latent neural process as an explicit learner: phi is `z`, `d`, the latent vector of the task.

    It has the theta of the process that it is made from, and adapts like it. `Sampled` and Pyro programs of it draw
    from the exact posterior of z under the decoder, which the encoder's q(z | D) is an approximation of:
    `checks.fidelity` and `checks.sbc` say how good a one.

    Args:
        process: whose model it is. It has no deterministic path, and a head of numbers at single points.

    Raises:
        UnsupportedError: it has a path, which makes the likelihood depend on the support; its head is of labels, or
            joint over points.

    Example:
        >>> import torch
        >>> import bayesmeta as bm
        >>> process = bm.LatentNeuralProcess(bm.Identity(1), aggregation=bm.learners.BayesianPool(2))
        >>> model, support = bm.learners.LatentModel(process), bm.Data.from_arrays([0.0, 1.0], [0.3, 0.7])
        >>> model.log_joint(support)({"z": torch.zeros(1, 2)}).shape
        torch.Size([1])
        >>> drawn = bm.Sampled(model, bm.inference.NUTS(num_chains=2, num_draws=10, num_warmup=20)).adapt(support)
        >>> drawn.sample(5)["z"].shape
        torch.Size([5, 1, 2])
    """

    def __init__(self, process: LatentLearner) -> None:
        super().__init__()
        if process.path is not None:
            raise UnsupportedError(
                "expected a process without a deterministic path, got one: y would depend on the support, and not on z "
                "alone"
            )
        if not isinstance(process.head, PointwiseHead):
            raise UnsupportedError(
                f"expected a head of numbers at single points such as GaussianHead, got {type(process.head).__name__}"
            )
        self.process = process
        self.x_shape, self.outcomes = process.x_shape, process.outcomes
        self.prior, self.likelihood = StandardNormal({"z": (process.pool.size,)}), HeadLikelihood(process.head)

    @override
    def forward(self, phi: Params, x: Float[Tensor, "B M *x"]) -> Float[Tensor, "*s B M K"]:
        """What the decoder gives at every point."""
        z, rows = phi["z"], self.process.features(x)
        draws = z.flatten(0, -3) if z.ndim > 2 else z[None]  # S B d
        raw = self.process.at_draws(draws.transpose(0, 1), None, rows)
        raw = raw.unflatten(0, (len(x), -1)).transpose(0, 1)
        return raw.reshape(*z.shape[:-1], *raw.shape[2:])

    @override
    def condition(self, support: Data) -> TaskPosterior:
        return self.process.condition(support)


class HeadLikelihood(Likelihood):
    """f are the numbers that an output head takes.

    Args:
        head: what they mean.

    Example:
        >>> import torch
        >>> import bayesmeta as bm
        >>> HeadLikelihood(bm.heads.GaussianHead())(torch.zeros(1, 1, 2)).mean
        tensor([[[0.]]])
    """

    def __init__(self, head: PointwiseHead) -> None:
        super().__init__()
        self.head, self.outcomes, self.network_outputs = head, head.outcomes, head.size

    @override
    def forward(self, f: Float[Tensor, "*b K"]) -> Distribution:
        return self.head.distribution(f)

    @override
    def marginal(self, mean: Float[Tensor, "B M K"], variance: Float[Tensor, "B M K"]) -> Distribution:
        raise UnsupportedError("the numbers of a head are not Gaussian: the process averages over draws of z")

    @override
    def curvature_root(self, f: Float[Tensor, "*b K"]) -> Float[Tensor, "*b K K"]:
        raise UnsupportedError("the curvature of a head is not known: the process has its posterior by one pass")
