"""Programs with binaries: HiGHS, CBC and brute force in rationals find one least margin, and our search its sign."""

import math

import numpy as np
import pytest
import torch

from encoders.formulations.relax import encode_exactly, relax
from encoders.linear_model import Direction
from encoders.ops import Affine, Sigmoid
from tests.conftest import chain
from tests.verifier.polygons import least_margin
from tests.verifier.test_exact_method import batch_of, hinge_network
from verifier.bounds.linear import LinearBounds
from verifier.budget import Budget
from verifier.methods.exact import ExactMethod
from verifier.solvers import SOLVERS, Termination


def least_by(solver: str, seed: int, radius: float) -> tuple[float, float]:
    """Return (the least margin over all rivals by a solver, the exact one)."""
    network = hinge_network(seed)
    batch = batch_of(network, 1, seed)
    region = batch.region(radius)
    reference = int(batch.classes[0])
    bounds = LinearBounds(network, region)
    encoded = encode_exactly(bounds.network, bounds.boxes)
    found = math.inf
    for rival in set(range(3)) - {reference}:
        model = encoded.model(np.eye(3)[reference] - np.eye(3)[rival])
        assert model.direction is Direction.EXACT
        answer = SOLVERS[solver].solve(model, 60.0)
        assert answer.termination is Termination.OPTIMAL
        found = min(found, float(model.cost @ answer.primal))
    ends = region.enclosure()
    exact = least_margin(network, ends.lower[0].tolist(), ends.upper[0].tolist(), reference)
    if abs(exact) > 1e-9:
        assert bool(ExactMethod().decide(batch, region, Budget()).certified[0]) is (exact > 0)
    return found, float(exact)


@pytest.mark.parametrize("seed", range(24))
def test_highs_agrees_with_brute_force_and_our_search(seed):
    found, exact = least_by("highs", seed, 0.3)
    assert found == pytest.approx(exact, abs=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_cbc_agrees_too(seed):
    found, exact = least_by("pulp", seed, 0.3)
    assert found == pytest.approx(exact, abs=1e-5)


def test_known_units_get_no_binary_and_ops_without_the_view_are_named():
    network = hinge_network(0)
    batch = batch_of(network, 1, 0)
    bounds = LinearBounds(network, batch.region(0.1))
    encoded = encode_exactly(bounds.network, bounds.boxes)
    sources = [node.inputs[0] for node in network.nodes if not node.op.linear]
    units = sum(int(((bounds.boxes[s].lower < 0) & (bounds.boxes[s].upper > 0)).sum()) for s in sources)
    assert int(encoded.integer.sum()) == units
    assert not relax(bounds.network, bounds.boxes).integer.any()
    smooth = chain((2,), Sigmoid(), Affine(torch.eye(2)))
    bounds = LinearBounds(smooth, batch.region(0.1))
    with pytest.raises(ValueError, match=r"view 'exact'.*0-sigmoid"):
        encode_exactly(bounds.network, bounds.boxes)
