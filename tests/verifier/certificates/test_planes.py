"""Planes lie above their hinges at every point of the box, in rationals, whatever names them; odd ones are refused."""

from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from encoders.network import INPUT, Network
from tests.networks.batches import random_batch
from tests.networks.chains import hinge_network
from tests.networks.hinge_graphs import hinge_networks
from tests.networks.random_boxes import box_of, points_of
from tests.oracles.certified_claims import CASES, PAST, kept_and_read, passes
from tests.oracles.exact_checker import holds_exactly
from tests.oracles.node_values import exact_values
from tests.oracles.without_planes import without_planes
from tests.seeds import seeds
from verifier.bounds.split import own_planes, search
from verifier.bounds.split.plane_search import first_units
from verifier.bounds.split.prepared import PreparedBall, prepare
from verifier.bounds.split.question import split_question
from verifier.bounds.split.unit_boxes import first_slopes
from verifier.budget import Budget
from verifier.certificates.certificate import Certificate
from verifier.certificates.error import CertificateError
from verifier.certificates.plane_points import PlanePoints
from verifier.certificates.planes import UnitPlanes, made_planes, tightened_by_planes
from verifier.certificates.split_program import SplitProgram


@cache
def case(seed: int) -> tuple[Network, Certificate]:
    """Return a network and the certificate of a search near its exact radius that takes planes and trees at once."""
    network = hinge_network(seed, (2, 8, 6, 3))
    batch = random_batch(network, 1, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "LEVELS", ((0, 0, 0), (20, 3, None)))
        patch.setattr(own_planes, "MOST_NUMBERS", 0)
        answer = search.decide_ball(
            network, batch.region(CASES[seed]), int(batch.classes[0]), lambda points: False, Budget(), 4000
        )
    assert answer.certificate is not None, answer.reason
    return network, answer.certificate


def random_points(program: SplitProgram, rows: int, generator: np.random.Generator) -> PlanePoints:
    """Return points and thresholds of all magnitudes for some units of the first hinge."""
    values, inputs = (program.boxes[name].lower.numel() for name in (program.hinges[0].name, INPUT))
    units = np.flatnonzero(generator.random(values) < 0.8)
    thresholds = generator.integers(-9000, 17000, (rows, len(units)))
    thresholds[generator.random(thresholds.shape) < 0.1] = generator.choice([-32768, 32767])
    return PlanePoints(units, generator.integers(0, 256, (rows, inputs)).astype(np.uint8), thresholds.astype(np.int16))


def random_unit_planes(program: SplitProgram, name: str, generator: np.random.Generator) -> UnitPlanes:
    """Return planes with numbers of all magnitudes for random ends of a node's units."""
    count, size = int(generator.integers(1, 6)), program.boxes[name].lower.numel()
    columns = np.flatnonzero(generator.random(program.units) < 0.8)
    slopes = generator.integers(0, 256, (count, len(columns))).astype(np.uint8)
    ends, places = generator.choice([-1, 1], count), generator.integers(0, size, count)
    return UnitPlanes(name, places, ends, columns, slopes, random_points(program, count, generator))


@pytest.mark.parametrize("seed", seeds(10, 120))
def test_planes_and_boxes_hold_at_every_point_whatever_the_numbers(seed):
    network, generator = hinge_networks(120)[seed], np.random.default_rng(seed)
    box = box_of(network, generator)
    program = SplitProgram(network, box)
    while (name := program.advance()) is not None:
        if program.units:
            for _ in range(3):
                tightened_by_planes(program, random_unit_planes(program, name, generator))
    if not program.hinges:
        return
    planes = made_planes(program, random_points(program, 4, generator))
    hinge, output = program.hinges[0], program.network.output.name
    rows = generator.normal(size=(4, program.boxes[output].lower.numel()))
    slopes = generator.random((4, program.units))
    bounds = program.bounds(output, rows, None, slopes, None, planes=planes)
    for point in points_of(box, generator, 8):
        values = exact_values(program.network, point)
        at = [Fraction(value) for value in values[INPUT]]
        for group in range(4):
            for unit, plane, offset in zip(planes.units, planes.matrix[group], planes.offset[group], strict=True):
                above = sum((Fraction(g) * x for g, x in zip(plane.tolist(), at, strict=True)), Fraction(offset))
                assert Fraction(values[hinge.name][unit]) <= above
            value = sum(Fraction(c) * v for c, v in zip(rows[group].tolist(), values[output], strict=True))
            assert bounds[group] <= value
        for node, held in program.boxes.items():
            ends = zip(held.lower.flatten().tolist(), values[node], held.upper.flatten().tolist(), strict=True)
            assert all(low <= value <= high for low, value, high in ends), node


