"""What a run was asked, with which settings and versions, what stays open, and what it cost, in words and rows."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from verifier.pages.rows import InputRow
from verifier.pages.tables import RunRecords, Table
from verifier.runs.attack_record import AttackRecord
from verifier.runs.compare_record import CompareRecord
from verifier.runs.kept_certificate import KeptCertificate
from verifier.runs.robustness_record import RobustnessRecord
from verifier.summaries.spending import totals

# Settings of an input each are counted, others are shown.
LONG = ("scale", "domain", "fixed")
# Reasons that are named, those of the most inputs first.
MOST_REASONS = 12
# Inputs that a reason names.
NAMED = 6


def question(run: RunRecords) -> str:
    """Return what a run asks, in a sentence."""
    asked = run.configuration
    norm, radii = asked.get("norm", "inf"), ", ".join(f"{epsilon:g}" for epsilon in run.epsilons)
    ball = f"within {radii} ({norm}-norm)"
    if asked["command"] == "verify":
        return "Does each property hold for every input of its boxes?"
    if "delta" in asked:
        return f"Does every output change by less than {asked['delta']:g} {ball} of each input?"
    if asked["command"] == "attack":
        target = "" if asked["target"] is None else f", as class {asked['target']}"
        found = f"find another class {ball} of each input that the model gets right{target}"
        return f"Does the attack {asked['attack']} {found}?"
    if asked["command"] == "certify":
        return f"Does the class of each input that the model gets right stay the same {ball}{_executions(asked)}?"
    if asked["command"] == "compare":
        return f"What does each method alone prove and find {ball} of each input?"
    return f"How often, and how near, does the prediction change {ball} of an input?"


def settings(run: RunRecords) -> Table:
    """Return the settings of a run, names and values."""
    asked = {name: value for name, value in run.configuration.items() if name not in ("schema", "model", "origin")}
    rows = [(name, f"of {len(value)} inputs" if name in LONG else _value(value)) for name, value in asked.items()]
    origin = run.configuration.get("origin", {})
    rows += [
        (f"found at: {name}", _value(value))
        for name, value in origin.items()
        if value not in (None, [], {}) and name != "joint"
    ]
    return Table(("setting", "value"), tuple(rows))


def versions(run: RunRecords) -> list[str]:
    """Return the versions under which records were made, each combination once."""
    found = Counter(", ".join(f"{k} {v}" for k, v in record.head.versions.items()) for record in run.records)
    return list(found) if len(found) < 2 else [f"{text} ({count} records)" for text, count in found.most_common()]


def open_inputs(rows: Sequence[InputRow], epsilon: float) -> Table:
    """Return why inputs are open at a radius, with how many and the first of them."""
    held: dict[str, list[int]] = {}
    for row in rows:
        if row.at(epsilon) == "open":
            held.setdefault(row.reason or _silent(row, epsilon), []).append(row.index)
    ordered = sorted(held.items(), key=lambda pair: -len(pair[1]))
    shown = [(reason, len(indices), _named(indices)) for reason, indices in ordered[:MOST_REASONS]]
    rest = [index for _, indices in ordered[MOST_REASONS:] for index in indices]
    if rest:
        shown.append((f"{len(ordered) - MOST_REASONS} other reasons", len(rest), _named(sorted(rest))))
    return Table(("why", "inputs", "which"), tuple(shown))


def spent(run: RunRecords) -> Table:
    """Return the seconds of the methods of a run, and what came of them."""
    records = run.records
    stages = totals(getattr(record, "spent", ()) for record in records)
    rows: list[tuple[Any, ...]] = [(s.stage, s.inputs, s.seconds, s.proved, s.found) for s in stages]
    by_method: dict[str, list[float]] = {}
    for record in records:
        if isinstance(record, CompareRecord):
            for name, answer in record.methods.items():
                by_method.setdefault(name, []).append(answer.seconds)
        if isinstance(record, RobustnessRecord):
            for name, estimate in record.estimators.items():
                by_method.setdefault(name, []).append(estimate.seconds)
    rows += [(name, len(seconds), sum(seconds), None, None) for name, seconds in by_method.items()]
    if isinstance(next(iter(records), None), AttackRecord):
        rows.append((str(run.configuration["attack"]), len(records), sum(r.head.seconds for r in records), None, None))
    rows.append(("all, with evaluation and files", len(records), sum(r.head.seconds for r in records), None, None))
    return Table(("method", "inputs", "seconds", "proved", "found"), tuple(rows))


def certificates(run: RunRecords, folder: str) -> tuple[list[str], str]:
    """Return what certificates there are, in sentences, and the command that checks the run."""
    kept = [record for record in run.records if isinstance(record, KeptCertificate)]
    files = [record.certificate for record in kept if record.certificate is not None]
    said = []
    if files:
        size, leaves = sum(file.bytes or 0 for file in files), sum(file.leaves or 0 for file in files)
        said.append(f"{len(files)} proofs have a certificate: {leaves:,} leaves in {size:,} bytes.")
    without = Counter(r.no_certificate for r in kept if r.no_certificate and r.certificate is None)
    said += [f"{count} proofs have none: {reason}." for reason, count in without.most_common(MOST_REASONS)]
    if not said:
        said.append("The run keeps no certificates (certify and verify do, with --certificates).")
    return said, f"verifier check {shlex.quote(folder)}"


def strengths(run: RunRecords) -> list[tuple[str, int]]:
    """Return how many lower ends are of which strength."""
    answers = [record.answer for record in run.records if hasattr(record, "answer")]
    counts = Counter(str(answer.bracket.strength) for answer in answers if answer.bracket.lower >= 0)
    return counts.most_common()


def _executions(asked: Mapping[str, Any]) -> str:
    return f", in every execution in {asked['arithmetic']}" if "arithmetic" in asked else ""


def _silent(row: InputRow, epsilon: float) -> str:
    """Return why an input is open of which the run says nothing."""
    if row.trusted >= epsilon:
        return "a solver alone vouches for it"
    return "no reason is kept" if row.lower >= 0 else "no counterexample was found, and nothing was proved"


def _named(indices: Sequence[int]) -> str:
    return ", ".join(map(str, indices[:NAMED])) + (", ..." if len(indices) > NAMED else "")


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_value(part)}" for name, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(_value, value)) if len(value) < 20 else f"{len(value)} values"
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.6g}"
    return "none" if value is None else str(value)
