"""Our neural processes are meta-trained at least as fast as those of neuralprocesses, in tasks a second on one thread.

A step is forward, backward and Adam on a batch of tasks of the Gaussian-process benchmark: 50 targets, and context
sizes from 0 to 30, one for a batch. Drawing the tasks does not count. The other library's models have our number of
points a unit, channels, layers and kernel size, or our width; blocks and number of parameters are its own, it has no
transformer (its attentive process, whose queries attend once where a transformer's do in every layer, is compared with
our attentive one and with our transformer), and its lattice reaches as far beyond the data as ours or, as it does by
default, a tenth of a unit, where predictions depend on which others are asked for. Its ConvCNP is also timed as it
comes. Methods alternate, and medians of processor time are compared. A prediction is that of one task with 10 context
points at 50 targets, adapting included: mean and deviation.

`make bench-peers` installs the peer; without it our own figures are printed alone.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

import bayesmeta as bm
from benchmarks._neural_processes import PROCESSES, VARIANTS
from benchmarks._report import interleaved, verdict
from benchmarks._training import keep_memory
from benchmarks.peers import Batch, installed

SEED, CONTEXTS, TARGETS = 0, (0, 4, 8, 12, 18, 24, 30), 50
LEARNERS = PROCESSES | {"CNP-attentive": VARIANTS["CNP-attentive"]}
PAIRS = {
    "ConvCNP": "ConvCNP, same sizes and lattice",
    "CNP-attentive": "ACNP, same width",
    "transformer": "ACNP, same width",
    "CNP": "CNP, same width",
}
BAR = 2.0  # times as many tasks a second, for each pair


def batch(num_tasks: int, context: int) -> Batch:
    """Tasks of the benchmark."""
    functions, generator = bm.tasks.GPFunctions.eq(), torch.Generator().manual_seed(SEED)
    tasks = functions.draw(num_tasks, bm.tasks.RandomSplit.at(context, TARGETS), generator)
    return tasks.support.x, tasks.support.y, tasks.query.x, tasks.query.y


def task_batch(values: Batch) -> bm.TaskBatch:
    """The same for this library."""
    x, y, query_x, query_y = values
    return bm.TaskBatch(bm.Data.full(x, y), bm.Data.full(query_x, query_y))


def ours(learner: bm.Learner, tasks: list[bm.TaskBatch]) -> Callable[[], None]:
    """A step on each batch."""
    optimizer = learner.configure_optimizer(1e-3)

    def steps() -> None:
        for each in tasks:
            optimizer.zero_grad()
            learner.meta_loss(each).mean().backward()
            optimizer.step()

    return steps


def theirs(
    model: nn.Module, loss: Callable[[nn.Module, Batch], torch.Tensor], tasks: list[Batch]
) -> Callable[[], None]:
    """A step on each batch."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def steps() -> None:
        for each in tasks:
            optimizer.zero_grad()
            loss(model, each).backward()
            optimizer.step()

    return steps


def main() -> None:
    """Time training and prediction of ours and theirs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--learner", choices=list(LEARNERS), action="append", help="one alone; can be repeated")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    torch.manual_seed(SEED)
    learners = {name: LEARNERS[name].make() for name in arguments.learner or LEARNERS}
    found, absent = installed("neuralprocesses_models")
    models, peer = {}, None
    for package, peer in found.items():
        reach = 6 * (9 - 1) / 2 / 16  # of our lattice beyond the data: what 6 convolutions of 9 points see
        models = {
            "ConvCNP, same sizes and lattice": peer.convcnp(16, 32, 6, 9, reach),
            "ConvCNP, same sizes, its lattice": peer.convcnp(16, 32, 6, 9, 0.1),
            "ConvCNP, its defaults": peer.default_convcnp(),
            "ACNP, same width": peer.acnp(64, 4, 4),
            "CNP, same width": peer.cnp(128),
        }
        print(f"beside {package}")
    worst = {}
    for num_tasks in (16, 64):
        tasks = [batch(num_tasks, context) for context in CONTEXTS]
        functions = {name: ours(learner, [task_batch(each) for each in tasks]) for name, learner in learners.items()}
        if peer is not None:
            functions |= {name: theirs(model, peer.loss, tasks) for name, model in models.items()}
        times = interleaved(functions, arguments.rounds)
        print(
            f"\nmeta-training, {num_tasks} tasks a step\n  {'':<40}{'parameters':>12}{'ms a step':>11}{'tasks/s':>10}"
        )
        for name, value in times.items():
            numbers = sum(parameter.numel() for parameter in (learners | models)[name].parameters())
            step = value / len(CONTEXTS)
            title = f"bayesmeta: {name}" if name in learners else f"peer: {name}"
            print(f"  {title:<40}{numbers:>12}{1e3 * step:>11.2f}{num_tasks / step:>10.0f}", flush=True)
        for name, other in PAIRS.items():
            if {name, other} <= times.keys():
                worst[name] = min(worst.get(name, float("inf")), times[other] / times[name])
    one = batch(1, 10)
    asked: dict[str, Callable[[], object]] = {
        name: partial(_predicted, learner, task_batch(one)) for name, learner in learners.items()
    }
    if peer is not None:
        asked |= {name: torch.no_grad()(partial(peer.predict, model, one)) for name, model in models.items()}
    print(f"\nadapt and predict, one task\n  {'':<40}{'ms':>9}")
    for name, value in interleaved(asked, arguments.rounds, calls=10).items():
        print(f"  {f'bayesmeta: {name}' if name in learners else f'peer: {name}':<40}{1e3 * value:>9.2f}")
    if absent:
        verdict(f"absent: {', '.join(absent)} (make bench-peers installs it); nothing is compared", SEED)
        return
    parts = [f"{name} {ratio:.2f} times {PAIRS[name]}" for name, ratio in worst.items()]
    slow = [name for name, ratio in worst.items() if ratio < BAR]
    verdict(f"tasks a second: {'; '.join(parts)}; below the bar of {BAR}: {', '.join(slow) or 'none'}", SEED)


def _predicted(learner: bm.Learner, tasks: bm.TaskBatch) -> tuple[torch.Tensor, torch.Tensor]:
    prediction = learner.adapt(tasks.support).predict(tasks.query.x)
    return prediction.mean, prediction.stddev


if __name__ == "__main__":
    main()
