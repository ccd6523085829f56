"""Maxima, minima, clips and slopes as relus: their values, their intervals, and what is refused."""

import math

import pytest
import torch
from torch import Tensor

from encoders.box import Box
from encoders.formats.bends import clip, maximum, maximum_of_two, minimum, minimum_of_two, sloped
from encoders.formats.graph import FileInput, GraphBuilder, Value
from encoders.network import Network
from encoders.ops import Op, Slice

F64 = torch.float64
X = torch.linspace(-3.0, 3.0, 49, dtype=F64)[:, None]


class Node:
    """What a reader's node is to these functions."""

    def __init__(self, inputs: int = 1) -> None:
        self.graph = GraphBuilder("test", FileInput((1, inputs), "one", F64))

    def emit(self, op: Op, *inputs: Value, part: str = "") -> Value:
        return self.graph.emit(part or "node", op, *inputs)

    def finish(self, value: Value) -> Network:
        return self.graph.finish(value)


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=F64)


def exact_range(network: Network, low: float, high: float) -> tuple[float, float]:
    box = network.interval(Box(torch.tensor([[low]], dtype=F64), torch.tensor([[high]], dtype=F64)))[-1]
    return float(box.lower), float(box.upper)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 2.0), (0.0, 6.0), (-math.inf, 0.5), (0.5, math.inf), (1.0, 1.0)])
def test_a_clip_is_min_of_max_and_its_interval_exact(low: float, high: float) -> None:
    node = Node()
    network = node.finish(clip(node, node.graph.input, low, high))
    torch.testing.assert_close(network.evaluate(X), X.clamp(low, high), rtol=0.0, atol=1e-15)
    for left, right in ((-3.0, 3.0), (-3.0, -2.0), (0.2, 0.7), (2.5, 3.0)):
        found = exact_range(network, left, right)
        ends = min(max(left, low), high), min(max(right, low), high)
        assert found == pytest.approx(ends, abs=1e-14) and found[0] <= ends[0] and found[1] >= ends[1]


@pytest.mark.parametrize("constant", [-0.7, 0.0, 1.3])
def test_extremes_with_a_constant(constant: float) -> None:
    for function, expected in ((maximum, torch.maximum), (minimum, torch.minimum)):
        node = Node()
        network = node.finish(function(node, node.graph.input, number(constant)))
        torch.testing.assert_close(network.evaluate(X), expected(X, number(constant)), rtol=0.0, atol=1e-15)


def test_extremes_of_two_values() -> None:
    pairs = torch.randn(50, 2, dtype=F64, generator=torch.Generator().manual_seed(1))
    for function, expected in ((maximum_of_two, pairs.amax(dim=1)), (minimum_of_two, pairs.amin(dim=1))):
        node = Node(2)
        a, b = (node.emit(Slice(0, i, i + 1, 1), node.graph.input) for i in (0, 1))
        network = node.finish(function(node, a, b))
        torch.testing.assert_close(network.evaluate(pairs)[:, 0], expected, rtol=0.0, atol=1e-15)


@pytest.mark.parametrize(
    ("slopes", "kinds"), [([0.25, 0.25], 1), ([0.0, 0.0], 1), ([0.25, 0.5], 5), ([-0.5, 2.0], 5), ([1.5, 1.5], 5)]
)
def test_slopes_for_each_unit(slopes: list[float], kinds: int) -> None:
    node, slope = Node(2), torch.tensor(slopes, dtype=F64)
    network = node.finish(sloped(node, node.graph.input, slope))
    assert len(network.nodes) == kinds
    x = X.expand(-1, 2)
    torch.testing.assert_close(network.evaluate(x), torch.where(x < 0, slope * x, x), rtol=0.0, atol=0.0)


@pytest.mark.parametrize(
    ("low", "high"),
    [(1.0, 0.0), (math.nan, 1.0), (0.0, math.nan), (-math.inf, math.inf), (math.inf, math.inf), (-1e9, 0.0)],
)
def test_ends_without_a_meaning_and_huge_ones_are_refused(low: float, high: float) -> None:
    node = Node()
    with pytest.raises(ValueError, match=r"end|constants up to"):
        clip(node, node.graph.input, low, high)
