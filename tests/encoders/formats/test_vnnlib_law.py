"""Random formulas: membership is direct evaluation of the text in rationals, and what proofs see holds all of it."""

import itertools
import random
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

import encoders

CASES, PER_CASE = 300, 12
INPUTS, OUTPUTS = 2, 3
# Decimals that float64 holds and some that it does not, few, so that ties and repeated boxes are common.
NUMBERS = ("0", "1", "-1", "0.5", "1e-1", "-0.3", "2.5E-1", ".7", "-1.10")
COMPARISONS = ("<=", ">=", "<", ">", "=", "==", "!=")
# How often each chosen: equalities are rarely true.
WEIGHTS = (6, 6, 3, 3, 1, 1, 1)

# A number, a variable, or an operator with its arguments.
Tree = str | tuple[object, ...]


def expression(generator: random.Random, names: list[str], depth: int) -> Tree:
    """Return a linear expression over some variables."""
    kind = generator.choice(["name", "name", "number", "+", "-", "*"] if depth else ["name", "number"])
    if kind == "name":
        return generator.choice(names)
    if kind == "number":
        return generator.choice(NUMBERS)
    if kind == "*":
        pair = [generator.choice(NUMBERS), expression(generator, names, depth - 1)]
        generator.shuffle(pair)
        return ("*", *pair)
    return (kind, *(expression(generator, names, depth - 1) for _ in range(generator.randint(1, 3))))


def literal(generator: random.Random) -> Tree:
    """Return a bound of one input, or a comparison of expressions over outputs."""
    (operator,) = generator.choices(COMPARISONS, WEIGHTS)
    count = 2 if operator == "!=" else generator.choice([2, 2, 2, 3])
    if generator.random() < 0.35:
        name = f"X_{generator.randrange(INPUTS)}"
        sides: list[Tree] = [name, *(generator.choice(NUMBERS) for _ in range(count - 1))]
        generator.shuffle(sides)
        return (operator, *sides)
    names = [f"Y_{j}" for j in range(OUTPUTS)]
    return (operator, *(expression(generator, names, 2) for _ in range(count)))


def formula(generator: random.Random, depth: int) -> Tree:
    if not depth or generator.random() < 0.3:
        return literal(generator)
    parts = (formula(generator, depth - 1) for _ in range(generator.randint(1, 3)))
    return (generator.choice(["and", "or"]), *parts)


def written(tree: Tree) -> str:
    return tree if isinstance(tree, str) else f"({' '.join(written(part) for part in tree)})"  # type: ignore[arg-type]


def evaluate(tree: Tree, at: dict[str, Fraction]) -> Fraction | bool:
    """Return the value of an expression or formula, by its definition."""
    if isinstance(tree, str):
        return at[tree] if tree in at else Fraction(tree)
    operator, values = tree[0], [evaluate(part, at) for part in tree[1:]]  # type: ignore[arg-type]
    if operator in ("and", "or"):
        return all(values) if operator == "and" else any(values)
    if operator == "+":
        return sum(values, Fraction(0))
    if operator == "*":
        return values[0] * values[1]
    if operator == "-":
        return -values[0] if len(values) == 1 else values[0] - sum(values[1:], Fraction(0))
    test = {
        "<=": lambda a, b: a <= b,
        ">=": lambda a, b: a >= b,
        "<": lambda a, b: a < b,
        ">": lambda a, b: a > b,
        "=": lambda a, b: a == b,
        "==": lambda a, b: a == b,
        "!=": lambda a, b: a != b,
    }[str(operator)]
    return all(test(a, b) for a, b in itertools.pairwise(values))


def point(generator: random.Random, size: int) -> list[float]:
    """Return floats at, or next to, the numbers of the formulas."""
    values = (float(generator.choice(NUMBERS)) for _ in range(size))
    return [generator.choice([v, v, np.nextafter(v, np.inf), np.nextafter(v, -np.inf)]) for v in values]


def replacements(names: list[str], x: list[float]) -> list[dict[str, Fraction]]:
    """Return the ways to put the decimals that floats are nearest to in their place."""
    choices = [[Fraction(v), *(Fraction(number) for number in NUMBERS if float(number) == v)] for v in x]
    return [dict(zip(names, chosen, strict=True)) for chosen in itertools.product(*choices)]


def holds_in_proofs(asked: encoders.Property, x: torch.Tensor, y: list[Fraction]) -> bool:
    """Return whether a point lies in the box and a polyhedron that methods are given, every row closed."""
    if not bool(((asked.lower <= x) & (x <= asked.upper)).all()):
        return False
    return any(
        all(
            sum(Fraction(c) * v for c, v in zip(row, y, strict=True)) <= Fraction(offset)
            for row, offset in zip(halfspaces.coefficients.tolist(), halfspaces.offsets.tolist(), strict=True)
        )
        for halfspaces in asked.unsafe
    )


@pytest.mark.parametrize("seed", range(6))
def test_membership_is_that_of_the_formula(tmp_path: Path, seed: int) -> None:
    generator = random.Random(seed)
    members = strict_members = several = differing = 0
    for case in range(CASES // 6):
        asserted: list[Tree] = [("<=", generator.choice(NUMBERS[2:]), f"X_{i}", "1") for i in range(INPUTS)]
        asserted += [formula(generator, 3) for _ in range(generator.randint(1, 2))]
        names = [f"X_{i}" for i in range(INPUTS)] + [f"Y_{j}" for j in range(OUTPUTS)]
        statements = [f"(assert {written(tree)})" for tree in asserted]
        generator.shuffle(statements)
        path = tmp_path / f"{case}.vnnlib"
        path.write_text("\n".join([*(f"(declare-const {name} Real)" for name in names), *statements]))
        properties = encoders.read_property(path)
        several += len(properties) > 1
        for _ in range(PER_CASE):
            x = point(generator, INPUTS)
            y = [Fraction(value) for value in point(generator, OUTPUTS)]
            if generator.random() < 0.5:
                # Outputs in real arithmetic need not be floats.
                y = [Fraction(generator.choice(NUMBERS)) for _ in range(OUTPUTS)]
            at = dict(zip(names, [*map(Fraction, x), *y], strict=True))
            expected = all(evaluate(tree, at) for tree in asserted)
            tensor = torch.tensor(x, dtype=torch.float64)
            member = any(asked.contains(tensor, y) for asked in properties)
            # An input that is fixed to a decimal is the nearest float for witnesses.
            fixed = any(
                all(evaluate(tree, {**at, **instead}) for tree in asserted)
                for instead in replacements(names[:INPUTS], x)
            )
            assert expected <= member <= fixed, path.read_text()
            differing += member != expected
            if member:
                assert any(holds_in_proofs(asked, tensor, y) for asked in properties)
            members += expected
            strict_members += expected and any(asked.strict for asked in properties)
    # The law is empty where nothing is a member, or only one kind of file is met.
    assert members >= 20 and strict_members >= 5 and several >= 5 and differing <= members // 4
