"""Contraction as a method: brackets close around grid radii, witnesses are replayed, what stays open says why."""

from itertools import product

import numpy as np
import pytest
import torch

from encoders import Network
from encoders.ops import Mwd, MwdConv2d, Relu, Reshape
from encoders.satisfiability import Formula, formula_to_network
from tests.answers import bracketed, decided
from tests.networks.batches import batch_of
from tests.networks.chains import chain, random_relu_network
from tests.networks.mwd_chains import KINDS, network_of, uniform_network
from verifier.batch import Batch
from verifier.budget import Budget
from verifier.methods import METHODS
from verifier.methods.contraction import ContractionMethod
from verifier.subject import Subject
from verifier.verdict import Outcome

F64 = torch.float64

pytest.importorskip("numba")


def test_convolutional_layers_are_searched_as_dense_ones():
    generator = torch.Generator().manual_seed(7)
    weight, attractor = (torch.rand(3, 1, 2, 2, generator=generator) for _ in range(2))
    first = MwdConv2d(2 * weight, attractor, torch.tensor([True, False, True]), (1, 1), (1, 1, 0, 0))
    last = uniform_network(8, (6, 3), True).output.op
    network = chain(
        (1, 2, 2),
        first,
        Reshape((12,)),
        Mwd(torch.cat([last.weight] * 2, 1), torch.cat([last.attractor] * 2, 1), last.negated),
    )
    assert METHODS["contraction"].refusal(network) is None
    centres = torch.rand(30, 1, 2, 2, generator=generator)
    batch = batch_of(network, centres, network.evaluate(centres).argmax(dim=1))
    decision = decided(ContractionMethod(), batch, batch.region(0.15), Budget())
    region = batch.region(0.15)
    proved = 0
    for row in range(30):
        points = region.lower[row] + torch.rand(3000, 1, 2, 2, generator=generator, dtype=F64).round() * (
            region.upper[row] - region.lower[row]
        )
        broken = bool((network.scores(points).argmax(dim=1) != batch.classes[row]).any())
        assert not (broken and bool(decision.certified[row]))
        assert broken <= (row in decision.witnesses)
        proved += bool(decision.certified[row])
    assert 0 < proved < 30


def test_the_method_closes_brackets_from_both_sides():
    network = uniform_network(5, (3, 10, 8, 3), False)
    centres = torch.rand(20, 3, generator=torch.Generator().manual_seed(5))
    batch = batch_of(network, centres, network.evaluate(centres).argmax(dim=1))
    findings = bracketed(METHODS["contraction"], batch, [0.1], Budget())
    for bracket in findings.brackets:
        assert bracket.at(0.1) is not Outcome.OPEN
        if bracket.upper < 1.0:
            assert bracket.upper - bracket.lower < 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_brackets_close_to_the_gap_around_the_radius_of_a_grid(kind):
    random = network_of(kind, 2, (2, 10, 8, 3))
    # In float32 the nearest unsafe points of networks that squeeze their inputs are not unsafe when executed.
    network = Network(random.nodes, random.input_shape, F64)
    centres = torch.rand(8, 2, generator=torch.Generator().manual_seed(3), dtype=F64)
    batch = batch_of(network, centres, network.evaluate(centres).argmax(dim=1))
    findings = bracketed(ContractionMethod(100_000, 60, gap=1e-5), batch, [], Budget())
    axis = torch.linspace(0, 1, 401, dtype=F64)
    points = torch.cartesian_prod(axis, axis)
    classes = network.scores(points).argmax(dim=1)
    for row, bracket in enumerate(findings.brackets):
        distances = (points - batch.centres[row]).abs().amax(dim=1)
        unsafe = distances[classes != batch.classes[row]]
        nearest = float(unsafe.min()) if len(unsafe) else np.inf
        assert bracket.lower < nearest or nearest == np.inf
        assert bracket.upper - bracket.lower <= 1e-5 or bracket.lower == bracket.upper == np.inf
        assert bracket.upper <= nearest + 1e-5


def test_a_domain_without_a_witness_is_proved_as_a_whole():
    # The classes' distances are |x| <= 1 and |x - 3| >= 2.
    network = chain((1,), Mwd(torch.ones(2, 1), torch.tensor([[0.0], [3.0]]), torch.zeros(2).bool()))
    batch = batch_of(network, torch.tensor([[0.3]]), torch.tensor([0]))
    findings = bracketed(ContractionMethod(gap=1e-4), batch, [], Budget())
    assert findings.brackets[0].lower == np.inf
    assert not findings.reasons


def test_what_stays_open_says_why():
    formula = Formula(
        3, tuple(tuple(s * v for s, v in zip(signs, (1, 2, 3), strict=True)) for signs in product((1, -1), repeat=3))
    )
    batch = batch_of(formula_to_network(formula), torch.full((1, 3), 0.5), torch.tensor([0]))

    def reason(method: ContractionMethod, batch: Batch, radius: float, budget: Budget) -> str:
        decision = decided(method, batch, batch.region(radius), budget)
        assert not decision.certified[0] and not decision.witnesses
        return decision.reasons[0]

    assert "class 1: limit of 1 boxes" in reason(ContractionMethod(1), batch, 0.5, Budget())
    assert "no time" in reason(ContractionMethod(), batch, 0.5, Budget(0.0))
    safe = decided(ContractionMethod(), batch, batch.region(0.5), Budget())
    assert safe.certified[0] and not safe.reasons
    # The classes tie at 1/2, a radius of 0.2 away; a ball short of that by less than the padding is not decided.
    network = chain((1,), Mwd(torch.ones(2, 1), torch.tensor([[0.0], [1.0]]), torch.zeros(2).bool()))
    batch = batch_of(network, torch.tensor([[0.3]], dtype=F64), torch.tensor([0]))
    assert "padding" in reason(ContractionMethod(), batch, 0.2 - 3e-16, Budget())
    assert decided(ContractionMethod(), batch, batch.region(0.2 - 1e-13), Budget()).certified[0]


def test_points_that_the_model_does_not_confirm_leave_the_input_open():
    network = chain((1,), Mwd(torch.ones(2, 1), torch.tensor([[0.0], [1.0]]), torch.zeros(2).bool()))
    stubborn = Subject("test", network, lambda x: np.tile([[1.0, 0.0]], (len(x), 1)), torch.device("cpu"))
    batch = Batch(stubborn, torch.tensor([[0.3]], dtype=F64), torch.tensor([0]), (0,), (0.0, 1.0), 1.0)
    decision = decided(ContractionMethod(), batch, batch.region(0.4), Budget())
    assert not decision.certified[0] and not decision.witnesses
    assert "no replay confirms" in decision.reasons[0]


def test_other_networks_are_refused_by_node():
    assert METHODS["contraction"].refusal(uniform_network(0, (2, 4, 3), True)) is None
    assert "1-relu" in METHODS["contraction"].refusal(
        chain((2,), *[n.op for n in uniform_network(0, (2, 3), True).nodes], Relu())
    )
    assert "affine" in METHODS["contraction"].refusal(random_relu_network(0))
    weights = torch.ones(2, 1, 2, 2), torch.zeros(2, 1, 2, 2), torch.tensor([True, False])
    convolution = chain((1, 2, 2), MwdConv2d(*weights), Reshape((2,)))
    assert "last layer of kind mwd; node '1-reshape'" in METHODS["contraction"].refusal(convolution)
    huge = chain((1, 200, 200), MwdConv2d(*weights))
    assert "a dense layer of 3,168,080,000 weights" in METHODS["contraction"].refusal(huge)
