"""Tables larger than memory: predicted part by part by one process or many, scored, and never half written."""
