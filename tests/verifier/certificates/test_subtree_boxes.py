"""Boxes of subtrees hold at every point with their signs, in rationals, and prove nothing where signs are others."""

from dataclasses import replace
from functools import cache
from hashlib import sha256
from pathlib import Path

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
from verifier.bounds.split import search
from verifier.budget import Budget
from verifier.certificates.certificate import Certificate
from verifier.certificates.error import CertificateError
from verifier.certificates.files import read_certificate, write_certificate
from verifier.certificates.split_program import SplitProgram
from verifier.certificates.subtree_boxes import SubtreeBoxes, with_subtrees


@cache
def case(seed: int) -> tuple[Network, Certificate]:
    """Return a network and the certificate of a search near its exact radius that proves boxes again at each split."""
    network = hinge_network(seed, (2, 8, 6, 3))
    batch = random_batch(network, 1, seed)
    with without_planes() as patch:
        patch.setattr(search, "SUBTREE_SPLITS", 1)
        patch.setattr(search, "SUBTREE_HINGES", 2)
        answer = search.decide_ball(
            network, batch.region(CASES[seed]), int(batch.classes[0]), lambda points: False, Budget(), 4000
        )
    assert answer.certificate is not None, answer.reason
    return network, answer.certificate


def finished(network: Network, box: Box) -> SplitProgram:
    program = SplitProgram(network, box)
    while program.advance() is not None:
        pass
    return program


def signs_at(program: SplitProgram, values: dict[str, np.ndarray], generator: np.random.Generator) -> np.ndarray:
    """Return the signs `(units,)` that hinges have at a point, some of them not given, either where they read zero."""
    known = np.concatenate([np.sign(values[hinge.source]).astype(np.int8) for hinge in program.hinges] or [np.zeros(0)])
    either = generator.integers(0, 2, len(known)) * 2 - 1
    given = generator.random(len(known)) < generator.choice([0.0, 0.5, 1.0])
    return (np.where(known == 0, either, known) * given).astype(np.int8)


def random_subtree(
    program: SplitProgram, signs: np.ndarray, before: int, generator: np.random.Generator
) -> SubtreeBoxes:
    """Return numbers of all magnitudes for the boxes of random units under signs `(units,)`."""
    units = np.flatnonzero(generator.random(program.units) < 0.7)
    rows = 2 * len(units)
    slopes = generator.integers(0, 256, (rows, program.units)).astype(np.uint8)
    multipliers = generator.normal(size=(rows, program.units)) * 10.0 ** generator.choice(
        [-300.0, -2.0, 0.0, 5.0, 300.0]
    )
    multipliers[generator.random(multipliers.shape) < 0.02] = generator.choice([np.nan, np.inf, -np.inf, 0.0])
    return SubtreeBoxes(before, signs, units, slopes, multipliers)


@pytest.mark.parametrize("seed", seeds(10, 120))
def test_boxes_and_bounds_hold_at_every_point_with_the_signs(seed):
    network, generator = hinge_networks(120)[seed], np.random.default_rng(seed)
    box = box_of(network, generator)
    program = finished(network, box)
    everything = np.arange(program.units)
    output = program.network.output.name
    for point in points_of(box, generator, 3):
        values = exact_values(program.network, point)
        above = signs_at(program, values, generator)
        below = np.where(above != 0, above, signs_at(program, values, generator)).astype(np.int8)
        subtrees = [random_subtree(program, above, 0, generator), random_subtree(program, below, 1, generator)]
        joined = with_subtrees(program, everything, subtrees)
        for number in range(3):
            for name, found in joined.boxes.items():
                ends = (end[number].flatten().tolist() for end in (found.lower, found.upper))
                for low, value, high in zip(next(ends), values[name], next(ends), strict=True):
                    assert low <= value <= high, name
        rows = generator.normal(size=(3, len(values[output])))
        numbers = generator.random((3, program.units)), generator.normal(size=(3, program.units))
        own, which = np.stack([below] * 3), np.arange(3)
        bounds = joined.bounds(output, rows, own, *numbers, which)
        for row, bound in zip(rows, bounds.tolist(), strict=True):
            value = sum(float(r) * v for r, v in zip(row, map(float, values[output]), strict=True))
            assert bound <= value + 1e-9 * (1.0 + abs(value))
        # Where a sign of the subtree is not given, or another one is, its boxes prove nothing.
        for change in (0, -1):
            if below.any():
                other = own.copy()
                other[:, np.flatnonzero(below)[0]] *= change
                assert joined.bounds(output, rows, other, *numbers, which)[2] == -np.inf


def test_boxes_of_subtrees_lie_in_those_of_the_ball_and_are_narrower_beyond_their_signs():
    narrower = 0
    for seed in CASES:
        network, certificate = case(seed)
        plain = replace(certificate, subtrees=()).program(network)
        narrow = certificate.program(network)
        lower, upper = narrow.unit_ends(certificate.open_units)
        low, high = plain.unit_ends(certificate.open_units)
        assert (lower >= low).all() and (upper <= high).all()
        whole = np.array([each.signs for each in certificate.subtrees]) == 0
        narrower += int(((lower[1:] > low) & whole).sum()) + int(((upper[1:] < high) & whole).sum())
    assert narrower > 10


@pytest.mark.parametrize("seed", CASES)
def test_certificates_with_subtrees_pass_and_are_true_and_short_ones_come_back_from_files(seed, tmp_path: Path):
    network, certificate = case(seed)
    assert certificate.subtrees and any(tree.boxes is not None and tree.boxes.any() for tree in certificate.trees)
    short, again = kept_and_read(certificate, network, tmp_path)
    assert len(again.subtrees) == len(short.subtrees)


