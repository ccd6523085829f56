"""Products of computed values, quotients, matrix products and normalisations over axes, as ops: shared by readers.

Everything here is equal in real arithmetic to what the file asks for: a / b is a times 1/b, and a normalisation is
made of means, a square, a root and a product.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from encoders.formats.cells import broadcast, together
from encoders.formats.graph import GraphBuilder, Value
from encoders.formats.reductions import mean_over
from encoders.ops import AddConstant, Curve, MatrixProduct, MultiplyConstant, Product, Sub

# Is told of bytes of index maps before they are made.
Claim = Callable[[int], None]


def product_of(graph: GraphBuilder, claim: Claim, name: str, a: Value, b: Value) -> Value:
    """Return a b, broadcast together."""
    return graph.emit(name, Product(), *together(graph, claim, name, [a, b]))


def quotient_of(graph: GraphBuilder, claim: Claim, name: str, a: Value | Tensor, b: Value) -> Value:
    """Return a / b as a times 1 / b; a may be a constant of the network's dtype."""
    inverse = graph.emit(f"{name}/inverse", Curve("power", (-1.0,)), b)
    if isinstance(a, Tensor):
        return graph.emit(name, MultiplyConstant(graph.constant(inverse, a)), inverse)
    return product_of(graph, claim, name, a, inverse)


def matrix_product_of(graph: GraphBuilder, claim: Claim, name: str, a: Value, b: Value) -> Value:
    """Return A B, the axes in front of the matrices broadcast together."""
    own = [graph.sample_shape(value) for value in (a, b)]
    if min(len(shape) for shape in own) < 2 or len(own[0]) != len(own[1]) or own[0][-1] != own[1][-2]:
        raise ValueError(
            f"a matrix product of computed values of shapes {a.shape} and {b.shape} is not supported; supported: "
            "matrices (n, k) and (k, m) in the last two axes, as many axes before them"
        )
    lead = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = (broadcast(graph, claim, name, value, (*lead, *value.shape[-2:])) for value in (a, b))
    return graph.emit(name, MatrixProduct(own[0][-1]), a, b)


def layer_norm(graph: GraphBuilder, claim: Claim, name: str, x: Value, axes: Sequence[int], epsilon: float) -> Value:
    """Return (x - mean) / sqrt(variance + epsilon) over axes of the file."""
    centre = broadcast(graph, claim, name, mean_over(graph, f"{name}/mean", x, axes, True), x.shape)
    deviation = graph.emit(f"{name}/deviation", Sub(), x, centre)
    squared = graph.emit(f"{name}/squared", Curve("power", (2.0,)), deviation)
    variance = mean_over(graph, f"{name}/variance", squared, axes, True)
    shifted = graph.emit(f"{name}/shifted", AddConstant(torch.tensor(epsilon, dtype=torch.float64)), variance)
    inverse = graph.emit(f"{name}/inverse", Curve("power", (-0.5,)), shifted)
    return graph.emit(name, Product(), deviation, broadcast(graph, claim, f"{name}/inverse", inverse, x.shape))
