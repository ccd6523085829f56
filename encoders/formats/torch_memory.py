"""Which calls of an exported program write to memory that somebody else reads: these cannot be read as functions.

torch programs may write in place (`relu_`, `y[:, 0] = 0.5`, `out=`). Such a call has the value of its twin that copies
only if nobody sees the written memory under another name. Calls that are known to return memory of their own start a
new piece of memory; the result of *every other* call counts as a view of all tensors that it reads, since schemas do
not tell (`dropout` returns its input, `reshape` may or may not). A call that is no operator of torch may do anything.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Sequence

import torch
from torch.fx import Node as FxNode

REMEDY = "use the form that returns its result (x = x.relu(), torch.where, torch.cat)"

# Functions of Python in programs: they compute sizes, or pick an output.
INTEGER_OPERATORS = (operator.add, operator.mul, operator.floordiv, operator.sub)


def write_problems(nodes: Sequence[FxNode], fresh: Collection[str]) -> dict[FxNode, str]:
    """Return what is wrong with each call that writes where others read; in the order of execution.

    fresh: names of the operators whose results share no memory with anything that exists before.
    """
    return _Memory(nodes, fresh).problems


class _Memory:
    """Pieces of memory by number, and the names (nodes) under which each can still be read."""

    def __init__(self, nodes: Sequence[FxNode], fresh: Collection[str]) -> None:
        self.problems: dict[FxNode, str] = {}
        self._fresh = fresh
        place = {node: index for index, node in enumerate(nodes)}
        self._last_read = {node: max((place[user] for user in node.users), default=-1) for node in nodes}
        # The piece of each node, by a union-find forest over `_parents`.
        self._piece: dict[FxNode, int] = {}
        self._parents: list[int] = []
        self._readable: list[list[FxNode]] = []
        # Pieces of the input, weights and buffers: whoever calls the program sees them.
        self._outside: set[int] = set()
        for index, node in enumerate(nodes):
            self._visit(index, node)

    def _visit(self, index: int, node: FxNode) -> None:
        if node.op == "call_function":
            self._call(index, node)
        elif node.op != "output":
            self._outside.add(self._new(node))

    def _call(self, index: int, node: FxNode) -> None:
        target = node.target
        if isinstance(target, torch._ops.OpOverload):
            if target._schema.is_mutable:
                self._write(index, node)
            elif str(target) in self._fresh:
                self._new(node)
            else:
                self._view(node, node.all_input_nodes)
        elif target is operator.getitem:
            self._view(node, node.all_input_nodes)
        elif target in INTEGER_OPERATORS:
            self._new(node)
        else:
            self.problems[node] = "the operator is not supported, and may write in place to what it reads"
            self._view(node, node.all_input_nodes)

    def _write(self, index: int, node: FxNode) -> None:
        """Note a call that writes, and its problem if there is one."""
        schema = node.target._schema  # type: ignore[union-attr]
        changed = [argument.name for argument in schema.arguments if argument.is_write]
        written = node.args[0] if node.args else None
        in_place = changed == [schema.arguments[0].name] and schema.name.endswith("_")
        if not in_place or not isinstance(written, FxNode):
            self.problems[node] = f"writes to its argument {changed[0]!r}; {REMEDY}"
            self._view(node, node.all_input_nodes)
            return
        piece = self._find(self._piece[written])
        other = [used for used in node.all_input_nodes if used is not written]
        stale = [seen for seen in self._readable[piece] if self._last_read[seen] > index]
        if piece in self._outside:
            self.problems[node] = (
                f"writes in place to {written.name!r}, memory of the input, a weight or a buffer; {REMEDY}"
            )
        elif stale:
            self.problems[node] = (
                f"writes in place to {written.name!r}, whose memory is read afterwards as {stale[0].name!r}; {REMEDY}"
            )
        elif any(self._find(self._piece[used]) == piece for used in other):
            self.problems[node] = f"writes in place to {written.name!r} while it reads the same memory; {REMEDY}"
        else:
            # Nobody reads the earlier names again.
            self._readable[piece] = []
        self._view(node, [written])

    def _new(self, node: FxNode) -> int:
        piece = len(self._parents)
        self._parents.append(piece)
        self._readable.append([node])
        self._piece[node] = piece
        return piece

    def _view(self, node: FxNode, read: Sequence[FxNode]) -> None:
        """Put the node into one piece with everything that it reads."""
        piece = self._new(node)
        for used in read:
            other = self._find(self._piece[used])
            if other == piece:
                continue
            # The shorter list is moved, so that long chains of views stay cheap.
            if len(self._readable[other]) > len(self._readable[piece]):
                piece, other = other, piece
            self._parents[other] = piece
            self._readable[piece] += self._readable[other]
            self._readable[other] = []
            if other in self._outside:
                self._outside.add(piece)

    def _find(self, piece: int) -> int:
        while self._parents[piece] != piece:
            self._parents[piece] = self._parents[self._parents[piece]]
            piece = self._parents[piece]
        return piece
