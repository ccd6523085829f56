"""Proofs done again in the form that can be checked, whatever method made them."""

from verifier.batch import Batch
from verifier.bounds.inputs.certified import certificate_by_inputs
from verifier.bounds.mwd.certified import certificate_by_contraction
from verifier.bounds.split.search import decide_ball
from verifier.budget import Budget
from verifier.certificates.certificate import Certificate
from verifier.certificates.conjunctions import Conjunctions
from verifier.certificates.scope import certificate_refusal

# The method whose proofs divide the inputs, and the boxes that a certificate of one may take.
INPUT_SPLIT, CERTIFICATE_BOXES = "input-split", 100_000
# Subproblems that a certificate of what another method proved may take.
CERTIFICATE_SUBPROBLEMS = 20_000


def certificate_of(one: Batch, radius: float, budget: Budget, method: str) -> Certificate | str:
    """Return a certificate of the ball of the batch's one input; or the reason why there is none.

    method: what proved it. Where that divided the inputs the certificate does too; mostly the whole ball is one leaf.
    """
    refusal = certificate_refusal(one.subject.network, one.norm)
    divides = method == INPUT_SPLIT and one.norm == "inf"
    if refusal is not None and not divides:
        return refusal
    # With a domain nothing lies beyond its reach; without one every radius is meant.
    ball = one.region(min(radius, one.reach) if one.bounded else radius).on_processor().unscaled
    network, winner = one.subject.network, int(one.classes[0])
    if divides:
        network = network if one.conjunctions is None else one.conjunctions[0]
        return certificate_by_inputs(network, Conjunctions.of_batch(one), ball, winner, budget, CERTIFICATE_BOXES)
    if any(node.op.measures_distances for node in network.nodes):
        return certificate_by_contraction(network, ball, winner, budget, CERTIFICATE_BOXES)
    answer = decide_ball(network, ball, winner, lambda _: False, budget, CERTIFICATE_SUBPROBLEMS)
    return answer.reason if answer.certificate is None else answer.certificate
