"""Contraction and branching: exact on what brute force can decide, and never against it."""

from itertools import product

import mpmath
import numpy as np
import pytest
import torch

from encoders import Box
from encoders.ops import Mwd
from encoders.satisfiability import Formula, assignment_of, formula_to_network, random_formula
from tests.networks.mwd_chains import KINDS, network_of
from verifier.bounds.interval import compare_classes
from verifier.certificates.distance_chain import dense_layers

pytest.importorskip("numba")

from verifier.bounds.mwd import contraction
from verifier.bounds.mwd.contraction_threshold import mirrored_down, mirrored_up

F64 = torch.float64


def packed(network):
    return contraction.pack(dense_layers(network, "contraction"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(18))
def test_no_answer_is_contradicted_by_a_dense_grid(seed, kind):
    network = network_of(kind, seed, (2, 8, 6, 3))
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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_an_attacked_input_is_never_refuted_in_more_dimensions(seed, kind):
    network = network_of(kind, seed, (8, 12, 10, 4))
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


@pytest.mark.parametrize("kind", KINDS)
def test_it_proves_whatever_intervals_prove_and_more(kind):
    more = 0
    for seed in (3, 4, 5):
        network = network_of(kind, seed, (4, 10, 8, 3))
        weights = packed(network)
        centres = torch.rand(70, 4, generator=torch.Generator().manual_seed(seed), dtype=F64)
        classes = network.scores(centres).argmax(dim=1)
        boxes = Box((centres - 0.1).clamp(0, 1), (centres + 0.1).clamp(0, 1))
        wins = compare_classes(network, boxes, classes).wins
        for row, other in product(range(len(centres)), range(3)):
            if other == int(classes[row]):
                continue
            lower, upper = boxes.lower[row].numpy(), boxes.upper[row].numpy()
            code = contraction.search(weights, lower, upper, int(classes[row]), other, 500).code
            if wins[row, other]:
                assert code == contraction.REFUTED
            more += int(code == contraction.REFUTED and not wins[row, other])
    # Intervals are nearly exact on small random networks of linear links.
    assert more > 0 or kind.startswith("linear")


@pytest.mark.parametrize("seed", range(200))
def test_random_formulas_agree_with_brute_force(seed):
    # Around 4.3 clauses a variable about half of the formulas are satisfiable, and they are hardest.
    generator = np.random.default_rng(seed)
    variables = int(generator.integers(3, 13))
    formula = random_formula(variables, int(variables * generator.uniform(3.5, 6.0)), seed)
    assignments = np.array(list(product((False, True), repeat=variables)))
    clauses = np.array(formula.clauses)
    satisfiable = bool((assignments[:, np.abs(clauses) - 1] == (clauses > 0)).any(axis=2).all(axis=1).any())
    network = formula_to_network(formula)
    answer = contraction.search(packed(network), np.zeros(variables), np.ones(variables), 0, 1, 1000)
    assert answer.code == (contraction.FOUND if satisfiable else contraction.REFUTED)
    if satisfiable:
        assert formula.satisfied_by(assignment_of(torch.from_numpy(answer.point)))


def test_larger_formulas_are_decided_within_a_thousand_boxes():
    codes = []
    for seed in range(10):
        network = formula_to_network(random_formula(30, 129, seed))
        codes.append(contraction.search(packed(network), np.zeros(30), np.ones(30), 0, 1, 1000).code)
    assert set(codes) == {contraction.FOUND, contraction.REFUTED}


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e20])
def test_the_halves_of_a_split_cover_the_node_and_overlap(scale):
    generator = np.random.default_rng(4)
    for _ in range(200):
        lower = scale * generator.normal(size=3)
        upper = lower + scale * generator.exponential(size=3)
        tau = np.sort(generator.normal(size=2))
        place = int(generator.integers(3))
        on_tau, sign = bool(generator.integers(2)), float(generator.choice([-1.0, 1.0]))
        threshold = float(lower[place] + generator.uniform() * (upper[place] - lower[place]))
        halves = np.full((2, 3), np.nan), np.full((2, 3), np.nan), np.full((2, 2), np.nan)
        count = contraction.split(halves, lower, upper, tau, on_tau, 0 if on_tau else place, sign, threshold)
        ends = [(halves[0][i], halves[1][i], halves[2][i]) for i in range(count)]
        for low, high, taus in ends:
            assert (low >= lower).all() and (high <= upper).all() and taus[0] >= tau[0] and taus[1] <= tau[1]
        if on_tau:
            assert ends[0][2][0] == tau[0] and ends[1][2][1] == tau[1] and ends[0][2][1] >= ends[1][2][0]
            continue
        starts, stops = sorted(e[0][place] for e in ends), sorted(e[1][place] for e in ends)
        assert starts[0] == lower[place] and stops[-1] == upper[place]
        assert count == 1 or stops[0] >= starts[1]
        for low, high, _taus in ends:
            others = np.arange(3) != place
            assert np.array_equal(low[others], lower[others]) and np.array_equal(high[others], upper[others])


