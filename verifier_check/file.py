"""The file of a certificate, for `verifier_check`: its arrays, its header and the ball; the standard library alone.

It follows docs/certificate-format.md. What is not named there is refused by its name, before it is unpacked: a field or
an array that nobody reads could be taken for a part of what is claimed.
"""

from __future__ import annotations

import array
import io
import json
import math
import re
import sys
import zipfile
from collections.abc import Sequence
from typing import Any

from verifier_check.integers import whole
from verifier_check.refusals import MALFORMED, Refused, Undecided

MOST_BYTES, MOST_HEADER, MOST_UNPACKED, MOST_OF_ALL, MOST_ARRAYS = 1 << 26, 1 << 24, 1 << 28, 1 << 32, 10_000
# Schemas that are read, and what each of the later ones added.
SCHEMAS, ADDED = (2, 3, 4), {3: "distances", 4: "norm"}
CODES = {
    "|u1": "B", "|i1": "b", "<u2": "H", "<i2": "h", "<i4": "i", "<i8": "q", "<f4": "f", "<f8": "d", "|b1": "B",
    "<u4": "I",
}  # fmt: skip
# The fields of every header, and those of trees of signs beside them.
FIELDS = {"schema", "digest", "index", "radius", "winner", "domain", "trees", "boxes"}
SIGN_FIELDS = {"subtrees", "unit_trees", "unit_planes"}
NUMBERS, LONG = {"slopes", "multipliers"}, {"long", "long.slopes", "long.multipliers"}
POINTS = {"units", "points", "thresholds"}
SIGN_ARRAYS = {"open_units", "splits", "sets", "boxes.places", "boxes.slopes"} | NUMBERS
SUBTREE_ARRAYS = {f"subtrees.{name}" for name in ("signs", "units", "slopes", "multipliers", "leaves")}


class Array:
    """Numbers of a file: their type, shape, and values in C order."""

    def __init__(self, kind: str, shape: tuple[int, ...], values: Sequence[Any]) -> None:
        self.kind, self.shape, self.values, self.taken = kind, shape, values, 0

    def take(self, count: int) -> list[Any]:
        """Return the next numbers; Refused where so many are not left."""
        if type(count) is not int or not 0 <= count <= len(self.values) - self.taken:
            raise Refused(f"{count!r:.40} numbers are named where {len(self.values) - self.taken} are left")
        self.taken += count
        return list(self.values[self.taken - count : self.taken])


def read_file(content: bytes) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the header of a certificate and its arrays by name; Refused where one is missing, or not of its kind."""
    if content.count(b"PK\x01\x02") > MOST_ARRAYS:
        raise Refused(f"it has more than {MOST_ARRAYS:,} arrays")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        if len(members) < len(archive.infolist()):
            raise Refused("two of its arrays have one name")
        most = min(max(MOST_UNPACKED, 256 * len(content)), MOST_OF_ALL)
        if sum(member.file_size for member in members.values()) > most:
            raise Refused("it unpacks to more bytes than are read")
        if members["header"].file_size > MOST_HEADER:
            raise Refused(f"its header has {members['header'].file_size:,} bytes, more than {MOST_HEADER:,}")
        header = _json(bytes(_array(archive, members["header"], "header").values))
        _check_names(header, set(members))
        return header, {name: _array(archive, member, name) for name, member in members.items()}


def _json(text: bytes) -> dict[str, Any]:
    """Return a JSON object in which no name stands twice and every number is finite."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise Refused("a field stands twice in its header")
        return found

    def no_number(word: str) -> None:
        raise Refused(f"its header holds {word}")

    header = json.loads(text, object_pairs_hook=once, parse_constant=no_number)
    if not isinstance(header, dict):
        raise Refused("its header is no object")
    return header


def _check_names(header: dict[str, Any], names: set[str]) -> None:
    """Refuse a header of another schema, and fields and arrays that a certificate of its kind does not have."""
    schema = header["schema"]
    if (
        type(schema) is not int
        or schema not in SCHEMAS
        or any(name in header and schema < since for since, name in ADDED.items())
    ):
        raise Refused(f"it is of schema {schema!r:.40}; schemas {SCHEMAS} are supported, each with its fields")
    fields, arrays = set(FIELDS), {"header", "centre"}
    # Of each of these all are there, or none.
    groups = [{"domain.lower", "domain.upper"}] if header["domain"] is None else []
    if "distances" in header:
        fields.add("distances")
        arrays |= {"distances.sides", "distances.values", "distances.passes"}
    elif "inputs.sides" in names:
        fields.add("norm")
        arrays |= {"inputs.sides", "inputs.values", "inputs.tightened"}
    else:
        fields |= SIGN_FIELDS
        arrays |= SIGN_ARRAYS | (SUBTREE_ARRAYS if header.get("subtrees") else set())
        groups += [LONG, *({f"{prefix}.{name}" for name in POINTS} for prefix in ("planes", "sets"))]
        if max(len(header.get(name, ())) for name in ("unit_trees", "unit_planes")) > len(names):
            raise Refused("it names more nodes whose units have trees or planes than it has arrays")
        for number in range(len(header.get("unit_trees", ()))):
            own = f"unit_trees.{number}."
            arrays |= {own + name for name in {"places", "ends", "columns", "splits"} | NUMBERS}
            groups.append({own + name for name in LONG})
        for number in range(len(header.get("unit_planes", ()))):
            arrays |= {f"unit_planes.{number}.{name}" for name in {"places", "ends", "columns", "slopes"} | POINTS}
    arrays = arrays.union(*(group for group in groups if group & names))
    unknown, missing = (header.keys() - fields) | (names - arrays), arrays - names
    if unknown or missing:
        what = f"does not have {sorted(unknown)!r:.200}" if unknown else f"has {sorted(missing)!r:.200}, too"
        raise Refused(f"a certificate of its kind {what}")
    if fields.isdisjoint(SIGN_FIELDS) and (header["trees"] != [] or header["boxes"] != []):
        raise Refused("it holds trees of signs or boxes beside another kind of proof")


