"""Decode the tensors that an ONNX file stores, strictly: one data field, of exactly the length that the shape states.

onnx's own decoder takes the first of several fields and infers negative sizes; a runtime may take another. External
data is read from regular files beside the model only, as the location is the file's own text.
"""

import math
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from encoders.formats.graph import MAXIMUM_RANK
from encoders.formats.runtime import Array
from encoders.limits import Limits

# Element type: (the field that holds values other than raw ones, dtype).
ELEMENT_TYPES: dict[int, tuple[str, np.dtype[np.generic]]] = {
    TensorProto.FLOAT: ("float_data", np.dtype("<f4")),
    TensorProto.DOUBLE: ("double_data", np.dtype("<f8")),
    TensorProto.INT32: ("int32_data", np.dtype("<i4")),
    TensorProto.INT64: ("int64_data", np.dtype("<i8")),
    TensorProto.BOOL: ("int32_data", np.dtype("?")),
}

_FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")

_EXTERNAL_KEYS = {"location", "offset", "length", "checksum"}


def element_type(number: int) -> np.dtype[np.generic]:
    """Return the dtype of an element type of the standard; raise ValueError for one that is not read."""
    if number not in ELEMENT_TYPES:
        known = ", ".join(TensorProto.DataType.Name(known) for known in ELEMENT_TYPES)
        name = TensorProto.DataType.Name(number) if number in TensorProto.DataType.values() else number
        raise ValueError(f"element type {name} is not supported; supported: {known}")
    return ELEMENT_TYPES[number][1]


def decode(tensor: onnx.TensorProto, limits: Limits) -> Array:
    """Return the stored values; raise ValueError for anything that two decoders could read in two ways."""
    dtype = element_type(tensor.data_type)
    shape, size = _shape_and_bytes(tensor, limits)
    if tensor.data_location == TensorProto.EXTERNAL:
        raise ValueError("is stored in another file; unpack the model beside it")
    if tensor.HasField("segment"):
        raise ValueError("is stored in segments, which is not supported; store it whole")
    given = [field for field in _FIELDS if len(getattr(tensor, field))]
    if tensor.raw_data:
        given.append("raw_data")
    if len(given) > 1:
        raise ValueError(f"has values in {' and '.join(given)}; supported: one of them")
    field = ELEMENT_TYPES[tensor.data_type][0]
    if given and given[0] not in (field, "raw_data"):
        raise ValueError(f"has its values in {given[0]}, which does not fit its element type; supported: {field}")
    raw = tensor.raw_data
    length = len(raw) if not given or given[0] == "raw_data" else len(getattr(tensor, field)) * dtype.itemsize
    if length != size:
        raise ValueError(f"has {length} bytes of values, shape {list(shape)} needs {size}")
    if raw:
        array = np.frombuffer(raw, np.uint8) != 0 if dtype == np.bool_ else np.frombuffer(raw, dtype)
    else:
        array = np.array(getattr(tensor, field)).astype(dtype)
    return array.reshape(shape)


def _shape_and_bytes(tensor: onnx.TensorProto, limits: Limits) -> tuple[tuple[int, ...], int]:
    """Return shape and size of the tensor as it states them."""
    shape = tuple(tensor.dims)
    if len(shape) > MAXIMUM_RANK or min(shape, default=0) < 0:
        raise ValueError(f"has {len(shape)} axes of sizes {list(shape[:8])}; supported: up to {MAXIMUM_RANK}, none < 0")
    size = math.prod(shape) * element_type(tensor.data_type).itemsize
    limits.check("weight_bytes", size, f"weight {tensor.name[:80]!r} of shape {list(shape)}")
    return shape, size


def stated_bytes(tensor: onnx.TensorProto, limits: Limits) -> int:
    """Return the size of a tensor as it states it; raise LimitError if that alone is too large."""
    return _shape_and_bytes(tensor, limits)[1]


def embed(tensor: onnx.TensorProto, folder: Path, limits: Limits) -> None:
    """Read the external data of a tensor into it. Raises ValueError unless it lies in a regular file in `folder`."""
    where = {entry.key: entry.value for entry in tensor.external_data}
    if len(where) != len(tensor.external_data) or not where.keys() <= _EXTERNAL_KEYS or "location" not in where:
        raise ValueError("does not state where it is stored; export the model again")
    _, size = _shape_and_bytes(tensor, limits)
    numbers = [where.get("offset", "0"), where.get("length", str(size))]
    if not all(number.isascii() and number.isdecimal() and len(number) < 20 for number in numbers):
        raise ValueError(f"has offset and length {numbers}, which are no numbers")
    offset, length = map(int, numbers)
    path = _beside(folder, where["location"])
    if length != size or offset + length > path.stat().st_size:
        raise ValueError(
            f"needs {size} bytes, its file {path.name!r} of {path.stat().st_size} is to give {length} from {offset} on"
        )
    with path.open("rb") as file:
        file.seek(offset)
        tensor.raw_data = file.read(length)
    tensor.data_location = TensorProto.DEFAULT
    del tensor.external_data[:]


def _beside(folder: Path, location: str) -> Path:
    """Return the regular file in the folder that a location names; nothing outside of it is opened."""
    try:
        root, path = folder.resolve(), (folder / location).resolve()
        inside = path.is_relative_to(root) and path.is_file() and not (folder / location).is_symlink()
    except (OSError, ValueError, RuntimeError):
        inside = False
    if not inside or Path(location).is_absolute() or ".." in Path(location).parts:
        raise ValueError(f"is stored in {location[:200]!r}, which is no file in the folder of the model")
    return path
