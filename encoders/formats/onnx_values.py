"""The values of the inner nodes of an ONNX graph as onnxruntime computes them, asked for where something differs."""

from __future__ import annotations

import onnx

from encoders.formats.runtime import Array


def inner_values(content: bytes, x: Array) -> dict[str, Array]:
    """Return the values of all nodes at x, shaped as the file wants it, by the names of their first outputs.

    content: the model as onnxruntime was given it. Optimisations are off, so that every node keeps a value of its own.
    """
    import onnxruntime

    model = onnx.load_model_from_string(content)
    names = [node.output[0] for node in model.graph.node]
    known = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = session.run(names, {session.get_inputs()[0].name: x})
    return dict(zip(names, found, strict=True))
