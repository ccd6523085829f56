"""The certificates that the records of a run name: whether these are them, and cover what is claimed."""

from __future__ import annotations

import hashlib
import json
import math
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

from verifier_check.file import Certificate
from verifier_check.refusals import Refused

Job = tuple[str, Path, tuple[dict[str, Any], dict[str, Any]]]


def run_files(run: Path) -> tuple[list[Job], int]:
    """Return what the last records of each input say of certificates, and how many of these records name none.

    A job is (name, file, (record, settings)).
    """
    settings = json.loads((run / "run.json").read_text("utf-8"))
    records, jobs = dict[int, dict[str, Any]](), list[Job]()
    for line in (run / "records.jsonl").read_text("utf-8").splitlines():
        record = json.loads(line)
        records[int(record["index"])] = record
    for index, record in sorted(records.items()):
        if isinstance(record.get("certificate"), dict):
            name = str(record["certificate"]["file"])
            folder, _, file = name.partition("/")
            if folder != "certificates" or not re.fullmatch(r"[\w.-]+\.npz", file):
                raise Refused(f"input {index}: {name!r:.80} is no file in certificates/ of the run")
            jobs.append((f"input {index}", run / folder / file, (record, settings)))
    return jobs, len(records) - len(jobs)


def check_record(content: bytes, record: dict[str, Any], settings: dict[str, Any]) -> None:
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
