"""Contraction and branching: exact on what brute force can decide, and never against it."""

from itertools import product

import numpy as np
import pytest
import torch

from encoders import Box
from encoders.ops import Mwd, Relu
from encoders.satisfiability import Formula, assignment_of, formula_to_network
from tests.conftest import chain, random_mwd_network, random_relu_network
from verifier.bounds.interval import compare_classes
from verifier.budget import Budget
from verifier.methods import METHODS, Batch
from verifier.methods.base import Findings
from verifier.methods.contraction import mwd_layers
from verifier.subject import Subject
from verifier.verdict import Bracket, Outcome

pytest.importorskip("numba")

from verifier.bounds import contraction


def uniform_network(seed: int, sizes: tuple[int, ...], last_negated: bool):
    """Return a random MWD network whose last layer has one type of unit."""
    network = random_mwd_network(seed, sizes)
    *front, last = [node.op for node in network.nodes]
    final = Mwd(last.weight, last.attractor, torch.full_like(last.negated, last_negated))
    return chain((sizes[0],), *front, final)


def packed(network):
    layers = mwd_layers(network)
    return contraction.pack([(op.weight.numpy(), op.attractor.numpy(), op.negated.numpy()) for op in layers])


def batch_of(network, centres, classes):
    subject = Subject("test", network, lambda x: network.evaluate(torch.from_numpy(x)).numpy(), torch.device("cpu"))
    return Batch(subject, centres.to(torch.float64), classes, tuple(range(len(centres))), (0.0, 1.0), 1.0)


@pytest.mark.parametrize("last_negated", [False, True])
@pytest.mark.parametrize("seed", range(15))
def test_no_answer_is_contradicted_by_a_dense_grid(seed, last_negated):
    network = uniform_network(seed, (2, 8, 6, 3), last_negated)
    generator = torch.Generator().manual_seed(seed)
    axes = torch.linspace(0, 1, 61, dtype=torch.float64)
    for _ in range(6):
        centre = torch.rand(1, 2, generator=generator, dtype=torch.float64)
        radius = 0.25 * float(torch.rand(1, generator=generator))
        box = Box((centre - radius).clamp(0, 1), (centre + radius).clamp(0, 1))
        reference = int(network.scores(centre).argmax())
        points = box.lower + torch.cartesian_prod(axes, axes) * (box.upper - box.lower)
        scores = network.scores(points)
        for other in range(3):
            if other == reference:
                continue
            answer = contraction.search(
                packed(network), box.lower[0].numpy(), box.upper[0].numpy(), reference, other, 5000
            )
            unsafe = bool((scores[:, other] >= scores[:, reference]).any())
            if answer.code == contraction.REFUTED:
                assert not unsafe
            if answer.code == contraction.FOUND:
                point = torch.from_numpy(answer.point)[None]
                assert bool(box.contains(point))
                found = network.scores(point)[0]
                assert float(found[other] - found[reference]) >= -1e-9
            assert answer.code in (contraction.REFUTED, contraction.FOUND)  # two dimensions are always decided


@pytest.mark.parametrize("seed", range(10))
def test_an_attacked_input_is_never_refuted_in_more_dimensions(seed):
    network = uniform_network(seed, (8, 12, 10, 4), seed % 2 == 0)
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(12, 8, generator=generator, dtype=torch.float64)
    classes = network.scores(centres).argmax(dim=1)
    for row in range(len(centres)):
        lower, upper = (centres[row] - 0.2).clamp(0, 1), (centres[row] + 0.2).clamp(0, 1)
        corners = torch.rand(2000, 8, generator=generator, dtype=torch.float64).round()
        points = torch.cat(
            [
                lower + corners * (upper - lower),
                lower + torch.rand(2000, 8, generator=generator, dtype=torch.float64) * (upper - lower),
            ]
        )
        scores = network.scores(points)
        for other in range(4):
            if other == int(classes[row]):
                continue
            answer = contraction.search(packed(network), lower.numpy(), upper.numpy(), int(classes[row]), other, 300)
            if bool((scores[:, other] >= scores[:, int(classes[row])]).any()):
                assert answer.code != contraction.REFUTED


