"""Small ONNX models for the reader's tests, and the two independent oracles that run them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

FLOAT, DOUBLE = TensorProto.FLOAT, TensorProto.DOUBLE


def model(
    nodes: Sequence[onnx.NodeProto],
    shape: Sequence[Any],
    weights: dict[str, Any] | None = None,
    opset: int = 13,
    elem_type: int = FLOAT,
) -> onnx.ModelProto:
    """Return a model from input `x` of the shape to output `y`; weights by name, floats as float32."""
    tensors = []
    for name, value in (weights or {}).items():
        array = np.asarray(value)
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        tensors.append(numpy_helper.from_array(array, name))
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("x", elem_type, shape)],
        [helper.make_tensor_value_info("y", elem_type, None)],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def in_double(source: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a float32 model with weights, constants, input and output in float64."""
    copy = onnx.ModelProto()
    copy.CopyFrom(source)
    for tensor in copy.graph.initializer:
        _widen(tensor)
    for node in copy.graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                _widen(attribute.t)
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == FLOAT:
                attribute.i = DOUBLE
    for value in [*copy.graph.input, *copy.graph.output, *copy.graph.value_info]:
        if value.type.tensor_type.elem_type == FLOAT:
            value.type.tensor_type.elem_type = DOUBLE
    return copy


def _widen(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == FLOAT:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))


def run_onnxruntime(source: onnx.ModelProto, x: np.ndarray) -> np.ndarray | None:
    """Return the output at x, or None if onnxruntime has no kernel for the types in the model."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(source.SerializeToString(), options, ["CPUExecutionProvider"])
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented:
        return None
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def run_reference(source: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """Return the output at x by the standard's own slow implementation."""
    return ReferenceEvaluator(source).run(None, {true_input(source).name: x})[0]


def true_input(source: onnx.ModelProto) -> onnx.ValueInfoProto:
    """Return the input that is not a weight; old files list those too."""
    weights = {tensor.name for tensor in source.graph.initializer}
    return next(value for value in source.graph.input if value.name not in weights)
