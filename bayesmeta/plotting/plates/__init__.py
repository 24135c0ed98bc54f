"""Plate diagrams: what a learner believes, as a picture of its variables."""
