"""What torchrun starts in test_distributed.py: `-m tests.training.restarted FOLDER`, killed once if it is so called."""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from typing_extensions import override

import bayesmeta as bm


class _Killed(bm.training.Callback):
    """The end of the first process, once, in the middle of a run."""

    @override
    def on_step(self, record: bm.training.StepRecord) -> None:
        if record.step == 27 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Train, and write down where it ended."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    folder, here = Path(sys.argv[1]), bm.training.Processes.here()
    tasks = bm.tasks.Sinusoid().dataset(30, 12, seed=1)
    learner = bm.LatentNeuralProcess(bm.Identity(1))
    callbacks = [_Killed()] if folder.name == "killed" else []
    result = bm.fit(learner, tasks, 40, checkpoint=folder / "run", every=10, resume="auto", callbacks=callbacks)
    theta = [value.flatten().tolist() for value in learner.state_dict().values()]
    (folder / f"{here.rank}.json").write_text(json.dumps([theta, result.losses]))
    (folder / "sittings").write_text(str(1 + int(os.environ["TORCHELASTIC_RESTART_COUNT"])))


if __name__ == "__main__":
    main()
