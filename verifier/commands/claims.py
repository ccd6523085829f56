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

from encoders.box import Box
from encoders.network import Network
from encoders.region import BallRegion, Norm, domain_ends
from verifier.certificates.certificate import Certificate
from verifier.certificates.conjunctions import Conjunctions
from verifier.certificates.counterexample import ClaimError, check_witness
from verifier.certificates.error import CertificateError
from verifier.certificates.files import CertificateFile, certificate_path, read_certificate
from verifier.certificates.scope import certificate_excuse
from verifier.data import Dataset
from verifier.runs.attack_record import AttackRecord
from verifier.runs.certify_record import CertifyRecord
from verifier.runs.records import InputRecord
from verifier.runs.witness_files import Witnesses
from verifier.subject import NO_CLASS, Subject
from verifier.surroundings import Surroundings

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
    surroundings: Surroundings

    def differences(self, results: Mapping[str, Any], witnesses: Witnesses) -> list[str]:
        """Return in what a summary contradicts the witnesses of the run: it says nothing of them."""
        return []

    def certificate_refusal(self, record: InputRecord) -> str | None:
        """Return why a proof of the run need not have a certificate, or None."""
        return certificate_excuse(self.asked(record).network, self.configuration["norm"])

    def asked(self, record: InputRecord) -> Subject:
        """Return the subject of which a class is claimed to win around the input of a record."""
        return self.subject

    def check_record(self, index: int, record: InputRecord) -> None:
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

    def leaves(self, record: InputRecord) -> int | None:
        """Return the leaves of the proof that a record names, checked; None where it names none.

        CertificateError if it does not hold.
        """
        if not isinstance(record, CertifyRecord) or record.certificate is None:
            return None
        return self._certificate(record, record.certificate, record.proved).leaves

    def exact_question(self, record: InputRecord) -> tuple[bytes, Network, Conjunctions | None] | None:
        """Return (bytes of the certificate, network, what is unsafe but for other classes) of a proof that holds."""
        if not isinstance(record, CertifyRecord) or record.certificate is None:
            return None
        path = certificate_path(self.run, record.certificate.file)
        return path.read_bytes(), self.asked(record).network, None

    def _certificate(self, record: CertifyRecord, named: CertificateFile, lower: float) -> Certificate:
        """Return the certificate that a record names once it holds for the radius `lower`; CertificateError if not."""
        index, label = record.index, record.head.label
        found = read_certificate(certificate_path(self.run, named.file), named.sha256, index)
        centre = self._centre(index)
        if found.centre.shape != centre.shape or not np.array_equal(found.centre, centre):
            raise CertificateError("it is about another input than the data hold at this position")
        if found.winner != label:
            raise CertificateError(f"it is about class {found.winner}, the label is {label}")
        # Of a ball that a domain cuts the box around it says too little.
        if found.norm != "inf" and (found.norm != self._norm or not found.radius >= lower):
            raise CertificateError(f"it is about a ball of the {found.norm}-norm, which does not cover the claim")
        # The ball of the inf-norm holds those of the others with its radius.
        if not self._keeps_domain:
            self._check_covers(found, centre, lower)
        elif found.domain != self.dataset.clip:
            raise CertificateError(f"it is about the domain {found.domain}, the data's is {self.dataset.clip}")
        elif math.isinf(lower) and not _covers(centre, found.radius, found.domain):
            raise CertificateError(f"it is about radius {found.radius!r}, the record claims the whole domain")
        elif math.isfinite(lower) and not found.radius >= lower:
            raise CertificateError(f"it is about radius {found.radius!r}, the record claims radius {lower!r}")
        evaluate(found, named, self.asked(record).network)
        return found

    def _check_covers(self, found: Certificate, centre: np.ndarray, lower: float) -> None:
        """Raise CertificateError unless a certificate is about all that a record claims, in the units of the run."""
        around = self._around(centre)
        proved = BallRegion(around.centre, torch.tensor([found.radius], dtype=torch.float64), found.domain).enclosure()
        if math.isinf(lower):
            claimed = Box(*(end.expand_as(around.centre) for end in domain_ends(around.domain, around.centre)))
        else:
            claimed = around.with_radius(lower).enclosure()
        if not bool(((proved.lower <= claimed.lower) & (claimed.upper <= proved.upper)).all()):
            raise CertificateError(f"it does not cover the ball of radius {lower!r} that the record claims")

    def _around(self, centre: np.ndarray) -> BallRegion:
        """Return the ball of radius 0 around an input."""
        return self._around_of().region(torch.from_numpy(centre)[None], torch.zeros(1, dtype=torch.float64), self._norm)

    @property
    def _keeps_domain(self) -> bool:
        """Whether the domain of a certificate is that of the data."""
        return self.surroundings.plain

    def _around_of(self) -> Surroundings:
        return self.surroundings

    @property
    def _norm(self) -> Norm:
        norm: Norm = self.configuration["norm"]
        return norm

    def check_witness(self, index: int, record: InputRecord | None, point: np.ndarray, distance: float) -> None:
        """Raise ClaimError if a witness does not show what it says."""
        if record is None:
            raise ClaimError("no record speaks of it")
        if point.dtype != self._dtype:
            raise ClaimError(f"its point holds {point.dtype}, the model takes {self._dtype}")
        if point.shape != self.subject.network.input_shape:
            raise ClaimError(f"its point has shape {point.shape}")
        self.check_unsafe(index, record, point, distance)
        if not isinstance(record, AttackRecord) or record.distance is None:
            return
        target = self.configuration["target"]
        for name, reached in (("adversarial", record.adversarial), ("target", target)):
            if type(reached) is int and not self._gives(point, reached):
                raise ClaimError(f"the model does not give it class {reached}, the {name} of the record")

    def check_unsafe(self, index: int, record: InputRecord, point: np.ndarray, distance: float) -> None:
        """Raise ClaimError unless a point lies within a distance of an input and is unsafe for its record."""
        asked, around = self.asked(record), self._around(self._centre(index))
        shaped = point.reshape(tuple(around.centre.shape[1:]))
        check_witness(asked.network, asked.execute, around, shaped, record.head.prediction, distance)

    def _centre(self, index: int) -> np.ndarray:
        if not 0 <= index < len(self.dataset):
            raise CertificateError("the data end before it")
        centre: np.ndarray = self._point(index)[0].numpy().astype(np.float64)
        return centre

    def _point(self, index: int) -> torch.Tensor:
        """Return an input `(1, *input_shape)` as the model takes it."""
        return self.subject.points(self.dataset.inputs[index : index + 1], self.surroundings.domain)

    @property
    def _dtype(self) -> Any:
        return torch.zeros(0, dtype=self.subject.network.dtype).numpy().dtype


