"""Hospitals' Delta tables and the Spark session."""
