"""Learners whose posterior is a closed form."""
