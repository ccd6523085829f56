"""Small networks for whole runs: of one or two inputs that stay rational, or of any op, with weights of many kinds."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from encoders import Network, Node
from encoders.network import INPUT
from encoders.ops import (
    Abs,
    Affine,
    ArgMax,
    BatchNorm,
    Conv2d,
    Curve,
    KWinners,
    LeakyRelu,
    LogSoftmax,
    MatrixProduct,
    Mwd,
    MwdConv2d,
    Op,
    Product,
    Relu,
    ReluDifference,
    Reshape,
    Sigmoid,
    Softmax,
    Tanh,
    Transpose,
)
from tests.networks.random_networks import F64, RandomNetwork, Shape

CURVES = tuple(
    Curve(name, arguments)
    for name, arguments in [
        ("gelu", ()), ("elu", (1.0,)), ("erf", ()), ("silu", ()), ("softplus", (1.0,)), ("softsign", ()), ("sin", ()),
    ]
)  # fmt: skip
# How often a step of a network that leaves the rationals is one of two nodes, or one over an axis.
PRODUCTS, OVER_AXES = 0.07, 0.14
WEIGHTS = ("ordinary", "short", "integers", "repeated", "zeros")
SCALES = ("plain", "plain", "plain", "powers", "huge", "tiny")
# 2^-6 is a float of every format; with it variances have rational roots.
EPSILON = 2.0**-6


class AnyNetwork(RandomNetwork):
    """Any op of the table, its kinks in the box of the inputs. weights: a name of WEIGHTS."""

    def __init__(self, seed: int, weights: str, box: tuple[float, float], shape: Shape | None = None) -> None:
        super().__init__(seed)
        self.weights, self.box = weights, box
        self.input_shape = shape or self.input_shape
        self.shapes = {INPUT: self.input_shape}
        points = torch.rand(50, *self.input_shape, generator=self.generator, dtype=F64)
        self.values = {INPUT: box[0] + (box[1] - box[0]) * points}

    def _push(self, op: Op, *inputs: str) -> str:
        if isinstance(op, Affine | Conv2d) and op.bias is not None and self.choose.random() < 0.8:
            # Every unit is about zero at some point of the box.
            outputs = replace(op, bias=None).evaluate(self.values[inputs[0]])
            outputs = outputs.flatten(2).mean(dim=2) if outputs.dim() > 2 else outputs
            chosen = torch.randint(0, len(outputs), (outputs.shape[1],), generator=self.generator)
            grain = 1.0 if self.weights == "integers" else 16.0
            op = replace(op, bias=-(grain * outputs[chosen, torch.arange(len(chosen))]).round() / grain)
        name = super()._push(op, *inputs)
        self.values[name] = op.evaluate(*(self.values[i] for i in inputs))
        return name

    def _step(self, last: str, make: Callable[[Shape], Op]) -> str:
        draw, shape = self.choose.random(), self.shapes[last]
        if draw < PRODUCTS:
            same = [name for name, other in self.shapes.items() if other == shape]
            if draw >= PRODUCTS / 2:
                return self._matrices(last)
            op = Product() if draw < 3 * PRODUCTS / 8 else ReluDifference()
            return self._push(op, last, self.choose.choice(same))
        if draw < OVER_AXES:
            return self._push(self._over_axis(shape), last)
        return super()._step(last, make)

    def _matrices(self, last: str) -> str:
        """Return the products of a node's rows with each other, or of its single row with a column."""
        shape = self.shapes[last]
        if len(shape) == 1:
            column = self._push(Reshape((shape[0], 1)), last)
            product = self._push(MatrixProduct(1), column, self._push(Reshape((1, shape[0])), last))
            return self._push(Reshape((shape[0] ** 2,)), product) if shape[0] <= 3 else last
        turned = self._push(Transpose((*range(len(shape) - 2), len(shape) - 1, len(shape) - 2)), last)
        return self._push(MatrixProduct(shape[-1]), last, turned)

    def _over_axis(self, shape: Shape) -> Op:
        """Return an op over an axis, or over all units; the place of the greatest value only where a map is left."""
        axis = self.choose.randrange(len(shape))
        if len(self.nodes) % 4 == 3:
            return KWinners(1 + math.prod(shape) // 2)
        if len(shape) > 1 and self.choose.random() < 0.2:
            return ArgMax(axis, keep_axis=True)
        return self.choose.choice([Softmax(axis), LogSoftmax(axis)])

    def normal(self, *shape: int) -> Tensor:
        value = super().normal(*shape)
        if self.weights == "short":
            return (16.0 * value).round() / 16.0
        if self.weights == "integers":
            return (1.2 * value).round()
        if self.weights == "zeros":
            return value * (torch.rand(*shape, generator=self.generator) < 0.5)
        if self.weights == "repeated" and shape[0] > 1:
            rows = torch.randint(0, shape[0], (shape[0],), generator=self.generator)
            return value[rows]
        return value

    def _affine(self, shape: Shape, outputs: int | None = None) -> Affine:
        op = super()._affine(shape, outputs)
        # The factor of the fan-in would undo what these are about.
        return replace(op, weight=op.weight.round()) if self.weights == "integers" else op

    def _activation(self) -> Op:
        op = super()._activation()
        if isinstance(op, Tanh) and len(self.nodes) % 4:
            return self.choose.choice(CURVES)
        # A slope that float32 holds: files keep it so.
        return LeakyRelu(0.125) if isinstance(op, LeakyRelu) and op.slope == 0.1 else op


class RationalNetwork(AnyNetwork):
    """One or two inputs, few units, and no op inside that leaves the rationals."""

    most_values = 10
    depths = (3, 6)

    def __init__(self, seed: int, weights: str, box: tuple[float, float]) -> None:
        shapes: list[Shape] = [(2,), (2,), (2,), (1,), (1, 1, 2), (1, 2, 1), (2, 1, 1), (1, 1, 1)]
        super().__init__(seed, weights, box, random.Random(seed).choice(shapes))

    def build(self) -> Network:
        network = super().build()
        draw, last = self.choose.random(), network.output
        size = network.output_shape[0] if len(network.output_shape) == 1 else 0
        if draw < 0.1:
            # These keep the order of the outputs.
            self._push(self.choose.choice([Sigmoid(), Tanh(), Softmax(0), LogSoftmax(0)]), last.name)
        elif draw < 0.2 and size:
            negated = torch.full((3,), self.choose.random() < 0.5)
            self._push(Mwd(self.normal(3, size).abs(), self.normal(3, size), negated), last.name)
        return Network(tuple(self.nodes), self.input_shape, F64)

    def _step(self, last: str, make: Callable[[Shape], Op]) -> str:
        return RandomNetwork._step(self, last, make)

    def _affine(self, shape: Shape, outputs: int | None = None) -> Affine:
        return super()._affine(shape, outputs or self.choose.randint(2, 5))

    def _activation(self) -> Op:
        return self.choose.choice([Relu(), Relu(), Relu(), LeakyRelu(0.125), Abs()])

    def _each_unit(self, shape: Shape) -> Op:
        op = super()._each_unit(shape)
        if isinstance(op, BatchNorm):
            root = (8.0 * op.variance).round().clamp(min=1.0) / 8.0
            return replace(op, variance=root.square() - EPSILON, epsilon=EPSILON)
        return op

    def _vector_op(self, shape: Shape) -> Op:
        if isinstance(self.nodes[-1].op, Affine | Conv2d) and self.choose.random() < 0.75:
            return self._activation()
        op = super()._vector_op(shape)
        return replace(op, link="linear") if isinstance(op, Mwd) else op

    def _map_op(self, shape: Shape) -> Op:
        op = super()._map_op(shape)
        return self._activation() if isinstance(op, MwdConv2d) else op


class DistanceNetwork(AnyNetwork):
    """A chain of MWD layers: rational ones with linear links or one Gaussian link at the end, or of any links."""

    def __init__(self, seed: int, weights: str, box: tuple[float, float], rational: bool) -> None:
        super().__init__(seed, weights, box, (random.Random(seed).randint(1, 2 if rational else 4),))
        self.rational = rational

    def build(self) -> Network:
        last, sizes = INPUT, [*(self.choose.randint(2, 4) for _ in range(self.choose.randint(0, 2))), 3]
        for number, units in enumerate(sizes):
            inner = number < len(sizes) - 1
            linear = (self.rational and inner) or self.choose.random() < 0.3
            last = self._push(self._layer(self.shapes[last][0], units, linear), last)
        return Network(tuple(self.nodes), self.input_shape, F64)

    def _layer(self, inputs: int, units: int, linear: bool) -> Mwd:
        weight = 2.0 * self.normal(units, inputs).abs()
        if self.choose.random() < 0.1:
            weight = weight * 2.0 ** self.choose.randint(-30, 30)
        places = torch.rand(units, inputs, generator=self.generator, dtype=F64)
        grain = 4.0 if self.weights == "integers" else 64.0
        places = ((self.box[0] + (self.box[1] - self.box[0]) * places) * grain).round() / grain
        negated = torch.rand(units, generator=self.generator) < 0.5
        if linear:
            bias = self.normal(units) if self.choose.random() < 0.5 else None
            return Mwd(weight, places, negated, bias, "linear")
        # Outputs of units of one type are in the order of their distances.
        return Mwd(weight, places, negated[:1].expand(units).clone() if self.rational else negated)


def scaled(network: Network, scale: str, seed: int) -> Network:
    """Return a network whose affine layers are multiplied by powers of two, and its biases with them."""
    generator = torch.Generator().manual_seed(seed)
    places = [i for i, node in enumerate(network.nodes) if isinstance(node.op, Affine | Conv2d)]
    if scale == "plain" or not places:
        return network
    nodes = list(network.nodes)
    chosen = {places[-1]: 100.0 if scale == "huge" else -140.0}
    if scale == "powers":
        chosen = {i: float(torch.randint(-30, 31, (1,), generator=generator)) for i in places}
    for i, power in chosen.items():
        op = nodes[i].op
        assert isinstance(op, Affine | Conv2d)
        factor = 2.0**power
        op = replace(op, weight=op.weight * factor, bias=None if op.bias is None else op.bias * factor)
        nodes[i] = Node(nodes[i].name, op, nodes[i].inputs)
    return Network(tuple(nodes), network.input_shape, network.dtype)


def in_dtype(network: Network, dtype: torch.dtype) -> Network:
    """Return the network with the weights that a file of the dtype holds."""
    nodes = tuple(Node(node.name, node.op.cast(dtype, torch.device("cpu")), node.inputs) for node in network.nodes)
    return Network(nodes, network.input_shape, dtype)
