"""Random properties of small networks of hinges, against polygons cut in rationals: no verdict is ever contradicted."""

from collections import Counter
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from encoders import Network, write_network
from encoders.exact_order import evaluate_exactly
from encoders.formats.native import open_runtime
from encoders.property import Property
from encoders.questions import always_largest, output_within
from tests.networks.chains import hinge_network, random_relu_network
from tests.networks.random_properties import random_property
from tests.oracles.polygons import unsafe_points
from tests.seeds import few_or, seeds
from verifier import check as check_run
from verifier import verify
from verifier.commands.verify import VerifiedProperty
from verifier.methods import METHODS
from verifier.verdict import Strength

SIZES = ((2, 4, 3), (2, 5, 4, 3), (2, 6, 2))


def network_of(seed: int) -> Network:
    make = hinge_network if seed % 2 else random_relu_network
    return make(seed, SIZES[seed % len(SIZES)])


def check(verified: VerifiedProperty, network: Network, path: Path, asked: Property) -> None:
    """Raise AssertionError if a verdict is wrong, or a witness is none in exact arithmetic or in the model itself."""
    points = unsafe_points(network, asked.lower.tolist(), asked.upper.tolist(), asked.unsafe)
    if verified.verdict == "unsat":
        assert not points, f"proved, but unsafe at {[tuple(map(float, p)) for p in points[:3]]}"
    if verified.verdict == "sat":
        assert points and verified.witness is not None
        point = verified.witness.point
        assert point.dtype == network.dtype and tuple(point.shape) == network.input_shape
        for value, lower, upper in zip(point.tolist(), asked.lower.tolist(), asked.upper.tolist(), strict=True):
            assert Fraction(lower) <= Fraction(value) <= Fraction(upper)
        outputs = open_runtime(path)(point[None].numpy())[0]
        assert np.array_equal(outputs, verified.witness.outputs)
        for values in (torch.from_numpy(outputs), evaluate_exactly(network, point[None]).values()):
            assert any(halfspaces.contains(values) for halfspaces in asked.unsafe)


@pytest.mark.parametrize("seed", seeds(20, 600))
def test_no_verdict_of_the_portfolio_is_contradicted(seed: int, tmp_path: Path) -> None:
    network, path = network_of(seed), tmp_path / "model.safetensors"
    write_network(network, path)
    asked = random_property(network, seed)
    (verified,) = verify(path, asked).properties
    check(verified, network, path, asked)
    # What is open must be a tie, or a set so thin that no number of the model lies in it.
    if verified.verdict not in ("sat", "unsat"):
        assert verified.reason


@pytest.mark.parametrize("count", few_or(15, 120))
def test_most_properties_are_decided_either_way(count: int, tmp_path: Path) -> None:
    words: Counter[str] = Counter()
    for seed in range(count):
        network, path = network_of(seed), tmp_path / f"{seed}.safetensors"
        write_network(network, path)
        words[verify(path, random_property(network, seed)).properties[0].verdict] += 1
    assert words["sat"] >= count // 5 and words["unsat"] >= count // 5
    assert words["unknown"] + words["timeout"] <= count // 10, words


@pytest.mark.parametrize("method", [name for name in METHODS if name != "auto"])
@pytest.mark.parametrize("seed", seeds(2, 60))
def test_no_verdict_of_any_method_is_contradicted(method: str, seed: int, tmp_path: Path) -> None:
    network, path = network_of(seed), tmp_path / "model.safetensors"
    write_network(network, path)
    asked = random_property(network, seed)
    try:
        (verified,) = verify(path, asked, method=method).properties
    except ValueError as error:
        assert "Methods for this network" in str(error)
        return
    check(verified, network, path, asked)
    assert METHODS[method].finds or verified.verdict != "sat"
    if METHODS[method].strength is Strength.TRUSTED and verified.verdict == "unsat":
        assert verified.method not in ("milp", "milp-cbc")


