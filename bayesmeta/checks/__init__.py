"""Is it the posterior? Simulation-based calibration, fidelity to a reference, and tasks unlike the others."""
