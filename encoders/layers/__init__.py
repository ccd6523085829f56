"""Torch modules for layers that torch lacks, with the same formulas as the ops of the same name."""

from encoders.layers.mwd import Mwd

__all__ = ["Mwd"]
