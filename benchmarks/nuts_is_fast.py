"""Our sampler, all tasks and chains in lock-step, gives more effective draws a second than Pyro's, task by task.

64 tasks of 10 points; phi is 9 numbers, the weights of a linear regression, so that the exact posterior is known. Pyro
samples a few tasks, with and without torch.jit, and what it costs is taken to grow with the number of tasks. Effective
draws of a task are those of the number of phi that mixes worst; time is processor time and has the warm-up in it.
"""

import argparse
import time

import torch
from torch import Tensor

import bayesmeta as bm
from bayesmeta.data import Data
from bayesmeta.inference.nuts import NUTS
from bayesmeta.interop.pyro import nuts, prior_predictive
from bayesmeta.wrappers.sampled import DrawsPosterior, Sampled
from benchmarks._report import verdict

TASKS, POINTS, INPUTS = 64, 10, 8
OURS = NUTS()  # 16 chains of 100 draws after 300
THEIRS = NUTS(num_chains=2, num_draws=150, num_warmup=150)


def vector(posterior: DrawsPosterior) -> Tensor:
    """`S B P`."""
    return torch.cat([value.flatten(2) for value in posterior.draws.values()], -1)


def main() -> None:
    """Sample, time, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=2, help="that Pyro samples")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)
    learner = bm.ALPaCA(bm.Identity(INPUTS), noise=bm.noise.DiagonalNoise(1, 1.0)).double()
    x, y = torch.randn(TASKS, POINTS, INPUTS).double(), torch.zeros(TASKS, POINTS, 1).double()
    blank = Data(x, y, torch.ones(TASKS, POINTS, dtype=torch.bool))
    data = Data(x, prior_predictive(learner, blank, num_draws=1)["y"][0], blank.mask)
    exact = learner.adapt(data)
    truth = exact.sample(20_000, torch.Generator().manual_seed(1))["weight"].flatten(2)

    def sampled(name: str, tasks: Data) -> tuple[DrawsPosterior, float]:
        start = time.process_time()
        if name == "bayesmeta":
            posterior = Sampled(learner, OURS, arguments.seed).adapt(tasks)
            assert isinstance(posterior, DrawsPosterior)
        else:
            posterior = nuts(learner, tasks, THEIRS, jit_compile=name == "Pyro, jit", seed=arguments.seed)
        return posterior, time.process_time() - start

    few = data.select(list(range(arguments.tasks)))
    print("           tasks  seconds  a task  steps a draw  effective draws a task  a second  R-hat  error of means")
    rates = {}
    for name, tasks in (("Pyro", few), ("Pyro, jit", few), ("bayesmeta", data)):
        posterior, seconds = sampled(name, tasks)
        chains, count = posterior.chains, tasks.num_tasks
        assert chains is not None
        effective = chains.effective_draws["weight"].flatten(1).amin(1)
        rates[name] = float(effective.sum()) / seconds
        # in units of what the number of effective draws lets expect: about 1 where the sampler is right
        gap = (vector(posterior).mean(0) - truth[:, :count].mean(0)) / truth[:, :count].std(0)
        error = (gap * chains.effective_draws["weight"].flatten(1).sqrt()).square().mean().sqrt()
        worst = float(chains.worst_r_hat.max())
        print(
            f"{name:10} {count:5d} {seconds:8.1f} {seconds / count:7.2f} {float(chains.leapfrogs.mean()):13.1f} "
            f"{float(effective.mean()):23.0f} {rates[name]:9.1f} {worst:6.3f} {float(error):15.2f}",
            flush=True,
        )
    plain, jit = (rates["bayesmeta"] / rates[name] for name in ("Pyro", "Pyro, jit"))
    verdict(
        f"with {TASKS} tasks of {INPUTS + 1} parameters, {plain:.0f} times as many effective draws a second as "
        f"Pyro task by task, {jit:.0f} times as many as with torch.jit",
        arguments.seed,
    )


if __name__ == "__main__":
    main()
