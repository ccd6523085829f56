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
from encoders.network import Network
from encoders.region import Domain, Norm
from verifier.certificates.certificate import BoxSlopes, Certificate
from verifier.certificates.distance_tree import read_trees, stored_trees
from verifier.certificates.error import CertificateError, TooManyLeaves
from verifier.certificates.file_fields import (
    BEFORE,
    SCHEMA,
    check_fields,
    check_schema,
    read_header,
    real_number,
    whole_number,
)
from verifier.certificates.input_tree import InputTree
from verifier.certificates.packed import Reader, narrow, pack
from verifier.certificates.plane_arrays import plane_arrays, read_planes, set_point_arrays
from verifier.certificates.shortened import shortened
from verifier.certificates.subtree_boxes import SubtreeBoxes
from verifier.certificates.tree_arrays import read_split_trees, read_unit_trees, unit_tree_arrays
from verifier.fields import COUNT, NUMBER, TEXT, stated
from verifier.npz import read_npz

# The folder of a run that holds them.
FOLDER = "certificates"
# Bytes that the certificate of one answer may take; a larger file is neither written nor opened.
MOST_BYTES = 1 << 26
FLOATS = (np.float32, np.float64)


class TooLong(ValueError):
    """A certificate has more bytes than one may take."""


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


def keep_certificate(certificate: Certificate, network: Network, folder: Path, index: int) -> CertificateFile | str:
    """Write a certificate of a network, made as short as it still proves, and return what a record says of it.

    Where it would have more than MOST_BYTES, or more leaves than `check` evaluates, nothing is written, and the reason
    is returned.
    """
    try:
        return write_certificate(shortened(certificate, network), folder, index)
    except (TooLong, TooManyLeaves) as error:
        return str(error)


def write_certificate(certificate: Certificate, folder: Path, index: int) -> CertificateFile:
    """Write the certificate of input `index` into a folder as it is; return what a record says of it.

    Raises TooLong where the file would have more than MOST_BYTES.
    """
    box = certificate.domain if isinstance(certificate.domain, Box) else None
    header = _header(certificate, index)
    arrays = {"header": np.frombuffer(json.dumps(header).encode(), dtype=np.uint8),
              "centre": narrow(certificate.centre, FLOATS)}  # fmt: skip
    if box is not None:
        ends = {"lower": box.lower, "upper": box.upper}
        arrays |= {f"domain.{end}": narrow(values.numpy(), FLOATS) for end, values in ends.items()}
    if certificate.inputs is not None:
        tree = certificate.inputs
        arrays |= {"inputs.sides": narrow(tree.sides), "inputs.values": tree.values, "inputs.tightened": tree.tightened}
    elif certificate.distances:
        arrays |= stored_trees(certificate.distances)
    else:
        arrays |= _sign_arrays(certificate)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    content = buffer.getvalue()
    if len(content) > MOST_BYTES:
        raise TooLong(f"a certificate of {len(content):,} bytes is more than the {MOST_BYTES:,} that one may take")
    sha = hashlib.sha256(content).hexdigest()
    folder.mkdir(exist_ok=True)
    path = folder / f"{index:09d}-{sha[:12]}.npz"
    write_atomically(path, content)
    return CertificateFile(
        file=f"{folder.name}/{path.name}", sha256=sha, radius=certificate.radius, leaves=certificate.leaves,
        bytes=len(content),
    )  # fmt: skip


def _header(certificate: Certificate, index: int) -> dict[str, Any]:
    """Return the header of the certificate of input `index`."""
    box = certificate.domain if isinstance(certificate.domain, Box) else None
    header: dict[str, Any] = {
        "schema": 4 if certificate.norm != "inf" else 3 if certificate.distances else BEFORE,
        "digest": certificate.digest, "index": index, "radius": certificate.radius,
        "domain": None if box is not None else certificate.domain, "winner": certificate.winner,
        "boxes": [[box.name, *box.slopes.shape] for box in certificate.boxes],
        "trees": [[tree.rival, tree.leaves, len(tree.slopes)] for tree in certificate.trees],
    }  # fmt: skip
    if certificate.subtrees:
        header["subtrees"] = [[each.before, len(each.units)] for each in certificate.subtrees]
    for key in ("unit_trees", "unit_planes"):
        header |= {key: names} if (names := [each.name for each in getattr(certificate, key)]) else {}
    if certificate.norm != "inf":
        header["norm"] = certificate.norm
    if certificate.distances:
        header["distances"] = [[tree.rival, len(tree.sides)] for tree in certificate.distances]
    return header


def _sign_arrays(certificate: Certificate) -> dict[str, np.ndarray]:
    """Return the arrays of a ball that is divided by signs, those of all nodes and of all trees one after the other."""
    boxes, trees, none = certificate.boxes, certificate.trees, np.zeros(0, dtype=np.uint8)
    no_sets = np.zeros((0, len(certificate.open_units)))
    slopes = np.concatenate([no_sets, *(tree.slopes for tree in trees)])
    multipliers = np.concatenate([no_sets, *(tree.multipliers for tree in trees)])
    arrays = {} if not certificate.subtrees else _subtree_arrays(certificate)
    for number, each in enumerate(certificate.unit_trees):
        arrays |= {f"unit_trees.{number}.{name}": values for name, values in unit_tree_arrays(each).items()}
    arrays |= plane_arrays(certificate.unit_planes, certificate.planes) | set_point_arrays(trees)
    return arrays | {
        "open_units": narrow(certificate.open_units),
        "boxes.places": narrow(np.concatenate([none, *(box.places for box in boxes)])),
        "boxes.slopes": np.concatenate([none, *(box.slopes.flatten() for box in boxes)]),
        "splits": narrow(np.concatenate([none, *(tree.splits for tree in trees)])),
        "sets": narrow(np.concatenate([none, *(tree.sets for tree in trees)])),
        **pack(slopes, multipliers),
    }


