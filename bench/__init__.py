"""Benchmarks: `make bench` runs all and prints one JSON object a line."""
