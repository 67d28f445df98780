"""Baselines, comparison, report and model card."""
