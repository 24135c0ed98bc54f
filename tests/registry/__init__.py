"""One Case per learner, a file a family. A learner that is not here is not in the library."""

from tests.registry.amortized import AMORTIZED
from tests.registry.baselines import BASELINES
from tests.registry.case import Case
from tests.registry.closed_form import CLOSED_FORM
from tests.registry.gradient import GRADIENT
from tests.registry.metric import METRIC
from tests.registry.wrapped import WRAPPED

CASES = [*CLOSED_FORM, *GRADIENT, *METRIC, *AMORTIZED, *BASELINES, *WRAPPED]

__all__ = ["CASES", "Case"]