def test_it_proves_whatever_intervals_prove_and_more():
    network = uniform_network(3, (4, 10, 8, 3), True)
    centres = torch.rand(200, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    classes = network.scores(centres).argmax(dim=1)
    boxes = Box((centres - 0.1).clamp(0, 1), (centres + 0.1).clamp(0, 1))
    wins = compare_classes(network, boxes, classes).wins
    more = 0
    for row, other in product(range(len(centres)), range(3)):
        if other == int(classes[row]):
            continue
        code = contraction.search(
            packed(network), boxes.lower[row].numpy(), boxes.upper[row].numpy(), int(classes[row]), other, 500
        ).code
        if wins[row, other]:
            assert code == contraction.REFUTED
        more += int(code == contraction.REFUTED and not wins[row, other])
    assert more > 0


@pytest.mark.parametrize("seed", range(200))
def test_random_formulas_agree_with_brute_force(seed):
    generator = np.random.default_rng(seed)
    variables = int(generator.integers(3, 11))
    count = int(variables * generator.uniform(3.0, 6.0))
    clauses = tuple(
        tuple(
            int(v) * int(s)
            for v, s in zip(
                generator.choice(variables, 3, replace=False) + 1, generator.choice([-1, 1], 3), strict=True
            )
        )
        for _ in range(count)
    )
    formula = Formula(variables, clauses)
    satisfiable = any(formula.satisfied_by(bits) for bits in product((False, True), repeat=variables))
    network = formula_to_network(formula)
    answer = contraction.search(packed(network), np.zeros(variables), np.ones(variables), 0, 1, 100_000)
    assert answer.code == (contraction.FOUND if satisfiable else contraction.REFUTED)
    if satisfiable:
        assert formula.satisfied_by(assignment_of(torch.from_numpy(answer.point)))


def test_a_budget_of_nodes_stops_without_a_verdict():
    formula = Formula(
        3, tuple(tuple(s * v for s, v in zip(signs, (1, 2, 3), strict=True)) for signs in product((1, -1), repeat=3))
    )
    answer = contraction.search(packed(formula_to_network(formula)), np.zeros(3), np.ones(3), 0, 1, 1)
    assert answer.code == contraction.STOPPED
    assert answer.nodes == 1


def test_the_method_closes_brackets_from_both_sides():
    network = uniform_network(5, (3, 10, 8, 3), False)
    centres = torch.rand(20, 3, generator=torch.Generator().manual_seed(5))
    batch = batch_of(network, centres, network.evaluate(centres).argmax(dim=1))
    findings = Findings([Bracket() for _ in range(20)])
    METHODS["contraction"].bracket(batch, [0.1], findings, Budget())
    for bracket in findings.brackets:
        assert bracket.at(0.1) is not Outcome.OPEN
        if bracket.upper < 1.0:
            assert bracket.upper - bracket.lower < 0.01


def test_other_networks_are_refused_by_node():
    assert METHODS["contraction"].refusal(uniform_network(0, (2, 4, 3), True)) is None
    assert "1-relu" in METHODS["contraction"].refusal(
        chain((2,), *[n.op for n in uniform_network(0, (2, 3), True).nodes], Relu())
    )
    assert "affine" in METHODS["contraction"].refusal(random_relu_network(0))
    mixed = chain((2,), Mwd(torch.ones(2, 2), torch.zeros(2, 2), torch.tensor([True, False])))
    assert "one type of unit" in METHODS["contraction"].refusal(mixed)


def test_weights_that_could_overflow_are_refused():
    with pytest.raises(ValueError, match="below 1e\\+100"):
        contraction.pack([(np.full((2, 2), 1e200), np.zeros((2, 2)), np.zeros(2, dtype=bool))])
