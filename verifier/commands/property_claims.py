"""What a run of `verify` claims about one box, held against the model and the property: numbers, proof, witness.

The property is read again from the file that the record names, or from the run's folder where it came from no file;
its digest must be that of the record. The network that a certificate is about is built from model and property, never
taken from the run.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from encoders.box import Box
from encoders.formats import read_property
from encoders.joint import Joint
from encoders.network import Network
from encoders.property import Property
from encoders.region import BallRegion
from verifier.certificates.conjunctions import Conjunctions
from verifier.certificates.counterexample import ClaimError
from verifier.certificates.error import CertificateError
from verifier.certificates.files import certificate_path, read_certificate
from verifier.certificates.scope import property_refusal
from verifier.commands.claims import MALFORMED, NEARLY, evaluate, place_of, require_digest
from verifier.commands.property_job import seen_to_agree
from verifier.joint_subject import JointSubject, load_copies
from verifier.properties import KnownMargins, PropertyWitness, Question, ask
from verifier.runs.folder import RunError, StoredRun
from verifier.runs.property_files import digest_of, read_stored
from verifier.runs.verify_record import INSIDE, VerifyRecord
from verifier.runs.witness_files import Witnesses
from verifier.subject import Subject


@dataclasses.dataclass(frozen=True, eq=False)
class PropertyClaims:
    """The model and the properties that records, certificates and witnesses are held against.

    seed: of the run. records: of all boxes, by position. places: the folder where the property files are now, or None.
    files, margins: what was read and made already.
    """

    run: Path
    subject: Subject
    seed: int
    records: Mapping[int, VerifyRecord]
    places: Path | None
    files: dict[Path, tuple[Property, ...]] = dataclasses.field(default_factory=dict)
    margins: KnownMargins = dataclasses.field(default_factory=dict)

    def check_record(self, index: int, record: VerifyRecord) -> None:
        """Raise ClaimError where a record is not about the property it names, or contradicts those beside it."""
        self.property_of(record)
        for other in (self.records.get(index - 1), self.records.get(record.first)):
            together = ("name", "file", "boxes")
            if other is not None and other.first != record.first:
                if other.first + other.boxes > index:
                    raise ClaimError(f"it is box {record.box} of a property, and stands among the boxes of another")
            elif other is not None and any(getattr(other, name) != getattr(record, name) for name in together):
                raise ClaimError("it names another property than the boxes beside it")

    def leaves(self, record: VerifyRecord) -> int | None:
        """Return the leaves of the proof that a record names, checked; None where it names none.

        CertificateError if it does not hold. Where nothing is unsafe the property itself is the proof, without leaves.
        """
        if not self.property_of(record).unsafe:
            return 0
        if record.certificate is None:
            return None
        named, question = record.certificate, self._question(record)
        found = read_certificate(certificate_path(self.run, named.file), named.sha256, record.index)
        if found.winner != int(question.batch.classes[0]):
            raise CertificateError(f"it is about class {found.winner}, not about what is unsafe")
        if found.norm != "inf":
            raise CertificateError(f"it is about a ball of the {found.norm}-norm, not about a box")
        box = Box(*(end[None] for end in (question.asked.lower, question.asked.upper)))
        if not isinstance(found.domain, Box) or not _equal(found.domain, box):
            raise CertificateError("it is about another box than the property")
        if found.centre.shape != tuple(box.lower.shape[1:]) or not math.isfinite(found.radius):
            raise CertificateError(f"its centre has shape {found.centre.shape}, its radius is {found.radius!r}")
        centre = torch.from_numpy(found.centre.astype(np.float64))[None]
        try:
            # `around` refuses a centre beside the box, and has the least radius that covers it.
            least = float(BallRegion.around(centre, box).radius[0])
        except ValueError as error:
            raise CertificateError(f"it is about another box than the property: {error}") from None
        if not found.radius >= least:
            raise CertificateError(f"it is about radius {found.radius!r}, which does not cover the box")
        batch = question.batch
        if found.inputs is not None and batch.conjunctions is not None:
            # Inputs are divided until the rows of the property are refuted, not the margins that others see.
            evaluate(found, named, batch.conjunctions[0], Conjunctions.of_batch(batch))
        else:
            evaluate(found, named, question.network)
        return found.leaves

    def exact_question(self, record: VerifyRecord) -> tuple[bytes, Network, Conjunctions | None] | None:
        """Return (bytes of the certificate, network, what is unsafe but for classes) of a proof that holds."""
        if record.certificate is None:
            return None
        question, path = self._question(record), certificate_path(self.run, record.certificate.file)
        found = read_certificate(path, record.certificate.sha256, record.index)
        if found.inputs is None or question.batch.conjunctions is None:
            return path.read_bytes(), question.network, None
        return path.read_bytes(), question.batch.conjunctions[0], Conjunctions.of_batch(question.batch)

    def certificate_refusal(self, record: VerifyRecord) -> str | None:
        """Return why the proof of a box can have no certificate, or None."""
        question = self._question(record)
        return property_refusal(question.network, question.region.norm)

    def check_witness(self, index: int, record: VerifyRecord | None, point: np.ndarray, distance: float) -> None:
        """Raise ClaimError unless a point is a counterexample to the property as it was written."""
        if record is None:
            raise ClaimError("no record speaks of it")
        question = self._question(record)
        network = question.network
        dtype = torch.zeros(0, dtype=network.dtype).numpy().dtype
        if point.dtype.kind != "f" or point.shape != network.input_shape or not np.isfinite(point).all():
            raise ClaimError(f"its point holds {point.dtype} in shape {point.shape}, or is not finite")
        # Beside points of float64 those of smaller dtypes are stored in it, too.
        point, stored = point.astype(dtype), point
        if not np.array_equal(point, stored):
            raise ClaimError(f"its point holds numbers that are none of {dtype}")
        if distance != INSIDE:
            raise ClaimError(f"it lies at distance {distance!r}, and one of a property in its box")
        exact = torch.from_numpy(point)
        lower, upper = question.asked.witness_box
        if not bool(((lower <= exact.to(torch.float64)) & (exact.to(torch.float64) <= upper)).all()):
            raise ClaimError("it lies outside the box of the property")
        found = question.confirm(exact)
        if not isinstance(found, PropertyWitness):
            raise ClaimError(found)

    def differences(self, results: Mapping[str, Any], witnesses: Witnesses) -> list[str]:
        """Return in what a summary contradicts the witnesses of the run, in sentences."""
        groups: dict[int, list[VerifyRecord]] = {}
        for _, record in sorted(self.records.items()):
            groups.setdefault(record.first, []).append(record)
        place = results.get("offset", min(groups, default=0))
        for entry in results["properties"] if isinstance(results.get("properties"), list) else ():
            try:
                broken = [record.index for record in groups[place] if record.claimed_distance is not None]
                stated = entry["witness"]
                if (stated is None) is bool(broken):
                    return [f"the property of box {place} has {len(broken)} witnesses, which it does not say"]
                if stated is not None and not self._is(stated, [witnesses[index][0] for index in broken]):
                    return [f"the witness of the property of box {place} is none of the run"]
                place += entry["boxes"]
            except MALFORMED as error:
                return [f"a property is not described as one: {type(error).__name__} {error}"]
        return []

    def _is(self, stated: Mapping[str, Any], points: list[np.ndarray]) -> bool:
        """Return whether numbers of a summary are those of one of these witnesses and of the model's outputs there."""
        for point in points:
            outputs = np.asarray(self.subject.execute(point[None])[0], dtype=np.float64).flatten()
            shown = np.array(stated["output"], dtype=np.float64)
            near = shown.shape == outputs.shape and np.abs(shown - outputs).max() <= NEARLY * np.abs(outputs).max()
            if near and stated["input"] == [float(value) for value in point.flatten()]:
                return True
        return False

    def _question(self, record: VerifyRecord) -> Question:
        return ask(self.subject, self.property_of(record), self.seed, self.margins)

    def property_of(self, record: VerifyRecord) -> Property:
        """Return the property that a record is about, in the shape of the model; ClaimError if it does not fit."""
        found, network = self.found(record), self.subject.network
        own = self.subject.joint if isinstance(self.subject, JointSubject) else None
        if found.joint != own:
            raise ClaimError("it is about other networks, or other inputs of them, than the run")
        try:
            return found.shaped(network.input_shape, math.prod(network.output_shape))
        except ValueError as error:
            raise ClaimError(str(error)) from None

    def found(self, record: VerifyRecord) -> Property:
        """Return the property that a record is about, from its file or the run; ClaimError if it is gone or another."""
        try:
            if record.file is None:
                boxes: tuple[Property, ...] = (read_stored(self.run, record.digest),)
            else:
                boxes = self._read(record)
            if len(boxes) != record.boxes:
                raise ClaimError(f"its property has {len(boxes)} boxes, the record says {record.boxes}")
            found = digest_of(boxes[record.box])
            if found != record.digest:
                raise ClaimError(
                    f"{record.file} is not the property of the run: its digest is {found}, the record's is "
                    f"{record.digest}"
                )
            return boxes[record.box]
        except (OSError, ValueError) as error:
            raise ClaimError(str(error)) from None

    def _read(self, record: VerifyRecord) -> tuple[Property, ...]:
        assert record.file is not None
        path = Path(record.file)
        if path.name != Path(record.name).name:
            raise ClaimError(f"its property is called {record.name!r}, and its file {path.name!r}")
        path = path if self.places is None else self.places / path.name
        if path not in self.files:
            self.files[path] = read_property(path)
        return self.files[path]


