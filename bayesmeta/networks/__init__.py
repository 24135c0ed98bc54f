"""Functions of a point: feature networks and fixed bases."""
