"""Torch operators that resize along one to three axes, to constant sizes or by constant factors."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import torch
from torch import Tensor

from encoders.formats.graph import Value
from encoders.formats.interpolation import cubic, linear, map_of, nearest
from encoders.formats.torch_node import TorchNode
from encoders.formats.windows import Sizes, check_matrices, weighted_sums

# Coefficient of torch's cubic interpolation.
CUBIC = -0.75


def resize(axes: int, mode: str) -> Callable[[TorchNode], Value]:
    """Return the handler of an interpolation; mode: nearest, nearest-exact, linear or cubic."""

    def handler(node: TorchNode) -> Value:
        x = node.value("input" if "input" in node.arguments else "self")
        node.graph.require_batch(x, axes + 2)
        align = bool(node.take("align_corners")) if "align_corners" in node.arguments else False
        sizes, factors = _targets(node, x, axes)
        check_matrices(node, x, sizes)
        matrices = [
            _matrix(mode, size, count, factor, align)
            for size, count, factor in zip(x.shape[2:], sizes, factors, strict=True)
        ]
        kind = map_of(mode, factors, "align_corners" if align else "half_pixel")
        return weighted_sums(node, x, matrices, kind=kind)

    return handler


def _targets(node: TorchNode, x: Value, axes: int) -> tuple[Sizes, list[Fraction]]:
    """Return the output's sizes along the last axes, and the factors that they are resized by."""
    asked = node.take("output_size")
    names = [name for name in ("scales", "scales_d", "scales_h", "scales_w") if name in node.arguments]
    factors = node.take("scale_factors") if "scale_factors" in node.arguments else [node.take(name) for name in names]
    factors = [None] * axes if factors is None else list(factors)
    if len(factors) != axes or not all(factor is None or 0 < factor < math.inf for factor in factors):
        raise ValueError(f"factors {factors} are not supported; supported: {axes} positive numbers")
    if asked is None:
        asked = [math.floor(size * float(factor or 0)) for size, factor in zip(x.shape[2:], factors, strict=True)]
    if len(asked) != axes or not all(type(size) is int and size >= 1 for size in asked):
        raise ValueError(f"output_size = {asked} is not supported; supported: {axes} numbers of at least 1")
    exact = [
        Fraction(count, size) if factor is None else Fraction(factor)
        for size, count, factor in zip(x.shape[2:], asked, factors, strict=True)
    ]
    return tuple(asked), exact


def _matrix(mode: str, size: int, outputs: int, factor: Fraction, align: bool) -> Tensor:
    """Return the matrix of one axis."""
    if size == outputs:
        if factor != 1:
            raise ValueError(f"a factor of {float(factor)} that keeps the size {size} is not supported; leave it out")
        return torch.eye(size, dtype=torch.float64)
    coordinate = "align_corners" if align else "half_pixel"
    if mode == "linear":
        return linear(size, outputs, factor, coordinate)
    if mode == "cubic":
        return cubic(size, outputs, factor, coordinate, CUBIC)
    chosen, by_sizes = (
        nearest(size, outputs, scale, "torch exact" if mode == "nearest-exact" else "torch", ("floor",))
        for scale in (1 / factor, Fraction(size, outputs))
    )
    if not torch.equal(chosen, by_sizes):
        # Torch goes by the sizes where the output is twice the input, and by the factor elsewhere.
        raise ValueError(f"a factor of {float(factor)} from {size} to {outputs} places is not supported; give the size")
    return chosen


HANDLERS: dict[str, Callable[[TorchNode], Value]] = {
    "aten._upsample_nearest_exact1d.default": resize(1, "nearest-exact"),
    "aten._upsample_nearest_exact1d.vec": resize(1, "nearest-exact"),
    "aten._upsample_nearest_exact2d.default": resize(2, "nearest-exact"),
    "aten._upsample_nearest_exact2d.vec": resize(2, "nearest-exact"),
    "aten._upsample_nearest_exact3d.default": resize(3, "nearest-exact"),
    "aten._upsample_nearest_exact3d.vec": resize(3, "nearest-exact"),
    "aten.upsample_bicubic2d.default": resize(2, "cubic"),
    "aten.upsample_bicubic2d.vec": resize(2, "cubic"),
    "aten.upsample_bilinear2d.default": resize(2, "linear"),
    "aten.upsample_bilinear2d.vec": resize(2, "linear"),
    "aten.upsample_linear1d.default": resize(1, "linear"),
    "aten.upsample_linear1d.vec": resize(1, "linear"),
    "aten.upsample_nearest1d.default": resize(1, "nearest"),
    "aten.upsample_nearest1d.vec": resize(1, "nearest"),
    "aten.upsample_nearest2d.default": resize(2, "nearest"),
    "aten.upsample_nearest2d.vec": resize(2, "nearest"),
    "aten.upsample_nearest3d.default": resize(3, "nearest"),
    "aten.upsample_nearest3d.vec": resize(3, "nearest"),
    "aten.upsample_trilinear3d.default": resize(3, "linear"),
    "aten.upsample_trilinear3d.vec": resize(3, "linear"),
}
