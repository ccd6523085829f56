"""The margins of a property: their signs say in exact arithmetic whether outputs are unsafe; bounds as for classes."""

from fractions import Fraction

import pytest
import torch

from encoders import BallRegion, Box, Network
from encoders.exact_order import evaluate_exactly
from encoders.ops import Affine, Conv2d, Relu, Reshape, Tanh
from encoders.passes import margins_of_property
from encoders.passes.margins_of_property import ordered
from encoders.property import Halfspaces, Property
from encoders.questions import always_largest
from tests.networks.chains import chain, hinge_network, random_relu_network
from tests.networks.random_properties import random_property
from verifier.bounds.interval import compare_classes
from verifier.bounds.linear.bounds import linear_bounds
from verifier.bounds.linear.margins import linear_margins

ZERO = torch.tensor([0])


def rows(*values: list[float], offsets: list[float]) -> Halfspaces:
    return Halfspaces(torch.tensor(values, dtype=torch.float64), torch.tensor(offsets, dtype=torch.float64))


def test_the_outputs_are_zero_and_the_distances_to_the_edges() -> None:
    # y = (x, 2 x); unsafe: y_0 <= 1, or y_1 <= 3 and -y_0 <= -1 (x between 1 and 1.5).
    network = chain((1,), Affine(torch.tensor([[1.0], [2.0]])))
    unsafe = (rows([0.0, 1.0], [-1.0, 0.0], offsets=[3.0, -1.0]), rows([1.0, 0.0], offsets=[1.0]))
    margins = margins_of_property(network, unsafe)
    assert [len(halfspaces.offsets) for halfspaces in ordered(unsafe)] == [1, 2]
    outputs = margins.evaluate(torch.tensor([[0.0], [1.0], [1.25], [2.0]], dtype=torch.float64))
    # -z_1 = 1 - x, -z_2 = min(3 - 2 x, x - 1).
    assert outputs.tolist() == [[0.0, 1.0, -1.0], [0.0, 0.0, 0.0], [0.0, -0.25, 0.25], [0.0, -1.0, -1.0]]


@pytest.mark.parametrize("seed", range(40))
def test_signs_are_those_of_membership_in_exact_arithmetic(seed: int) -> None:
    network = hinge_network(seed, (2, 4, 3))
    asked = random_property(network, seed, exact=seed % 2 == 0)
    margins = margins_of_property(network, asked.unsafe)
    generator = torch.Generator().manual_seed(seed)
    points = asked.lower + torch.rand(5, 2, generator=generator, dtype=torch.float64) * (asked.upper - asked.lower)
    outputs = evaluate_exactly(network, points).values()
    values = evaluate_exactly(margins, points).values()
    count = len(asked.unsafe) + 1
    for i in range(5):
        mine, theirs = values[i * count : (i + 1) * count], outputs[i * 3 : (i + 1) * 3]
        assert mine[0] == 0
        for value, halfspaces in zip(mine[1:], ordered(asked.unsafe), strict=True):
            assert (value >= 0) == halfspaces.contains(theirs)
            sums = [sum(Fraction(c) * y for c, y in zip(row, theirs, strict=True))
                    for row in halfspaces.coefficients.tolist()]  # fmt: skip
            assert -value == max(s - Fraction(d) for s, d in zip(sums, halfspaces.offsets.tolist(), strict=True))


def test_rows_are_merged_only_where_nothing_is_rounded() -> None:
    exact = chain((2,), Affine(torch.tensor([[1.5, 2.0], [0.25, 1.0]]), torch.tensor([1.0, 2.0])))
    unsafe = (rows([1.0, -1.0], offsets=[0.5]),)
    (node,) = margins_of_property(exact, unsafe).nodes
    assert node.op.weight.tolist() == [[0.0, 0.0], [-1.25, -1.0]]
    assert node.op.bias.tolist() == [0.0, 1.5]
    # .1 in float64 times 1/3 in float32 has more bits than a float64.
    rounded = chain((2,), Affine(torch.full((2, 2), 1 / 3)))
    assert len(margins_of_property(rounded, (rows([0.1, -1.0], offsets=[0.5]),)).nodes) == 2
    huge = chain((2,), Affine(torch.full((2, 2), 1e38)))
    assert len(margins_of_property(huge, (rows([1e300, -1.0], offsets=[0.5]),)).nodes) == 2


