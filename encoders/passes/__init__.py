"""Rewrites of a network that leave its real-arithmetic value as it is."""

from encoders.passes.expand_max_pools import expand_max_pools
from encoders.passes.merge_bias import merge_bias

__all__ = ["expand_max_pools", "merge_bias"]
