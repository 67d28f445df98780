"""Gates and promotion in the MLflow registry."""
