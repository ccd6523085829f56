"""Sampling stays in its box, is the same for the same seed, and finds what hides in a corner of a conjunction."""

import torch

from encoders.ops import Affine
from encoders.property import Halfspaces
from tests.networks.chains import chain
from verifier.bounds.inputs.sampling import BEST, ROUNDS, sampled
from verifier.certificates.conjunctions import Conjunctions

LOWER = torch.tensor([-1.0, 2.0, 3.0], dtype=torch.float64)
UPPER = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)


def corner(width: float) -> Conjunctions:
    """Return what is unsafe of the identity: a cube of a width at the upper corner of the box."""
    network = chain((3,), Affine(torch.eye(3))).cast(torch.float64)
    rows = -torch.eye(3, dtype=torch.float64)
    return Conjunctions.of_polyhedra(network, (Halfspaces(rows, -(UPPER - width)),))


def test_points_lie_in_the_box_and_come_from_the_seed() -> None:
    asked = corner(0.1)
    first, again, other = (list(sampled(asked, LOWER, UPPER, seed)) for seed in (1, 1, 2))
    assert len(first) == ROUNDS and all(best.shape == (BEST, 3) for best in first)
    assert all(bool(((best >= LOWER) & (best <= UPPER)).all()) for best in first)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_what_hides_in_a_corner_is_found_in_few_rounds() -> None:
    # One random point in 10^5 lies in it.
    asked = corner(0.006)
    excess = [float(asked.excess(best).min()) for best in sampled(asked, LOWER, UPPER, 0)]
    assert excess[-1] <= 0 and excess == sorted(excess, reverse=True)
