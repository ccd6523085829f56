"""The claims of a run, checked again: every certificate is evaluated, every witness replayed.

`check` imports no solver and no code that finds bounds: it needs the model, the data, and `verifier.certificates`. A
certified answer that left no certificate is counted apart, never as checked.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from verifier.certificates.certificate import Certificate, CertificateError
from verifier.certificates.files import read_certificate
from verifier.certificates.replay import ReplayError, check_witness
from verifier.data import Dataset, load_data
from verifier.runs import SCHEMA, StoredRun, read_run
from verifier.subject import NO_CLASS, Subject, load_subject
from verifier.threads import threads_for

# Two outputs this near, relative to the largest, may change places between one batch and another.
NEARLY = 1e-5
# What a record that somebody altered by hand can raise.
MALFORMED = (KeyError, TypeError, ValueError, IndexError, OverflowError, AttributeError)


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """What `check` returns.

    certified: inputs of which the run proves something. checked: those whose certificate holds, with `leaves` in all.
    without: those with none, by the reason. witnesses: how many were replayed. refused: (input, what does not hold).
    """

    run: str
    model: str
    inputs: int
    certified: int
    checked: int
    leaves: int
    without: Mapping[str, int]
    witnesses: int
    refused: tuple[tuple[int, str], ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        found = dataclasses.asdict(self)
        return {"schema": SCHEMA, "command": "check", **found, "refused": [list(pair) for pair in self.refused]}


def check(
    run: str | Path,
    *,
    model: str | Path | None = None,
    data: str | Path | None = None,
    data_dir: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CheckResult:
    """Return which claims of a run folder hold.

    model, data, data_dir: where they are now, if not where the run says it found them; their digests must be those of
    the run. Raises ValueError with what is wrong before any work starts.
    """
    started = time.perf_counter()
    stored = read_run(Path(run))
    subject, dataset = _loaded(stored.configuration, model, data, data_dir)
    work = _Work(Path(run), stored.configuration, subject, dataset)
    with threads_for(subject.network.parameter_count):
        return _checked(work, stored, progress, started)


def _checked(
    work: _Work, stored: StoredRun, progress: Callable[[int, int], None] | None, started: float
) -> CheckResult:
    """Return what holds of all records and witnesses."""
    refused: list[tuple[int, str]] = []
    without: dict[str, int] = {}
    certified = checked = leaves = 0
    for number, (index, record) in enumerate(sorted(stored.records.items())):
        try:
            work.check_record(index, record, stored.witnesses.get(index))
            if _proves(record):
                certified += 1
                found = work.check_certificate(index, record)
                checked, leaves = checked + (found is not None), leaves + (0 if found is None else found.leaves)
                if found is None:
                    reason = str(record.get("no_certificate") or "the record names none")
                    without[reason] = without.get(reason, 0) + 1
        except (CertificateError, ReplayError) as error:
            refused.append((index, str(error)))
        except MALFORMED as error:
            refused.append((index, f"its record is malformed: {type(error).__name__} {error}"))
        if progress is not None:
            progress(number + 1, len(stored.records))
    for index, (point, distance) in sorted(stored.witnesses.items()):
        try:
            work.check_witness(index, stored.records.get(index), point, distance)
        except ReplayError as error:
            refused.append((index, f"witness: {error}"))
        except MALFORMED as error:
            refused.append((index, f"witness: malformed: {type(error).__name__} {error}"))
    return CheckResult(
        str(work.run), work.subject.name, len(stored.records), certified, checked, leaves, without,
        len(stored.witnesses), tuple(sorted(refused)), time.perf_counter() - started,
    )  # fmt: skip


def _proves(record: Mapping[str, Any]) -> bool:
    """Return whether a record of `certify` claims that something is safe (null is infinity)."""
    if not record.get("correct") or "lower" not in record:
        return False
    return record["lower"] is None or record["lower"] >= 0


@dataclasses.dataclass(frozen=True, eq=False)
class _Work:
    """The fixed part of a check: all but which record."""

    run: Path
    configuration: Mapping[str, Any]
    subject: Subject
    dataset: Dataset

    def check_record(self, index: int, record: Mapping[str, Any], witness: tuple[np.ndarray, float] | None) -> None:
        """Raise ReplayError where a record contradicts the model, the data, itself, or the witnesses that are there."""
        if not 0 <= index < len(self.dataset):
            raise ReplayError("the data end before it")
        for name in ("model", "data"):
            if record[name] != self.configuration[name]:
                raise ReplayError(f"its record is about another {name} than the run")
        label, prediction = int(record["label"]), int(record["prediction"])
        if label != int(self._labels()[index]) or record["correct"] is not (label == prediction):
            raise ReplayError(f"label {label}, prediction {prediction}, correct {record['correct']} do not go together")
        if not self._predicts(index, prediction):
            raise ReplayError(f"the model does not give it class {prediction}, which the record claims")
        lower, upper = (math.inf if record.get(name) is None else float(record[name]) for name in ("lower", "upper"))
        if "lower" in record and not (lower < upper or lower == upper == math.inf):
            raise ReplayError(f"the record claims that {lower!r} is safe and {upper!r} is not")
        claimed = record.get("upper") if "upper" in record else record.get("distance")
        if claimed is not None and (witness is None or not witness[1] <= claimed):
            raise ReplayError(f"there is no witness within {claimed!r}, which the record claims")

    def _predicts(self, index: int, prediction: int) -> bool:
        """Return whether the model gives the input a class, up to what executing it in a batch may round otherwise."""
        outputs = self.subject.execute(self._centre(index)[None].astype(self._dtype))[0].astype(np.float64)
        if not np.isfinite(outputs).all():
            return prediction == NO_CLASS
        if not 0 <= prediction < len(outputs):
            return False
        return bool(outputs[prediction] >= outputs.max() - NEARLY * (1.0 + np.abs(outputs).max()))

    def check_certificate(self, index: int, record: Mapping[str, Any]) -> Certificate | None:
        """Return the certificate of a record once it holds, None if there is none; CertificateError otherwise."""
        named = record.get("certificate")
        if named is None:
            return None
        try:
            path, sha = self.run / str(named["file"]), str(named["sha256"])
        except (KeyError, TypeError):
            raise CertificateError(f"its record names no file: {named!r}") from None
        found = read_certificate(path, sha, index)
        centre = self._centre(index)
        if found.centre.shape != centre.shape or not np.array_equal(found.centre, centre):
            raise CertificateError("it is about another input than the data hold at this position")
        if record["label"] != int(self._labels()[index]) or found.winner != record["label"]:
            raise CertificateError(f"it is about class {found.winner}, the label is {int(self._labels()[index])}")
        if self.configuration.get("norm", "inf") != "inf":
            raise CertificateError("it is about the inf-norm, the run is not")
        if found.domain != self.dataset.clip:
            raise CertificateError(f"it is about the domain {found.domain}, the data's is {self.dataset.clip}")
        lower = record["lower"]
        if lower is None and not _covers(centre, found.radius, found.domain):
            raise CertificateError(f"it is about radius {found.radius!r}, the record claims the whole domain")
        if lower is not None and not found.radius >= lower:
            raise CertificateError(f"it is about radius {found.radius!r}, the record claims radius {lower!r}")
        try:
            found.check(self.subject.network)
        except CertificateError:
            raise
        except (ValueError, TypeError, IndexError, AssertionError, OverflowError) as error:
            raise CertificateError(f"it cannot be evaluated: {error}") from None
        return found

    def check_witness(self, index: int, record: Mapping[str, Any] | None, point: np.ndarray, distance: float) -> None:
        """Raise ReplayError if a witness does not show what it says."""
        if record is None:
            raise ReplayError("no record speaks of it")
        if not 0 <= index < len(self.dataset):
            raise ReplayError("the data end before it")
        check_witness(
            self.subject.network, self.subject.runtime, self._centre(index), point, int(record["prediction"]), distance,
            self.dataset.clip, self.configuration.get("norm", "inf"),
        )  # fmt: skip

    def _centre(self, index: int) -> np.ndarray:
        if not 0 <= index < len(self.dataset):
            raise CertificateError("the data end before it")
        points = self.subject.points(self.dataset.inputs[index : index + 1], self.dataset.clip)
        centre: np.ndarray = points[0].numpy().astype(np.float64)
        return centre

    @property
    def _dtype(self) -> Any:
        return torch.zeros(0, dtype=self.subject.network.dtype).numpy().dtype

    def _labels(self) -> Sequence[int]:
        if self.dataset.labels is None:
            raise CertificateError("the data have no labels")
        labels: list[int] = self.dataset.labels.tolist()
        return labels


def _covers(centre: np.ndarray, radius: float, domain: tuple[float, float] | None) -> bool:
    """Return whether a ball holds the whole domain, in real arithmetic."""
    if domain is None:
        return False
    least, greatest = Fraction(float(centre.min())), Fraction(float(centre.max()))
    return least + Fraction(radius) >= Fraction(domain[1]) and greatest - Fraction(radius) <= Fraction(domain[0])


def _loaded(
    configuration: Mapping[str, Any], model: str | Path | None, data: str | Path | None, data_dir: str | Path | None
) -> tuple[Subject, Dataset]:
    """Return the run's model and data; ValueError if they are not found or are others."""
    origin = configuration.get("origin") or {}
    if not isinstance(origin, dict):
        raise ValueError("the run's origin is no object; name its model and data with --model and --data")
    places: dict[str, str | Path] = {}
    for name, given in (("model", model), ("data", data)):
        place = given or origin.get(name)
        if place is None:
            raise ValueError(f"the run does not say where its {name} came from; name it with --{name}")
        places[name] = place
    clip = configuration.get("clip")
    dataset = load_data(
        places["data"], data_dir=data_dir or origin.get("data_dir"), clip=None if clip is None else tuple(clip)
    )
    subject = load_subject(places["model"], device="cpu", mean=origin.get("mean", ()), std=origin.get("std", ()))
    dataset = dataset.fit_to(subject.network.input_shape)
    for name, found in (("model", subject.network.digest), ("data", dataset.digest)):
        if found != configuration.get(name):
            raise ValueError(
                f"{places[name]} is not the {name} of the run: its digest is {found}, "
                f"the run's is {configuration.get(name)}; name the right one with --{name}"
            )
    return subject, dataset
