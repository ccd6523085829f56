"""What every refusal of a certificate raises."""


class CertificateError(ValueError):
    """A certificate does not prove what it says."""
