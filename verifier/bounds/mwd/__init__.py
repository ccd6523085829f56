"""Bounds of networks of MWD units: contraction with branching, and Lipschitz constants."""
