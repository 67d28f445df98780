"""How a hospital comes into a standing federation: the kit that it gets, and what is checked."""
