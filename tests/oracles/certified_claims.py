"""Certificates near the exact radii of networks of two inputs: whether their claims are true, and whether they pass."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from encoders.box import Box
from encoders.network import Network
from tests.oracles.exact_checker import holds_exactly
from tests.oracles.polygons import least_margin
from verifier.certificates.certificate import Certificate
from verifier.certificates.error import CertificateError
from verifier.certificates.files import read_certificate, write_certificate
from verifier.certificates.shortened import shortened

# Seeds of `hinge_network`, and radii at most 0.001 below the exact ones of its random batch.
CASES = {1: 0.2167, 7: 0.1826, 10: 0.1044, 13: 0.4638}
PAST = 0.002


def is_true(certificate: Certificate, network: Network) -> bool:
    """Return whether the claim holds, by the oracle on the exact ball; its domain is a pair or nothing."""
    radius, domain = Fraction(certificate.radius), certificate.domain
    assert not isinstance(domain, Box)
    least, greatest = (Fraction(end) for end in domain or (-1e9, 1e9))
    lower = [max(Fraction(v) - radius, least) for v in certificate.centre.tolist()]
    upper = [min(Fraction(v) + radius, greatest) for v in certificate.centre.tolist()]
    return least_margin(network, lower, upper, certificate.winner) > 0


def kept_and_read(certificate: Certificate, network: Network, folder: Path) -> tuple[Certificate, Certificate]:
    """Return a true certificate made short, and what its file holds; all three pass, and past the radius none does."""
    certificate.check(network)
    assert is_true(certificate, network)
    short = shortened(certificate, network)
    short.check(network)
    kept = write_certificate(short, folder, 3)
    again = read_certificate(folder.parent / kept.file, kept.sha256, 3)
    again.check(network)
    assert holds_exactly(again, network)
    for each in (certificate, again):
        assert not passes(replace(each, radius=certificate.radius + PAST), network)
    return short, again


def passes(certificate: Certificate, network: Network) -> bool:
    """Return whether a certificate passes its check; what the exact checker accepts is true."""
    exact = holds_exactly(certificate, network)
    try:
        certificate.check(network)
    except CertificateError:
        assert not exact or is_true(certificate, network)
        return False
    return True
