"""Pyro's no-U-turn sampler: phi given theta, and theta and phi together."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from jaxtyping import Float
from pyro.infer.autoguide.initialization import init_to_median, init_to_sample
from pyro.infer.mcmc.util import initialize_model
from torch import Tensor
from torch.distributions import Distribution
from typing_extensions import override

from bayesmeta.data import Data
from bayesmeta.hyperpriors import Hyperprior
from bayesmeta.inference.chains import Chains, warn_unless_converged
from bayesmeta.inference.nuts import NUTS
from bayesmeta.inference.nuts_metric import DenseMetric
from bayesmeta.interop.pyro._preparation import isolated, prepared
from bayesmeta.interop.pyro.draws import HyperDraws
from bayesmeta.interop.pyro.programs import Program
from bayesmeta.learner import ExplicitLearner
from bayesmeta.modes import trained
from bayesmeta.typing import Params
from bayesmeta.wrappers.sampled import ChainsPosterior


@dataclass(frozen=True, eq=False, kw_only=True)
class NUTSPosterior(ChainsPosterior):
    """Draws by Pyro's no-U-turn sampler, as `nuts` gives them.

    More points mean chains that begin at the prior again, on all points. Its draws, chains and predictive are those of
    `wrappers.DrawsPosterior`.

    Attributes:
        jit_compile: whether torch.jit recorded the log density.

    Example:
        >>> import bayesmeta as bm
        >>> from bayesmeta.interop.pyro import nuts
        >>> learner, short = bm.ALPaCA(bm.Polynomial(1, 0)), bm.inference.NUTS(num_chains=2, num_draws=4, num_warmup=20)
        >>> posterior = nuts(learner, bm.Data.from_arrays([0.0], [0.3]), short)
        >>> posterior, posterior.draws["weight"].shape
        (posterior of 1 task after 1 point, torch.Size([8, 1, 1, 1]))
    """

    jit_compile: bool

    @override
    def extended(self, data: Data) -> "NUTSPosterior":
        support = self.support.append(data)
        return nuts(self.learner, support, self.sampler, jit_compile=self.jit_compile, seed=self.seed)


@trained
def nuts(
    learner: ExplicitLearner, data: Data, sampler: NUTS | None = None, *, jit_compile: bool = False, seed: int = 0
) -> NUTSPosterior:
    """p(phi | D, theta) by Pyro's no-U-turn sampler, chain by chain and task by task, in float64.

    The reference for `Sampled`, whose sampler runs all tasks and chains at once.

    Args:
        learner: prior, likelihood and network.
        data: the support of the tasks.
        sampler: chains, draws, warm-up, and whether masses are diagonal or dense; 2 chains of 500 draws after 300 of
            warm-up by default. Chains begin at draws from the prior.
        jit_compile: let torch.jit record the log density: two to three times as fast, where it can be.
        seed: of the randomness.

    Returns:
        Draws with their chains. Pyro keeps an acceptance for a chain, not for each draw: all have that of their chain.

    Warns:
        ConvergenceWarning: chains that disagree, or more than 1 in 20 divergent trajectories.

    Raises:
        UnsupportedError: the learner has no explicit prior and likelihood.

    Example:
        >>> import bayesmeta as bm
        >>> from bayesmeta.interop.pyro import nuts
        >>> learner, data = bm.ALPaCA(bm.Polynomial(1, 0)), bm.Data.from_arrays([0.0, 1.0], [1.0, 2.0])
        >>> posterior = nuts(learner, data, bm.inference.NUTS(num_chains=2, num_draws=50, num_warmup=20))
        >>> exact = learner.adapt(data)
        >>> bool((posterior.predict([0.5]).mean - exact.predict([0.5]).mean).abs() < 0.5)
        True
    """
    sampler = NUTS(num_chains=2, num_draws=500, num_warmup=300) if sampler is None else sampler
    model, learner, support = prepared(learner, data, None)
    tasks = []
    with isolated(seed):
        for b in range(support.num_tasks):
            alone = support.select([b])
            tasks.append([_chain(model, alone, sampler, jit_compile) for _ in range(sampler.num_chains)])
    draws = {
        name: torch.stack([torch.stack([chain.sites[name] for chain in task]) for task in tasks], 2)[:, :, :, 0, 0]
        for name in learner.prior.mean
    }
    with torch.no_grad():
        log_joint = learner.joint(support)(draws)

    def each(value: Callable[[_Chain], Tensor]) -> Tensor:
        """`chains S B`, or `chains B`."""
        return torch.stack([torch.stack([value(chain) for chain in task]) for task in tasks], -1)

    chains = Chains(
        draws,
        log_joint,
        each(lambda chain: chain.divergent),
        each(lambda chain: chain.acceptance),
        each(lambda chain: chain.leapfrogs),
        each(lambda chain: chain.step_size).log().mean(0).exp(),
    )
    warn_unless_converged(chains, sampler.target_acceptance)
    return NUTSPosterior(
        spec=support.spec,
        learner=learner,
        support=support,
        draws=chains.merged,
        chains=chains,
        sampler=sampler,
        seed=seed,
        jit_compile=jit_compile,
    )


def hyper_nuts(
    learner: ExplicitLearner,
    tasks: Data,
    hyperprior: Mapping[str, Distribution] | Hyperprior,
    sampler: NUTS | None = None,
    *,
    jit_compile: bool = False,
    seed: int = 0,
) -> HyperDraws:
    """p(theta, phi | tasks) by Pyro's no-U-turn sampler, in float64: theta and the phi of all tasks in one trajectory.

    A small deviation between tasks makes the density a funnel, which chains explore badly: look at `r_hat`. Where the
    learner has an evidence, `nuts_hyper_posterior` integrates phi out, and there is no funnel.

    Args:
        learner: prior, likelihood and network; its own theta is where a parameter without a hyperprior stays.
        tasks: the points of all tasks.
        hyperprior: as for `program`.
        sampler: as for `nuts`.
        jit_compile: as for `nuts`.
        seed: of the randomness.

    Raises:
        UnsupportedError: the learner has no explicit prior and likelihood.
        DataError: an unknown name, or no names.

    Example:
        >>> import bayesmeta as bm
        >>> from bayesmeta.interop.pyro import hyper_nuts
        >>> learner, tasks = bm.ALPaCA(bm.Polynomial(1, 0)), bm.Data.from_arrays([[0.0], [1.0]], [[0.3], [0.7]])
        >>> hyperprior = {"likelihood.noise.value": torch.distributions.HalfNormal(1.0)}
        >>> short = bm.inference.NUTS(num_chains=2, num_draws=4, num_warmup=5, max_depth=3)
        >>> hyper_nuts(learner, tasks, hyperprior, short)
        8 draws of theta and of phi of 1 task
    """
    sampler = NUTS(num_chains=2, num_draws=500, num_warmup=500) if sampler is None else sampler
    model, learner, support = prepared(learner, tasks, hyperprior)
    with isolated(seed):
        chains = [_chain(model, support, sampler, jit_compile) for _ in range(sampler.num_chains)]
    sites = {name: torch.stack([chain.sites[name] for chain in chains]) for name in chains[0].sites}
    divergent = torch.stack([chain.divergent for chain in chains])
    return HyperDraws.of_sites(learner, support, hyperprior, sites, divergent, divergent.new_zeros(0))


@dataclass(frozen=True, eq=False)
class _Chain:
    """One chain of Pyro's. `sites`: each value `S *batch *event`."""

    sites: Params
    divergent: Float[Tensor, "S"]
    acceptance: Float[Tensor, "S"]
    leapfrogs: Float[Tensor, "S"]
    step_size: Float[Tensor, ""]


