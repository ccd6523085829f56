"""Trees of signs, and the boxes of units that they need, in integers, for `verifier_check`; the standard library alone.

It follows docs/certificate-format.md, from which alone it was made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from verifier_check_bounds import Boxes, Cuts, Program, class_count, only_just
from verifier_check_file import Array, Certificate
from verifier_check_network import Hinge, Network, Refused, whole, without_max_pools
from verifier_check_planes import PlanePoints, Planes

LEAF, STEPS = -1, 255
# Ops of trees of inputs alone.
OTHERS = ("sigmoid", "tanh", "mwd", "mwd-conv2d")


def check_signs(certificate: Certificate, network: Network, bits: int, opens: bool = False) -> int:
    """Return how many leaves a tree of signs has, all of which hold; Refused says which does not.

    opens: as of `Program`.
    """
    classes = class_count(network, certificate.winner)
    other = next((node for node in network.nodes if node.kind in OTHERS), None)
    if other is not None:
        raise Refused(f"node {other.name!r} ({other.kind}): trees of signs are of affine ops, hinges and max pools")
    arrays, header = certificate.arrays, certificate.header
    for name, entry in arrays.items():
        entry.taken = 0
        if name in ("splits", "sets", "subtrees.signs", "subtrees.units", "subtrees.leaves", "boxes.places"):
            whole_numbers(entry, name)
    trees = [(rival, leaves, sets) for rival, leaves, sets in header["trees"]]
    rivals = [rival for rival, _, _ in trees]
    if any(type(rival) is not int for rival in rivals) or sorted(rivals) != [
        k for k in range(classes) if k != certificate.winner
    ]:
        raise Refused(f"it holds trees against {rivals!r:.60}, not against each class but {certificate.winner}")
    plain = without_max_pools(network)
    program = Program(plain, *certificate.ball(network.input_shape, bits), bits, opens)
    _prove_boxes(program, certificate)
    units = whole_numbers(arrays["open_units"], "open units")
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
        halves = zip(planes.values[: units * self.short], planes.values[units * self.short :], strict=True)
        if any(high & 127 == 127 and low & 128 for high, low in halves):
            raise Refused("a multiplier is no finite number")
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
                # 2^-133 is the unit of a bfloat16 without its exponent.
                value = math.ldexp((digits + 128 if exponent else digits) * (-1) ** sign, max(exponent, 1) - 134)
            if value:
                multipliers[unit] = _fixed(float(value), self.bits) * signs.get(unit, 1)
        return slopes, multipliers


def _fixed(value: float, bits: int) -> int:
    (top,), scale = whole([value])
    return (top << bits) >> scale


def whole_numbers(values: Array, what: str) -> list[int]:
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
        ends = enumerate(zip(low, high, strict=True))
        is_open = [i for i, (a, b) in ends if a < 0 < b or (program.opens and only_just(a, b))]
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
        whole_numbers(certificate.arrays[prefix + key], f"{key} of planes") for key in ("places", "ends", "columns")
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
        whole_numbers(arrays[key], f"{key} of trees") for key in ("places", "ends", "columns", "splits")
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
