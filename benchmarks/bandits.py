"""Bandits: Thompson sampling under a learned prior beside the true one, and Bernoulli arms beside published rewards.

Linear contextual bandits. Weights of 5 features vary between bandits around a mean that is not 0, in some directions
much and in others little; 8 arms, 200 steps. ALPaCA learns its prior from logs of 200 other bandits, 30 pulls of random
arms each (`fit_evidence`), and is then the posterior of `Thompson`. Beside it: the exact posterior under the true
prior, ALPaCA as it is before it has learned anything, and random arms. All play the same bandits.

Bernoulli arms, p ~ U(0, 1): the mean reward of N steps with K arms, beside those of Mishra et al. 2018 (SNAIL),
whose LSTM and MAML are Duan et al.'s 2016 and their own. Errors are standard errors over bandits.
"""

import argparse
import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

import bayesmeta as bm
from benchmarks._report import verdict

SEED, BAR = 0, 1.05
MEAN = (1.0, -0.5, 0.0, 0.0, 0.5)
DEVIATIONS = (1.5, 0.2, 0.8, 0.1, 0.4)
CORRELATION = 0.6  # of the first and the third weight
PUBLISHED: dict[tuple[int, int], tuple[float | None, ...]] = {  # Gittins, random, LSTM, MAML, SNAIL
    (10, 5): (6.6, 5.0, 6.7, 6.5, 6.6),
    (100, 5): (78.3, 49.9, 78.7, 67.1, 79.1),
    (500, 5): (405.8, 249.8, 401.5, None, 408.1),
}


def family() -> bm.tasks.LinearBandits:
    """The linear bandits that are played."""
    deviation = torch.tensor(DEVIATIONS, dtype=torch.float64)
    correlation = torch.eye(len(MEAN), dtype=torch.float64)
    correlation[0, 2] = correlation[2, 0] = CORRELATION
    covariance = deviation[:, None] * correlation * deviation
    return bm.tasks.LinearBandits(num_arms=8, mean=MEAN, covariance=covariance.tolist(), noise=2.0)


def moments(values: Tensor) -> tuple[float, float]:
    """The mean over bandits, and its standard error."""
    return values.mean().item(), (values.std() / math.sqrt(len(values))).item()


def linear(num_bandits: int, steps: int, logs: int, pulls: int) -> tuple[float, float]:
    """Play linear bandits; the ratio of regrets, learned prior to true prior, and its standard error."""
    bandits = family()
    start = time.process_time()
    learner = bm.ALPaCA(bm.Identity(len(MEAN)))
    unlearned = bm.ALPaCA(bm.Identity(len(MEAN)))
    bm.fit_evidence(learner, bandits.dataset(logs, pulls, seed=SEED + 1))
    nothing = bandits.nothing(num_bandits)
    print(f"linear contextual bandits, {num_bandits} of {steps} steps; prior from {logs} logs of {pulls} pulls")
    print(f"  prior learned in {time.process_time() - start:.1f} processor seconds: mean of the weights", end=" ")
    print([round(each, 2) for each in learner.prior.location[:, 0].tolist()], "(a constant first)")
    policies: dict[str, bm.tasks.Policy] = {
        "Thompson, true prior": bm.tasks.Thompson(bandits.oracle.adapt(nothing)),
        "Thompson, ALPaCA": bm.tasks.Thompson(learner.adapt(nothing)),
        "Thompson, ALPaCA untrained": bm.tasks.Thompson(unlearned.adapt(nothing)),
        "random arms": bm.tasks.RandomArms(),
    }
    regret = {}
    print(f"  {'policy':<28}{'regret':>20}{'in the first 10 steps':>24}{'seconds':>10}")
    for name, policy in policies.items():
        start = time.process_time()
        play = bm.tasks.play(bandits, policy, num_bandits, steps, SEED)
        regret[name] = play.regret
        early, error = moments(play.regret_by_step[:, :10].sum(-1))
        mean, own = moments(play.regret)
        line = f"{mean:.2f} ± {own:.2f}"
        print(
            f"  {name:<28}{line:>20}{f'{early:.2f} ± {error:.2f}':>24}{time.process_time() - start:>10.0f}", flush=True
        )
    exact, learned = regret["Thompson, true prior"], regret["Thompson, ALPaCA"]
    ratio = (learned.mean() / exact.mean()).item()
    # by the delta method, over bandits that both have played
    error = ((learned - ratio * exact).std() / math.sqrt(num_bandits) / exact.mean()).item()
    print(f"  regret with the learned prior / with the true one: {ratio:.3f} ± {error:.3f}\n")
    return ratio, error


def bernoulli(num_bandits: int) -> None:
    """Play Bernoulli bandits, and print the rewards beside the published ones."""
    print(f"Bernoulli bandits, {num_bandits} of each size: mean reward (standard error)")
    print(f"{'N, K':>8}{'Gittins':>16}{'random':>16}{'Thompson':>16}   published: Gittins, random, LSTM, MAML, SNAIL")
    for (steps, arms), published in PUBLISHED.items():
        bandits = bm.tasks.BernoulliBandits(arms)
        policies: list[Callable[[], bm.tasks.Policy]] = [
            lambda bandits=bandits, steps=steps: bm.tasks.Gittins.start(bandits, num_bandits, steps),
            bm.tasks.RandomArms,
            lambda bandits=bandits: bm.tasks.Thompson(bandits.oracle.adapt(bandits.nothing(num_bandits))),
        ]
        cells, start = "", time.process_time()
        for make in policies:
            mean, error = moments(bm.tasks.play(bandits, make(), num_bandits, steps, SEED).total)
            cells += f"{f'{mean:.2f} ({error:.2f})':>16}"
        row = " / ".join("-" if each is None else f"{each:g}" for each in published)
        print(f"{f'{steps}, {arms}':>8}{cells}   {row}   ({time.process_time() - start:.0f} s)", flush=True)


def main() -> None:
    """Play both families."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bandits", type=int, default=4000, help="bandits of each family")
    parser.add_argument("--steps", type=int, default=200, help="steps of a linear bandit")
    parser.add_argument("--logs", type=int, default=200, help="other bandits that the prior is learned from")
    parser.add_argument("--pulls", type=int, default=30, help="pulls of random arms in each of them")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    ratio, error = linear(arguments.bandits, arguments.steps, arguments.logs, arguments.pulls)
    bernoulli(arguments.bandits)
    met = "met" if ratio <= BAR else "missed"
    verdict(
        f"{met}: regret with a learned prior is {ratio:.3f} ± {error:.3f} times that with the true one (<= {BAR})", SEED
    )


if __name__ == "__main__":
    main()
