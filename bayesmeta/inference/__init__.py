"""How p(phi | D, theta) is computed: pure functions of tensors or of a log joint."""
