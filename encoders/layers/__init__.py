"""Torch modules for layers that torch lacks, with the same formulas as the ops of the same name."""

from encoders.layers.k_winners import KWinners
from encoders.layers.mwd import Mwd
from encoders.layers.mwd_convolution import MwdConv2d

__all__ = ["KWinners", "Mwd", "MwdConv2d"]
