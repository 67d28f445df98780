"""A synthetic cohort from published aggregates."""
