"""A federation of one run's own: processes, keys, certificates, ports."""
