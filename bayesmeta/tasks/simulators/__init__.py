"""Families of tasks that are simulated, most of them with their exact Bayes-optimal oracle."""
