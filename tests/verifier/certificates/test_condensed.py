"""Rows between open units: bounds are those of all rows but for rounding, and hold at every point, in rationals."""

from fractions import Fraction

import numpy as np
import pytest

from encoders.network import INPUT
from tests.networks.hinge_graphs import hinge_networks, odd_network
from tests.networks.random_boxes import box_of, points_of
from tests.oracles.node_values import exact_values
from tests.seeds import seeds
from verifier.certificates import condensed
from verifier.certificates.condensed import affine_rows, worth_condensing
from verifier.certificates.split_program import SplitProgram

# The same sums in another order, and other roundings counted.
ROUNDING = 1e-9


def condensable(seed: int):
    """Yield networks of a seed whose rows between open units are made."""
    return [network for network in (hinge_networks(60)[seed], odd_network(seed)) if worth_condensing(network)]


@pytest.fixture(autouse=True)
def small_networks_count(monkeypatch):
    monkeypatch.setattr(condensed, "MANY_UNITS", 0)


@pytest.mark.parametrize("seed", seeds(12, 60))
def test_bounds_are_those_of_all_rows_and_hold_at_points(seed):
    for network in condensable(seed):
        generator = np.random.default_rng(seed)
        box = box_of(network, generator)
        whole, made = SplitProgram(network, box), SplitProgram(network, box)
        points = points_of(box, generator, 2)
        values = [exact_values(whole.network, point) for point in points]
        while (name := whole.advance()) is not None:
            assert made.advance() == name
            whole.tighten_open_units(name)
            made.tighten_open_units(name)
            made.condense(name)
            check_node(whole, made, name, whole.open_units(name), values, generator)
        made.advance()
        name = network.output.name
        check_node(whole, made, name, np.arange(whole.boxes[name].lower[0].numel()), values, generator)


def check_node(whole: SplitProgram, made: SplitProgram, name: str, places: np.ndarray, values, generator) -> None:
    if not len(places):
        return
    rows = np.zeros((4, whole.boxes[name].lower[0].numel()))
    rows[:, places] = generator.normal(size=(4, len(places)))
    slopes = generator.uniform(size=(4, whole.units))
    expected, found = (program.bounds(name, rows, None, slopes, None) for program in (whole, made))
    assert made._condensed is not None and made._condensed.holds(name, rows)
    assert np.abs(expected - found).max() <= ROUNDING * (1.0 + np.abs(expected).max())
    is_open = np.zeros(whole.units, dtype=bool)
    for hinge in whole.hinges:
        lower, upper = whole.ends(hinge.source)
        is_open[hinge.units] = ((lower < 0) & (upper > 0))[0]
    for exact in values:
        # The signs of a point, of some open units: what is bounded with them holds there.
        at = [Fraction(0)] * whole.units
        for hinge in whole.hinges:
            at[hinge.units] = exact[hinge.source]
        given = np.array([1 if z >= 0 else -1 for z in at] or np.zeros(0), dtype=np.int8)
        signs = given * is_open * generator.integers(0, 2, size=(4, whole.units)).astype(np.int8)
        multipliers = generator.normal(size=(4, whole.units)) * generator.integers(0, 2, size=(4, whole.units))
        bounds = made.bounds(name, rows, signs.astype(np.int8), slopes, multipliers)
        for row, bound in zip(rows, bounds.tolist(), strict=True):
            value = sum((Fraction(c) * v for c, v in zip(row.tolist(), exact[name], strict=True)), Fraction(0))
            assert bound == -np.inf or Fraction(bound) <= value


@pytest.mark.parametrize("seed", seeds(8, 60))
def test_a_row_lies_between_its_costs_and_their_ends(seed):
    for network in condensable(seed):
        generator = np.random.default_rng(seed)
        box = box_of(network, generator)
        program = SplitProgram(network, box)
        while (name := program.advance()) is not None:
            program.tighten_open_units(name)
        name = network.output.name
        kept = {}
        for hinge in program.hinges:
            lower, upper = program.ends(hinge.source)
            kept[hinge.name] = ((lower < 0) & (upper > 0))[0]
        rows = generator.normal(size=(3, program.boxes[name].lower[0].numel()))
        costs, low, high = affine_rows(program.rows(), name, rows, kept)
        assert set(costs) <= {INPUT, *kept}
        for point in points_of(box, generator, 2):
            exact = exact_values(program.network, point)
            exact[INPUT] = [Fraction(x) for x in point.flatten().tolist()]
            for i, row in enumerate(rows.tolist()):
                value = sum(Fraction(c) * v for c, v in zip(row, exact[name], strict=True))
                linear = Fraction(0)
                for key, cost in costs.items():
                    linear += sum(Fraction(c) * v for c, v in zip(cost[i].tolist(), exact[key], strict=True))
                assert Fraction(low[i]) <= value - linear <= Fraction(high[i])


def test_boxes_under_signs_leave_the_rows_of_the_ball_as_they_are():
    for seed in range(20):
        for network in condensable(seed):
            box = box_of(network, np.random.default_rng(seed))
            program = SplitProgram(network, box)
            while (name := program.advance()) is not None:
                program.tighten_open_units(name)
            name, rows = network.output.name, np.eye(program.boxes[network.output.name].lower[0].numel())
            program.condense(name)
            before = program.bounds(name, rows, None, None, None)
            cut = program.under(np.ones(program.units, dtype=np.int8))
            cut.condense(name)
            both = program.joined([cut], np.ones((1, program.units), dtype=np.int8))
            of = np.zeros(len(rows), dtype=np.int64)
            assert (
                both.bounds(name, rows, np.zeros((len(rows), program.units), np.int8), None, None, of)
                <= before + ROUNDING
            ).all()
            assert (program.bounds(name, rows, None, None, None) == before).all()
            return
    pytest.fail("no network of the kind")
