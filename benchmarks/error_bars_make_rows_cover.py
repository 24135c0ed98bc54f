"""With error bars every row is covered as it should be; without them precise rows are too wide and others too narrow.

Tasks are lines whose rows have error bars from a tenth of the spread of the lines to three times as much, and a little
noise beside them. ALPaCA is fitted by maximum likelihood with the error bars and without. Both predict rows that were
not seen, given eight of the task; coverage is of 90 % intervals, by thirds of the error bars. A learner that knows of
them is to be within 2 % in every third.
"""

import time

import numpy as np
import torch

import bayesmeta as bm
from benchmarks._report import verdict

SEED, TASKS, ROWS, SHOTS, LEVEL = 0, 2_000, 16, 8, 0.9


def tasks(seed: int, count: int) -> bm.TaskDataset:
    """Lines a + b x with a and b of N(0, 1), error bars log-uniform from 0.1 to 3, and noise of deviation 0.3."""
    generator = torch.Generator().manual_seed(seed)
    normal = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    x = 4.0 * torch.rand(count, ROWS, 1, generator=generator, dtype=torch.float64) - 2.0
    yerr = 10.0 ** (-1.0 + np.log10(30.0) * torch.rand(count, ROWS, 1, generator=generator, dtype=torch.float64))
    noise = 0.3 * normal(count, ROWS, 1) + yerr * normal(count, ROWS, 1)
    return bm.TaskDataset(bm.Data.full(x, normal(count, 1, 1) + normal(count, 1, 1) * x + noise, yerr.square()))


def without(data: bm.Data) -> bm.Data:
    """The same rows, of which nothing is known."""
    return bm.Data(data.x, data.y, data.mask)


def main() -> None:
    """Fit both on 100 tasks, and judge them on others."""
    start = time.process_time()
    train, test = tasks(SEED, 100), tasks(SEED + 1, TASKS).data
    support, query = test.points(slice(SHOTS)), test.points(slice(SHOTS, None))
    assert query.noise is not None
    thirds = torch.bucketize(query.noise.sqrt(), query.noise.sqrt().quantile(torch.tensor([1 / 3, 2 / 3]).double()))
    rows = {}
    for name, known in (("with error bars", True), ("without", False)):
        learner = bm.ALPaCA(bm.Identity(1)).double()
        bm.fit_evidence(learner, train if known else bm.TaskDataset(without(train.data)))
        posterior = learner.adapt(support if known else without(support))
        prediction = posterior.predict(query.x, query.noise.sqrt() if known else None)
        inside = ((prediction.cdf(query.y) - 0.5).abs() <= LEVEL / 2.0).double()
        shares = [inside[thirds == i].mean().item() for i in range(3)]
        error = (
            posterior.predict(query.x).noiseless.mean - query.y
        ).square() - query.noise  # of f and the learned noise
        rows[name] = (*shares, -prediction.marginal_log_prob(query.y).mean().item(), error.mean().item())
        print(
            f"{name:<16} coverage of 90 % intervals, small to large error bars: "
            + " ".join(f"{share:.3f}" for share in shares)
            + f"   NLL {rows[name][3]:.3f}   squared error of f {rows[name][4]:.3f}"
            + f"   learned noise deviation {learner.prior.noise.variance().sqrt().item():.3f}"
        )
    good = all(abs(share - LEVEL) < 0.02 for share in rows["with error bars"][:3])
    gain = rows["without"][3] - rows["with error bars"][3]
    what = "every third of the rows is" if good else "not every third of the rows is"
    seconds = time.process_time() - start
    verdict(f"{what} covered within 2 %, and a row gains {gain:.2f} nats by its error bar ({seconds:.0f} s)", SEED)


if __name__ == "__main__":
    main()
