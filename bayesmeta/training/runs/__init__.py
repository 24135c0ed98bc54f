"""Runs that survive: what a training is at a step, kept in a folder from which it goes on."""
