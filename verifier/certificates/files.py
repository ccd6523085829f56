"""Certificates as files: one .npz of plain arrays for each input, named by its own digest; nothing is unpickled."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from encoders.box import Box
from encoders.files import write_atomically
from encoders.region import Domain
from verifier.certificates.certificate import BoxSlopes, Certificate, CertificateError, SplitTree
from verifier.certificates.input_tree import InputTree
from verifier.fields import COUNT, NUMBER, TEXT, stated
from verifier.npz import read_npz

SCHEMA = 1
# The folder of a run that holds them.
FOLDER = "certificates"
# What the file calls the splits, slopes and multipliers of a tree.
TREE_ARRAYS = ("cuts", "slopes", "pulls")
# A larger file is not opened: 2 GiB.
LARGEST = 1 << 31


@dataclasses.dataclass(frozen=True, kw_only=True)
class CertificateFile:
    """What a record says of a certificate: where it lies in the run's folder, and what it must be.

    others: fields of versions to come.
    """

    file: str = stated(TEXT)
    sha256: str = stated(TEXT)
    radius: float | None = stated(NUMBER, None)
    leaves: int | None = stated(COUNT, None)
    bytes: int | None = stated(COUNT, None)
    others: Mapping[str, object] = dataclasses.field(default_factory=dict)


def write_certificate(certificate: Certificate, folder: Path, index: int) -> CertificateFile:
    """Write the certificate of input `index` into a folder; return what a record says of it."""
    box = certificate.domain if isinstance(certificate.domain, Box) else None
    header = {
        "schema": SCHEMA, "digest": certificate.digest, "index": index, "radius": certificate.radius,
        "domain": None if box is not None else certificate.domain, "winner": certificate.winner,
        "boxes": [box.name for box in certificate.boxes],
        "rivals": [tree.rival for tree in certificate.trees],
    }  # fmt: skip
    arrays = {"header": np.frombuffer(json.dumps(header).encode(), dtype=np.uint8), "centre": certificate.centre,
              "open_units": certificate.open_units}  # fmt: skip
    if box is not None:
        arrays |= {"domain.lower": box.lower.numpy(), "domain.upper": box.upper.numpy()}
    if certificate.inputs is not None:
        arrays |= {"inputs.sides": certificate.inputs.sides, "inputs.values": certificate.inputs.values}
    for number, slopes in enumerate(certificate.boxes):
        arrays |= {f"box{number}.places": slopes.places, f"box{number}.slopes": slopes.slopes}
    for number, tree in enumerate(certificate.trees):
        numbers = (tree.splits, tree.slopes, tree.multipliers)
        arrays |= {f"tree{number}.{name}": values for name, values in zip(TREE_ARRAYS, numbers, strict=True)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    content = buffer.getvalue()
    sha = hashlib.sha256(content).hexdigest()
    folder.mkdir(exist_ok=True)
    path = folder / f"{index:09d}-{sha[:12]}.npz"
    write_atomically(path, content)
    return CertificateFile(
        file=f"{folder.name}/{path.name}", sha256=sha, radius=certificate.radius, leaves=certificate.leaves,
        bytes=len(content),
    )  # fmt: skip


def certificate_path(run: Path, named: str) -> Path:
    """Return where a run's certificate lies; CertificateError if the name leads out of the run's own certificates."""
    folder, _, name = named.partition("/")
    plain = name.isascii() and name.isprintable() and "/" not in name and "\\" not in name and name.endswith(".npz")
    if folder != FOLDER or not plain:
        raise CertificateError(f"its record names {named!r:.80}, which is no file in {FOLDER}/ of the run")
    if (run / FOLDER).is_symlink():
        raise CertificateError(f"{run / FOLDER} is a link, which leads out of the run")
    return run / FOLDER / name


def read_certificate(path: Path, sha256: str, index: int) -> Certificate:
    """Return the certificate of input `index`; CertificateError if it is missing, altered, or of another input."""
    try:
        if path.is_symlink() or not path.is_file():
            raise CertificateError(f"{path} cannot be read: there is no regular file of that name")
        if path.stat().st_size > LARGEST:
            raise CertificateError(f"{path} has {path.stat().st_size:,} bytes, more than {LARGEST:,}")
        content = path.read_bytes()
    except OSError as error:
        raise CertificateError(f"{path} cannot be read: {error}") from None
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise CertificateError(f"{path} was altered: its SHA-256 is {digest}, the record says {sha256}")
    try:
        return _certificate(read_npz(content), index)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, RecursionError) as error:
        raise CertificateError(f"{path} is no certificate of schema {SCHEMA}: {error}") from None


def _certificate(arrays: dict[str, np.ndarray], index: int) -> Certificate:
    header = json.loads(arrays["header"].tobytes())
    if header["schema"] != SCHEMA or header["index"] != index:
        raise ValueError(f"schema {header['schema']}, input {header['index']}, where {SCHEMA} and {index} are expected")
    boxes = tuple(
        BoxSlopes(name, arrays[f"box{number}.places"], arrays[f"box{number}.slopes"])
        for number, name in enumerate(header["boxes"])
    )
    trees = tuple(
        SplitTree(rival, *(arrays[f"tree{number}.{name}"] for name in TREE_ARRAYS))
        for number, rival in enumerate(header["rivals"])
    )
    domain = _domain(header["domain"], arrays)
    divided = "inputs.sides" in arrays
    inputs = InputTree(arrays["inputs.sides"], arrays["inputs.values"]) if divided else None
    return Certificate(
        header["digest"], arrays["centre"], float(header["radius"]), domain, int(header["winner"]), boxes,
        arrays["open_units"], trees, inputs,
    )  # fmt: skip


def _domain(ends: Any, arrays: dict[str, np.ndarray]) -> Domain:
    """Return the domain: the pair of the header, or bounds for each coordinate as arrays."""
    if ends is not None:
        return float(ends[0]), float(ends[1])
    if "domain.lower" not in arrays:
        return None
    lower, upper = (torch.from_numpy(arrays[f"domain.{end}"].astype(np.float64)) for end in ("lower", "upper"))
    return Box(lower, upper)
