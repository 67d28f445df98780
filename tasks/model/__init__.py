"""Rows to risk: scaling, the network and its training, metrics, and the model as one file.

Only ``network`` and ``training`` need torch; everything that scores a model is NumPy.
"""
