"""Hospitals' Delta tables and the engines that make them."""
