"""What a generalised linear mixed model has learned: fixed effects on the scale of its predictor, and variances."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmeta.data import Data
from bayesmeta.description import written
from bayesmeta.errors import BayesMetaError
from bayesmeta.learner import Learner
from bayesmeta.linalg import spanning_basis
from bayesmeta.networks.linear_predictor import LinearPredictor
from bayesmeta.networks.terms import Quantities, Terms
from bayesmeta.priors import FeatureCovariance
from bayesmeta.summaries import (
    Coefficients,
    Columns,
    Component,
    Correlation,
    Effect,
    Likelihood,
    MixedModelSummary,
)
from bayesmeta.summaries.mixed_model import of_levels
from bayesmeta.swapped import swapped

STEP = 1e-4  # of a fixed effect in units of its size, for the second derivatives
MOST_EFFECTS = 40  # fixed effects whose curvature is computed
NEAR = 0.05  # standard errors from the maximum over the fixed effects that count as there


def generalized_linear_summary(
    learner: Learner,
    predictor: LinearPredictor,
    covariance: FeatureCovariance,
    columns: Columns,
    data: Sequence[Data],
) -> MixedModelSummary | None:
    """The summary; None where the features mean nothing to a user.

    Standard errors of fixed effects are those of the curvature of the log-likelihood in them, at the covariance as it
    is.

    Args:
        learner: the model.
        predictor: of the typical task.
        covariance: between tasks.
        columns: names and units, as the learner sees them.
        data: the tasks of the training, or nothing.

    Example:
        >>> import bayesmeta as bm
        >>> each = [bm.Data.from_labels([0.0, 1.0, 2.0], y) for y in ([0, 1, 1], [0, 0, 1], [0, 1, 0], [1, 1, 1])]
        >>> tasks = bm.TaskDataset(bm.Data.stack(each))
        >>> model = bm.learners.GeneralizedLinearMixedModel(bm.Identity(1), likelihood=bm.likelihoods.Bernoulli())
        >>> summary = model.double().summary(tasks)
        >>> summary.fixed_effects.index.tolist(), summary.components[0].outcome
        (['intercept', 'x'], 'log odds of 1')
    """
    terms = predictor.features.terms(columns.inputs)
    if terms is None:
        return None
    outcomes = _outcomes(columns, predictor.num_outputs)
    fixed, references, undetermined = terms, tuple[str, ...](), 0
    if data:
        design = torch.cat([predictor.features(each.x)[each.mask].double().cpu() for each in data])
        undetermined = len(terms.names) - spanning_basis(design).shape[1]
        if undetermined:
            fixed, references = terms.contrasts(design)
    estimates = fixed.weights(predictor.location.double().cpu())
    # where more is undetermined than levels of categories are, there is nothing that errors could be of
    errors, is_maximum = None, False
    if undetermined == len(references):
        errors, is_maximum = _curvature(learner, predictor, fixed, data)
    between = terms.covariance(covariance.matrix().double().cpu())
    chosen = (terms.matrix[:, list(covariance.varying)] != 0.0).any(-1).nonzero().flatten().tolist()
    likelihood = None
    if data:
        tasks, points = sum(each.num_tasks for each in data), sum(int(each.counts.sum()) for each in data)
        size = sum(parameter.numel() for parameter in learner.parameters()) - undetermined * predictor.num_outputs
        total = float(learner.joint_evidence(*data))
        likelihood = Likelihood(tasks, points, total, None, size, "ML" if is_maximum else "")
    return MixedModelSummary(
        title=written(learner),
        kind="a generalised linear mixed model",
        effects=tuple(
            Effect(outcome, name, estimates[f, c].item(), None if errors is None else errors[f, c].item())
            for c, outcome in enumerate(outcomes)
            for f, name in enumerate(fixed.names)
        ),
        components=tuple(
            Component(columns.task, outcome, terms.names[f], max(between[f, f].item(), 0.0))
            for outcome in outcomes
            for f in chosen
        ),
        pairs=tuple(Correlation.of(columns.task, [terms.names[f] for f in chosen], between[chosen][:, chosen])),
        likelihood=likelihood,
        notes=(
            f"Effects are on the scale of the linear predictor: {', '.join(dict.fromkeys(outcomes))}.",
            *([of_levels(references)] if references else []),
        ),
    )


def generalized_linear_coefficients(
    weights: Float[Tensor, "S B F K"], predictor: LinearPredictor, columns: Columns
) -> Coefficients | None:
    """What is believed of the weights of tasks; None where the features mean nothing to a user.

    Args:
        weights: draws of them.
        predictor: of the typical task.
        columns: names and units, as the learner sees them.
    """
    outcomes = Quantities.named(_outcomes(columns, predictor.num_outputs))
    return Coefficients.of_weights(weights, predictor.features, replace(columns, outcomes=outcomes))


def _outcomes(columns: Columns, count: int) -> list[str]:
    """What each linear predictor is of."""
    if len(columns.classes) == 2 and count == 1:
        return [f"log odds of {columns.classes[1]}"]
    if len(columns.classes) == count:
        return [f"log odds of {name}" for name in columns.classes]
    names = columns.outcomes.names
    return [f"log of {name}" for name in names] if len(names) == count else [f"predictor {i}" for i in range(count)]


def _curvature(
    learner: Learner, predictor: LinearPredictor, terms: Terms, data: Sequence[Data]
) -> tuple[Float[Tensor, "R K"] | None, bool]:
    """Standard errors of the user's fixed effects, and whether the likelihood is at its maximum in them."""
    location = predictor.location
    if not data or location.numel() > MOST_EFFECTS:
        return None, False

    def gradient(value: Tensor) -> Tensor:
        with torch.enable_grad():
            moved = value.detach().clone().requires_grad_(True)
            with swapped(learner, {location: moved}):
                total = learner.joint_evidence(*data)
            (found,) = torch.autograd.grad(total, moved)
        return found.double().cpu().flatten()

    here, columns = location.detach(), []
    try:
        start = gradient(here)
        for place in range(location.numel()):
            step = torch.zeros_like(here).flatten()
            step[place] = STEP
            step = step.reshape(here.shape)
            columns.append((gradient(here + step) - gradient(here - step)) / (2.0 * STEP))
    except (BayesMetaError, RuntimeError):  # an evidence that has no derivative
        return None, False
    information = -torch.stack(columns)
    information = 0.5 * (information + information.mT)
    if not bool(information.isfinite().all()):
        return None, False
    sizes, axes = torch.linalg.eigh(information)
    lost = (terms.matrix.shape[1] - len(terms.names)) * here.shape[-1]  # directions that no point tells of
    sizes, axes = sizes[lost:], axes[:, lost:]
    if bool((sizes <= 0.0).any()):
        return None, False
    distance = (axes.mT @ start / sizes.sqrt()).norm()
    covariance = (axes / sizes @ axes.mT).reshape(*here.shape, *here.shape)  # F K F K
    moved = torch.einsum("af,fkgl,bg->akbl", terms.matrix, covariance, terms.matrix)
    variances = torch.einsum("akak->ak", moved)
    return variances.clamp(min=0.0).sqrt(), bool(distance < NEAR)
