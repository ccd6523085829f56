"""The property files of a competition: all are read, with the sizes of their networks and the values of their text."""

import csv
import gzip
import math
import re
from fractions import Fraction
from pathlib import Path

import pytest

import encoders
from tests.conftest import SHARED_DATA

# Inputs and outputs of the networks that are large to unpack; all other networks are asked themselves.
LARGE = {"tllverifybench": (2, 1), "oval21": (3072, 10), "sri_resnet_a": (3072, 10)}
FAMILIES = [
    "acasxu",
    "linearizenn_2024",
    "reach_prob_density",
    "rl_benchmarks",
    "safenlp_2024",
    "test",
    "tllverifybench",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("collins_rul_cnn", "mnist_fc", "oval21", "sri_resnet_a")),
]


def first_networks(family: str) -> dict[str, str]:
    """Return the first network that each property file of a family is asked of."""
    with (SHARED_DATA / "vnncomp" / family / "instances.csv").open() as file:
        pairs = [(row[1], row[0]) for row in csv.reader(file)]
    return dict(reversed(pairs))


def sizes(family: str, network: str, known: dict[str, tuple[int, int]]) -> tuple[int, int]:
    if family in LARGE:
        return LARGE[family]
    if network not in known:
        read = encoders.read_network(SHARED_DATA / "vnncomp" / family / network)
        known[network] = math.prod(read.input_shape), math.prod(read.output_shape)
    return known[network]


def check_sizes(family: str, properties: dict[str, str]) -> None:
    known: dict[str, tuple[int, int]] = {}
    for name, network in properties.items():
        for asked in encoders.read_property(SHARED_DATA / "vnncomp" / family / name):
            assert (asked.lower.numel(), asked.outputs) == sizes(family, network, known), name
            assert asked.unsafe and not asked.note and not asked.strict, name


@pytest.mark.parametrize("family", FAMILIES)
def test_every_property_of_a_family_reads(shared_data: Path, family: str) -> None:
    check_sizes(family, first_networks(family))


@pytest.mark.parametrize("family", ["collins_rul_cnn", "mnist_fc", "oval21", "sri_resnet_a"])
def test_a_property_of_a_family_reads(shared_data: Path, family: str) -> None:
    check_sizes(family, dict(sorted(first_networks(family).items())[:1]))


def test_the_boxes_of_one_file_are_several_properties(shared_data: Path) -> None:
    left, right = encoders.read_property(shared_data / "vnncomp/acasxu/vnnlib/prop_6.vnnlib")
    assert float(left.upper[1]) == pytest.approx(0.499999896) and float(right.upper[1]) == pytest.approx(-0.11140846)
    for asked in (left, right):
        # The first of five outputs is not the least: a class question with signs turned.
        assert [h.coefficients.tolist() for h in asked.unsafe] == [
            [[-1.0 if j == 0 else float(j == rival) for j in range(5)]] for rival in range(1, 5)
        ]


ROBUSTNESS = [
    ("mnist_fc", 1),
    *(pytest.param(family, None, marks=pytest.mark.slow) for family in ("mnist_fc", "oval21", "sri_resnet_a")),
]


@pytest.mark.parametrize(("family", "count"), ROBUSTNESS)
def test_robustness_files_have_the_values_that_a_search_of_the_text_finds(
    shared_data: Path, family: str, count: int | None
) -> None:
    for name in sorted(first_networks(family))[:count]:
        path = shared_data / "vnncomp" / family / name
        (asked,) = encoders.read_property(path)
        text = path.read_text() if path.exists() else gzip.decompress(Path(f"{path}.gz").read_bytes()).decode()
        bounds = {
            sign: {int(i): number for i, number in re.findall(rf"\({sign} X_(\d+) (\S+?)\)", text)}
            for sign in ("<=", ">=")
        }
        least, greatest = (end.tolist() for end in asked.witness_box)
        for i, (outer, inner) in enumerate(zip(asked.lower.tolist(), least, strict=True)):
            # One float at most lies between, and it is not below the written bound.
            assert Fraction(outer) <= Fraction(bounds[">="][i]) <= Fraction(inner) <= Fraction(math.nextafter(outer, 9))
        for i, (outer, inner) in enumerate(zip(asked.upper.tolist(), greatest, strict=True)):
            assert (
                Fraction(outer) >= Fraction(bounds["<="][i]) >= Fraction(inner) >= Fraction(math.nextafter(outer, -9))
            )
        pairs = {(a, b) if sign == ">=" else (b, a) for sign, a, b in re.findall(r"\((<=|>=) Y_(\d+) Y_(\d+)\)", text)}
        (label,) = {int(least) for _, least in pairs}
        assert asked.reference_class == label and len(pairs) == len(asked.unsafe) == 9
