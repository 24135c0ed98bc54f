"""Plate diagrams of programs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyro
from torch.distributions import Distribution

from bayesmeta.data import Data
from bayesmeta.errors import UnsupportedError
from bayesmeta.hyperpriors import Hyperprior
from bayesmeta.interop.pyro.programs import program
from bayesmeta.learner import ExplicitLearner


def render(
    learner: ExplicitLearner,
    data: Data,
    hyperprior: Mapping[str, Distribution] | Hyperprior | None = None,
    *,
    file: str | Path | None = None,
) -> Any:
    """The plate diagram of a learner's program, with the distribution of every site.

    Args:
        learner: prior, likelihood and network.
        data: any tasks.
        hyperprior: as for `program`.
        file: an image to write; its ending says the format (svg, png, pdf).

    Returns:
        A `graphviz.Digraph`; its `source` is in the DOT language. Notebooks show it.

    Raises:
        UnsupportedError: the package graphviz is missing, or, for an image, Graphviz's program `dot`; the source needs
            no program. Or the learner has no explicit prior and likelihood.

    Example:
        >>> import bayesmeta as bm
        >>> from bayesmeta.interop.pyro import render
        >>> source = render(bm.ALPaCA(bm.Identity(1)), bm.Data.from_arrays([0.0], [0.3])).source
        >>> "weight ~ MatrixNormal" in source, "y ~" in source
        (True, True)
    """
    model = program(learner, hyperprior)
    try:
        import graphviz
    except ImportError as error:
        raise UnsupportedError(
            "expected the package graphviz for diagrams: pip install 'bayesmeta[graphviz]'"
        ) from error
    try:
        return pyro.render_model(
            model, (data,), filename=None if file is None else str(file), render_distributions=True
        )
    except graphviz.ExecutableNotFound as error:
        raise UnsupportedError(
            "expected Graphviz's program dot on the path to write an image, found none: install Graphviz "
            "(apt install graphviz), or take the source, which needs no program: render(...).source"
        ) from error
