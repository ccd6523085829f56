"""The order of classes at a point without rounding: by hand, against fractions, and what it does not decide."""

from fractions import Fraction

import pytest
import torch

from encoders.box import Box
from encoders.exact_order import evaluate_exactly, order_exactly
from encoders.ops import AddConstant, Affine, Conv2d, GlobalAveragePool, Mwd, MwdConv2d, Relu, Reshape, Sigmoid, Tanh
from encoders.rationals import NotEvaluated
from tests.networks.chains import chain
from tests.networks.random_networks import RandomNetwork

F64 = torch.float64


def signs(network, point, reference) -> list[int | None]:
    """Return the sign of y_c - y_k for every class k: 0 a tie, None undecided."""
    order = order_exactly(network, torch.tensor([point]), torch.tensor([reference]))
    names = {(True, False, False): 1, (False, True, False): 0, (False, False, True): -1, (False,) * 3: None}
    columns = zip(order.above[0], order.level[0], order.below[0], strict=True)
    return [names[bool(a), bool(b), bool(c)] for a, b, c in columns]


def test_a_tie_is_a_tie_and_next_to_it_is_none():
    # y = (0.1 x_0 + 0.2 x_1, 0.3 x_1): with the floats of 0.1, 0.2 and 0.3 no float64 sum says which is larger.
    weight = torch.tensor([[0.1, 0.2], [0.0, 0.3], [0.0, 0.0]], dtype=F64)
    network = chain((2,), Affine(weight), dtype=F64)
    sign = (Fraction(0.1) + Fraction(0.2) > Fraction(0.3)) - (Fraction(0.1) + Fraction(0.2) < Fraction(0.3))
    point = torch.tensor([[1.0, 1.0]], dtype=F64)
    order = order_exactly(network, point, torch.tensor([0]))
    assert sign == 1 and bool(order.above[0, 1]) and not bool(order.level[0, 1])
    twice = chain((2,), Affine(torch.tensor([[0.1, 0.2], [0.2, 0.4], [0.0, 0.0]], dtype=F64)), dtype=F64)
    assert bool(order_exactly(twice, 0 * point, torch.tensor([0])).level[0, 1:].all())
    assert bool(order_exactly(twice, point, torch.tensor([0])).below[0, 1])


def test_hand_computed_values_of_a_convolution_and_a_mean():
    # 3 x - 2.5 and x - 0.5 are .5 at 1 and negative at 0, where relu gives 0: the means of .5, .5, .5, 0 are 3/8.
    op = Conv2d(torch.tensor([[[[3.0]]], [[[1.0]]]]), torch.tensor([-2.5, -0.5]))
    network = chain((1, 2, 2), op, Relu(), GlobalAveragePool(4), Reshape((2,)))
    x = torch.tensor([[[[1.0, 1.0], [1.0, 0.0]]]])
    assert evaluate_exactly(network, x).values() == [Fraction(3, 8), Fraction(3, 8)]
    assert bool(order_exactly(network, x, torch.tensor([1])).level[0, 0])


@pytest.mark.parametrize("seed", range(40))
def test_random_networks_agree_with_intervals_and_floats(seed):
    network = RandomNetwork(seed).build()
    x = torch.rand(3, *network.input_shape, generator=torch.Generator().manual_seed(seed), dtype=F64)
    try:
        found = evaluate_exactly(network, x)
    except NotEvaluated as error:
        assert "node" in str(error)
        return
    (box,) = network.interval(Box.point(x))
    ends = zip(box.lower.flatten().tolist(), found.values(), box.upper.flatten().tolist(), strict=True)
    assert all(a <= value <= b for a, value, b in ends)


def test_a_last_sigmoid_or_tanh_keeps_the_order_of_what_it_reads():
    for link in (Sigmoid(), Tanh()):
        # Beyond 40 both outputs are 1 in every float format.
        network = chain((1,), Affine(torch.tensor([[100.0], [100.0], [101.0]])), link, Reshape((3,)))
        assert signs(network, [1.0], 0) == [None, 0, -1]


def test_a_last_mwd_layer_is_compared_by_distances_of_units_of_one_type():
    # Distances 2, 2, 3 and 0.5 at x = 0; exp(-z^2) falls, 1 - exp(-z^2) rises.
    weight, attractor = torch.ones(4, 1), torch.tensor([[2.0], [-2.0], [3.0], [0.5]])
    plain = chain((1,), Mwd(weight, attractor, torch.zeros(4, dtype=torch.bool)))
    assert signs(plain, [0.0], 0) == [None, 0, 1, -1]
    negated = chain((1,), Mwd(weight, attractor, torch.ones(4, dtype=torch.bool)))
    assert signs(negated, [0.0], 0) == [None, 0, -1, 1]
    mixed = chain((1,), Mwd(weight, attractor, torch.tensor([False, False, True, True])))
    assert signs(mixed, [0.0], 0) == [None, 0, None, None]
    assert signs(mixed, [0.0], 2) == [None, None, None, 1]
    bias = torch.tensor([0.0, 0.25, 1.0, 0.0])
    linear = chain((1,), Mwd(weight, attractor, torch.tensor([False, False, False, True]), bias, "linear"))
    # -2, -1.75, -2 and 0.5.
    assert signs(linear, [0.0], 0) == [None, -1, 0, -1]


def test_a_last_convolutional_mwd_layer_is_compared_likewise():
    op = MwdConv2d(torch.ones(2, 1, 1, 1), torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1), torch.tensor([False, True]))
    network = chain((1, 1, 2), op, Reshape((4,)))
    # Distances of unit 0 at (0, 1): 1 and 0; of unit 1, which is negated: 1 and 2.
    assert signs(network, [[[0.0, 1.0]]], 0) == [None, -1, None, None]
    assert signs(network, [[[0.0, 1.0]]], 3) == [None, None, 1, None]


def test_what_leaves_the_rationals_is_named():
    hidden = chain((1,), Sigmoid(), Affine(torch.ones(2, 1)))
    with pytest.raises(NotEvaluated, match=r"node '0-sigmoid' \(sigmoid\) leaves the rational numbers"):
        order_exactly(hidden, torch.zeros(1, 1), torch.tensor([0]))
    gaussian = Mwd(torch.ones(2, 1), torch.ones(2, 1), torch.zeros(2, dtype=torch.bool))
    with pytest.raises(NotEvaluated, match=r"node '0-mwd' \(mwd\)"):
        order_exactly(chain((1,), gaussian, Affine(torch.ones(2, 2))), torch.zeros(1, 1), torch.tensor([0]))


def test_what_would_take_too_long_is_not_tried():
    network = chain((20,), Affine(torch.ones(30, 20)), Relu(), Affine(torch.ones(2, 30)))
    with pytest.raises(NotEvaluated, match="more than 500 multiplications"):
        order_exactly(network, torch.ones(1, 20), torch.tensor([0]), most=500)
    assert bool(order_exactly(network, torch.ones(1, 20), torch.tensor([0])).level[0, 1])


def test_stored_weights_count_and_not_what_a_runtime_rounds_them_to():
    # Added in float32, 2^24 + 1 is 2^24: a tie there, none in real arithmetic.
    network = chain((1,), Affine(torch.tensor([[1.0], [0.0]])), AddConstant(torch.tensor([1.0, 2.0**24])))
    assert signs(network, [2.0**24], 0) == [None, 1]
    assert network.evaluate(torch.tensor([[2.0**24]])).tolist() == [[2.0**24, 2.0**24]]
