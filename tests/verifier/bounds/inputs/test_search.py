"""Branch and bound over inputs against polygons in rationals, and against grids of smooth networks."""

import math

import pytest
import torch

from encoders.box import Box
from encoders.ops import Affine, Sigmoid, Tanh
from encoders.region import BallRegion
from tests.networks.chains import chain, random_relu_network
from tests.oracles.polygons import least_margin
from tests.seeds import seeds
from verifier.bounds.inputs.inherited import UnitBoxes
from verifier.bounds.inputs.search import InputAnswer, decide_box
from verifier.bounds.linear.bounds import linear_bounds
from verifier.budget import Budget
from verifier.certificates.conjunctions import Conjunctions

UNIT = Box(torch.zeros(1, 2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64))


def asked_about(asked: Conjunctions, box: Box = UNIT, most: int = 5_000) -> tuple[InputAnswer, list[torch.Tensor]]:
    """Return the answer where points that are unsafe in floats count as counterexamples, and these."""
    shown: list[torch.Tensor] = []

    def attack(points: torch.Tensor) -> bool:
        shown.append(points)
        return True

    return decide_box(asked, box, attack, Budget(), most), shown


@pytest.mark.parametrize("seed", seeds(12, 300))
def test_relu_networks_are_decided_as_polygons_decide_them(seed: int) -> None:
    network = random_relu_network(seed, (2, 8, 6, 3)).cast(torch.float64, torch.device("cpu"))
    for winner in range(3):
        margin = least_margin(network, [0.0, 0.0], [1.0, 1.0], winner)
        answer, shown = asked_about(Conjunctions.of_class(network, winner))
        assert answer.proved is (margin > 0) and answer.falsified is (margin <= 0)
        assert answer.falsified is bool(shown)


@pytest.mark.parametrize("op", [Sigmoid(), Tanh()])
@pytest.mark.parametrize("seed", seeds(4, 60))
def test_smooth_networks_are_decided_as_grids_show(op: Sigmoid | Tanh, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights = [4.0 * torch.randn(6, 2, generator=generator), torch.randn(2, 6, generator=generator)]
    network = chain((2,), Affine(weights[0], weights[0].sum(dim=1) * -0.5), op, Affine(weights[1]))
    network = network.cast(torch.float64, torch.device("cpu"))
    axis = torch.linspace(0, 1, 101, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    outputs = network.evaluate(grid)
    least = float((outputs[:, 0] - outputs[:, 1]).min())
    for shift in (0.05, -0.05):
        # The least margin of the grid, moved to either side of zero: proved and falsified in turn.
        moved = Affine(weights[1], torch.tensor([shift - least, 0.0]))
        shifted = chain((2,), *(node.op for node in network.nodes[:-1]), moved).cast(torch.float64, torch.device("cpu"))
        answer, _ = asked_about(Conjunctions.of_class(shifted, 0))
        if shift < 0:
            assert answer.falsified
        else:
            # Between the points of the grid the margin may be lower, but hardly by so much.
            assert answer.proved


def test_a_tie_stays_open_and_says_so() -> None:
    network = chain((2,), Affine(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))).cast(torch.float64, torch.device("cpu"))
    answer = decide_box(Conjunctions.of_class(network, 0), UNIT, lambda _: False, Budget(), 100)
    assert not answer.proved and not answer.falsified and "100 boxes of the region" in answer.reason
    point = Box.point(torch.zeros(1, 2, dtype=torch.float64))
    answer = decide_box(Conjunctions.of_class(network, 0), point, lambda _: False, Budget(), 100)
    assert not answer.proved and "1 boxes of single points" in answer.reason


def test_time_and_counts_leave_the_box_open() -> None:
    network = random_relu_network(5, (2, 8, 6, 3)).cast(torch.float64, torch.device("cpu"))
    answer = decide_box(Conjunctions.of_class(network, 0), UNIT, lambda _: False, Budget(0.0), 100)
    assert not answer.proved and answer.reason == "time limit; 1 boxes are open"
    answer = decide_box(Conjunctions.of_class(network, 0), UNIT, lambda _: False, Budget(math.inf), 0)
    assert not answer.proved and "0 boxes of the region" in answer.reason


def test_outputs_that_overflow_prove_nothing() -> None:
    huge = Affine(torch.full((2, 2), 1e300, dtype=torch.float64))
    network = chain((2,), huge, Affine(torch.full((2, 2), 1e300, dtype=torch.float64))).cast(
        torch.float64, torch.device("cpu")
    )
    answer = decide_box(Conjunctions.of_class(network, 0), UNIT, lambda _: False, Budget(), 50)
    assert not answer.proved


def test_what_is_known_of_units_goes_together_and_apart_again() -> None:
    network = random_relu_network(1, (2, 4, 3, 2)).cast(torch.float64, torch.device("cpu"))
    units = UnitBoxes.of(network)
    assert units.unknown().shape == (1, 2, 7)
    boxes = linear_bounds(network, BallRegion.of_box(UNIT)).boxes
    known = units.together(boxes, units.unknown())
    for name, box in units.apart(known).items():
        assert torch.equal(box.lower, boxes[name].lower) and torch.equal(box.upper, boxes[name].upper)
    nothing = UnitBoxes({})
    assert nothing.unknown().shape == (1, 2, 0) and nothing.apart(nothing.unknown()) == {}


@pytest.mark.parametrize(("first", "word"), [(1.0, "proved"), (0.0, "falsified"), (-1.0, "falsified")])
def test_outputs_that_do_not_depend_on_the_input_are_decided_at_once(first: float, word: str) -> None:
    network = chain((2,), Affine(torch.zeros(2, 2), torch.tensor([first, 0.0]))).cast(torch.float64)
    answer, _ = asked_about(Conjunctions.of_class(network, 0))
    assert getattr(answer, word) and answer.boxes == 1


def test_a_chain_that_memory_does_not_hold_leaves_the_search_to_its_boxes(monkeypatch) -> None:
    tried = list[int]()

    def too_large(*_: object) -> None:
        tried.append(1)
        raise MemoryError

    monkeypatch.setattr("verifier.bounds.inputs.chain.chain_of", too_large)
    monkeypatch.setattr("verifier.bounds.inputs.search.BEFORE_COMPILED", 0)
    network = random_relu_network(3, (2, 8, 6, 3)).cast(torch.float64, torch.device("cpu"))
    for winner in range(3):
        margin = least_margin(network, [0.0, 0.0], [1.0, 1.0], winner)
        answer, _ = asked_about(Conjunctions.of_class(network, winner))
        assert answer.proved is (margin > 0)
    assert tried
