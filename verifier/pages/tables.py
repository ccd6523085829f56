"""The numbers of a run as named tables, computed again from its records: for the page, and for papers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verifier.fields import is_number
from verifier.metrics import clopper_pearson
from verifier.pages.rows import InputRow
from verifier.runs.records import Record
from verifier.summaries.attack import attacked
from verifier.summaries.certify import certified
from verifier.summaries.compare import compared
from verifier.summaries.robustness import measured
from verifier.summaries.verify import verified

# A text, a number, or None where there is none.
Cell = str | int | float | None


@dataclass(frozen=True)
class Table:
    """Names of columns, and rows of as many cells."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, eq=False)
class RunRecords:
    """The records of a run in order, with its configuration and its summary, which may be missing."""

    configuration: Mapping[str, Any]
    records: Sequence[Any]
    results: Mapping[str, Any]

    @property
    def epsilons(self) -> tuple[float, ...]:
        """The radii that were asked about, rising: of the last command, or else all that were tried."""
        command = self.configuration["command"]
        if command in ("attack", "compare"):
            return (float(self.configuration["epsilon"]),)
        if command == "robustness":
            return (max((record.tried for record in self.records), default=0.0),)
        if command == "verify":
            return (0.0,)
        stated = self.results.get("results")
        rows = stated if isinstance(stated, list) else []
        radii = {row["epsilon"] for row in rows if isinstance(row, dict) and is_number(0.0)(row.get("epsilon"))}
        return tuple(sorted(map(float, radii or {radius for record in self.records for radius in record.tried})))


def summary(run: RunRecords) -> Table:
    """Return the counts of a run, a row for each radius, attack, method, estimator or property."""
    if not run.records:
        return Table((), ())
    return SUMMARIES[run.configuration["command"]](run)


def per_input(rows: Sequence[InputRow]) -> Table:
    """Return one row for each input; None for an end that is not known."""
    names = (
        "index", "label", "prediction", "asked", "lower", "upper", "trusted", "proved_by", "found_by", "reason",
        "seconds",
    )  # fmt: skip
    return Table(
        names,
        tuple(
            (
                row.index, row.label, row.prediction, int(row.asked), None if row.lower < 0 else row.lower,
                None if math.isinf(row.upper) else row.upper, None if row.trusted < 0 else row.trusted,
                row.proved_by, row.found_by, row.reason, row.seconds,
            )
            for row in rows
        ),
    )  # fmt: skip


def per_class(rows: Sequence[InputRow], epsilon: float) -> Table:
    """Return the outcomes at a radius by label, with the interval of the certified share (95 %, Clopper-Pearson)."""
    labels = sorted({row.label for row in rows if row.label is not None})
    cells = []
    for label in labels:
        words = [row.at(epsilon) for row in rows if row.label == label]
        counts = [words.count(word) for word in ("wrong", "certified", "falsified", "open")]
        low, high = clopper_pearson(counts[1], len(words))
        cells.append((label, len(words), *counts, counts[1] / len(words), low, high))
    names = ("class", "inputs", "wrong", "certified", "falsified", "open", "certified_share", "ci95_low", "ci95_high")
    return Table(names, tuple(cells))


def _certify(run: RunRecords) -> Table:
    names = (
        "epsilon", "certified", "falsified", "open", "trusted", "certified_accuracy", "ci95_low", "ci95_high",
        "attack_accuracy", "execution_only",
    )  # fmt: skip
    return Table(
        names,
        tuple(
            (
                row.epsilon, row.certified, row.falsified, row.open, row.trusted, row.certified_accuracy,
                *row.certified_accuracy_ci95, row.attack_accuracy, row.execution_only,
            )
            for row in certified(run.records, run.epsilons)
        ),
    )  # fmt: skip


def _attack(run: RunRecords) -> Table:
    counts, inputs = attacked(run.records), len(run.records)
    low, high = clopper_pearson(counts.robust, inputs)
    cells: dict[str, Cell] = {
        "attack": str(run.configuration["attack"]), "norm": str(run.configuration["norm"]), "epsilon": run.epsilons[0],
        "inputs": inputs, "correct": counts.correct, "robust": counts.robust, "robust_accuracy": counts.robust / inputs,
        "ci95_low": low, "ci95_high": high, "confirmed": counts.confirmed, "mean_distance": counts.mean_distance,
        "median_distance": counts.median_distance, "execution_only": counts.execution_only,
        "timed_out": counts.timed_out, "queries": counts.queries, "gradients": counts.gradients,
    }  # fmt: skip
    return Table(tuple(cells), (tuple(cells.values()),))


def _compare(run: RunRecords) -> Table:
    stated = run.results.get("rows")
    rows = [row for row in stated if isinstance(row, dict)] if isinstance(stated, list) else []
    named = {str(row.get("method")): str(row.get("direction")) for row in rows}
    # A run that goes on may have methods in some records only.
    names = [name for name in run.records[0].methods if all(name in record.methods for record in run.records)]
    found = compared(run.records, run.epsilons[0], {name: named.get(name, "both") for name in names})
    dictionaries = [dataclasses.asdict(row) for row in found]
    return Table(tuple(dictionaries[0]), tuple(tuple(row.values()) for row in dictionaries))


def _robustness(run: RunRecords) -> Table:
    epsilon, names = run.epsilons[0], list(run.configuration["estimators"])
    found = measured(run.records, epsilon, names)
    phi, mu = found.frequency, found.severity
    ends = phi.ci95 or (None, None)
    truth: tuple[Cell, ...] = ("truth", phi.lower, phi.upper, *ends, mu.lower, mu.upper, found.unresolved, None)
    rows = [
        (name, row.frequency, row.frequency, None, None, row.severity, row.severity, row.unresolved, row.median_seconds)
        for name, row in found.estimators.items()
    ]
    columns = (
        "estimator", "frequency_low", "frequency_high", "ci95_low", "ci95_high", "severity_low", "severity_high",
        "unresolved", "median_seconds",
    )  # fmt: skip
    return Table(columns, (truth, *rows))


def _verify(run: RunRecords) -> Table:
    columns = ("property", "verdict", "boxes", "strength", "method", "seconds", "reason")
    rows = [
        (p.property, str(p.verdict), p.boxes, None if p.strength is None else str(p.strength), p.method, p.seconds,
         p.reason)
        for p in verified(run.records)
    ]  # fmt: skip
    return Table(columns, tuple(rows))


# By command.
SUMMARIES: Mapping[str, Callable[[RunRecords], Table]] = {
    "certify": _certify, "attack": _attack, "compare": _compare, "robustness": _robustness, "verify": _verify,
}  # fmt: skip


def records_in_order(records: Mapping[int, Record]) -> list[Record]:
    """Return the records by rising index."""
    return [records[index] for index in sorted(records)]