@pytest.mark.parametrize("seed", CASES)
def test_no_numbers_of_subtrees_prove_what_is_false(seed):
    network, certificate = case(seed)
    generator = np.random.default_rng(seed)
    false = replace(certificate, radius=certificate.radius + PAST)
    count, trees = len(certificate.subtrees), certificate.trees
    for _ in range(15):
        subtrees = list(certificate.subtrees)
        for k in generator.integers(0, count, 3).tolist():
            each = subtrees[k]
            slopes = generator.integers(0, 256, each.slopes.shape).astype(np.uint8)
            multipliers = generator.normal(size=each.multipliers.shape) * 10.0 ** generator.uniform(-3, 3)
            subtrees[k] = replace(each, slopes=slopes, multipliers=multipliers)
        boxes = [generator.integers(0, count + 1, tree.leaves) for tree in trees]
        moved = tuple(replace(tree, boxes=own) for tree, own in zip(trees, boxes, strict=True))
        for other in (replace(false, subtrees=tuple(subtrees)), replace(false, trees=moved)):
            assert not passes(other, network)


def altered(certificate: Certificate, number: int, **changes: object) -> Certificate:
    subtrees = list(certificate.subtrees)
    subtrees[number] = replace(subtrees[number], **changes)  # type: ignore[arg-type]
    return replace(certificate, subtrees=tuple(subtrees))


def test_leaves_take_boxes_of_their_own_signs_alone():
    network, certificate = case(13)
    for number, tree in enumerate(certificate.trees):
        if tree.boxes is None or not tree.boxes.any():
            continue
        leaf = int(np.flatnonzero(tree.boxes)[0])
        each = certificate.subtrees[int(tree.boxes[leaf]) - 1]
        turned = altered(certificate, int(tree.boxes[leaf]) - 1, signs=-each.signs)
        with pytest.raises(CertificateError):
            turned.check(network)
        for wrong in (-1, len(certificate.subtrees) + 1):
            boxes = tree.boxes.copy()
            boxes[leaf] = wrong
            trees = list(certificate.trees)
            trees[number] = replace(tree, boxes=boxes)
            with pytest.raises(CertificateError, match="boxes that are not there"):
                replace(certificate, trees=tuple(trees)).check(network)


def test_odd_subtrees_are_refused_with_a_sentence():
    network, certificate = case(13)
    each = certificate.subtrees[0]
    unit = each.units[:1]
    odd = (
        {"before": 1},
        {"before": -1},
        {"signs": each.signs[:-1]},
        {"signs": each.signs.astype(np.float64)},
        {"signs": np.where(each.signs != 0, 2, 0).astype(np.int8)},
        {"units": np.concatenate([unit, unit, each.units[2:]])},
        {"units": np.full_like(each.units, len(each.signs))},
        {"units": each.units - 1000},
        {"units": each.units.astype(np.float64)},
        {"slopes": each.slopes[1:]},
        {"slopes": each.slopes.astype(object)},
        {"multipliers": each.multipliers[:, 1:]},
    )
    for changes in odd:
        with pytest.raises(CertificateError, match="subtree 1"):
            altered(certificate, 0, **changes).check(network)
    with pytest.raises(CertificateError, match=r"narrows|signs"):
        altered(certificate, len(certificate.subtrees) - 1, before=len(certificate.subtrees)).check(network)


def test_more_subtrees_than_memory_holds_are_refused(monkeypatch):
    network, certificate = case(13)
    monkeypatch.setattr("verifier.certificates.subtree_boxes.MOST_ENDS", 10)
    with pytest.raises(CertificateError, match="more than"):
        certificate.check(network)


def test_what_a_box_without_points_implies_those_within_it_imply():
    """Two units that are never at least zero together: ends cross, and stay so in boxes within."""
    first = Affine(torch.tensor([[1.0], [-1.0]]), torch.tensor([-0.5, -0.5]))
    network = chain((1,), first, Relu(), Affine(torch.tensor([[1.0, -1.0]])), Relu(), Affine(torch.eye(1)))
    program = finished(network, Box(-torch.ones(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)))
    signs = np.array([1, 1, 0], dtype=np.int8)
    numbers = np.array([2]), np.zeros((2, 3)), np.array([[10.0, 10.0, 0.0]] * 2)
    subtrees = [SubtreeBoxes(before, signs, *numbers) for before in (0, 1, 2)]
    lower, upper = with_subtrees(program, np.arange(3), subtrees).unit_ends(np.array([2]))
    assert lower[:, 0].tolist() == pytest.approx([-0.5, 0.5, 0.5, 0.5])
    assert upper[:, 0].tolist() == pytest.approx([0.5, -0.5, -0.5, -0.5])


def test_rows_that_name_no_boxes_take_those_of_the_ball():
    for seed in CASES:
        network, certificate = case(seed)
        joined = certificate.program(network)
        plain = replace(certificate, subtrees=()).program(network)
        count, name = len(certificate.subtrees) + 1, joined.network.output.name
        rows = np.eye(network.output_shape[0])[np.arange(count) % network.output_shape[0]]
        assert joined.bounds(name, rows, None, None, None).tolist() == pytest.approx(
            plain.bounds(name, rows, None, None, None).tolist(), rel=1e-12
        )


def test_a_file_that_names_more_boxes_than_it_has_leaves_is_refused(tmp_path: Path):
    _, certificate = case(13)
    kept = write_certificate(certificate, tmp_path, 3)
    with np.load(tmp_path.parent / kept.file) as read:
        arrays = dict(read)
    arrays["subtrees.leaves"] = np.concatenate([arrays["subtrees.leaves"]] * 2)
    path = tmp_path / "longer.npz"
    np.savez(path, **arrays)
    with pytest.raises(CertificateError, match="more numbers than"):
        read_certificate(path, sha256(path.read_bytes()).hexdigest(), 3)
