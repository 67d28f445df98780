"""A hospital's side of training: configuration, rows, answers."""
