"""A run taken up again: what its records rest on is looked at first, and worked on again where it is gone.

A record that claims a witness needs one in the run's folder, of the model's shape and dtype, at exactly the distance it
states, within that distance of its input and in the domain, and that the user's model still gives to another class; or
that lies in the box of a property, with outputs that are unsafe. That takes one pass of the model for each witness; the
proof in real arithmetic is left to `check`. A certificate must be there in its full length.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from encoders.region import Norm
from verifier.answers import Answer
from verifier.batch import BATCH_SIZE
from verifier.commands.job import Job
from verifier.runs.attack_record import AttackRecord
from verifier.runs.certify_record import CertifyRecord
from verifier.runs.folder import Run, RunError
from verifier.runs.kept_certificate import KeptCertificate
from verifier.runs.records import Record
from verifier.runs.witness_files import Witnesses

Answered = TypeVar("Answered", CertifyRecord, AttackRecord)

# Inputs that a notice names.
NAMED = 8


def take_up(run: Run | None, job: Job, norm: Norm) -> dict[int, Record]:
    """Return the records of a run, without what is claimed on witnesses and certificates that are gone.

    Those are written down as they are returned before any work starts, and named in the notices of the run.
    """
    if run is None:
        return {}
    try:
        job.check_known(run.records)
    except RunError as error:
        raise RunError(f"{run.records_path}: {error}") from None
    witnesses = run.witnesses()
    lost = _without_witness(run.records, witnesses, job, norm)
    changed = _withdrawn(run, lost)
    held = {index: witness for index, witness in witnesses.items() if index in run.records and index not in lost}
    held = {index: w for index, w in held.items() if run.records[index].claimed_distance is not None}
    if len(held) < len(witnesses):
        # Nobody has looked at a witness that no record claims: its writer was killed before the record.
        run.keep_witnesses(held)
    if changed:
        run.replace(changed)
        named = ", ".join(map(str, sorted(changed)[:NAMED])) + (", ..." if len(changed) > NAMED else "")
        first = next(iter(lost.values()), "its certificate is gone")
        run.notices.append(f"{len(changed)} inputs ({named}) are worked on again: {first}")
    # A copy: what callers put into it lacks what the run adds to a record when it writes it.
    return dict(run.records)


def _withdrawn(run: Run, lost: Mapping[int, str]) -> dict[int, Record | None]:
    """Return what takes the place of records whose witness or certificate is gone; None where nothing does."""
    changed: dict[int, Record | None] = {}
    for index, record in run.records.items():
        standing = record.without_witness() if index in lost else record
        if isinstance(standing, KeptCertificate) and not _has_certificate(standing, run.folder):
            standing = dataclasses.replace(standing, certificate=None)
        if standing is not record:
            changed[index] = standing
    return changed


def arrays_of(rows: Sequence[int], answers: Sequence[Answer]) -> Witnesses:
    """Return the witnesses of inputs at these positions, as the folder of a run keeps them."""
    pairs = zip(rows, answers, strict=True)
    return {row: (a.witness.point.numpy(), a.witness.distance) for row, a in pairs if a.witness is not None}


def because(record: Answered, reason: str) -> Answered:
    """Return a record of an input with the reason why it is open, if anything is asked of it."""
    return dataclasses.replace(record, reason=reason) if record.correct else record


def _has_certificate(record: KeptCertificate, folder: Path) -> bool:
    """Return whether the certificate that a record names is there in its length; true if it names none."""
    named = record.certificate
    if named is None:
        return True
    path = folder / named.file
    return path.is_file() and named.bytes in (None, path.stat().st_size)


def _without_witness(records: Mapping[int, Record], witnesses: Witnesses, job: Job, norm: Norm) -> dict[int, str]:
    """Return the inputs whose record claims a witness that is not there or does not show it, with the reason."""
    lost: dict[int, str] = {}
    unsettled: list[int] = []
    dtype = torch.zeros(0, dtype=job.subject.network.dtype).numpy().dtype
    for index, record in sorted(records.items()):
        claim = record.claimed_distance
        if claim is None:
            continue
        point, distance = witnesses.get(index, (None, None))
        if point is None or distance is None:
            lost[index] = f"there is no witness of input {index}"
        elif distance != claim:
            lost[index] = f"the witness of input {index} lies at {distance!r}, its record says {claim!r}"
        elif point.shape != job.subject.network.input_shape or point.dtype != dtype or not np.isfinite(point).all():
            lost[index] = f"the witness of input {index} is no input of the model"
        else:
            unsettled.append(index)
    for start in range(0, len(unsettled), BATCH_SIZE):
        part = unsettled[start : start + BATCH_SIZE]
        shown = job.shows([records[i] for i in part], [witnesses[i] for i in part], norm)
        for index, holds in zip(part, shown.tolist(), strict=True):
            if not holds:
                lost[index] = f"the witness of input {index} does not show what its record says"
    return lost
