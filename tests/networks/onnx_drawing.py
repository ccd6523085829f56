"""An ONNX graph that is being drawn at random, node by node."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.networks.onnx_models import DOUBLE, FLOAT

Random = np.random.Generator
Shape = tuple[int, ...]


@dataclass
class Drawing:
    """A graph that is being drawn: its nodes so far, and the opset and type that they must have."""

    random: Random
    opset: int
    dtype: Any
    free: bool
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)

    def chance(self, probability: float = 0.5) -> bool:
        return bool(self.random.random() < probability)

    def choice(self, values: Any) -> Any:
        return values[int(self.random.integers(len(values)))]

    def integer(self, low: int, high: int) -> int:
        """Return a number from low to high, both included."""
        return int(self.random.integers(low, high + 1))

    def weight(self, *shape: int) -> str:
        """Return the name of new weights."""
        return self.stored(self.random.normal(size=shape).astype(self.dtype))

    def stored(self, array: Any) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = np.asarray(array)
        return name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Return the output of a new node; attributes that the opset does not know are left out."""
        known = onnx.defs.get_schema(operator, self.opset).attributes
        given = {name: value for name, value in attributes.items() if name in known and value is not None}
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **given))
        return name

    def axes(self, operator: str, x: str, axes: list[int] | None, input_since: int, **attributes: Any) -> str:
        """Return a node whose axes are an attribute or, from an opset on, an input."""
        if self.opset < input_since:
            return self.add(operator, x, axes=axes, **attributes)
        return self.add(operator, x, *([] if axes is None else [self.stored(np.array(axes, np.int64))]), **attributes)

    def axis(self, rank: int) -> int:
        return self.integer(-rank, rank - 1)

    def model(self, shape: Shape, output: str) -> onnx.ModelProto:
        """Return the file; shape: of its input, the first axis free where `free`."""
        element = FLOAT if self.dtype == np.float32 else DOUBLE
        dimensions: list[Any] = ["N", *shape[1:]] if self.free else list(shape)
        graph = helper.make_graph(
            self.nodes,
            "sweep",
            [helper.make_tensor_value_info("x", element, dimensions)],
            [helper.make_tensor_value_info(output, element, None)],
            [numpy_helper.from_array(value, name) for name, value in self.weights.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
