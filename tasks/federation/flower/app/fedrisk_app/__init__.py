"""Names of the two halves of the Flower app."""
