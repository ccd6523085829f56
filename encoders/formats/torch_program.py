"""The network of an exported torch program: every call is read by the table of operators, or refused by name.

Both the graph as exported (training IR) and the decomposed one (core ATen) are understood. A call that writes in place
is read as its twin that copies, which is right if nobody else reads that memory (`torch_memory`).
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.fx import Node as FxNode
from torch.utils import _pytree as pytree

from encoders.formats.errors import ModelFileError, Problem, UnsupportedNodesError
from encoders.formats.graph import FileInput, GraphBuilder, Value, file_input
from encoders.formats.torch_cells import MOVES
from encoders.formats.torch_constants import FOLDABLE, Constants
from encoders.formats.torch_memory import INTEGER_OPERATORS, write_problems
from encoders.formats.torch_node import BatchSize, TorchNode
from encoders.formats.torch_operators import FRESH, HANDLERS, TUPLES
from encoders.limits import LimitError, Limits
from encoders.network import Network

# Calls that are passed over where nobody reads their result.
_WITHOUT_EFFECT = {
    *HANDLERS,
    *FOLDABLE,
    *FRESH,
    "aten._assert_async.msg",
    "aten._assert_scalar.default",
    "aten._assert_tensor_metadata.default",
    "aten.argmax.default",
    "aten.softmax.int",
    "aten.sym_constrain_range.default",
    "aten.sym_constrain_range_for_size.default",
}


def convert(program: ExportedProgram, source: str, limits: Limits = Limits()) -> Network:
    """Return the network of an exported program; raise ModelFileError naming every unsupported call.

    Raises LimitError if the network would be larger than the limits.
    """
    nodes = list(program.graph.nodes)
    limits.check("nodes", len(nodes), source)
    graph = GraphBuilder(source, program_input(program, source), limits)
    result = _result(program, source)
    values, stored_bytes = _placeholders(program, graph)
    output = _Conversion(graph, values, Constants(stored_bytes, limits)).run(nodes, result)
    if not isinstance(output, Value):
        raise ModelFileError(f"{source}: output {result.name!r} does not depend on the input")
    network = graph.finish(output)
    weights = [value for node in network.nodes for value in node.op.parameters().values()]
    limits.check("weight_bytes", sum(value.numel() * value.element_size() for value in weights), source)
    return network


def program_input(program: ExportedProgram, source: str) -> FileInput:
    """Return the one input of a program; raise ModelFileError for any other signature than tensor to tensor."""
    names = program.graph_signature.user_inputs
    nodes = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    if len(names) != 1 or len(nodes) != 1 or not isinstance(nodes[0].meta.get("val"), Tensor):
        raise ModelFileError(f"{source}: {len(names)} inputs ({', '.join(map(str, names))}); supported: one tensor")
    _check_structure(program, source)
    value = nodes[0].meta["val"]
    dimensions = [size if isinstance(size, int) else str(size) for size in value.shape]
    try:
        return file_input(nodes[0].name, dimensions, value.dtype)
    except ValueError as error:
        raise ModelFileError(f"{source}: {error}") from None


def _check_structure(program: ExportedProgram, source: str) -> None:
    """Refuse programs that take their tensor by keyword or inside a structure, or return it inside one."""
    signature = program.module_call_graph[0].signature
    taken, returned = signature.in_spec, signature.out_spec
    plain = pytree.tree_structure(((0,), {}))
    if taken != plain:
        raise ModelFileError(f"{source}: its input is not one positional tensor; supported: forward(self, x)")
    if returned.num_leaves == 1 and not returned.is_leaf():
        kind = getattr(returned.type, "__name__", returned.type)
        raise ModelFileError(f"{source}: returns its output inside a {kind}; supported: one tensor, so return that")


def _result(program: ExportedProgram, source: str) -> FxNode:
    """Return the node of the one output; refuse programs with several, or that write to weights or the input."""
    specs = program.graph_signature.output_specs
    for spec in specs:
        if spec.kind != OutputKind.USER_OUTPUT:
            raise ModelFileError(f"{source}: it writes to {spec.target!r} ({spec.kind.name}); export after eval()")
    output = next(node for node in program.graph.nodes if node.op == "output")
    results = output.args[0] if isinstance(output.args[0], tuple | list) else [output.args[0]]
    if len(results) != 1 or not isinstance(results[0], FxNode):
        raise ModelFileError(f"{source}: {len(results)} outputs; supported: one tensor")
    return results[0]


def _placeholders(program: ExportedProgram, graph: GraphBuilder) -> tuple[dict[str, Any], int]:
    """Return the values of the graph's inputs (copies of weights and constants, the network's input), and bytes."""
    signature = program.graph_signature
    stored: dict[str, Any] = {**program.constants, **program.state_dict}
    homes = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    values: dict[str, Any] = {}
    total = 0
    for name, home in homes.items():
        given = stored.get(home)
        if not isinstance(given, Tensor) or given.layout != torch.strided or given.device.type == "meta":
            raise ModelFileError(f"{graph.source}: {home!r} is not stored as a dense tensor with values")
        total += given.numel() * given.element_size()
        graph.limits.check("weight_bytes", total, f"{home!r}, with the weights before it,")
        values[name] = given.detach().cpu().clone(memory_format=torch.contiguous_format)
    values[str(signature.user_inputs[0])] = graph.input
    foreign = [node.name for node in program.graph.nodes if node.op == "placeholder" and node.name not in values]
    if foreign:
        raise ModelFileError(f"{graph.source}: graph input {foreign[0]!r} is neither the input nor a tensor")
    return values, total


class _Conversion:
    """The values of nodes by name: a Value, a constant, or None behind a call that is not supported."""

    def __init__(self, graph: GraphBuilder, values: dict[str, Any], constants: Constants) -> None:
        self.graph = graph
        self.values = values
        self.constants = constants

    def run(self, nodes: list[FxNode], result: FxNode) -> Any:
        """Return the value of the result; raise ModelFileError for everything on the way that is not supported."""
        needed, hidden = _needed(result), write_problems(nodes, FRESH)
        problems: list[Problem] = []
        for node in nodes:
            if node.op in ("placeholder", "output"):
                continue
            try:
                if node in hidden:
                    raise ValueError(hidden[node])
                if node in needed:
                    self.values[node.name] = self._converted(node)
                else:
                    _check_unused(node)
            except LimitError:
                raise
            except Exception as error:
                # A forged program may call anything with arguments of any kind, and torch raises what it likes.
                problems.append(Problem(node.name, _target(node), _first_line(error)))
                self.values[node.name] = None
        if problems:
            raise UnsupportedNodesError(self.graph.source, problems, list(HANDLERS))
        return self.values[result.name]

    def _converted(self, node: FxNode) -> Any:
        target, arguments = _target(node), self._bound(node)
        if node.op != "call_function" or arguments is None:
            raise ValueError("the operator is not supported")
        inputs = [self.values[used.name] for used in node.all_input_nodes]
        broken = any(value is None for value in inputs)
        if node.target is operator.getitem and not broken:
            if isinstance(arguments["a"], list):
                return arguments["a"][arguments["b"]]
            if _target(node.args[0]) not in TUPLES or node.args[1] != 0:
                raise ValueError(f"output {node.args[1]} of {_target(node.args[0])} is not supported")
            return arguments["a"]
        if node.target in INTEGER_OPERATORS and all(isinstance(value, int) for value in arguments.values()):
            return _size(node.target(*arguments.values()), *arguments.values())
        if target == "aten.sym_size.int" and not broken:
            return self._axis_size(arguments["self"], arguments["dim"])
        _check_batch_sizes(arguments)
        constant = not broken and not any(isinstance(value, Value) for value in inputs)
        if constant and (target in FOLDABLE or target in MOVES):
            return self.constants.evaluate(node, self._resolved(node.args), self._resolved(node.kwargs))
        if target not in HANDLERS and not (broken and node.target in (operator.getitem, *INTEGER_OPERATORS)):
            raise ValueError("the operator is not supported")
        if broken:
            return None
        call = TorchNode(node.name, arguments, _defaults(node), self.graph, self.constants)
        result = HANDLERS[target](call)
        call.check_all_taken()
        return result

    def _axis_size(self, value: Any, axis: int) -> int:
        size = int(value.shape[axis])
        is_batch = isinstance(value, Value) and axis % len(value.shape) == 0 and self.graph.given.batch == "any"
        return BatchSize(size) if is_batch else size

    def _bound(self, node: FxNode) -> dict[str, Any] | None:
        """Return the arguments by the names of the schema, defaults included; None if there is no schema."""
        args, kwargs = self._resolved(node.args), self._resolved(node.kwargs)
        if isinstance(node.target, torch._ops.OpOverload):
            names = [argument.name for argument in node.target._schema.arguments]
            given: dict[str, Any] = {**_defaults(node), **dict(zip(names, args, strict=False)), **kwargs}
            return given
        if node.target is operator.getitem or node.target in INTEGER_OPERATORS:
            return dict(zip("ab", args, strict=True))
        return None

    def _resolved(self, argument: Any) -> Any:
        """Return an argument with the nodes in it replaced by their values."""
        if isinstance(argument, FxNode):
            return self.values[argument.name]
        if isinstance(argument, tuple | list):
            return [self._resolved(entry) for entry in argument]
        if isinstance(argument, dict):
            return {name: self._resolved(entry) for name, entry in argument.items()}
        return argument


def _target(node: Any) -> str:
    """Return the operator's name; that of the operator without side effect for one that writes in place."""
    if isinstance(getattr(node, "target", None), torch._ops.OpOverload):
        name, overload = str(node.target).rsplit(".", 1)
        return f"{name.removesuffix('_') if node.target._schema.is_mutable else name}.{overload}"
    return getattr(node.target, "__name__", str(node.target))


