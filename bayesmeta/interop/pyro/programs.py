"""A learner's hierarchical model as a Pyro program, and the distributions of phi in it."""

from collections.abc import Callable, Mapping
from functools import singledispatch
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from pyro import poutine
from pyro.ops.provenance import ProvenanceTensor, get_provenance, track_provenance
from torch import Tensor
from torch.distributions import Distribution

from bayesmeta.data import Data
from bayesmeta.errors import ShapeError, UnsupportedError
from bayesmeta.hyperpriors import Hyperprior
from bayesmeta.interop.pyro._distributions import OfWeight, for_pyro, kind_of_prior
from bayesmeta.interop.pyro._theta import theta_sites
from bayesmeta.learner import ExplicitLearner
from bayesmeta.likelihoods import Likelihood
from bayesmeta.priors import IndependentGaussian, LastLayerPrior, Prior, StandardNormal
from bayesmeta.typing import Params

Program = Callable[[Data], Tensor]
"""A Pyro program of the tasks' data, as `program` makes it: it returns y, `B N *c`."""

OfPhi = dist.TorchDistribution | Callable[[Params], dist.TorchDistribution]
"""The distribution of a tensor of phi, or that given those before it, `*s B *shape`: then of batch shape `*s B 1`."""


def program(learner: ExplicitLearner, hyperprior: Mapping[str, Distribution] | Hyperprior | None = None) -> Program:
    """The hierarchical model of a learner as a Pyro program, for everything that Pyro does with programs.

    The log density of its trace is the learner's log joint, summed over tasks, plus that of the hyperprior. Draws of
    phi have leading axes when the program runs in further plates (parallel particles); draws of theta do not.

    Args:
        learner: its theta is read when the program runs, with gradients; it is not put into Pyro's parameter store.
        hyperprior: without it theta is what the learner has. Distributions by the names of parameters, each over the
            parameter as it is stored, or by the name of a `Positive` ("likelihood.noise.value"), over its value; they
            stand in place of the learner's own hyperprior. Or a `Hyperprior`: then all trainable parameters are sites
            without a density of their own, and it is a factor, together with the learner's `log_hyperprior`.

    Returns:
        A function of `Data`.

    Raises:
        UnsupportedError: no explicit prior and likelihood, or (when run) a prior over several tensors that is not known
            here (`phi_distributions.register` it).
        DataError: a name that the learner does not have.

    Example:
        >>> import bayesmeta as bm
        >>> from bayesmeta.interop.pyro import program
        >>> learner, data = bm.ALPaCA(bm.Identity(1)), bm.Data.from_arrays([0.0, 1.0], [0.3, 0.7])
        >>> trace = poutine.trace(program(learner)).get_trace(data)
        >>> trace.nodes["weight"]["value"].shape  # B, a place for points, and the shape of phi
        torch.Size([1, 1, 2, 1])
        >>> log_joint = learner.log_joint(data)({"weight": trace.nodes["weight"]["value"][:, 0]})
        >>> bool((trace.log_prob_sum() - log_joint.sum()).abs() < 1e-4)
        True
    """
    if not isinstance(learner, ExplicitLearner):
        raise UnsupportedError(
            f"expected a learner with an explicit prior and likelihood, got {type(learner).__name__}: "
            "there is no model of phi to write down"
        )
    theta = theta_sites(learner, hyperprior)

    def model(data: Data) -> Tensor:
        data = learner.conform(data)
        drawn = theta.sample(learner)
        with pyro.plate("task", data.num_tasks, dim=-2):
            phi: Params = {}
            for name, each in phi_distributions(drawn.prior).items():
                distribution = each if isinstance(each, Distribution) else each(phi)
                value = pyro.sample(name, distribution)
                phi[name] = value.squeeze(value.ndim - distribution.event_dim - 1)  # the place of points
            if data.num_points == 0:
                return data.y
            f = _traced(drawn.forward(phi, data.x), phi)
            real: Any = data.mask
            observed = _observed(drawn.likelihood, data, f)
            with pyro.plate("point", data.num_points, dim=-1), poutine.mask(mask=real):
                y: Tensor = pyro.sample("y", for_pyro(drawn.likelihood.of_points(f, data)), obs=observed)
                return y

    return model


