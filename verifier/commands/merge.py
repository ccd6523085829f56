"""Runs of parts of the inputs, merged into one run, as if one process had worked on all of them.

No model and no data are read: what is merged was worked out before, and `check` holds it against both afterwards. The
summary is made again from the records.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from verifier.npz import read_npz_file
from verifier.runs.folder import RunError
from verifier.runs.manifest import write_manifest
from verifier.runs.merging import Parts, read_parts
from verifier.runs.records import SCHEMA
from verifier.summaries.results_file import EXPECTED, StatementError

EXAMPLES = "adversarial.npz"


@dataclasses.dataclass(frozen=True)
class MergeResult:
    """What `merge` returns. run: the folder. command: of the runs. runs, inputs: how many were merged."""

    run: str
    command: str
    model: str
    runs: int
    inputs: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        return {"schema": SCHEMA, "command": "merge", "of": self.command, **_without_command(self)}


def merge(runs: Sequence[str | Path], out: str | Path) -> MergeResult:
    """Return what was merged: finished runs of one question about parts of its inputs, made one run.

    runs: their folders. out: a folder that is not there yet, or is empty; it appears whole, or not at all.

    The merged run is one that the command of its parts goes on with, and that `check` checks. Raises RunError (a
    ValueError) where runs are of different questions, not finished or damaged, where inputs are in none of them, and
    where two of them disagree.
    """
    started, target = time.perf_counter(), Path(out)
    if not runs:
        raise ValueError("name the runs to merge")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise RunError(f"{target} is there already, and not empty; name another folder with --out")
    parts = read_parts([Path(run) for run in runs])
    results = _results(parts, target)
    target.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        parts.write(made)
        _write_examples(parts, made)
        write_manifest(made, parts.manifest())
        for name, values in (("run.json", parts.configuration), ("results.json", results)):
            (made / name).write_text(json.dumps(values, indent=2, allow_nan=False))
        made.chmod(0o755)
        os.replace(made, target)  # noqa: PTH105 replaces an empty folder, too
    except OSError as error:
        raise OSError(f"{target} cannot be written: {error}; the runs are as they were") from None
    finally:
        shutil.rmtree(made, ignore_errors=True)
    configuration = parts.configuration
    return MergeResult(
        str(target), configuration["command"], str(results.get("model", "")), len(parts.parts), len(parts.whole),
        time.perf_counter() - started,
    )  # fmt: skip


def _without_command(result: MergeResult) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(result).items() if name != "command"}


def _results(parts: Parts, target: Path) -> dict[str, Any]:
    """Return the summary of all records, as the command makes it."""
    first, configuration = parts.parts[0].results, parts.configuration
    for part in parts.parts[1:]:
        if _asked(part.results) != _asked(first):
            raise RunError(
                f"{part.folder} and {parts.parts[0].folder} ask about different radii or methods; give the command of "
                "one again with those of the other"
            )
    held = [parts.records[index] for index in parts.whole if index in parts.records]
    try:
        again = EXPECTED[configuration["command"]](first, held, configuration)
    except StatementError as error:
        raise RunError(f"{parts.parts[0].folder}: results.json cannot be used: {error}") from None
    warnings = dict.fromkeys(str(warning) for part in parts.parts for warning in part.results.get("warnings", ()))
    summed = {"seconds": sum(float(part.results.get("seconds", 0.0)) for part in parts.parts)}
    places = {"records": str(target / "records.jsonl")}
    if "adversarial" in first:
        places["adversarial"] = str(target / EXAMPLES)
    results = {
        **first, "inputs": len(parts.whole), **again, **summed, **places, "warnings": list(warnings),
        "offset": parts.whole.start,
    }  # fmt: skip
    if "properties" in again:
        results["properties"] = _with_witnesses(parts, again["properties"])
    plain: dict[str, Any] = json.loads(json.dumps(results, allow_nan=False))
    return plain


def _asked(results: Mapping[str, Any]) -> list[Any]:
    """Return what a summary asks beyond what identifies the run: radii, and methods that are compared."""
    tables = [results[name] for name in ("results", "rows") if isinstance(results.get(name), list)]
    rows = [row for table in tables for row in table if isinstance(row, dict)]
    return [results.get("epsilon"), *((row.get("epsilon"), row.get("method")) for row in rows)]


def _with_witnesses(parts: Parts, properties: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the entries of properties with the numbers of their witnesses, from the runs that found them."""
    stated: dict[tuple[int, int], Any] = {}
    for number, part in enumerate(parts.parts):
        place = part.inputs.start
        for entry in part.results.get("properties", ()):
            stated[number, place] = entry.get("witness")
            place += int(entry["boxes"])
    found, place = [], parts.whole.start
    for entry in properties:
        boxes = range(place, place + int(entry["boxes"]))
        broken = [i for i in boxes if i in parts.records and parts.records[i].claimed_distance is not None]
        witness = stated.get((parts.homes[broken[0]], place)) if broken else None
        if broken and witness is None:
            raise RunError(f"no results.json has the witness of the property of box {place}; give its command again")
        found.append({**entry, "witness": witness})
        place = boxes.stop
    return found


def _write_examples(parts: Parts, folder: Path) -> None:
    """Write the counterexamples of attacks, as they stand beside the runs, into one file."""
    import numpy as np

    found: dict[str, list[Any]] = {}
    for number, part in enumerate(parts.parts):
        path = part.folder / EXAMPLES
        if not path.is_file():
            continue
        arrays = read_npz_file(path)
        mine = np.array([parts.homes.get(int(index)) == number for index in arrays["index"]], dtype=bool)
        for name, values in arrays.items():
            found.setdefault(name, []).append(values[mine])
    if found:
        joined = {name: np.concatenate(values) for name, values in found.items()}
        order = np.argsort(joined["index"], kind="stable")
        with (folder / EXAMPLES).open("wb") as file:
            np.savez(file, allow_pickle=False, **{name: values[order] for name, values in joined.items()})
