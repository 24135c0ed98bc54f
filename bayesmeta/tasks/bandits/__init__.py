"""Bandits: tasks whose points are chosen one by one, for what they are worth."""
