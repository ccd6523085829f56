"""Copies of networks as one network: its input is theirs side by side, without what they share (`encoders.joint`).

Equal in real arithmetic: inputs are gathered, never computed, and every node of a copy is the network's own. As
differences, a copy of the same structure as the first is carried as what it differs from it by, node by node
(`encoders.views.change`), and its output is the first one's plus that: equal again, and bounds know what both share.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from encoders.joint import Copy, Joint
from encoders.network import INPUT, Network, Node
from encoders.ops import Add, Concat, Gather, MultiplyConstant, Op, Reshape, Sub


def join_networks(joint: Joint, networks: Mapping[str, Network], *, as_differences: bool = False) -> Network:
    """Return the network of a joint input `(inputs,)` and the joint outputs `(outputs,)`.

    Its dtype is the one whose numbers all networks take as they are. as_differences: for linear bounds; no other method
    gains by it. Raises ValueError where a copy does not fit its network, there is no such dtype, or a constant is none
    of its numbers.
    """
    used = [networks[name] for name in joint.networks]
    dtype = common_dtype([network.dtype for network in used])
    joined = _Joined(joint, networks)
    for number, copy in enumerate(joint.copies):
        _check(copy, networks[copy.network], dtype)
        if as_differences and number and joined.same_structure(copy):
            joined.add_difference(number, copy)
        else:
            joined.add_copy(number, copy)
    return Network(tuple(joined.finished()), (joint.inputs,), dtype, " and ".join(network.source for network in used))


def shares_structure(joint: Joint, networks: Mapping[str, Network]) -> bool:
    """Return whether linear bounds gain by differences: a copy has the structure of the first one, and its input.

    Of copies at different inputs the differences are no smaller than the values over wide boxes, where they lose.
    """
    joined, first = _Joined(joint, networks), joint.copies[0]
    return any(
        joined.same_structure(copy) and (copy.places, copy.constants) == (first.places, first.constants)
        for copy in joint.copies[1:]
    )


class _Joined:
    """The nodes so far, and those of the outputs. A node of copy k is called k/name, what it differs by k-name."""

    def __init__(self, joint: Joint, networks: Mapping[str, Network]) -> None:
        self._joint, self._networks = joint, networks
        self._nodes: list[Node] = []
        self._outputs: list[str] = []

    def add_copy(self, number: int, copy: Copy) -> None:
        """Add a copy with all its nodes."""
        network = self._networks[copy.network]
        self._push(f"{number}.input", _gathered(copy, network), INPUT)
        for node in network.nodes:
            self._push(f"{number}/{node.name}", node.op, *(_own(number, name) for name in node.inputs))
        self._outputs.append(self._push(f"{number}.output", Reshape((copy.outputs,)), self._nodes[-1].name))

    def same_structure(self, copy: Copy) -> bool:
        """Return whether a copy has the nodes of the first, each of the same kind and shape."""
        first, second = (self._networks[each.network] for each in (self._joint.copies[0], copy))
        if len(first.nodes) != len(second.nodes) or first.input_shape != second.input_shape:
            return False
        place = {INPUT: INPUT} | {b.name: a.name for a, b in zip(first.nodes, second.nodes, strict=True)}
        return all(
            (a.op.kind, a.inputs, first.shapes[a.name])
            == (b.op.kind, tuple(place[name] for name in b.inputs), second.shapes[b.name])
            for a, b in zip(first.nodes, second.nodes, strict=True)
        )

    def add_difference(self, number: int, copy: Copy) -> None:
        """Add what a copy differs from the first by, node by node, and its output as the first one's plus that."""
        first, second = (self._networks[each.network] for each in (self._joint.copies[0], copy))
        # The node of each difference; None for one that is zero.
        changes: dict[str, str | None] = {INPUT: self._input_change(number, copy)}
        for a, b in zip(first.nodes, second.nodes, strict=True):
            known = [changes[name] for name in a.inputs]
            if not any(known) and a.op.is_same(b.op):
                changes[a.name] = None
            else:
                changes[a.name] = self._changed(f"{number}-{a.name}", a, b, known)
        flat = Reshape((copy.outputs,))
        change = changes[first.output.name]
        output = "0.output"
        if change is not None:
            output = self._push(f"{number}.output", Add(), output, self._push(f"{number}.change", flat, change))
        self._outputs.append(output)

    def finished(self) -> list[Node]:
        """Return all nodes, the joint output last."""
        if self._joint.shown:
            self._outputs.append(self._push("shown", Gather(torch.tensor(self._joint.shown)), INPUT))
        whole = self._outputs[0]
        for number, part in enumerate(self._outputs[1:], start=1):
            whole = self._push(f"{number}.joined", Concat(0), whole, part)
        return self._nodes

    def _input_change(self, number: int, copy: Copy) -> str | None:
        """Return the node of what a copy's input differs from the first one's by."""
        network, first = self._networks[copy.network], self._joint.copies[0]
        fixed = [each.constants or (0.0,) * len(each.places) for each in (first, copy)]
        differs = [
            a != b or (a == -1 and one != other)
            for a, b, one, other in zip(first.places, copy.places, *fixed, strict=True)
        ]
        if not any(differs):
            return None
        own = self._push(f"{number}.input", _gathered(copy, network), INPUT)
        mask = torch.tensor(differs, dtype=torch.float64).reshape(network.input_shape)
        change = self._push(f"{number}.moved", Sub(), own, "0.input")
        # An interval forgets that coordinates are shared.
        return change if all(differs) else self._push(f"{number}.change of input", MultiplyConstant(mask), change)

    def _changed(self, name: str, a: Node, b: Node, known: Sequence[str | None]) -> str | None:
        """Return the node of what b at the changed inputs differs from a by; None for zero."""
        change = a.op.change(b.op)
        values = [_own(0, each) for each in a.inputs]
        if change is None or (None in known and any(known)) or (change.of_both is not None and not any(known)):
            moved = [
                value if by is None else self._push(f"{name}.input {i}", Add(), value, by)
                for i, (value, by) in enumerate(zip(values, known, strict=True))
            ]
            return self._push(name, Sub(), self._push(f"{name}.value", b.op, *moved), _own(0, a.name))
        if change.of_both is not None:
            return self._push(name, change.of_both, *(by for by in known if by), *values)
        terms = [self._push(f"{name}.{i}", op, *values) for i, op in enumerate(change.of_value)]
        if any(known):
            assert change.of_change is not None
            terms.append(self._push(f"{name}.change", change.of_change, *(by for by in known if by)))
        if not terms:
            # The same numbers, stored in two dtypes.
            return None
        whole = terms[0]
        for i, term in enumerate(terms[1:]):
            whole = self._push(f"{name}.sum {i}", Add(), whole, term)
        return whole

    def _push(self, name: str, op: Op, *inputs: str) -> str:
        self._nodes.append(Node(name, op, inputs))
        return name


