"""Linear bounds over boxes of weights hold for draws and points, and are no looser than intervals."""

import pytest
import torch
from torch import Tensor

from encoders import Network
from encoders.ops import Conv2d, DropConnect, RandomAffine, RandomConv2d, Relu, Reshape, ResizeAndPad, Tanh
from encoders.region import BallRegion
from tests.networks.chains import chain
from verifier.bounds.linear.bounds import linear_bounds

F64 = torch.float64
WITHIN = 2.5


def rand(*shape: int, seed: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def networks() -> dict[str, Network]:
    conv, dense, last = rand(2, 1, 3, 3, seed=1) - 0.4, rand(5, 32, seed=2) - 0.5, rand(3, 5, seed=3) - 0.5
    head = [
        RandomAffine(dense, deviation=torch.full((5, 32), 0.01, dtype=F64)),
        Tanh(),
        RandomAffine(
            last, rand(3, seed=4), deviation=last.abs() / 30, bias_deviation=torch.full((3,), 0.01, dtype=F64)
        ),
    ]
    random = RandomConv2d(conv, rand(2, seed=5), deviation=conv.abs() / 40)
    return {
        "normal": chain((1, 6, 6), random, Relu(), Reshape((32,)), *head, dtype=F64),
        "placed": chain(
            (1, 6, 6), ResizeAndPad((1, 6, 6), smallest=5), Conv2d(conv), Relu(), Reshape((32,)), *head, dtype=F64
        ),
        "dropped": chain((32,), DropConnect(dense / 4, rate=0.1), Tanh(), DropConnect(last, rate=0.1), dtype=F64),
    }


@pytest.mark.parametrize("name", ["normal", "placed", "dropped"])
def test_linear_bounds_over_draws_contain_ten_thousand_draws_and_points(name: str) -> None:
    network, generator = networks()[name], torch.Generator().manual_seed(6)
    within = network.over_draws(WITHIN)
    shape = network.input_shape
    centre = rand(1, *shape, seed=7) - (0.5 if name == "dropped" else 0.0)
    region = BallRegion(centre, torch.tensor([0.05], dtype=F64), None)
    rows = torch.cat([torch.eye(3, dtype=F64), -torch.eye(3, dtype=F64)])[None]
    least = linear_bounds(within, region).minimise(rows).bound[0]
    (boxes,) = within.interval(region.enclosure())
    assert bool((least >= torch.cat([boxes.lower[0], -boxes.upper[0]]) - 1e-12).all())
    seen = 0
    while seen < 10_000:
        drawn = network.draw(generator)
        if not all(inside(op, node.op) for op, node in zip((n.op for n in network.nodes), drawn.nodes, strict=True)):
            continue
        points = centre + torch.randn(250, *shape, generator=generator, dtype=F64).sign() * (0.05 * (1 - 1e-12))
        outputs = drawn.evaluate(points)
        # 1e-12: float64 evaluation of numbers of size 1.
        assert bool((torch.cat([outputs, -outputs], dim=1) >= least - 1e-12).all())
        seen += len(points)


def inside(op: object, drawn: object) -> bool:
    """Return whether drawn weights lie within the deviations; those without deviations always do."""
    names = {"weight": "deviation", "bias": "bias_deviation"}
    pairs = [(name, getattr(op, spread, None)) for name, spread in names.items()]
    return all(
        spread is None or bool(((getattr(drawn, name) - getattr(op, name)).abs() <= WITHIN * spread).all())
        for name, spread in pairs
    )


def test_more_deviations_are_looser_bounds() -> None:
    network, centre = networks()["normal"], rand(1, 1, 6, 6, seed=8)
    region = BallRegion(centre, torch.tensor([0.02], dtype=F64), None)
    rows = torch.tensor([[[1.0, -1.0, 0.0]]], dtype=F64)
    of = [float(linear_bounds(network.over_draws(k), region).minimise(rows).bound) for k in (0.0, 1.0, 2.0)]
    mean = float(linear_bounds(network, region).minimise(rows).bound)
    assert of[0] == pytest.approx(mean, abs=1e-9) and of[0] > of[1] > of[2]
