"""The same training by Ray Train, which connects the processes and restarts them: `python ray_train.py`."""

import ray.train
import ray.train.torch
import train  # what torchrun starts, too

if __name__ == "__main__":
    trainer = ray.train.torch.TorchTrainer(
        lambda config: train.main(config["steps"], config["folder"]),
        train_loop_config={"steps": 2_000, "folder": "/shared/runs/sinusoids"},
        scaling_config=ray.train.ScalingConfig(num_workers=4, use_gpu=False),
        run_config=ray.train.RunConfig(failure_config=ray.train.FailureConfig(max_failures=3)),
    )
    trainer.fit()
