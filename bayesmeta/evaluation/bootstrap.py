"""The bootstrap over tasks: points of one task depend on each other, so that whole tasks are what is resampled."""

from collections.abc import Iterator

import numpy as np

MOST_BAGS = 10_000  # of tasks that are resampled
MOST_NUMBERS = 2**24  # weights in memory


def resampled(num_tasks: int, num_resamplings: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Weights of the tasks, how often each is in a resampling of them, some resamplings at a time.

    More than 10,000 tasks are put at random into as many bags, and the bags are resampled: their sums vary as those of
    the tasks do.

    Args:
        num_tasks: T.
        num_resamplings: rows in all.
        seed: of the draws.

    Yields:
        Weights, `R T`.

    Example:
        >>> [weights.sum(1).tolist() for weights in resampled(num_tasks=5, num_resamplings=3)]
        [[5.0, 5.0, 5.0]]
    """
    generator = np.random.default_rng(seed)
    bags = np.arange(num_tasks) * min(num_tasks, MOST_BAGS) // max(num_tasks, 1)
    if num_tasks > MOST_BAGS:  # neighbours in a table may be alike
        bags = generator.permutation(bags)
    count = int(bags.max()) + 1
    block = max(1, MOST_NUMBERS // num_tasks)
    for start in range(0, num_resamplings, block):
        drawn = generator.multinomial(count, np.full(count, 1.0 / count), size=min(block, num_resamplings - start))
        yield drawn.astype(float)[:, bags]
