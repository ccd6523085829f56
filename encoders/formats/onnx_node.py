"""One node of an ONNX graph as its handler sees it: inputs, attributes, and the builder to add ops to.

Inputs are `Value`s (they depend on the network's input), numpy arrays (constants), or None (left out).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from encoders.formats.graph import GraphBuilder, Value
from encoders.formats.runtime import Array
from encoders.ops import Op

Input = Value | Array | None


def as_tensor(array: Array) -> Tensor:
    """Return a copy of an array as a contiguous tensor of the same dtype."""
    return torch.from_numpy(np.array(array, order="C"))


@dataclass(frozen=True, eq=False)
class OnnxNode:
    """A node whose name is that of its first output; attributes are as stored, text decoded."""

    name: str
    inputs: tuple[Input, ...]
    attributes: dict[str, Any]
    opset: int
    graph: GraphBuilder

    def has(self, index: int) -> bool:
        """Return whether the input is given."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def is_constant(self, index: int) -> bool:
        """Return whether the input is given and constant."""
        return index < len(self.inputs) and isinstance(self.inputs[index], np.ndarray)

    def value(self, index: int = 0) -> Value:
        """Return an input that must depend on the network's input."""
        given = self.inputs[index] if index < len(self.inputs) else None
        if not isinstance(given, Value):
            raise ValueError(f"input {index} must be computed from the network's input")
        return given

    def array(self, index: int) -> Array:
        """Return an input that must be constant."""
        given = self.inputs[index] if index < len(self.inputs) else None
        if not isinstance(given, np.ndarray):
            raise ValueError(f"input {index} must be a constant")
        return given

    def weight(self, index: int) -> Tensor:
        """Return a constant input of the network's dtype as a tensor."""
        weight = as_tensor(self.array(index))
        if weight.dtype != self.graph.dtype:
            raise ValueError(f"input {index} has element type {weight.dtype}, the network {self.graph.dtype}")
        return weight

    def integers(self, index: int) -> list[int]:
        """Return a constant input of integers."""
        array = self.array(index)
        if array.dtype.kind != "i" or array.ndim > 1:
            raise ValueError(f"input {index} must be a list of integers, got {array.dtype} of shape {array.shape}")
        return [int(entry) for entry in array.reshape(-1)]

    def integers_by_name(self, name: str, index: int, input_since: int) -> list[int] | None:
        """Return integers that are an attribute before opset `input_since` and an input from then on, if given."""
        if self.opset >= input_since:
            return self.integers(index) if self.has(index) else None
        return self.attributes.get(name)

    def expect(self, attribute: str, supported: Any) -> None:
        """Raise ValueError if an attribute is given and is not the supported value."""
        given = self.attributes.get(attribute, supported)
        if given != supported:
            raise ValueError(f"{attribute} = {given!r} is not supported; supported: {supported!r}")

    def emit(self, op: Op, *inputs: Value, part: str = "") -> Value:
        """Return the value of a new node, named after the output; `part` marks an intermediate one."""
        return self.graph.emit(f"{self.name}/{part}" if part else self.name, op, *inputs)
