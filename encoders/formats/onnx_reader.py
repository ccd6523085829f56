"""Read ONNX files (opsets 8 to 21, default domain), and run them in onnxruntime.

A node whose inputs are all constant is computed by `onnx_fold`, for the operators of its table and with the bits that
a runtime computes when it loads the file: what a verdict calls stored weights is the result. Everything else goes
through the table of handlers. Whatever has no row in either, or an attribute without a row, is refused by name.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import helper

from encoders.formats.errors import LONGEST_PROBLEM, ModelFileError, Problem, UnsupportedNodesError
from encoders.formats.graph import GraphBuilder, Value
from encoders.formats.onnx_file import check_graph, input_of, inputs_of, load, opset_of
from encoders.formats.onnx_fold import FOLDERS, fold
from encoders.formats.onnx_functions import inlined
from encoders.formats.onnx_node import Constant, Memory, OnnxNode
from encoders.formats.onnx_operators import HANDLERS, OTHER_DOMAINS
from encoders.formats.onnx_ops import TRAINING
from encoders.formats.onnx_outputs import needed_nodes, output_of, said_output, without_unused
from encoders.formats.onnx_tensor import decode
from encoders.formats.onnx_values import inner_values
from encoders.formats.runtime import Array, Runtime, open_batched
from encoders.limits import LimitError, Limits
from encoders.network import Network

# Operators whose further outputs are understood, or never read at inference.
_SEVERAL_OUTPUTS = ("Dropout", "Split")

# Operators of the chains by which exporters compute shapes: no problem of their own behind an unsupported node.
_FOLLOWED = ("Shape", "Gather")


def read_network(path: Path, limits: Limits = Limits()) -> Network:
    """Return the network in an ONNX file."""
    return convert(load(path, limits), str(path), limits)


def open_runtime(path: Path, limits: Limits = Limits()) -> Runtime:
    """Return the file as onnxruntime executes it on the CPU.

    onnxruntime only sees what the reader accepts: nodes and weights that the output does not depend on are left out,
    as it would compute their constants too. It expands functions by itself, if all that is in them is needed.
    """
    import onnxruntime

    model = load(path, limits)
    convert(model, str(path), limits)
    given = input_of(model, str(path))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    # Whatever the bytes look like: onnxruntime takes some for its own format.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        content = _for_runtime(model, str(path), limits).SerializeToString()
        del model
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
    except Exception as error:
        # onnxruntime and protobuf raise classes of their own, without a common base.
        raise ModelFileError(f"{path}: onnxruntime does not open it: {str(error)[:2000]}") from None
    dtype = torch.empty(0, dtype=given.dtype).numpy().dtype

    def run(x: Array) -> Array:
        try:
            result: Array = session.run(None, {name: x})[0]
        except Exception as error:
            raise ModelFileError(f"{path}: onnxruntime does not run it: {str(error)[:2000]}") from None
        return result

    def values(x: Array) -> dict[str, Array]:
        return inner_values(content, x if given.batch != "none" else x[0])

    framework = f"onnxruntime {onnxruntime.__version__}"
    return open_batched(Runtime(framework, given.sample_shape, dtype, given.batch, run, values=values))


def read_metadata(path: Path) -> dict[str, str]:
    """Return which output of several is the network's."""
    return said_output(load(path, Limits()), str(path))


def convert(model: onnx.ModelProto, source: str, limits: Limits = Limits()) -> Network:
    """Return the network of a model in memory; raise ModelFileError naming every node that is not supported."""
    given, opset = input_of(model, source), opset_of(model, source)
    check_graph(model, source, limits)
    model = inlined(model, source, limits)
    graph = GraphBuilder(source, given, limits)
    reading = _Reading(graph, opset, {tensor.name: tensor for tensor in model.graph.initializer})
    reading.values[inputs_of(model)[0].name] = graph.input
    output = output_of(model, source)
    problems: list[Problem] = []
    for node in needed_nodes(model.graph, output):
        try:
            reading.convert_node(node)
        except LimitError as error:
            message = str(error)
            raise LimitError(message if message.startswith("node ") else str(_problem(node, message))) from None
        except Exception as error:
            # A file may hold what numpy or torch refuses with a class of its own.
            problems.append(_problem(node, str(error)))
            reading.values.update(dict.fromkeys(name for name in node.output if name))
    if problems:
        raise UnsupportedNodesError(source, problems, list(HANDLERS))
    result = reading.values.get(output)
    if not isinstance(result, Value):
        raise ModelFileError(f"{source}: output {output[:80]!r} does not depend on the input")
    return graph.finish(result)


def _for_runtime(model: onnx.ModelProto, source: str, limits: Limits) -> onnx.ModelProto:
    """Return the model as the file has it, without what its output does not depend on, in functions too."""
    output = output_of(model, source)
    kept = without_unused(model, output)
    flat = inlined(kept, source, limits)
    pruned = without_unused(flat, output)
    return kept if flat is kept or pruned is flat else pruned


def _problem(node: onnx.NodeProto, reason: str) -> Problem:
    name = node.name or next(iter(node.output), "")
    return Problem(name[:80], node.op_type[:80], reason[:LONGEST_PROBLEM])


