"""What every refusal of a certificate raises."""


class CertificateError(ValueError):
    """A certificate does not prove what it says."""


class TooManyLeaves(CertificateError):
    """A certificate may hold, but has more leaves than are evaluated."""
