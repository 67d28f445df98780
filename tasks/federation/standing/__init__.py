"""Long-running services: the SuperLink's dispatcher and what submits runs to it."""
