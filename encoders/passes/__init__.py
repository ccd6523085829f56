"""Rewrites of a network that leave its real-arithmetic value as it is."""

from encoders.passes.merge_bias import merge_bias

__all__ = ["merge_bias"]
