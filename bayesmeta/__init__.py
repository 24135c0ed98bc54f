"""Few-shot learning with uncertainty that can be trusted."""