HEADER = re.compile(rb"\{'descr': '([<|][a-z]\d)', 'fortran_order': (True|False), 'shape': \(([\d, ]{0,60})\), \} *\n")


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> Array:
    data = archive.read(member)
    if len(data) != member.file_size:
        raise Refused(f"{name!r:.60} is not as long as it says")
    size = 10 + int.from_bytes(data[8:10], "little")
    match = HEADER.fullmatch(data[10:size])
    if data[:8] != b"\x93NUMPY\x01\x00" or match is None:
        raise Refused(f"{name!r:.60} is no array of version 1.0")
    kind, by_column = match[1].decode(), match[2] == b"True"
    shape = tuple(int(part) for part in match[3].decode().split(",") if part.strip())
    if kind not in CODES or (by_column and sum(size > 1 for size in shape) > 1):
        raise Undecided(f"array {name!r:.60} is of type {kind}, or stored by columns")
    values = array.array(CODES[kind])
    values.frombytes(data[size:])
    if sys.byteorder == "big":
        values.byteswap()
    if math.prod(shape) != len(values):
        raise Refused(f"array {name!r:.60} of shape {shape} holds {len(values)} numbers")
    if values.typecode in "fd" and not all(map(math.isfinite, values)):
        raise Refused(f"array {name!r:.60} holds NaN or infinity")
    return Array(kind, shape, values)


def _number(value: Any) -> float:
    """Return a number of a header; Refused where it is none."""
    if type(value) not in (int, float):
        raise Refused(f"{value!r:.40} stands where a number should")
    return float(value)


class Certificate:
    """The arrays of a file and its header; what is claimed is common to all kinds."""

    def __init__(self, content: bytes) -> None:
        if len(content) > MOST_BYTES:
            raise Refused(f"it has {len(content):,} bytes, more than {MOST_BYTES:,}")
        try:
            self.header, self.arrays = read_file(content)
            h, centre = self.header, self.arrays["centre"]
            self.digest, self.index, self.radius, self.winner = (
                h["digest"],
                h["index"],
                _number(h["radius"]),
                h["winner"],
            )
            if type(self.winner) is not int or type(self.index) is not int:
                raise Refused("its class or its position is no whole number")
            self.centre = [float(value) for value in centre.values]
            if not 0 <= self.radius < math.inf or centre.kind not in ("<f4", "<f8"):
                raise Refused(f"its radius is {self.radius!r}, or its centre holds no floats")
            self.norm = h.get("norm", "inf")
            if self.norm not in ("inf", "2", "1") or (self.norm == "inf" and "norm" in h):
                raise Refused(f"its norm is {self.norm!r:.40}; 2 and 1 are supported, and none for boxes")
            self.domain = self._domain(h["domain"], len(self.centre))
        except MALFORMED as error:
            raise Refused(f"it is no certificate: {type(error).__name__} {error}"[:300]) from None

    def _domain(self, ends: Any, count: int) -> tuple[list[float], list[float]] | None:
        """Return the least and the greatest value of each input; None without limits."""
        if ends is not None:
            least, greatest = map(_number, ends)
            return [least] * count, [greatest] * count
        if "domain.lower" not in self.arrays:
            return None
        low, high = (self.arrays[f"domain.{end}"] for end in ("lower", "upper"))
        centre = self.arrays["centre"].shape
        shapes = (centre, (1, *centre))
        if any(each.kind not in ("<f4", "<f8") or each.shape not in shapes for each in (low, high)):
            raise Refused("its domain is not about its inputs")
        return list(low.values), list(high.values)

    @property
    def limits(self) -> tuple[list[float], list[float]]:
        """The least and the greatest value of each input, infinite where there is no limit."""
        return self.domain or ([-math.inf] * len(self.centre), [math.inf] * len(self.centre))

    def ball(self, shape: Sequence[int], bits: int) -> tuple[list[int], list[int]]:
        """Return the ends of the inputs that it is about, outward, in units of 2^-bits."""
        if self.arrays["centre"].shape != tuple(shape):
            raise Refused(f"its centre has shape {self.arrays['centre'].shape}, the input {tuple(shape)}")
        low, high = [], []
        for c, least, greatest in zip(self.centre, *self.limits, strict=True):
            if not least <= c <= greatest:
                raise Refused(f"its centre leaves its domain: {c!r} is not in [{least!r}, {greatest!r}]")
            (at, by), scale = whole([c, self.radius])
            ends = [((at - by) << bits) >> scale, -((-(at + by) << bits) >> scale)]
            for number, limit in enumerate((least, greatest)):
                if math.isfinite(limit):
                    (top,), scale = whole([limit])
                    ends[number] = (
                        max(ends[0], (top << bits) >> scale)
                        if number == 0
                        else min(ends[1], -((-top << bits) >> scale))
                    )
            low.append(ends[0])
            high.append(ends[1])
        return low, high


def whole_numbers(values: Array, what: str) -> list[int]:
    """Return the values of a vector of integers; Refused where it is none."""
    if values.kind[1] not in "ui" or len(values.shape) != 1:
        raise Refused(f"{what} must be a vector of integers")
    return list(values.values)


def check_places(places: Sequence[int], count: int, what: str) -> None:
    """Refuse places of which one is named twice, or is not one of so many."""
    if len(set(places)) != len(places) or not all(0 <= i < count for i in places):
        raise Refused(f"{what}: a place is named twice, or does not exist")
