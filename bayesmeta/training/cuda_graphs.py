"""A compiled step as one launch: its kernels are recorded on the GPU once, and replayed.

A meta-step is hundreds of small kernels, which a GPU computes faster than they are launched. A CUDA graph launches all
of them at once. It reads and writes the same memory every time: shapes are fixed, inputs are copied to where it reads
them, and what it gives is overwritten by the next replay.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from typing_extensions import override

from bayesmeta.torch_private import copy_each
from bayesmeta.training.compiled import CompiledStep, Program

WARMUP = 3  # runs before the recording, in which libraries make their workspaces
KINDS = ("cuda",)  # devices that record


class CudaGraphStep(CompiledStep):
    """A `CompiledStep` that records its program as a CUDA graph, one for every shape of a batch: `fit` takes it.

    It is worth its while where steps are short and batches have few different sizes: episodes, tasks of one length. On
    other devices, and for a program that cannot be recorded (it changes a buffer, or waits for the GPU, as some solvers
    do), it is a `CompiledStep`.

    It was rehearsed on a CPU with a recording that is pretended, and has not run on a GPU yet. So it is a type of its
    own (`bm.fit(..., compile=bm.training.CudaGraphStep)`) and not what `compile=True` does there;
    `benchmarks/on_gpu.py` compares the two.

    The gradients that a call leaves in `.grad` are overwritten by the next call.

    Attributes:
        recordings: how many programs have been recorded.

    Example:
        >>> import bayesmeta as bm
        >>> learner = bm.ALPaCA(bm.Identity(1))
        >>> batch = learner.conform_tasks(bm.tasks.Sinusoid().dataset(3, 8, seed=0).divided(bm.tasks.RandomSplit.at(5)))
        >>> step = bm.training.CudaGraphStep(learner, learner.loss)
        >>> losses, mean = step.record(batch)
        >>> losses.shape, step.recordings
        (torch.Size([3]), 0)
    """

    recordings = 0

    @override
    def executable(self, run: Program, inputs: Sequence[Tensor]) -> Program:
        if any(value.device.type not in KINDS for value in inputs):
            return run
        kept = [value.detach().clone() for value in inputs]
        try:
            replay = recording(run, kept)
        except RuntimeError:  # of CUDA: something in the program cannot be recorded, and is launched as before
            return run
        if not all(map(torch.equal, kept, inputs)):  # it changes a buffer, of which the recording has a copy
            return run
        self.recordings += 1

        def call(*values: Tensor) -> Sequence[Tensor]:
            copy_each(kept, values)
            each, loss, *gradients = replay()
            return [each.clone(), loss.clone(), *gradients]  # the gradients are gone before the next step

        return call


def recording(run: Program, inputs: Sequence[Tensor]) -> Callable[[], Sequence[Tensor]]:
    """A function that replays the program on what is in these tensors, and gives the same outputs filled anew.

    What it draws goes on with torch's generator of the device, as it would without a recording.

    Args:
        run: the program. It is run some times before.
        inputs: where it reads.

    Raises:
        RuntimeError: it cannot be recorded.
    """
    device = inputs[0].device
    with torch.cuda.device(device), torch.random.fork_rng([torch.cuda.current_device()]):
        side, main = torch.cuda.Stream(), torch.cuda.current_stream()
        side.wait_stream(main)
        with torch.cuda.stream(side):
            for _ in range(WARMUP):
                run(*inputs)
        main.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = list(run(*inputs))

    def replay() -> Sequence[Tensor]:
        graph.replay()
        return outputs

    return replay
