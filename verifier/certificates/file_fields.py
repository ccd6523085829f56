"""What a certificate's file holds, by its kind: what else it holds is refused by name, and so is what has no value.

A field or an array that nobody reads could be taken for a part of what is claimed, and a number that is none for one
that proves something. docs/certificate-format.md says the same for whoever writes a checker.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

# Schemas, and what each of the later ones added; a file is written in the first that has all it holds.
SCHEMA, BEFORE, ADDED = 4, 2, {3: "distances", 4: "norm"}
# Bytes of JSON that are parsed.
MOST_HEADER = 1 << 24
FIELDS = frozenset({"schema", "digest", "index", "radius", "winner", "domain", "trees", "boxes"})
SIGN_FIELDS = frozenset({"subtrees", "unit_trees", "unit_planes"})
NUMBERS, LONG = ("slopes", "multipliers"), ("long", "long.slopes", "long.multipliers")
POINTS = ("units", "points", "thresholds")
SUBTREES = ("signs", "units", "slopes", "multipliers", "leaves")
UNIT_TREES = ("places", "ends", "columns", "splits", *NUMBERS)
UNIT_PLANES = ("places", "ends", "columns", "slopes", *POINTS)
TREES = ("open_units", "splits", "sets", "boxes.places", "boxes.slopes", *NUMBERS)
# Types of numbers, little-endian.
TYPES = frozenset({"|u1", "|i1", "<u2", "<i2", "<i4", "<u4", "<i8", "<f4", "<f8", "|b1"})


def read_header(content: bytes) -> dict[str, Any]:
    """Return the JSON of a header; ValueError where a name stands twice, a number is none, or it is too long."""
    if len(content) > MOST_HEADER:
        raise ValueError(f"its header has {len(content):,} bytes, more than {MOST_HEADER:,}")
    header = json.loads(content, object_pairs_hook=_once, parse_constant=_no_number)
    if not isinstance(header, dict):
        raise ValueError("its header is no object")
    return header


def check_schema(header: Mapping[str, Any], index: int) -> None:
    """Raise ValueError unless a header is of a schema that is read, with nothing of a later one, and of an input."""
    schema, number = whole_number(header["schema"]), whole_number(header["index"])
    if schema < BEFORE:
        raise ValueError(f"it is of schema {schema}; prove the answer again")
    if schema > SCHEMA or number != index:
        raise ValueError(f"schema {schema}, input {number}, where {SCHEMA} and {index} are expected")
    early = [name for since, name in ADDED.items() if name in header and schema < since]
    if early:
        raise ValueError(f"schema {schema} has no {' or '.join(early)}")
    if "norm" in header and header["norm"] not in ("1", "2"):
        raise ValueError(f"its norm is {header['norm']!r:.40}; 2 and 1 are supported, and none for boxes")


def check_fields(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Raise ValueError unless a file holds the fields and arrays of its kind and no others, and numbers in them."""
    groups = [_under("domain.", ("lower", "upper"))] if header["domain"] is None else []
    fields = FIELDS
    if "distances" in header:
        fields |= {"distances"}
        needed = _under("distances.", ("sides", "values", "passes"))
    elif "inputs.sides" in arrays:
        fields |= {"norm"}
        needed = _under("inputs.", ("sides", "values", "tightened"))
    else:
        fields |= SIGN_FIELDS
        needed = set(TREES) | (_under("subtrees.", SUBTREES) if header.get("subtrees") else set())
        groups += [set(LONG), _under("planes.", POINTS), _under("sets.", POINTS)]
        for number in range(len(header.get("unit_trees", ()))):
            needed |= _under(f"unit_trees.{number}.", UNIT_TREES)
            groups.append(_under(f"unit_trees.{number}.", LONG))
        for number in range(len(header.get("unit_planes", ()))):
            needed |= _under(f"unit_planes.{number}.", UNIT_PLANES)
    if fields.isdisjoint(SIGN_FIELDS) and (header["trees"] != [] or header["boxes"] != []):
        raise ValueError("it holds trees of signs or boxes beside another kind of proof")
    # Of arrays that may be missing a group is whole, or not there.
    needed = needed.union({"header", "centre"}, *(group for group in groups if group & arrays.keys()))
    unknown = sorted(header.keys() - fields) + sorted(arrays.keys() - needed)
    if unknown or (missing := sorted(needed - arrays.keys())):
        what = f"does not have {unknown!r:.200}" if unknown else f"has {missing!r:.200}, too"
        raise ValueError(f"a certificate of its kind {what}")
    for name, values in arrays.items():
        if values.dtype.str not in TYPES:
            raise ValueError(f"array {name!r:.60} is of type {values.dtype}")
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ValueError(f"array {name!r:.60} holds NaN or infinity")


def whole_number(value: Any) -> int:
    """Return a whole number of a header; ValueError where it is none."""
    if type(value) is not int:
        raise ValueError(f"{value!r:.40} stands where a whole number should")
    return value


def real_number(value: Any) -> float:
    """Return a number of a header; ValueError where it is none."""
    if type(value) not in (int, float):
        raise ValueError(f"{value!r:.40} stands where a number should")
    return float(value)


def _under(prefix: str, names: tuple[str, ...]) -> set[str]:
    return {prefix + name for name in names}


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a field stands twice in its header")
    return found


def _no_number(word: str) -> None:
    raise ValueError(f"its header holds {word}")
