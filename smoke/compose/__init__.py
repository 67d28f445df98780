"""The Docker Compose stack from nothing to a champion (``make compose-smoke``)."""