class OwnHyperprior(Hyperprior):
    """The hyperprior that a learner has itself: what its `log_hyperprior` says, and nothing beyond.

    With it all trainable parameters are drawn under the learner's own p(theta), where a dictionary of distributions
    would stand in its place. For full Bayes p(theta) should be proper: one that is flat everywhere has no posterior
    unless the tasks give it one.

    Example:
        >>> import bayesmeta as bm
        >>> from bayesmeta.interop.pyro import OwnHyperprior, program
        >>> class Shrunk(bm.ALPaCA):  # the mean of phi is N(0, 1)
        ...     def log_hyperprior(self):
        ...         return torch.distributions.Normal(0.0, 1.0).log_prob(self.prior.location).sum()
        >>> model = program(Shrunk(bm.Identity(1)), OwnHyperprior())
        >>> sites = poutine.trace(model).get_trace(bm.Data.from_arrays([1.0], [0.5])).nodes
        >>> [name for name in sites if name.startswith(("prior.location", "hyperprior", "weight"))]
        ['prior.location', 'hyperprior', 'weight']
    """

    def log_prob(self, theta: Params) -> Float[Tensor, ""]:
        """Zero: the rest is the learner's."""
        return torch.zeros(())


@singledispatch
def phi_distributions(prior: Prior) -> dict[str, OfPhi]:
    """The distribution of each named tensor of phi under a prior, with gradients in its theta.

    They are drawn in this order. One that depends on those before it is a function of them.

    `phi_distributions.register(YourPrior)` teaches it a prior over several tensors (`functools.singledispatch`). One
    over a single tensor is known.

    Args:
        prior: p(phi | theta).

    Raises:
        UnsupportedError: the prior is over several tensors, and what it says of each alone is not known.

    Example:
        >>> import bayesmeta as bm
        >>> from bayesmeta.interop.pyro import phi_distributions
        >>> prior = bm.priors.IsotropicGaussian({"slope": torch.zeros(2), "offset": torch.zeros(())})
        >>> {name: tuple(each.event_shape) for name, each in phi_distributions(prior).items()}
        {'slope': (2,), 'offset': ()}
    """
    means = prior.mean
    if len(means) != 1:
        raise UnsupportedError(
            f"expected a prior over one tensor, or one whose tensors are independent, got {type(prior).__name__} over "
            f"{sorted(means)}: say what distribution each has with phi_distributions.register"
        )
    ((name, mean),) = means.items()
    return {name: kind_of_prior(type(prior).__name__)(prior, name, mean.shape)}


@phi_distributions.register(IndependentGaussian)
def _gaussian(prior: IndependentGaussian) -> dict[str, OfPhi]:
    variances = prior.variance()
    return {
        name: dist.Normal(mean, variances[name].sqrt().expand(mean.shape)).to_event(mean.ndim)
        for name, mean in prior.mean.items()
    }


@phi_distributions.register(StandardNormal)
def _standard_normal(prior: StandardNormal) -> dict[str, OfPhi]:
    return {name: dist.Normal(mean, torch.ones_like(mean)).to_event(mean.ndim) for name, mean in prior.mean.items()}


@phi_distributions.register(LastLayerPrior)
def _last_layer(prior: LastLayerPrior) -> dict[str, OfPhi]:
    kind = kind_of_prior(type(prior).__name__)
    if prior.scale is None:
        return {"weight": kind(prior, "weight", prior.weight_mean.shape)}
    given = lambda phi: OfWeight(prior, phi["log_scale"][..., None])  # a place for points
    return phi_distributions(prior.scale) | {"weight": given}


def _traced(f: Tensor, phi: Params) -> Tensor:
    """f, known to depend on phi: maps over tasks lose what Pyro's diagrams follow."""
    if not any(isinstance(value, ProvenanceTensor) for value in phi.values()):
        return f
    result: Tensor = track_provenance(f, get_provenance(list(phi.values())))
    return result


def _observed(likelihood: Likelihood, data: Data, f: Tensor) -> Tensor:
    """y as the likelihood's distribution wants it; labels that are padding are legal ones."""
    if f.shape[-1] != likelihood.network_outputs:
        raise ShapeError(f"expected f with {likelihood.network_outputs} columns, got {tuple(f.shape)}")
    return likelihood.outcome(data, f)
