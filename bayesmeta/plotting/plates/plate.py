"""The plate diagram of a learner."""

from bayesmeta.errors import DataError
from bayesmeta.learner import Learner
from bayesmeta.plotting.plates.diagram import Diagram
from bayesmeta.plotting.plates.drawing import draw
from bayesmeta.plotting.plates.models import MODELS


def plate(learner: Learner | type[Learner] | Diagram) -> str:
    """Draw the model of a learner as a plate diagram: the text of an SVG, in the colours of the page it is put on.

    Dots are given (inputs, and what all tasks share), circles are unknown, double circles are computed, grey circles
    are observed; a box is repeated as often as its label says. A solid arrow is a part of the model; a dashed one is
    what a network or a rule computes. Every variable has its name in words as a tooltip, and all of it is in words in
    the `aria-label`.

    Args:
        learner: a learner, its class, or a `Diagram` of your own. A class that has no diagram of its own has that of
            the class it inherits from, at the latest the hierarchy that all learners are.

    Returns:
        SVG. Write it to a file, or put it into a page as it is.

    Raises:
        DataError: neither a learner, a class of learners nor a diagram.

    Example:
        >>> import bayesmeta as bm
        >>> svg = bm.plotting.plate(bm.ALPaCA)
        >>> bm.plotting.plate(bm.ALPaCA(bm.MLP(1, [8]))) == svg
        True
        >>> "tasks t = 1..T" in svg
        True
        >>> from pathlib import Path
        >>> Path("alpaca.svg").write_text(svg) > 0
        True
    """
    if isinstance(learner, Diagram):
        return draw(learner, "a model")
    found = learner if isinstance(learner, type) else type(learner)
    return draw(diagram(found), found.__name__)


def diagram(learner: Learner | type[Learner]) -> Diagram:
    """What `plate` draws: variables, arrows and plates, to look at or to change.

    Args:
        learner: a learner or its class.

    Raises:
        DataError: it is neither.

    Example:
        >>> import bayesmeta as bm
        >>> drawn = bm.plotting.diagram(bm.ALPaCA)
        >>> drawn.phi, drawn.node[drawn.phi].says
        ('W', 'last layer of the task')
    """
    found = learner if isinstance(learner, type) else type(learner)
    if not issubclass(found, Learner):
        raise DataError(f"expected a learner, a class of learners or a Diagram, got {learner!r}")
    return next(MODELS[base] for base in found.__mro__ if base in MODELS)
