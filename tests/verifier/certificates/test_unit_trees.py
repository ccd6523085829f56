"""Trees of units prove ends that hold at every point, in rationals, whatever their numbers; odd ones are refused."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from encoders.box import Box
from encoders.network import Network
from encoders.ops import Affine, Relu
from tests.networks.batches import random_batch
from tests.networks.chains import chain, hinge_network
from tests.networks.hinge_graphs import hinge_networks
from tests.networks.random_boxes import box_of, points_of
from tests.oracles.certified_claims import CASES, PAST, kept_and_read, passes
from tests.oracles.node_values import exact_values
from tests.oracles.without_planes import without_planes
from tests.seeds import seeds
from verifier.bounds.split import operators, search
from verifier.budget import Budget
from verifier.certificates import condensed
from verifier.certificates.certificate import Certificate
from verifier.certificates.error import CertificateError
from verifier.certificates.sign_tree import LEAF
from verifier.certificates.split_program import SplitProgram
from verifier.certificates.unit_trees import UnitTrees, tightened_by_trees


@cache
def case(seed: int, as_ops: bool = False) -> tuple[Network, Certificate]:
    """Return a network and the certificate of a search near its exact radius that grows trees of units at once.

    as_ops: the network is held as its ops, and its open units as matrices.
    """
    network = hinge_network(seed, (2, 8, 6, 3))
    batch = random_batch(network, 1, seed)
    # Planes leave nothing to trees on so few inputs.
    with without_planes() as patch:
        patch.setattr(search, "LEVELS_OF_OPS" if as_ops else "LEVELS", ((0, 0, 0), (20, 6, None)))
        if as_ops:
            patch.setattr(operators, "MOST_ENTRIES", 0)
        answer = search.decide_ball(
            network, batch.region(CASES[seed]), int(batch.classes[0]), lambda points: False, Budget(), 4000
        )
    assert answer.certificate is not None, answer.reason
    return network, answer.certificate


def random_tree(units: int, depth: int, generator: np.random.Generator, taken: tuple[int, ...] = ()) -> list[int]:
    """Return the splits of a random tree in preorder."""
    left = [unit for unit in range(units) if unit not in taken]
    if not left or not depth or generator.random() < 0.2:
        return [LEAF]
    unit = int(generator.choice(left))
    halves = [random_tree(units, depth - 1, generator, (*taken, unit)) for _ in range(2)]
    return [unit, *halves[0], *halves[1]]


def random_trees(name: str, size: int, units: int, generator: np.random.Generator) -> UnitTrees:
    """Return trees with numbers of all magnitudes for random ends of a node's units."""
    count = int(generator.integers(1, 5))
    splits = np.concatenate([random_tree(units, 3, generator) for _ in range(count)]).astype(np.int32)
    leaves = int((splits == LEAF).sum())
    columns = np.flatnonzero(generator.random(units) < 0.8)
    multipliers = generator.normal(size=(leaves, len(columns))) * 10.0 ** generator.choice([-300.0, -1.0, 0.0, 300.0])
    multipliers[generator.random(multipliers.shape) < 0.02] = generator.choice([np.nan, np.inf, -np.inf, 0.0])
    ends = generator.choice([-1, 1], count)
    places, slopes = generator.integers(0, size, count), generator.random(multipliers.shape)
    return UnitTrees(name, places, ends, columns, splits, slopes, multipliers)


@pytest.mark.parametrize("seed", seeds(10, 120))
def test_boxes_hold_at_every_point_whatever_the_numbers(seed):
    network, generator = hinge_networks(120)[seed], np.random.default_rng(seed)
    box = box_of(network, generator)
    program = SplitProgram(network, box)
    narrower = 0
    while (name := program.advance()) is not None:
        before = program.boxes[name]
        if program.units:
            for _ in range(4):
                trees = random_trees(name, before.lower.numel(), program.units, generator)
                tightened_by_trees(program, trees)
        narrower += int((program.boxes[name].lower > before.lower).sum())
    for point in points_of(box, generator, 3):
        values = exact_values(program.network, point)
        for name, found in program.boxes.items():
            ends = (end.flatten().tolist() for end in (found.lower, found.upper))
            for low, value, high in zip(next(ends), values[name], next(ends), strict=True):
                assert low <= value <= high, name


def tent(leaves: int = 1) -> tuple[SplitProgram, str]:
    """Return the program of z = relu(x) - 2 relu(x - 1) on -1 <= x <= 2, and the name of the node z."""
    first = Affine(torch.tensor([[1.0], [1.0]]), torch.tensor([0.0, -1.0]))
    network = chain((1,), first, Relu(), Affine(torch.tensor([[1.0, -2.0]])), Relu(), Affine(torch.eye(1)))
    ends = (torch.full((1, 1), end, dtype=torch.float64) for end in (-1.0, 2.0))
    program = SplitProgram(network, Box(*ends))
    program.advance()
    name = program.advance()
    assert name is not None
    return program, name


