"""What a linear mixed model has learned, in the user's units: fixed effects, variances, and where a fit is singular."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesmeta.data import Data
from bayesmeta.description import written
from bayesmeta.errors import InferenceError, UnsupportedError
from bayesmeta.learner import LinearMixedModel
from bayesmeta.learners.closed_form.last_layer import LinearLearner
from bayesmeta.linalg import independent_columns, root_mean_squares, spanning_basis
from bayesmeta.networks.network import Network
from bayesmeta.networks.terms import Terms
from bayesmeta.noise import HeteroscedasticNoise, Noise, Positive
from bayesmeta.priors import FeatureCovariance
from bayesmeta.summaries import Columns, Component, Correlation, Effect, Likelihood, MixedModelSummary
from bayesmeta.summaries.mixed_model import RESIDUAL, of_levels

NEGLIGIBLE = 1e-3  # nats that a task of the most points could tell of a variance: below, it is none
NEAR = 0.05  # of a fixed effect: how near the noise has to be to what a criterion makes of it


class MixedModelDescription:
    """The summary of one linear mixed model.

    Args:
        learner: the model.
        columns: names and units, as it sees them.
        features: h, of the inputs without levels of groupings.
        parameters: K_0 and Σ.
        covariances: V of tasks, and of each grouping, by name.
        data: the tasks of the training, or nothing.

    Example:
        >>> import bayesmeta as bm
        >>> learner, data = bm.ALPaCA(bm.Identity(1)).double(), bm.Data.from_arrays([0.0, 1.0, 2.0], [0.1, 0.8, 2.3])
        >>> parameters, covariances = (learner.prior.location, learner.prior.noise), {"task": learner.prior.covariance}
        >>> columns = Columns.of((1,), bm.Numbers(1))
        >>> with torch.no_grad():
        ...     found = MixedModelDescription(
        ...         learner, columns, learner.features, parameters, covariances, [data]
        ...     ).summary()
        >>> [effect.term for effect in found.effects], len(found.components)
        (['intercept', 'x'], 3)
    """

    def __init__(
        self,
        learner: LinearLearner,
        columns: Columns,
        features: Network,
        parameters: tuple[Float[Tensor, "F C"], Noise],
        covariances: dict[str, FeatureCovariance],
        data: Sequence[Data],
    ) -> None:
        self.learner, self.columns, self.covariances, self.data = learner, columns, covariances, list(data)
        found = columns.terms(features)
        if found is None or not isinstance(learner, LinearMixedModel):
            raise UnsupportedError("expected a linear mixed model of features with names")
        self.terms: Terms = found
        self.model: LinearMixedModel = learner
        self.location, self.noise = parameters
        size = features.x_shape[0]
        rows = [features(each.x[..., :size])[each.mask].double().cpu() for each in self.data]
        self.design = torch.cat(rows) if rows else None
        self.sigma = self.noise.covariance().double().cpu()
        self.units = self.sigma.diagonal().sqrt() * columns.y_scale  # deviations of the noise, in the user's units
        self.fixed, self.references = self.terms, tuple[str, ...]()
        if self.design is not None and not bool(self._determined(self.terms).all()):
            self.fixed, self.references = self.terms.contrasts(self.design)

    def summary(self) -> MixedModelSummary:
        """All of it."""
        return MixedModelSummary(
            title=written(self.learner),
            kind="a linear mixed model",
            effects=self._effects(),
            components=self._components(),
            pairs=self._correlations(),
            shares=self._shares(),
            likelihood=self._likelihood() if self.data else None,
            notes=tuple(self._notes()),
        )

    def _effects(self) -> tuple[Effect, ...]:
        estimates, errors = self.columns.weights(self.fixed, self.location.double().cpu()), self._errors()
        return tuple(
            Effect(outcome, name, estimates[f, c].item(), None if errors is None else _finite(errors[f, c]))
            for c, outcome in enumerate(self.columns.outcomes.names)
            for f, name in enumerate(self.fixed.names)
        )

    def _errors(self) -> Float[Tensor, "F C"] | None:
        """Standard errors; NaN of effects that the inputs do not determine."""
        if not self.data or self.learner.scale is not None:
            return None
        try:
            covariance = self.fixed.covariance(self.model.location_covariance(*self.data).double().cpu())
        except (UnsupportedError, InferenceError):
            return None
        errors = covariance.diagonal().clamp(min=0.0).sqrt()[:, None] * self.units
        return torch.where(self._determined(self.fixed)[:, None], errors, torch.nan)

    def _determined(self, terms: Terms) -> Bool[Tensor, "F"]:
        """Whose weights the inputs of all tasks determine."""
        if self.design is None:
            return torch.ones(len(terms.names), dtype=torch.bool)
        scale = root_mean_squares(self.design)
        _, values, right = torch.linalg.svd(self.design / scale, full_matrices=False)
        seen = right[values > 1e-10 * values.amax()]
        wanted = terms.matrix / scale
        missed = wanted - wanted @ seen.mT @ seen
        return missed.square().sum(-1) < 1e-12 * wanted.square().sum(-1)

    def _covariance(self, group: str) -> Float[Tensor, "F F"]:
        """Of the weights of the user's terms, in units of the noise."""
        return self.terms.covariance(self.covariances[group].matrix().double().cpu())

    def _varying(self, group: str) -> list[int]:
        """The user's terms whose weights differ: with a slope that differs in other units the intercept does, too."""
        moved = self.terms.matrix[:, list(self.covariances[group].varying)]
        return (moved != 0.0).any(-1).nonzero().flatten().tolist()

    def _components(self) -> tuple[Component, ...]:
        found = []
        for c, outcome in enumerate(self.columns.outcomes.names):
            for group in self.covariances:
                variances = self._covariance(group).diagonal() * self.units[c].square()
                found += [
                    Component(group, outcome, self.terms.names[f], max(variances[f].item(), 0.0))
                    for f in self._varying(group)
                ]
            found.append(Component(RESIDUAL, outcome, "", self.units[c].square().item()))
        return tuple(found)

    def _correlations(self) -> tuple[Correlation, ...]:
        found = list[Correlation]()
        for group in self.covariances:
            names = [self.terms.names[f] for f in self._varying(group)]
            chosen = self._varying(group)
            found += Correlation.of(group, names, self._covariance(group)[chosen][:, chosen])
        return (*found, *Correlation.of(RESIDUAL, self.columns.outcomes.names, self.sigma))

    def _shares(self) -> tuple[tuple[str, float], ...]:
        """hᵀ V h over the whole variance, averaged over the points."""
        if self.design is None:
            return ()
        factors = [each.factor().double().cpu() for each in self.covariances.values()]
        sizes = [float((self.design @ factor).square().sum(-1).mean()) for factor in factors]
        noise = [self.noise.relative(each.x) for each in self.data]
        own = [each[data.mask].double().cpu() for each, data in zip(noise, self.data, strict=True) if each is not None]
        total = sum(sizes) + (float(torch.cat(own).mean()) if own else 1.0)
        return tuple((name, size / total) for name, size in zip(self.covariances, sizes, strict=True))

    def _likelihood(self) -> Likelihood:
        tasks, points = (
            sum(each) for each in zip(*((d.num_tasks, int(d.counts.sum())) for d in self.data), strict=True)
        )
        volume, outcomes = self.columns.log_volume, len(self.units)
        total = float(self.learner.joint_evidence(*self.data)) - points * volume
        restricted = None
        try:
            if self.design is None or self._rank() < len(self.fixed.names):  # flat in which effects, is not clear
                raise UnsupportedError("expected fixed effects that the inputs determine")
            # flat in the user's fixed effects M K_0 s, and not in K_0, of which some may be zero
            matrix = self.fixed.matrix[:, independent_columns(self.design, self._rank())]
            jacobian = len(self.fixed.names) * volume + outcomes * float(torch.linalg.slogdet(matrix)[1])
            restricted = float(self.model.restricted_log_evidence(*self.data)) - points * volume + jacobian
        except (UnsupportedError, InferenceError):
            pass
        trained = [each for each in self.learner.parameters() if each.requires_grad] or [*self.learner.parameters()]
        # of fixed effects, those that are determined
        size = sum(each.numel() for each in trained) - (len(self.terms.names) - self._rank()) * outcomes
        return Likelihood(tasks, points, total, restricted, size, self._criterion(points))

    def _criterion(self, points: int) -> str:
        """Which likelihood the noise maximises, given all else; empty where neither."""
        try:
            scatter = self.model.scatter(*self.data).double().cpu()
        except (UnsupportedError, InferenceError):
            return ""
        effective = float(torch.linalg.solve(self.sigma, scatter).trace()) / len(self.sigma)
        rank = self._rank()
        for name, count in (("ML", points), ("REML", points - rank)):
            if abs(effective - count) < NEAR * max(rank, 1):
                return name
        return ""

    def _rank(self) -> int:
        """How many fixed effects the inputs determine."""
        return 0 if self.design is None else spanning_basis(self.design).shape[1]

    def _notes(self) -> list[str]:
        notes = [note for group in self.covariances for note in self._boundary(group)]
        if self.references:
            notes.append(of_levels(self.references))
        determined = self._determined(self.fixed)
        if not bool(determined.all()):
            names = [name for name, known in zip(self.fixed.names, determined, strict=True) if not known]
            notes.append(
                f"The inputs do not determine the fixed effects of {', '.join(names[:6])}: some are sums of others. "
                "Only what they add up to means something; leave one out."
            )
        values = [each for each in self.noise.modules() if isinstance(each, Positive)]
        if any(each.at_bounds for each in values):
            notes.append(
                "The noise is at a bound: the features fit every point exactly, or the unit of the outcome is far from "
                "its scatter. Standard errors mean nothing here."
            )
        if isinstance(self.noise, HeteroscedasticNoise):
            notes.append("The noise depends on the inputs: that of the table is where its factor is 1.")
        if any(each.noise is not None for each in self.data):
            notes.append("Points have known noise of their own: the residual is what comes on top of it.")
        if self.learner.scale is not None:
            dof = self.learner.scale.dof().item()
            notes.append(
                f"Each task has a scale of its own, with {dof:.1f} degrees of freedom: variances are those of a "
                "typical task, and there are no standard errors."
            )
        if len(self.units) > 1:
            notes.append("Random effects of several outcomes go together as their noise does.")
        return notes

    def _boundary(self, group: str) -> list[str]:
        """Where a covariance has lost a dimension, in words, with what to do."""
        covariance, size = self.covariances[group], len(self.covariances[group].varying)
        if not size:
            return []
        largest = max((int(each.counts.max()) for each in self.data), default=1)
        design = torch.eye(covariance.num_features).double() if self.design is None else self.design
        root = torch.linalg.solve_triangular(
            covariance.unit_basis(design).double().cpu(), covariance.square_factor().double().cpu(), upper=False
        )
        rank = int((torch.linalg.svdvals(root).square() * largest >= NEGLIGIBLE).sum())
        if rank == size:
            return []
        advice = (
            "It is a singular fit: a likelihood may well be largest there with few tasks, or few points in each. "
            "Predictions are sound, but too sure of it. Leave the term out of what varies, or average over theta "
            "(method stack, bm.HyperPosterior)."
        )
        chosen = self._varying(group)
        names = [self.terms.names[f] for f in chosen]
        matrix = self._covariance(group)[chosen][:, chosen]
        sizes = matrix.diagonal()
        if self.design is not None:
            sizes = sizes * self.terms.shown(self.design)[:, chosen].square().mean(0)
        zero = [name for name, value in zip(names, (sizes * largest).tolist(), strict=True) if value < NEGLIGIBLE]
        if zero:
            what = f"the variance of {', '.join(zero)} between {_plural(group)} is zero"
        elif len(names) == 2:
            sign = "+1" if matrix[0, 1] > 0.0 else "-1"
            what = f"the correlation of {names[0]} and {names[1]} between {_plural(group)} is {sign}"
        else:
            what = f"the covariance of {', '.join(names)} between {_plural(group)} has {rank} dimensions of {size}"
        return [f"Boundary: {what}. {advice}"]


def _finite(value: Tensor) -> float | None:
    number = value.item()
    return None if number != number else number


def _plural(group: str) -> str:
    return "tasks" if group == "task" else f"the levels of {group}"
