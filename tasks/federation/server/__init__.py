"""The server of one run: rounds, checkpoint, final model."""
