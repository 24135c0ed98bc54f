"""Random effects of several groupings, nested or crossed: the linear mixed model with more than one `(... | g)`.

Laird & Ware 1982; Bates, Mächler, Bolker, Walker 2015 ("Fitting linear mixed-effects models using lme4"):

    y = h(u)ᵀ (K_0 + B_t + Σ_g B_g[l_g]) + ε,   B_t ~ MN(0, V, Σ),   B_g[l] ~ MN(0, V_g, Σ),   ε ~ N(0, Σ)

t is the task, the finest grouping or the one in which new members arrive; l_g is the level of the point in grouping g.
In a nested design all points of a task have one level (the school of a class); in a crossed one they have many (the
samples on a plate). Tasks are independent given K_0 and the effects of the levels, which the training tasks have taught
together: `fit_evidence` maximises the density of all of them at once, and keeps the posterior of what they share.

    phi         W: the weights K_0 + B_t of the task, and the effects of all levels
    prior       matrix normal: B_t as V says; K_0 and the effects as the training tasks left them; exact
    likelihood  Gaussian, noise covariance Σ over the outputs
    inference   exact, in float64 whatever the precision of the features
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from bayesmeta.data import Data
from bayesmeta.errors import DataError, ShapeError, UnsupportedError
from bayesmeta.inference.shared_effects import Blocks, SharedRows, Sums, sums
from bayesmeta.learner import LinearMixedModel
from bayesmeta.learners.closed_form.last_layer import LinearLearner
from bayesmeta.learners.closed_form.linear_posterior import LinearTheta
from bayesmeta.learners.closed_form.mixed_model_summary import MixedModelDescription
from bayesmeta.learners.closed_form.scale import require_even
from bayesmeta.linalg import cholesky, log_volume, logdet, spanning_basis
from bayesmeta.networks.level_features import LevelFeatures
from bayesmeta.networks.network import Network
from bayesmeta.networks.requirements import require_network
from bayesmeta.noise import Noise
from bayesmeta.priors import FeatureCovariance, FullCovariance, SharedEffects
from bayesmeta.summaries import Columns, Summary

MOST_SHARED = 3_000  # effects of known levels: their covariance is dense


class MixedEffects(LinearLearner, LinearMixedModel):
    """A linear mixed model with random effects of the task and of further groupings, nested or crossed.

    The last inputs are the levels of the groupings, as `TaskDataset.from_frame(..., task=["school", "class"])` or
    `from_frame(..., task="plate", groups=["sample"])` puts them: 0, 1, ... of known levels, and any other number for
    one that is not known. A new task starts from what the training tasks have taught of its levels; in a level that is
    not known, from the prior of levels. A task of the training is taken for a new one, too, and its points would count
    twice: `remember` the others first.

    Without groupings (`levels=[]`) it is `ALPaCA` whose K_0 is not certain: what few tasks do not determine of it is in
    the predictive.

    Only the number of levels of the groupings is limited, not that of the tasks: where one has thousands of levels,
    take it as the task.

    Args:
        features: h, of the inputs before the levels.
        levels: how many known levels each grouping has (`tasks.schema.group_sizes`); may be empty.
        num_outputs: C.
        covariance: V, of the weights of a task; all features by default, or those that the network says.
        shared: V_g, of the weights of each grouping's levels; like V by default.
        noise: Σ; `DiagonalNoise(C)` by default, or `FullNoise`.

    Raises:
        DataError: a grouping without levels, or more than 3,000 effects of levels.
        ShapeError: covariances or noise that do not have F features or C outputs.
        UnsupportedError: the features are not a `Network` of vectors, or a covariance is not one of features.

    Example:
        >>> import bayesmeta as bm
        >>> import pandas as pd
        >>> frame = pd.DataFrame(
        ...     {
        ...         "school": ["A"] * 4 + ["B"] * 4 + ["C"] * 4,
        ...         "class": [1, 1, 2, 2] * 3,
        ...         "score": [50.0, 52.0, 47.0, 49.0, 61.0, 60.0, 62.0, 66.0, 55.0, 56.0, 59.0, 57.0],
        ...     }
        ... )
        >>> tasks = bm.TaskDataset.from_frame(frame, task=["school", "class"], x=[], y="score")
        >>> learner = bm.learners.MixedEffects(bm.Identity(0), tasks.schema.group_sizes).double()
        >>> _ = bm.fit_evidence(learner, tasks, bm.training.RestrictedMaximumLikelihood())
        >>> new = pd.DataFrame({"school": ["B", "D"], "class": [9, 9]})  # new classes, of school B and a new one
        >>> bm.predict_frame(learner, tasks.schema, frame.head(0), new)[["mean", "sd"]].round(1).values.tolist()
        [[61.9, 2.8], [56.2, 7.6]]
    """

    coupled = True

    prior: SharedEffects
    features: LevelFeatures

    def __init__(
        self,
        features: Network,
        levels: Sequence[int],
        *,
        num_outputs: int = 1,
        covariance: FeatureCovariance | None = None,
        shared: Sequence[FeatureCovariance] | None = None,
        noise: Noise | None = None,
    ) -> None:
        require_network(features)
        if len(features.x_shape) != 1:
            raise UnsupportedError(f"expected features of vectors, got inputs of shape {features.x_shape}")
        if any(count < 1 for count in levels):
            raise DataError(f"expected groupings of at least one level each, got {list(levels)}")
        size = features.num_outputs
        covariance = FullCovariance(size, varying=features.varying) if covariance is None else covariance
        shared = [FullCovariance(size, varying=features.varying) for _ in levels] if shared is None else list(shared)
        for each in (covariance, *shared):
            if not isinstance(each, FeatureCovariance):
                raise UnsupportedError(f"expected covariances of features, got {type(each).__name__}")
            if each.num_features != size:
                raise ShapeError(f"expected covariances over {size} features, got one over {each.num_features}")
        if len(shared) != len(levels):
            raise ShapeError(f"expected a covariance for each of {len(levels)} groupings, got {len(shared)}")
        effects = sum(count * len(each.varying) for count, each in zip(levels, shared, strict=True))
        if effects > MOST_SHARED:
            raise DataError(
                f"expected at most {MOST_SHARED:,} effects of known levels, got {effects:,}: take the grouping with "
                "the most levels as the task, whose number is not limited, or fewer varying features"
            )
        if noise is not None:
            require_even(noise)
        expanded = LevelFeatures(features, levels, [each.varying for each in shared])
        super().__init__(expanded, num_outputs, noise, lambda noise: SharedEffects(covariance, shared, levels, noise))
        first = features.x_shape[0]
        self.coded_inputs = tuple(range(first, first + len(levels)))
        self.known_noise = False  # what is summed over all tasks weighs their rows alike

    @override
    def joint_evidence(self, *data: Data) -> Float[Tensor, ""]:
        """log p of all tasks together, in nats, before anything was known of the levels.

        Raises:
            InferenceError: features that are not finite.
        """
        groups = [self.conform(each) for each in data]
        return self._evidence(groups, self.prior.location.double())

    @override
    def restricted_log_evidence(self, *data: Data) -> Float[Tensor, ""]:
        """log ∫ p(y | x, theta) dK_0 of all tasks together, in nats: K_0 under a flat hyperprior (REML).

        Features that are sums of those before them change nothing: the integral is over the weights of the others.

        Raises:
            InferenceError: a feature is so nearly a sum of others that this cannot be told.
        """
        groups = [self.conform(each) for each in data]
        basis = self._basis(groups)
        location, precision = self._least_squares(groups, basis)
        size_f, size_c = basis.shape[1], location.shape[1]
        noise = self.prior.noise.covariance().double()
        determinant = size_c * (torch.logdet(precision) - 2.0 * log_volume(self._all_rows(groups), basis))
        determinant = determinant - size_f * torch.logdet(noise)
        return self._evidence(groups, location) - 0.5 * determinant + 0.5 * size_f * size_c * math.log(2.0 * math.pi)

    @torch.no_grad()
    def maximise_location(self, *data: Data) -> None:
        """Set K_0 to its generalised-least-squares estimate given the covariances: of several, the smallest."""
        groups = [self.conform(each) for each in data]
        self.prior.location.copy_(self._least_squares(groups, self._basis(groups))[0])

    @torch.no_grad()
    def maximise_exactly(self, *data: Data) -> None:
        """Set K_0 and Σ where the density of all tasks is largest given the covariances in units of Σ.

        What does not require gradients stays as it is.
        """
        if self.prior.location.requires_grad:
            self.maximise_location(*data)
        if any(parameter.requires_grad for parameter in self.prior.noise.parameters()):
            points = sum(int(each.counts.sum()) for each in data)
            self.prior.noise.set_nearest(self.scatter(*data) / max(points, 1))

    @override
    def scatter(self, *data: Data) -> Float[Tensor, "C C"]:
        groups = [self.conform(each) for each in data]
        found, _ = self._sums(groups, [self._residual(each, self.prior.location) for each in groups])
        return found.explained()[0]

    @override
    def location_covariance(self, *data: Data) -> Float[Tensor, "F F"]:
        groups = [self.conform(each) for each in data]
        basis = self._basis(groups)
        return basis @ torch.linalg.solve(self._least_squares(groups, basis)[1], basis.mT)

    @override
    def described(self, columns: Columns, *data: Data) -> Summary:
        count = len(columns.inputs) - len(self.prior.levels)
        names, own = columns.inputs.names[count:], replace(columns, inputs=columns.inputs.part(slice(count)))
        if own.terms(self.features.features) is None:
            return super().described(columns, *data)
        covariances = dict(zip((columns.task, *names), (self.prior.covariance, *self.prior.groupings), strict=True))
        parameters = self.prior.location, self.prior.noise
        return MixedModelDescription(self, own, self.features.features, parameters, covariances, data).summary()

    @override
    @torch.no_grad()
    def remember(self, *data: Data) -> None:
        """Set K_0 and the belief in what tasks share to their posterior given all of these, K_0 under a flat prior.

        It starts anew from what the covariances say: what was remembered before is forgotten. A task that is among
        these should not be adapted to, as its points would count twice.
        """
        groups, prior = [self.conform(each) for each in data], self.prior
        basis = self._basis(groups)
        (found, blocks), inner = self._normal_equations(groups, basis), basis.shape[1]
        shared, cross = blocks.dense_matrix(found.shared), blocks.dense(found.cross)
        eye = torch.eye(len(shared), dtype=basis.dtype, device=basis.device)
        precision = torch.cat(
            [
                torch.cat([found.products[:inner, :inner], cross[:, :inner].mT], 1),
                torch.cat([cross[:, :inner], shared + eye], 1),
            ]
        )
        moment = torch.cat([found.products[:inner, inner:], cross[:, inner:]])
        factor = cholesky(precision, "precision of shared effects")
        mean = torch.cholesky_solve(moment, factor)
        whole = torch.eye(len(factor), dtype=basis.dtype, device=basis.device)
        root = torch.linalg.solve_triangular(factor.mT, whole, upper=True)  # C⁻ᵀ
        root = torch.cat([basis @ root[:inner], root[inner:]])
        padding = root.new_zeros(len(root), len(root) - root.shape[1])  # directions of K_0 that no point sees
        prior.location.copy_(basis @ mean[:inner])
        prior.shared_mean.copy_(mean[inner:])
        prior.shared_root.copy_(torch.cat([root, padding], 1))

    @override
    def configure_optimizer(self, lr: float = 1e-3) -> torch.optim.Optimizer:
        """Raises UnsupportedError: what a batch of tasks says of levels and of K_0 is forgotten with the next one."""
        raise UnsupportedError(
            "expected fit_evidence to train MixedEffects, got fit: its tasks are coupled through the levels that they "
            "share and through K_0, and a batch at a time is not enough. Without groupings take ALPaCA"
        )

    def level_effects(self, grouping: int = 0) -> tuple[Float[Tensor, "L F C"], Float[Tensor, "L F C"]]:
        """Posterior means and deviations of the effects of a grouping's known levels, over its varying features.

        Args:
            grouping: its position.

        Raises:
            DataError: there is no such grouping.

        Example:
            >>> import bayesmeta as bm
            >>> learner = bm.learners.MixedEffects(bm.Identity(0), [3]).double()
            >>> learner.remember(bm.Data.from_arrays([0.0, 1.0, 1.0], [1.0, 5.0, 6.0]))
            >>> mean, stddev = learner.level_effects()  # of the third level nothing has been seen
            >>> mean.flatten().round(decimals=2).tolist()
            [-1.29, 1.29, 0.0]
        """
        prior = self.prior
        if not 0 <= grouping < len(prior.levels):
            raise DataError(f"expected a grouping from 0 to {len(prior.levels) - 1}, got {grouping}")
        sizes = [len(each.varying) for each in prior.groupings]
        start = prior.covariance.num_features
        start += sum((count + 1) * size for count, size in zip(prior.levels[:grouping], sizes, strict=False))
        rows = slice(start, start + prior.levels[grouping] * sizes[grouping])
        shape = (prior.levels[grouping], sizes[grouping], -1)
        with torch.no_grad():
            spread = prior.full_factor()[rows].square().sum(-1, keepdim=True)
            variance = spread * prior.noise.covariance().double().diagonal()
            return prior.full_location()[rows].reshape(shape), variance.sqrt().reshape(shape)

    @override
    def theta(self) -> LinearTheta:
        return LinearTheta(
            features=self.features,
            location=self.prior.full_location(),
            factor=self.prior.full_factor(),
            output_covariance=self.prior.noise.covariance().double(),
        )

    def _design(self, data: Data) -> Float[Tensor, "B N F"]:
        return self.features.of_points(data.x).double()

    def _residual(self, data: Data, location: Tensor) -> Float[Tensor, "B N C"]:
        return data.y.double() - self._design(data) @ location.double()

    def _rows(self, data: Data) -> tuple[Float[Tensor, "B N R"], SharedRows]:
        """What points see of the effects of their task, and of those of known levels, whitened.

        The effect of a level that is not known is one more of the task.
        """
        design, codes = self._design(data), self.features.codes(data.x)
        none = codes.new_zeros(*codes.shape[:2], 0)
        own, start = [design @ self.prior.covariance.factor().double()], 0
        columns, values, real = [none], [none.to(design)], [none.bool()]
        for group, (count, each) in enumerate(zip(self.prior.levels, self.prior.groupings, strict=True)):
            size = len(each.varying)
            rows = design[..., list(each.varying)] @ each.square_factor().double()
            known = (codes[..., group] < count)[..., None]
            own.append(torch.where(known, 0.0, rows))
            values.append(rows)
            real.append((known & data.mask[..., None]).expand(rows.shape))
            places = codes[..., group, None].clamp(max=count - 1) * size + torch.arange(size, device=codes.device)
            columns.append(start + places)
            start += count * size
        shared = SharedRows(torch.cat(columns, -1), torch.cat(values, -1), torch.cat(real, -1))
        return torch.cat(own, -1), shared

    def _sums(self, groups: list[Data], rights: list[Tensor]) -> tuple[Sums, Blocks]:
        """What all tasks say of shared effects and of further columns Y, and which effects belong together."""
        rows = [self._rows(each) for each in groups]
        blocks = Blocks.of([(shared.columns, shared.real) for _, shared in rows], self.prior.num_shared)
        parts = [
            sums(own, shared.in_blocks(blocks), right, each.mask)
            for (own, shared), right, each in zip(rows, rights, groups, strict=True)
        ]
        return Sums.total(parts), blocks

    def _evidence(self, groups: list[Data], location: Tensor) -> Float[Tensor, ""]:
        scatter, determinant = self._sums(groups, [self._residual(each, location) for each in groups])[0].explained()
        noise = cholesky(self.prior.noise.covariance().double(), "noise covariance")
        points, size_c = sum(int(each.counts.sum()) for each in groups), len(noise)
        quadratic = torch.cholesky_solve(scatter, noise).trace()
        determinant = size_c * determinant + points * logdet(noise)
        return -0.5 * (quadratic + determinant + points * size_c * math.log(2.0 * math.pi))

    def _basis(self, groups: list[Data]) -> Float[Tensor, "F R"]:
        """B, where K_0 = B K': wherever the origin of the inputs is, the equations of K' are well conditioned."""
        return spanning_basis(self._all_rows(groups))

    def _all_rows(self, groups: list[Data]) -> Float[Tensor, "P F"]:
        """The features of all points."""
        return torch.cat([self._design(each)[each.mask].detach() for each in groups])

    def _normal_equations(self, groups: list[Data], basis: Tensor) -> tuple[Sums, Blocks]:
        """What all tasks say of the shared effects, of K', and of the outcomes."""
        return self._sums(groups, [torch.cat([self._design(each) @ basis, each.y.double()], -1) for each in groups])

    def _least_squares(self, groups: list[Data], basis: Tensor) -> tuple[Tensor, Tensor]:
        """K_0 = B K' by generalised least squares, and the precision of K' in units of the noise."""
        products, inner = self._normal_equations(groups, basis)[0].explained()[0], basis.shape[1]
        precision = products[:inner, :inner]
        return basis @ torch.linalg.solve(precision, products[:inner, inner:]), precision
