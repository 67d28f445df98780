"""The chart and runs in pods on a real Kubernetes cluster (``make cluster-smoke``)."""
