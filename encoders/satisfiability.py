"""3-SAT as an MWD network: Theorem 1 of Agrawal, de Alfaro, Helmbold (2019), as a source of hard problems.

A clause is a unit with attractor 0 for a positive and 1 for a negative literal and weight 1 on its variables: its
distance is 1, and its output 1/e, exactly where some literal is fully true; elsewhere the output is larger. A last
unit asks whether all clause outputs are 1/e. Over inputs in [0, 1] it reaches distance 0 if the formula is
satisfiable; otherwise, for any x, the rounded x breaks a clause, whose literals are then at most 1/2, so that the
distance is at least exp(-1/4) - exp(-1) > 0.41. A rival unit at the constant distance `RIVAL` turns the question
into a class decision: class 0 holds on the whole cube exactly if the formula is unsatisfiable.

The paper compares outputs for equality, which needs real exponentials; the gap makes floats enough.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from encoders.network import INPUT, Network, Node
from encoders.ops import Mwd

# Between 0 (satisfiable) and 0.41 (not).
RIVAL = 0.2


@dataclass(frozen=True)
class Formula:
    """A formula in conjunctive normal form: literals are +-1 to +-variables, as in DIMACS."""

    variables: int
    clauses: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        for clause in self.clauses:
            if not clause or any(literal == 0 or abs(literal) > self.variables for literal in clause):
                raise ValueError(f"clause {clause} is empty or names no variable in 1..{self.variables}")
        if self.variables < 1:
            raise ValueError("a formula needs a variable")

    def satisfied_by(self, assignment: tuple[bool, ...]) -> bool:
        """Return whether every clause has a true literal."""
        return all(any(assignment[abs(x) - 1] == (x > 0) for x in clause) for clause in self.clauses)


def read_dimacs(path: str | Path) -> Formula:
    """Return the formula of a DIMACS CNF file. Raises ValueError naming the line that cannot be read."""
    header: tuple[int, int] | None = None
    numbers: list[int] = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        words = line.split()
        if not words or words[0] == "c":
            continue
        if words[0] == "%":  # some generators end a file so
            break
        try:
            if words[0] == "p":
                if header is not None or len(words) != 4 or words[1] != "cnf":
                    raise ValueError("a second or malformed header")
                header = (int(words[2]), int(words[3]))
            elif header is None:
                raise ValueError("clauses come after the line 'p cnf VARIABLES CLAUSES'")
            else:
                numbers += map(int, words)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
    if header is None:
        raise ValueError(f"{path}: no line 'p cnf VARIABLES CLAUSES'")
    clauses: list[tuple[int, ...]] = []
    clause: list[int] = []
    for value in numbers:
        if value == 0:
            clauses.append(tuple(clause))
            clause = []
        else:
            clause.append(value)
    if clause or len(clauses) != header[1]:
        raise ValueError(f"{path}: {header[1]} clauses announced, {len(clauses)} found, each ending with 0")
    return Formula(header[0], tuple(clauses))


def random_formula(variables: int, clauses: int, seed: int) -> Formula:
    """Return a random formula with three different variables in each clause; with 4.3 clauses a variable it is hardest.

    (Mitchell, Selman, Levesque 1992.)
    """
    if variables < 3:
        raise ValueError(f"clauses of three different variables need three, got {variables}")
    generator = np.random.default_rng(seed)
    places = np.array([generator.choice(variables, 3, replace=False) + 1 for _ in range(clauses)])
    literals = places * generator.choice([-1, 1], size=places.shape)
    return Formula(variables, tuple(tuple(clause) for clause in literals.tolist()))


def formula_to_network(formula: Formula) -> Network:
    """Return the two-class network over `(variables,)`: class 0 on all of [0, 1]^n exactly if unsatisfiable.

    A satisfiable formula's witnesses round to satisfying assignments. Clauses with a literal and its opposite are
    true everywhere and left out, as no unit can state them. Ask with centre 1/2, radius 1/2 and class 0.
    """
    clauses = [c for c in formula.clauses if not any(-literal in c for literal in c)]
    weight = torch.zeros(len(clauses) + 1, formula.variables, dtype=torch.float64)
    attractor = torch.zeros_like(weight)
    for row, clause in enumerate(clauses):
        for literal in clause:
            weight[row, abs(literal) - 1] = 1.0
            attractor[row, abs(literal) - 1] = 0.0 if literal > 0 else 1.0
    # The last hidden unit has no weights: its output is the constant 1, from which the rival takes its distance.
    final_weight = torch.zeros(2, len(clauses) + 1, dtype=torch.float64)
    final_weight[0, -1] = RIVAL
    final_weight[1, :-1] = 1.0
    final_attractor = torch.zeros_like(final_weight)
    final_attractor[1, :-1] = math.exp(-1.0)
    plain = [torch.zeros(n, dtype=torch.bool) for n in (len(clauses) + 1, 2)]
    nodes = (
        Node("clauses", Mwd(weight, attractor, plain[0]), (INPUT,)),
        Node("conjunction", Mwd(final_weight, final_attractor, plain[1]), ("clauses",)),
    )
    return Network(nodes, (formula.variables,), torch.float64, "formula")


def assignment_of(point: Tensor) -> tuple[bool, ...]:
    """Return the assignment that a witness rounds to."""
    return tuple(bool(value > 0.5) for value in point.flatten())
