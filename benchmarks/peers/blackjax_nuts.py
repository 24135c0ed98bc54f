"""BlackJAX's no-U-turn sampler on Bayesian linear regressions, one chain a row of `vmap`, as a process of its own.

JAX has threads and a heap of its own, so that it is kept apart from torch.

    python -m benchmarks.peers.blackjax_nuts TASKS CHAINS WARMUP DRAWS BITS

compiles once and writes the processor seconds of that; then it reads lines of a seed and a path, saves draws there,
`chains draws tasks parameters`, and writes the processor seconds of the run.
"""

import os
import sys
import time

import numpy as np
from numpy.typing import NDArray

TARGET = 0.8
POINTS, INPUTS = 10, 8


def regressions(tasks: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Inputs and outcomes of tasks: weights, intercept and noise are standard normal, and the noise is known."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(tasks, POINTS, INPUTS))
    weight, intercept = generator.normal(size=(tasks, INPUTS, 1)), generator.normal(size=(tasks, 1, 1))
    return x, x @ weight + intercept + generator.normal(size=(tasks, POINTS, 1))


def main() -> None:
    """Compile, then run for each seed."""
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    tasks, chains, warmup, draws, bits = map(int, sys.argv[1:6])
    import blackjax
    import jax

    jax.config.update("jax_enable_x64", bits == 64)
    kind = f"float{bits}"
    x, y = regressions(tasks)
    design = jax.numpy.asarray(np.concatenate([np.ones((tasks, POINTS, 1)), x], -1), kind)
    outcomes = jax.numpy.asarray(y[..., 0], kind)

    def chain(key, design, outcome):  # type: ignore[no-untyped-def]
        def log_joint(phi):  # type: ignore[no-untyped-def]
            return -0.5 * jax.numpy.sum((outcome - design @ phi) ** 2) - 0.5 * jax.numpy.sum(phi**2)

        first, second, third = jax.random.split(key, 3)
        start = jax.random.normal(first, (INPUTS + 1,), kind)
        adaptation = blackjax.window_adaptation(blackjax.nuts, log_joint, target_acceptance_rate=TARGET)
        (state, parameters), _ = adaptation.run(second, start, warmup)
        sampler = blackjax.nuts(log_joint, **parameters)

        def step(state, key):  # type: ignore[no-untyped-def]
            state, _ = sampler.step(key, state)
            return state, state.position

        return jax.lax.scan(step, state, jax.random.split(third, draws))[1]

    def keys(seed):  # type: ignore[no-untyped-def]
        return jax.random.split(jax.random.PRNGKey(seed), chains * tasks).reshape(chains, tasks, -1)

    every = jax.vmap(jax.vmap(chain), (0, None, None))
    start = time.process_time()
    run = jax.jit(every).lower(keys(0), design, outcomes).compile()
    print(time.process_time() - start, flush=True)
    for line in sys.stdin:
        seed, path = line.split()
        start = time.process_time()
        found = np.asarray(run(keys(int(seed)), design, outcomes))  # chains tasks draws parameters
        seconds = time.process_time() - start
        np.save(path, found.transpose(0, 2, 1, 3))
        print(seconds, flush=True)


if __name__ == "__main__":
    main()
