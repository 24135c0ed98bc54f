"""What users' data, modes and machines bring: faults that must not happen, and must not be silent."""
