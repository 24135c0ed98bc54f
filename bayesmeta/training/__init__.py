"""Meta-training: fit, full-batch evidence, objectives, model folders."""
