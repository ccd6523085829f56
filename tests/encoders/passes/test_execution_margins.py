"""Handicaps: a class that wins them wins every execution; and what nothing is known of is refused by name."""

import numpy as np
import pytest
import torch

from encoders.arithmetic import ARITHMETICS
from encoders.box import Box
from encoders.network import Network
from encoders.ops import AddConstant, Affine, ArgMax, Curve, LogSoftmax, Relu, Sigmoid, Softmax
from encoders.passes.class_scores import class_scores
from encoders.passes.execution_margins import (
    HOPELESS,
    class_errors,
    execution_errors,
    execution_refusal,
    handicapped,
)
from tests.networks.chains import chain, random_relu_network

F64 = torch.float64
FLOAT32 = ARITHMETICS["float32"]
RADIUS = 0.1


def permuted(network: Network, seed: int) -> Network:
    """Return the same function with the units of every hidden layer in another order: its sums are, too."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.arange(network.input_shape[0])
    ops = []
    last = network.output.op
    for node in network.nodes:
        op = node.op
        if isinstance(op, Affine):
            own = torch.arange(len(op.weight)) if op is last else torch.randperm(len(op.weight), generator=generator)
            op, order = Affine(op.weight[own][:, order], op.bias[own]), own
        ops.append(op)
    return chain(network.input_shape, *ops)


@pytest.mark.parametrize("seed", range(3))
def test_executions_in_any_order_lie_within_the_errors(seed: int):
    network = random_relu_network(seed, (12, 40, 30, 5))
    centre = torch.rand(1, 12, generator=torch.Generator().manual_seed(seed)).double()
    box = Box(centre - RADIUS, centre + RADIUS)
    _, errors = execution_errors(network, box, FLOAT32)
    points = (centre + (2 * torch.rand(200, 12, generator=torch.Generator().manual_seed(9)) - 1) * RADIUS).float()
    points = points.clamp(box.lower.float() + 1e-6, box.upper.float() - 1e-6)
    real = network.evaluate(points.double())
    runs = [permuted(network, order).evaluate(points).double() for order in range(5)]
    worst = torch.stack([(run - real).abs().amax(dim=0) for run in runs]).amax(dim=0)
    assert bool((worst <= errors[0]).all()) and float(errors.max()) < 1e-3
    # They differ at all: the bound is not one of nothing.
    assert float(worst.min()) > 0.0


@pytest.mark.parametrize("seed", range(4))
def test_who_wins_with_the_handicap_wins_by_the_errors(seed: int):
    network = random_relu_network(seed)
    errors = torch.rand(3, generator=torch.Generator().manual_seed(seed), dtype=F64) * 0.3
    x = torch.rand(100, 2, generator=torch.Generator().manual_seed(seed), dtype=F64)
    for winner in range(3):
        plain, lowered = network.evaluate(x), handicapped(network, winner, errors).evaluate(x)
        margins = plain[:, winner, None] - plain - errors[winner] - errors
        margins[:, winner] = torch.inf
        found = lowered[:, winner, None] - lowered
        found[:, winner] = torch.inf
        assert bool((found <= margins + 1e-12).all()) and torch.allclose(found, margins)


def test_the_sums_are_rounded_against_the_winner():
    network = chain((1,), Affine(torch.ones(2, 1), torch.tensor([0.1, 0.1])))
    errors = torch.tensor([1e-17, 1e-17], dtype=F64)
    bias = handicapped(network, 0, errors).output.op.bias
    assert bias[0] < 0.1 < bias[1] or (bias[0] < float(torch.tensor(0.1)) < bias[1])


def test_a_last_relu_gets_an_addition():
    network = chain((2,), Affine(torch.eye(2)), Relu())
    found = handicapped(network, 1, torch.tensor([0.25, 0.5], dtype=F64))
    assert found.evaluate(torch.tensor([[3.0, 4.0]], dtype=F64)).tolist() == [[3.25, 3.5]]


def test_shares_of_a_softmax_tie_sooner_than_what_it_reads():
    """Two scores a rounding apart have equal shares; the errors of the scores must say so."""
    network = chain((2,), Affine(torch.eye(2)), Softmax(0))
    classifier = class_scores(network)
    above = float(np.nextafter(np.float32(1.0), np.float32(2.0)))
    points = torch.tensor([[1.0, above], [0.2, 0.2 + 2.0**-26]])
    shares = network.evaluate(points)
    assert bool((shares[:, 0] == shares[:, 1]).any())
    box = Box.point(points.double())
    errors = class_errors(classifier.network, classifier, box, FLOAT32)
    gaps = (points[:, 1] - points[:, 0]).double()
    assert bool((errors.sum(dim=1) > gaps).all()) and float(errors.max()) < 1e-4


@pytest.mark.parametrize("last", [LogSoftmax(0), ArgMax(0)])
def test_other_last_ops_are_counted_too(last):
    network = chain((3,), Affine(torch.eye(3)), last)
    classifier = class_scores(network)
    box = Box.point(torch.rand(1, 3, dtype=F64))
    _, plain = execution_errors(classifier.network, box, FLOAT32)
    errors = class_errors(classifier.network, classifier, box, FLOAT32)
    assert bool((errors >= plain).all())


def test_saturating_sigmoids_of_several_classes_are_refused():
    network = chain((2,), Affine(torch.eye(2)), Sigmoid())
    classifier = class_scores(network)
    with pytest.raises(ValueError, match=r"sigmoid.*which of its inputs its execution still tells apart"):
        class_errors(classifier.network, classifier, Box.point(torch.zeros(1, 2, dtype=F64)), FLOAT32)


def test_a_softmax_in_front_of_another_end_is_refused():
    """Shares of 2000 classes differ by a 2000th of the scores: log-softmax then ties what one end would tell apart."""
    points = torch.zeros(1, 2000)
    points[0, 1] = 5e-5
    ends = chain((2000,), Affine(torch.eye(2000)), Softmax(0), LogSoftmax(0))
    assert int(ends.evaluate(points).argmax()) == 0
    classifier = class_scores(ends)
    assert classifier.network is not ends
    with pytest.raises(ValueError, match=r"softmax.*which of its inputs its execution still tells apart"):
        class_errors(classifier.network, classifier, Box.point(points.double()), FLOAT32)


def test_what_may_overflow_can_never_win():
    network = chain((1,), Affine(torch.tensor([[3e38], [0.0]])))
    errors = class_errors(network, None, Box.point(torch.ones(1, 1, dtype=F64)), FLOAT32)
    assert errors[0, 0] == HOPELESS
    outputs = handicapped(network, 0, errors[0]).evaluate(torch.ones(1, 1, dtype=F64))
    assert outputs[0, 0] < outputs[0, 1]


def test_refusals_name_the_node_and_the_way_out():
    network = chain((2,), Affine(torch.eye(2)), Curve("gelu"))
    assert "1-curve" in execution_refusal(network, FLOAT32) and "real" in execution_refusal(network, FLOAT32)
    assert "--arithmetic float32" in execution_refusal(network, ARITHMETICS["float64"])
    odd = chain((1,), Affine(torch.tensor([[0.1], [0.2]], dtype=F64)))
    assert "weight holds numbers that are no float32" in execution_refusal(odd, FLOAT32)
    assert execution_refusal(random_relu_network(0), FLOAT32) is None


def test_what_is_added_after_a_sum_may_be_its_first_term():
    """x - (c + terms) with c = 2^24: one by one each 1 is lost, which two roundings of the sum do not explain."""
    terms = 64
    network = chain((terms,), Affine(torch.ones(2, terms)), AddConstant(torch.tensor(2.0**24)))
    point = torch.ones(1, terms)
    _, errors = execution_errors(network, Box.point(point.double()), FLOAT32)
    total = torch.tensor(2.0**24)
    for value in point[0]:
        total = total + value
    real = 2.0**24 + terms
    assert abs(float(total) - real) == terms <= float(errors.min())