@pytest.mark.parametrize("seed", CASES)
def test_bounds_of_ascent_are_those_that_are_proved_and_no_looser_than_over_lines(seed):
    network = hinge_network(seed, (2, 8, 6, 3))
    batch = random_batch(network, 1, seed)
    question = split_question(network, batch.region(CASES[seed]), int(batch.classes[0]))
    above = prepare(question, 20, Budget())
    with without_planes():
        plain = prepare(question, 20, Budget())
    everything = np.arange(above.program.units)
    (low, high), (lower, upper) = plain.program.unit_ends(everything), above.program.unit_ends(everything)
    assert (lower >= low).all() and (upper <= high).all() and ((lower > low) | (upper < high)).any()
    assert above.planes is not None and plain.planes is None
    for ball in (above, plain):
        proved, shown = root_bounds(ball)
        assert np.allclose(shown, np.ldexp(proved, -ball.output), rtol=1e-4, atol=1e-5)
    units = first_units(above.ascent)
    assert units is not None
    exact = above.planes.proved
    scale = 2.0 ** float(question.units.stages[1] - question.units.stages[0])
    assert np.allclose(above.planes.lines.matrix.numpy() * scale, exact.matrix, rtol=1e-5, atol=1e-6)


def root_bounds(ball: PreparedBall) -> tuple[np.ndarray, np.ndarray]:
    """Return (proved bounds, bounds of ascent in its units) of all rows on the whole ball."""
    count, nothing = len(ball.rows), torch.zeros(len(ball.rows), len(ball.open_units))
    signs, rows = nothing.to(torch.int8), torch.arange(count)
    slopes = first_slopes(ball.lines).expand(count, -1)
    stage = ball.ascent.network.output
    shown = ball.ascent.bound(stage, ball.rows, ball.split_lines(signs, rows), slopes, None)
    planes = None if ball.planes is None else ball.planes.proved
    placed = ball.on_all_units(slopes).numpy()
    proved = ball.program.bounds(
        ball.program.network.output.name, ball.question.rows, None, placed, None, planes=planes
    )
    return proved, shown.numpy()


@pytest.mark.parametrize("seed", CASES)
def test_certificates_with_planes_pass_are_true_and_come_back_from_files(seed, tmp_path: Path):
    network, certificate = case(seed)
    assert certificate.unit_planes and certificate.planes is not None
    kept_and_read(certificate, network, tmp_path)


@pytest.mark.parametrize("seed", CASES)
def test_no_numbers_of_planes_prove_what_is_false(seed):
    network, certificate = case(seed)
    generator = np.random.default_rng(seed)
    false = replace(certificate, radius=certificate.radius + PAST)
    assert certificate.planes is not None
    for _ in range(10):
        made = tuple(
            replace(each, planes=altered(each.planes, generator), slopes=random_bytes(each.slopes, generator))
            for each in certificate.unit_planes
        )
        own = altered(certificate.planes, generator)
        assert not passes(replace(false, unit_planes=made, planes=own), network)


def altered(planes: PlanePoints, generator: np.random.Generator) -> PlanePoints:
    """Return planes of other points and thresholds."""
    thresholds = generator.integers(-9000, 17000, planes.thresholds.shape).astype(np.int16)
    return replace(planes, points=random_bytes(planes.points, generator), thresholds=thresholds)


def random_bytes(like: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return generator.integers(0, 256, like.shape).astype(np.uint8)


def test_odd_planes_are_refused():
    network, certificate = case(13)
    (given, *_), leaves = certificate.unit_planes, certificate.planes
    assert leaves is not None
    points = given.planes
    odd_points = (
        replace(points, units=points.units.astype(np.float64)),
        replace(points, units=points.units[None]),
        replace(points, units=np.zeros_like(points.units)),
        replace(points, units=points.units + 1000),
        replace(points, units=points.units[1:]),
        replace(points, points=points.points.astype(np.float32)),
        replace(points, points=points.points[1:]),
        replace(points, thresholds=points.thresholds[:, 1:]),
        replace(points, thresholds=points.thresholds.astype(object)),
    )
    odd = (
        *(replace(given, planes=each) for each in odd_points),
        replace(given, places=given.places.astype(np.float64)),
        replace(given, places=given.places + 1000),
        replace(given, ends=np.zeros_like(given.ends)),
        replace(given, ends=given.ends[1:]),
        replace(given, columns=np.zeros_like(given.columns)),
        replace(given, columns=given.columns + 1000),
        replace(given, slopes=given.slopes.astype(np.float64)),
        replace(given, slopes=given.slopes[:, 1:]),
    )
    for each in odd:
        with pytest.raises(CertificateError, match="planes of"):
            replace(certificate, unit_planes=(each, *certificate.unit_planes[1:])).check(network)
    other = replace(given, name="classes")
    for several in ((*certificate.unit_planes, given), (other,)):
        with pytest.raises(CertificateError, match="named twice, or read by no hinge"):
            replace(certificate, unit_planes=several).check(network)
        assert holds_exactly(replace(certificate, unit_planes=several), network) is False
    for many in (leaves.points[:1], np.concatenate([leaves.points] * 2)):
        with pytest.raises(CertificateError, match="planes of"):
            replace(certificate, planes=replace(leaves, points=many)).check(network)


def test_points_may_be_of_any_integer_type_and_lie_anywhere():
    """Shares are cut to [0, 1]: numbers far outside the box name planes, too."""
    network, certificate = case(13)
    own = certificate.planes
    assert own is not None
    wide = replace(certificate, planes=replace(own, points=own.points.astype(np.int64)))
    wide.check(network)
    assert holds_exactly(wide, network)
    for number in (-(2**31), 2**31 - 1):
        far = replace(
            own, points=np.full(own.points.shape, number, np.int32), thresholds=np.full_like(own.thresholds, 1)
        )
        assert not passes(replace(certificate, planes=far, radius=certificate.radius + PAST), network)
