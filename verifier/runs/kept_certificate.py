"""What a record says of the certificate of its proof: where it lies, or why there is none."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Self

from encoders.network import Network
from verifier.certificates.certificate import Certificate
from verifier.certificates.files import CertificateFile, keep_certificate
from verifier.fields import REASON, Kind, is_object, or_null, read_object, stated, write_fields
from verifier.runs.records import Record

CERTIFICATE = or_null(
    Kind(
        is_object, "an object", lambda value: read_object(CertificateFile, value, "certificate."), write_fields,
    ),
    "an object or null",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeptCertificate(Record):
    """A record whose proof may leave a certificate.

    certificate: of the proof; no_certificate: why there is none, where one was asked for.
    """

    certificate: CertificateFile | None = stated(CERTIFICATE, None)
    no_certificate: str | None = stated(REASON, None)

    @property
    def says_of_certificate(self) -> bool:
        """Whether the record names a certificate, or says why there is none."""
        return self.certificate is not None or bool(self.no_certificate)

    def keeping(self, found: Certificate | str, network: Network, folder: Path) -> Self:
        """Return the record with a certificate, which is written to a folder first, or with the reason for none."""
        kept = found if isinstance(found, str) else keep_certificate(found, network, folder, self.index)
        if isinstance(kept, str):
            return dataclasses.replace(self, no_certificate=kept)
        return dataclasses.replace(self, certificate=kept)
