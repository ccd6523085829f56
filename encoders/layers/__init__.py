"""Torch modules for layers that torch lacks, with the same formulas as the ops of the same name."""

from encoders.layers.mwd import Mwd
from encoders.layers.mwd_convolution import MwdConv2d

__all__ = ["Mwd", "MwdConv2d"]
