"""One event a round and one manifest a step, and the sinks that they go to."""