def test_offsets_that_float32_cannot_hold_are_kept() -> None:
    network = chain((1,), Affine(torch.tensor([[1.0], [1.0]])))
    margins = margins_of_property(network, (rows([1.0, 0.0], offsets=[0.1]),))
    below = torch.tensor([[0.1]], dtype=torch.float64)
    above = torch.nextafter(below, torch.tensor(1.0, dtype=torch.float64))
    assert margins.evaluate(below).tolist() == [[0.0, 0.0]]
    assert margins.evaluate(above)[0, 1] < 0


@pytest.mark.parametrize("seed", range(12))
def test_class_robustness_has_the_bounds_of_the_class_form(seed: int) -> None:
    network = random_relu_network(seed, (3, 8, 8, 4))
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(1, 3, generator=generator, dtype=torch.float64)
    box = Box(centre - 0.03, centre + 0.03)
    region = BallRegion.of_box(box)
    winner = int(network.evaluate(centre).argmax())
    asked = always_largest(box.lower[0], box.upper[0], winner, 4)
    margins = margins_of_property(network, asked.unsafe)
    rivals = [k for k in range(4) if k != winner]
    wins = compare_classes(network, box, torch.tensor([winner])).wins[0, rivals]
    assert torch.equal(compare_classes(margins, box, ZERO).wins[0, 1:], wins)
    theirs = linear_margins(network, region, torch.tensor([winner])).lower[0, rivals]
    mine = linear_margins(margins, region, ZERO).lower[0, 1:]
    assert mine.tolist() == pytest.approx(theirs.tolist(), rel=1e-9, abs=1e-12)


def test_several_rows_are_bounded_as_well_as_the_best_of_them() -> None:
    """No proof is lost; the row below a maximum is chosen by bounds that are rarely a little looser than the last."""
    looser, seen = 0, 0
    for seed in range(30):
        network = random_relu_network(seed, (2, 6, 5, 3))
        asked = random_property(network, seed)
        bounds = least_margins(network, list(asked.unsafe), asked)
        for bound, halfspaces in zip(bounds, ordered(asked.unsafe), strict=True):
            rows = [halfspaces.row(number) for number in range(len(halfspaces.offsets))]
            best = max(least_margins(network, rows, asked))
            assert bound > 0 or best <= 0
            looser, seen = looser + (bound < best - 1e-9), seen + 1
    assert seen > 50 and looser <= 2


def least_margins(network: Network, unsafe: list[Halfspaces], asked: Property) -> list[float]:
    """Return the linear bounds of z_j over the box, of the polyhedra in the order of `ordered`."""
    region = BallRegion.of_box(Box(asked.lower[None], asked.upper[None]))
    outputs = torch.eye(len(unsafe) + 1, dtype=torch.float64)
    bounds = linear_bounds(margins_of_property(network, unsafe), region).minimise(outputs[:1] - outputs[None, 1:])
    return bounds.bound[0].tolist()


def test_any_shape_of_output_and_any_last_op_are_taken() -> None:
    image = chain((1, 2, 2), Conv2d(torch.ones(2, 1, 1, 1), None), Tanh())
    unsafe = (rows([1.0] * 8, offsets=[-1.0]), rows([1.0] * 8, [0.0] * 7 + [1.0], offsets=[0.0, 0.5]))
    x = torch.randn(3, 1, 2, 2, dtype=torch.float64)
    y = image.evaluate(x).flatten(1)
    expected = torch.stack([torch.zeros(3), -1 - y.sum(dim=1), -torch.maximum(y.sum(dim=1), y[:, 7] - 0.5)], dim=1)
    assert torch.allclose(margins_of_property(image, unsafe).evaluate(x), expected.double(), atol=1e-12)
    flat = chain((4,), Reshape((2, 2)), Relu())
    assert margins_of_property(flat, (rows([1.0, 0.0, 0.0, 0.0], offsets=[0.5]),)).output_shape == (2,)


def test_a_property_about_other_outputs_is_refused() -> None:
    network = random_relu_network(0)
    with pytest.raises(ValueError, match="has 3 outputs"):
        margins_of_property(network, (rows([1.0], offsets=[0.5]),))
    with pytest.raises(ValueError, match="no polyhedron"):
        margins_of_property(network, ())
