"""Certificates of sigmoids, tanhs and balls of the 2- and 1-norm: both checkers agree, and refuse what is false."""

import hashlib
import json
import math
import random
from dataclasses import replace
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
import torch

from encoders.network import Network
from encoders.ops import Affine, Relu, Sigmoid, Tanh
from encoders.region import BallRegion, Norm
from tests.networks.chains import chain, curve_network, hinge_network
from tests.networks.mwd_chains import random_mwd_network
from tests.oracles.distance_claims import nearest_unsafe
from tests.oracles.exact_checker import content_of, holds_exactly, plain
from verifier.bounds.inputs.certified import certificate_by_inputs
from verifier.budget import Budget
from verifier.certificates.ball_minimum import BallMinimum
from verifier.certificates.certificate import Certificate
from verifier.certificates.conjunctions import Conjunctions
from verifier.certificates.error import CertificateError
from verifier_check import Refused, check_certificate, read_network
from verifier_check.bounds import Program
from verifier_check.boxes import Ball, Boxes
from verifier_check.curves import curve_lines, curve_slope, curve_value
from verifier_check.ops import Curve, Hinge
from verifier_check.runs import check_record

CURVES = {"sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)), "tanh": mpmath.tanh}
SLOPES = {"sigmoid": lambda x: 1 / (2 + mpmath.exp(x) + mpmath.exp(-x)), "tanh": lambda x: mpmath.sech(x) ** 2}
F64 = torch.float64


def curved(kind: str, seed: int) -> Network:
    """Return a network of two hidden layers of a curve."""
    return curve_network({"sigmoid": Sigmoid(), "tanh": Tanh()}[kind], seed)


def made(network: Network, seed: int, share: float, norm: Norm = "inf") -> tuple[Certificate | str, float]:
    """Return a certificate of a ball of a share of the distance to the nearest unsafe point, and that distance."""
    centre = torch.rand(1, 2, generator=torch.Generator().manual_seed(seed), dtype=F64)
    winner = int(network.scores(centre).argmax())
    nearest = nearest_unsafe(network, centre, winner, norm=float(norm))
    assert nearest is not None
    distance = float(np.linalg.norm(nearest - centre[0].numpy(), float(norm)))
    region = BallRegion(centre, torch.tensor([share * distance], dtype=F64), (0.0, 1.0), norm)
    asked = Conjunctions.of_class(network.cast(F64), winner)
    return certificate_by_inputs(network, asked, region, winner, Budget(), 300), distance


def refused(certificate: Certificate, network: Network) -> bool:
    """Return whether both checkers refuse a certificate; one of them alone does not do."""
    with pytest.raises(CertificateError):
        certificate.check(network)
    return holds_exactly(certificate, network) is False


@pytest.mark.parametrize("bits", [40, 128])
@pytest.mark.parametrize("kind", CURVES)
def test_values_slopes_and_lines_enclose_the_curve(kind: str, bits: int) -> None:
    draw, one = random.Random(bits), 1 << bits
    with mpmath.workprec(3 * bits):
        for number in range(120):
            scale = 10 ** draw.uniform(-6, 2.5)
            low, high = sorted(int(one * draw.gauss(0.0, 1.0) * scale) for _ in range(2))
            low, high = ((low, low), (0, high), (low, 0), (-high, high))[number] if number < 4 else (low, high)
            low, high = min(low, high), max(low, high)
            below, least, above, greatest = curve_lines(kind, low, high, bits)
            for k in range(9):
                x = low + (high - low) * k // 8
                exact = CURVES[kind](mpmath.mpf(x) / one)
                ends, slopes = curve_value(kind, x, bits), curve_slope(kind, x, bits)
                assert ends[0] <= exact * one <= ends[1] <= ends[0] + 8
                assert slopes[0] <= SLOPES[kind](mpmath.mpf(x) / one) * one <= slopes[1] <= slopes[0] + 32
                assert below * x + least <= exact * one * one <= above * x + greatest


def test_lines_are_no_looser_than_a_chord_or_a_tangent_allows() -> None:
    """On [-1, 1] the line below tanh touches it where the tangent meets the right end; on [1, 2] it is the chord."""
    bits, one = 128, 1 << 128
    slope, offset, *_ = curve_lines("tanh", -one, one, bits)
    assert abs((slope + offset / one) / one - math.tanh(1.0)) < 1e-12
    slope, offset, *_ = curve_lines("tanh", one, 2 * one, bits)
    assert abs((slope + offset / one) / one - math.tanh(1.0)) < 1e-30 * 1e18
    assert abs((2 * slope + offset / one) / one - math.tanh(2.0)) < 1e-12


@pytest.mark.parametrize("kind", CURVES)
def test_certificates_of_curves_pass_both_checkers_and_none_that_is_false(kind: str) -> None:
    held = 0
    for seed in range(4):
        network = curved(kind, seed)
        certificate, distance = made(network, seed, 0.8)
        if isinstance(certificate, str):
            continue
        certificate.check(network)
        assert holds_exactly(certificate, network), "both"
        held += 1
        past = certificate.radius + 0.21 * distance
        assert refused(replace(certificate, radius=past), network)
        others = [k for k in range(3) if k != certificate.winner]
        assert all(refused(replace(certificate, winner=k), network) for k in others)
        assert refused(replace(certificate, digest=curved(kind, seed + 10).digest), network)
    assert held >= 2


def test_certificates_of_layers_of_distances_among_others_pass_both_checkers_and_none_that_is_false() -> None:
    held = 0
    for seed in range(6):
        distances = random_mwd_network(seed, (2, 6, 5, 3)).nodes
        ops = (Affine(torch.eye(2)), distances[0].op, Relu(), distances[1].op, Tanh(), Affine(2.0 * torch.eye(5)[:3]))
        network = chain((2,), *ops)
        centre = torch.rand(1, 2, generator=torch.Generator().manual_seed(seed), dtype=F64)
        if nearest_unsafe(network, centre, int(network.scores(centre).argmax())) is None:
            continue
        certificate, distance = made(network, seed, 0.5)
        if isinstance(certificate, Certificate):
            certificate.check(network)
            assert holds_exactly(certificate, network), "both"
            assert refused(replace(certificate, radius=1.001 * distance), network)
            held += 1
    assert held >= 2


@pytest.mark.parametrize("norm", ["2", "1"])
def test_certificates_of_balls_pass_both_checkers_and_none_that_is_false(norm: Norm) -> None:
    held = wider = 0
    for seed in range(6):
        network = hinge_network(seed, (2, 8, 6, 3))
        certificate, distance = made(network, seed, 0.9, norm)
        if isinstance(certificate, str):
            continue
        certificate.check(network)
        assert holds_exactly(certificate, network), "both"
        assert f"in the {norm}-norm" in check_certificate(content_of(certificate), plain(network))[0]
        held += 1
        assert refused(replace(certificate, radius=1.001 * distance), network)
        # The same tree for the box around the ball, and for the ball of the 2-norm around that of the 1-norm.
        box = certificate.centre.tolist()
        nearest = nearest_unsafe(network, torch.tensor([box], dtype=F64), certificate.winner)
        assert nearest is not None
        if np.abs(nearest - certificate.centre).max() <= certificate.radius:
            wider += 1
            assert refused(replace(certificate, norm="inf"), network)
    assert held >= 3 and wider >= 1


def test_norms_are_of_trees_of_inputs_and_known_alone() -> None:
    network = hinge_network(1, (2, 8, 6, 3))
    certificate, _ = made(network, 1, 0.5, "2")
    assert isinstance(certificate, Certificate)
    content = content_of(certificate)
    assert b'"schema": 4' in content or certificate.norm == "2"
    by_signs = replace(certificate, inputs=None, norm="2")
    with pytest.raises(CertificateError, match="only trees of inputs"):
        by_signs.check(network)
    with pytest.raises(Refused, match="norm"):
        check_certificate(content_of(by_signs), plain(network))
    with pytest.raises(Refused, match="its norm is '3'"):
        check_certificate(content_of(replace(certificate, norm="3")), plain(network))  # type: ignore[arg-type]
    with pytest.raises(Refused, match="a ball of the 2-norm, the property about a box"):
        box = "".join(f"(assert (<= X_{i} .5))(assert (>= X_{i} .4))" for i in range(2))
        rival = (certificate.winner + 1) % 3
        text = f"{box}(assert (<= Y_{certificate.winner} Y_{rival}))"
        check_certificate(content, plain(network), text.encode())


@pytest.mark.parametrize("norm", ["2", "1"])
def test_least_values_over_balls_lie_below_those_at_points_and_near_them(norm: Norm) -> None:
    generator = torch.Generator().manual_seed(3)
    for size in (1, 3, 40):
        centre = torch.randn(size, generator=generator, dtype=F64)
        radius = float(torch.rand(1, generator=generator, dtype=F64))
        slopes = torch.randn(1, 5, size, generator=generator, dtype=F64) * 10.0 ** torch.arange(-4, 6, 2)[None, :, None]
        found = BallMinimum(centre, radius, norm)(slopes)[0]
        for row, least in zip(slopes[0].tolist(), found.tolist(), strict=True):
            exact = [Fraction(s) for s in row]
            at_centre = sum(s * Fraction(c) for s, c in zip(exact, centre.tolist(), strict=True))
            away = at_centre - Fraction(least)
            length = sum(s * s for s in exact) if norm == "2" else max(map(abs, exact)) ** 2
            assert away > 0 and away**2 >= length * Fraction(radius) ** 2
            size_of = float(length) ** 0.5 * radius + sum(abs(a * b) for a, b in zip(row, centre.tolist(), strict=True))
            assert float(at_centre) - least <= float(length) ** 0.5 * radius + 1e-12 * size_of
            one = 1 << 128
            whole = [int(s * one) for s in exact]
            ends = [int(Fraction(c) * one) for c in centre.tolist()]
            ball = Ball(norm, ends, [end + 1 for end in ends], int(Fraction(radius) * one) + 1)
            assert (
                abs(ball.least(whole) / one / one - (float(at_centre) - float(length) ** 0.5 * radius)) < 1e-9 * size_of
            )


@pytest.mark.parametrize("norm", ["2", "1"])
def test_a_box_is_outside_a_ball_only_where_no_point_of_it_is_inside(norm: Norm) -> None:
    generator = torch.Generator().manual_seed(5)
    seen = {True: 0, False: 0}
    for _ in range(200):
        low = torch.randn(1, 3, generator=generator, dtype=F64)
        high = low + torch.rand(1, 3, generator=generator, dtype=F64)
        ball = BallMinimum(torch.zeros(3, dtype=F64), 1.0, norm)
        nearest = [Fraction(min(max(0.0, a), b)) for a, b in zip(low[0].tolist(), high[0].tolist(), strict=True)]
        inside = sum(x * x for x in nearest) <= 1 if norm == "2" else sum(map(abs, nearest)) <= 1
        one = 1 << 64
        exact = Ball(norm, [0] * 3, [0] * 3, one)
        ends = ([int(v * one) for v in low[0].tolist()], [int(v * one) for v in high[0].tolist()])
        assert bool(ball.misses(low, high)[0]) is exact.misses(*ends) is not inside
        seen[inside] += 1
    assert min(seen.values()) > 20
    touching = torch.tensor([[1.0, 0.0, 0.0]], dtype=F64)
    assert not ball.misses(touching, touching + 1.0)[0] and not exact.misses([one, 0, 0], [2 * one, one, one])


@pytest.mark.parametrize("kind", CURVES)
def test_no_name_of_a_node_takes_a_line_of_a_hinge_for_one_of_a_curve(kind: str):
    """The nodes have such names that a text of kind and name for one line is that of the other."""
    bits = 64
    boxes = Boxes({"a": ([-3 << bits], [2 << bits]), f"{kind} a": ([-1 << bits], [4 << bits])}, {})
    program = object.__new__(Program)
    program.bits, program.opens = bits, False
    hinge, curve = Hinge(f"{kind} a", (0, 0), 0), Curve("a", kind)
    program._hinge(hinge, [-1 << bits], boxes, {}, None, {}, {})
    pending: dict[str, list[int]] = {}
    total = program._curve(curve, [1 << bits], boxes, pending)
    for x in (-3.0, -0.5, 0.0, 1.0, 2.0):
        assert pending["a"][0] * x / 2**bits + total / 2 ** (2 * bits) <= float(CURVES[kind](x))


def test_a_ball_is_not_that_of_a_run_with_a_scale() -> None:
    """A domain hides in each input that the scaled ball reaches further: into corners of the domain."""
    network = hinge_network(1, (2, 8, 6, 3))
    certificate, _ = made(network, 1, 0.5, "2")
    assert isinstance(certificate, Certificate)
    content, radius = content_of(certificate), certificate.radius
    ends = [(certificate.centre + side * radius).tolist() for side in (-1, 1)]
    record = {
        "index": 0, "lower": radius,
        "certificate": {"sha256": hashlib.sha256(content).hexdigest(), "radius": radius},
    }  # fmt: skip
    settings: dict[str, Any] = {"norm": "2", "clip": [0.0, 1.0]}
    check_record(content, record, settings)
    with pytest.raises(Refused, match="of the 2-norm"):
        check_record(content, record, settings | {"scale": [10.0, 10.0], "domain": ends})


def test_a_stride_of_zero_is_refused() -> None:
    settings = {"kernel": [1, 1], "stride": [0, 1], "padding": [0, 0, 0, 0], "dilation": [1, 1]}
    nodes = [{"name": "pool", "op": "max-pool2d", "inputs": ["input"], "settings": settings}]
    graph = json.dumps({"dtype": "float32", "input_shape": [1, 2, 2], "nodes": nodes})
    texts = {"format": "robustness-verifier-network", "schema": "1", "network": graph}
    header = json.dumps({"__metadata__": texts}).encode()
    with pytest.raises(Refused, match="no network file"):
        read_network(len(header).to_bytes(8, "little") + header)
