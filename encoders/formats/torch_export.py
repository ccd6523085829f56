"""Read torch modules and .pt2 files through torch.export, and run them in torch.

Both the graph as exported (training IR) and the decomposed one (core ATen) are understood. Operators that write
in place are read as if they did not, which is only right if nothing else sees the tensor that they write: this is
checked. Whatever has no row in the table of handlers is refused by name.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.fx import Node as FxNode

from encoders.formats import torch_ops as ops
from encoders.formats import torch_shape_ops as moves
from encoders.formats.errors import ModelFileError, unsupported_nodes
from encoders.formats.graph import FileInput, GraphBuilder, Value, file_input
from encoders.formats.runtime import Array, Runtime, open_batched
from encoders.formats.torch_archive import open_archive
from encoders.formats.torch_node import TorchNode
from encoders.limits import Limits
from encoders.network import Network
from encoders.ops import Relu, Sigmoid, Tanh

HANDLERS: dict[str, Callable[[TorchNode], Value]] = {
    "aten._adaptive_avg_pool2d.default": ops.adaptive_average_pool,
    "aten._native_batch_norm_legit_no_training.default": ops.batch_norm,
    "aten._to_copy.default": moves.to_dtype,
    "aten._unsafe_view.default": moves.view,
    "aten.abs.default": ops.absolute,
    "aten.adaptive_avg_pool2d.default": ops.adaptive_average_pool,
    "aten.add.Scalar": ops.add,
    "aten.add.Tensor": ops.add,
    "aten.addmm.default": ops.addmm,
    "aten.alias.default": moves.identity,
    "aten.avg_pool2d.default": ops.average_pool,
    "aten.batch_norm.default": ops.batch_norm,
    "aten.cat.default": moves.concat,
    "aten.clamp.default": ops.clamp,
    "aten.clamp_min.default": ops.clamp,
    "aten.clone.default": moves.identity,
    "aten.contiguous.default": moves.identity,
    "aten.conv2d.default": ops.convolution,
    "aten.conv2d.padding": ops.convolution,
    "aten.convolution.default": ops.convolution,
    "aten.detach.default": moves.identity,
    "aten.div.Scalar": ops.divide,
    "aten.div.Tensor": ops.divide,
    "aten.dropout.default": moves.dropout,
    "aten.feature_dropout.default": moves.dropout,
    "aten.flatten.using_ints": moves.flatten,
    "aten.unflatten.int": moves.unflatten,
    "aten.hardtanh.default": ops.clamp,
    "aten.leaky_relu.default": ops.leaky_relu,
    "aten.linear.default": ops.linear,
    "aten.matmul.default": ops.matmul,
    "aten.max_pool2d.default": ops.max_pool,
    "aten.max_pool2d_with_indices.default": ops.max_pool,
    "aten.mean.dim": ops.mean,
    "aten.mm.default": ops.matmul,
    "aten.mul.Scalar": ops.multiply,
    "aten.mul.Tensor": ops.multiply,
    "aten.neg.default": ops.negate,
    "aten.permute.default": moves.permute,
    "aten.relu.default": ops.activation(Relu),
    "aten.reshape.default": moves.view,
    "aten.rsub.Scalar": ops.reversed_subtract,
    "aten.rsub.Tensor": ops.reversed_subtract,
    "aten.sigmoid.default": ops.activation(Sigmoid),
    "aten.slice.Tensor": moves.slice_,
    "aten.squeeze.dim": moves.squeeze,
    "aten.squeeze.dims": moves.squeeze,
    "aten.sub.Scalar": ops.subtract,
    "aten.sub.Tensor": ops.subtract,
    "aten.tanh.default": ops.activation(Tanh),
    "aten.to.dtype": moves.to_dtype,
    "aten.transpose.int": moves.transpose,
    "aten.unsqueeze.default": moves.unsqueeze,
    "aten.view.default": moves.view,
    "encoders.mwd.default": ops.max_weighted_distance,
    "encoders.mwd_conv2d.default": ops.convolutional_max_weighted_distance,
}

# Calls that are evaluated where all inputs are constant. A list, because a file must not choose what runs.
FOLDABLE = (
    "aten.add.Tensor",
    "aten.alias.default",
    "aten.clone.default",
    "aten.contiguous.default",
    "aten.detach.default",
    "aten.div.Tensor",
    "aten.expand.default",
    "aten.full.default",
    "aten.lift_fresh_copy.default",
    "aten.mul.Tensor",
    "aten.neg.default",
    "aten.ones.default",
    "aten.permute.default",
    "aten.reshape.default",
    "aten.sub.Tensor",
    "aten.t.default",
    "aten.transpose.int",
    "aten.unsqueeze.default",
    "aten.view.default",
    "aten.zeros.default",
)

# Calls that return several tensors, of which only the first is supported.
_TUPLES = ("aten._native_batch_norm_legit_no_training.default", "aten.max_pool2d_with_indices.default")

# Calls whose result may share memory with their input.
_VIEWS = {name for name, handler in HANDLERS.items() if handler.__module__ == moves.__name__}
_VIEWS = (_VIEWS | {"aten.t.default", "aten.expand.default"}) - {"aten.cat.default", "aten.clone.default"}

_INTEGER_OPERATORS = (operator.add, operator.mul, operator.floordiv, operator.sub)


def read_network(path: Path, limits: Limits = Limits()) -> Network:
    """Return the network in a .pt2 file."""
    return convert(open_archive(path), str(path))


def open_runtime(path: Path, limits: Limits = Limits()) -> Runtime:
    """Return the program in a .pt2 file as torch executes it; only programs that can be read are executed."""
    program = open_archive(path)
    convert(program, str(path))
    return _runtime(program.module(), _input(program, str(path)))


def from_module(module: nn.Module, input_shape: Sequence[int]) -> Network:
    """Return the network of a module in evaluation mode, for inputs `(batch, *input_shape)`.

    The module itself is left as it is. Raises ModelFileError if torch.export cannot trace it, or naming every
    operator that is not supported.
    """
    source = type(module).__name__
    model = _evaluation_copy(module)
    example = torch.zeros(1, *input_shape, dtype=_dtype_of(model))
    try:
        program = torch.export.export(model, (example,), strict=False)
    except Exception as error:
        # Whatever the module's own code raises comes out of the tracer.
        raise ModelFileError(
            f"{source}: torch.export cannot trace it with an input of shape {tuple(example.shape)}: {error}"
        ) from error
    return convert(program, source)


def open_module(module: nn.Module, input_shape: Sequence[int]) -> Runtime:
    """Return a copy of the module, in evaluation mode and on the CPU, as torch executes it."""
    model = _evaluation_copy(module)
    shape = tuple(input_shape)
    return _runtime(model, FileInput((1, *shape), "any", _dtype_of(model)))


def convert(program: ExportedProgram, source: str) -> Network:
    """Return the network of an exported program; raise ModelFileError naming every unsupported call."""
    graph = GraphBuilder(source, _input(program, source))
    values = _placeholders(program, graph)
    result = _result(program, source)
    needed = _needed(result)
    problems: list[str] = []
    for node in program.graph.nodes:
        if node.op in ("placeholder", "output"):
            continue
        where = f"node {node.name!r} ({_target(node)})"
        try:
            _check_in_place(node)
            if node in needed:
                values[node.name] = _convert_node(node, values, graph)
        except ValueError as error:
            problems.append(f"{where}: {error}")
            values[node.name] = None
    if problems:
        raise unsupported_nodes(source, problems, list(HANDLERS))
    output = values[result.name]
    if not isinstance(output, Value):
        raise ModelFileError(f"{source}: output {result.name!r} does not depend on the input")
    return graph.finish(output)


def _convert_node(node: FxNode, values: dict[str, Any], graph: GraphBuilder) -> Any:
    """Return the value of a call: a Value, a constant, or None behind a call that is not supported."""
    target = _target(node)
    arguments = _bound(node, values)
    if node.op != "call_function" or arguments is None:
        raise ValueError("the operator is not supported")
    broken = any(value is None for value in (values[used.name] for used in node.all_input_nodes))
    if node.target is operator.getitem and not broken:
        if _target(node.args[0]) not in _TUPLES or node.args[1] != 0:
            raise ValueError(f"output {node.args[1]} of {_target(node.args[0])} is not supported")
        return arguments["a"]
    if node.target in _INTEGER_OPERATORS and all(isinstance(value, int) for value in arguments.values()):
        return node.target(*arguments.values())
    computed = any(isinstance(values[used.name], Value) for used in node.all_input_nodes)
    if target == "aten.sym_size.int" and not broken:
        return arguments["self"].shape[arguments["dim"]]
    if target in FOLDABLE and not computed and not broken:
        with torch.no_grad():
            return node.target(*_resolved(node.args, values), **_resolved(node.kwargs, values))  # type: ignore[operator]
    if target not in HANDLERS and not (broken and node.target in (operator.getitem, *_INTEGER_OPERATORS)):
        raise ValueError("the operator is not supported")
    if broken:
        return None
    call = TorchNode(node.name, arguments, _defaults(node), graph)
    result = HANDLERS[target](call)
    call.check_all_taken()
    return result


def _target(node: Any) -> str:
    """Return the operator's name; that of the operator without side effect for one that writes in place."""
    if isinstance(getattr(node, "target", None), torch._ops.OpOverload):
        name, overload = str(node.target).rsplit(".", 1)
        return f"{name.removesuffix('_') if node.target._schema.is_mutable else name}.{overload}"
    return getattr(node.target, "__name__", str(node.target))


