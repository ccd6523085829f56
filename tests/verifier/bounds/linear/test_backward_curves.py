"""Bounds of networks of curves: no sampled point lies below what any method for them proves, and they are not loose."""

import math

import numpy as np
import pytest
import torch

from encoders.box import Box
from encoders.formulations.relax import encode_exactly, relax
from encoders.network import INPUT
from encoders.ops import Affine, Curve
from encoders.region import BallRegion
from tests.networks.chains import chain
from verifier.bounds.linear.bounds import linear_bounds
from verifier.solvers import SOLVERS

F64 = torch.float64
POINTS = 4000
# What solvers let rows and binaries miss.
SOLVER = 1e-6
# By how much bounds may be wider than what was seen, on boxes where curves are nearly straight.
TIGHT = 1.6
FUNCTIONS: list[tuple[str, tuple[float, ...]]] = [
    ("gelu", ()), ("gelu-tanh", ()), ("silu", ()), ("mish", ()), ("elu", (1.0,)), ("selu", (1.6732632, 1.0507009)),
    ("celu", (0.5,)), ("softplus", (1.0, 20.0)), ("hard-swish", ()), ("erf", ()), ("sign", ()), ("softsign", ()),
    ("power", (2.0,)), ("power", (3.0,)), ("tanhshrink", ()), ("arctangent", ()), ("exp", ()),
]  # fmt: skip


@pytest.mark.parametrize(("function", "arguments"), FUNCTIONS, ids=[name for name, _ in FUNCTIONS])
@pytest.mark.parametrize("radius", [0.02, 0.5])
def test_no_bound_of_a_network_of_curves_is_violated(
    function: str, arguments: tuple[float, ...], radius: float
) -> None:
    generator = torch.Generator().manual_seed(len(function))
    layers = [
        Affine(
            torch.randn(b, a, generator=generator, dtype=F64) / math.sqrt(a) * 1.5,
            torch.randn(b, generator=generator, dtype=F64) * 0.5,
        )
        for a, b in ((3, 8), (8, 8), (8, 2))
    ]
    op = Curve(function, arguments)
    network = chain((3,), layers[0], op, layers[1], op, layers[2], dtype=F64)
    centre = torch.randn(1, 3, generator=generator, dtype=F64)
    region = BallRegion(centre, torch.tensor([radius], dtype=F64), None, "inf")
    box = region.enclosure()
    points = centre + radius * (2.0 * torch.rand(POINTS, 3, generator=generator, dtype=F64) - 1.0)
    seen = network.evaluate(torch.cat([points, centre + radius * (points - centre).sign() * (1 - 1e-12)]))
    least, greatest = seen.amin(dim=0), seen.amax(dim=0)
    slack = 1e-12 * (1.0 + float(seen.abs().max()))
    names = [node.name for node in network.nodes]
    intervals = dict(zip(names, network.interval(box, names), strict=True))
    bounds = linear_bounds(network, region)
    eye = torch.eye(2, dtype=F64)
    rows = torch.cat([eye, -eye])[None]
    proved = bounds.minimise(rows).bound[0]
    last = intervals[names[-1]]
    assert bool((proved[:2] <= least + slack).all()) and bool((-proved[2:] >= greatest - slack).all())
    assert bool((last.lower[0] <= least + slack).all()) and bool((last.upper[0] >= greatest - slack).all())
    if radius < 0.1 and function != "sign":
        # Curves are nearly straight on so small boxes.
        assert bool((-proved[2:] - proved[:2] <= TIGHT * (greatest - least) + 1e-9).all())
    boxes: dict[str, Box] = {INPUT: box, **bounds.boxes}
    for encoded in (relax(network, boxes), encode_exactly(network, boxes, 2)):
        answer = SOLVERS["highs"].solve(encoded.model(np.array([1.0, -1.0])), 20.0)
        assert answer.bound is None or answer.bound <= float((seen[:, 0] - seen[:, 1]).min()) + SOLVER
