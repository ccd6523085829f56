"""What a run claims about one input, held against the model and the data: class, certificate, witness."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from verifier.certificates.certificate import Certificate, CertificateError
from verifier.certificates.counterexample import ClaimError, check_witness
from verifier.certificates.files import CertificateFile, certificate_path, read_certificate
from verifier.certificates.scope import certificate_refusal
from verifier.data import Dataset
from verifier.runs.attack_record import AttackRecord
from verifier.runs.records import Record
from verifier.subject import NO_CLASS, Subject

# Two outputs this near, relative to the largest, may change places between one batch and another.
NEARLY = 1e-5
# What hostile numbers in a file can raise.
MALFORMED = (KeyError, TypeError, ValueError, IndexError, OverflowError, AttributeError, AssertionError, MemoryError)


@dataclasses.dataclass(frozen=True, eq=False)
class Claims:
    """The model and the data that records, certificates and witnesses are held against."""

    run: Path
    configuration: Mapping[str, Any]
    subject: Subject
    dataset: Dataset

    @property
    def command(self) -> str:
        """The command of the run."""
        return str(self.configuration["command"])

    @property
    def certificate_refusal(self) -> str | None:
        """Why no proof of the run can have a certificate, or None."""
        return certificate_refusal(self.subject.network, self.configuration["norm"])

    def check_record(self, index: int, record: Record) -> None:
        """Raise ClaimError where a record contradicts the model or the data."""
        if index >= len(self.dataset):
            raise ClaimError("the data end before it")
        label, prediction = record.head.label, record.head.prediction
        if self.dataset.labels is None or label != int(self.dataset.labels[index]):
            raise ClaimError(f"label {label} and the label in the data do not go together")
        if not self._gives(self._centre(index), prediction):
            raise ClaimError(f"the model does not give it class {prediction}, which the record claims")

    def _gives(self, point: np.ndarray, prediction: int) -> bool:
        """Return whether the model gives a point a class, up to what executing it in a batch may round otherwise."""
        outputs = self.subject.outputs(point[None].astype(self._dtype), ["a point of the run"])[0].astype(np.float64)
        if not np.isfinite(outputs).all():
            return prediction == NO_CLASS
        if not 0 <= prediction < len(outputs):
            return False
        return bool(outputs[prediction] >= outputs.max() - NEARLY * np.abs(outputs).max())

    def check_certificate(self, record: Record, named: CertificateFile, lower: float) -> Certificate:
        """Return the certificate that a record names once it holds for the radius `lower`; CertificateError if not."""
        index, label = record.index, record.head.label
        found = read_certificate(certificate_path(self.run, named.file), named.sha256, index)
        centre = self._centre(index)
        if found.centre.shape != centre.shape or not np.array_equal(found.centre, centre):
            raise CertificateError("it is about another input than the data hold at this position")
        if found.winner != label:
            raise CertificateError(f"it is about class {found.winner}, the label is {label}")
        if self.configuration["norm"] != "inf":
            raise CertificateError("it is about the inf-norm, the run is not")
        if found.domain != self.dataset.clip:
            raise CertificateError(f"it is about the domain {found.domain}, the data's is {self.dataset.clip}")
        if math.isinf(lower) and not _covers(centre, found.radius, found.domain):
            raise CertificateError(f"it is about radius {found.radius!r}, the record claims the whole domain")
        if math.isfinite(lower) and not found.radius >= lower:
            raise CertificateError(f"it is about radius {found.radius!r}, the record claims radius {lower!r}")
        try:
            found.check(self.subject.network)
        except CertificateError:
            raise
        except MALFORMED as error:
            raise CertificateError(f"it cannot be evaluated: {error}") from None
        for name in ("radius", "leaves"):
            stated = getattr(named, name)
            if stated is not None and stated != getattr(found, name):
                raise CertificateError(f"its {name} is {getattr(found, name)!r}, the record says {stated!r}")
        return found

    def check_witness(self, index: int, record: Record | None, point: np.ndarray, distance: float) -> None:
        """Raise ClaimError if a witness does not show what it says."""
        if record is None:
            raise ClaimError("no record speaks of it")
        if point.dtype != self._dtype:
            raise ClaimError(f"its point holds {point.dtype}, the model takes {self._dtype}")
        check_witness(
            self.subject.network, self.subject.runtime, self._centre(index), point, record.head.prediction, distance,
            self.dataset.clip, self.configuration["norm"],
        )  # fmt: skip
        if not isinstance(record, AttackRecord) or record.distance is None:
            return
        target = self.configuration["target"]
        for name, reached in (("adversarial", record.adversarial), ("target", target)):
            if type(reached) is int and not self._gives(point, reached):
                raise ClaimError(f"the model does not give it class {reached}, the {name} of the record")

    def _centre(self, index: int) -> np.ndarray:
        if not 0 <= index < len(self.dataset):
            raise CertificateError("the data end before it")
        points = self.subject.points(self.dataset.inputs[index : index + 1], self.dataset.clip)
        centre: np.ndarray = points[0].numpy().astype(np.float64)
        return centre

    @property
    def _dtype(self) -> Any:
        return torch.zeros(0, dtype=self.subject.network.dtype).numpy().dtype


def _covers(centre: np.ndarray, radius: float, domain: tuple[float, float] | None) -> bool:
    """Return whether a ball holds the whole domain, in real arithmetic."""
    if domain is None:
        return False
    least, greatest = Fraction(float(centre.min())), Fraction(float(centre.max()))
    return least + Fraction(radius) >= Fraction(domain[1]) and greatest - Fraction(radius) <= Fraction(domain[0])
