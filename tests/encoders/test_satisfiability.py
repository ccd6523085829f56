"""The 3-SAT reduction: reachable exactly if satisfiable."""

from itertools import product

import pytest
import torch

from encoders.satisfiability import (
    RIVAL,
    Formula,
    assignment_of,
    formula_to_network,
    random_formula,
    read_dimacs,
)


def test_corners_win_exactly_where_they_satisfy_the_formula():
    formula = Formula(4, ((1, 2, -3), (-1, 3, 4), (-2, -4, 1), (2, 3, 4)))
    network = formula_to_network(formula)
    for bits in product((False, True), repeat=4):
        outputs = network.evaluate(torch.tensor([bits], dtype=torch.float64))[0]
        assert bool(outputs[1] > outputs[0]) == formula.satisfied_by(bits)
        assert assignment_of(torch.tensor(bits, dtype=torch.float64)) == bits


def test_an_unsatisfiable_formula_keeps_its_distance_everywhere():
    # All eight sign patterns over three variables: no assignment is left.
    formula = Formula(
        3, tuple(tuple(s * v for s, v in zip(signs, (1, 2, 3), strict=True)) for signs in product((1, -1), repeat=3))
    )
    network = formula_to_network(formula)
    points = torch.rand(5000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    distance = (-network.scores(points)[:, 1]).sqrt()
    assert float(distance.min()) > 0.41 > RIVAL


def test_clauses_that_are_always_true_are_left_out():
    assert formula_to_network(Formula(2, ((1, -1), (2,)))).nodes[0].op.weight.shape == (2, 2)


def test_random_formulas_have_clauses_of_three_variables_and_are_those_of_their_seed():
    formula = random_formula(5, 400, 3)
    assert formula == random_formula(5, 400, 3) != random_formula(5, 400, 4)
    assert all(len({abs(literal) for literal in clause}) == 3 for clause in formula.clauses)
    # Each of the 10 literals is in 3/10 of the clauses: 120, with a standard deviation of 9.
    counts = [sum(literal in clause for clause in formula.clauses) for literal in (*range(-5, 0), *range(1, 6))]
    assert min(counts) > 75 and max(counts) < 165
    with pytest.raises(ValueError, match="got 2"):
        random_formula(2, 4, 0)


def test_dimacs_is_read(tmp_path):
    path = tmp_path / "a.cnf"
    path.write_text("c comment\np cnf 3 2\n1 -3\n0 2 3\n-1 0\n%\n0\n")
    assert read_dimacs(path) == Formula(3, ((1, -3), (2, 3, -1)))


@pytest.mark.parametrize(
    ("text", "message"),
    [("1 2 0\n", "line 1"), ("p cnf 2 1\n1 x 0\n", "line 2"), ("p cnf 2 2\n1 0\n", "2 clauses announced"),
     ("p cnf 2 1\n3 0\n", "names no variable"), ("", "no line"), ("p cnf 2 1\n0\n", "empty")],
)  # fmt: skip
def test_malformed_dimacs_is_refused_by_line(tmp_path, text, message):
    path = tmp_path / "a.cnf"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_dimacs(path)
