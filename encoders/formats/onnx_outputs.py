"""Which value of an ONNX file is the network's output: of a classifier with a label beside its scores, the scores.

Exporters of scikit-learn return the label, computed from the scores by an ArgMax and a table, and the scores, as a
tensor or as a list of maps from label to score (ZipMap).
"""

from __future__ import annotations

import onnx
from onnx import helper

from encoders.formats.errors import ModelFileError

_NUMBERS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)


def output_of(model: onnx.ModelProto, source: str) -> str:
    """Return the name of the one output, or of the only one of several that holds numbers; ModelFileError otherwise.

    For maps from label to score that is the tensor that they are made of.
    """
    outputs = list(model.graph.output)
    maps: dict[str, str] = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "ZipMap" and node.domain == "ai.onnx.ml" and len(node.input) == len(node.output) == 1
    }
    names = [str(value.name) for value in outputs]
    if len(outputs) > 1:
        names = [str(v.name) for v in outputs if v.name in maps or v.type.tensor_type.elem_type in _NUMBERS]
    if len(names) != 1:
        given = ", ".join(repr(value.name[:80]) for value in outputs[:8]) or "none"
        raise ModelFileError(
            f"{source}: {len(outputs)} outputs ({given}); supported: one, or one of numbers beside labels; cut the "
            "file down to one of them with onnx.utils.extract_model"
        )
    return maps.get(names[0], names[0])


def needed_nodes(graph: onnx.GraphProto, output: str) -> list[onnx.NodeProto]:
    """Return the nodes that the output depends on, in the order of the file."""
    needed, nodes = {output}, []
    for node in reversed(graph.node):
        if not needed.isdisjoint(node.output):
            needed.update(name for name in node.input if name)
            nodes.append(node)
    return nodes[::-1]


def without_unused(model: onnx.ModelProto, output: str) -> onnx.ModelProto:
    """Return the model with one output, and only those nodes and weights that it depends on; itself if that is all."""
    nodes = needed_nodes(model.graph, output)
    read = {name for node in nodes for name in node.input} | {output}
    unread = [tensor.name for tensor in model.graph.initializer if tensor.name not in read]
    outputs = [value for value in model.graph.output if value.name == output]
    if len(nodes) == len(model.graph.node) and not unread and len(outputs) == len(model.graph.output):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    gone = set(unread)
    for kept, field in (
        (nodes, copy.graph.node),
        ([tensor for tensor in model.graph.initializer if tensor.name in read], copy.graph.initializer),
        ([value for value in model.graph.input if value.name not in gone], copy.graph.input),
        # A value without a type: the runtime infers it.
        (outputs or [helper.make_empty_tensor_value_info(output)], copy.graph.output),
    ):
        del field[:]
        field.extend(kept)
    del copy.graph.value_info[:]
    return copy


def said_output(model: onnx.ModelProto, source: str) -> dict[str, str]:
    """Return what there is to say about the output of a file that has several, or maps."""
    output, names = output_of(model, source), [value.name for value in model.graph.output]
    return {} if names == [output] else {"output": f"{output}, of the outputs {', '.join(names)}"}
