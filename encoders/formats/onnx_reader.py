"""Read ONNX files (opsets 8 to 21, default domain), and run them in onnxruntime.

A node whose inputs are all constant is evaluated by ONNX's reference implementation, in the file's arithmetic, as
every runtime does when it loads a file: what a verdict calls stored weights is the result. Everything else goes
through the table of handlers; whatever has no row there, or an attribute without a row, is refused by name.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from encoders.formats import onnx_ops as ops
from encoders.formats import onnx_shape_ops as moves
from encoders.formats.errors import ModelFileError, unsupported_nodes
from encoders.formats.graph import FileInput, GraphBuilder, Value, file_input
from encoders.formats.onnx_node import OnnxNode
from encoders.formats.runtime import Array, Runtime, open_batched
from encoders.limits import LimitError, Limits
from encoders.network import Network

OPSETS = range(8, 22)

_AUTO = ("auto_pad", "pads", "strides", "kernel_shape")

# Operator: (handler, the attributes that it understands).
HANDLERS: dict[str, tuple[Callable[[OnnxNode], Value], tuple[str, ...]]] = {
    "Abs": (ops.absolute, ()),
    "Add": (ops.add, ()),
    "AveragePool": (ops.average_pool, (*_AUTO, "ceil_mode", "count_include_pad", "dilations")),
    # momentum only matters in training.
    "BatchNormalization": (ops.batch_normalization, ("epsilon", "momentum", "spatial", "training_mode")),
    # saturate only matters for casts to 8-bit floats, which are refused.
    "Cast": (moves.cast, ("to", "saturate")),
    "Clip": (ops.clip, ("min", "max")),
    "Concat": (moves.concat, ("axis",)),
    "Conv": (ops.conv, (*_AUTO, "dilations", "group")),
    "Div": (ops.divide, ()),
    # ratio and seed only matter in training.
    "Dropout": (moves.dropout, ("ratio", "seed")),
    "Flatten": (moves.flatten, ("axis",)),
    "Gemm": (ops.gemm, ("alpha", "beta", "transA", "transB")),
    "GlobalAveragePool": (ops.global_average_pool, ()),
    "Identity": (moves.identity, ()),
    "LeakyRelu": (ops.leaky_relu, ("alpha",)),
    "MatMul": (ops.matmul, ()),
    "MaxPool": (ops.max_pool, (*_AUTO, "ceil_mode", "dilations", "storage_order")),
    "Mul": (ops.multiply, ()),
    "Neg": (ops.negate, ()),
    # noop_with_empty_axes only matters without axes, which is refused.
    "ReduceMean": (ops.reduce_mean, ("axes", "keepdims", "noop_with_empty_axes")),
    "Relu": (ops.relu, ()),
    "Reshape": (moves.reshape, ("allowzero",)),
    "Sigmoid": (ops.sigmoid, ()),
    "Slice": (moves.slice_, ("starts", "ends", "axes")),
    "Squeeze": (moves.squeeze, ("axes",)),
    "Sub": (ops.subtract, ()),
    "Tanh": (ops.tanh, ()),
    "Transpose": (moves.transpose, ("perm",)),
    "Unsqueeze": (moves.unsqueeze, ("axes",)),
}

# Operators of the chains by which exporters compute shapes: no problem of their own behind an unsupported node.
_FOLLOWED = ("Shape", "Gather")

# Operators without inputs that still do not give the same value twice.
RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")


def read_network(path: Path, limits: Limits = Limits()) -> Network:
    """Return the network in an ONNX file."""
    return convert(_load(path), str(path), limits)


def open_runtime(path: Path, limits: Limits = Limits()) -> Runtime:
    """Return the file as onnxruntime executes it on the CPU."""
    import onnxruntime

    model = _load(path)
    given = _input(model, str(path))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    content = gzip.decompress(path.read_bytes()) if path.suffix.lower() == ".gz" else str(path)
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # onnxruntime raises classes of its own, without a common base.
        raise ModelFileError(f"{path}: onnxruntime does not open it: {error}") from None
    name, dtype = session.get_inputs()[0].name, torch.empty(0, dtype=given.dtype).numpy().dtype

    def run(x: Array) -> Array:
        result: Array = session.run(None, {name: x})[0]
        return result

    return open_batched(f"onnxruntime {onnxruntime.__version__}", given.sample_shape, dtype, given.batch, run)


def convert(model: onnx.ModelProto, source: str, limits: Limits = Limits()) -> Network:
    """Return the network of a model in memory; raise ModelFileError naming every node that is not supported."""
    given, opset = _input(model, source), _opset(model, source)
    graph = GraphBuilder(source, given, limits)
    values: dict[str, Any] = {}
    for tensor in model.graph.initializer:
        try:
            values[tensor.name] = numpy_helper.to_array(tensor)
        except Exception as error:
            # The decoder raises whatever numpy raises on lengths that do not fit.
            raise ModelFileError(f"{source}: weight {tensor.name!r} cannot be decoded: {error}") from None
    values[_inputs(model)[0].name] = graph.input
    output = model.graph.output[0].name
    problems: list[str] = []
    for node in _needed(model.graph, output):
        try:
            _convert_node(node, values, graph, opset)
        except LimitError:
            raise
        except ValueError as error:
            problems.append(f"node {node.name or next(iter(node.output), '')!r} ({node.op_type}): {error}")
            values.update(dict.fromkeys(name for name in node.output if name))
    if problems:
        raise unsupported_nodes(source, problems, list(HANDLERS))
    result = values.get(output)
    if not isinstance(result, Value):
        raise ModelFileError(f"{source}: output {output!r} does not depend on the input")
    return graph.finish(result)


def _convert_node(node: onnx.NodeProto, values: dict[str, Any], graph: GraphBuilder, opset: int) -> None:
    """Set the value of the node's first output; None marks values behind a node that is not supported."""
    unknown = [name for name in node.input if name and name not in values]
    if unknown:
        raise ValueError(f"reads {unknown[0]!r}, which nothing before it computes")
    repeated = [name for name in node.output if name in values]
    if repeated:
        raise ValueError(f"computes {repeated[0]!r}, which exists already")
    inputs = tuple(values[name] if name else None for name in node.input)
    broken = any(value is None and name for name, value in zip(node.input, inputs, strict=True))
    if node.domain not in ("", "ai.onnx"):
        raise ValueError(f"domain {node.domain!r} is not supported; supported: the default domain")
    _check_schema(node, opset)
    if node.op_type == "Shape" and len(inputs) == 1 and isinstance(inputs[0], Value):
        inputs = (moves.shape_stand_in(inputs[0].shape),)
    if not broken and not any(isinstance(value, Value) for value in inputs):
        results = _evaluate(node, inputs, opset)
        values.update(zip(node.output, results, strict=False))
        return
    if node.op_type not in HANDLERS:
        if broken and node.op_type in _FOLLOWED:
            values.update(dict.fromkeys(node.output))
            return
        raise ValueError("the operator is not supported")
    handler, known = HANDLERS[node.op_type]
    attributes = _attributes(node, known)
    if node.op_type != "Dropout" and any(node.output[1:]):
        raise ValueError(f"output {node.output[1]!r} is not supported; supported: the first output")
    result = None
    if not broken:
        result = handler(OnnxNode(node.output[0], inputs, attributes, opset, graph))
    values[node.output[0]] = result


