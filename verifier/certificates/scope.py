"""Which proofs can have a certificate: told from the network and the norm, by whoever makes one and whoever checks."""

from __future__ import annotations

import math

from encoders.network import INPUT, Network
from encoders.passes import expand_max_pools
from encoders.region import Norm
from verifier.certificates.distance_tree import distance_refusal
from verifier.certificates.input_tree import envelope_refusal
from verifier.certificates.split_program import split_refusal

# Multiplications of one way through the affine ops beyond which none is made: their rows would take 250 MB, a step of
# ascent for a batch of subproblems seconds.
MOST_MULTIPLICATIONS = 20_000_000


def certificate_refusal(network: Network, norm: Norm) -> str | None:
    """Return why no proof about a network in a norm can have a certificate, or None where one is worth a try."""
    if any(node.op.measures_distances for node in network.nodes) and distance_refusal(network) is None:
        return None
    node = envelope_refusal(network)
    if node is not None:
        return f"certificates are of networks all of whose ops have linear bounds; node {node.name!r} is {node.op.kind}"
    plain = expand_max_pools(network) if norm == "inf" and split_refusal(network) is None else network
    return f"a certificate {too_large(plain)}" if multiplications(plain) > MOST_MULTIPLICATIONS else None


def certificate_excuse(network: Network, norm: Norm) -> str | None:
    """Return why some proofs about a network in a norm have no certificate, or None where each has to have one.

    Nothing but trees of signs and of contraction follows branch and bound as far as it goes.
    """
    refusal = certificate_refusal(network, norm)
    if refusal is not None or distance_refusal(network) is None:
        return refusal
    if norm != "inf":
        return f"certificates of the {norm}-norm divide inputs, and some proofs would take too many parts"
    node = split_refusal(network)
    if node is None:
        return None
    kinds = "affine ops, relu, leaky-relu, abs and max pools"
    return (
        f"certificates of other networks than those of {kinds} divide inputs, and some proofs would take too many "
        f"parts; node {node.name!r} is {node.op.kind}"
    )


def property_refusal(network: Network, norm: Norm) -> str | None:
    """Return why some proofs of a property in a ball of a norm have no certificate, or None where each has to."""
    if norm != "inf":
        return f"certificates of properties are about boxes, not about balls of the {norm}-norm"
    return certificate_excuse(network, norm)


def multiplications(network: Network) -> int:
    """Return how many a way through the affine ops takes, forward or back; a move of a value counts one."""
    return sum(node.op.fan_in() * math.prod(network.shapes[node.name]) for node in network.nodes if node.op.linear)


def stage_sizes(network: Network) -> tuple[int, int]:
    """Return (hinge units, entries of the matrices of all stages), without making anything of that size."""
    sizes = [math.prod(network.input_shape)]
    reaching: dict[str, set[int]] = {INPUT: {0}}
    entries = 0
    for node in network.nodes:
        before = set[int]().union(*(reaching[name] for name in node.inputs))
        reaching[node.name] = before
        if node.op.hinge_slope is not None or node is network.output:
            size = math.prod(network.shapes[node.name])
            entries += size * sum(sizes[j] for j in before)
            if node.op.hinge_slope is not None:
                reaching[node.name] = {len(sizes)}
                sizes.append(size)
    return sum(sizes[1:]), entries


def too_large(network: Network) -> str:
    """Return in words what search over the signs of a network without max pools would be."""
    return (
        f"would split the signs of up to {stage_sizes(network)[0]:,} hinge units, with rows of up to "
        f"{multiplications(network):,} entries for the affine ops, more than the {MOST_MULTIPLICATIONS:,} it takes on"
    )
