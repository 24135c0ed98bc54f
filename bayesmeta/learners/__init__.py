"""Meta-learners, by family; one method a file."""