def _init(site: dict[str, Any]) -> Tensor:
    """Where a chain begins: a draw from the prior of phi, and the median of theta's hyperprior."""
    is_phi = any(frame.name == "task" for frame in site["cond_indep_stack"])
    # theta may have heavy tails: one draw of it may be far out
    value: Tensor = init_to_sample(site) if is_phi else init_to_median(site, num_samples=5)
    return value.double()


class _Watched:
    """A potential that keeps what Pyro does not: how often it is asked for each draw, and the mean acceptance."""

    def __init__(self, potential: Callable[[Params], Tensor]) -> None:
        self.potential, self.calls, self.lengths, self.acceptance = potential, 0, list[int](), 0.0

    def __call__(self, z: Params) -> Tensor:
        self.calls += 1
        return self.potential(z)

    def after(self, kernel: Any, samples: Any, stage: str, i: int) -> None:
        """Pyro calls it after every transition."""
        if stage.startswith("Sample"):
            self.lengths.append(self.calls)
            self.acceptance = float(kernel.logging()["acc. prob"])  # the mean since the warm-up; gone after the run
        self.calls = 0


def _chain(model: Program, data: Data, sampler: NUTS, jit_compile: bool) -> _Chain:
    initial, potential, transforms, _ = initialize_model(
        model,
        (data,),
        max_plate_nesting=2,
        jit_compile=jit_compile,
        jit_options={"check_trace": False},
        skip_jit_warnings=True,
        init_strategy=_init,
    )
    watched = _Watched(potential)
    kernel = pyro.infer.NUTS(
        potential_fn=watched,
        transforms=transforms,
        full_mass=isinstance(sampler.metric, DenseMetric),
        target_accept_prob=sampler.target_acceptance,
        max_tree_depth=sampler.max_depth,
    )
    run = pyro.infer.MCMC(
        kernel,
        num_samples=sampler.num_draws,
        warmup_steps=sampler.num_warmup,
        initial_params=initial,
        disable_progbar=True,
        hook_fn=watched.after,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".torch.jit.trace. is deprecated", DeprecationWarning)  # Pyro's to replace
        run.run()
    count, dtype = sampler.num_draws, torch.float64
    divergent = torch.zeros(count, dtype=dtype)
    divergent[run.diagnostics()["divergences"]["chain 0"]] = 1.0
    step = torch.as_tensor(kernel.step_size, dtype=dtype)
    return _Chain(
        sites=run.get_samples(),
        divergent=divergent,
        acceptance=torch.full((count,), watched.acceptance, dtype=dtype),
        leapfrogs=torch.tensor(watched.lengths, dtype=dtype),
        step_size=step,
    )
