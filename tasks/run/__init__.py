"""What a run is: plan, folder, manifests, endings and the table of steps."""
