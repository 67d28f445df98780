"""Hospitals' Delta tables: the Spark session and where tables are."""
