"""FedAvg as Flower's quickstart has it."""
