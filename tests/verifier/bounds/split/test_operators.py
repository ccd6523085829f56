"""A network as its ops does what it does as matrices, forward and back, with all units and with the open ones alone."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from encoders.network import INPUT, Network, Node
from encoders.ops import Add, Affine, AveragePool2d, BatchNorm, Conv2d, GlobalAveragePool, MaxPool2d, Op, Relu, Reshape
from encoders.passes import expand_max_pools
from encoders.region import BallRegion
from tests.networks.batches import random_batch
from tests.networks.chains import chain
from tests.networks.hinge_graphs import hinge_networks, odd_network
from tests.networks.random_boxes import box_of, points_of
from tests.seeds import seeds
from verifier.bounds.split import operators
from verifier.bounds.split.dual_ascent import DualAscent, Lines
from verifier.bounds.split.form import HingeNetwork
from verifier.bounds.split.operators import OperatorNetwork, open_form
from verifier.bounds.split.question import split_question
from verifier.bounds.split.search import decide_ball
from verifier.bounds.split.stages import StagedNetwork, StageUnits, staged, with_known_signs
from verifier.budget import Budget

F64 = torch.float64
# Sums of at most a few hundred products of moderate numbers, in float64 and in float32.
ROUNDING = {F64: 1e-9, torch.float32: 2e-3}


def residual_network(seed: int, dtype: torch.dtype = F64) -> Network:
    """Return convolutions, batch norms, a residual sum, an average pool and a last layer of three classes."""
    generator = torch.Generator().manual_seed(seed)

    def weight(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype) / math.prod(shape[1:]) ** 0.5

    def normal(count: int) -> BatchNorm:
        return BatchNorm(weight(count, 1)[:, 0], torch.rand(count, generator=generator, dtype=dtype) + 0.5,
                         torch.ones(count, dtype=dtype), weight(count, 1)[:, 0])  # fmt: skip

    ops: list[tuple[str, Op, tuple[str, ...]]] = [
        ("first", Conv2d(weight(4, 2, 3, 3), weight(4, 1)[:, 0], (2, 2), (1, 1, 1, 1)), (INPUT,)),
        ("norm", normal(4), ("first",)),
        ("relu", Relu(), ("norm",)),
        ("inner", Conv2d(weight(4, 4, 3, 3), None, (1, 1), (1, 1, 1, 1)), ("relu",)),
        ("relu2", Relu(), ("inner",)),
        ("outer", Conv2d(weight(4, 4, 3, 3), weight(4, 1)[:, 0], (1, 1), (1, 1, 1, 1)), ("relu2",)),
        ("sum", Add(), ("outer", "relu")),
        ("relu3", Relu(), ("sum",)),
        ("pool", (AveragePool2d((2, 2), (2, 2)), GlobalAveragePool(9))[seed % 2], ("relu3",)),
        ("flat", Reshape((4,)), ("pool",)),
        ("last", Affine(weight(3, 4), weight(3, 1)[:, 0]), ("flat",)),
    ]
    size = 3 if seed % 2 == 0 else 6
    return Network(tuple(Node(*op) for op in ops), (2, size, size), dtype)


def networks(seed: int) -> list[Network]:
    return [hinge_networks(40)[seed], odd_network(seed), residual_network(seed)]


def close(a: torch.Tensor, b: torch.Tensor, share: float) -> bool:
    size = max(1.0, float(a.abs().max()) if a.numel() else 1.0)
    return bool(((a - b).abs() <= share * size).all())


def both_ways(
    form: HingeNetwork, stage: int, rows: torch.Tensor, points: torch.Tensor, slopes: list[torch.Tensor]
) -> list[torch.Tensor]:
    """Return what hinges read and cost when each unit is a line through zero, and what is left at the end."""
    seen = []
    which = [*form.hinges, form.output][stage]

    def at_hinge(k: int, value: torch.Tensor) -> torch.Tensor:
        seen.append(value)
        return value * slopes[k].to(value.dtype)

    form.forward(which, points.to(form.dtype), at_hinge)
    return [*form.back(which, rows.to(form.dtype), at_hinge), form.outputs(points.to(form.dtype)), *seen]


@pytest.mark.parametrize("seed", seeds(12, 40))
def test_ops_and_matrices_agree_forward_and_back(seed):
    generator = torch.Generator().manual_seed(seed)
    for network in networks(seed):
        plain = expand_max_pools(network)
        matrices, ops = staged(plain), OperatorNetwork(plain)
        assert [stage.size for stage in ops.hinges] == [stage.size for stage in matrices.hinges]
        assert [(h.source, h.left) for h in ops.hinges] == [(h.source, h.left) for h in matrices.hinges]
        points = torch.randn(3, ops.inputs, generator=generator, dtype=F64)
        slopes = [torch.rand(stage.size, generator=generator, dtype=F64) for stage in ops.hinges]
        rows = torch.randn(3, ops.output.size, generator=generator, dtype=F64)
        for dtype, share in ROUNDING.items():
            found = both_ways(ops.to(dtype, "cpu"), -1, rows, points, slopes)[:3]
            expected = both_ways(matrices.to(dtype, "cpu"), -1, rows, points, slopes)[:3]
            assert all(part.dtype == dtype for part in found)
            assert all(close(a, b, share) for a, b in zip(found, expected, strict=True)), network.source


@pytest.mark.parametrize("seed", seeds(12, 40))
def test_open_units_alone_give_the_bounds_of_all(seed):
    """As ops, as matrices, and with all units, whose known lines are fixed; units that do not count may differ."""
    generator = torch.Generator().manual_seed(seed)
    for network in networks(seed):
        plain = expand_max_pools(network)
        ops = OperatorNetwork(plain)
        count = sum(stage.size for stage in ops.hinges)
        ends = torch.randn(2, 1, count, generator=generator, dtype=F64).sort(dim=0).values
        box = torch.randn(2, ops.inputs, generator=generator, dtype=F64).sort(dim=0).values
        whole = DualAscent(ops, *box)
        lines = Lines.on(*ends, whole.left)
        is_open = lines.span[0] > 0
        places = torch.nonzero(is_open).squeeze(1)
        rows = torch.randn(70, ops.output.size, generator=generator, dtype=F64)
        slopes = torch.rand(70, count, generator=generator, dtype=F64)
        multipliers = torch.randn(70, count, generator=generator, dtype=F64) * is_open
        expected = whole.evaluate(ops.output, rows, lines, slopes, multipliers)
        forms = (ops.with_known_signs(is_open, lines.slope[0]), with_known_signs(ops, is_open, lines.slope[0]),
                 with_known_signs(staged(plain), is_open, lines.slope[0]))  # fmt: skip
        for form in forms:
            ascent = DualAscent(form, *box)
            found = ascent.evaluate(form.output, rows, lines.at(places), slopes[:, places], multipliers[:, places])
            assert close(expected.bound, found.bound, 1e-8)
            assert close(expected.costs[:, places], found.costs, 1e-8)
            assert close(expected.slope_gain[:, places], found.slope_gain, 1e-8)
            counts = (expected.costs[:, places] != 0).any(dim=0)
            assert close(expected.multiplier_gain[:, places[counts]], found.multiplier_gain[:, counts], 1e-8)


@pytest.mark.parametrize("seed", seeds(6, 30))
def test_bounds_of_ops_are_below_every_value(seed):
    """Within the boxes of units that intervals give, whatever slopes and multipliers are; piece by piece too."""
    generator = np.random.default_rng(seed)
    network = residual_network(seed)
    box = box_of(network, generator)
    ops = OperatorNetwork(network)
    names = [stage.source for stage in ops.hinges]
    boxes = network.interval(box, names)
    ends = [torch.cat([getattr(b, end).flatten() for b in boxes])[None] for end in ("lower", "upper")]
    ascent = DualAscent(ops, box.lower.flatten(), box.upper.flatten())
    lines = Lines.on(*ends, ascent.left)
    count = 2 * operators.PIECE + 1
    torch.manual_seed(seed)
    rows = torch.randn(count, 3, dtype=F64)
    slopes, multipliers = (
        torch.rand(count, len(ascent.left), dtype=F64),
        torch.randn(count, len(ascent.left), dtype=F64),
    )
    bounds = ascent.bound(ops.output, rows, lines, slopes, multipliers)
    best = ascent.ascend(ops.output, rows, lines, slopes, multipliers, 3, np.inf)[0]
    assert (best >= bounds).all()
    points = torch.stack([torch.from_numpy(point) for point in points_of(box, generator, 50)])
    least = (network.evaluate(points) @ rows.T).amin(dim=0)
    size = 1.0 + float(points.abs().max())
    assert (torch.stack([bounds, best]) <= least + 1e-9 * size).all()


@pytest.mark.parametrize("seed", seeds(4, 20))
@pytest.mark.parametrize("as_ops", [True, False])
def test_answers_about_residual_networks_are_certified_or_replayed(seed, as_ops, monkeypatch):
    """The search as ops and as matrices: proofs pass the check, and what has a counterexample is never proved."""
    monkeypatch.setattr(operators, "COST", 1e-9 if as_ops else 1e9)
    network = residual_network(seed)
    batch = random_batch(network, 1, seed)
    verdicts = []
    for radius in (0.02, 0.1, 0.4):
        region: BallRegion = batch.region(radius)
        found = torch.zeros(0)

        def attack(points: torch.Tensor) -> bool:
            nonlocal found
            wins = network.evaluate(points).argmax(dim=1) == batch.classes[0]
            found = points[~wins]
            return len(found) > 0

        answer = decide_ball(network, region, int(batch.classes[0]), attack, Budget(), 300)
        assert not (answer.proved and answer.falsified)
        if answer.certificate is not None:
            answer.certificate.check(network)
        verdicts.append(answer.proved)
    assert verdicts == sorted(verdicts, reverse=True)


def test_the_cheaper_form_is_chosen():
    """A convolution of a large map stays one; fully connected layers are matrices; so are values beyond float32."""
    weight = torch.randn(2, 1, 3, 3, dtype=F64)
    map_ops: list[Op] = [Conv2d(weight, None, (1, 1), (1, 1, 1, 1)), Relu(), Reshape((2 * 400,)),
                         Affine(torch.randn(2, 800, dtype=F64))]  # fmt: skip
    large = chain((1, 20, 20), *map_ops, dtype=F64)
    box = -torch.ones(400, dtype=F64), torch.ones(400, dtype=F64)
    form, units = operators.chosen_form(large, *box)
    assert isinstance(form, OperatorNetwork) and not any(units.stages)
    huge = chain((1, 20, 20), replace(map_ops[0], weight=weight * 2.0**80), *map_ops[1:], dtype=F64)
    form, units = operators.chosen_form(huge, *box)
    assert isinstance(form, StagedNetwork) and max(units.stages) > 60
    flat = chain((4,), Affine(torch.eye(4, dtype=F64)), Relu(), Affine(torch.eye(4, dtype=F64)), dtype=F64)
    assert isinstance(
        operators.chosen_form(flat, -torch.ones(4, dtype=F64), torch.ones(4, dtype=F64))[0], StagedNetwork
    )
    ops = OperatorNetwork(large)
    few = torch.zeros(800, dtype=torch.bool)
    few[3] = True
    assert isinstance(open_form(ops, few, torch.ones(800, dtype=F64)), StagedNetwork)
    assert isinstance(open_form(ops, ~few, torch.ones(800, dtype=F64)), OperatorNetwork)


def test_units_of_the_output_scale_bounds_and_outputs():
    network = residual_network(1)
    ops = OperatorNetwork(network)
    scaled = ops.in_units(StageUnits((0, 0, 0, 0), torch.zeros(0)), 3)
    points, rows = torch.rand(2, ops.inputs, dtype=F64), torch.randn(2, 3, dtype=F64)
    assert torch.equal(scaled.outputs(points) * 8, ops.outputs(points))
    for a, b in zip(
        scaled.back(scaled.output, rows, lambda k, c: c), ops.back(ops.output, rows, lambda k, c: c), strict=True
    ):
        assert close(a * 8, b, 1e-12)


def test_max_pools_are_decided_as_ops(monkeypatch):
    monkeypatch.setattr(operators, "COST", 1e-9)
    torch.manual_seed(3)
    first, last = Conv2d(torch.randn(2, 1, 3, 3)), Affine(torch.randn(3, 8))
    network = chain((1, 6, 6), first, MaxPool2d((2, 2), (2, 2)), Relu(), Reshape((8,)), last)
    batch = random_batch(network, 1, 0)
    question = split_question(network, batch.region(0.002), int(batch.classes[0]))
    assert isinstance(question.stages, OperatorNetwork)
    answer = decide_ball(network, batch.region(0.002), int(batch.classes[0]), lambda points: False, Budget(), 300)
    assert answer.certificate is not None
    answer.certificate.check(network)
