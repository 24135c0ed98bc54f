"""What is predicted as plain tensors with names: the parameters of the distribution of each point.

    Gaussian       mean, variance
    Student's t    mean, scale, degrees_of_freedom
    mixtures       weights, means, variances: of S Gaussian components
    labels         probabilities
    log-normal     log_mean, log_variance, and so on: the parameters of log y

All are of single points, in the user's units, with the noise of an observation.
"""

from torch import Tensor
from torch.distributions import Bernoulli, Categorical, MixtureSameFamily, Normal, StudentT

from bayesmeta.distributions import univariate
from bayesmeta.errors import UnsupportedError
from bayesmeta.predictives import AffinePredictive, ExponentialPredictive, GaussianPredictive, Predictive

AXES: dict[str, tuple[str, ...]] = {
    "mean": ("B", "M", "C"),
    "variance": ("B", "M", "C"),
    "scale": ("B", "M", "C"),
    "degrees_of_freedom": ("B", "M", "C"),
    "weights": ("B", "M", "C", "S"),
    "means": ("B", "M", "C", "S"),
    "variances": ("B", "M", "C", "S"),
    "probabilities": ("B", "M", "C"),
}
"""Axes of each tensor; C are outputs, or classes."""

MEANINGS: dict[str, str] = {
    "mean": "the mean of the outcome, in its units",
    "variance": "the variance of the outcome, in its units squared, with the noise of an observation",
    "scale": "the scale of a Student's t distribution around the mean, in units of the outcome",
    "degrees_of_freedom": "the degrees of freedom of that distribution",
    "weights": "the probability of each of S Gaussian components",
    "means": "the mean of each component, in units of the outcome",
    "variances": "the variance of each component, in units of the outcome squared",
    "probabilities": "the probability of each class",
}
"""What each tensor says."""

LOGARITHMIC = "log_"


def parameters(predictive: Predictive) -> dict[str, Tensor]:
    """The parameters of the distribution of each point, by name.

    Args:
        predictive: any, of numbers or labels.

    Raises:
        UnsupportedError: the distribution has no parameters here, as of counts or of a recalibrated learner.

    Example:
        >>> import bayesmeta as bm
        >>> from bayesmeta.interop.exporting.parameters import parameters
        >>> predictive = bm.ALPaCA(bm.Identity(1)).adapt(bm.Data.from_arrays([0.0], [1.0])).predict([0.5])
        >>> {name: tuple(value.shape) for name, value in parameters(predictive).items()}
        {'mean': (1, 1, 1), 'variance': (1, 1, 1)}
    """
    if isinstance(predictive, ExponentialPredictive):
        return {f"{LOGARITHMIC}{name}": value for name, value in parameters(predictive.base).items()}
    if _is_gaussian(predictive):  # its marginals of several outputs would factorise a matrix
        return {"mean": predictive.mean, "variance": predictive.variance}
    marginals = predictive.marginals
    if isinstance(marginals, Bernoulli | Categorical):
        return {"probabilities": predictive.probs}
    each = univariate(marginals)
    if isinstance(each, Normal):
        return {"mean": predictive.mean, "variance": predictive.variance}
    if isinstance(each, StudentT):
        return {"mean": each.loc, "scale": each.scale, "degrees_of_freedom": each.df.expand(each.loc.shape)}
    if isinstance(each, MixtureSameFamily) and isinstance(each.component_distribution, Normal):
        components = each.component_distribution
        return {
            "weights": each.mixture_distribution.probs.expand(components.loc.shape),
            "means": components.loc,
            "variances": components.scale.square(),
        }
    raise UnsupportedError(
        "expected Gaussian, Student's t or mixed Gaussian outcomes, their logarithms or class probabilities, got "
        f"{type(each).__name__}: such predictions are no few tensors, and cannot be exported"
    )


def _is_gaussian(predictive: Predictive) -> bool:
    inner = predictive.base if isinstance(predictive, AffinePredictive) else predictive
    return isinstance(inner, GaussianPredictive)


def described(name: str) -> tuple[tuple[str, ...], str]:
    """The axes of a tensor that `parameters` names, and what it says.

    Args:
        name: such as `mean`.

    Example:
        >>> from bayesmeta.interop.exporting.parameters import described
        >>> described("probabilities")
        (('B', 'M', 'C'), 'the probability of each class')
    """
    base = name.removeprefix(LOGARITHMIC)
    meaning = MEANINGS[base] if base == name else f"of the logarithm of the outcome: {MEANINGS[base]}"
    return AXES[base], meaning
