"""A run taken up again: what its records rest on is looked at first, and worked on again where it is gone.

A record that claims a witness needs one in the run's folder, of the model's shape and dtype, at exactly the distance it
states, within that distance of its input and in the domain, and that the user's model still gives to another class.
That takes one pass of the model for each witness; the proof in real arithmetic is left to `check`. A certificate must
be there in its full length.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from encoders.region import BallRegion, Norm
from verifier.answers import Answer
from verifier.batch import BATCH_SIZE
from verifier.commands.job import Job
from verifier.runs.certify_record import CertifyRecord
from verifier.runs.folder import Run, RunError
from verifier.runs.records import Record
from verifier.runs.witness_files import Witnesses

# Inputs that a notice names.
NAMED = 8


def take_up(run: Run | None, job: Job, norm: Norm) -> dict[int, Record]:
    """Return the records of a run, without what is claimed on witnesses and certificates that are gone.

    Those are written down as they are returned before any work starts, and named in the notices of the run.
    """
    if run is None:
        return {}
    beyond = [index for index in run.records if index >= len(job.dataset)]
    if beyond:
        raise RunError(f"{run.records_path}: the data end before input {min(beyond)}; remove its line")
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
        if not isinstance(record, CertifyRecord):
            changed |= {index: None} if index in lost else {}
            continue
        # What was proved of these inputs stands; the search for counterexamples begins again.
        standing = record.searched_again() if index in lost else record
        if not _has_certificate(record, run.folder):
            standing = dataclasses.replace(standing, certificate=None)
        if standing is not record:
            changed[index] = standing
    return changed


def arrays_of(rows: Sequence[int], answers: Sequence[Answer]) -> Witnesses:
    """Return the witnesses of inputs at these positions, as the folder of a run keeps them."""
    pairs = zip(rows, answers, strict=True)
    return {row: (a.witness.point.numpy(), a.witness.distance) for row, a in pairs if a.witness is not None}


def _has_certificate(record: CertifyRecord, folder: Path) -> bool:
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
        shown = _shows(job, part, [witnesses[i] for i in part], [records[i].head.prediction for i in part], norm)
        for index, holds in zip(part, shown.tolist(), strict=True):
            if not holds:
                lost[index] = f"the witness of input {index} does not show what its record says"
    return lost


def _shows(
    job: Job, rows: Sequence[int], found: Sequence[tuple[np.ndarray, float]], classes: Sequence[int], norm: Norm
) -> Tensor:
    """Return a mask `(rows,)`: whether points lie within their distances and are unsafe in the user's model."""
    points = torch.from_numpy(np.stack([point for point, _ in found]))
    centres = job.subject.points(job.dataset.inputs[list(rows)], job.dataset.clip).to(torch.float64)
    distances = torch.tensor([distance for _, distance in found], dtype=torch.float64)
    ball = BallRegion(centres, torch.zeros_like(distances), job.dataset.clip, norm)
    within = ball.distance(points) <= distances
    if job.dataset.clip is not None:
        least, greatest = job.dataset.clip
        exact = points.to(torch.float64).flatten(1)
        within &= (exact.amin(dim=1) >= least) & (exact.amax(dim=1) <= greatest)
    unsafe = _is_unsafe(job.subject.execute(points), classes)
    for i in torch.nonzero(~unsafe).flatten().tolist():
        # Some runtimes round otherwise in a batch; a witness counts as it is alone.
        unsafe[i] = _is_unsafe(job.subject.execute(points[i : i + 1]), classes[i : i + 1])[0]
    return within & unsafe


def _is_unsafe(outputs: np.ndarray, classes: Sequence[int]) -> Tensor:
    """Return a mask: whether another class has at least the value of the given one."""
    known = torch.tensor([0 <= k < outputs.shape[1] for k in classes])
    own = np.clip(np.array(classes), 0, outputs.shape[1] - 1)
    rows = np.arange(len(outputs))
    others = outputs.copy()
    others[rows, own] = -np.inf
    return known & torch.from_numpy(others.max(axis=1) >= outputs[rows, own])
