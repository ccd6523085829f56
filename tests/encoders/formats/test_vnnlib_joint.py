"""Files about several networks, or that couple inputs: joint inputs by hand, and membership against the text."""

import itertools
import random
from fractions import Fraction
from pathlib import Path

import pytest
import torch

import encoders
from encoders.joint import Copy, Joint
from encoders.property import Property

# Networks of two inputs and one output: g is f, h is another.
DECLARED = (
    "(vnnlib-version <2.0>)\n"
    "(declare-network f (declare-input A Real [2]) (declare-output U Real [1]))\n"
    "(declare-network g (equal-to f) (declare-input B Real [2]) (declare-output V Real [1]))\n"
    "(declare-network h (isomorphic-to f) (declare-input C Real [2]) (declare-output W Real [1]))\n"
)
TWO = "".join(DECLARED.splitlines(keepends=True)[:3])
BOX = "".join(f"(assert (<= -1 {name}[{i}] 1))" for name in "AB" for i in (0, 1))


def read(folder: Path, text: str) -> tuple[Property, ...]:
    path = folder / "asked.vnnlib"
    path.write_text(text)
    return encoders.read_property(path)


def test_a_network_at_two_inputs_of_which_one_is_raised(tmp_path: Path) -> None:
    text = TWO + BOX + "(assert (= A[1] B[1]))(assert (<= A[0] B[0]))(assert (<= V[0] (- U[0] 0.5)))"
    (asked,) = read(tmp_path, text)
    assert asked.joint == Joint(3, (Copy("f", (2,), (0, 1), 1), Copy("f", (2,), (2, 1), 1)), (0, 2))
    (halfspaces,) = asked.unsafe
    # Outputs: U[0], V[0], then A[0] and B[0] as they are shown.
    assert halfspaces.coefficients.tolist() == [[0.0, 0.0, 1.0, -1.0], [-1.0, 1.0, 0.0, 0.0]]
    assert halfspaces.offsets.tolist() == [0.0, -0.5]


def test_networks_on_one_input_share_its_coordinates_and_its_bounds(tmp_path: Path) -> None:
    equal = "".join(f"(assert (== A[{i}] B[{i}] C[{i}]))" for i in (0, 1))
    bounds = "(assert (<= 0 A[0] 4))(assert (<= B[0] 3))(assert (<= 1 C[0]))(assert (<= 0 C[1] 1))"
    (asked,) = read(tmp_path, DECLARED + equal + bounds + "(assert (>= (- U[0] W[0]) 1))")
    assert asked.joint == Joint(2, tuple(Copy(name, (2,), (0, 1), 1) for name in ("f", "f", "h")))
    assert asked.lower.tolist() == [1.0, 0.0] and asked.upper.tolist() == [3.0, 1.0]
    assert asked.unsafe[0].coefficients.tolist() == [[-1.0, 0.0, 1.0]]


def test_one_network_whose_inputs_are_coupled_is_a_joint_of_one_copy(tmp_path: Path) -> None:
    names = [f"(declare-const {name} Real)" for name in ("X_0", "X_1", "X_2", "Y_0")]
    bounds = "".join(f"(assert (<= 0 X_{i} 1))" for i in range(3))
    text = "".join(names) + bounds + "(assert (= X_2 X_0))(assert (or (<= (+ X_0 X_1) 1) (>= Y_0 X_1)))"
    (asked,) = read(tmp_path, text)
    assert asked.joint == Joint(2, (Copy("f", (3,), (0, 1, 0), 1),), (0, 1))
    assert [halfspaces.coefficients.tolist() for halfspaces in asked.unsafe] == [[[0.0, 1.0, 1.0]], [[-1.0, 0.0, 1.0]]]


def test_inputs_that_are_equal_in_some_disjuncts_alone_stay_apart(tmp_path: Path) -> None:
    found = read(tmp_path, TWO + BOX + "(assert (or (= A[0] B[0]) (<= U[0] 0)))(assert (<= A[1] B[1]))")
    assert all(asked.joint is not None and asked.joint.inputs == 4 for asked in found)


def test_an_unbounded_input_is_named_as_it_is_declared(tmp_path: Path) -> None:
    with pytest.raises(encoders.formats.PropertyFileError, match=r"input B\[1\] has no lower bound"):
        read(tmp_path, TWO + BOX.replace("(assert (<= -1 B[1] 1))", "") + "(assert (= A[0] B[0]))(assert (<= U[0] 0))")


NUMBERS = ("0", "1", "-1", "0.5", "-0.3", "2")
NAMES = [f"{name}[{i}]" for name in "AB" for i in (0, 1)] + ["U[0]", "V[0]"]
Row = tuple[str, list[tuple[str, str]], str]


def test_membership_is_the_truth_of_the_text(tmp_path: Path) -> None:
    """Random disjunctions of rows over inputs and outputs of two networks, at points where equal inputs are equal."""
    generator = random.Random(0)
    grid = [Fraction(k, 2) for k in range(-2, 3)]
    seen = {True: 0, False: 0}
    for _ in range(60):
        formula = [[_row(generator) for _ in range(generator.randint(1, 3))] for _ in range(generator.randint(1, 3))]
        equal = [i for i in (0, 1) if generator.random() < 0.4]
        text = TWO + BOX + "".join(f"(assert (= A[{i}] B[{i}]))" for i in equal)
        disjuncts = " ".join(f"(and {' '.join(map(_written, rows))})" for rows in formula)
        found = read(tmp_path, f"{text}(assert (or {disjuncts}))")
        for _ in range(20):
            values = {name: generator.choice(grid) for name in NAMES}
            values |= {f"B[{i}]": values[f"A[{i}]"] for i in equal}
            wanted = any(all(_holds(row, values) for row in rows) for rows in formula)
            assert any(_contains(asked, values) for asked in found) == wanted, (disjuncts, equal, values)
            seen[wanted] += 1
    assert min(seen.values()) > 100


def _row(generator: random.Random) -> Row:
    operator = generator.choices(("<=", "<", ">=", ">", "=", "!="), (6, 3, 6, 3, 1, 1))[0]
    chosen = generator.sample(NAMES, generator.randint(1, 3))
    return operator, [(generator.choice(NUMBERS), name) for name in chosen], generator.choice(NUMBERS)


def _written(row: Row) -> str:
    operator, terms, bound = row
    return f"({operator} (+ {' '.join(f'(* {factor} {name})' for factor, name in terms)}) {bound})"


def _holds(row: Row, values: dict[str, Fraction]) -> bool:
    operator, terms, bound = row
    total, limit = sum(Fraction(factor) * values[name] for factor, name in terms), Fraction(bound)
    truths = {"<=": total <= limit, "<": total < limit, ">=": total >= limit, ">": total > limit}
    return {**truths, "=": total == limit, "!=": total != limit}[operator]


def _contains(asked: Property, values: dict[str, Fraction]) -> bool:
    """Return whether declared values are a counterexample, as joint inputs and outputs."""
    outputs = [values["U[0]"], values["V[0]"]]
    joint = asked.joint
    assert joint is not None
    point: list[Fraction | None] = [None] * joint.inputs
    for copy, name in zip(joint.copies, "AB", strict=True):
        for place, i in zip(copy.places, itertools.count(), strict=False):
            assert point[place] in (None, values[f"{name}[{i}]"])
            point[place] = values[f"{name}[{i}]"]
    numbers = [Fraction(0) if value is None else value for value in point]
    shown = [numbers[place] for place in joint.shown]
    return asked.contains(torch.tensor(list(map(float, numbers)), dtype=torch.float64), [*outputs, *shown])
