"""A prior mean that depends on what is known of a task: p(phi | z), with z the covariates of the task.

    x = [u, z],   E[W_f | z] = K_f + Σ_j g_j(z) K_fj        z is the same at all points of a task

Written as features, f(x; W) = Wᵀ [h(u), h(u) ⊗ g(z)], this is the model whose learner has a random weight for every
feature of the point, and a fixed one for every product with a covariate: what statistics calls a cross-level
interaction (Raudenbush & Bryk 2002, "Hierarchical Linear Models", chapter 4).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from bayesmeta.errors import DataError, ShapeError
from bayesmeta.networks.network import Network, WholeNetwork
from bayesmeta.networks.terms import CONSTANT, Quantities, Terms


class TaskCovariates(Network):
    """Features of a point, and their products with the task's covariates: the prior mean of phi depends on these.

    The last inputs are the covariates z, as `TaskDataset.from_frame(..., covariates=[...])` puts them; the first, u,
    are those of h. `ALPaCA` gives the features of the point weights that differ between tasks, and the products weights
    that do not (fixed effects). A prior covariance of your own should leave the products out, too:
    `FullCovariance(F, varying=features.varying)`.

    Args:
        features: h, of the inputs that vary within a task.
        covariates: how many there are, k, where the prior mean is to be linear in them; or g, a network of them.
        shifted: positions of the features whose weights have a prior mean that depends on z; all by default. `[0]` is
            the constant of `Identity`: covariates then shift the outcome, and no slope.

    Raises:
        DataError: no covariates, or positions that repeat or are not those of features.
        ShapeError: h or g are not of vectors.

    Example:
        >>> import bayesmeta as bm
        >>> features = bm.networks.TaskCovariates(bm.Identity(1), 1)  # a time, and the weight of a patient
        >>> features(torch.tensor([[[2.0, 70.0]]]))  # 1, time, and their products with the weight
        tensor([[[  1.,   2.,  70., 140.]]])
        >>> features.varying
        (0, 1)
        >>> learner = bm.ALPaCA(features)  # intercepts and slopes around means that are linear in the weight
        >>> curved = bm.networks.TaskCovariates(bm.Identity(1), bm.MLP(2, [8, 3]))  # a network of two covariates
        >>> curved.x_shape, curved.num_outputs
        ((3,), 8)
    """

    def __init__(self, features: Network, covariates: int | Network, shifted: Sequence[int] | None = None) -> None:
        super().__init__()
        self.features = features
        self.effects = covariates if isinstance(covariates, Network) else None
        of_covariates = covariates.x_shape if isinstance(covariates, Network) else (covariates,)
        shapes = [features.x_shape, of_covariates]
        if any(len(shape) != 1 for shape in shapes):
            raise ShapeError(f"expected features and covariates of vectors, got inputs of shapes {shapes}")
        num_inputs, self.num_covariates = features.x_shape[0], of_covariates[0]
        if self.num_covariates < 1:
            raise DataError(f"expected at least one covariate, got {self.num_covariates}")
        size = features.num_outputs
        self.shifted = tuple(range(size)) if shifted is None else tuple(int(i) for i in shifted)
        if len(set(self.shifted)) != len(self.shifted) or not all(0 <= i < size for i in self.shifted):
            raise DataError(f"expected distinct feature positions from 0 to {size - 1}, got {list(self.shifted)}")
        num_effects = self.num_covariates if self.effects is None else self.effects.num_outputs
        self.x_shape, self.num_outputs = (num_inputs + self.num_covariates,), size + len(self.shifted) * num_effects
        self.varying = tuple(range(size))
        self.pointwise = features.pointwise and (self.effects is None or self.effects.pointwise)

    @override
    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N F"]:
        """The features of the point, then for every effect of the covariates its products with those that it shifts."""
        point, task = x[..., : -self.num_covariates], x[..., -self.num_covariates :]
        features = self.features(point)
        effects = task if self.effects is None else self.effects(task)
        products = effects[..., :, None] * features[..., None, list(self.shifted)]
        return torch.cat([features, products.flatten(-2)], -1)

    @override
    def terms(self, inputs: Quantities) -> Terms | None:
        point, task = inputs.part(slice(-self.num_covariates)), inputs.part(slice(-self.num_covariates, None))
        own = self.features.terms(point)
        if own is None or self.effects is not None:
            return None
        size, chosen = len(own.names), list(self.shifted)
        beyond = own.matrix[:, chosen].clone()
        beyond[chosen] = 0.0
        if bool(beyond.any()):  # products that no feature is
            return None
        rows, columns = [own.matrix], [own.names]
        for name, shift, scale in zip(task.names, task.shift, task.scale, strict=True):
            rows.append(own.matrix[:, chosen] * (-shift / scale))
            columns.append(tuple(name if own.names[i] == CONSTANT else f"{own.names[i]}:{name}" for i in chosen))
        matrix = torch.zeros(self.num_outputs, self.num_outputs, dtype=torch.float64)
        matrix[:size] = torch.cat(rows, 1)
        products = torch.block_diag(*(own.matrix[chosen][:, chosen] / scale for scale in task.scale))
        matrix[size:, size:] = products
        return Terms(tuple(name for names in columns for name in names), matrix)

    @override
    def with_outputs(self, num_outputs: int) -> "SplitOutput":
        """This network followed by two dense layers, `output` and `shared`: see `SplitOutput`."""
        return SplitOutput(self, num_outputs)


class SplitOutput(WholeNetwork):
    """A dense layer `output` on the features of the point, and one named `shared` on the products with covariates.

    A learner whose weights adapt by layers can leave the second one to theta: `adapted=["output"]`.

    Args:
        features: gives features of the point and products.
        num_outputs: K.

    Raises:
        DataError: no outputs.

    Example:
        >>> import bayesmeta as bm
        >>> features = bm.networks.TaskCovariates(bm.Identity(1), 2, shifted=[0])
        >>> learner = bm.LLAMA(features, likelihood=bm.likelihoods.Categorical(2), adapted=["output"])
        >>> learner.adapted  # a logistic mixed model, in which covariates have fixed effects
        ('output.weight', 'output.bias')
    """

    def __init__(self, features: TaskCovariates, num_outputs: int) -> None:
        super().__init__()
        if num_outputs < 1:
            raise DataError(f"expected at least one output, got {num_outputs}")
        self.features = features
        self.count = features.features.num_outputs
        output = nn.Linear(self.count, num_outputs)
        shared = nn.Linear(features.num_outputs - self.count, num_outputs, bias=False)
        like = next(features.parameters(), None)
        self.output, self.shared = (layer if like is None else layer.to(like) for layer in (output, shared))
        self.x_shape, self.num_outputs, self.pointwise = features.x_shape, num_outputs, features.pointwise

    @override
    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N K"]:
        """The sum of both layers."""
        features = self.features(x)
        out: Tensor = self.output(features[..., : self.count]) + self.shared(features[..., self.count :])
        return out
