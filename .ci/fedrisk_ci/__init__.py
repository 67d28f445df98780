"""What `.ci/run` runs, in which order, and what it reports; the standard library only."""
