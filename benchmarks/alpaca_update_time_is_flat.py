"""Streaming: `posterior.update` of one point costs the same after 5,000 points as after 10, and stays exact.

A refit adapts on all points seen so far, and grows with them. Features are given, F = 64, noise variance 1e-4, weights
of unit variance. Drift is the difference between eight streams taken in one point at a time and the refit, both with
their linear algebra in float64: of the mean in predictive deviations, of the variance relatively, the largest of 200
queries. Times are of a posterior that holds so many points; all 1,024 streams see the same points, which no time
depends on.
"""

import torch

import bayesmeta as bm
from benchmarks._report import interleaved, verdict
from benchmarks.alpaca_adapt_is_fast import Given

SEED = 0
FEATURES, NOISE = 64, 1e-4
COUNTS = [10, 100, 1_000, 5_000]
DRIFTING = 8  # streams


def draw(generator: torch.Generator) -> bm.Data:
    x = torch.randn(DRIFTING, COUNTS[-1] + 1, FEATURES, generator=generator) / FEATURES**0.5
    weight = torch.randn(DRIFTING, FEATURES, 1, generator=generator)
    y = x @ weight + NOISE**0.5 * torch.randn(*x.shape[:2], 1, generator=generator)
    return bm.Data(x, y, torch.ones(x.shape[:2], dtype=torch.bool))


def part(data: bm.Data, start: int, stop: int) -> bm.Data:
    return bm.Data(data.x[:, start:stop], data.y[:, start:stop], data.mask[:, start:stop])


def repeat(data: bm.Data, streams: int) -> bm.Data:
    """The first stream `streams` times, without copying it."""
    return bm.Data(*(value[:1].expand(streams, *value.shape[1:]) for value in (data.x, data.y, data.mask)))


def drift(learner: bm.Learner, data: bm.Data, query: torch.Tensor) -> dict[int, tuple[float, float]]:
    """Errors of the mean and the variance after each count of points."""
    errors, posterior = {}, learner.adapt(bm.Data.empty(data))
    for seen in range(1, COUNTS[-1] + 1):
        posterior = posterior.update(part(data, seen - 1, seen))
        if seen in COUNTS:
            streamed, exact = posterior.predict(query), learner.adapt(part(data, 0, seen)).predict(query)
            mean = ((streamed.mean - exact.mean).abs() / exact.stddev).max().item()
            errors[seen] = mean, (streamed.noiseless.variance / exact.noiseless.variance - 1).abs().max().item()
    return errors


def times(learner: bm.Learner, data: bm.Data) -> tuple[dict[int, float], dict[int, float]]:
    """Microseconds a stream of an update and of a refit, after each count of points."""
    streams = data.num_tasks
    updates, refits = {}, {}
    for count in COUNTS:
        posterior = learner.adapt(part(data, 0, count - 1)).update(part(data, count - 1, count))
        more = part(data, count, count + 1)
        updates[count] = lambda posterior=posterior, more=more: posterior.update(more)
        seen = part(data, 0, count + 1)
        refits[count] = lambda seen=seen: learner.adapt(seen).predict(seen.x[:, :1])
    # a refit predicts one point too: its dual form leaves part of the work to prediction
    medians = (
        interleaved(updates, rounds=9, calls=max(1, 100 // streams)),
        interleaved(refits, rounds=3, calls=max(1, 10 // streams)),
    )
    each, refit = ({count: value / streams * 1e6 for count, value in median.items()} for median in medians)
    return each, refit


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(SEED)
    data = draw(generator)
    query = torch.randn(1, 200, FEATURES, generator=generator).expand(DRIFTING, -1, -1) / FEATURES**0.5
    covariance, noise = bm.priors.IsotropicCovariance(FEATURES, 1 / NOISE), bm.noise.DiagonalNoise(1, NOISE)
    learner = bm.ALPaCA(Given(FEATURES), covariance=covariance, noise=noise).frozen()

    flatness = {}
    print("streams   points   update, us a stream   refit, us a stream   refit / update")
    for streams in (1, 1024):
        update, refit = times(learner, repeat(data, streams))
        for count in COUNTS:
            ratio = refit[count] / update[count]
            print(f"{streams:7d} {count:8d} {update[count]:21.1f} {refit[count]:20.1f} {ratio:16.1f}")
        flatness[streams] = update[COUNTS[-1]] / update[COUNTS[0]]

    errors = drift(learner, data, query)
    print("\n points   error of the mean, predictive deviations   relative error of the variance")
    for count, (mean, variance) in errors.items():
        print(f"{count:7d} {mean:42.1e} {variance:32.1e}")
    mean, variance = (max(each) for each in zip(*errors.values(), strict=True))
    flat = ", ".join(f"{ratio:.2f} ({streams} stream{'s'[: streams - 1]})" for streams, ratio in flatness.items())
    verdict(
        f"update time at {COUNTS[-1]:,} points over {COUNTS[0]}: {flat}; "
        f"drift at most {mean:.0e} predictive deviations and {variance:.0e} of the variance",
        SEED,
    )


if __name__ == "__main__":
    main()
