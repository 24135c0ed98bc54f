"""Solvers of a last layer for classes, and the classifier that they make."""
