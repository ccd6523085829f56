"""Checks certificates in exact arithmetic: the standard library alone, nothing of the packages that make them.

    python verifier_check.py NETWORK.safetensors CERTIFICATE_OR_RUN ... [--property FILE] [--sample K]

It was made from docs/certificate-format.md alone; with the other verifier_check_*.py it may be copied anywhere. Exit
status: 0 all hold, 1 one does not, 3 one is not decided, as it needs what is not supported; 2 the arguments are wrong,
or a run names no certificate.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import re
import sys
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from verifier_check_bounds import Ball, Group, Part, Program, Search, class_count, class_groups, read_property
from verifier_check_distances import Chain
from verifier_check_file import MOST_BYTES, Certificate
from verifier_check_network import INPUT, MALFORMED, Network, Refused, Undecided, read_network, scores, whole
from verifier_check_signs import check_signs, whole_numbers

# How a certificate is evaluated, in turn until it holds: in which units, and whether hinges whose box only just has one
# sign count as open, as they may have been where boxes were rounded outward.
ATTEMPTS = ((128, False), (512, False), (512, True))
LEAF = -1


# -------------------------------------------------------------------------------------------------- trees of inputs


def check_inputs(certificate: Certificate, network: Network, bits: int, groups: list[Group]) -> int:
    """Return how many leaves a tree over inputs and units has, in all of which every group is refuted."""
    sides, values, marks = (certificate.arrays[f"inputs.{name}"] for name in ("sides", "values", "tightened"))
    if values.kind != "<f8" or marks.kind != "|b1" or len({sides.shape, values.shape, marks.shape}) > 1:
        raise Refused("a tree has a side, a value of float64 and a mark for each node")
    tree = whole_numbers(sides, "sides")
    second = _second_halves(tree)
    program = Program(network, *certificate.ball(network.input_shape, bits), bits)
    if certificate.norm != "inf":
        numbers = [whole([value]) for value in (*certificate.centre, certificate.radius)]
        low, high = (
            [(v[0] << bits) >> scale for v, scale in numbers],
            [-((-v[0] << bits) >> scale) for v, scale in numbers],
        )
        program.ball = Ball(certificate.norm, low[:-1], high[:-1], high[-1])
    search = Search(program, groups)
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
    what = f"class {certificate.winner} wins" if asked is None else "the property holds"
    where = ", in its domain" if certificate.domain is not None else ""
    around = "in every input" if certificate.norm == "inf" else f"in the {certificate.norm}-norm"
    return f"{what} within {certificate.radius!r} of the centre {around}{where}", leaves


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
    if box is not None and certificate.norm != "inf":
        raise Refused(f"it is about a ball of the {certificate.norm}-norm, the property about a box")
    limits = certificate.limits
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


def run_files(run: Path) -> Iterator[tuple[str, Path, tuple[dict[str, Any], dict[str, Any]]]]:
    """Yield what the records of a run say of certificates: (name, file, (record, settings)), the last of each input."""
    settings = json.loads((run / "run.json").read_text("utf-8"))
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
            yield f"input {index}", run / folder / file, (record, settings)


def _check_record(content: bytes, record: dict[str, Any], settings: dict[str, Any]) -> None:
    """Refuse a certificate that is not the one of its record: another file, input, class or radius, or too small a one.

    settings: of the run.
    """
    named, found = record["certificate"], Certificate(content)
    if hashlib.sha256(content).hexdigest() != named["sha256"] or found.index != record["index"]:
        raise Refused("it is not the file that the record names")
    if "label" in record and found.winner != record["label"]:
        raise Refused(f"it is about class {found.winner}, the label is {record['label']}")
    if named.get("radius") != found.radius:
        raise Refused(f"it is about radius {found.radius!r}, the record says {named.get('radius')!r}")
    if found.norm != "inf" and found.norm != settings.get("norm"):
        raise Refused(f"it is about the {found.norm}-norm, the run about {settings.get('norm')!r:.40}")
    if "lower" in record:
        _check_covers(found, record["lower"], settings)


def _check_covers(found: Certificate, lower: Any, settings: dict[str, Any]) -> None:
    """Refuse a certificate that does not cover the ball of a radius, null for the whole domain, in a run's settings."""
    count, clip = len(found.centre), settings.get("clip") or [-math.inf, math.inf]
    scale, fixed = settings.get("scale") or [1.0] * count, set(settings.get("fixed", ()))
    least, greatest = settings.get("domain") or ([-math.inf] * count, [math.inf] * count)
    if lower is not None and not (type(lower) in (int, float) and 0 <= lower < math.inf):
        raise Refused(f"the record claims radius {lower!r:.40}")
    if found.norm != "inf" and (lower is None or lower > found.radius or settings.get("scale")):
        raise Refused(f"it is about radius {found.radius!r} of the {found.norm}-norm, the record claims {lower!r}")
    for i, (c, by, *ends) in enumerate(zip(found.centre, scale, least, greatest, *found.limits, strict=True)):
        ends = [max(ends[0], clip[0]), min(ends[1], clip[1]), *ends[2:]] if i not in fixed else [c, c, *ends[2:]]
        # What is claimed of this input, to the left and to the right of its centre, and what is proved.
        for side, end, limit in ((-1, ends[0], ends[2]), (1, ends[1], ends[3])):
            reaches = [] if math.isinf(end) else [side * (Fraction(end) - Fraction(c))]
            reaches += [] if lower is None else [Fraction(lower) * Fraction(by)]
            proved = [Fraction(found.radius)] + ([] if math.isinf(limit) else [side * (Fraction(limit) - Fraction(c))])
            if not reaches or min(reaches) > min(proved):
                raise Refused(f"it does not cover, in input {i}, the radius {lower!r} that the record claims")


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
        jobs: list[tuple[str, Path, tuple[dict[str, Any], dict[str, Any]] | None]] = []
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
                _check_record(content, *record)
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
