"""Checks certificates in exact arithmetic: the standard library alone, nothing of the packages that make them.

    python verifier_check.py NETWORK.safetensors CERTIFICATE_OR_RUN ... [--property FILE] [--sample K]

It was made from docs/certificate-format.md alone; with the other verifier_check_*.py it may be copied anywhere. Exit
status: 0 all hold, 1 one does not, 3 one is not decided, as it needs what is not supported; 2 the arguments are wrong,
or a run names no certificate.
"""

from __future__ import annotations

import argparse
import array
import hashlib
import io
import json
import math
import random
import re
import sys
import zipfile
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from verifier_check_bounds import (
    Boxes,
    Cuts,
    Ends,
    Group,
    Part,
    Program,
    Search,
    class_count,
    class_groups,
    read_property,
)  # fmt: skip
from verifier_check_distances import Chain
from verifier_check_network import (
    INPUT,
    MALFORMED,
    Hinge,
    Network,
    Refused,
    Undecided,
    read_network,
    scores,
    whole,
    without_max_pools,
)
from verifier_check_planes import PlanePoints, Planes

# How a certificate is evaluated, in turn until it holds: in which units, and whether hinges whose box only just has one
# sign count as open, as they may have been where boxes were rounded outward.
ATTEMPTS = ((128, False), (512, False), (512, True))
MOST_BYTES, MOST_UNPACKED = 1 << 26, 1 << 28
# Schemas that are read, and what the last one added.
SCHEMAS, ADDED, LEAF, STEPS = (2, 3), ("distances",), -1, 255


# ---------------------------------------------------------------------------------------------- the certificate's file


CODES = {
    "|u1": "B",
    "|i1": "b",
    "<u2": "H",
    "<i2": "h",
    "<i4": "i",
    "<i8": "q",
    "<f4": "f",
    "<f8": "d",
    "|b1": "B",
    "<u4": "I",
}


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


def read_arrays(content: bytes) -> dict[str, Array]:
    """Return the arrays of an archive by name."""
    header = re.compile(
        rb"\{'descr': '([<|][a-z]\d)', 'fortran_order': (True|False), 'shape': \(([\d, ]{0,60})\), \} *\n"
    )
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members, found = archive.infolist(), dict[str, Array]()
        if sum(member.file_size for member in members) > max(MOST_UNPACKED, 256 * len(content)):
            raise Refused("it unpacks to more bytes than are read")
        for member in members:
            data = archive.read(member)
            if len(data) != member.file_size:
                raise Refused(f"{member.filename!r:.60} is not as long as it says")
            size = 10 + int.from_bytes(data[8:10], "little")
            match = header.fullmatch(data[10:size])
            name = member.filename.removesuffix(".npy")
            if data[:8] != b"\x93NUMPY\x01\x00" or match is None or name in found:
                raise Refused(f"{member.filename!r:.60} is no array of version 1.0, or there are two of its name")
            kind, by_column = match[1].decode(), match[2] == b"True"
            shape = tuple(int(part) for part in match[3].decode().split(",") if part.strip())
            if kind not in CODES or (by_column and len(shape) > 1 and min(shape) > 1):
                raise Undecided(f"array {name!r:.60} is of type {kind}, or stored by columns")
            values = array.array(CODES[kind])
            values.frombytes(data[size:])
            if sys.byteorder == "big":
                values.byteswap()
            if math.prod(shape) != len(values):
                raise Refused(f"array {name!r:.60} of shape {shape} holds {len(values)} numbers")
            if values.typecode in "fd" and not all(map(math.isfinite, values)):
                raise Refused(f"array {name!r:.60} holds NaN or infinity")
            found[name] = Array(kind, shape, values)
        return found


