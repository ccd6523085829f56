"""Open an ONNX file: decompression, external data, and what holds of the graph as a whole."""

from pathlib import Path

import onnx
import torch

from encoders.formats.errors import ModelFileError
from encoders.formats.graph import FileInput, file_input
from encoders.formats.gzip_file import decompress
from encoders.formats.onnx_tensor import embed, stated_bytes
from encoders.limits import LimitError, Limits

OPSETS = range(8, 22)


def load(path: Path, limits: Limits) -> onnx.ModelProto:
    """Return the model, external data included; raise ModelFileError if it is not an ONNX model that can be read."""
    content = path.read_bytes()
    if path.suffix.lower() == ".gz":
        content = decompress(path, content, limits, "model", ModelFileError)
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:
        # Protobuf raises classes of its own.
        raise ModelFileError(f"{path}: not a complete ONNX model: {error}") from None
    if not model.graph.node or not model.opset_import:
        raise ModelFileError(f"{path}: not an ONNX model: it holds no graph; export the model again")
    check_graph(model, str(path), limits)
    total = 0
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            try:
                # A file on disk may stand for any number of weights.
                total += stated_bytes(tensor, limits)
                limits.check("weight_bytes", total, "the model")
                embed(tensor, path.parent, limits)
            except LimitError:
                raise
            except (ValueError, OSError) as error:
                raise ModelFileError(f"{path}: weight {tensor.name[:80]!r} {error}") from None
    return model


def check_graph(model: onnx.ModelProto, source: str, limits: Limits) -> None:
    """Raise ModelFileError for sparse or repeated weights, and LimitError for too many nodes."""
    graph = model.graph
    limits.check("nodes", len(graph.node), "the graph")
    if graph.sparse_initializer:
        name = graph.sparse_initializer[0].values.name[:80]
        raise ModelFileError(f"{source}: sparse weight {name!r} is not supported; store it dense")
    seen: set[str] = set()
    for tensor in graph.initializer:
        if tensor.name in seen:
            raise ModelFileError(f"{source}: weight {tensor.name[:80]!r} is stored twice; export the model again")
        seen.add(tensor.name)


def opset_of(model: onnx.ModelProto, source: str) -> int:
    """Return the version of the default domain; refuse versions outside OPSETS."""
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if len(versions) > 1:
        raise ModelFileError(f"{source}: opsets {versions[:8]} of one domain; supported: one")
    if not versions or versions[0] not in OPSETS:
        raise ModelFileError(
            f"{source}: opset {versions[0] if versions else 'missing'} is not supported; supported: {OPSETS[0]} to "
            f"{OPSETS[-1]}. Export with opset_version={OPSETS[-1]} (skl2onnx: target_opset={OPSETS[-1]}), or use "
            "onnx.version_converter"
        )
    return int(versions[0])


def inputs_of(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Return the inputs that are not weights (files of IR version 3 list those too)."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def input_of(model: onnx.ModelProto, source: str) -> FileInput:
    """Return the file's one input; refuse files with another number of inputs."""
    inputs = inputs_of(model)
    if len(inputs) != 1:
        names = ", ".join(repr(value.name[:80]) for value in inputs[:8]) or "none"
        raise ModelFileError(f"{source}: {len(inputs)} inputs ({names}); supported: one")
    given = inputs[0]
    name = given.name[:80]
    if not given.type.HasField("tensor_type") or not given.type.tensor_type.HasField("shape"):
        raise ModelFileError(f"{source}: input {name!r} has no shape; export with a fixed one")
    tensor = given.type.tensor_type
    if tensor.elem_type not in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE):
        known = tensor.elem_type in onnx.TensorProto.DataType.values()
        element = onnx.TensorProto.DataType.Name(tensor.elem_type) if known else tensor.elem_type
        raise ModelFileError(f"{source}: input {name!r} has element type {element}; supported: FLOAT and DOUBLE")
    dimensions = [
        dimension.dim_value if dimension.HasField("dim_value") else dimension.dim_param[:80] or "?"
        for dimension in tensor.shape.dim
    ]
    dtype = torch.float32 if tensor.elem_type == onnx.TensorProto.FLOAT else torch.float64
    try:
        return file_input(name, dimensions, dtype)
    except ValueError as error:
        raise ModelFileError(f"{source}: {error}") from None