def load_property_claims(
    run: Path,
    stored: StoredRun,
    model: str | Path | None,
    places: str | Path | None,
    networks: Mapping[str, str | Path] | None = None,
) -> PropertyClaims:
    """Return the claims of a run with its model, or its models; ValueError if one is not found, or another."""
    configuration = stored.configuration
    origin = configuration.get("origin", {})
    place = place_of("model", model, origin)
    subject = load_copies(place, {**origin.get("networks", {}), **(networks or {})}, _joint(origin), device="cpu")
    require_digest("model", place, subject.network.digest, configuration)
    records = {index: record for index, record in stored.lines.records.items() if isinstance(record, VerifyRecord)}
    claims = PropertyClaims(run, subject, configuration["seed"], records, None if places is None else Path(places))
    boxes = []
    for record in records.values():
        try:
            boxes.append(claims.property_of(record))
        except ClaimError:
            # It is refused by its record.
            continue
    return dataclasses.replace(claims, subject=seen_to_agree(subject, boxes) if boxes else subject)


def _joint(origin: Mapping[str, Any]) -> Joint | None:
    """Return the copies of networks that a run says it is about; what they make must have the digest of the run."""
    try:
        return Joint.from_json(origin["joint"]) if "joint" in origin else None
    except MALFORMED as error:
        raise RunError(f"the run does not say which networks it is about: {type(error).__name__} {error}") from None


def _equal(one: Box, other: Box) -> bool:
    """Return whether two boxes are the same."""
    return torch.equal(one.lower, other.lower) and torch.equal(one.upper, other.upper)
