"""Files of models and properties: one table from suffix to reader. Only this package opens them.

.onnx (also .onnx.gz) and .pt2 are read; .safetensors in the project's own layout is read and written. Formats that
are pickles are refused unopened, because opening one may run any code. Readers are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encoders.formats.errors import ModelFileError, PropertyFileError, check_file
from encoders.limits import LimitError, Limits

if TYPE_CHECKING:
    import os

    from encoders.formats.runtime import Runtime
    from encoders.network import Network
    from encoders.property import Property

# Each module has read_network(path, limits) and open_runtime(path, limits).
READERS = {
    ".onnx": "encoders.formats.onnx_reader",
    ".onnx.gz": "encoders.formats.onnx_reader",
    ".pt2": "encoders.formats.torch_export",
    ".safetensors": "encoders.formats.native",
}

PICKLE_SUFFIXES = (".pt", ".pth", ".pkl", ".bin", ".ckpt")

__all__ = [
    "PICKLE_SUFFIXES",
    "READERS",
    "ModelFileError",
    "PropertyFileError",
    "open_runtime",
    "read_metadata",
    "read_network",
    "read_property",
    "write_network",
]


def read_network(path: str | os.PathLike[str], limits: Limits = Limits()) -> Network:
    """Return the network in a file, weights as stored.

    path: .onnx or .onnx.gz (opsets 8 to 21), .pt2 (`torch.export.save`), or the project's own .safetensors.
    limits: what the file may ask for; more is refused before it is allocated.

    Raises ModelFileError naming everything that cannot be read, all at once. That the graph is the model that its
    framework runs is not checked here, but when a command loads it (`verifier.agreement`).
    """
    reader = _reader(Path(path))
    try:
        network: Network = reader.read_network(Path(path), limits)
    except LimitError as error:
        raise ModelFileError(f"{path}: {error}") from None
    return network


def read_property(path: str | os.PathLike[str], limits: Limits = Limits()) -> tuple[Property, ...]:
    """Return the properties in a VNN-LIB file: one for each box of inputs that it asks about.

    path: .vnnlib or .vnnlib.gz. Of NAME.vnnlib and NAME.vnnlib.gz the packed one is read where both are there.
    limits: what the file may ask for; more is refused before it is allocated.

    A counterexample of any of them is one of the file, and the file is proved when all of them are. Numbers are read
    exactly. The box and the unsafe sets hold the written ones, ends rounded outward and strict comparisons closed, so
    that a proof covers the file; membership (`Property.contains`) is that of the text, so that a witness is one of
    the file. An input fixed to a number that no float64 equals is fixed to the nearest float64 for witnesses; proofs
    hold for both.

    Raises PropertyFileError naming file, line and token for all that cannot be read.
    """
    from encoders.formats import vnnlib

    given = Path(path)
    packed = given.with_name(given.name + ".gz")
    file = packed if given.suffix.lower() == ".vnnlib" and packed.is_file() else given
    if not file.name.lower().endswith((".vnnlib", ".vnnlib.gz")) and not file.is_dir():
        raise PropertyFileError(f"{file}: unknown suffix {file.suffix!r}; supported: .vnnlib, .vnnlib.gz")
    check_file(file, PropertyFileError)
    try:
        return vnnlib.read_properties(file, limits)
    except LimitError as error:
        raise PropertyFileError(f"{file}: {error}") from None


def write_network(network: Network, path: str | os.PathLike[str], metadata: dict[str, Any] | None = None) -> None:
    """Write a network to a .safetensors file, replacing it in one step; it reads back with the same digest.

    network: any, its weights in the dtypes they are stored in.
    path: its suffix must be .safetensors, else ModelFileError.
    metadata: a JSON object kept beside the network (`read_metadata`), no part of its digest.
    """
    if _suffix(Path(path)) != ".safetensors":
        raise ModelFileError(f"{path}: networks are written as .safetensors only")
    from encoders.formats import native

    native.write_network(network, Path(path), metadata)


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the JSON object that was written with the network; empty for formats that hold none."""
    reader = _reader(Path(path))
    metadata: dict[str, Any] = reader.read_metadata(Path(path)) if hasattr(reader, "read_metadata") else {}
    return metadata


def open_runtime(path: str | os.PathLike[str], limits: Limits = Limits()) -> Runtime:
    """Return the model as its own framework runs it: onnxruntime, torch, or the network itself.

    Raises ModelFileError for a file that `read_network` refuses: nothing else reaches a framework.
    """
    reader = _reader(Path(path))
    try:
        runtime: Runtime = reader.open_runtime(Path(path), limits)
    except LimitError as error:
        raise ModelFileError(f"{path}: {error}") from None
    return runtime


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return ".onnx.gz" if name.endswith(".onnx.gz") else Path(name).suffix


def _reader(path: Path) -> Any:
    """Return the reader's module; raise ModelFileError if there is none or the file cannot be there."""
    suffix = _suffix(path)
    if suffix in PICKLE_SUFFIXES:
        raise ModelFileError(
            f"{path}: {suffix} files are pickles, which may run any code, so they are not opened. Export the model "
            'where its class is defined: torch.export.save(torch.export.export(model.eval(), (example,)), "model.pt2")'
        )
    if suffix not in READERS and not path.is_dir():
        known = ", ".join(READERS)
        raise ModelFileError(f"{path}: unknown suffix {suffix!r}; supported: {known}")
    check_file(path)
    return import_module(READERS[suffix])
