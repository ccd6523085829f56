"""Proofs done again in the form that can be checked, whatever method made them."""

from verifier.batch import Batch
from verifier.bounds.split.search import decide_ball
from verifier.budget import Budget
from verifier.certificates.certificate import Certificate
from verifier.certificates.scope import certificate_refusal

# Subproblems that a certificate of what another method proved may take.
CERTIFICATE_SUBPROBLEMS = 20_000


def certificate_of(one: Batch, radius: float, budget: Budget) -> Certificate | str:
    """Return a certificate of the ball of the batch's one input; or the reason why there is none.

    Mostly the whole ball is one leaf.
    """
    refusal = certificate_refusal(one.subject.network, one.norm)
    if refusal is not None:
        return refusal
    # With a domain nothing lies beyond its reach; without one every radius is meant.
    ball = one.region(radius if one.domain is None else min(radius, one.reach)).on_processor()
    answer = decide_ball(
        one.subject.network, ball, int(one.classes[0]), lambda _: False, budget, CERTIFICATE_SUBPROBLEMS
    )
    return answer.reason if answer.certificate is None else answer.certificate
