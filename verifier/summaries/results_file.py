"""results.json against the records: every number that a reader would quote is computed again.

Not computed again: seconds of the whole run, paths, warnings, the name of the model (its digest is), how data and
outputs were read (their digests are compared), the reasons of methods that were left out, the share of draws, votes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from verifier.fields import shown
from verifier.runs.attack_record import AttackRecord
from verifier.runs.certify_record import CertifyRecord
from verifier.runs.compare_record import CompareRecord
from verifier.runs.records import SCHEMA, Configuration, InputRecord, Record
from verifier.runs.robustness_record import RobustnessRecord
from verifier.runs.verify_record import VerifyRecord
from verifier.subject import about
from verifier.summaries.attack import attacked
from verifier.summaries.certify import certified
from verifier.summaries.compare import all_violations, compared
from verifier.summaries.robustness import measured
from verifier.summaries.spending import totals
from verifier.summaries.verify import verified

# What results.json holds.
Object = Mapping[str, Any]

# Means and quantiles of the same records may differ by rounding between versions of numpy and scipy.
RELATIVE, ABSOLUTE = 1e-9, 1e-15
# Boxes that a run of `verify` is believed to ask about, whatever its records are: most may need none.
LARGEST_RANGE = 1 << 20
# Fields that summaries of earlier versions lack.
ADDED = ("execution_only", "spent", "about")


class StatementError(ValueError):
    """A summary is malformed, or about inputs or settings that the run does not have."""


def differences(results: Object, records: Mapping[int, Record], configuration: Configuration) -> list[str]:
    """Return in what a summary is not that of the records, in sentences; empty where it is."""
    try:
        command = configuration["command"]
        counted = _records_about(results, records, command == "verify")
        common = {"schema": SCHEMA, "command": command, "digest": configuration["model"], "about": about(configuration)}
        expected = {**common, **EXPECTED[command](results, counted, configuration)}
    except StatementError as error:
        return [str(error)]
    return list(_differences(results, expected))


def _records_about(results: Object, records: Mapping[int, Record], may_lack: bool) -> list[Record]:
    """Return the records of the inputs that a summary is about, in order; may_lack: some may have none."""
    inputs, offset = results.get("inputs"), results.get("offset", min(records, default=0))
    most = max(LARGEST_RANGE, len(records)) if may_lack else len(records)
    if type(inputs) is not int or type(offset) is not int or not 1 <= inputs <= most or offset < 0:
        raise StatementError(
            f"it is about {shown(inputs)} inputs from {shown(offset)}, the run has {len(records)} records"
        )
    missing = [index for index in range(offset, offset + inputs) if index not in records]
    if missing and not may_lack:
        raise StatementError(f"it counts input {missing[0]}, which has no valid record")
    return [records[index] for index in range(offset, offset + inputs) if index in records]


def _correct(records: Sequence[InputRecord]) -> dict[str, int]:
    return {"correct": sum(record.correct for record in records)}


def _certify(results: Object, records: Sequence[CertifyRecord], configuration: Configuration) -> dict[str, Any]:
    rows = _objects(results.get("results"), "results")
    radii = [_radius(row.get("epsilon"), f"results[{place}].epsilon") for place, row in enumerate(rows)]
    if sorted(set(radii)) != radii:
        raise StatementError("its rows are not in rising order of epsilon")
    asked = {name: configuration[name] for name in ("delta", "draws_within", "arithmetic") if name in configuration}
    spent = [dataclasses.asdict(total) for total in totals(record.spent for record in records)]
    rows_again = [dataclasses.asdict(row) for row in certified(records, radii)]
    return {**_correct(records), **asked, "results": rows_again, "spent": spent}


def _attack(results: Object, records: Sequence[AttackRecord], configuration: Configuration) -> dict[str, Any]:
    counts = attacked(records)
    settings = {name: configuration[name] for name in ("attack", "norm", "epsilon", "target")}
    return {**settings, **dataclasses.asdict(counts), "robust_accuracy": counts.robust / len(records)}


def _robustness(results: Object, records: Sequence[RobustnessRecord], configuration: Configuration) -> dict[str, Any]:
    epsilon = _radius(results.get("epsilon"), "epsilon")
    if any(record.tried < epsilon for record in records):
        raise StatementError(f"it is about the radius {epsilon!r}, at which not every input was tried")
    ranges = measured(records, epsilon, configuration["estimators"])
    estimators = results.get("estimators")
    if not isinstance(estimators, dict) or set(estimators) != set(ranges.estimators):
        raise StatementError(f"its estimators are not those of the run, {', '.join(ranges.estimators)}")
    return {**_correct(records), **dataclasses.asdict(ranges)}


def _compare(results: Object, records: Sequence[CompareRecord], configuration: Configuration) -> dict[str, Any]:
    rows = _objects(results.get("rows"), "rows")
    directions: dict[str, str] = {}
    for place, row in enumerate(rows):
        name, direction = row.get("method"), row.get("direction")
        if not isinstance(name, str) or name in directions or direction not in ("proves", "finds", "both"):
            raise StatementError(f"rows[{place}] is of method {shown(name)}, which {shown(direction)}")
        if any(name not in record.methods for record in records):
            raise StatementError(f"it has a row of method {name!r}, of which not every record speaks")
        directions[name] = direction
    _check_directions(records, directions)
    table = [dataclasses.asdict(row) for row in compared(records, configuration["epsilon"], directions)]
    found = [list(violation) for violation in all_violations(records, list(directions))]
    settings = {name: configuration[name] for name in ("epsilon", "norm")}
    return {**_correct(records), **settings, "rows": table, "violations": found}


def _verify(_: Object, records: Sequence[VerifyRecord], __: Configuration) -> dict[str, Any]:
    summaries = verified(records)
    boxes = sum(summary.boxes for summary in summaries)
    return {"inputs": boxes, "properties": [summary.to_json() for summary in summaries]}


def _check_directions(records: Sequence[CompareRecord], directions: Mapping[str, str]) -> None:
    """Raise StatementError where a method that only finds has proved something, or the other way round."""
    for record in records:
        for name, direction in directions.items():
            bracket = record.methods[name].answer.bracket
            proved, broken = max(bracket.lower, bracket.trusted) >= 0, math.isfinite(bracket.upper)
            if (direction == "finds" and proved) or (direction == "proves" and broken):
                raise StatementError(f"its row of method {name!r} says that it only {direction}")


# By command; a summary is about the records of its own command.
EXPECTED: dict[str, Callable[[Object, Any, Configuration], dict[str, Any]]] = {
    "certify": _certify,
    "attack": _attack,
    "robustness": _robustness,
    "compare": _compare,
    "verify": _verify,
}


def _objects(value: Any, name: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value or not all(isinstance(row, dict) for row in value):
        raise StatementError(f"{name} is {shown(value)}; expected a list of objects")
    return value


def _radius(value: Any, name: str) -> float:
    if type(value) not in (int, float) or not 0 <= value < 1 << 53:
        raise StatementError(f"{name} is {shown(value)}; expected a radius")
    return float(value)


def _differences(stated: Any, expected: Any, where: str = "") -> Iterator[str]:
    """Yield a sentence for each place where what was found is not what is expected; further fields are allowed."""
    if isinstance(expected, Mapping) and isinstance(stated, Mapping):
        for name, value in expected.items():
            if name in stated:
                yield from _differences(stated[name], value, f"{where}.{name}" if where else name)
            elif name not in ADDED:
                yield f"{where + '.' if where else ''}{name} is missing"
    elif isinstance(expected, list | tuple) and isinstance(stated, list) and len(expected) == len(stated):
        for place, (mine, other) in enumerate(zip(stated, expected, strict=True)):
            yield from _differences(mine, other, f"{where}[{place}]")
    elif not _equal(stated, expected):
        yield f"{where} is {shown(stated)}, the records give {shown(expected)}"


def _equal(stated: Any, expected: Any) -> bool:
    numbers = (int, float)
    if type(stated) in numbers and type(expected) in numbers and abs(stated) < 1 << 1000:
        return math.isclose(stated, expected, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    return type(stated) is type(expected) and bool(stated == expected)
