"""Federated training on Flower."""