def _bound(node: FxNode, values: dict[str, Any]) -> dict[str, Any] | None:
    """Return the arguments by the names of the schema, defaults included; None if there is no schema."""
    args, kwargs = list(_resolved(node.args, values)), dict(_resolved(node.kwargs, values))
    if isinstance(node.target, torch._ops.OpOverload):
        names = [argument.name for argument in node.target._schema.arguments]
        return _defaults(node) | dict(zip(names, args, strict=False)) | kwargs
    if node.target is operator.getitem or node.target in _INTEGER_OPERATORS:
        return dict(zip("ab", args, strict=True))
    return None


def _defaults(node: FxNode) -> dict[str, Any]:
    schema = node.target._schema  # type: ignore[union-attr]
    return {argument.name: argument.default_value for argument in schema.arguments if argument.has_default_value()}


def _resolved(argument: Any, values: dict[str, Any]) -> Any:
    """Return an argument with the nodes in it replaced by their values."""
    if isinstance(argument, FxNode):
        return values[argument.name]
    if isinstance(argument, tuple | list):
        return [_resolved(entry, values) for entry in argument]
    if isinstance(argument, dict):
        return {name: _resolved(entry, values) for name, entry in argument.items()}
    return argument


def _check_in_place(node: FxNode) -> None:
    """Refuse a call that writes to a tensor that the input, a weight or another call may read."""
    if not isinstance(node.target, torch._ops.OpOverload) or not node.target._schema.is_mutable:
        return
    written = node.args[0]
    while isinstance(written, FxNode):
        if written.op == "placeholder" or len(written.users) != 1:
            raise ValueError(f"writes in place to {written.name!r}, which is used elsewhere; use the form that copies")
        mutable = isinstance(written.target, torch._ops.OpOverload) and written.target._schema.is_mutable
        shares = mutable or _target(written) in _VIEWS or written.target is operator.getitem
        written = written.args[0] if shares and written.args else None


