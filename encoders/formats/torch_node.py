"""One call in an exported torch graph as its handler sees it: arguments by the names of the operator's schema.

Arguments are `Value`s (they depend on the network's input), tensors (weights and constants), numbers, or lists.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from encoders.formats.graph import GraphBuilder, Value
from encoders.formats.torch_constants import Constants
from encoders.ops import Op


class BatchSize(int):
    """A size that depends on the number of inputs, which is 1 while shapes are followed."""


@dataclass(frozen=True, eq=False)
class TorchNode:
    """A call with all arguments, defaults included; whatever no handler takes must have its default."""

    name: str
    arguments: dict[str, Any]
    defaults: dict[str, Any]
    graph: GraphBuilder
    constants: Constants
    _taken: set[str] = field(default_factory=set)

    def take(self, name: str) -> Any:
        """Return an argument and note that it is dealt with."""
        self._taken.add(name)
        return self.arguments[name]

    def ignore(self, *names: str) -> None:
        """Note that arguments, where the operator has them, do not change the values."""
        self._taken.update(names)

    def value(self, name: str = "self") -> Value:
        """Return an argument that must depend on the network's input."""
        given = self.take(name)
        if not isinstance(given, Value):
            raise ValueError(f"{name} must be computed from the network's input")
        return given

    def weight(self, name: str) -> Tensor:
        """Return an argument that must be a constant tensor of the network's dtype, in C order."""
        given = self.take(name)
        if not isinstance(given, Tensor):
            raise ValueError(f"{name} must be a constant tensor")
        if given.dtype != self.graph.dtype:
            raise ValueError(f"{name} has dtype {given.dtype}, the input {self.graph.dtype}")
        return self.constants.contiguous(given)

    def optional_weight(self, name: str) -> Tensor | None:
        """Return a constant tensor, or None if the argument is None."""
        if self.arguments[name] is None:
            self._taken.add(name)
            return None
        return self.weight(name)

    def constant(self, name: str, x: Value) -> Tensor:
        """Return a number or tensor as a constant that broadcasts to x, in the dtype in which torch computes."""
        given = self.take(name)
        if isinstance(given, Tensor) and given.dim() > 0:
            return self.graph.constant(x, self.weight(name))
        if isinstance(given, bool) or not isinstance(given, int | float | Tensor):
            raise ValueError(f"{name} = {given!r} must be a number or a constant tensor")
        if isinstance(given, Tensor) and (given.is_complex() or (given.dtype != self.graph.dtype and not x.shape)):
            raise ValueError(f"{name} has dtype {given.dtype}, the input {self.graph.dtype}")
        # Torch promotes neither numbers nor tensors without axes: they are rounded to the other operand's dtype.
        exact = torch.as_tensor(given, dtype=torch.float64 if isinstance(given, float) else None)
        return exact.to(self.graph.dtype)

    def is_value(self, name: str) -> bool:
        """Return whether the argument depends on the network's input."""
        return isinstance(self.arguments[name], Value)

    def numbers(self, name: str, count: int) -> tuple[int, ...]:
        """Return one integer, or a list of them, as so many."""
        given = self.take(name)
        values = [given] if isinstance(given, int) else list(given)
        values = values * count if len(values) == 1 else values
        if len(values) != count or not all(isinstance(value, int) for value in values):
            raise ValueError(f"{name} = {given} is not supported; supported: {count} numbers")
        return tuple(values)

    def pair(self, name: str) -> tuple[int, int]:
        """Return a list of one or two integers as two."""
        first, second = self.numbers(name, 2)
        return first, second

    def expect(self, name: str, *supported: Any) -> None:
        """Raise ValueError unless the argument has one of the supported values."""
        given = self.take(name)
        if not any(type(given) is type(value) and given == value for value in supported):
            raise ValueError(f"{name} = {given!r} is not supported; supported: {', '.join(map(repr, supported))}")

    def check_all_taken(self) -> None:
        """Raise ValueError if an argument that the handler ignored differs from its default."""
        for name, value in self.arguments.items():
            if name in self._taken:
                continue
            if isinstance(value, Tensor | Value) or name not in self.defaults or value != self.defaults[name]:
                raise ValueError(f"argument {name} = {value!r} is not supported")

    def emit(self, op: Op, *inputs: Value, part: str = "") -> Value:
        """Return the value of a new node, named after the call; `part` marks an intermediate one."""
        return self.graph.emit(f"{self.name}/{part}" if part else self.name, op, *inputs)
