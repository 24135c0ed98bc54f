"""What samplers and guides work on, and the state in which they run."""

import contextlib
import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace

import pyro
import torch
from torch.distributions import Distribution

from bayesmeta.arguments import generator_of
from bayesmeta.data import Data
from bayesmeta.distributions import seeded
from bayesmeta.hyperpriors import Hyperprior
from bayesmeta.interop.pyro.programs import Program, program
from bayesmeta.learner import ExplicitLearner


def prepared(
    learner: ExplicitLearner, data: Data, hyperprior: Mapping[str, Distribution] | Hyperprior | None
) -> tuple[Program, ExplicitLearner, Data]:
    """The program of a frozen copy in float64, the copy, and the data in its precision."""
    program(learner, hyperprior)  # errors of what was given
    learner = copy.deepcopy(learner).double()
    model = program(learner, hyperprior)  # before theta is frozen: what is trained may be drawn
    learner = learner.requires_grad_(False)
    data = replace(data.clone(), x=data.x.double())
    return model, learner, learner.conform(data)


@contextlib.contextmanager
def isolated(seed: int) -> Iterator[None]:
    """A seed of its own; float64, in which Pyro's flows too are then made; nothing in Pyro's global parameter store."""
    before = torch.get_default_dtype()
    with seeded(generator_of(seed)), pyro.settings.context(module_local_params=True):
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(before)