def test_a_split_proves_an_end_that_no_slopes_prove():
    """z <= 2 (x + 1) / 3 - 2 s (x - 1), at best 4/3 for s = 1/3; z <= x - (x - 1) = 1 for x >= 0; z <= 0 for x <= 0."""
    column = np.arange(2)
    for splits, slopes, least in (([LEAF], [[0, 1 / 3]], 4 / 3), ([0, LEAF, LEAF], [[0, 0.5], [0, 0]], 1.0)):
        program, name = tent()
        numbers = np.array(slopes), np.zeros((len(slopes), 2))
        tree = UnitTrees(name, np.array([0]), np.array([-1]), column, np.array(splits), *numbers)
        tightened_by_trees(program, tree)
        upper = float(program.boxes[name].upper)
        assert least <= upper <= least + 1e-12
    # The numbers of the leaves the other way round prove less: each leaf is evaluated under its own signs.
    program, name = tent()
    turned = UnitTrees(
        name, np.array([0]), np.array([-1]), column, np.array([0, LEAF, LEAF]), numbers[0][::-1], numbers[1]
    )
    tightened_by_trees(program, turned)
    assert float(program.boxes[name].upper) > 1.3


def test_odd_trees_are_refused_with_a_sentence():
    program, name = tent()
    fine = UnitTrees(
        name, np.array([0]), np.array([1]), np.arange(2), np.array([0, LEAF, LEAF]), np.zeros((2, 2)), np.zeros((2, 2))
    )  # fmt: skip
    tightened_by_trees(program, fine)
    odd = (
        {"places": np.array([1])},
        {"places": np.array([-1])},
        {"places": np.array([0.0])},
        {"places": np.array([0, 0])},
        {"ends": np.array([2])},
        {"ends": np.array([1, -1]), "places": np.array([0, 0])},
        {"columns": np.array([0, 0])},
        {"columns": np.array([0, 2])},
        {"columns": np.array([0])},
        {"splits": np.array([0, LEAF])},
        {"splits": np.array([LEAF, 0, LEAF])},
        {"splits": np.array([LEAF, LEAF])},
        {"splits": np.array([0, 0, LEAF, LEAF, LEAF]), "slopes": np.zeros((3, 2)), "multipliers": np.zeros((3, 2))},
        {"splits": np.array([2, LEAF, LEAF])},
        {"splits": np.zeros(0, dtype=np.int32)},
        {"slopes": np.zeros((3, 2))},
        {"slopes": np.zeros((3, 2)), "multipliers": np.zeros((3, 2))},
        {"slopes": np.zeros((2, 2), dtype=object)},
        {"multipliers": np.zeros(4)},
    )
    for changes in odd:
        with pytest.raises(CertificateError):
            tightened_by_trees(program, replace(fine, **changes))  # type: ignore[arg-type]


def test_trees_of_more_leaves_than_are_evaluated_are_refused(monkeypatch):
    monkeypatch.setattr("verifier.certificates.unit_trees.MOST_LEAVES", 1)
    program, name = tent()
    numbers = np.zeros((2, 2))
    tree = UnitTrees(name, np.array([0]), np.array([1]), np.arange(2), np.array([0, LEAF, LEAF]), numbers, numbers)
    with pytest.raises(CertificateError, match="more than"):
        tightened_by_trees(program, tree)


@pytest.mark.parametrize("as_ops", [False, True])
@pytest.mark.parametrize("seed", CASES)
def test_certificates_with_trees_of_units_pass_are_true_and_come_back_from_files(seed, as_ops, tmp_path, monkeypatch):
    monkeypatch.setattr(condensed, "MANY_UNITS", 0 if as_ops else condensed.MANY_UNITS)
    network, certificate = case(seed, as_ops)
    assert certificate.unit_trees and bool(certificate.boxes) is not as_ops
    plain, narrow = replace(certificate, unit_trees=()).program(network), certificate.program(network)
    everything = np.arange(plain.units)
    (low, high), (lower, upper) = plain.unit_ends(everything), narrow.unit_ends(everything)
    assert (lower >= low).all() and (upper <= high).all() and ((lower > low) | (upper < high)).any()
    short, again = kept_and_read(certificate, network, tmp_path)
    for made, read in zip(short.unit_trees, again.unit_trees, strict=True):
        for field in ("name", "places", "ends", "columns", "splits", "slopes", "multipliers"):
            assert np.array_equal(getattr(made, field), getattr(read, field)), field


@pytest.mark.parametrize("seed", CASES)
def test_no_numbers_of_trees_prove_what_is_false(seed):
    network, certificate = case(seed)
    generator = np.random.default_rng(seed)
    false = replace(certificate, radius=certificate.radius + PAST)
    for _ in range(10):
        made = []
        for trees in certificate.unit_trees:
            slopes = generator.random(trees.slopes.shape)
            multipliers = generator.normal(size=slopes.shape) * 10.0 ** generator.uniform(-3, 3)
            made.append(replace(trees, slopes=slopes, multipliers=multipliers))
        assert not passes(replace(false, unit_trees=tuple(made)), network)