class Certificate:
    """The arrays of a file and its header; what is claimed is common to all kinds."""

    def __init__(self, content: bytes) -> None:
        if len(content) > MOST_BYTES:
            raise Refused(f"it has {len(content):,} bytes, more than {MOST_BYTES:,}")
        try:
            self.arrays = read_arrays(content)
            self.header = h = json.loads(bytes(self.arrays["header"].values))
            if h["schema"] not in SCHEMAS or (h["schema"] == SCHEMAS[0] and any(name in h for name in ADDED)):
                raise Refused(
                    f"it is of schema {h['schema']!r:.40}; schemas {SCHEMAS} are supported, each with its fields"
                )
            self.digest, self.index, self.radius, self.winner = h["digest"], h["index"], float(h["radius"]), h["winner"]
            if type(self.winner) is not int or type(self.index) is not int:
                raise Refused("its class or its position is no whole number")
            self.centre = [float(value) for value in self.arrays["centre"].values]
            if not 0 <= self.radius < math.inf or self.arrays["centre"].kind not in ("<f4", "<f8"):
                raise Refused(f"its radius is {self.radius!r}, or its centre holds no floats")
        except MALFORMED as error:
            raise Refused(f"it is no certificate: {type(error).__name__} {error}"[:300]) from None

    def domain(self) -> tuple[list[float], list[float]] | None:
        """Return the least and the greatest value of each input; None without limits."""
        ends, count = self.header["domain"], len(self.centre)
        if ends is not None:
            return [float(ends[0])] * count, [float(ends[1])] * count
        if "domain.lower" not in self.arrays:
            return None
        least, greatest = (self.arrays[f"domain.{end}"] for end in ("lower", "upper"))
        if len(least.values) != count or len(greatest.values) != count:
            raise Refused("its domain is not about its inputs")
        return list(least.values), list(greatest.values)

    def ball(self, shape: Sequence[int], bits: int) -> Ends:
        """Return the ends of the inputs that it is about, outward, in units of 2^-bits."""
        if self.arrays["centre"].shape != tuple(shape):
            raise Refused(f"its centre has shape {self.arrays['centre'].shape}, the input {tuple(shape)}")
        limits = self.domain() or ([-math.inf] * len(self.centre), [math.inf] * len(self.centre))
        low, high = [], []
        for c, least, greatest in zip(self.centre, *limits, strict=True):
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


# -------------------------------------------------------------------------------------------------- trees of signs


def check_signs(certificate: Certificate, network: Network, bits: int, opens: bool = False) -> int:
    """Return how many leaves a tree of signs has, all of which hold; Refused says which does not.

    opens: as of `Program`.
    """
    classes = class_count(network, certificate.winner)
    arrays, header = certificate.arrays, certificate.header
    for name, entry in arrays.items():
        entry.taken = 0
        if name in ("splits", "sets", "subtrees.signs", "subtrees.units", "subtrees.leaves", "boxes.places"):
            _whole_numbers(entry, name)
    trees = [(rival, leaves, sets) for rival, leaves, sets in header["trees"]]
    rivals = [rival for rival, _, _ in trees]
    if any(type(rival) is not int for rival in rivals) or sorted(rivals) != [
        k for k in range(classes) if k != certificate.winner
    ]:
        raise Refused(f"it holds trees against {rivals!r:.60}, not against each class but {certificate.winner}")
    plain = without_max_pools(network)
    program = Program(plain, *certificate.ball(network.input_shape, bits), bits, opens)
    _prove_boxes(program, certificate)
    units = _whole_numbers(arrays["open_units"], "open units")
    _check_places(units, program.units, "open units")
    sets = _Sets(arrays, len(units), bits)
    above = PlanePoints(program, arrays, "planes.", len(trees)) if "planes.units" in arrays else None
    own = PlanePoints(program, arrays, "sets.", sets.count) if "sets.units" in arrays else None
    if above is not None and own is not None:
        raise Refused("planes are of classes or of sets of numbers, not of both")
    boxes = _subtree_boxes(program, certificate, units)
    leaf_boxes, all_sets = arrays.get("subtrees.leaves") if len(boxes) > 1 else None, arrays["sets"]
    splits, first = arrays["splits"], 0
    for rival, leaves, own_sets in trees:
        if type(leaves) is not int or leaves < 1:
            raise Refused(f"class {rival}: {leaves!r:.40} leaves")
        signs_of = leaf_signs(splits.take(2 * leaves - 1), program.units)
        planes = None if above is None else above.of(rival - (rival > certificate.winner))
        named, taken = all_sets.take(leaves), [0] * leaves if leaf_boxes is None else leaf_boxes.take(leaves)
        for leaf, (signs, number, box) in enumerate(zip(signs_of, named, taken, strict=True)):
            if not 0 <= number < own_sets or not 0 <= box < len(boxes):
                raise Refused(f"class {rival}, leaf {leaf}: it names numbers or boxes that are not there")
            row = {certificate.winner: 1 << bits, rival: -1 << bits}
            numbers = sets.of(first + number, units, signs)
            lines = planes if own is None else own.of(first + number)
            bound = _leaf_bound(program, row, boxes[box], signs, numbers, planes=lines)
            if bound is not None and not bound > 0:
                raise Refused(f"class {rival}, leaf {leaf}: the margin is at least {bound / (1 << 2 * bits):.3g} only")
        first += own_sets
    if first != sets.count or any(
        entry.taken != len(entry.values) for entry in (splits, all_sets, *([leaf_boxes] if leaf_boxes else []))
    ):
        raise Refused("it holds more numbers than its trees take")
    return sum(leaves for _, leaves, _ in trees)


