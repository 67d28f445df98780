"""The command fedrisk."""