def place_of(name: str, given: str | Path | None, origin: Mapping[str, Any]) -> str | Path:
    """Return where a run's model or data are; ValueError where nobody says."""
    place = given or origin.get(name)
    if place is None:
        raise ValueError(f"the run does not say where its {name} came from; name it with --{name}")
    return place


def require_digest(name: str, place: str | Path, found: str, configuration: Mapping[str, Any]) -> None:
    """Raise ValueError where the model or the data at a place are not those of the run."""
    if found != configuration.get(name):
        raise ValueError(
            f"{place} is not the {name} of the run: its digest is {found}, the run's is {configuration.get(name)}; "
            f"name the right one with --{name}"
        )


def evaluate(found: Certificate, named: CertificateFile, network: Network, asked: Conjunctions | None = None) -> None:
    """Raise CertificateError unless a certificate holds for a network and is what its record says of it.

    asked: what is unsafe, where that is not another class.
    """
    try:
        found.check(network, asked)
    except CertificateError:
        raise
    except MALFORMED as error:
        raise CertificateError(f"it cannot be evaluated: {error}") from None
    for name in ("radius", "leaves"):
        stated = getattr(named, name)
        if stated is not None and stated != getattr(found, name):
            raise CertificateError(f"its {name} is {getattr(found, name)!r}, the record says {stated!r}")


def _covers(centre: np.ndarray, radius: float, domain: tuple[float, float] | None) -> bool:
    """Return whether a ball holds the whole domain, in real arithmetic."""
    if domain is None:
        return False
    least, greatest = Fraction(float(centre.min())), Fraction(float(centre.max()))
    return least + Fraction(radius) >= Fraction(domain[1]) and greatest - Fraction(radius) <= Fraction(domain[0])
