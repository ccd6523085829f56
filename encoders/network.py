"""A network: a directed acyclic graph of ops with static shapes, and its identity (digest)."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from encoders.box import Box, Shape
from encoders.ops import Op
from encoders.rounding import check_gradual_underflow

# The name by which nodes refer to the network's input.
INPUT = "input"

Value = TypeVar("Value")


@dataclass(frozen=True, eq=False)
class Node:
    """One op of a network and where its inputs come from.

    name: unique in its network; for messages and wiring, no part of the digest.
    op: what it computes.
    inputs: as many names of earlier nodes, or INPUT, as the op takes.
    """

    name: str
    op: Op
    inputs: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Network:
    """A graph of ops: what every verdict is about.

    nodes: in topological order; the last one is the output.
    input_shape: without the batch axis, which every evaluation adds in front.
    dtype: the dtype in which the file executes (its input's dtype); weights are kept as stored.
    source: where the network came from, for messages; not part of its identity.

    Raises ValueError naming the node if names repeat, an input is unknown, shapes do not fit, or a weight is not
    finite.
    """

    nodes: tuple[Node, ...]
    input_shape: Shape
    dtype: torch.dtype = torch.float32
    source: str = "network"
    shapes: dict[str, Shape] = field(init=False)
    _casts: dict[tuple[torch.dtype, torch.device], Network] = field(init=False, default_factory=dict)
    # The nodes with the weights as stored: a cast of a cast starts from them, lest it keep the first one's rounding.
    _stored: tuple[Node, ...] = field(init=False)

    def __post_init__(self) -> None:
        if not self.nodes:
            raise ValueError(f"{self.source}: the network has no nodes")
        shapes = {INPUT: tuple(self.input_shape)}
        for node in self.nodes:
            where = f"{self.source}: node {node.name!r} ({node.op.kind})"
            if node.name in shapes:
                raise ValueError(f"{where}: the name is taken")
            if len(node.inputs) != node.op.arity:
                raise ValueError(f"{where}: takes {node.op.arity} inputs, got {len(node.inputs)}")
            unknown = [name for name in node.inputs if name not in shapes]
            if unknown:
                raise ValueError(f"{where}: unknown or later input {unknown[0]!r}")
            for name, value in node.op.parameters().items():
                if not bool(torch.isfinite(value).all()):
                    raise ValueError(f"{where}: {name} holds NaN or infinity")
            try:
                shapes[node.name] = node.op.output_shape(*(shapes[name] for name in node.inputs))
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
        object.__setattr__(self, "shapes", shapes)
        object.__setattr__(self, "_stored", self.nodes)

    @property
    def output(self) -> Node:
        """The last node."""
        return self.nodes[-1]

    @property
    def output_shape(self) -> Shape:
        """The shape of the output, without the batch."""
        return self.shapes[self.output.name]

    @property
    def parameter_count(self) -> int:
        """The number of stored weights."""
        return sum(value.numel() for node in self.nodes for value in node.op.parameters().values())

    @cached_property
    def digest(self) -> str:
        """SHA-256 over input shape, dtype, ops, weights and wiring; names of nodes do not count."""
        numbers = {INPUT: 0} | {node.name: i + 1 for i, node in enumerate(self.nodes)}
        digest = hashlib.sha256(json.dumps([list(self.input_shape), str(self.dtype)]).encode())
        for node in self.nodes:
            wiring = [numbers[name] for name in node.inputs]
            digest.update(json.dumps([node.op.kind, node.op.settings(), wiring], sort_keys=True).encode())
            for name, value in node.op.parameters().items():
                stored = value.detach().cpu()
                # numpy has no bfloat16: its bits are hashed.
                array = (stored.view(torch.int16) if stored.dtype == torch.bfloat16 else stored).contiguous().numpy()
                digest.update(json.dumps([name, str(stored.dtype), list(array.shape)]).encode())
                digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
        return digest.hexdigest()

    def cast(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> Network:
        """Return the network with the stored weights in `dtype` on `device`, made once and kept."""
        key = (dtype, torch.device(device))
        if key not in self._casts:
            nodes = tuple(Node(node.name, node.op.cast(*key), node.inputs) for node in self._stored)
            copy = object.__new__(Network)
            fields = {
                "nodes": nodes,
                "input_shape": self.input_shape,
                "dtype": self.dtype,
                "source": self.source,
                "shapes": self.shapes,
                "_casts": self._casts,
                "_stored": self._stored,
                "digest": self.digest,
            }
            for name, value in fields.items():
                object.__setattr__(copy, name, value)
            self._casts[key] = copy
        return self._casts[key]

    @property
    def randomised(self) -> bool:
        """Whether some op is random: every evaluation, gradient and bound is then that of the *mean* network.

        That is the network whose random ops are replaced by what stands for their draws (the mean of every weight; see
        each op), an ordinary deterministic network, and neither the expected output nor any of the draws.
        """
        return any(node.op.randomised for node in self.nodes)

    def draw(self, generator: torch.Generator) -> Network:
        """Return one draw, an ordinary network whose weights have the dtypes of the stored ones, on the processor.

        Each random op is drawn once, for all inputs. Without any it is the network itself. generator: of the processor.
        """
        if not self.randomised:
            return self
        nodes = tuple(Node(node.name, node.op.draw(generator), node.inputs) for node in self._stored)
        return Network(nodes, self.input_shape, self.dtype, f"a draw of {self.source}")

    def over_draws(self, deviations: float) -> Network:
        """Return a network whose bounds hold for every draw with weights within so many deviations of their means.

        Of what has no deviations (dropped weights, placements) they hold for every draw. Its values are those of the
        mean, which is one of these networks; beside bounds it has no views. See `share_of_draws`. Raises ValueError
        unless deviations is a finite number that is not negative.
        """
        if not 0.0 <= deviations < math.inf:
            raise ValueError(f"draws lie within a finite number of deviations, not negative, got {deviations}")
        nodes = tuple(Node(node.name, node.op.over_draws(deviations), node.inputs) for node in self._stored)
        return Network(
            nodes, self.input_shape, self.dtype, f"all draws of {self.source} within {deviations:g} deviations"
        )

    def share_of_draws(self, deviations: float) -> float:
        """Return the probability that all weights of a draw lie within so many deviations of their means."""
        count = sum(node.op.normal_weights for node in self.nodes)
        return math.erf(deviations / math.sqrt(2.0)) ** count

    def fold(
        self, start: Value, step: Callable[[Op, Sequence[Value]], Value], targets: Sequence[str] | None = None
    ) -> list[Value]:
        """Return the values of the target nodes (default: the output), computing each node once by `step`.

        A value is dropped when its last reader is done, so memory is that of the widest cut.
        """
        wanted = [self.output.name] if targets is None else list(targets)
        last_use = {name: i for i, node in enumerate(self.nodes) for name in node.inputs}
        last_use |= dict.fromkeys(wanted, len(self.nodes))
        values = {INPUT: start}
        for i, node in enumerate(self.nodes):
            if all(name in values for name in wanted):
                break
            values[node.name] = step(node.op, [values[name] for name in node.inputs])
            for name in {*node.inputs, node.name}:
                if last_use.get(name, -1) <= i:
                    del values[name]
        return [values[name] for name in wanted]

    def evaluate(self, x: Any) -> Tensor:
        """Return the output `(batch, *output_shape)` at x `(batch, *input_shape)`, in the dtype and device of x.

        x may be a torch tensor or anything numpy takes; integers are read as the file's dtype. Differentiable.
        """
        value = self._as_input(x)
        return self.cast(value.dtype, value.device).fold(value, lambda op, values: op.evaluate(*values))[0]

    def scores(self, x: Tensor, pseudo: bool = False, leak: float = 0.0) -> Tensor:
        """Return values `(batch, classes)` in the order of the outputs, fit for comparing classes (`Op.scores`).

        pseudo: with pseudogradients behind them; leak: see `Op.evaluate_pseudo`.
        """
        x = self._as_input(x)
        network = self.cast(x.dtype, x.device)

        def step(op: Op, values: Sequence[Tensor]) -> Tensor:
            return op.evaluate_pseudo(*values, leak=leak) if pseudo else op.evaluate(*values)

        before = network.fold(x, step, network.output.inputs)
        return network.output.op.scores(*before, pseudo=pseudo, leak=leak).unsqueeze(-1).flatten(1)

    def interval(self, box: Box, targets: Sequence[str] | None = None) -> list[Box]:
        """Return the boxes of the target nodes (default: the output) over a batch of input boxes. Outer.

        They are all numbers where a node on the way may have no value (`Op.undefined`).
        Raises RuntimeError in float64, where boxes are proofs, if subnormal numbers are flushed to zero.
        """
        if box.shape != tuple(self.input_shape):
            raise ValueError(f"{self.source} takes boxes of shape {tuple(self.input_shape)}, got {box.shape}")
        if box.dtype == torch.float64:
            check_gradual_underflow()
        network = self.cast(box.dtype, box.lower.device)
        without_value = torch.zeros(box.batch, dtype=torch.bool, device=box.lower.device)

        def step(op: Op, boxes: Sequence[Box]) -> Box:
            mask = op.undefined(*boxes)
            if mask is not None:
                without_value.logical_or_(mask)
            return op.interval(*boxes)

        found = network.fold(box, step, targets)
        return [each.unbounded_at(without_value) for each in found] if bool(without_value.any()) else found

    def _as_input(self, x: Any) -> Tensor:
        # A copy in C order: torch takes neither negative strides nor, without a warning, read-only arrays.
        value = x if isinstance(x, Tensor) else torch.as_tensor(np.array(x, order="C"))
        if not value.is_floating_point():
            value = value.to(self.dtype)
        if tuple(value.shape[1:]) != tuple(self.input_shape) or value.dim() == 0:
            expected = ", ".join(["batch", *map(str, self.input_shape)])
            raise ValueError(f"{self.source} takes x of shape ({expected}), got {tuple(value.shape)}")
        return value
