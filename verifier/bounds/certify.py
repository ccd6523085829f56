"""Proofs done again in the form that can be checked, whatever method made them."""

import math

from encoders.region import BallRegion
from verifier.batch import Batch
from verifier.bounds.inputs.certified import certificate_by_inputs
from verifier.bounds.mwd.certified import certificate_by_contraction
from verifier.bounds.split.search import decide_ball
from verifier.budget import Budget
from verifier.certificates.certificate import Certificate
from verifier.certificates.conjunctions import Conjunctions
from verifier.certificates.distance_tree import distance_refusal
from verifier.certificates.scope import certificate_refusal, property_refusal
from verifier.certificates.split_program import split_refusal

# The method whose proofs divide the inputs, and the boxes that a certificate of one may take.
INPUT_SPLIT, CERTIFICATE_BOXES = "input-split", 100_000
# Subproblems that a certificate of what another method proved may take.
CERTIFICATE_SUBPROBLEMS = 20_000
# The same on the box around a ball of another norm, in which there is often more than in the ball.
BOX_SUBPROBLEMS = 200
# Parts that a certificate by inputs of what another method proved may take: mostly the whole ball is one.
OTHER_BOXES = 2_000


def certificate_of(one: Batch, radius: float, budget: Budget, method: str) -> Certificate | str:
    """Return a certificate of the ball of the batch's one input; or the reason why there is none.

    method: what proved it. Balls of networks of hinges are divided by signs, of chains of distances by contraction;
    those of other networks, of other norms, and what was proved by dividing the inputs, by these: mostly the whole ball
    is one leaf. What that does not prove in the 2- and the 1-norm may hold on the ball of the inf-norm with the same
    radius, which holds the other.
    """
    network, winner = one.subject.network, int(one.classes[0])
    refusal = certificate_refusal(network, one.norm)
    if one.conjunctions is not None and one.norm != "inf":
        refusal = property_refusal(network, one.norm)
    if refusal is not None and method != INPUT_SPLIT:
        return refusal
    # With a domain nothing lies beyond its reach; without one every radius is meant.
    ball = one.region(min(radius, one.reach) if one.bounded else radius).on_processor().unscaled
    around = BallRegion(ball.centre, ball.radius, ball.domain)
    measures = any(node.op.measures_distances for node in network.nodes)
    if measures and distance_refusal(network) is None and method != INPUT_SPLIT:
        return certificate_by_contraction(network, around, winner, budget, CERTIFICATE_BOXES)
    by_signs, said = split_refusal(network) is None, None
    if method == INPUT_SPLIT or one.norm != "inf" or not by_signs:
        asked, most = Conjunctions.of_batch(one), CERTIFICATE_BOXES if method == INPUT_SPLIT else OTHER_BOXES
        before = network if one.conjunctions is None else one.conjunctions[0]
        # Without a radius the claim is about the whole domain, a box.
        whole = around if math.isinf(radius) else ball
        said = certificate_by_inputs(before, asked, whole, winner, budget, most)
        if isinstance(said, Certificate) or one.norm == "inf" or not by_signs:
            return said
    answer = decide_ball(
        network, around, winner, lambda _: False, budget, CERTIFICATE_SUBPROBLEMS if said is None else BOX_SUBPROBLEMS
    )
    if answer.certificate is not None:
        return answer.certificate
    return answer.reason if said is None else f"{said}; nor on the box around the ball"
