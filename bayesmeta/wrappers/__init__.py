"""Learners that wrap a learner: other units, corrected predictives, sampled posteriors, an uncertain theta."""
