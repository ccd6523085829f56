"""Functions that an ONNX file defines: their calls are replaced by what they do, after it is known how much that is.

A file of a few hundred bytes can define functions that call one another twice each, thirty deep. So the nodes and
bytes of the expansion are counted first, function by function; then the onnx package expands.
"""

from __future__ import annotations

import onnx
from onnx import inliner

from encoders.formats.errors import ModelFileError
from encoders.limits import Limits

_DEFAULT = ("", "ai.onnx")
Key = tuple[str, str, str]
# Functions within functions: the expansion is recursive.
_DEEPEST = 50


def inlined(model: onnx.ModelProto, source: str, limits: Limits) -> onnx.ModelProto:
    """Return the model without calls of its own functions; itself if it defines none.

    Raises ModelFileError for functions that cannot be expanded, LimitError for an expansion beyond the limits.
    """
    if not model.functions:
        return model
    counting = _Counting(model, source)
    nodes, size = counting.total(model.graph.node, ())
    limits.check("nodes", nodes, "the graph, with its functions expanded,")
    limits.check("expanded_bytes", size, "the graph, with its functions expanded,")
    try:
        return inliner.inline_local_functions(model)
    except Exception as error:
        # The library raises classes of its own.
        raise ModelFileError(f"{source}: its functions cannot be expanded: {str(error)[:500]}; inline them") from None


class _Counting:
    """How many nodes and bytes calls expand to, upper bounds; each function is looked at once."""

    def __init__(self, model: onnx.ModelProto, source: str) -> None:
        self._source = source
        self._functions: dict[Key, onnx.FunctionProto] = {}
        self._known: dict[Key, tuple[int, int, int]] = {}
        versions = {entry.domain: entry.version for entry in model.opset_import}
        for function in model.functions:
            key = (function.domain, function.name, function.overload)
            if key in self._functions or function.domain in _DEFAULT:
                raise self._refused(function, "is defined twice, or in the default domain")
            for entry in function.opset_import:
                if versions.get(entry.domain, entry.version) != entry.version:
                    raise self._refused(function, f"uses opset {entry.version} of {entry.domain!r}, the graph another")
            self._functions[key] = function

    def total(self, nodes: object, calls: tuple[Key, ...]) -> tuple[int, int]:
        """Return (nodes, bytes) of the expanded nodes, reached by the given calls."""
        count = size = 0
        for node in nodes:  # type: ignore[attr-defined]
            key = (node.domain, node.op_type, node.overload)
            own = node.ByteSize()
            if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
                raise ModelFileError(f"{self._source}: node {node.name[:80]!r} ({node.op_type[:80]}) beside functions "
                                     "holds a graph, which is not supported; inline the functions")  # fmt: skip
            if key not in self._functions:
                count, size = count + 1, size + own
                continue
            inside, held, references = self._expanded(key, calls)
            # What a call says, its attributes and names, may be repeated wherever the function refers to it.
            count, size = count + inside, size + held + own * (1 + references)
        return count, size

    def _expanded(self, key: Key, calls: tuple[Key, ...]) -> tuple[int, int, int]:
        """Return (nodes, bytes, places that may repeat the call's attributes and names) of one function."""
        if key in calls:
            raise self._refused(self._functions[key], "calls itself")
        if len(calls) >= _DEEPEST:
            raise self._refused(self._functions[key], f"lies in more than {_DEEPEST} calls")
        if key not in self._known:
            body = self._functions[key].node
            nodes, size = self.total(body, (*calls, key))
            references = sum(1 + len(node.attribute) + len(node.input) + len(node.output) for node in body)
            self._known[key] = (nodes, size, max(references, nodes))
        return self._known[key]

    def _refused(self, function: onnx.FunctionProto, reason: str) -> ModelFileError:
        return ModelFileError(f"{self._source}: function {function.name[:80]!r} {reason}; inline it")
