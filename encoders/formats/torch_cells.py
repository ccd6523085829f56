"""Operators of torch programs that only move values: torch itself applies them to the numbers of the values' cells.

What each means is so what torch does; see `cells`. Numbers start at 1, as torch writes zeros of its own (`tril`). A
batch is followed twice, with one input and with two: an operator that does not treat the two alike acts on the batch
axis, and is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from encoders.formats.cells import CELL_BYTES, Cells
from encoders.formats.graph import Value
from encoders.formats.torch_constants import mapped
from encoders.formats.torch_node import TorchNode

# Operator: the arguments that hold what is moved (values, constants, numbers); the others say how.
MOVES: dict[str, tuple[str, ...]] = {
    "aten.broadcast_to.default": ("self",),
    "aten.channel_shuffle.default": ("self",),
    "aten.chunk.default": ("self",),
    "aten.constant_pad_nd.default": ("self", "value"),
    "aten.diagonal.default": ("self",),
    "aten.expand.default": ("self",),
    "aten.flip.default": ("self",),
    "aten.gather.default": ("self",),
    "aten.hstack.default": ("tensors",),
    "aten.index.Tensor": ("self",),
    "aten.index_select.default": ("self",),
    "aten.mT.default": ("self",),
    "aten.masked_fill.Scalar": ("self", "value"),
    "aten.movedim.int": ("self",),
    "aten.narrow.default": ("self",),
    "aten.pad.default": ("self", "value"),
    "aten.pixel_shuffle.default": ("self",),
    "aten.pixel_unshuffle.default": ("self",),
    "aten.reflection_pad1d.default": ("self",),
    "aten.reflection_pad2d.default": ("self",),
    "aten.repeat.default": ("self",),
    "aten.repeat_interleave.self_int": ("self",),
    "aten.replication_pad1d.default": ("self",),
    "aten.replication_pad2d.default": ("self",),
    "aten.roll.default": ("self",),
    "aten.scatter.src": ("self", "src"),
    "aten.scatter.value": ("self", "value"),
    "aten.select.int": ("self",),
    "aten.select_scatter.default": ("self", "src"),
    "aten.slice_scatter.default": ("self", "src"),
    "aten.split.Tensor": ("self",),
    "aten.split_with_sizes.default": ("self",),
    "aten.stack.default": ("tensors",),
    "aten.swapaxes.default": ("self",),
    "aten.tensor_split.sections": ("self",),
    "aten.tile.default": ("self",),
    "aten.tril.default": ("self",),
    "aten.triu.default": ("self",),
    "aten.unbind.int": ("self",),
    "aten.unfold.default": ("self",),
    "aten.where.self": ("self", "other"),
    "aten.where.ScalarOther": ("self", "other"),
    "aten.where.ScalarSelf": ("self", "other"),
}
# Lists of sizes whose first may be that of the batch, counted as 1.
_SIZES = ("size", "shape")
_AXES = ("dim", "dims", "dim0", "dim1", "dim2", "axis0", "axis1", "source", "destination", "dimension")


def moved(operator: str, data: tuple[str, ...]) -> Callable[[TorchNode], Value | list[Value]]:
    """Return the handler of an operator that moves what some of its arguments hold."""

    def handler(node: TorchNode) -> Value | list[Value]:
        name, overload = operator.removeprefix("aten.").split(".")
        call = _Call(node, getattr(getattr(torch.ops.aten, name), overload), data)
        results = call.cells(1)
        if node.graph.has_batch:
            _check_batch(results, call.cells(2), call.count)
        if isinstance(results, Tensor):
            return call.emit(node.name, results)
        return [call.emit(f"{node.name}.{place}", part) for place, part in enumerate(results)]

    return handler


class _Call:
    """A call with its arguments; known: the cells of those that hold what is moved."""

    def __init__(self, node: TorchNode, target: Any, data: tuple[str, ...]) -> None:
        self._node, self._target = node, target
        self._arguments = {name: node.take(name) for name in node.arguments}
        if self._arguments.get("mode") == "constant" and self._arguments["value"] is None:
            self._arguments["value"] = 0.0
        self._inputs: list[Value | Tensor] = []
        self._data = {name: self._placed(self._arguments[name]) for name in data}
        values = [given for given in self._inputs if isinstance(given, Value)]
        self._rank = len(values[0].shape) if values else 0
        self._check_axes(self._rank + 1 if target is torch.ops.aten.stack.default else self._rank)
        self._inputs.append(torch.zeros(1, dtype=node.graph.dtype))
        self.known = Cells(node.graph, self._inputs)
        self.count = sum(array.size for array in self.known.arrays) + 1

    def _placed(self, given: Any) -> Any:
        """Return which of the inputs an argument is; lists of them, and None, in their place."""
        if isinstance(given, list):
            return [self._placed(entry) for entry in given]
        if given is None:
            return None
        if isinstance(given, bool) or not isinstance(given, Value | Tensor | int | float):
            raise ValueError(f"moves {given!r}; supported: values, constants and numbers")
        if not isinstance(given, Value) and (not isinstance(given, Tensor) or given.dim() == 0):
            # Numbers and tensors without axes are rounded to the other operand's dtype.
            given = torch.as_tensor(given, dtype=torch.float64 if isinstance(given, float) else None)
            given = given.to(self._node.graph.dtype)
        self._inputs.append(given)
        return len(self._inputs) - 1

    def _check_axes(self, rank: int) -> None:
        """Refuse a named batch axis: two inputs may be treated alike where three are not."""
        axes = [self._arguments.get(name) for name in _AXES]
        flat = [axis for given in axes for axis in (given if isinstance(given, list) else [given]) if axis is not None]
        if self._node.graph.has_batch and any(axis in (0, -rank) for axis in flat):
            raise ValueError("acts on the batch axis")

    def cells(self, batch: int) -> Any:
        """Return the operator's result, one tensor or several, on the cells of so many inputs."""
        arguments = {name: self._others(value, name, batch) for name, value in self._arguments.items()}
        arguments |= {name: self._numbered(place, name, batch) for name, place in self._data.items()}
        shapes = self._target(**mapped(arguments, lambda tensor: tensor.to("meta")))
        sizes = [part.numel() for part in ([shapes] if isinstance(shapes, Tensor) else shapes)]
        self._node.constants.claim(CELL_BYTES * sum(sizes), f"node {self._node.name!r}")
        if self._target is torch.ops.aten.scatter.src:
            index = arguments["index"]
            written = torch.zeros(arguments["self"].shape).scatter(arguments["dim"], index, 1.0)
            if int(written.sum()) < index.numel():
                raise ValueError("an entry is replaced twice, by which of the two is left open")
        return self._target(**arguments)

    def _numbered(self, place: Any, name: str, batch: int) -> Any:
        """Return the numbers of cells in place of what is moved; float64 holds them, and every operator takes it."""
        if isinstance(place, list):
            return [self._numbered(entry, name, batch) for entry in place]
        if place is None:
            return None
        numbers = torch.from_numpy(self.known.arrays[place]).double()
        numbers = torch.where(numbers >= 0, numbers + 1, numbers)
        if isinstance(self._inputs[place], Value) and batch > 1:
            return torch.cat([numbers + sample * self.count for sample in range(batch)])
        numbers = self._repeated(numbers, batch)
        return float(numbers) if not isinstance(self._arguments[name], list | Tensor | Value) else numbers

    def emit(self, name: str, result: Tensor) -> Value:
        """Return the value whose entries are the given numbers, of one input; 0 is a zero."""
        numbers = result.numpy().astype(np.int64)
        zero = self.known.arrays[-1][0]
        return self.known.emit(name, np.where(numbers > 0, numbers - 1, np.where(numbers < 0, numbers, zero)))

    def _others(self, given: Any, name: str, batch: int) -> Any:
        """Return an argument that says how values are moved, for a batch of so many inputs."""
        if name in _SIZES and isinstance(given, list) and given[:1] == [1] and len(given) == self._rank:
            return [batch, *given[1:]]
        return self._repeated(given, batch) if isinstance(given, Tensor) else given

    def _repeated(self, constant: Tensor, batch: int) -> Tensor:
        """Return a constant for a batch: whoever traces with one input cannot tell it from one of that batch."""
        if constant.dim() != self._rank or constant.dim() == 0 or constant.shape[0] != 1:
            return constant
        return constant.expand(batch, *constant.shape[1:])


def _check_batch(one: Any, two: Any, count: int) -> None:
    """Raise ValueError unless the result for two inputs is that for one, twice, each with its own cells."""
    pairs = [(one, two)] if isinstance(one, Tensor) else list(zip(one, two, strict=True))
    for single, double in pairs:
        if not single.dim() or single.shape[0] != 1 or tuple(double.shape) != (2, *single.shape[1:]):
            raise ValueError(f"the result of shape {tuple(single.shape)} does not keep the batch as leading axis")
        if not torch.equal(double, torch.cat([single, torch.where(single > 0, single + count, single)])):
            raise ValueError("acts on the batch axis")
