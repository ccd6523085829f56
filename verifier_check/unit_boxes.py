"""Boxes of units in trees of signs: by lines, by planes, by trees of units, and under signs."""

from __future__ import annotations

from collections.abc import Sequence

from verifier_check.bounds import Program
from verifier_check.boxes import Boxes, only_just
from verifier_check.file import Certificate, check_places, whole_numbers
from verifier_check.integers import fixed
from verifier_check.ops import Hinge
from verifier_check.planes import PlanePoints, Planes
from verifier_check.refusals import Refused
from verifier_check.sign_leaves import STEPS, LeafNumbers, by_node, leaf_bound
from verifier_check.trees import LEAF, leaf_signs


def prove_boxes(program: Program, certificate: Certificate) -> None:
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
            check_places(own, len(low), f"boxes of {name!r:.60}")
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
    check_places(units, program.units, f"columns of planes of {name!r:.60}")
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
    check_places(units, program.units, f"columns of trees of {name!r:.60}")
    low, high = (end[:] for end in program.boxes.ends[name])
    if (
        len(ends) != len(places)
        or any(end not in (-1, 1) for end in ends)
        or any(not 0 <= i < len(low) for i in places)
    ):
        raise Refused(f"trees of {name!r:.60}: an end is neither -1 nor 1, or a unit does not exist")
    sets, first, start = LeafNumbers(arrays, len(units), program.bits), 0, 0
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
            bound = leaf_bound(
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
        unit: min(max(fixed(float(value), bits) // STEPS, 0), 1 << bits)
        for unit, value in zip(units, row, strict=True)
        if value
    }


def subtree_boxes(program: Program, certificate: Certificate, units: list[int]) -> list[Boxes]:
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
        check_places(places, count, f"subtree {number}")
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
                by_node(program, {u: fixed(float(m), program.bits) for u, m in zip(units, row, strict=True) if m})
                for row in (flat[1][k * count : (k + 1) * count] for k in both)
            ]
            program.tighten(step.source, [units[places[k]] - step.first for k in at], boxes, lines, extra)
        made.append(boxes)
    if any(each.taken != len(each.values) for each in arrays):
        raise Refused("it holds more numbers than its subtrees take")
    return made
