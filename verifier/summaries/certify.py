"""The counts of `certify` at each radius, from its records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from verifier.metrics import RobustnessAt, robustness_at
from verifier.runs.certify_record import CertifyRecord


@dataclass(frozen=True)
class CertificateCounts:
    """Of how many proofs a run keeps a certificate, and by the reason how many have none."""

    proofs: int
    kept: int
    without: Mapping[str, int]


def certificate_counts(records: Sequence[CertifyRecord]) -> CertificateCounts:
    """Return the counts over records of a run that keeps certificates."""
    proofs = [record for record in records if record.correct and record.answer.bracket.lower >= 0]
    without = Counter(record.no_certificate or "not made yet" for record in proofs if record.certificate is None)
    return CertificateCounts(len(proofs), len(proofs) - without.total(), dict(without))


def certified(records: Sequence[CertifyRecord], epsilons: Sequence[float]) -> tuple[RobustnessAt, ...]:
    """Return what is known at each radius about the inputs that the records are of."""
    answers = [record.answer for record in records if record.correct]
    brackets, executed = [answer.bracket for answer in answers], [answer.execution_only for answer in answers]
    return tuple(robustness_at(epsilon, brackets, len(records), executed) for epsilon in epsilons)
