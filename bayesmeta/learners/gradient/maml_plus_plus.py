"""MAML++: MAML with rates per layer and step, a loss after every step, and schedules that steady the training.

Antoniou, Edwards, Storkey 2019 (arXiv:1810.09502), sec. 4:

    rates          α of each layer and step, learned
    multi-step     loss Σ_j v_j L(query, phi_j), annealed to the last step alone over `multi_step_share` of the training
    derivatives    first order until `first_order_share` of the training, then second
    normalisation  weights and biases of normalisation layers for each step, learned and not adapted

    phi         the network's parameters, or a named part of them
    prior       N(theta, Q), implied by the layers' mean rates and the number of steps
    likelihood  any; Gaussian with learned noise by default
    inference   unrolled MAP; linearised Laplace around it

The cosine schedule of the outer rate is `fit`'s own. Where rates differ between steps the implied prior is MAML's at
their mean: exact when they do not differ.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from bayesmeta.data import Data, TaskBatch
from bayesmeta.errors import DataError
from bayesmeta.inference.map import ascend, require_finite
from bayesmeta.learners.gradient.base import AscentLearner, GradientLearner, positive_rate, positive_steps
from bayesmeta.learners.gradient.posteriors import Approximation
from bayesmeta.likelihoods import Likelihood
from bayesmeta.networks.jacobian import Jacobian
from bayesmeta.networks.network import Network
from bayesmeta.networks.normalisation import normalisation_parameters
from bayesmeta.typing import LogJoint, Params


class MAMLPlusPlus(AscentLearner):
    """MAML with learned rates per layer and step, a loss after every step, and a normalisation of each step.

    theta = the parameters of the network with its output layer, the rates of each layer and step (`rate`), the
    normalisation of each step (`normalisation`, where the network has such layers) and the observation noise.

    Args:
        network: gives the features; its parameters and those of the output layer are where tasks start.
        steps: k.
        lr: the first step size of every layer and step (units as for `MAML`).
        multi_step_share: share of the training during which earlier steps have a part of the loss.
        first_order_share: share of the training that is first order.
        num_outputs: C; 1 by default, or what the likelihood says.
        likelihood: p(y | f); Gaussian with learned noise by default.
        posterior: `Linearized()` by default, `LinearizedDiagonal()` or `PointEstimate()`.
        adapted: name prefixes of the parameters that adapt; by default all but the normalisation's.

    Raises:
        UnsupportedError: a network with layers that cannot be adapted.
        ShapeError: outputs that contradict.
        DataError: no steps, a step size or share out of range, a prefix that no name has.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.MAMLPlusPlus(bm.MLP(1, [40, 40]), steps=3)
        >>> learner.layers
        ('features.layers.0', 'features.layers.2', 'output')
        >>> learner.rate().shape
        torch.Size([3, 3])
        >>> learner.adapt(bm.Data.from_arrays([0.0, 1.0, 2.0], [0.0, 0.8, 0.9])).predict([1.5]).mean.shape
        torch.Size([1, 1, 1])
    """

    progress: Tensor

    def __init__(
        self,
        network: Network,
        *,
        steps: int = 5,
        lr: float = 0.01,
        multi_step_share: float = 0.15,
        first_order_share: float = 0.0,
        num_outputs: int | None = None,
        likelihood: Likelihood | None = None,
        posterior: Approximation | None = None,
        adapted: Sequence[str] | None = None,
    ) -> None:
        super().__init__(network, num_outputs=num_outputs, likelihood=likelihood, posterior=posterior, adapted=adapted)
        if not 0.0 <= multi_step_share <= 1.0 or not 0.0 <= first_order_share <= 1.0:
            raise DataError(f"expected shares from 0 to 1, got {multi_step_share} and {first_order_share}")
        self.multi_step_share, self.first_order_share = multi_step_share, first_order_share
        self.layers = tuple(dict.fromkeys(_layer(name) for name in self.adapted))
        self.steps = positive_steps(steps)
        self.rate = positive_rate(lr, (steps, len(self.layers)))
        # the network's own normalisation serves the first forward pass; each further one has its own
        self.normal_names = tuple([n for n in normalisation_parameters(self.network) if n not in self.adapted])
        weights = dict(self.network.named_parameters())
        self.normalisation = nn.ParameterList(
            nn.Parameter(weights[name].detach().expand(steps, *weights[name].shape).clone())
            for name in self.normal_names
        )
        self.register_buffer("progress", torch.ones(()), persistent=False)  # a learner outside fit is a trained one

    def adapted_by_default(self) -> list[str]:
        """All parameters of the network but those of its normalisation layers."""
        normal = normalisation_parameters(self.network)
        return [name for name in super().adapted_by_default() if name not in normal]

    def anneal(self, progress: float) -> None:
        """Set the schedules to this share of the training."""
        self.progress.fill_(progress)
        self.first_order = progress < self.first_order_share

    def rates(self) -> Params:
        """The mean over steps of each layer's α."""
        return self._rates(self.rate().mean(0))

    def forward(self, phi: Params, x: Float[Tensor, "B M *x"]) -> Float[Tensor, "*s B M K"]:
        """f(x; phi) with the normalisation of the last step."""
        return super().forward(phi | self._normal(self.steps, phi), x)

    def jacobian(self, phi: Params, x: Float[Tensor, "B M *x"]) -> Jacobian:
        """The derivative of f in the P numbers of phi."""
        if not self.normal_names:
            return super().jacobian(phi, x)
        return GradientLearner.jacobian(self, phi, x)  # the network's own way does not know the steps' normalisation

    def loss(self, tasks: TaskBatch) -> Float[Tensor, "B"]:
        """Σ_j v_j times -log p(query | support, theta) / M after j steps, in nats; for the last, the predictive's."""
        with self.naming_failures():
            path = self._path(tasks.support)
            if self.is_large(path[-1]):
                self.require_near(tasks.support, path[-1])
        query, count = tasks.query, tasks.query.counts.clamp(min=1)
        last = -self.posterior.log_density(self, tasks.support, path[-1], query) / count
        if self.steps == 1 or self.multi_step_share == 0.0:
            return last
        # every step has weight 1/k at first; those of earlier ones fall to zero, and the last step's grows by as much
        early = (1.0 - self.progress / self.multi_step_share).clamp(min=0.0) / self.steps
        others = [-self._log_likelihood_at(j, query)(phi) / count for j, phi in enumerate(path[:-1], 1)]
        return (1.0 - early * (self.steps - 1)) * last + early * torch.stack(others).sum(0)

    @override
    def mode(self, support: Data) -> Params:
        return self._path(support)[-1]

    def _path(self, support: Data) -> list[Params]:
        """phi after each step."""
        phi, path, values = self.start(support.num_tasks), [], []
        for step, rate in enumerate(self.rate().unbind(0)):
            lr = self.summed(self._rates(rate), support)
            phi, value = ascend(self._log_likelihood_at(step, support), phi, lr, self.first_order)
            path.append(phi)
            values.append(value)
        require_finite(phi, values)
        return path

    def _rates(self, by_layer: Float[Tensor, "L"]) -> Params:
        rates = dict(zip(self.layers, by_layer.unbind(0), strict=True))
        return {name: rates[_layer(name)] for name in self.adapted}

    def _log_likelihood_at(self, step: int, data: Data) -> LogJoint:
        """phi -> log p(y | x, phi) with the normalisation of a step."""
        given = self.likelihood.given(data)

        def log_density(phi: Params) -> Tensor:
            return given(self.network.stacked(phi | self._normal(step, phi), data.x))

        return log_density

    def _normal(self, step: int, phi: Params) -> Params:
        """Normalisation of a step for every task (and draw); the network's own before the first."""
        if step == 0 or not self.normal_names:
            return {}
        shape = (*self.draw_shape(phi), len(phi[self.adapted[0]]))
        return {
            name: value[step - 1].expand(*shape, *value.shape[1:])
            for name, value in zip(self.normal_names, self.normalisation, strict=True)
        }


def _layer(name: str) -> str:
    return name.rpartition(".")[0]
