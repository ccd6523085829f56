"""A network times a power of two has the answers of the network, by every method: nothing rounds, and nothing else may.

Twins (`tests/networks/twins.py`) multiply layers, units, inputs and outputs by powers of two that cancel. The oracle is
the least margin of a network with two inputs, computed in rationals.
"""

import functools

import pytest

from encoders import Network
from tests.answers import bracketed
from tests.conftest import REPOSITORY
from tests.networks.batches import random_batch
from tests.networks.chains import hinge_network, random_relu_network
from tests.networks.twins import Units, batch_in, twin
from tests.oracles.polygons import least_margin
from verifier import certify
from verifier.batch import Batch
from verifier.budget import Budget
from verifier.methods import METHODS
from verifier.verdict import Bracket

CASES = REPOSITORY / "tests" / "cases" / "scaling"
RADII = (0.05, 0.2)
GAP = 1e-4
SECONDS = 60.0
# By layer everything stays the same bit for bit; so it does by unit where nothing searches in float32.
LAYERS = (Units(output=33), Units(output=-30), Units(output=100), Units(input=20), Units(layers=30, input=-9, output=7))
EVERY_UNIT = (Units(units=30), Units(units=20, input=10, output=-40))
SAME = ("interval", "crown", "lp", "milp", "milp-cbc")
DECIDES = ("exact", "milp", "milp-cbc")


def brackets(method: str, batch: Batch, factor: float = 1.0) -> list[Bracket]:
    """Return the brackets of a batch whose inputs are a factor too large."""
    return bracketed(METHODS[method], batch, [radius * factor for radius in RADII], Budget(SECONDS)).brackets


def ends(found: list[Bracket], factor: float = 1.0) -> list[tuple[float, float, float]]:
    """Return (lower, trusted, upper) of each, in units of the plain input."""
    return [
        tuple(end / factor if end >= 0 else end for end in (bracket.lower, bracket.trusted, bracket.upper))
        for bracket in found
    ]  # type: ignore[misc]


@functools.cache
def plain(seed: int) -> tuple[Network, Batch]:
    network = hinge_network(seed) if seed < 10 else random_relu_network(seed, (3, 8, 6, 3))
    return network, random_batch(network, 2, seed)


@functools.cache
def plain_ends(method: str, seed: int) -> list[tuple[float, float, float]]:
    return ends(brackets(method, plain(seed)[1]))


def twin_ends(method: str, seed: int, units: Units) -> list[tuple[float, float, float]]:
    network, batch = plain(seed)
    factor = 2.0**units.input
    return ends(brackets(method, batch_in(batch, twin(network, units, seed), units), factor), factor)


def agree(method: str, one: tuple[float, float, float], other: tuple[float, float, float]) -> bool:
    """Return whether two brackets hold the same radius: each proof below the other's witness; both narrow, or neither.

    Where attacks search differently, a method that closes its brackets still ends within its gap.
    """
    sound = max(one[:2]) < other[2] and max(other[:2]) < one[2]
    closed = [upper - max(lower, trusted) <= 2 * GAP for lower, trusted, upper in (one, other)]
    return sound and (method not in DECIDES or closed[0] == closed[1] or max(one[:2]) >= RADII[-1] - GAP)


def check(method: str, seed: int, units: Units) -> None:
    before, after = plain_ends(method, seed), twin_ends(method, seed, units)
    if method in SAME:
        assert before == after, units
    for one, other in zip(before, after, strict=True):
        assert agree(method, one, other), (units, one, other)


@pytest.mark.parametrize("method", ["interval", "crown", "lp", "milp"])
def test_a_twin_has_the_answers_of_the_network(method):
    for units in (LAYERS[4], EVERY_UNIT[1]):
        check(method, 1, units)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 2, 11, 12])
@pytest.mark.parametrize("method", [*SAME, "alpha-crown", "exact", "restriction", "auto"])
def test_every_twin_has_the_answers_of_the_network(method, seed):
    for units in (*LAYERS, *EVERY_UNIT):
        check(method, seed, units)


def test_no_end_of_a_twin_contradicts_the_oracle():
    """Brute force in rationals on both sides of each end: an end that a solver alone vouches for, too."""
    for seed in (0, 1):
        network, batch = plain(seed)
        for units in (Units(layers=25, units=10, output=33 - 63 * seed),):
            for row, (lower, trusted, upper) in enumerate(twin_ends("milp", seed, units)):
                for radius, is_safe in ((max(lower, trusted), True), (upper, False)):
                    if not 0 <= radius < 1:
                        continue
                    ball = batch.region(radius).enclosure()
                    margin = least_margin(
                        network, ball.lower[row].tolist(), ball.upper[row].tolist(), int(batch.classes[row])
                    )
                    assert (margin > 0) is is_safe, (seed, units, row, radius)


@functools.cache
def case_ends(method: str, name: str) -> list[tuple[float, float, float]]:
    result = certify(
        CASES / f"{name}.onnx", CASES / "data.npz", [0.1, 0.3], method=method, clip=(0.0, 1.0), limit=2
    )  # fmt: skip
    return ends(list(result.brackets.values()))


@pytest.mark.parametrize(
    "method", ["milp", "lp", *(pytest.param(m, marks=pytest.mark.slow) for m in ("milp-cbc", "exact"))]
)
@pytest.mark.parametrize("name", ["plain", "out+33", "out-30"])
def test_the_radius_of_an_input_does_not_depend_on_the_unit_of_the_outputs(method, name):
    """The radius of input 0 lies in [.268133, .268232]; out+33 was trusted at .3 by a solver."""
    lower, trusted, upper = case_ends(method, name)[0]
    assert max(lower, trusted) <= 0.268232 and upper >= 0.268133
    if method in DECIDES:
        assert upper - max(lower, trusted) <= GAP
    if method in SAME:
        assert case_ends(method, name) == case_ends(method, "plain")
