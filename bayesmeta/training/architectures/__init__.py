"""The search for an architecture: spaces of networks, budgets, trials, the surrogate, the search and what it found."""
