"""One node of an ONNX graph as its handler sees it: inputs, attributes, and the builder to add ops to.

Inputs are `Value`s (they depend on the network's input), `Constant`s, or None (left out).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from encoders.formats.graph import GraphBuilder, Value
from encoders.formats.runtime import Array
from encoders.limits import Limits
from encoders.ops import Op

# Entries of a list of axes or sizes: no tensor has more axes, and longer lists would be walked in Python.
LONGEST_LIST = 256


def as_tensor(array: Array) -> Tensor:
    """Return a copy of an array as a contiguous tensor of the same dtype."""
    return torch.from_numpy(np.array(array, order="C"))


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor that does not depend on the input.

    of_batch: where its entries come from the size of a batch of any length, which is counted as 1; None: nowhere.
    folded: computed by the reader, not stored in the file.
    """

    array: Array
    of_batch: Array | None = None
    folded: bool = False

    @cached_property
    def tensor(self) -> Tensor:
        """The values as a tensor, made once: a thousand readers of one weight share it."""
        return as_tensor(self.array)

    @cached_property
    def transposed(self) -> Tensor:
        """The matrix transposed, in C order."""
        return self.tensor.t().contiguous()


class Memory:
    """What the reader itself has allocated for constants, and what the network's ops hold, each against its limit."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._folded = 0
        self._weights = 0

    def fold(self, size: int) -> None:
        """Claim bytes for a constant that the reader computes, before it does; raise LimitError beyond the limit."""
        self._folded += size
        self.limits.check("constant_bytes", self._folded, "what is computed from constants")

    def hold(self, constant: Constant) -> None:
        """Claim the bytes of a weight for an op: methods copy the weights of each op, shared or not."""
        if constant.folded:
            self.fold(constant.array.nbytes)
        self._weights += constant.array.nbytes
        self.limits.check("weight_bytes", self._weights, "the network")


Input = Value | Constant | None


@dataclass(frozen=True, eq=False)
class OnnxNode:
    """A node whose name is that of its first output; kind: its operator; attributes are as stored, text decoded.

    outputs: the names of all its outputs, empty where one is left out.
    """

    name: str
    kind: str
    inputs: tuple[Input, ...]
    attributes: dict[str, Any]
    opset: int
    graph: GraphBuilder
    memory: Memory
    outputs: tuple[str, ...] = ()

    def has(self, index: int) -> bool:
        """Return whether the input is given."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def is_constant(self, index: int) -> bool:
        """Return whether the input is given and constant."""
        return index < len(self.inputs) and isinstance(self.inputs[index], Constant)

    def value(self, index: int = 0) -> Value:
        """Return an input that must depend on the network's input."""
        given = self.inputs[index] if index < len(self.inputs) else None
        if not isinstance(given, Value):
            raise ValueError(f"input {index} must be computed from the network's input")
        return given

    def constant(self, index: int) -> Constant:
        """Return an input that must be constant, but may hold the size of the batch."""
        given = self.inputs[index] if index < len(self.inputs) else None
        if not isinstance(given, Constant):
            raise ValueError(f"input {index} must be a constant")
        return given

    def array(self, index: int) -> Array:
        """Return an input that must be the same constant for every batch."""
        given = self.constant(index)
        if given.of_batch is not None and bool(given.of_batch.any()):
            raise ValueError(
                f"input {index} depends on the size of the batch; export the model with a batch of fixed size 1"
            )
        return given.array

    def _checked_weight(self, index: int) -> Constant:
        constant, dtype = self.array(index), self.graph.dtype
        if f"torch.{constant.dtype}" != str(dtype):
            raise ValueError(f"input {index} has element type {constant.dtype}, the network {dtype}")
        weight = self.constant(index)
        self.memory.hold(weight)
        return weight

    def weight(self, index: int) -> Tensor:
        """Return a constant input of the network's dtype as a tensor; not to be changed, as nodes may share it."""
        return self._checked_weight(index).tensor

    def transposed_weight(self, index: int) -> Tensor:
        """Return a constant matrix of the network's dtype transposed."""
        weight = self._checked_weight(index)
        if weight.array.ndim != 2:
            raise ValueError(f"takes a constant matrix as input {index}, got shape {weight.array.shape}")
        return weight.transposed

    def integers(self, index: int) -> list[int]:
        """Return a constant input of integers, the same for every batch."""
        return integer_list(self.array(index), index)

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


def integer_list(array: Array, index: int) -> list[int]:
    """Return a constant of axes or sizes as numbers; `index`: of which input, for the message."""
    if array.dtype.kind != "i" or array.ndim > 1 or array.size > LONGEST_LIST:
        raise ValueError(f"input {index} must be a list of integers, got {array.dtype} of shape {array.shape}")
    return [int(entry) for entry in array.reshape(-1)]
