"""All code that touches Flower; its private API is used here and nowhere else."""
