"""Preprocessing, network, training, metrics and calibration; knows no lake and no Flower."""
