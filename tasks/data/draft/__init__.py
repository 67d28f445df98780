"""A first version of a study's file, from the hospitals' tables."""
