"""Boxes tightened by linear programs: they hold every value, gain something, and change no answer."""

import numpy as np
import pytest
import torch

from encoders.network import INPUT
from encoders.ops import Affine, LeakyRelu
from tests.answers import decided
from tests.networks.batches import random_batch
from tests.networks.chains import chain, hinge_network, random_relu_network
from tests.networks.open_cases import open_case
from tests.seeds import few_or
from verifier.bounds.linear.bounds import linear_bounds
from verifier.bounds.programs.tightening import tighten
from verifier.budget import Budget
from verifier.methods.milp import MilpMethod

MILP = MilpMethod()


def test_tightened_boxes_hold_every_value_and_leave_fewer_units_open():
    gained = 0
    for seed in range(4):
        network = random_relu_network(seed, (4, 12, 10, 8, 4))
        batch = random_batch(network, 1, seed)
        region = batch.region(0.3)
        bounds = linear_bounds(network, region)
        row = np.array([1.0, -1.0, 0.0, 0.0])
        found = tighten(bounds, row, 60.0)
        assert found.open_units <= found.open_before
        assert (found.programs > 0) is (found.open_before > 0)
        gained += found.open_before - found.open_units
        inside = region.enclosure()
        x = inside.lower + torch.rand(2000, 4, generator=torch.Generator().manual_seed(seed)) * (
            inside.upper - inside.lower
        )
        values = {INPUT: x}
        for node in bounds.network.nodes:
            values[node.name] = node.op.evaluate(*(values[name] for name in node.inputs))
        for name, box in found.boxes.items():
            assert bool((box.lower <= values[name] + 1e-12).all()) and bool((values[name] - 1e-12 <= box.upper).all())
            assert bool((box.lower >= bounds.boxes[name].lower).all())
    assert gained > 0


@pytest.mark.parametrize("count", few_or(3, 6))
def test_tightening_without_time_changes_nothing_and_with_time_no_answer(count):
    network, batch, radius = open_case()
    bounds = linear_bounds(network, batch.region(radius))
    nothing = tighten(bounds, np.array([1.0, -1.0, 0.0]), 0.0)
    assert nothing.programs == 0 and nothing.boxes is bounds.boxes and nothing.open_units == nothing.open_before > 0
    tightened = MilpMethod(tighten=5.0)
    for seed in range(count):
        some = random_batch(hinge_network(seed), 1, seed)
        plain, tight = (decided(m, some, some.region(0.2), Budget()) for m in (MILP, tightened))
        assert plain.certified.tolist() == tight.certified.tolist() and set(plain.witnesses) == set(tight.witnesses)


def test_leaky_units_of_any_slope_are_tightened_soundly():
    generator = torch.Generator().manual_seed(1)
    first, second = torch.randn(6, 2, generator=generator), torch.randn(4, 6, generator=generator)
    network = chain((2,), Affine(first), LeakyRelu(0.3), Affine(second), LeakyRelu(0.3), Affine(torch.eye(3, 4)))
    batch = random_batch(network, 1, 1)
    bounds = linear_bounds(network, batch.region(0.4))
    found = tighten(bounds, np.array([1.0, -1.0, 0.0]), 30.0)
    x = bounds.region.lower + torch.rand(3000, 2, generator=generator) * (bounds.region.upper - bounds.region.lower)
    first, relu, second = bounds.network.nodes[:3]
    values = second.op.evaluate(relu.op.evaluate(first.op.evaluate(x)))
    box = found.boxes[second.name]
    assert bool(((box.lower - 1e-12 <= values) & (values <= box.upper + 1e-12)).all())
