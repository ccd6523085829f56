"""Rewrites of a network that keep its real-arithmetic value as it is, or make a property's margins of it."""

from encoders.passes.expand_max_pools import expand_max_pools
from encoders.passes.margins_of_property import margins_of_property
from encoders.passes.merge_bias import merge_bias

__all__ = ["expand_max_pools", "margins_of_property", "merge_bias"]
