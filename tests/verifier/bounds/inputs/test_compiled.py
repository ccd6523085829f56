"""Compiled loops against points: no unsafe point is lost, and what is written of a box holds in rationals."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch

from encoders.box import Box
from encoders.exact_order import evaluate_exactly
from encoders.network import Network
from encoders.ops import Affine
from tests.networks.chains import chain, random_relu_network
from tests.oracles.polygons import least_margin
from tests.seeds import seeds
from verifier.bounds.inputs import search
from verifier.bounds.inputs.boxes import InputBoxes
from verifier.bounds.inputs.chain import chain_of
from verifier.bounds.inputs.compiled_search import CompiledSearch
from verifier.bounds.inputs.compiled_tree import grown
from verifier.budget import Budget
from verifier.certificates.conjunctions import Conjunctions

UNIT = Box(torch.zeros(1, 2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64))


def started(asked: Conjunctions) -> CompiledSearch:
    found = chain_of(asked, UNIT)
    assert found is not None
    return CompiledSearch.of(found, InputBoxes.root(UNIT.lower, UNIT.upper))


def step(rest: CompiledSearch) -> None:
    """Bound one box, without trying points."""
    rest.waiting, bounded, _, _ = grown(
        rest.chain.layers, rest.boxes, rest.waiting, 1, False, rest.point, rest.least_thin
    )
    assert bounded == 1


def random_asked(seed: int) -> Conjunctions:
    """Return one to three groups of one to three random rows of a random network."""
    generator = torch.Generator().manual_seed(seed)
    network = random_relu_network(seed, (2, 10, 8, 3)).cast(torch.float64, torch.device("cpu"))
    sizes = torch.randint(1, 4, (1 + seed % 3,), generator=generator).tolist()
    ends = np.cumsum([0, *sizes]).tolist()
    rows = torch.randn(ends[-1], 3, generator=generator, dtype=torch.float64)
    # Offsets at which a few percent of the points are below each row.
    at = network.evaluate(torch.rand(256, 2, generator=generator, dtype=torch.float64)) @ rows.T
    offsets = at.quantile(0.3, dim=0)
    return Conjunctions(network, rows, offsets, tuple(slice(a, b) for a, b in itertools.pairwise(ends)))


@pytest.mark.parametrize("seed", seeds(12, 200))
def test_no_unsafe_point_is_lost(seed: int) -> None:
    asked = random_asked(seed)
    axis = torch.linspace(0, 1, 101, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    unsafe = grid[asked.excess(grid) < -1e-9].numpy()
    rest = started(asked)
    for _ in range(60):
        if not rest.waiting:
            break
        step(rest)
        lower, upper = rest.boxes[: rest.waiting, :2], rest.boxes[: rest.waiting, 2:4]
        held = (unsafe[:, None] >= lower).all(axis=2) & (unsafe[:, None] <= upper).all(axis=2)
        assert held.any(axis=1).all()
    assert rest.waiting or not len(unsafe)


def wide(seed: int) -> Network:
    """Return a network whose layers cancel: weights of some 1e8, so that roundings are of the size of the outputs."""
    network = random_relu_network(seed, (2, 6, 6, 2))
    ops = [
        Affine(node.op.weight * (1e8 if k == 0 else 1.0), node.op.bias) if isinstance(node.op, Affine) else node.op
        for k, node in enumerate(network.nodes)
    ]
    last = ops[-1]
    assert isinstance(last, Affine)
    ops[-1] = Affine(torch.stack([last.weight[0], last.weight[0] * (1 + 2**-20)]), last.bias)
    return chain((2,), *ops).cast(torch.float64, torch.device("cpu"))


@pytest.mark.parametrize("seed", seeds(6, 100))
def test_functions_below_the_rows_hold_in_rationals(seed: int) -> None:
    network = wide(seed)
    asked = Conjunctions.of_class(network, 0)
    rest = started(asked)
    inputs, units = 2, len(rest.chain.least)
    for _ in range(24):
        if not rest.waiting:
            break
        box = rest.boxes[rest.waiting - 1].copy()
        step(rest)
        half = rest.boxes[rest.waiting - 1] if rest.waiting else box
        if not (half[:inputs] >= box[:inputs]).all() or not (half[2:4] <= box[2:4]).all():
            continue  # the box was refuted, and this is another one
        points = half[:2] + np.random.default_rng(seed).random((4, 2)) * (half[2:4] - half[:2])
        points = np.clip(points, half[:2], half[2:4])
        outputs = np.array(evaluate_exactly(network, torch.from_numpy(points)).values(), dtype=object).reshape(-1, 2)
        slope = [Fraction(float(value)) for value in half[2 * (inputs + units) :][: inputs + 1]]
        for point, (first, second) in zip(points, outputs, strict=True):
            row = first - second
            function = sum(s * Fraction(float(x)) for s, x in zip(slope, point, strict=False)) + slope[-1]
            # Half-spaces of the box before may have been used: these hold at unsafe points.
            assert function <= row or row > 0


@pytest.mark.parametrize("seed", seeds(8, 200))
def test_relu_networks_are_decided_as_polygons_decide_them(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "BEFORE_COMPILED", 0)
    monkeypatch.setattr(search, "sampled", lambda *_: ())
    network = random_relu_network(seed, (2, 8, 6, 3)).cast(torch.float64, torch.device("cpu"))
    for winner in range(3):
        margin = least_margin(network, [0.0, 0.0], [1.0, 1.0], winner)
        answer = search.decide_box(Conjunctions.of_class(network, winner), UNIT, lambda _: True, Budget(), 20_000)
        assert answer.proved is (margin > 0) and answer.falsified is (margin <= 0)


def test_ties_and_limits_stay_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "BEFORE_COMPILED", 0)
    tie = chain((2,), Affine(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))).cast(torch.float64, torch.device("cpu"))
    answer = search.decide_box(Conjunctions.of_class(tie, 0), UNIT, lambda _: False, Budget(), 30)
    assert not answer.proved and not answer.falsified and "30 boxes of the region" in answer.reason
    answer = search.decide_box(Conjunctions.of_class(tie, 0), UNIT, lambda _: False, Budget(), 100_000)
    assert not answer.proved and not answer.falsified and "boxes of single points" in answer.reason
    point = Box.point(torch.zeros(1, 2, dtype=torch.float64))
    answer = search.decide_box(Conjunctions.of_class(tie, 0), point, lambda _: False, Budget(), 300)
    assert not answer.proved and "1 boxes of single points" in answer.reason
    answer = search.decide_box(Conjunctions.of_class(tie, 0), UNIT, lambda _: False, Budget(0.0), 300)
    assert not answer.proved and answer.reason.startswith("time limit; 1 boxes are open")
