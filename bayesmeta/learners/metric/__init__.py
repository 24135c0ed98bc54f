"""The non-parametric family: queries are compared with the support, in features that all tasks share."""
