"""Bounds of a network's outputs over a region: what proves."""
