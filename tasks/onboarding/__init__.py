"""How a hospital joins a standing federation: its start-up kit and the checks."""
