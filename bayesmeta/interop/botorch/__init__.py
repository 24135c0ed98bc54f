"""To BoTorch: the posterior of a task as a model, for acquisition functions, fantasies and Thompson sampling.

    TaskModel                 the posterior of a task, or of a batch of tasks, as BoTorch's `Model`
    LogExpectedImprovement    also of mixtures of any weights and of Student's t
    get_matheron_path_model   (BoTorch's own) draws whole functions of it, exactly

`bayesmeta.interop.botorch.ax` is for Ax, and imports it.
"""

from bayesmeta.errors import UnsupportedError

try:
    import botorch as _  # noqa: F401
except ImportError as error:
    raise UnsupportedError("expected the package botorch: pip install 'bayesmeta[botorch]'") from error

from bayesmeta.interop.botorch.acquisition import LogExpectedImprovement
from bayesmeta.interop.botorch.paths import FunctionPaths
from bayesmeta.interop.botorch.posteriors import PartsPosterior
from bayesmeta.interop.botorch.task_model import TaskModel

__all__ = ["FunctionPaths", "LogExpectedImprovement", "PartsPosterior", "TaskModel"]
