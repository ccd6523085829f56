"""What the checker in exact arithmetic says of a certificate: of its bytes, as anybody would give them."""

import tempfile
from functools import cache
from pathlib import Path

import verifier_check
from encoders.formats.native import write_network
from encoders.network import Network
from verifier.certificates.certificate import Certificate
from verifier.certificates.files import write_certificate
from verifier_check import Refused, Undecided, read_network
from verifier_check.network import Network as PlainNetwork


@cache
def plain(network: Network) -> PlainNetwork:
    """Return a network as the exact checker reads it."""
    with tempfile.TemporaryDirectory() as folder:
        write_network(network, Path(folder) / "network.safetensors")
        return read_network((Path(folder) / "network.safetensors").read_bytes())


def content_of(certificate: Certificate) -> bytes:
    """Return the bytes of a certificate's file."""
    with tempfile.TemporaryDirectory() as folder:
        named = write_certificate(certificate, Path(folder) / "certificates", 0)
        return (Path(folder) / named.file).read_bytes()


def holds_exactly(certificate: Certificate, network: Network) -> bool | None:
    """Return whether the exact checker accepts a certificate; None where it has no file, or is not decided."""
    try:
        content = content_of(certificate)
    except (ValueError, TypeError, IndexError, AttributeError):
        return None
    try:
        verifier_check.check_certificate(content, plain(network))
    except Undecided:
        return None
    except Refused as error:
        assert len(str(error)) > 10
        return False
    return True
