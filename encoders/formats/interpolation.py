"""Resizing along one axis as a matrix: which places an output reads, and with which weights.

A matrix is `(outputs, inputs)`, in float64; readers round it to the network's dtype, and what a verdict calls stored
weights is the result. Runtimes compute coordinates in float32: for weights that is a matter of rounding, but where it
decides which place is read (nearest) coordinates are exact here, and what float32 would choose otherwise is refused.
How far executions lie from the result is then known only where float32 holds the coordinates (`map_of`).
A scale is the number of outputs for each input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from encoders.ops import Affine
from encoders.ops.resampling import Resampling

# Coordinates with so many digits behind the point are exact in float32, on axes of up to 2^18 places.
LEAST_BITS = 5


def _half_pixel(place: Any, scale: Any, size: int, outputs: int) -> Any:
    # Written with whole numbers alone, for fractions; doubling is exact in float32.
    return ((2 * place + 1) / scale - 1) / 2


def _half_pixel_symmetric(place: Any, scale: Any, size: int, outputs: int) -> Any:
    return size * (1 - outputs / (scale * size)) / 2 + _half_pixel(place, scale, size, outputs)


def _pytorch_half_pixel(place: Any, scale: Any, size: int, outputs: int) -> Any:
    return _half_pixel(place, scale, size, outputs) if outputs > 1 else place * 0


def _align_corners(place: Any, scale: Any, size: int, outputs: int) -> Any:
    return place * (size - 1) / (outputs - 1) if outputs > 1 else place * 0


def _asymmetric(place: Any, scale: Any, size: int, outputs: int) -> Any:
    return place / scale


# By ONNX's `coordinate_transformation_mode`: the coordinate in the input of an output place, in fractions or in float32
# with onnxruntime's order of operations. The last two are torch's, whose scale is the number of inputs for each output.
COORDINATES: dict[str, Callable[[Any, Any, int, int], Any]] = {
    "align_corners": _align_corners,
    "asymmetric": _asymmetric,
    "half_pixel": _half_pixel,
    "half_pixel_symmetric": _half_pixel_symmetric,
    "pytorch_half_pixel": _pytorch_half_pixel,
    "tf_half_pixel_for_nn": lambda place, scale, size, outputs: (2 * place + 1) / scale / 2,
    "torch": lambda place, scale, size, outputs: place * scale,
    "torch exact": lambda place, scale, size, outputs: (2 * place + 1) * scale / 2,
}

# By ONNX's `nearest_mode`: the place that is read at a coordinate.
ROUNDINGS: dict[str, Callable[[Fraction], int]] = {
    "ceil": math.ceil,
    "floor": math.floor,
    "round_prefer_ceil": lambda x: math.floor(x + Fraction(1, 2)),
    "round_prefer_floor": lambda x: math.ceil(x - Fraction(1, 2)),
}


def nearest(size: int, outputs: int, scale: Fraction, coordinate: str, roundings: Sequence[str]) -> Tensor:
    """Return the matrix that reads the nearest place, by each of the roundings; ValueError where they do not agree."""
    matrix = torch.zeros(outputs, size, dtype=torch.float64)
    function = COORDINATES[coordinate]
    for place, exact in enumerate(_coordinates(size, outputs, scale, coordinate)):
        rough = Fraction(float(function(np.float32(place), np.float32(float(scale)), size, outputs)))
        chosen = {min(max(ROUNDINGS[name](x), 0), size - 1) for name in roundings for x in (exact, rough)}
        if len(chosen) > 1:
            raise ValueError(
                f"output place {place} of {outputs} lies on the border between input places {sorted(chosen)}, where "
                "rounding decides which is read; resize by a whole factor"
            )
        matrix[place, chosen.pop()] = 1.0
    return matrix


def linear(size: int, outputs: int, scale: Fraction, coordinate: str) -> Tensor:
    """Return the matrix that interpolates between the two places around; beyond the ends it is their values."""
    matrix = torch.zeros(outputs, size, dtype=torch.float64)
    for place, exact in enumerate(_coordinates(size, outputs, scale, coordinate)):
        inside = min(max(exact, Fraction(0)), Fraction(size - 1))
        low = math.floor(inside)
        matrix[place, low] += float(1 - (inside - low))
        matrix[place, min(low + 1, size - 1)] += float(inside - low)
    return matrix


def cubic(size: int, outputs: int, scale: Fraction, coordinate: str, a: float, outside: bool = True) -> Tensor:
    """Return the matrix of cubic convolution (Keys 1981) with coefficient a.

    outside: places beyond an end count with its value; else they are left out and the weights divided by their sum.
    """
    matrix = torch.zeros(outputs, size, dtype=torch.float64)
    for place, exact in enumerate(_coordinates(size, outputs, scale, coordinate)):
        low = math.floor(exact)
        for cell in range(low - 1, low + 3):
            if outside or 0 <= cell < size:
                matrix[place, min(max(cell, 0), size - 1)] += _keys(float(abs(exact - cell)), a)
    return matrix if outside else matrix / matrix.sum(dim=1, keepdim=True)


def map_of(mode: str, scales: Sequence[Fraction], coordinate: str) -> type[Affine]:
    """Return Affine where every runtime computes these weights up to their own rounding, else Resampling."""
    exact = {Fraction(2) ** power for power in range(-LEAST_BITS, LEAST_BITS + 1)}
    kept = mode == "linear" and coordinate in ("asymmetric", "half_pixel") and exact.issuperset(scales)
    return Affine if kept or mode.startswith("nearest") else Resampling


def _keys(distance: float, a: float) -> float:
    if distance <= 1.0:
        return ((a + 2.0) * distance - (a + 3.0)) * distance * distance + 1.0
    return ((a * distance - 5.0 * a) * distance + 8.0 * a) * distance - 4.0 * a if distance < 2.0 else 0.0


def _coordinates(size: int, outputs: int, scale: Fraction, coordinate: str) -> list[Fraction]:
    """Return each output's coordinate in the input, exact."""
    function = COORDINATES[coordinate]
    return [Fraction(function(Fraction(place), scale, size, outputs)) for place in range(outputs)]
