"""Airflow operators of fedrisk."""
