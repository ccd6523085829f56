"""What intervals prove about classes: never against brute force, exact where nothing is lost."""

from fractions import Fraction
from itertools import pairwise, product

import pytest
import torch

from encoders import Box
from encoders.ops import Affine, Mwd, Relu
from tests.networks.chains import chain, random_relu_network
from tests.networks.mwd_chains import random_mwd_network
from tests.seeds import seeds
from verifier.bounds.interval import compare_classes, proves, refute_at


def grid(box: Box, steps: int) -> torch.Tensor:
    """Return a grid over the first (two-dimensional) box, corners included."""
    axes = [
        torch.linspace(float(a), float(b), steps, dtype=torch.float64)
        for a, b in zip(box.lower[0], box.upper[0], strict=True)
    ]
    return torch.cartesian_prod(*axes)


@pytest.mark.parametrize("make", [random_relu_network, random_mwd_network])
@pytest.mark.parametrize("seed", seeds(4, 12))
def test_no_proof_is_contradicted_by_a_dense_grid(make, seed):
    network = make(seed)
    generator = torch.Generator().manual_seed(seed)
    proved = 0
    for _ in range(20):
        centre = torch.rand(1, 2, generator=generator, dtype=torch.float64)
        radius = 0.15 * float(torch.rand(1, generator=generator))
        box = Box((centre - radius).clamp(0, 1), (centre + radius).clamp(0, 1))
        classes = network.scores(centre).argmax(dim=1)
        comparison = compare_classes(network, box, classes)
        scores = network.scores(grid(box, 41))
        own = scores[:, classes]
        for k in range(scores.shape[1]):
            if k == int(classes):
                continue
            if comparison.wins[0, k]:
                proved += 1
                assert bool((own[:, 0] > scores[:, k]).all())
            assert not comparison.loses[0, k]  # the centre itself is on the right side
    assert proved > 0


def test_a_linear_classifier_is_decided_exactly():
    # y_0 - y_1 = 2 x_0 - x_1 - 0.25 over [.5 - e, .5 + e]^2: the least value is .25 - 3 e, so rho = 1/12.
    network = chain((2,), Affine(torch.tensor([[1.0, -1.0], [-1.0, 0.0]]), torch.tensor([0.0, 0.25])))
    centre, classes = torch.full((1, 2), 0.5, dtype=torch.float64), torch.tensor([0])
    for epsilon, expected in ((1 / 12 - 1e-9, True), (1 / 12 + 1e-9, False)):
        assert bool(proves(network, Box(centre - epsilon, centre + epsilon), classes)) is expected


def test_merging_the_last_layer_beats_the_difference_of_two_ranges():
    # Both outputs move together, so their difference is constant: y_0 - y_1 = 0.1 whatever x is.
    network = chain((1,), Affine(torch.tensor([[5.0], [5.0]]), torch.tensor([0.1, 0.0])))
    box = Box(torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64))
    assert bool(proves(network, box, torch.tensor([0])))


def test_mwd_classes_are_compared_before_the_exp_underflows():
    # z = 30 and 40: exp(-900) and exp(-1600) are both zero in float64, yet class 0 is nearer.
    network = chain(
        (1,), Mwd(torch.tensor([[30.0], [40.0]]), torch.tensor([[0.0], [0.0]]), torch.zeros(2, dtype=torch.bool))
    )
    point = torch.ones(1, 1, dtype=torch.float64)
    assert network.evaluate(point).tolist() == [[0.0, 0.0]]
    assert bool(proves(network, Box.point(point), torch.tensor([0])))
    assert bool(refute_at(network, point, torch.tensor([1])).refuted)


def test_a_real_tie_is_neither_proved_nor_certainly_refuted_by_a_rounded_enclosure():
    network = chain((1,), Affine(torch.tensor([[0.1], [0.1]])), Relu())
    point = torch.ones(1, 1, dtype=torch.float64)
    assert not bool(proves(network, Box.point(point), torch.tensor([0])))


def test_a_refutation_holds_in_rational_arithmetic():
    network = random_relu_network(3)
    points = torch.rand(200, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    classes = torch.arange(200) % 3
    refuted = refute_at(network, points, classes).refuted
    assert 0 < int(refuted.sum()) < 200
    layers = [(node.op.weight.tolist(), node.op.bias.tolist()) for node in network.nodes if isinstance(node.op, Affine)]
    for row in torch.nonzero(refuted).squeeze(1).tolist():
        values = [Fraction(v) for v in points[row].tolist()]
        for number, (weight, bias) in enumerate(layers):
            values = [
                sum(Fraction(w) * v for w, v in zip(r, values, strict=True)) + Fraction(b)
                for r, b in zip(weight, bias, strict=True)
            ]
            if number < len(layers) - 1:
                values = [max(v, Fraction(0)) for v in values]
        own = values[int(classes[row])]
        assert any(v >= own for k, v in enumerate(values) if k != int(classes[row]))


def test_certified_boxes_are_nested():
    network = random_mwd_network(5, (4, 8, 6, 3))
    centre = torch.rand(50, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    classes = network.scores(centre).argmax(dim=1)
    masks = [
        proves(network, Box((centre - e).clamp(0, 1), (centre + e).clamp(0, 1)), classes)
        for e in (0.0, 0.01, 0.05, 0.2)
    ]
    assert bool(masks[0].all())
    for smaller, larger in pairwise(masks):
        assert not bool((larger & ~smaller).any())


def test_brute_force_over_corners_agrees_for_one_layer():
    generator = torch.Generator().manual_seed(7)
    for _ in range(30):
        network = chain((4,), Affine(torch.randn(3, 4, generator=generator), torch.randn(3, generator=generator)))
        centre = torch.rand(1, 4, generator=generator, dtype=torch.float64)
        classes = network.scores(centre).argmax(dim=1)
        box = Box(centre - 0.1, centre + 0.1)
        corners = torch.tensor(
            [[(box.lower, box.upper)[bit][0, i] for i, bit in enumerate(bits)] for bits in product((0, 1), repeat=4)]
        )
        scores = network.scores(corners)
        margins = scores[:, classes] - scores
        margins[:, int(classes)] = torch.inf
        assert bool(proves(network, box, classes)) is bool((margins > 0).all())