def _needed(result: FxNode) -> set[FxNode]:
    """Return the nodes that the result depends on."""
    needed, pending = {result}, [result]
    while pending:
        for used in pending.pop().all_input_nodes:
            if used not in needed:
                needed.add(used)
                pending.append(used)
    return needed


def _placeholders(program: ExportedProgram, graph: GraphBuilder) -> dict[str, Any]:
    """Return the values of the graph's inputs: weights, constants, and the network's input."""
    signature = program.graph_signature
    stored: dict[str, Any] = {**program.constants, **program.state_dict}
    homes = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    values: dict[str, Any] = {name: stored[home].detach().cpu() for name, home in homes.items()}
    values[str(signature.user_inputs[0])] = graph.input
    foreign = [node.name for node in program.graph.nodes if node.op == "placeholder" and node.name not in values]
    if foreign:
        raise ModelFileError(f"{graph.source}: graph input {foreign[0]!r} is neither the input nor a tensor")
    return values


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


def _input(program: ExportedProgram, source: str) -> FileInput:
    """Return the one input of a program."""
    names = program.graph_signature.user_inputs
    nodes = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    if len(names) != 1 or len(nodes) != 1 or not isinstance(nodes[0].meta.get("val"), Tensor):
        raise ModelFileError(f"{source}: {len(names)} inputs ({', '.join(map(str, names))}); supported: one tensor")
    value = nodes[0].meta["val"]
    dimensions = [size if isinstance(size, int) else str(size) for size in value.shape]
    try:
        return file_input(nodes[0].name, dimensions, value.dtype)
    except ValueError as error:
        raise ModelFileError(f"{source}: {error}") from None


def _runtime(module: nn.Module, given: FileInput) -> Runtime:
    def run(x: Array) -> Array:
        with torch.no_grad():
            result: Array = module(torch.from_numpy(x.copy())).numpy()
        return result

    dtype = torch.empty(0, dtype=given.dtype).numpy().dtype
    return open_batched(f"torch {torch.__version__}", given.sample_shape, dtype, given.batch, run)


def _evaluation_copy(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).eval().cpu()


def _dtype_of(module: nn.Module) -> torch.dtype:
    """Return the dtype of the module's first floating-point weight; torch's default if it has none."""
    weights = [*module.parameters(), *module.buffers()]
    return next((weight.dtype for weight in weights if weight.is_floating_point()), torch.get_default_dtype())
