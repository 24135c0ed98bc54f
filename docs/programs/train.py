"""The same training by `python`, `torchrun` and `accelerate launch`: `fit` finds out how many processes there are."""

import bayesmeta as bm


def main(steps: int = 2_000, folder: str = "runs/sinusoids") -> None:
    """Train on sinusoids, in however many processes this was started."""
    here = bm.training.Processes.here()
    tasks = bm.tasks.Sinusoid().dataset(num_tasks=1_000, num_points=20, seed=0)  # all tasks, in every process
    held_out = bm.tasks.Sinusoid().dataset(num_tasks=100, num_points=20, seed=1)
    learner = bm.Standardized(bm.MAML(bm.MLP(1, [40, 40]), steps=5))
    result = bm.fit(
        learner, tasks, steps, batch_size=64, validation=held_out, checkpoint=folder, resume="auto", device="auto"
    )
    if here.is_first:
        print(result)
        print(bm.evaluate(learner, held_out, shots=[0, 5, 10]))


if __name__ == "__main__":
    main()
