"""Gradient-based meta-learning as MAP inference with an explicit or an implied prior."""
