"""Few-shot learning with uncertainty that can be trusted.

The whole of it in four lines:

    learner = bayesmeta.ALPaCA(bayesmeta.MLP(1, [64, 64]))   theta, a prior and a likelihood
    bayesmeta.fit(learner, tasks)                            learn theta from many tasks
    posterior = learner.adapt(support)                       p(phi | D, theta) of a new task
    posterior.predict(x)                                     p(y | x, D, theta)

Here are the verbs, the core types, the learners, their networks and the errors. The rest is a namespace deeper:

    tasks         simulators, images, splits            likelihoods, noise     p(y | f)
    training      objectives, draws of theta            priors, hyperpriors    p(phi | theta), p(theta)
    calibration   recalibration, conformal prediction   kernels, heads         what learners are made of
    parametric    formulas with named parameters
    checks        sbc, fidelity, surprise               inference, predictives NUTS, solvers; what predictions are
    plotting      figures                               networks, learners, wrappers   base classes to inherit
    selection     candidates, cross-validation, stacking
    summaries     what `learner.summary` and `posterior.summary` give
"""

import threading

import lazy_loader

from bayesmeta.version import VERSION

__version__ = VERSION
# The names and where they are from stand in `__init__.pyi`. Each is imported when it is first asked for, so that what
# needs none of them (`bayesmeta --help`) does not wait for torch.
_first_asked_for, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
_one_at_a_time = threading.RLock()


def __getattr__(name: str) -> object:
    with _one_at_a_time:  # two threads that import the same files from two ends would stop each other
        return _first_asked_for(name)
