"""What to do where probabilities are off: recalibration and conformal prediction."""
