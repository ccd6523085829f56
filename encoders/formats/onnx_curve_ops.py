"""ONNX operators that apply a function of one number: curves of the table, and piecewise linear ones as relus.

A handler returns the node's output or raises ValueError with what is not supported. Meaning of the operators: the ONNX
operator specification, default domain, opsets 8 to 21.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from encoders.formats import bends
from encoders.formats.cells import together
from encoders.formats.graph import Value
from encoders.formats.onnx_node import OnnxNode, as_tensor
from encoders.formats.onnx_ops import as_float32
from encoders.ops import AddConstant, Curve, MultiplyConstant

# The standard's defaults, float32 as it stores them.
SELU_ALPHA, SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875


def curve(function: str, *attributes: tuple[str, float]) -> Callable[[OnnxNode], Value]:
    """Return the handler of a function whose numbers are attributes (name, default)."""

    def handler(node: OnnxNode) -> Value:
        numbers = tuple(float(node.attributes.get(name, default)) for name, default in attributes)
        return node.emit(Curve(function, numbers), node.value(0))

    return handler


def gelu(node: OnnxNode) -> Value:
    """Return x Phi(x), or its approximation by a hyperbolic tangent."""
    form = node.attributes.get("approximate", "none")
    if form not in ("none", "tanh"):
        raise ValueError(f"approximate = {form!r} is not supported; supported: 'none' and 'tanh'")
    return node.emit(Curve("gelu" if form == "none" else "gelu-tanh"), node.value(0))


def elu(node: OnnxNode) -> Value:
    """Return x or, below 0, alpha (exp(x) - 1); of an alpha of 0 a relu."""
    alpha = float(node.attributes.get("alpha", 1.0))
    return bends.clip(node, node.value(0), 0.0, math.inf) if alpha == 0.0 else curve("elu", ("alpha", 1.0))(node)


def power(node: OnnxNode) -> Value:
    """Return x to the power of one constant number."""
    if not node.is_constant(1):
        raise ValueError("a computed exponent is not supported; supported: a constant one")
    exponents = node.array(1).reshape(-1)
    if exponents.dtype.kind not in "fi" or not exponents.size or bool((exponents != exponents[0]).any()):
        raise ValueError("exponents that differ are not supported; supported: one number")
    x = node.value(0)
    if np.broadcast_shapes(node.array(1).shape, x.shape) != tuple(x.shape):
        raise ValueError(f"an exponent of shape {node.array(1).shape} does not fit {x.shape}")
    exponent = float(exponents[0])
    return x if exponent == 1.0 else node.emit(Curve("power", (exponent,)), x)


def softplus(node: OnnxNode) -> Value:
    """Return log(1 + exp(x))."""
    return node.emit(Curve("softplus", (1.0,)), node.value(0))


def root(node: OnnxNode) -> Value:
    """Return the square root."""
    return node.emit(Curve("power", (0.5,)), node.value(0))


def reciprocal(node: OnnxNode) -> Value:
    """Return 1 / x."""
    return node.emit(Curve("power", (-1.0,)), node.value(0))


def clip(node: OnnxNode) -> Value:
    """Return min(max(x, low), high) for constant ends."""
    x, largest = node.value(0), float(np.finfo(np.float32).max)
    if node.opset >= 11:
        low = _scalar(node, 1) if node.has(1) else -math.inf
        high = _scalar(node, 2) if node.has(2) else math.inf
        largest = torch.finfo(node.graph.dtype).max
    else:
        low, high = node.attributes.get("min", -largest), node.attributes.get("max", largest)
    low, high = (end if abs(end) < largest or math.isnan(end) else math.copysign(math.inf, end) for end in (low, high))
    if low == -math.inf and high == math.inf:
        return x
    return bends.clip(node, x, low, high)


def _scalar(node: OnnxNode, index: int) -> float:
    array = node.array(index)
    if array.size != 1:
        raise ValueError(f"input {index} must be one number, got shape {array.shape}")
    return float(as_tensor(array))


def hard_sigmoid(node: OnnxNode) -> Value:
    """Return max(0, min(1, alpha x + beta))."""
    alpha, beta = node.attributes.get("alpha", as_float32(0.2)), node.attributes.get("beta", 0.5)
    if not math.isfinite(alpha) or not math.isfinite(beta):
        raise ValueError(f"alpha = {alpha} and beta = {beta} are not supported; supported: finite numbers")
    dtype = node.graph.dtype
    line = node.emit(MultiplyConstant(torch.tensor(alpha, dtype=dtype)), node.value(0), part="scaled")
    line = node.emit(AddConstant(torch.tensor(beta, dtype=dtype)), line, part="line")
    return bends.clip(node, line, 0.0, 1.0)


def leaky_relu(node: OnnxNode) -> Value:
    """Return x or, below 0, alpha x."""
    alpha = node.attributes.get("alpha", as_float32(0.01))
    return bends.sloped(node, node.value(0), torch.tensor(alpha, dtype=node.graph.dtype))


def prelu(node: OnnxNode) -> Value:
    """Return x or, below 0, x times a constant slope that broadcasts to x."""
    x = node.value(0)
    return bends.sloped(node, x, node.graph.constant(x, node.weight(1)))


def maximum(node: OnnxNode) -> Value:
    """Return the greatest of values, broadcast together, and constants that broadcast to them."""
    return _extreme(node, bends.maximum, bends.maximum_of_two)


def minimum(node: OnnxNode) -> Value:
    """Return the least of values, broadcast together, and constants that broadcast to them."""
    return _extreme(node, bends.minimum, bends.minimum_of_two)


def _extreme(
    node: OnnxNode,
    with_constant: Callable[[OnnxNode, Value, Tensor], Value],
    of_two: Callable[[OnnxNode, Value, Value], Value],
) -> Value:
    places = range(len(node.inputs))
    values = together(
        node.graph, node.memory.fold, node.name, [node.value(i) for i in places if not node.is_constant(i)]
    )
    result = values[0]
    for value in values[1:]:
        result = of_two(node, result, value)
    for i in places:
        if node.is_constant(i):
            result = with_constant(node, result, node.graph.constant(result, node.weight(i)))
    return result


# Operator: (handler, the attributes that it understands).
HANDLERS: dict[str, tuple[Callable[[OnnxNode], Value], tuple[str, ...]]] = {
    "Atan": (curve("arctangent"), ()),
    "Celu": (curve("celu", ("alpha", 1.0)), ("alpha",)),
    "Clip": (clip, ("min", "max")),
    "Cos": (curve("cos"), ()),
    "Elu": (elu, ("alpha",)),
    "Erf": (curve("erf"), ()),
    "Exp": (curve("exp"), ()),
    "Gelu": (gelu, ("approximate",)),
    "HardSigmoid": (hard_sigmoid, ("alpha", "beta")),
    "HardSwish": (curve("hard-swish"), ()),
    "LeakyRelu": (leaky_relu, ("alpha",)),
    "Log": (curve("log"), ()),
    "Max": (maximum, ()),
    "Min": (minimum, ()),
    "Mish": (curve("mish"), ()),
    "PRelu": (prelu, ()),
    "Pow": (power, ()),
    "Reciprocal": (reciprocal, ()),
    "Selu": (curve("selu", ("alpha", SELU_ALPHA), ("gamma", SELU_GAMMA)), ("alpha", "gamma")),
    "Sign": (curve("sign"), ()),
    "Sin": (curve("sin"), ()),
    "Softplus": (softplus, ()),
    "Softsign": (curve("softsign"), ()),
    "Sqrt": (root, ()),
}
