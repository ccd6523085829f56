"""Trees of contraction: what is made passes both checkers, what is false passes neither, whatever is altered."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from encoders import Box
from encoders.ops import Affine, Mwd, MwdConv2d, Relu, Reshape
from encoders.region import BallRegion
from encoders.satisfiability import Formula, formula_to_network, random_formula
from tests.networks.chains import chain
from tests.networks.mwd_chains import KINDS, network_of
from tests.oracles.distance_claims import is_false, nearest_unsafe
from tests.oracles.exact_checker import holds_exactly
from verifier.bounds.mwd.certified import certificate_by_contraction
from verifier.budget import Budget
from verifier.certificates.certificate import Certificate
from verifier.certificates.distance_bounds import DistanceBounds
from verifier.certificates.distance_chain import dense_layers
from verifier.certificates.distance_tree import distance_refusal
from verifier.certificates.error import CertificateError

F64 = torch.float64


def ball(centre: torch.Tensor, radius: float) -> BallRegion:
    return BallRegion(centre, torch.tensor([radius], dtype=F64), (0.0, 1.0))


@cache
def cases(kind: str):
    """Return (network, certificate, an unsafe point just outside its ball) of some networks."""
    return list(_cases(kind))


def _cases(kind: str):
    for seed in range(4):
        network = network_of(kind, seed, (2, 7, 5, 3))
        centre = torch.rand(1, 2, generator=torch.Generator().manual_seed(seed), dtype=F64)
        winner = int(network.scores(centre).argmax())
        unsafe = nearest_unsafe(network, centre, winner)
        if unsafe is None:
            continue
        distance = float(np.abs(unsafe - centre[0].numpy()).max())
        made = certificate_by_contraction(network, ball(centre, 0.97 * distance), winner, Budget(), 60)
        if isinstance(made, Certificate):
            yield network, made, unsafe


def passes(certificate: Certificate, network) -> tuple[bool, bool]:
    """Return what both checkers say."""
    try:
        certificate.check(network)
        fast = True
    except CertificateError:
        fast = False
    return fast, holds_exactly(certificate, network) is True


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_proved_passes_both_checkers_and_what_is_false_neither(kind):
    for network, made, unsafe in cases(kind):
        assert passes(made, network) == (True, True)
        past = replace(made, radius=float(np.nextafter(np.abs(unsafe - made.centre).max(), 1.0)))
        assert is_false(past, network, {made.winner: [unsafe]})
        assert passes(past, network) == (False, False)
    assert len(cases(kind)) >= 2


@pytest.mark.parametrize("kind", KINDS)
def test_no_alteration_of_a_false_claim_passes(kind):
    """Other splits, values and passes, nodes pruned, trees exchanged: the ball holds an unsafe point."""
    generator = np.random.default_rng(3)
    for network, made, unsafe in cases(kind):
        radius = float(np.nextafter(np.abs(unsafe - made.centre).max(), 1.0))
        for _ in range(8):
            trees = [altered(tree, generator) for tree in made.distances]
            if generator.random() < 0.2:
                trees = [replace(a, rival=b.rival) for a, b in zip(trees, trees[::-1], strict=True)]
            assert passes(replace(made, radius=radius, distances=tuple(trees)), network) == (False, False)


def altered(tree, generator):
    sides, values, passed = tree.sides.copy(), tree.values.copy(), tree.passes.copy()
    place, draw = int(generator.integers(len(sides))), generator.random()
    if draw < 0.2:
        sides[place] = int(generator.integers(-1, 16))
    elif draw < 0.5:
        values[place] += generator.choice([-1e-6, 1e-3, 0.3, 5.0, np.inf])
    elif draw < 0.6:
        passed[place] = generator.choice([0, 1, 200])
    elif draw < 0.8:
        sides, values, passed = (np.append(part, part[:1]) for part in (sides, values, passed))
    return replace(tree, sides=sides, values=values, passes=passed)


@pytest.mark.parametrize("kind", KINDS)
def test_contraction_loses_no_point_where_a_rival_is_level(kind):
    """Points of a part, with their outputs and thresholds, stay in it however often it is contracted."""
    generator = torch.Generator().manual_seed(5)
    kept = 0
    for seed in range(4):
        network = network_of(kind, seed, (2, 7, 5, 3))
        layers = dense_layers(network, "contraction")
        lower, width = torch.rand(2, 1, 2, generator=generator, dtype=F64)
        points = lower + width * torch.rand(400, 2, generator=generator, dtype=F64)
        hidden = [points]
        for layer in layers[:-1]:
            hidden.append(layer.cast(F64, torch.device("cpu")).evaluate(hidden[-1]))
        values, scores = torch.cat(hidden, dim=1), network.scores(points)
        for winner, rival in ((0, 1), (1, 2), (2, 0)):
            bounds = DistanceBounds(layers, winner, rival)
            part = bounds.root(lower, lower + width)
            unsafe = scores[:, rival] >= scores[:, winner] + 1e-12
            for _ in range(4):
                part, empty = bounds.contracted(part)
                inside = (values >= part.lower - 1e-12) & (values <= part.upper + 1e-12)
                assert bool(inside[unsafe].all()) and not (bool(empty) and bool(unsafe.any()))
            kept += int(unsafe.sum())
    assert kept > 100


def test_some_trees_are_divided():
    assert sum(made.leaves > len(made.distances) for kind in KINDS for _, made, _ in cases(kind)) >= 3


def test_formulas_without_a_solution_have_certificates():
    found = 0
    for seed in range(4):
        formula = random_formula(8, 48, seed)
        network = formula_to_network(formula)
        whole = BallRegion.of_box(Box(torch.zeros(1, 8, dtype=F64), torch.ones(1, 8, dtype=F64)))
        made = certificate_by_contraction(network, whole, 0, Budget(), 300)
        if isinstance(made, Certificate):
            assert passes(made, network) == (True, True)
            found += 1
    assert found >= 2
    solvable = formula_to_network(Formula(3, ((1, 2, 3), (-1, 2, -3))))
    whole = BallRegion.of_box(Box(torch.zeros(1, 3, dtype=F64), torch.ones(1, 3, dtype=F64)))
    assert "no certificate" in certificate_by_contraction(solvable, whole, 0, Budget(), 50)


def test_windows_with_padding_and_biases_have_certificates():
    generator = torch.Generator().manual_seed(2)

    def draw(*shape):
        return torch.rand(*shape, generator=generator)

    mask = torch.tensor([True, False])
    network = chain(
        (2, 4, 3),
        MwdConv2d(2 * draw(2, 2, 2, 2), draw(2, 2, 2, 2), mask, stride=(2, 1), padding=(1, 0, 0, 1)),
        Reshape((12,)),
        Mwd(draw(4, 12), draw(4, 12), torch.arange(4) % 2 == 0, draw(4), "linear"),
        Mwd(draw(3, 4), draw(3, 4), torch.tensor([True, False, True]), draw(3), "linear"),
    )
    centre = draw(1, 2, 4, 3).double()
    winner = int(network.scores(centre).argmax())
    made = certificate_by_contraction(network, ball(centre, 0.003), winner, Budget(), 300)
    assert isinstance(made, Certificate) and passes(made, network) == (True, True)
    for other in {0, 1, 2} - {winner}:
        assert passes(replace(made, winner=other), network) == (False, False)


def test_what_is_no_chain_is_refused_by_name():
    network = chain(
        (2,), Mwd(torch.ones(3, 2), torch.zeros(3, 2), torch.zeros(3, dtype=torch.bool)), Affine(torch.eye(3))
    )
    assert "affine" in distance_refusal(network)
    assert "affine" in certificate_by_contraction(
        network, ball(torch.full((1, 2), 0.5, dtype=F64), 0.1), 0, Budget(), 10
    )
    certificate = cases("gaussian-plain")[0][1]
    other = chain((2,), Affine(torch.ones(3, 2)), Relu(), Affine(torch.eye(3)))
    with pytest.raises(CertificateError, match="chain of MWD layers"):
        replace(certificate, digest=other.digest).check(other)
    assert holds_exactly(replace(certificate, digest=other.digest), other) is not True