def _own(number: int, name: str) -> str:
    """Return how a node of a network is called in a copy."""
    return f"{number}.input" if name == INPUT else f"{number}/{name}"


def common_dtype(dtypes: Sequence[torch.dtype]) -> torch.dtype:
    """Return the dtype whose numbers are numbers of every other one; ValueError where none of them is that."""
    for dtype in dtypes:
        if all(torch.promote_types(dtype, other) == other for other in dtypes):
            return dtype
    kinds = " and ".join(str(dtype).removeprefix("torch.") for dtype in dict.fromkeys(dtypes))
    raise ValueError(f"networks of {kinds} have no dtype in common; export them in one")


def _check(copy: Copy, network: Network, dtype: torch.dtype) -> None:
    """Raise ValueError where a copy is not of a network."""
    counts = math.prod(network.input_shape), math.prod(network.output_shape)
    if counts != (len(copy.places), copy.outputs):
        raise ValueError(
            f"the property is about a network {copy.network!r} of {len(copy.places)} inputs and {copy.outputs} "
            f"outputs, {network.source} has {counts[0]} and {counts[1]}"
        )
    for place, value in zip(copy.places, copy.constants, strict=False):
        if place == -1 and float(torch.tensor(value, dtype=torch.float64).to(dtype)) != value:
            kind = str(dtype).removeprefix("torch.")
            raise ValueError(f"a fixed input is {value!r}, which is no {kind}; round it as {network.source} takes it")


def _gathered(copy: Copy, network: Network) -> Gather:
    """Return the op that takes the joint input to that of a copy."""
    index = torch.tensor(copy.places).reshape(network.input_shape)
    if not copy.constants:
        return Gather(index)
    return Gather(index, torch.tensor(copy.constants, dtype=torch.float64).reshape(network.input_shape))