def _attributes(node: onnx.NodeProto, known: tuple[str, ...]) -> dict[str, Any]:
    """Return the attributes by name, text decoded; raise ValueError for any that no handler knows."""
    attributes = {}
    for attribute in node.attribute:
        if attribute.name not in known:
            raise ValueError(f"attribute {attribute.name!r} is not supported")
        value = helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            value = value.decode()
        attributes[attribute.name] = value if isinstance(value, str | int | float) else list(value)
    return attributes


def _check_schema(node: onnx.NodeProto, opset: int) -> None:
    """Raise ValueError for an operator, attribute or number of inputs that the opset does not know."""
    if not onnx.defs.has(node.op_type, opset, ""):
        raise ValueError(f"opset {opset} has no such operator")
    schema = onnx.defs.get_schema(node.op_type, opset, "")
    given = [attribute.name for attribute in node.attribute]
    for attribute in node.attribute:
        if attribute.name not in schema.attributes or given.count(attribute.name) > 1 or attribute.ref_attr_name:
            raise ValueError(f"attribute {attribute.name!r} is not supported in opset {opset}")
        # The enumeration of the schema is not typed.
        expected: Any = schema.attributes[attribute.name].type
        if attribute.type != expected.value:
            raise ValueError(f"attribute {attribute.name!r} has the wrong type")
    missing = [name for name, field in schema.attributes.items() if field.required and name not in given]
    if missing:
        raise ValueError(f"attribute {missing[0]!r} is missing")
    if not schema.min_input <= len(node.input) <= schema.max_input:
        raise ValueError(f"has {len(node.input)} inputs; opset {opset} knows {schema.min_input} to {schema.max_input}")


