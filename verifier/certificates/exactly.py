"""Certificates evaluated by `verifier_check`, which shares no code with this package and rounds nothing.

It is given what anybody would give it: the bytes of the network in the native format, and those of the certificate.
"""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import verifier_check
from encoders.formats.native import write_network
from encoders.network import Network
from verifier.certificates.conjunctions import Conjunctions
from verifier.certificates.error import CertificateError
from verifier_check import Refused, read_network
from verifier_check.network import Network as PlainNetwork
from verifier_check.refusals import UNDECIDED, why
from verifier_check.time_limit import TimeLimit


@dataclass(frozen=True, eq=False)
class ExactChecker:
    """The networks that were read so far, by digest: a run is mostly about one."""

    _read: dict[str, PlainNetwork] = field(default_factory=dict)

    def leaves(
        self, content: bytes, network: Network, asked: Conjunctions | None, seconds: float | None = None
    ) -> int | str:
        """Return how many leaves hold, or why the exact checker does not decide; CertificateError where one does not.

        content: of a certificate's file. asked: what is unsafe, where that is not another class. seconds: what takes
        longer is not decided; None: nothing is too long.
        """
        text = None if asked is None else json.dumps({"unsafe": _polyhedra(asked)}).encode()
        try:
            return verifier_check.check_certificate(
                content, self._plain(network), text, TimeLimit(math.inf if seconds is None else seconds)
            )[1]
        except UNDECIDED as error:
            return why(error)
        except Refused as error:
            raise CertificateError(f"exact arithmetic does not prove it: {error}") from None

    def _plain(self, network: Network) -> PlainNetwork:
        if network.digest not in self._read:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "network.safetensors"
                write_network(network, path)
                self._read[network.digest] = read_network(path.read_bytes())
        return self._read[network.digest]


def _polyhedra(asked: Conjunctions) -> list[dict[str, list[object]]]:
    rows, offsets = asked.coefficients.flatten(1).tolist(), asked.offsets.tolist()
    return [{"coefficients": rows[group], "offsets": offsets[group]} for group in asked.groups]
