"""Copies of networks as one network: its values are theirs, exactly."""

from dataclasses import replace

import pytest
import torch

from encoders.exact_order import evaluate_exactly
from encoders.joint import Copy, Joint
from encoders.ops import Affine, Relu, Reshape
from encoders.passes.join_networks import common_dtype, join_networks
from tests.networks.chains import chain, random_relu_network

F = random_relu_network(3)
G = chain((2, 1), Reshape((2,)), Affine(torch.tensor([[0.5, -2.0]]), torch.tensor([0.25])), Relu())
JOINT = Joint(
    4,
    (Copy("f", (2,), (0, 2), 3), Copy("g", (2, 1), (3, 0), 1), Copy("f", (2,), (-1, 2), 3, (0.375, 0.0))),
    (2, 0),
)


def test_values_are_those_of_the_copies_in_real_arithmetic() -> None:
    joined = join_networks(JOINT, {"f": F, "g": G})
    assert joined.input_shape == (4,) and joined.output_shape == (3 + 1 + 3 + 2,)
    points = torch.randn(20, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    fixed = points.new_full((20,), 0.375)
    inputs = [points[:, [0, 2]], points[:, [3, 0]].reshape(20, 2, 1), torch.stack([fixed, points[:, 2]], dim=1)]
    parts = [
        evaluate_exactly(network, x).values() for network, x in zip((F, G, F), inputs, strict=True)
    ]  # fmt: skip
    found = evaluate_exactly(joined, points).values()
    for row in range(20):
        wanted = [part[row * size + k] for part, size in zip(parts, (3, 1, 3), strict=True) for k in range(size)]
        shown = points[row, [2, 0]].tolist()
        assert found[row * 9 : row * 9 + 9] == [*wanted, *shown]


def test_a_single_copy_of_all_inputs_is_the_network() -> None:
    points = torch.rand(5, 2, generator=torch.Generator().manual_seed(1))
    joined = join_networks(Joint(2, (Copy("f", (2,), (0, 1), 3),)), {"f": F})
    assert torch.equal(joined.evaluate(points), F.evaluate(points))


@pytest.mark.parametrize(
    ("copy", "message"),
    [
        (Copy("f", (3,), (0, 1, 2), 3), "of 3 inputs and 3 outputs, network has 2 and 3"),
        (Copy("f", (2,), (0, 1), 2), "of 2 inputs and 2 outputs"),
        (Copy("f", (2,), (0, -1), 3, (0.0, 0.1)), "0.1, which is no float32"),
    ],
)
def test_a_copy_that_does_not_fit_is_refused(copy: Copy, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        join_networks(Joint(4, (copy,)), {"f": F})


def test_the_dtype_is_one_that_every_network_takes() -> None:
    wide = replace(F, dtype=torch.float64)
    assert join_networks(Joint(2, (Copy("f", (2,), (0, 1), 3), Copy("w", (2,), (0, 1), 3))), {"f": F, "w": wide}).dtype
    assert common_dtype([torch.float64, torch.float16, torch.float32]) == torch.float16
    with pytest.raises(ValueError, match="no dtype in common"):
        common_dtype([torch.float16, torch.bfloat16])