def _evaluate(node: onnx.NodeProto, inputs: tuple[Array | None, ...], opset: int) -> list[Array]:
    """Return the outputs of a node whose inputs are all constant."""
    if node.op_type in RANDOM:
        raise ValueError("random values are not supported")
    if any(attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for attribute in node.attribute):
        raise ValueError("control flow is not supported")
    feeds = {name: value for name, value in zip(node.input, inputs, strict=True) if value is not None}
    types = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in feeds.items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
    graph = helper.make_graph([node], "constant", types, outputs)
    alone = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    try:
        results = ReferenceEvaluator(alone).run(None, feeds)
    except Exception as error:
        # The evaluator lets any error of numpy or of its own through.
        raise ValueError(f"a constant cannot be evaluated: {error}") from None
    if not all(isinstance(result, np.ndarray | np.generic) for result in results):
        raise ValueError("a constant that is not a tensor is not supported")
    return [np.asarray(result) for result in results]


def _needed(graph: onnx.GraphProto, output: str) -> list[onnx.NodeProto]:
    """Return the nodes that the output depends on, in the order of the file."""
    needed, nodes = {output}, []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            nodes.append(node)
    return nodes[::-1]


def _load(path: Path) -> onnx.ModelProto:
    """Return the model with its external data; raise ModelFileError if it is not an ONNX model."""
    try:
        if path.suffix.lower() == ".gz":
            model = onnx.load_model_from_string(gzip.decompress(path.read_bytes()))
        else:
            model = onnx.load(str(path), format="protobuf")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ModelFileError(f"{path}: the compressed file is damaged: {error}") from None
    except Exception as error:
        # Protobuf, the external data loader and the checker each raise classes of their own.
        raise ModelFileError(f"{path}: not a complete ONNX model: {error}") from None
    if not model.graph.node or not model.opset_import:
        raise ModelFileError(f"{path}: not an ONNX model: it holds no graph; export the model again")
    external = [tensor.name for tensor in model.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    if external:
        raise ModelFileError(f"{path}: weight {external[0]!r} is stored in another file; unpack the model beside it")
    return model


def _opset(model: onnx.ModelProto, source: str) -> int:
    """Return the version of the default domain; refuse versions outside OPSETS, functions and sparse weights."""
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if len(versions) != 1 or versions[0] not in OPSETS:
        raise ModelFileError(
            f"{source}: opset {versions[0] if versions else 'missing'} is not supported; supported: {OPSETS[0]} to "
            f"{OPSETS[-1]}. Export with opset_version={OPSETS[-1]}, or use onnx.version_converter"
        )
    if model.functions:
        raise ModelFileError(f"{source}: local function {model.functions[0].name!r} is not supported; inline it")
    if model.graph.sparse_initializer:
        name = model.graph.sparse_initializer[0].values.name
        raise ModelFileError(f"{source}: sparse weight {name!r} is not supported; store it dense")
    return int(versions[0])


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Return the inputs that are not weights (files of IR version 3 list those too)."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def _input(model: onnx.ModelProto, source: str) -> FileInput:
    """Return the file's one input; refuse files with another number of inputs or outputs."""
    inputs, outputs = _inputs(model), list(model.graph.output)
    for what, found in (("inputs", inputs), ("outputs", outputs)):
        if len(found) != 1:
            names = ", ".join(repr(value.name) for value in found) or "none"
            raise ModelFileError(f"{source}: {len(found)} {what} ({names}); supported: one")
    given = inputs[0]
    if not given.type.HasField("tensor_type") or not given.type.tensor_type.HasField("shape"):
        raise ModelFileError(f"{source}: input {given.name!r} has no shape; export with a fixed one")
    tensor = given.type.tensor_type
    if tensor.elem_type not in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE):
        name = onnx.TensorProto.DataType.Name(tensor.elem_type)
        raise ModelFileError(f"{source}: input {given.name!r} has element type {name}; supported: FLOAT and DOUBLE")
    dimensions = [
        dimension.dim_value if dimension.HasField("dim_value") else dimension.dim_param or "?"
        for dimension in tensor.shape.dim
    ]
    dtype = torch.float32 if tensor.elem_type == onnx.TensorProto.FLOAT else torch.float64
    try:
        return file_input(given.name, dimensions, dtype)
    except ValueError as error:
        raise ModelFileError(f"{source}: {error}") from None
