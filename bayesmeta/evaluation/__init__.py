"""Scores of predictions and the evaluation of learners."""
