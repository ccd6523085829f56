"""What a page says about one run, as values that a template lays out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from encoders.network import Network
from verifier.pages.drawing import Curve, Mark, accuracy_chart, brackets_chart, legend
from verifier.pages.graph import graph_of
from verifier.pages.origin import inputs_of, network_of
from verifier.pages.pictures import Pictures, pictures
from verifier.pages.rows import InputRow, rows_of
from verifier.pages.tables import RunRecords, Table, per_class, records_in_order, summary
from verifier.runs.folder import RunError, StoredRun, read_run
from verifier.subject import about
from verifier.verdict import Outcome

# Counterexamples that are shown.
WORST = 10
# Values of a counterexample that is no image, and classes of a table.
MOST_VALUES, MOST_CLASSES = 40, 100


@dataclass(frozen=True)
class Counterexample:
    """An input with a near counterexample: as pictures, or the values that change most where it is no image."""

    row: InputRow
    pictures: Pictures | None
    words: str


@dataclass(frozen=True, eq=False)
class RunPage:
    """Everything that is shown of a run; what is missing is a sentence that says why."""

    folder: str
    name: str
    model: str
    configuration: Mapping[str, Any]
    run: RunRecords
    rows: Sequence[InputRow]
    network: Network | str
    counts: Table
    worst: Sequence[Counterexample]
    inputs_missing: str
    notes: Sequence[str]

    @property
    def command(self) -> str:
        """The command of the run."""
        return str(self.configuration["command"])

    @property
    def method(self) -> str:
        """What was asked: a method or an attack."""
        return str(self.configuration.get("method") or self.configuration.get("attack") or "several methods")

    @property
    def norm(self) -> str:
        """The norm of the radii."""
        return str(self.configuration.get("norm", "inf"))

    @property
    def epsilon(self) -> float:
        """The largest radius that was asked about."""
        return max(self.run.epsilons, default=0.0)

    @property
    def limit(self) -> float:
        """The radius at which pictures end: shortly after the largest, beyond which nothing was searched."""
        ends = [end for row in self.rows for end in (row.lower, row.upper) if 0 < end < math.inf]
        return 1.25 * self.epsilon if self.epsilon > 0 else max(ends, default=1.0)

    @property
    def is_about_radii(self) -> bool:
        """Whether curves and brackets say something."""
        return not self.is_about_boxes and bool(self.rows)

    @property
    def is_about_boxes(self) -> bool:
        """Whether a row is a box of a property, of which no radius is asked."""
        return self.command == "verify"

    @property
    def rows_are(self) -> str:
        """What the rows of the run are about."""
        return "boxes" if self.is_about_boxes else "inputs"

    @property
    def place(self) -> str:
        """Where outcomes are told: at the largest radius, of boxes on all of them."""
        return "" if self.is_about_boxes else f" at {self.epsilon:.4g}"

    @property
    def counts_words(self) -> str:
        """What the counts are of."""
        if self.is_about_boxes:
            return f"{len(self.rows)} boxes of the properties; one that holds on all of its boxes is unsat"
        return f"{len(self.rows)} inputs; shares are of all of them, intervals Clopper-Pearson"

    @property
    def row_words(self) -> str:
        """What the row of an input, or of a box, says."""
        if self.is_about_boxes:
            return (
                "A row is a box of a property. Certified: the property holds for all inputs of it (unsat); falsified: "
                "a witness in it was replayed (sat); open: neither was shown. Boxes have neither label nor radius"
            )
        return f"Outcome{self.place}; a dash: not known"

    def curves(self, number: int = 0, named: bool = False) -> list[Curve]:
        """Return certified and attack accuracy; number, named: of several runs in a picture."""
        asked, before = [row for row in self.rows if row.asked], f"{self.name}: " if named else ""
        size, colour = len(self.rows), 2 * number
        # Of what is asked about predictions, right or wrong, shares are no accuracies.
        word = "accuracy" if self.command in ("certify", "attack") else "share"
        proved = Curve(f"{before}certified {word} (lower bound)", [row.lower for row in asked], size, colour, colour)
        broken = [row.upper if row.upper > 0 else -1.0 for row in asked]
        attacked = Curve(f"{before}attack {word} (upper bound)", broken, size, colour + 1, colour + 1)
        return [attacked] if self.command == "attack" else [attacked, proved]

    def marks(self, number: int = 0) -> list[Mark]:
        """Return the points of the radii that were asked about."""
        marks = []
        for epsilon in self.run.epsilons:
            words = [row.at(epsilon) for row in self.rows]
            certified = words.count(Outcome.CERTIFIED) / len(words)
            withstands = certified + words.count(Outcome.OPEN) / len(words)
            said = f"epsilon {epsilon:g}: attack accuracy {withstands:.1%}"
            if self.command == "attack":
                marks.append(Mark(epsilon, withstands, 2 * number + 1, said))
                continue
            said = f"{said}, certified accuracy {certified:.1%}"
            marks += [Mark(epsilon, certified, 2 * number, said), Mark(epsilon, withstands, 2 * number + 1, said)]
        return marks

    def accuracy(self) -> Markup:
        """Return certified and attack accuracy against the radius."""
        curves = self.curves()
        words = "Shares of inputs against the radius: " + "; ".join(mark.words for mark in self.marks())
        return legend(curves) + accuracy_chart(curves, self.marks(), self.limit, self.norm, words)

    def brackets(self) -> Markup:
        """Return the brackets of the inputs that were asked about."""
        ends = [(row.lower, row.upper) for row in self.rows if row.asked]
        return brackets_chart(ends, self.limit, self.norm)

    def graph(self) -> Markup | None:
        """Return the graph of the network, where it can be shown."""
        return None if isinstance(self.network, str) else graph_of(self.network)

    def classes(self) -> Table:
        """Return the table by classes; of very many classes those of the most open or falsified inputs."""
        table = per_class(self.rows, self.epsilon)
        if len(table.rows) <= MOST_CLASSES:
            return table
        kept = sorted(table.rows, key=lambda cells: -(int(cells[4] or 0) + int(cells[5] or 0)))[:MOST_CLASSES]
        return Table(table.columns, tuple(kept))

    def data(self) -> str:
        """Return the rows of inputs as JSON that stands in a script element: no character ends it."""
        methods = sorted({name for row in self.rows for name in (row.proved_by, row.found_by)})
        reasons = sorted({row.reason for row in self.rows if row.reason})
        place = {name: number for number, name in enumerate(methods)}
        said = {reason: number for number, reason in enumerate(reasons)}
        epsilon = self.epsilon
        rows = [
            [
                row.index, row.label, row.prediction, row.at(epsilon), _short(row.lower), _short(row.upper),
                place[row.proved_by], place[row.found_by], -1 if not row.reason else said[row.reason],
            ]
            for row in self.rows
        ]  # fmt: skip
        text = json.dumps({"methods": methods, "reasons": reasons, "rows": rows}, separators=(",", ":"))
        return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def page_of(folder: Path) -> RunPage:
    """Return what a page says of a run folder, which stays as it is. RunError if it holds no run with records."""
    stored = read_run(folder)
    if not stored.lines.records:
        raise RunError(f"{folder} holds no records, so there is nothing to report; the command of the run makes them")
    results = stored.results if isinstance(stored.results, dict) else {}
    run = RunRecords(stored.configuration, records_in_order(stored.lines.records), results)
    rows = rows_of(stored.lines.records)
    origin = stored.configuration.get("origin", {})
    model = results.get("model") or origin.get("model") or f"model {stored.configuration['model'][:12]}"
    worst, missing = _worst(stored, rows)
    return RunPage(
        str(folder), folder.resolve().name, str(model), stored.configuration, run, rows,
        network_of(stored.configuration), summary(run), worst, missing, _notes(stored),
    )  # fmt: skip


def _notes(stored: StoredRun) -> list[str]:
    """Return what a reader must know before the numbers."""
    words = about(stored.configuration)
    notes = [f"{words[0].upper()}{words[1:]}."] if words else []
    if stored.results is None:
        notes.append("The run is not finished: the numbers are those of the inputs done so far.")
    elif isinstance(stored.results, str):
        notes.append(f"results.json cannot be read: {stored.results}. The numbers are those of the records.")
    else:
        notes += [str(warning) for warning in stored.results.get("warnings", ()) if isinstance(warning, str)]
    faults = stored.lines.faults
    if faults:
        first = f"the first is line {faults[0].line}: {faults[0].reason}"
        notes.append(f"{len(faults)} lines of records.jsonl are no records, {first}")
    return notes


def _worst(stored: StoredRun, rows: Sequence[InputRow]) -> tuple[list[Counterexample], str]:
    """Return the inputs with the nearest counterexamples, and why their originals are not shown."""
    broken = sorted((row for row in rows if row.upper < math.inf), key=lambda row: (row.upper, row.index))
    near = [row for row in broken if row.index in stored.witnesses][:WORST]
    if not near:
        return [], ""
    shape = stored.witnesses[near[0].index][0].shape
    is_box = stored.configuration["command"] == "verify"
    inputs = "a box has no original" if is_box else inputs_of(stored.configuration, shape)
    shown = []
    for row in near:
        point = stored.witnesses[row.index][0]
        original = inputs[row.index] if isinstance(inputs, np.ndarray) and row.index < len(inputs) else None
        shown.append(Counterexample(row, pictures(original, point), _changes(original, point)))
    return shown, inputs if isinstance(inputs, str) else ""


def _changes(original: np.ndarray | None, point: np.ndarray) -> str:
    """Return the values of a point that differ most from the original; without one the first."""
    flat = point.astype(np.float64).ravel()
    if original is None or original.shape != point.shape:
        return ", ".join(f"{value:.4g}" for value in flat[:MOST_VALUES]) + (", ..." if flat.size > MOST_VALUES else "")
    before = original.astype(np.float64).ravel()
    order = np.argsort(-np.abs(flat - before), kind="stable")[:8]
    return "; ".join(f"x[{i}]: {before[i]:.4g} to {flat[i]:.4g}" for i in order if flat[i] != before[i])


def _short(end: float) -> float | None:
    return None if end < 0 or math.isinf(end) else float(f"{end:.4g}")
