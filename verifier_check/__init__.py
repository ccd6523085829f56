"""Checks certificates in exact arithmetic: the standard library alone, nothing of the packages that make them.

It was made from docs/certificate-format.md alone; the folder may be copied anywhere, and

    python -m verifier_check NETWORK.safetensors CERTIFICATE_OR_RUN ... [--property FILE] [--sample K]

be run beside it. What is claimed is proved by `certificate.check_certificate`; `command` is the command line.
"""

from verifier_check.certificate import check_certificate
from verifier_check.command import main
from verifier_check.network import read_network
from verifier_check.refusals import Refused, Undecided

__all__ = ["Refused", "Undecided", "check_certificate", "main", "read_network"]
