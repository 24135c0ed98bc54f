"""An evaluation as one page to read: what to conclude, the numbers and the figures."""