def _leaf_bound(
    program: Program,
    row: dict[int, int],
    boxes: Boxes,
    signs: dict[int, int],
    numbers: Any,
    name: str | None = None,
    planes: Planes | None = None,
) -> int | None:
    """Return the bound of a row of a node, by default of the output, under signs; None where nothing lies there."""
    if any(signs.get(unit) != sign for unit, sign in boxes.signs.items()):
        raise Refused("a leaf takes boxes that hold under other signs than its own")
    cuts: Cuts = {}
    for unit, sign in signs.items():
        source, i = program.sources[unit]
        own = cuts.setdefault(source, {})
        low, high = own.get(i, (boxes.ends[source][0][i], boxes.ends[source][1][i]))
        own[i] = (max(low, 0), high) if sign > 0 else (low, min(high, 0))
        if own[i][0] > own[i][1]:
            return None
    slopes, multipliers = numbers
    if boxes.is_empty:
        return None
    of = program.names[-1] if name is None else name
    return program.least(of, row, boxes, cuts, slopes, by_node(program, multipliers), planes)


def by_node(program: Program, multipliers: dict[int, int]) -> dict[str, dict[int, int]]:
    """Return multipliers of units as those of the values that their hinges read."""
    found: dict[str, dict[int, int]] = {}
    for unit, value in multipliers.items():
        name, i = program.sources[unit]
        own = found.setdefault(name, {})
        own[i] = own.get(i, 0) + value
    return found


def leaf_signs(splits: Sequence[int], units: int) -> Iterator[dict[int, int]]:
    """Yield the signs of the leaves of a tree in preorder; Refused where the splits are none."""
    waiting: list[dict[int, int]] = [{}]
    for split in splits:
        if not waiting:
            raise Refused("there are splits after the end of the tree")
        signs = waiting.pop()
        if split == LEAF:
            yield signs
        elif not 0 <= split < units or split in signs:
            raise Refused(f"unit {split} is split twice, or does not exist")
        else:
            waiting += [signs | {split: -1}, signs | {split: 1}]
    if waiting:
        raise Refused("the tree ends before its parts do")


class _Sets:
    """The numbers of leaves: slopes in steps of 1/255 and upper halves of float32, or floats."""

    def __init__(self, arrays: dict[str, Array], units: int, bits: int) -> None:
        self.arrays, self.bits, self.steps = arrays, bits, arrays["slopes"]
        planes = arrays["multipliers"]
        if self.steps.kind != "|u1" or planes.kind != "|u1" or len(self.steps.shape) != 2 or len(planes.shape) != 3:
            raise Refused("short numbers must be bytes, slopes (units, sets), multipliers (2, units, sets)")
        self.short = self.steps.shape[1]
        if self.steps.shape[0] != units or planes.shape != (2, units, self.short):
            raise Refused(f"slopes {self.steps.shape}, multipliers {planes.shape}, {units} open units")
        marks = arrays["long"].values if "long" in arrays else [0] * self.short
        long = ("long.slopes", "long.multipliers") if "long" in arrays else ()
        shape = (sum(map(bool, marks)), units)
        if len(marks) - shape[0] != self.short or any(arrays[n].shape != shape for n in long):
            raise Refused("long numbers and their marks do not go together")
        self.count, self.places, counts = len(marks), list[tuple[bool, int]](), [0, 0]
        for mark in map(bool, marks):
            self.places.append((mark, counts[mark]))
            counts[mark] += 1

    def of(self, number: int, units: list[int], signs: dict[int, int]) -> tuple[dict[int, int], dict[int, int]]:
        """Return (slopes, multipliers) by unit of a set, as they count under signs."""
        is_long, at = self.places[number]
        slopes, multipliers, one = {}, {}, 1 << self.bits
        for k, unit in enumerate(units):
            if is_long:
                slope, value = (
                    self.arrays[f"long.{name}"].values[at * len(units) + k] for name in ("slopes", "multipliers")
                )
                slopes[unit] = _fixed(min(max(float(slope), 0.0), 1.0), self.bits)
            else:
                place, planes = k * self.short + at, self.arrays["multipliers"].values
                slopes[unit] = self.steps.values[place] * one // STEPS
                half = planes[place] << 8 | planes[len(units) * self.short + place]
                sign, exponent, digits = half >> 15, half >> 7 & 255, half & 127
                if exponent == 255:
                    raise Refused("a multiplier is no finite number")
                # 2^-133 is the unit of a bfloat16 without its exponent.
                value = math.ldexp((digits + 128 if exponent else digits) * (-1) ** sign, max(exponent, 1) - 134)
            if value:
                multipliers[unit] = _fixed(float(value), self.bits) * signs.get(unit, 1)
        return slopes, multipliers