def _check_unused(node: FxNode) -> None:
    """Refuse a call without readers if it may do more than return a value.

    Schemas do not tell: batch norms in training mode write their statistics, `set_` gives memory a second name.
    """
    name = _target(node)
    if isinstance(node.target, torch._ops.OpOverload) and name not in _WITHOUT_EFFECT:
        raise ValueError("the operator is not supported, and may do more than return the value that nobody reads")
    if name == "aten.batch_norm.default" and _given(node, "training") is not False:
        raise ValueError("training = True writes to the statistics; export after eval()")


def _given(node: FxNode, name: str) -> Any:
    """Return an argument of a call, by the name that the schema gives it."""
    place = [argument.name for argument in node.target._schema.arguments].index(name)  # type: ignore[union-attr]
    return node.args[place] if place < len(node.args) else node.kwargs.get(name)


def _defaults(node: FxNode) -> dict[str, Any]:
    schema = node.target._schema  # type: ignore[union-attr]
    return {argument.name: argument.default_value for argument in schema.arguments if argument.has_default_value()}


def _size(result: int, *given: int) -> int:
    """Return a computed size, marked if it depends on the batch; refuse numbers that are no sizes."""
    if abs(result) >= 2**63:
        raise ValueError("a size of 2^63 or more")
    return BatchSize(result) if any(isinstance(value, BatchSize) for value in given) else result


def _check_batch_sizes(arguments: dict[str, Any]) -> None:
    """Refuse calls that compute with the number of inputs: it may only lead the shape of a result."""
    for name, value in arguments.items():
        entries = value if isinstance(value, list) else [value]
        leading = name in ("size", "shape") and isinstance(value, list) and bool(value) and value[0] == 1
        if any(isinstance(entry, BatchSize) for entry in (entries[1:] if leading else entries)):
            raise ValueError(f"argument {name} depends on the number of inputs in the batch")


def _needed(result: FxNode) -> set[FxNode]:
    """Return the nodes that the result depends on."""
    needed, pending = {result}, [result]
    while pending:
        for used in pending.pop().all_input_nodes:
            if used not in needed:
                needed.add(used)
                pending.append(used)
    return needed


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
