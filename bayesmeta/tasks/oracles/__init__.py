"""Exact Bayes-optimal predictives of simulated tasks: the ceiling that a meta-learner can at best reach."""