def _fixed(value: float, bits: int) -> int:
    (top,), scale = whole([value])
    return (top << bits) >> scale


def _whole_numbers(values: Array, what: str) -> list[int]:
    """Return the values of a vector of integers; Refused where it is none."""
    if values.kind[1] not in "ui" or len(values.shape) != 1:
        raise Refused(f"{what} must be a vector of integers")
    return list(values.values)


def _check_places(places: Sequence[int], count: int, what: str) -> None:
    if len(set(places)) != len(places) or not all(0 <= i < count for i in places):
        raise Refused(f"{what}: a place is named twice, or does not exist")


def _prove_boxes(program: Program, certificate: Certificate) -> None:
    """Bound what hinges read: by intervals, by lines that need no numbers, then by the slopes of the certificate."""
    places, slopes = certificate.arrays["boxes.places"], certificate.arrays["boxes.slopes"]
    given: dict[str, tuple[list[int], list[list[float]]]] = {}
    for name, rows, columns in certificate.header["boxes"]:
        own = places.take(rows // 2)
        flat = slopes.take(rows * columns)
        given[name] = own, [flat[k * columns : (k + 1) * columns] for k in range(rows)]
    if places.taken != len(places.values) or slopes.taken != len(slopes.values):
        raise Refused("it holds more numbers than its boxes take")
    trees = certificate.header.get("unit_trees", [])
    if not isinstance(trees, list) or len(set(trees)) != len(trees):
        raise Refused("the nodes whose units have trees are no list of names, or one is named twice")
    above = certificate.header.get("unit_planes", [])
    if not isinstance(above, list) or len(set(above)) != len(above):
        raise Refused("the nodes whose units have planes are no list of names, or one is named twice")
    if not program.read_by_hinges.issuperset([*trees, *above]):
        raise Refused("a node whose units have trees or planes is read by no hinge")
    while (name := program.advance()) is not None:
        low, high = program.boxes.ends[name]
        is_open = [i for i, (a, b) in enumerate(zip(low, high, strict=True)) if a < 0 < b]
        if program.units and is_open:
            program.tighten(name, is_open, program.boxes, None, None)
        if name in given:
            own, numbers = given[name]
            _check_places(own, len(low), f"boxes of {name!r:.60}")
            if len(numbers) != 2 * len(own) or any(len(row) != program.units for row in numbers):
                raise Refused(f"the slopes of {name!r:.60} are not of {program.units} units")
            program.tighten(
                name, own, program.boxes, [_steps(row, range(program.units), program.bits) for row in numbers], None
            )
        planes = None
        if name in above:
            planes = _plane_boxes(program, certificate, name, f"unit_planes.{above.index(name)}.")
        if name in trees:
            _grown_boxes(program, certificate, name, f"unit_trees.{trees.index(name)}.", planes or {})
        if program.boxes.is_empty:
            raise Refused("bounds of the same units contradict each other: please report this with the network")


def _plane_boxes(program: Program, certificate: Certificate, name: str, prefix: str) -> dict[tuple[int, int], Planes]:
    """Meet the box of a node with the ends that planes prove; return the planes of each end (place, 1 or -1)."""
    places, ends, units = (
        _whole_numbers(certificate.arrays[prefix + key], f"{key} of planes") for key in ("places", "ends", "columns")
    )
    low, high = (end[:] for end in program.boxes.ends[name])
    slopes = certificate.arrays[prefix + "slopes"]
    _check_places(units, program.units, f"columns of planes of {name!r:.60}")
    if (
        len(ends) != len(places)
        or any(end not in (-1, 1) for end in ends)
        or any(not 0 <= i < len(low) for i in places)
        or slopes.kind[1] != "u"
        or slopes.shape != (len(places), len(units))
    ):
        raise Refused(f"planes of {name!r:.60}: an end is neither -1 nor 1, or a unit or a slope does not exist")
    points, made = PlanePoints(program, certificate.arrays, prefix, len(places)), dict[tuple[int, int], Planes]()
    for k, (place, end) in enumerate(zip(places, ends, strict=True)):
        made[place, end] = planes = points.of(k)
        lines = _steps(slopes.values[k * len(units) : (k + 1) * len(units)], units, program.bits)
        row = {place: end << program.bits}
        found = program.least(name, row, program.boxes, {}, lines, {}, planes) >> program.bits
        low[place], high[place] = (max(low[place], found), high[place]) if end > 0 else (
            low[place], min(high[place], -found)
        )  # fmt: skip
    program.boxes.is_empty |= any(a > b for a, b in zip(low, high, strict=True))
    program.boxes.ends[name] = low, high
    program.boxes.lines.clear()
    return made


def _grown_boxes(
    program: Program, certificate: Certificate, name: str, prefix: str, planes: dict[tuple[int, int], Planes]
) -> None:
    """Meet the box of a node with the ends that trees of units prove: each the least bound over its leaves."""
    arrays = {key.removeprefix(prefix): each for key, each in certificate.arrays.items() if key.startswith(prefix)}
    places, ends, units, splits = (
        _whole_numbers(arrays[key], f"{key} of trees") for key in ("places", "ends", "columns", "splits")
    )
    _check_places(units, program.units, f"columns of trees of {name!r:.60}")
    low, high = (end[:] for end in program.boxes.ends[name])
    if (
        len(ends) != len(places)
        or any(end not in (-1, 1) for end in ends)
        or any(not 0 <= i < len(low) for i in places)
    ):
        raise Refused(f"trees of {name!r:.60}: an end is neither -1 nor 1, or a unit does not exist")
    sets, first, start = _Sets(arrays, len(units), program.bits), 0, 0
    for place, end in zip(places, ends, strict=True):
        stop, waiting = start, 1
        while waiting and stop < len(splits):
            waiting += -1 if splits[stop] == LEAF else 1
            stop += 1
        least = None
        for signs in leaf_signs(splits[start:stop], program.units):
            if first == sets.count:
                raise Refused(f"trees of {name!r:.60} have more leaves than numbers")
            slopes, multipliers = sets.of(first, units, {})
            bound = _leaf_bound(
                program,
                {place: end << program.bits},
                program.boxes,
                signs,
                (slopes, multipliers),
                name,
                planes.get((place, end)),
            )
            least = bound if least is None or (bound is not None and bound < least) else least
            first += 1
        start = stop
        if least is not None:
            found = least >> program.bits
            low[place], high[place] = (max(low[place], found), high[place]) if end > 0 else (
                low[place], min(high[place], -found)
            )  # fmt: skip
    if first != sets.count or start != len(splits):
        raise Refused(f"trees of {name!r:.60} do not take all of their numbers")
    program.boxes.is_empty |= any(a > b for a, b in zip(low, high, strict=True))
    program.boxes.ends[name] = low, high
    program.boxes.lines.clear()


def _steps(row: Sequence[float], units: Sequence[int], bits: int) -> dict[int, int]:
    """Return slopes by unit from numbers in steps of 1/255."""
    return {
        unit: min(max(_fixed(float(value), bits) // STEPS, 0), 1 << bits)
        for unit, value in zip(units, row, strict=True)
        if value
    }


def _subtree_boxes(program: Program, certificate: Certificate, units: list[int]) -> list[Boxes]:
    """Return the boxes of the ball, then those of subtrees."""
    made, rows = [program.boxes], certificate.header.get("subtrees", [])
    if not rows:
        return made
    arrays = [certificate.arrays[f"subtrees.{name}"] for name in ("signs", "units", "slopes", "multipliers")]
    signs, bounded, slopes, multipliers = arrays
    count, sources = len(units), [step for step in program.steps if isinstance(step, Hinge)]
    for number, (before, several) in enumerate(rows, start=1):
        own = signs.take(count)
        places = bounded.take(several)
        flat = [each.take(2 * several * count) for each in (slopes, multipliers)]
        if type(before) is not int or not 0 <= before < number or any(sign not in (-1, 0, 1) for sign in own):
            raise Refused(f"subtree {number}: what it narrows, or its signs, cannot be")
        _check_places(places, count, f"subtree {number}")
        given = {unit: sign for unit, sign in zip(units, own, strict=True) if sign}
        if any(given.get(unit) != sign for unit, sign in made[before].signs.items()):
            raise Refused(f"subtree {number} has not the signs of the one whose boxes it narrows")
        boxes = made[before].under(given, program.sources)
        for step in sources:
            if boxes.is_empty:
                break
            width = len(boxes.ends[step.source][0])
            at = [k for k, place in enumerate(places) if step.first <= units[place] < step.first + width]
            both = [*at, *(k + several for k in at)]
            lines = [_steps(flat[0][k * count : (k + 1) * count], units, program.bits) for k in both]
            extra = [
                by_node(program, {u: _fixed(float(m), program.bits) for u, m in zip(units, row, strict=True) if m})
                for row in (flat[1][k * count : (k + 1) * count] for k in both)
            ]
            program.tighten(step.source, [units[places[k]] - step.first for k in at], boxes, lines, extra)
        made.append(boxes)
    if any(each.taken != len(each.values) for each in arrays):
        raise Refused("it holds more numbers than its subtrees take")
    return made


# -------------------------------------------------------------------------------------------------- trees of inputs


def check_inputs(certificate: Certificate, network: Network, bits: int, groups: list[Group]) -> int:
    """Return how many leaves a tree over inputs and units has, in all of which every group is refuted."""
    sides, values, marks = (certificate.arrays[f"inputs.{name}"] for name in ("sides", "values", "tightened"))
    if values.kind != "<f8" or marks.kind != "|b1" or len({sides.shape, values.shape, marks.shape}) > 1:
        raise Refused("a tree has a side, a value of float64 and a mark for each node")
    tree = _whole_numbers(sides, "sides")
    second = _second_halves(tree)
    search = Search(Program(network, *certificate.ball(network.input_shape, bits), bits), groups)
    coordinates = [(name, i) for name in (INPUT, *search.kept) for i in range(math.prod(network.shapes[name]))]
    if any(side != LEAF and not 0 <= side < len(coordinates) for side in tree):
        raise Refused(f"a split is of none of {len(coordinates)} inputs and units")
    waiting = [Part(search.program.boxes.ends[INPUT], {}, [True] * len(groups), False, 0)]
    while waiting:
        part = waiting.pop()
        left = search.step(part, bool(marks.values[part.node]))
        if left is None:
            continue
        if tree[part.node] == LEAF:
            raise Refused(f"leaf {tree[: part.node].count(LEAF)}: what is unsafe there is not refuted")
        name, i = coordinates[tree[part.node]]
        (top,), scale = whole([values.values[part.node]])
        below, above = -((-top << bits) >> scale), (top << bits) >> scale
        waiting.append(left.half(name, i, 0, above, second[part.node]))
        waiting.append(left.half(name, i, 1, below, part.node + 1))
    return tree.count(LEAF)


def _second_halves(tree: list[int]) -> list[int]:
    """Return for each node in preorder where the part above its split stands; Refused if it is no tree."""
    second, done = [0] * len(tree), list[int]()
    for place in range(len(tree) - 1, -1, -1):
        if tree[place] != LEAF:
            if len(done) < 2:
                raise Refused("the tree ends before its parts do")
            done.pop()
            second[place] = done.pop()
        done.append(place)
    if len(done) != 1:
        raise Refused("there are splits after the end of the tree, or it is empty")
    return second


# --------------------------------------------------------------------------------------------- trees of contraction


def check_distances(certificate: Certificate, network: Network, bits: int) -> int:
    """Return how many leaves trees of contraction have, one tree against each rival, all of which are empty."""
    classes = class_count(network, certificate.winner)
    arrays = [certificate.arrays[f"distances.{name}"] for name in ("sides", "values", "passes")]
    sides, values, passes = arrays
    for entry in arrays:
        entry.taken = 0
    if values.kind != "<f8" or passes.kind != "|u1" or sides.kind[1] != "i" or any(len(e.shape) != 1 for e in arrays):
        raise Refused("sides are integers, values of float64, passes bytes")
    rows = [(rival, nodes) for rival, nodes in certificate.header["distances"]]
    rivals = [rival for rival, _ in rows]
    if any(type(rival) is not int for rival in rivals) or sorted(rivals) != [
        k for k in range(classes) if k != certificate.winner
    ]:
        raise Refused(f"it holds trees against {rivals!r:.60}, not against each class but {certificate.winner}")
    low, high = certificate.ball(network.input_shape, bits)
    chain, leaves = Chain(network, bits), 0
    for rival, nodes in rows:
        tree, at, number = sides.take(nodes), values.take(nodes), passes.take(nodes)
        if any(not LEAF <= side <= chain.starts[-1] for side in tree) or 0 in number:
            raise Refused(f"class {rival}: a split is of no value, or a part is contracted by no pass")
        leaves += chain.check((tree, at, number, _second_halves(tree)), low, high, certificate.winner, rival)
    if any(entry.taken != len(entry.values) for entry in arrays):
        raise Refused("it holds more numbers than its trees take")
    return leaves


# --------------------------------------------------------------------------------------------------- one answer, a run


def check_certificate(content: bytes, network: Network, asked: bytes | None = None) -> tuple[str, int]:
    """Return (what is proved, by how many leaves); Refused or Undecided says why it is not.

    asked: the property that it is about, where that is not a class, as VNN-LIB text or JSON.
    """
    certificate = Certificate(content)
    networks = [each for each in (network, scores(network)) if each.digest == certificate.digest]
    if not networks:
        raise Refused(
            f"it is about network {certificate.digest!r:.70}, not {network.digest}; those of properties and of "
            "executions in an arithmetic are about networks made of the model, which `verifier check --exact` hands on"
        )
    try:
        box, groups = (None, []) if asked is None else read_property(asked)
        _check_question(certificate, network, networks[0], box, groups)
        leaves = _leaves(certificate, networks[0], None if asked is None else groups)
    except MALFORMED as error:
        raise Refused(f"it is no certificate, or no property: {type(error).__name__} {error}"[:300]) from None
    has_domain = certificate.header["domain"] is not None or "domain.lower" in certificate.arrays
    what = f"class {certificate.winner} wins" if asked is None else "the property holds"
    where = ", in its domain" if has_domain else ""
    return f"{what} within {certificate.radius!r} of the centre in every input{where}", leaves


def _check_question(
    certificate: Certificate, network: Network, proved: Network, box: dict[int, list[Any]] | None, groups: list[Group]
) -> None:
    """Refuse a property that the certificate, which is about the network `proved`, does not answer of a network."""
    outputs = math.prod(network.shapes[network.nodes[-1].name])
    rows = [row for group in groups for row in group]
    if any(not 0 <= j < outputs for row, _ in rows for j in row):
        raise Refused(f"the property is about an output beyond the {outputs} of the network")
    differences = all(offset == 0 and len(row) == 2 and sum(row.values()) == 0 for row, offset in rows)
    if groups and proved is not network and (outputs < 2 or not differences):
        raise Refused("it is about scores in the order of the outputs, the property about more than their order")
    if "inputs.sides" not in certificate.arrays:
        for group in groups:
            # The winner is above the rival: so no row asks whether it is not.
            answered = [
                r
                for r, d in group
                if d <= 0 and len(r) == 2 and sum(r.values()) == 0 and r.get(certificate.winner, 0) > 0
            ]
            if not answered:
                raise Undecided(
                    "a tree of signs about such a property is of the network of its margins: name that alone"
                )
    limits = certificate.domain() or ([-math.inf] * len(certificate.centre), [math.inf] * len(certificate.centre))
    for i, (least, greatest) in (box or {}).items():
        centre, radius = Fraction(certificate.centre[i]), Fraction(certificate.radius)
        inside = limits[0][i] <= least and greatest <= limits[1][i]
        if not (inside and centre - radius <= least and greatest <= centre + radius):
            raise Refused(f"it does not cover input {i} of the property, [{float(least)!r}, {float(greatest)!r}]")
    if box is not None and sorted(box) != list(range(len(certificate.centre))):
        raise Refused("the property does not bound each input of the certificate")


def _leaves(certificate: Certificate, network: Network, groups: list[Group] | None) -> int:
    """Return how many leaves hold; groups: what is unsafe, None for other classes."""
    for bits, opens in ATTEMPTS:
        try:
            if "distances" in certificate.header:
                if groups is not None:
                    raise Refused("trees of contraction are about classes, not about a property")
                return check_distances(certificate, network, bits)
            if "inputs.sides" not in certificate.arrays:
                return check_signs(certificate, network, bits, opens)
            asked = class_groups(network, certificate.winner) if groups is None else groups
            return check_inputs(certificate, network, bits, asked)
        except Refused:
            if (bits, opens) == ATTEMPTS[-1]:
                raise
    raise AssertionError


def run_files(run: Path) -> Iterator[tuple[str, Path, dict[str, Any]]]:
    """Yield what the records of a run say of certificates: (name, file, record), the last of each input."""
    records: dict[int, dict[str, Any]] = {}
    for line in (run / "records.jsonl").read_text("utf-8").splitlines():
        record = json.loads(line)
        records[int(record["index"])] = record
    for index, record in sorted(records.items()):
        if isinstance(record.get("certificate"), dict):
            name = str(record["certificate"]["file"])
            folder, _, file = name.partition("/")
            if folder != "certificates" or not re.fullmatch(r"[\w.-]+\.npz", file):
                raise Refused(f"input {index}: {name!r:.80} is no file in certificates/ of the run")
            yield f"input {index}", run / folder / file, record


def _check_record(content: bytes, record: dict[str, Any]) -> None:
    """Refuse a certificate that is not the one of its record: another file, input, class or radius."""
    named, found = record["certificate"], Certificate(content)
    if hashlib.sha256(content).hexdigest() != named["sha256"] or found.index != record["index"]:
        raise Refused("it is not the file that the record names")
    if "label" in record and found.winner != record["label"]:
        raise Refused(f"it is about class {found.winner}, the label is {record['label']}")
    if named.get("radius") != found.radius:
        raise Refused(f"it is about radius {found.radius!r}, the record says {named.get('radius')!r}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Check what the command line names; print a line each, and return the exit status."""
    parser = argparse.ArgumentParser(prog="verifier_check.py", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("network", type=Path, help="the network's native file")
    parser.add_argument("places", type=Path, nargs="+", help="certificates (.npz), or folders of runs")
    parser.add_argument("--property", type=Path, metavar="FILE", help="what they are about (.vnnlib, or JSON)")
    parser.add_argument("--sample", type=int, metavar="K", help="check so many of all, drawn at random (seed 0)")
    options = parser.parse_args(arguments)
    try:
        network = read_network(options.network.read_bytes())
        asked = None if options.property is None else options.property.read_bytes()
        jobs: list[tuple[str, Path, dict[str, Any] | None]] = []
        for place in options.places:
            before = len(jobs)
            jobs += run_files(place) if place.is_dir() else [(place.name, place, None)]
            if len(jobs) == before:
                raise Refused(f"{place}: its records name no certificate")
    except Undecided as error:
        print(f"{options.network}: not decided: {error}")
        return 3
    except (Refused, *MALFORMED) as error:
        print(f"cannot be read: {error}", file=sys.stderr)
        return 2
    if options.sample is not None and options.sample < len(jobs):
        jobs = sorted(random.Random(0).sample(jobs, max(options.sample, 0)), key=lambda job: job[1].name)
    status, held = 0, 0
    for name, path, record in jobs:
        try:
            if path.is_symlink() or path.stat().st_size > MOST_BYTES:
                raise Refused(f"it is a link, or has more than {MOST_BYTES:,} bytes")
            content = path.read_bytes()
            if record is not None:
                _check_record(content, record)
            claim, leaves = check_certificate(content, network, asked)
            held += 1
            print(f"{name}: holds: {claim} ({leaves} leaves)")
        except Undecided as error:
            status = status or 3
            print(f"{name}: not decided: {error}")
        except (Refused, *MALFORMED) as error:
            status = 1
            print(f"{name}: DOES NOT HOLD: {error}")
    print(f"{held} of {len(jobs)} hold")
    return status


if __name__ == "__main__":
    sys.exit(main())
