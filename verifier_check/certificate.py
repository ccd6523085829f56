"""One certificate, of any kind, against a network and a question."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from verifier_check.distance_trees import check_distances
from verifier_check.file import Certificate
from verifier_check.input_trees import check_inputs
from verifier_check.network import Network
from verifier_check.properties import Group, class_groups, read_property
from verifier_check.refusals import MALFORMED, Refused, Undecided
from verifier_check.rewrites import scores
from verifier_check.sign_trees import check_signs
from verifier_check.time_limit import UNLIMITED, TimeLimit

# How a certificate is evaluated, in turn until it holds: in which units, and whether hinges whose box only just has one
# sign count as open, as they may have been where boxes were rounded outward.
ATTEMPTS = ((128, False), (512, False), (512, True))


def check_certificate(
    content: bytes, network: Network, asked: bytes | None = None, limit: TimeLimit = UNLIMITED
) -> tuple[str, int]:
    """Return (what is proved, by how many leaves); Refused or Undecided says why it is not.

    asked: the property that it is about, where that is not a class, as VNN-LIB text or JSON. limit: after which it
    is not decided.
    """
    certificate = Certificate(content)
    networks = [each for each in (network, scores(network)) if each.digest == certificate.digest]
    if not networks:
        raise Refused(
            f"it is about network {certificate.digest!r:.70}, not {network.digest}; those of properties and of "
            "executions in an arithmetic are about networks made of the model, which `verifier check --exact` hands on"
        )
    try:
        box, groups = (None, []) if asked is None else read_property(asked)
        _check_question(certificate, network, networks[0], box, groups)
        leaves = _leaves(certificate, networks[0], None if asked is None else groups, limit)
    except MALFORMED as error:
        raise Refused(f"it is no certificate, or no property: {type(error).__name__} {error}"[:300]) from None
    what = f"class {certificate.winner} wins" if asked is None else "the property holds"
    where = ", in its domain" if certificate.domain is not None else ""
    around = "in every input" if certificate.norm == "inf" else f"in the {certificate.norm}-norm"
    return f"{what} within {certificate.radius!r} of the centre {around}{where}", leaves


def _check_question(
    certificate: Certificate, network: Network, proved: Network, box: dict[int, list[Any]] | None, groups: list[Group]
) -> None:
    """Refuse a property that the certificate, which is about the network `proved`, does not answer of a network."""
    outputs = math.prod(network.shapes[network.nodes[-1].name])
    rows = [row for group in groups for row in group]
    if any(not 0 <= j < outputs for row, _ in rows for j in row):
        raise Refused(f"the property is about an output beyond the {outputs} of the network")
    differences = all(offset == 0 and len(row) == 2 and sum(row.values()) == 0 for row, offset in rows)
    if groups and proved is not network and (outputs < 2 or not differences):
        raise Refused("it is about scores in the order of the outputs, the property about more than their order")
    if "inputs.sides" not in certificate.arrays:
        for group in groups:
            # The winner is above the rival: so no row asks whether it is not.
            answered = [
                r
                for r, d in group
                if d <= 0 and len(r) == 2 and sum(r.values()) == 0 and r.get(certificate.winner, 0) > 0
            ]
            if not answered:
                raise Undecided(
                    "a tree of signs about such a property is of the network of its margins: name that alone"
                )
    if box is not None and certificate.norm != "inf":
        raise Refused(f"it is about a ball of the {certificate.norm}-norm, the property about a box")
    limits = certificate.limits
    for i, (least, greatest) in (box or {}).items():
        centre, radius = Fraction(certificate.centre[i]), Fraction(certificate.radius)
        inside = limits[0][i] <= least and greatest <= limits[1][i]
        if not (inside and centre - radius <= least and greatest <= centre + radius):
            raise Refused(f"it does not cover input {i} of the property, [{float(least)!r}, {float(greatest)!r}]")
    if box is not None and sorted(box) != list(range(len(certificate.centre))):
        raise Refused("the property does not bound each input of the certificate")


def _leaves(certificate: Certificate, network: Network, groups: list[Group] | None, limit: TimeLimit) -> int:
    """Return how many leaves hold; groups: what is unsafe, None for other classes."""
    for bits, opens in ATTEMPTS:
        try:
            if "distances" in certificate.header:
                if groups is not None:
                    raise Refused("trees of contraction are about classes, not about a property")
                return check_distances(certificate, network, bits, limit)
            if "inputs.sides" not in certificate.arrays:
                return check_signs(certificate, network, bits, opens, limit)
            asked = class_groups(network, certificate.winner) if groups is None else groups
            return check_inputs(certificate, network, bits, asked, limit)
        except Refused:
            if (bits, opens) == ATTEMPTS[-1]:
                raise
    raise AssertionError
