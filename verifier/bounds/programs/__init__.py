"""Bounds by linear and integer programs over the rows of a network."""
