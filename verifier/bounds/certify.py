"""Proofs done again in the form that can be checked, whatever method made them."""

from encoders.region import BallRegion
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
# The same on the box around a ball of another norm, in which there is often more than in the ball.
BOX_SUBPROBLEMS = 200


def certificate_of(one: Batch, radius: float, budget: Budget, method: str) -> Certificate | str:
    """Return a certificate of the ball of the batch's one input; or the reason why there is none.

    method: what proved it. Where that divided the inputs the certificate does too; mostly the whole ball is one leaf.
    In the 2- and 1-norm it is of the ball of the inf-norm with the same radius, which holds the other.
    """
    in_box = one.norm != "inf" and one.conjunctions is None
    refusal = certificate_refusal(one.subject.network, "inf" if in_box else one.norm)
    divides = method == INPUT_SPLIT and one.norm == "inf"
    if refusal is not None and not divides:
        return refusal
    # With a domain nothing lies beyond its reach; without one every radius is meant.
    ball = one.region(min(radius, one.reach) if one.bounded else radius).on_processor().unscaled
    network, winner, most = one.subject.network, int(one.classes[0]), CERTIFICATE_SUBPROBLEMS
    if in_box:
        ball, most = BallRegion(ball.centre, ball.radius, ball.domain), BOX_SUBPROBLEMS
    if divides:
        network = network if one.conjunctions is None else one.conjunctions[0]
        return certificate_by_inputs(network, Conjunctions.of_batch(one), ball, winner, budget, CERTIFICATE_BOXES)
    if any(node.op.measures_distances for node in network.nodes):
        return certificate_by_contraction(network, ball, winner, budget, CERTIFICATE_BOXES)
    answer = decide_ball(network, ball, winner, lambda _: False, budget, most)
    if answer.certificate is None and in_box:
        return f"certificates of the {one.norm}-norm are of the box around the ball; not proved: {answer.reason}"
    return answer.reason if answer.certificate is None else answer.certificate