def _subtree_arrays(certificate: Certificate) -> dict[str, np.ndarray]:
    """Return the arrays of boxes of subtrees, those of all subtrees one after the other, and of which leaves take."""
    subtrees = certificate.subtrees
    boxes = [np.zeros(tree.leaves, np.uint8) if tree.boxes is None else tree.boxes for tree in certificate.trees]
    return {
        "subtrees.signs": np.concatenate([each.signs for each in subtrees]).astype(np.int8),
        "subtrees.units": narrow(np.concatenate([each.units for each in subtrees])),
        "subtrees.slopes": narrow(np.concatenate([each.slopes.flatten() for each in subtrees])),
        "subtrees.multipliers": narrow(np.concatenate([each.multipliers.flatten() for each in subtrees]), FLOATS),
        "subtrees.leaves": narrow(np.concatenate(boxes)),
    }


def _subtrees(rows: list[list[int]], arrays: Mapping[str, np.ndarray], count: int) -> tuple[SubtreeBoxes, ...]:
    """Return the boxes of subtrees; rows: what each narrows, and how many units it bounds; count: of open units."""
    if not rows:
        return ()
    names = ("signs", "units", "slopes", "multipliers")
    signs, units, slopes, multipliers = (Reader(arrays[f"subtrees.{name}"]) for name in names)
    made = list[SubtreeBoxes]()
    for before, bounded in rows:
        own, width = signs.take(count), 2 * bounded
        made.append(
            SubtreeBoxes(
                int(before), own, units.take(bounded), slopes.take(width * count).reshape(width, count),
                multipliers.take(width * count).reshape(width, count),
            )
        )  # fmt: skip
    if not all(reader.done for reader in (signs, units, slopes, multipliers)):
        raise ValueError("it holds more numbers than its subtrees take")
    return tuple(made)


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
        if path.stat().st_size > MOST_BYTES:
            raise CertificateError(f"{path} has {path.stat().st_size:,} bytes, more than {MOST_BYTES:,}")
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
    header = read_header(arrays["header"].tobytes())
    check_schema(header, index)
    check_fields(header, arrays)
    for name in ("centre", "domain.lower", "domain.upper"):
        if name in arrays and arrays[name].dtype not in FLOATS:
            raise ValueError(f"its {name} is stored in {arrays[name].dtype}, not in float32 or float64")
    domain, centre = _domain(header["domain"], arrays), arrays["centre"].astype(np.float64)
    claim = (header["digest"], centre, real_number(header["radius"]), domain, whole_number(header["winner"]))
    if "inputs.sides" in arrays:
        inputs = InputTree(*(arrays[f"inputs.{name}"] for name in ("sides", "values", "tightened")))
        norm: Norm = header.get("norm", "inf")
        return Certificate(*claim, (), np.zeros(0, dtype=np.int32), (), inputs, norm=norm)
    if "distances" in header:
        distances = read_trees(header["distances"], arrays)
        return Certificate(*claim, (), np.zeros(0, dtype=np.int32), (), distances=distances)
    boxes = _box_slopes(header["boxes"], arrays)
    subtrees = _subtrees(header.get("subtrees", []), arrays, len(arrays["open_units"]))
    trees = read_split_trees(header["trees"], arrays, bool(subtrees))
    names = [header.get(key, []) for key in ("unit_trees", "unit_planes")]
    if not all(isinstance(several, list) and all(isinstance(name, str) for name in several) for several in names):
        raise ValueError("the nodes whose units have trees or planes are no lists of names")
    divided, planes = read_unit_trees(names[0], arrays), read_planes(names[1], arrays)
    return Certificate(*claim, boxes, arrays["open_units"], trees, None, subtrees, divided, *planes)


def _box_slopes(rows: list[list[Any]], arrays: Mapping[str, np.ndarray]) -> tuple[BoxSlopes, ...]:
    """Return the slopes of boxes; rows: of each its node, and how many rows and columns it has."""
    places, slopes = Reader(arrays["boxes.places"]), Reader(arrays["boxes.slopes"])
    boxes = tuple(
        BoxSlopes(name, places.take(count // 2), slopes.take(count * columns).reshape(count, columns))
        for name, count, columns in rows
    )
    if not (places.done and slopes.done):
        raise ValueError("it holds more numbers than its boxes take")
    return boxes


def _domain(ends: Any, arrays: dict[str, np.ndarray]) -> Domain:
    """Return the domain: the pair of the header, or bounds for each coordinate as arrays."""
    if ends is not None:
        least, greatest = map(real_number, ends)
        return least, greatest
    if "domain.lower" not in arrays:
        return None
    lower, upper = (torch.from_numpy(arrays[f"domain.{end}"].astype(np.float64)) for end in ("lower", "upper"))
    return Box(lower, upper)