def test_a_budget_of_nodes_stops_without_a_verdict():
    formula = Formula(
        3, tuple(tuple(s * v for s, v in zip(signs, (1, 2, 3), strict=True)) for signs in product((1, -1), repeat=3))
    )
    answer = contraction.search(packed(formula_to_network(formula)), np.zeros(3), np.ones(3), 0, 1, 1)
    assert answer.code == contraction.STOPPED
    assert answer.nodes == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_search_in_parts_is_the_search_in_one_go(kind):
    generator = torch.Generator().manual_seed(1)
    for seed in range(6):
        network = network_of(kind, seed, (4, 10, 8, 3))
        centre = torch.rand(4, generator=generator, dtype=F64)
        reference = int(network.scores(centre[None]).argmax())
        for other in {0, 1, 2} - {reference}:
            ends = ((centre - 0.2).numpy(), (centre + 0.2).numpy())
            whole = contraction.search(packed(network), *ends, reference, other, 5000)
            parts = contraction.BoxSearch(packed(network), *ends, reference, other)
            answer = parts.run(1)
            while answer.code == contraction.STOPPED:
                answer = parts.run(1)
            assert (answer.code, answer.nodes) == (whole.code, whole.nodes)
            if answer.code == contraction.FOUND:
                # Whoever does not take the point gets others, but no proof.
                assert np.array_equal(answer.point, whole.point)
                for _ in range(30):
                    answer = parts.run(50)
                    assert answer.code != contraction.REFUTED


@pytest.mark.parametrize("kind", KINDS)
def test_python_finds_in_the_same_boxes_what_compiled_loops_find(kind):
    for seed in range(4):
        network = network_of(kind, seed, (3, 6, 5, 3))
        centre = torch.rand(3, generator=torch.Generator().manual_seed(seed), dtype=F64)
        reference = int(network.scores(centre[None]).argmax())
        for other, radius in product({0, 1, 2} - {reference}, (0.02, 0.2)):
            ends = ((centre - radius).numpy(), (centre + radius).numpy())
            compiled = contraction.BoxSearch(packed(network), *ends, reference, other)
            uncompiled = contraction.BoxSearch(packed(network), *ends, reference, other)
            for nodes in (1, 3, 60):
                one, two = compiled.run(nodes), uncompiled.run_uncompiled(nodes)
                assert (one.code, one.nodes) == (two.code, two.nodes)
                assert np.allclose(one.point, two.point, rtol=1e-12, atol=1e-12)


def test_where_python_cannot_go_on_nothing_is_done(monkeypatch):
    def beyond(network, pair, shifts, stack, counts, width, limit):
        stack[0][0] -= 1.0
        counts += 1
        raise OverflowError("math range error")

    monkeypatch.setattr(contraction, "_uncompiled", lambda: beyond)
    network = network_of(KINDS[0], 0, (3, 6, 5, 3))
    whole, other = (contraction.BoxSearch(packed(network), np.zeros(3), np.ones(3), 0, 1) for _ in range(2))
    assert other.run_uncompiled(5) is None
    assert other.nodes == 0
    assert other.run(500).nodes == whole.run(500).nodes


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(6))
def test_every_radius_is_decided_but_those_within_padding_of_the_least_unsafe_one(seed, kind):
    network = network_of(kind, seed, (3, 8, 6, 3))
    weights = packed(network)
    centre = torch.rand(1, 3, generator=torch.Generator().manual_seed(seed), dtype=F64)
    reference = int(network.scores(centre).argmax())
    for other in {0, 1, 2} - {reference}:
        low, high = 0.0, 1.0
        for _ in range(60):
            radius = (low + high) / 2
            ends = ((centre - radius)[0].numpy(), (centre + radius)[0].numpy())
            answer = contraction.search(weights, *ends, reference, other, 5000)
            # A split literal that counts as true is not split again: with weights above 1 each took 400 nodes.
            assert answer.nodes < 300
            if answer.code == contraction.UNDECIDED:
                assert high - low < 1e-6 and 0.0 < answer.width < 1e-11
                break
            low, high = (radius, high) if answer.code == contraction.REFUTED else (low, radius)


@pytest.mark.parametrize("exponent", [-200, -20, -3, -1, 0, 0.3, 0.7, 1, 1.4, 2, 50])
def test_the_mirror_of_a_distance_is_enclosed_tightly(exponent):
    # exp(-mirror^2) = 1 - exp(-z^2).
    z = float(np.float64(10.0) ** exponent)
    with mpmath.workdps(400):
        exact = mpmath.sqrt(-mpmath.log(-mpmath.expm1(-(mpmath.mpf(z) ** 2)))) if z < 1e10 else mpmath.mpf(0)
        low, high = mirrored_down(z), mirrored_up(z)
        assert low <= exact <= high
        if 1e-100 < z < 20:
            # The error of exp(-s) is s times that of s.
            assert high - low <= 1e-12 * (1 + z * z) * exact + 1e-149
    assert mirrored_up(0.0) == np.inf and mirrored_down(np.inf) == 0.0


def test_weights_that_could_overflow_are_refused():
    ones_and_zeros = torch.ones(2, 2), torch.zeros(2, 2), torch.zeros(2).bool()
    with pytest.raises(ValueError, match="below 1e\\+100"):
        contraction.pack([Mwd(torch.full((2, 2), 1e200, dtype=F64), torch.zeros(2, 2), torch.zeros(2).bool())])
    linear = Mwd(torch.ones(2, 2), torch.zeros(2, 2), torch.zeros(2).bool(), torch.full((2,), 1e26), "linear")
    with pytest.raises(ValueError, match="below 1e\\+25"):
        contraction.pack([linear] * 3)
    with pytest.raises(ValueError, match="boxes within"):
        contraction.search(contraction.pack([Mwd(*ones_and_zeros)]), np.zeros(2), np.full(2, 1e101), 0, 1, 1)
