"""Piecewise linear functions as ops that are exact: maxima, minima and clips as relus between additions of constants.

    max(x, c) = relu(x - c) + c        min(x, c) = c - relu(c - x)        max(a, b) = b + relu(a - b)

Intervals through these lose nothing, and every method that takes relus takes them. What emits is a node of a reader.
"""

import math
from typing import Protocol

import torch
from torch import Tensor

from encoders.formats.graph import GraphBuilder, Value
from encoders.ops import Add, AddConstant, LeakyRelu, MultiplyConstant, Op, Relu, Sub

# Ends beyond this would take the digits of what they are added to.
LARGEST_END = 1e6


class Emitter(Protocol):
    """A node of a reader: what its handler adds ops with."""

    @property
    def graph(self) -> GraphBuilder:
        """The network so far."""
        ...

    def emit(self, op: Op, *inputs: Value, part: str = "") -> Value:
        """Return the value of a new node."""
        ...


def clip(node: Emitter, x: Value, low: float, high: float) -> Value:
    """Return min(max(x, low), high); infinite ends are none. ValueError if nothing is left of it."""
    if math.isnan(low) or math.isnan(high) or low > high or low == math.inf or high == -math.inf:
        raise ValueError(
            f"ends {low} and {high} are not supported; supported: a lower end that is at most the upper one"
        )
    if low == -math.inf and high == math.inf:
        raise ValueError("it has no end; leave it out")
    dtype = node.graph.dtype
    if low > -math.inf:
        x = maximum(node, x, torch.tensor(low, dtype=dtype))
    return x if high == math.inf else minimum(node, x, torch.tensor(high, dtype=dtype))


def maximum(node: Emitter, x: Value, constant: Tensor) -> Value:
    """Return max(x, constant), for a constant that broadcasts to x without its batch."""
    _check(node, x, constant)
    if not bool(constant.any()):
        return node.emit(Relu(), x)
    above = node.emit(Relu(), node.emit(AddConstant(-constant), x, part="above"), part="rectified")
    return node.emit(AddConstant(constant), above)


def minimum(node: Emitter, x: Value, constant: Tensor) -> Value:
    """Return min(x, constant), for a constant that broadcasts to x without its batch."""
    _check(node, x, constant)
    below = negated(node, x, "negated")
    if bool(constant.any()):
        below = node.emit(AddConstant(constant), below, part="below")
    result = negated(node, node.emit(Relu(), below, part="rectified"), "capped")
    return node.emit(AddConstant(constant), result) if bool(constant.any()) else result


def negated(node: Emitter, x: Value, part: str) -> Value:
    """Return -x."""
    return node.emit(MultiplyConstant(torch.tensor(-1, dtype=node.graph.dtype)), x, part=part)


def maximum_of_two(node: Emitter, a: Value, b: Value) -> Value:
    """Return max(a, b) = b + relu(a - b) of two values of one shape."""
    return node.emit(Add(), b, _excess(node, a, b))


def minimum_of_two(node: Emitter, a: Value, b: Value) -> Value:
    """Return min(a, b) = a - relu(a - b) of two values of one shape."""
    return node.emit(Sub(), a, _excess(node, a, b))


def _excess(node: Emitter, a: Value, b: Value) -> Value:
    return node.emit(Relu(), node.emit(Sub(), a, b, part="difference"), part="excess")


def sloped(node: Emitter, x: Value, slope: Tensor) -> Value:
    """Return x, or slope x where x is negative: relu(x) - slope relu(-x), or a leaky relu where that is one."""
    _check(node, x, slope)
    first = float(slope.flatten()[0])
    if 0.0 <= first <= 1.0 and bool((slope == first).all()):
        return node.emit(LeakyRelu(first), x)
    right = node.emit(Relu(), x, part="right")
    left = node.emit(Relu(), negated(node, x, "negated"), part="left")
    return node.emit(Sub(), right, node.emit(MultiplyConstant(slope), left, part="sloped"))


def _check(node: Emitter, x: Value, constant: Tensor) -> None:
    """Refuse constants that do not broadcast to x, or are too large."""
    AddConstant(constant).output_shape(node.graph.sample_shape(x))
    if not bool((constant.abs() <= LARGEST_END).all()):
        raise ValueError(f"takes constants up to {LARGEST_END:g}, got {float(constant.abs().max()):g}")
