"""Adversarial examples of training inputs from runs that exist, for fine-tuning (Bastani et al. 2016, section 5).

A run is untrusted: model and data must have its digests, and each witness is replayed against what its record says, in
the run's model and in real arithmetic, before it is trained on. Every witness belongs to an input of the data, so that
further rounds start from the original inputs too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from verifier.certificates.counterexample import ClaimError
from verifier.certificates.error import CertificateError
from verifier.commands.claims import MALFORMED, Claims, place_of
from verifier.commands.loaded_claims import load_claims
from verifier.data import Dataset
from verifier.runs.folder import StoredRun, read_run
from verifier.runs.records import InputRecord
from verifier.subject import load_subject

COMMANDS = ("certify", "attack", "robustness")
# In levels: how far a float32 value k / levels lies from k at most, and more than any input off the grid may.
SLACK = 1e-3


@dataclass(frozen=True)
class Taken:
    """What a run gave. model: its digest. far: left out as farther than asked for; unrounded: as on no grid point.

    examples: how many are left.
    """

    run: str
    model: str
    examples: int
    far: int = 0
    unrounded: int = 0


@dataclass(frozen=True, eq=False)
class Examples:
    """Points `(n, *input_shape)` of the dataset's shape, and the positions `(n,)` of the inputs that they belong to."""

    rows: np.ndarray
    points: np.ndarray
    taken: tuple[Taken, ...]


def read_examples(
    runs: Sequence[str | Path],
    start: str | Path,
    dataset: Dataset,
    levels: int | None = None,
    within: float | None = None,
) -> Examples:
    """Return the witnesses of runs of certify, attack or robustness about a dataset.

    start: the network to train on; one of the runs must be about it. levels: witnesses are rounded to the grid
    k / levels (255: whole pixels), and left out where no rounding is unsafe. within: farther ones are left out,
    distances being those of their run.

    Raises ValueError for a run of another command, of other data, or without witnesses, and for a witness that does not
    hold.
    """
    digest = load_subject(start, device="cpu").digest
    places = [Path(run) for run in runs]
    if len({place.resolve() for place in places}) < len(places):
        raise ValueError("--examples names a run twice")
    stored = {place: _readable(place) for place in places}
    if all(run.configuration["model"] != digest for run in stored.values()):
        raise ValueError(
            f"--examples: no run is about the network that --start names, {start}, whose digest is {digest}; "
            "search for its counterexamples first"
        )
    found, taken = dict[tuple[int, int], np.ndarray](), []
    for number, (place, run) in enumerate(stored.items()):
        claims = _loaded(place, run, Path(start) if run.configuration["model"] == digest else None, dataset)
        reader = _Reader(place, run, claims, levels, math.inf if within is None else within)
        found |= {(number, row): point.reshape(dataset.input_shape) for row, point in reader.points()}
        taken.append(reader.taken())
    if not found:
        raise ValueError(f"--examples: nothing is left of the witnesses of {', '.join(map(str, places))}")
    rows = np.array([row for _, row in found], dtype=np.int64)
    return Examples(rows, np.stack(list(found.values())), tuple(taken))


def _readable(place: Path) -> StoredRun:
    """Return a run that can give examples; ValueError for any other."""
    run = read_run(place)
    command = run.configuration["command"]
    if command not in COMMANDS or "delta" in run.configuration:
        what = f"{command} --delta" if command in COMMANDS else command
        raise ValueError(f"{place} is a run of {what}; examples are taken from runs of {', '.join(COMMANDS)}")
    if not run.witnesses:
        raise ValueError(f"{place} holds no witnesses, so there is nothing to train on; attack harder or farther")
    return run


def _loaded(place: Path, run: StoredRun, model: Path | None, dataset: Dataset) -> Claims:
    origin = run.configuration.get("origin", {})
    try:
        claims = load_claims(place, run.configuration, model or place_of("model", None, origin), dataset, dataset.name)
    except ValueError as error:
        raise ValueError(
            f"{place}: {error}. Examples are of the inputs to train on: of named data give the run --split train"
        ) from None
    if not np.array_equal(claims.dataset.inputs.reshape(dataset.inputs.shape), dataset.inputs):
        raise ValueError(f"{place}: its layout permutes the axes of the data, which train does not")
    return claims


@dataclass(eq=False)
class _Reader:
    """Reads one run. far, unrounded, used: counted on the way."""

    place: Path
    run: StoredRun
    claims: Claims
    levels: int | None
    within: float
    far: int = 0
    unrounded: int = 0
    used: int = 0

    def points(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (position, point) of each witness that is taken; ValueError for one that does not hold."""
        for row, (point, distance) in sorted(self.run.witnesses.items()):
            record: Any = self.run.lines.records.get(row)
            # A run that was stopped may be ahead of its records.
            if record is None and row not in self.run.lines.lines and self.run.results is None:
                continue
            try:
                if record is not None:
                    self.claims.check_record(row, record)
                self.claims.check_witness(row, record, point, distance)
            except (CertificateError, ClaimError, *MALFORMED) as error:
                raise ValueError(
                    f"{self.place}: the witness of input {row} does not hold: {error}; `verifier check {self.place}` "
                    "lists all that does not"
                ) from None
            if distance > self.within:
                self.far += 1
                continue
            taken = point if self.levels is None else self._rounded(row, record, point, self.levels)
            if taken is None:
                self.unrounded += 1
                continue
            self.used += 1
            yield row, taken

    def taken(self) -> Taken:
        """Return what was counted."""
        return Taken(str(self.place), self.run.configuration["model"], self.used, self.far, self.unrounded)

    def _rounded(self, row: int, record: InputRecord, point: np.ndarray, levels: int) -> np.ndarray | None:
        """Return the first rounding of a witness that is unsafe, and not farther than asked for; None without one."""
        centre = self.claims.dataset.inputs[row].astype(np.float64) * levels
        off = float(np.abs(centre - np.round(centre)).max())
        if off > SLACK:
            raise ValueError(
                f"{self.claims.dataset.name}: input {row} lies {off:.3g} of a level off the grid of {levels}, so that "
                "it is no image of whole pixels; leave --levels away or give those of the data"
            )
        for candidate in roundings(point, self.claims.dataset.inputs[row], levels):
            try:
                self.claims.check_unsafe(row, record, candidate, self.within)
            except ClaimError:
                continue
            return candidate
        return None


def roundings(point: np.ndarray, centre: np.ndarray, levels: int) -> Iterator[np.ndarray]:
    """Yield a point rounded to the grid k / levels: to the nearest, then away from the centre.

    The latter moves every coordinate farther the way it went, by less than a level; where a linear program gave the
    point, `verifier robustness --levels` rounds with the margin of the input.
    """
    exact, middle = point.astype(np.float64) * levels, centre.astype(np.float64) * levels
    away = np.where(exact >= middle, np.ceil(exact - SLACK), np.floor(exact + SLACK))
    for whole in (np.round(exact), away):
        yield (whole / levels).astype(point.dtype)