@pytest.mark.parametrize("seed", seeds(2, 200))
def test_edges_that_touch_the_reachable_outputs_are_never_proved(seed: int, tmp_path: Path) -> None:
    """An offset at exactly the least value of its row, rounded up or down by one unit."""
    network, path = network_of(seed), tmp_path / "model.safetensors"
    write_network(network, path)
    asked = random_property(network, seed)
    halfspaces = asked.unsafe[0].row(0)
    pieces = [p for p in unsafe_points(network, asked.lower.tolist(), asked.upper.tolist(),
              (type(halfspaces)(halfspaces.coefficients, halfspaces.offsets + 1e6),))]  # fmt: skip
    values = []
    for point in pieces:
        exact = torch.tensor([[float(v) for v in point]], dtype=torch.float64)
        outputs = evaluate_exactly(network, exact).values()
        values.append(sum(Fraction(c) * y for c, y in zip(halfspaces.coefficients[0].tolist(), outputs, strict=True)))
    least = torch.tensor([float(min(values))], dtype=torch.float64)
    for offset in (least, torch.nextafter(least, least + 1), torch.nextafter(least, least - 1)):
        touching = Property(asked.lower, asked.upper, (type(halfspaces)(halfspaces.coefficients, offset),))
        (verified,) = verify(path, touching).properties
        check(verified, network, path, touching)


@pytest.mark.parametrize("seed", seeds(4, 60))
def test_named_questions_are_answered_as_the_oracle_does(seed: int, tmp_path: Path) -> None:
    network, path = network_of(seed), tmp_path / "model.safetensors"
    write_network(network, path)
    generator = torch.Generator().manual_seed(seed)
    lower = torch.rand(2, generator=generator).to(torch.float64)
    upper = (lower + 0.1).to(torch.float32).to(torch.float64)
    outputs = network.output_shape[0]
    winner = int(network.evaluate(lower[None]).argmax())
    middle = float(network.evaluate(lower[None])[0, 0])
    rest = [-float("inf")] * (outputs - 1)
    asked = (
        always_largest(lower, upper, winner, outputs),
        output_within(lower, upper, [middle - 0.3, *rest], [middle + 0.2, *(-v for v in rest)]),
    )
    for one, verified in zip(asked, verify(path, asked).properties, strict=True):
        check(verified, network, path, one)


def opened(asked: Property, seed: int) -> Property:
    """Return the property with some sides of its box open, as a text with strict comparisons would have them."""
    generator = torch.Generator().manual_seed(seed)
    wide = asked.lower < asked.upper
    least, greatest = (wide & (torch.rand(wide.shape, generator=generator) < 0.5) for _ in range(2))
    inner = (
        torch.where(least, torch.nextafter(asked.lower, asked.upper), asked.lower),
        torch.where(greatest, torch.nextafter(asked.upper, asked.lower), asked.upper),
    )
    return replace(asked, inner=inner)


@pytest.mark.parametrize("seed", seeds(3, 50))
def test_verdicts_of_a_run_hold_and_their_certificates_are_evaluated(seed: int, tmp_path: Path) -> None:
    """Ten properties of a network: up to 3 x 3 half-spaces, sides that are points and sides that are open."""
    network, path = network_of(seed), tmp_path / "model.safetensors"
    write_network(network, path)
    asked = [random_property(network, 10 * seed + number) for number in range(10)]
    asked = [opened(one, seed) if number % 2 else one for number, one in enumerate(asked)]
    method = "exact" if seed % 2 else "auto"
    found = verify(path, asked, method=method, certificates=True, out=tmp_path / "run").properties
    for one, verified in zip(asked, found, strict=True):
        check(verified, network, path, one)
        if verified.witness is not None:
            assert one.contains(verified.witness.point, torch.from_numpy(verified.witness.outputs))
        assert verified.verdict != "unsat" or verified.certificates[0] is not None
    proved = sum(verified.verdict == "unsat" for verified in found)
    held = check_run(tmp_path / "run")
    assert not held.refused and held.certified == held.checked == proved
    assert held.witnesses == sum(verified.verdict == "sat" for verified in found)
