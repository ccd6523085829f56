"""ONNX operators that resize a value along its axes by constant scales: Resize, and Upsample of old opsets."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from torch import Tensor

from encoders.formats.graph import Value
from encoders.formats.interpolation import COORDINATES, ROUNDINGS, cubic, linear, map_of, nearest
from encoders.formats.onnx_node import OnnxNode, integer_list
from encoders.formats.windows import Sizes, check_matrices, weighted_sums

_COORDINATES = tuple(sorted(name for name in COORDINATES if not name.startswith("torch")))

ATTRIBUTES = (
    "antialias", "axes", "coordinate_transformation_mode", "cubic_coeff_a", "exclude_outside", "extrapolation_value",
    "keep_aspect_ratio_policy", "mode", "nearest_mode",
)  # fmt: skip


def upsample(node: OnnxNode) -> Value:
    """Return the values at places, or between places, of a map that is stretched by constant factors."""
    x = node.value(0)
    scales = [float(scale) for scale in node.attributes["scales"]] if node.opset < 9 else _scales(node, 1)
    return _resized(node, x, scales, None, "asymmetric", ("floor", "floor"))


def resize(node: OnnxNode) -> Value:
    """Return the values at places, or between places, of a map that is resized by constant factors or to sizes."""
    x = node.value(0)
    if node.opset < 11:
        # The specification leaves open which place is nearest: onnxruntime takes the one after where it shrinks.
        return _resized(node, x, _scales(node, 1), None, "asymmetric", ("floor", "ceil"))
    coordinate = node.attributes.get("coordinate_transformation_mode", "half_pixel")
    rounding = node.attributes.get("nearest_mode", "round_prefer_floor")
    if coordinate not in _COORDINATES:
        known = ", ".join(_COORDINATES)
        raise ValueError(f"coordinate_transformation_mode = {coordinate!r} is not supported; supported: {known}")
    if rounding not in ROUNDINGS:
        raise ValueError(f"nearest_mode = {rounding!r} is unknown; known: {', '.join(ROUNDINGS)}")
    node.expect("antialias", 0)
    node.expect("keep_aspect_ratio_policy", "stretch")
    scales, sizes = None, None
    if node.has(3):
        if node.has(2) and node.array(2).size:
            raise ValueError("has both scales and sizes; supported: one of them")
        sizes = tuple(integer_list(node.array(3), 3))
    else:
        scales = _scales(node, 2)
    return _resized(node, x, scales, sizes, coordinate, (rounding, rounding))


def _resized(
    node: OnnxNode,
    x: Value,
    scales: list[float] | None,
    sizes: Sizes | None,
    coordinate: str,
    roundings: tuple[str, str],
) -> Value:
    """Return x resized; roundings: the one of the operator where it grows, and where it shrinks."""
    given = len(scales if scales is not None else sizes or ())
    axes = node.attributes.get("axes", list(range(len(x.shape))))
    if given != len(axes) or len({axis % len(x.shape) for axis in axes}) != given:
        raise ValueError(f"scales or sizes for {given} of the axes {axes} do not fit a value of shape {x.shape}")
    factors = [Fraction(1)] * len(x.shape)
    target = list(x.shape)
    for index, axis in enumerate(axes):
        size = x.shape[axis]
        if sizes is not None:
            target[axis], factors[axis] = sizes[index], Fraction(sizes[index], size)
        elif scales is not None:
            target[axis], factors[axis] = _scaled(size, scales[index]), Fraction(scales[index])
    if tuple(target) == x.shape and any(factor != 1 for factor in factors):
        # onnxruntime 1.32 copies the input; the specification stretches it by the factors.
        raise ValueError(f"factors {scales} that keep the shape {x.shape} mean two things; leave them out")
    if node.attributes.get("mode") == "cubic" and (len(x.shape) != 4 or tuple(target[:2]) != x.shape[:2]):
        # onnxruntime 1.32 stops.
        raise ValueError(f"mode = 'cubic' of shape {x.shape} is not supported; supported: maps of two axes")
    if min(target) < 1:
        raise ValueError(f"the result of shape {tuple(target)} is empty")
    first = 1 if node.graph.has_batch else 0
    if first and factors[0] != 1:
        raise ValueError("acts on the batch axis")
    check_matrices(node, x, target[first:])
    matrices = [
        _matrix(node, x.shape[axis], target[axis], factors[axis], coordinate, roundings)
        for axis in range(first, len(x.shape))
    ]
    kind = map_of(node.attributes.get("mode", "nearest"), factors, coordinate)
    return weighted_sums(node, x, matrices, kind=kind)


def _matrix(
    node: OnnxNode, size: int, outputs: int, scale: Fraction, coordinate: str, roundings: tuple[str, str]
) -> Tensor:
    mode = node.attributes.get("mode", "nearest")
    if scale == 1:
        # onnxruntime copies such an axis, whatever the coordinates say.
        return linear(size, size, scale, "asymmetric")
    if mode == "nearest" and coordinate == "half_pixel_symmetric":
        raise ValueError(f"coordinate_transformation_mode = {coordinate!r} with mode = {mode!r} is not supported")
    if mode == "nearest":
        return nearest(size, outputs, scale, coordinate, roundings if scale < 1 else roundings[:1])
    if coordinate == "tf_half_pixel_for_nn":
        raise ValueError(f"coordinate_transformation_mode = {coordinate!r} with mode = {mode!r} is not supported")
    if mode == "linear":
        return linear(size, outputs, scale, coordinate)
    if mode == "cubic":
        a = node.attributes.get("cubic_coeff_a", -0.75)
        return cubic(size, outputs, scale, coordinate, a, not node.attributes.get("exclude_outside", 0))
    raise ValueError(f"mode = {mode!r} is not supported; supported: nearest, linear, cubic")


def _scales(node: OnnxNode, index: int) -> list[float]:
    array = node.array(index)
    if array.dtype != np.float32 or array.ndim != 1:
        raise ValueError(f"input {index} must be a list of factors in float32, got {array.dtype} of {array.shape}")
    return [float(scale) for scale in array]


def _scaled(size: int, scale: float) -> int:
    """Return the size of an axis after scaling; ValueError where rounding decides it."""
    if not 0 < scale < math.inf:
        raise ValueError(f"a factor of {scale} is not supported; supported: positive ones")
    exact, rough = math.floor(size * Fraction(scale)), math.floor(float(np.float32(size) * np.float32(scale)))
    if exact != rough:
        raise ValueError(f"{size} times {scale} lies on the border between {exact} and {rough}; give sizes instead")
    return exact
