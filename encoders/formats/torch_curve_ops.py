"""Torch operators that apply a function of one number: curves of the table, and piecewise linear ones as relus.

A handler returns the call's output or raises ValueError with what is not supported. Meaning of the operators: the
schemas of torch's native functions.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from encoders.formats import bends
from encoders.formats.graph import Value
from encoders.formats.torch_node import TorchNode
from encoders.ops import AddConstant, Curve, DivideConstant

SELU_ALPHA, SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946


def curve(function: str, *numbers: str | float) -> Callable[[TorchNode], Value]:
    """Return the handler of a function whose numbers are given, or arguments by name."""

    def handler(node: TorchNode) -> Value:
        arguments = tuple(_number(node, n) if isinstance(n, str) else n for n in numbers)
        return node.emit(Curve(function, arguments), node.value())

    return handler


def _number(node: TorchNode, name: str) -> float:
    given = node.take(name)
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise ValueError(f"{name} = {given!r} must be a number")
    return float(given)


def gelu(node: TorchNode) -> Value:
    """Return x Phi(x), or its approximation by a hyperbolic tangent."""
    node.expect("approximate", "none", "tanh")
    return node.emit(Curve("gelu" if node.arguments["approximate"] == "none" else "gelu-tanh"), node.value())


def elu(node: TorchNode) -> Value:
    """Return scale x or, below 0, scale alpha (exp(x input_scale) - 1): ELU, SELU and CELU."""
    alpha, scale, inner = (_number(node, name) for name in ("alpha", "scale", "input_scale"))
    if inner == 1.0 and scale == 1.0:
        return (
            bends.clip(node, node.value(), 0.0, math.inf)
            if alpha == 0.0
            else node.emit(Curve("elu", (alpha,)), node.value())
        )
    if inner == 1.0:
        return node.emit(Curve("selu", (alpha, scale)), node.value())
    if scale == 1.0 and inner == 1.0 / alpha:
        return node.emit(Curve("celu", (alpha,)), node.value())
    raise ValueError(f"alpha = {alpha}, scale = {scale}, input_scale = {inner} are not supported together")


def power(node: TorchNode) -> Value:
    """Return x to the power of a number."""
    exponent = _number(node, "exponent")
    return node.value() if exponent == 1.0 else node.emit(Curve("power", (exponent,)), node.value())


def clamp(node: TorchNode) -> Value:
    """Return min(max(x, low), high) for ends that are numbers or constants."""
    x = node.value()
    ends = [
        next((node.take(name) for name in names if name in node.arguments), None)
        for names in (("min", "min_val"), ("max", "max_val"))
    ]
    if any(isinstance(end, Tensor | Value) for end in ends):
        return _clamp_by_tensors(node, x, ends)
    low, high = (_rounded(node, end, none) for end, none in zip(ends, (-math.inf, math.inf), strict=True))
    if low == -math.inf and high == math.inf:
        return x
    return bends.clip(node, x, low, high)


def _rounded(node: TorchNode, end: Any, none: float) -> float:
    """Return an end in the dtype in which torch compares."""
    if end is None:
        return none
    if isinstance(end, bool) or not isinstance(end, int | float):
        raise ValueError(f"an end {end!r} is not supported; supported: numbers and constants")
    return float(torch.tensor(end, dtype=torch.float64).to(node.graph.dtype))


def _clamp_by_tensors(node: TorchNode, x: Value, ends: list[Any]) -> Value:
    tensors = [None if end is None else node.constant(name, x) for name, end in zip(("min", "max"), ends, strict=True)]
    if tensors[0] is not None and tensors[1] is not None and bool((tensors[0] > tensors[1]).any()):
        raise ValueError("a lower end above the upper one is not supported")
    if tensors[0] is not None:
        x = bends.maximum(node, x, tensors[0])
    return x if tensors[1] is None else bends.minimum(node, x, tensors[1])


def fixed_clip(low: float, high: float) -> Callable[[TorchNode], Value]:
    """Return the handler of a clip whose ends are fixed."""
    return lambda node: bends.clip(node, node.value(), low, high)


def hard_sigmoid(node: TorchNode) -> Value:
    """Return min(max(x + 3, 0), 6) / 6."""
    dtype = node.graph.dtype
    shifted = node.emit(AddConstant(torch.tensor(3.0, dtype=dtype)), node.value(), part="shifted")
    clipped = bends.clip(node, shifted, 0.0, 6.0)
    return node.emit(DivideConstant(torch.tensor(6.0, dtype=dtype)), clipped)


def leaky_relu(node: TorchNode) -> Value:
    """Return x or, below 0, negative_slope x."""
    slope = _number(node, "negative_slope")
    return bends.sloped(node, node.value(), torch.tensor(slope, dtype=torch.float64))


def prelu(node: TorchNode) -> Value:
    """Return x or, below 0, x times a slope for each channel, or for all."""
    x, slope = node.value(), node.weight("weight")
    if slope.numel() > 1:
        node.graph.require_batch(x, len(x.shape))
        slope = slope.reshape(-1, *[1] * (len(x.shape) - 2))
    else:
        slope = slope.reshape(())
    return bends.sloped(node, x, slope)


def maximum(node: TorchNode) -> Value:
    """Return the greater of two values of one shape, or of one and a constant."""
    return _extreme(node, bends.maximum, bends.maximum_of_two)


def minimum(node: TorchNode) -> Value:
    """Return the less of two values of one shape, or of one and a constant."""
    return _extreme(node, bends.minimum, bends.minimum_of_two)


def _extreme(
    node: TorchNode,
    with_constant: Callable[[TorchNode, Value, Tensor], Value],
    of_two: Callable[[TorchNode, Value, Value], Value],
) -> Value:
    if node.is_value("self") and node.is_value("other"):
        a, b = node.value("self"), node.value("other")
        if a.shape != b.shape:
            raise ValueError(f"values of shapes {a.shape} and {b.shape} are not supported; supported: one shape")
        return of_two(node, a, b)
    value, constant = ("self", "other") if node.is_value("self") else ("other", "self")
    x = node.value(value)
    return with_constant(node, x, node.constant(constant, x))


HANDLERS: dict[str, Callable[[TorchNode], Value]] = {
    "aten.atan.default": curve("arctangent"),
    "aten.celu.default": curve("celu", "alpha"),
    "aten.clamp.Tensor": clamp,
    "aten.clamp.default": clamp,
    "aten.clamp_max.Tensor": clamp,
    "aten.clamp_max.default": clamp,
    "aten.clamp_min.Tensor": clamp,
    "aten.clamp_min.default": clamp,
    "aten.cos.default": curve("cos"),
    "aten.elu.default": elu,
    "aten.erf.default": curve("erf"),
    "aten.exp.default": curve("exp"),
    "aten.gelu.default": gelu,
    "aten.hardsigmoid.default": hard_sigmoid,
    "aten.hardswish.default": curve("hard-swish"),
    "aten.hardtanh.default": clamp,
    "aten.leaky_relu.default": leaky_relu,
    "aten.log.default": curve("log"),
    "aten.log_sigmoid.default": curve("log-sigmoid"),
    "aten.maximum.default": maximum,
    "aten.minimum.default": minimum,
    "aten.mish.default": curve("mish"),
    "aten.pow.Tensor_Scalar": power,
    "aten.prelu.default": prelu,
    "aten.reciprocal.default": curve("power", -1.0),
    "aten.relu6.default": fixed_clip(0.0, 6.0),
    "aten.rsqrt.default": curve("power", -0.5),
    "aten.selu.default": curve("selu", SELU_ALPHA, SELU_SCALE),
    "aten.sgn.default": curve("sign"),
    "aten.sign.default": curve("sign"),
    "aten.silu.default": curve("silu"),
    "aten.sin.default": curve("sin"),
    "aten.softplus.default": curve("softplus", "beta", "threshold"),
    "aten.sqrt.default": curve("power", 0.5),
    "aten.square.default": curve("power", 2.0),
}
