"""Random small networks with every op of the table: graphs with residual sums, joins, maps and vectors."""

import math
import random
from collections.abc import Callable

import torch
from torch import Tensor

from encoders import Network, Node
from encoders.network import INPUT
from encoders.ops import (
    Abs,
    Add,
    AddConstant,
    Affine,
    AveragePool2d,
    AxisSum,
    BatchNorm,
    Concat,
    Conv2d,
    DivideConstant,
    Gather,
    GlobalAveragePool,
    LeakyRelu,
    MaxPool2d,
    MultiplyConstant,
    Mwd,
    MwdConv2d,
    Op,
    Relu,
    Reshape,
    Sigmoid,
    Slice,
    Sub,
    Tanh,
    Transpose,
)

F64 = torch.float64
Shape = tuple[int, ...]


class RandomNetwork:
    """Draws a network op by op; every node may be read again later, so that paths part and meet."""

    # Values of one node at most, and how many ops follow on vectors.
    most_values = 60
    depths = (1, 6)

    def __init__(self, seed: int) -> None:
        self.choose = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        maps = self.choose.random() < 0.5
        self.input_shape: Shape = (
            (self.choose.randint(1, 2), self.choose.randint(3, 5), self.choose.randint(3, 5))
            if maps
            else (self.choose.randint(2, 5),)
        )
        self.shapes: dict[str, Shape] = {INPUT: self.input_shape}
        self.nodes: list[Node] = []

    def build(self) -> Network:
        """Return the network: some ops on maps, some on vectors, and an affine layer with three outputs."""
        last = INPUT
        if len(self.input_shape) == 3:
            for _ in range(self.choose.randint(2, 5)):
                last = self._step(last, self._map_op)
            last = self._flatten(last)
        else:
            last = self._push(self._affine(self.shapes[last]), last)
        for _ in range(self.choose.randint(*self.depths)):
            last = self._step(last, self._vector_op)
        if self.choose.random() < 0.9:
            last = self._push(self._affine(self.shapes[last], 3), last)
        return Network(tuple(self.nodes), self.input_shape, F64)

    def normal(self, *shape: int) -> Tensor:
        """Return normal numbers, some of them zero."""
        value = torch.randn(*shape, generator=self.generator, dtype=F64)
        return value * (torch.rand(*shape, generator=self.generator) < 0.9)

    def _push(self, op: Op, *inputs: str) -> str:
        name = f"{len(self.nodes)}-{op.kind}"
        self.shapes[name] = op.output_shape(*(self.shapes[i] for i in inputs))
        self.nodes.append(Node(name, op, inputs))
        return name

    def _step(self, last: str, make: Callable[[Shape], Op]) -> str:
        """Add a random op after the last node, or one that joins it with an earlier node of its shape."""
        same = [name for name, shape in self.shapes.items() if shape == self.shapes[last]]
        draw = self.choose.random()
        if draw < 0.12:
            return self._push(Add(), last, self.choose.choice(same))
        if draw < 0.2:
            return self._push(Sub(), self.choose.choice(same), last)
        if draw < 0.27:
            return self._push(Concat(0), last, self.choose.choice(same))
        for _ in range(20):
            op = make(self.shapes[last])
            try:
                shape = op.output_shape(self.shapes[last])
            except ValueError:
                continue
            if math.prod(shape) <= self.most_values:
                return self._push(op, last)
        return last

    def _flatten(self, last: str) -> str:
        shape = self.shapes[last]
        if self.choose.random() < 0.3:
            return self._push(GlobalAveragePool(math.prod(shape[1:]), keep_axes=False), last)
        return self._push(Reshape((math.prod(shape),)), last)

    def _affine(self, shape: Shape, outputs: int | None = None) -> Affine:
        outputs = outputs or self.choose.randint(2, 7)
        weight = self.normal(outputs, shape[-1]) * 1.5 / shape[-1] ** 0.5
        return Affine(weight, 0.4 * self.normal(outputs) if self.choose.random() < 0.8 else None)

    def _activation(self) -> Op:
        hinges = [Relu(), Relu(), Relu(), LeakyRelu(0.1), LeakyRelu(1.0), Abs()]
        return self.choose.choice([*hinges, Sigmoid(), Tanh()])

    def _each_unit(self, shape: Shape) -> Op:
        choice = self.choose.randrange(4)
        if choice == 0:
            return AddConstant(0.5 * self.normal(*shape))
        if choice == 1:
            return MultiplyConstant(self.normal(shape[-1]))
        if choice == 2:
            return DivideConstant(self.normal(*shape).abs() + 0.7)
        statistics = (self.normal(shape[0]) for _ in range(4))
        mean, variance, scale, shift = statistics
        return BatchNorm(0.5 * mean, variance.square() + 0.3, scale, 0.5 * shift)

    def _vector_op(self, shape: Shape) -> Op:
        draw = self.choose.random()
        if draw < 0.35:
            return self._affine(shape)
        if draw < 0.8:
            return self._activation()
        if draw < 0.9:
            return self._each_unit(shape)
        if draw < 0.93:
            return self._gather(shape)
        if draw < 0.96:
            start = self.choose.randrange(shape[0])
            return Slice(0, start, self.choose.randint(start + 1, shape[0]), self.choose.randint(1, 2))
        units = self.choose.randint(2, 4)
        negated = torch.rand(units, generator=self.generator) < 0.5
        if self.choose.random() < 0.5:
            return Mwd(self.normal(units, shape[0]).abs(), self.normal(units, shape[0]), negated)
        return Mwd(
            self.normal(units, shape[0]).abs(), self.normal(units, shape[0]), negated, self.normal(units), "linear"
        )

    def _gather(self, shape: Shape) -> Gather:
        """Return a map of places drawn with repetitions, with constants between them or not."""
        size = math.prod(shape)
        index = torch.randint(0, size, shape, generator=self.generator)
        if self.choose.random() < 0.5:
            return Gather(index)
        kept = torch.rand(shape, generator=self.generator) < 0.7
        return Gather(index.where(kept, -1), 0.5 * self.normal(*shape))

    def _pair(self, least: int, greatest: int) -> tuple[int, int]:
        return self.choose.randint(least, greatest), self.choose.randint(least, greatest)

    def _padding(self, kernel: tuple[int, int]) -> tuple[int, int, int, int]:
        top, left, bottom, right = (self.choose.randint(0, kernel[i % 2] // 2) for i in range(4))
        return top, left, bottom, right

    def _map_op(self, shape: Shape) -> Op:
        draw = self.choose.random()
        kernel, stride = self._pair(1, 3), self._pair(1, 2)
        if draw < 0.35:
            groups = shape[0] if self.choose.random() < 0.2 else 1
            outputs = groups * self.choose.randint(1, 3)
            weight = self.normal(outputs, shape[0] // groups, *kernel)
            weight = weight * 1.5 / weight[0].numel() ** 0.5
            bias = 0.4 * self.normal(outputs) if self.choose.random() < 0.8 else None
            return Conv2d(weight, bias, stride, self._padding(kernel), self._pair(1, 2), groups)
        if draw < 0.65:
            return self._activation()
        if draw < 0.75:
            return MaxPool2d(kernel, stride, self._padding(kernel), self._pair(1, 2))
        if draw < 0.83:
            top, left = (self.choose.randint(0, k // 2) for k in kernel)
            return AveragePool2d(kernel, stride, (top, left, top, left), self.choose.random() < 0.5)
        if draw < 0.91:
            return self._each_unit(shape)
        if draw < 0.92:
            return self._gather(shape)
        if draw < 0.93:
            axis = self.choose.randrange(3)
            return AxisSum((axis,), shape[axis], keep_axes=True)
        if draw < 0.95:
            return Transpose((0, 2, 1))
        if draw < 0.97:
            return Slice(self.choose.randint(1, 2), 0, self.choose.randint(2, 3))
        negated = torch.rand(2, generator=self.generator) < 0.5
        attractor = self.normal(2, shape[0], *kernel)
        return MwdConv2d(self.normal(*attractor.shape).abs(), attractor, negated, stride)


def random_network(seed: int) -> Network:
    """Return the network of a seed."""
    return RandomNetwork(seed).build()