class _Reading:
    """The values of a graph while its nodes are read in order; None marks values behind an unsupported node."""

    def __init__(self, graph: GraphBuilder, opset: int, stored: dict[str, onnx.TensorProto]) -> None:
        self.graph = graph
        self.opset = opset
        self.memory = Memory(graph.limits)
        self.values: dict[str, Value | Constant | None] = {}
        self._stored = stored

    def convert_node(self, node: onnx.NodeProto) -> None:
        """Set the value of the node's first output."""
        unknown = [name for name in node.input if name and name not in self.values and name not in self._stored]
        if unknown:
            raise ValueError(f"reads {unknown[0][:80]!r}, which nothing before it computes")
        repeated = [name for name in node.output if name in self.values or name in self._stored]
        if repeated or len(set(node.output)) != len(node.output) - max(list(node.output).count("") - 1, 0):
            raise ValueError(f"computes {(repeated or list(node.output))[0][:80]!r}, which exists already")
        domain = "" if node.domain == "ai.onnx" else node.domain
        if domain != OTHER_DOMAINS.get(node.op_type, "") or node.overload:
            raise ValueError(f"domain {node.domain[:80]!r} is not supported; supported: the default domain")
        # Operators of other domains are as they were in the first version.
        _check_schema(node, 1 if domain else self.opset)
        inputs = tuple(self._input(name) if name else None for name in node.input)
        broken = any(value is None and name for name, value in zip(node.input, inputs, strict=True))
        folded = node.op_type == "Shape" or not any(isinstance(value, Value) for value in inputs)
        if folded and not broken:
            known = FOLDERS[node.op_type][1] if node.op_type in FOLDERS else ()
            attributes = _attributes(node, known) if node.op_type in FOLDERS else {}
            self._set(node, fold(self._seen(node, inputs, attributes)))
            return
        if node.op_type not in HANDLERS:
            if broken and node.op_type in _FOLLOWED:
                self.values.update(dict.fromkeys(node.output))
                return
            raise ValueError("the operator is not supported")
        handler, known = HANDLERS[node.op_type]
        attributes = _attributes(node, known)
        if any(node.output[1:]) and node.op_type not in _SEVERAL_OUTPUTS:
            training = node.op_type == "BatchNormalization"
            raise ValueError(TRAINING if training else f"output {node.output[1][:80]!r} is not supported")
        self._set(node, None if broken else handler(self._seen(node, inputs, attributes)))

    def _set(self, node: onnx.NodeProto, results: Value | Constant | tuple[Value | Constant, ...] | None) -> None:
        """Set the values of the outputs; None: they lie behind a node that is not supported."""
        given = results if isinstance(results, tuple) else (results, *[None] * (len(node.output) - 1))
        self.values.update((name, value) for name, value in zip(node.output, given, strict=True) if name)

    def _input(self, name: str) -> Value | Constant | None:
        """Return a value by name; a stored weight is decoded when the first node reads it."""
        if name not in self.values:
            try:
                self.values[name] = Constant(decode(self._stored[name], self.graph.limits))
            except LimitError:
                raise
            except Exception as error:
                raise ValueError(f"weight {name[:80]!r} cannot be decoded: {error}") from None
        return self.values[name]

    def _seen(
        self, node: onnx.NodeProto, inputs: tuple[Value | Constant | None, ...], attributes: dict[str, Any]
    ) -> OnnxNode:
        outputs = tuple(node.output)
        return OnnxNode(outputs[0], node.op_type, inputs, attributes, self.opset, self.graph, self.memory, outputs)


def _attributes(node: onnx.NodeProto, known: tuple[str, ...]) -> dict[str, Any]:
    """Return the attributes by name, text decoded; raise ValueError for any that no handler knows."""
    attributes = {}
    for attribute in node.attribute:
        if attribute.name not in known:
            raise ValueError(f"attribute {attribute.name[:80]!r} is not supported")
        value = helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            value = value.decode()
        single = isinstance(value, str | int | float | onnx.TensorProto)
        attributes[attribute.name] = value if single else list(value)
    return attributes


@lru_cache(maxsize=1024)
def _schema(operator: str, domain: str, opset: int) -> tuple[dict[str, tuple[Any, bool]], int, int] | None:
    """Return the attributes (type, whether required) and the least and greatest number of inputs of an operator."""
    if not onnx.defs.has(operator, opset, domain):
        return None
    schema = onnx.defs.get_schema(operator, opset, domain)
    # The enumeration of the schema is not typed.
    types: dict[str, Any] = dict(schema.attributes)
    attributes = {name: (field.type.value, field.required) for name, field in types.items()}
    return attributes, schema.min_input, schema.max_input


def _check_schema(node: onnx.NodeProto, opset: int) -> None:
    """Raise ValueError for an operator, attribute or number of inputs that the opset does not know."""
    domain = OTHER_DOMAINS.get(node.op_type, "")
    schema = _schema(node.op_type, domain, opset) if len(node.op_type) < 80 else None
    if schema is None:
        raise ValueError(f"opset {opset} has no such operator")
    attributes, least, most = schema
    given: set[str] = set()
    for attribute in node.attribute:
        name = attribute.name
        if name not in attributes or name in given or attribute.ref_attr_name:
            raise ValueError(f"attribute {name[:80]!r} is not supported in opset {opset}")
        if attribute.type != attributes[name][0]:
            raise ValueError(f"attribute {name!r} has the wrong type")
        given.add(name)
    missing = [name for name, (_, required) in attributes.items() if required and name not in given]
    if missing:
        raise ValueError(f"attribute {missing[0]!r} is missing")
    if not least <= len(node.input) <= most:
        raise ValueError(f"has {len(node.input)} inputs; opset {opset} knows {least} to {most}")
