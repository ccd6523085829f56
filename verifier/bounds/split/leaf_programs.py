"""Deep subproblems ended by linear programs over the lines of their units, split where the optimum leaves the network.

Beside the border of the ball a subproblem of dozens of splits lacks little, and steps of ascent neither reach the
optimum over its lines nor tell which splits it needs: of 99 units four may be off their hinges at the optimum while all
others are split first. The optimum of the program tells both. Its multipliers are slopes and multipliers of
`verifier.certificates.split_program`, which evaluates them: nothing here is trusted. Its point is tried as a
counterexample; where it is none, the subproblem is split at the unit that is farthest off its hinge, and so on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import scipy
import torch
from torch import Tensor

from encoders.linear_model import Direction, LinearModel
from verifier.bounds.split.answer import Effort
from verifier.bounds.split.descents import Attack, are_near, tried
from verifier.bounds.split.dual_ascent import Lines
from verifier.bounds.split.prepared import PreparedBall
from verifier.bounds.split.stages import Stage, StagedNetwork
from verifier.bounds.split.subproblem_ascent import GOAL
from verifier.bounds.split.subproblems import Forest, Subproblems, SubproblemStore
from verifier.budget import Budget
from verifier.certificates.dual_bound import safe_bound
from verifier.solvers.highs_backend import WarmModel

# Subproblems of so many splits are handed over.
DEEP = 12
# Entries of a program beyond which ascent is cheaper: some 10 ms each.
MOST_ENTRIES = 1 << 16
# Programs for one subproblem; what is open then waits as others do.
PROGRAMS = 64
# A unit is off its hinge beyond this, in units in which values are of size 1.
OFF = 1e-7


class LeafPrograms:
    """The programs of subproblems of one prepared ball: columns are the inputs, then what its open units give.

    Rows, in blocks of all units each: what a unit reads, in its box; then y less the line on the right of zero, y less
    that on its left, and the line or plane above less y.
    """

    def __init__(self, ball: PreparedBall) -> None:
        network = ball.ascent.network
        assert isinstance(network, StagedNetwork)
        self.ball, self.inputs = ball, network.inputs
        sizes = [stage.size for stage in network.hinges]
        self._starts = np.cumsum([0, network.inputs, *sizes])
        affine = [self._affine(stage) for stage in (*network.hinges, network.output)]
        # What units read, and the outputs, as affine functions of the columns.
        self._reads, self._bias = (np.concatenate([each[i] for each in affine[:-1]]) for i in range(2))
        self._outputs, self._offset = affine[-1]
        self._left = ball.ascent.left.double().cpu().numpy()
        self._ends = tuple(end.double().cpu().numpy().ravel() for end in (ball.ascent.lower, ball.ascent.upper))
        own = np.eye(int(self._starts[-1]), dtype=bool)[self.inputs :]
        self._pattern = np.concatenate([self._reads != 0, *([(self._reads != 0) | own] * 3)])
        self._places = np.nonzero(self._pattern)[1], np.append(0, self._pattern.sum(axis=1).cumsum())

    @classmethod
    def on(cls, ball: PreparedBall) -> LeafPrograms | None:
        """Return the programs of a ball; None where the network is held as its ops, or is large."""
        network = ball.ascent.network
        if not isinstance(network, StagedNetwork) or not network.hinges:
            return None
        units = sum(stage.size for stage in network.hinges)
        return cls(ball) if 4 * units * (network.inputs + units) <= MOST_ENTRIES else None

    def _affine(self, stage: Stage) -> tuple[np.ndarray, np.ndarray]:
        matrix = np.zeros((stage.size, int(self._starts[-1])))
        for j, weight in stage.weights.items():
            matrix[:, self._starts[j] : self._starts[j + 1]] = weight.double().cpu().numpy()
        return matrix, stage.bias.double().cpu().numpy()

    def model(self, of: Subproblems) -> LinearModel | None:
        """Return the program of one subproblem; None where a box is empty."""
        ball = self.ball
        lines = ball.split_lines(of.signs, of.rows, of.boxes, ball.planes_of(of.points))
        lower, upper, slope, offset, least, span = (
            getattr(lines, name)[0].double().numpy() for name in ("lower", "upper", "slope", "offset", "least", "span")
        )
        if (lower > upper).any():
            return None
        own = np.eye(self._reads.shape[1])[self.inputs :]
        right = least + span
        above, at_zero = slope[:, None] * self._reads, slope * self._bias + offset
        if lines.planes is not None:
            self._put_planes(lines, offset > 0, above, at_zero)
        dense = np.concatenate(
            [self._reads, own - right[:, None] * self._reads, own - least[:, None] * self._reads, above - own]
        )
        matrix = scipy.sparse.csr_array((dense[self._pattern], *self._places), shape=dense.shape)
        none = np.full(len(lower), np.inf)
        # What units give has no end of its own here: the lines say all, and the bound has no multiplier for it.
        room = 4.0 * (1.0 + np.maximum(np.abs(lower), np.abs(upper)).max())
        ends = np.full(len(lower), room)
        return LinearModel(
            self._row(of) @ self._outputs, matrix,
            np.concatenate([lower - self._bias, right * self._bias, least * self._bias, -at_zero]),
            np.concatenate([upper - self._bias, none, none, none]),
            np.concatenate([self._ends[0], -ends]), np.concatenate([self._ends[1], ends]), Direction.OUTER,
        )  # fmt: skip

    def _put_planes(self, lines: Lines, is_open: np.ndarray, above: np.ndarray, at_zero: np.ndarray) -> None:
        """Put planes in place of the lines above open units of the first hinge."""
        assert lines.planes is not None
        group = int(lines.planes.groups[0])
        matrix, offset = (part[group].double().numpy() for part in (lines.planes.matrix, lines.planes.offset))
        places = np.flatnonzero(is_open[: len(offset)])
        above[places, : self.inputs], at_zero[places] = matrix[places], offset[places]

    def _row(self, of: Subproblems) -> np.ndarray:
        row: np.ndarray = self.ball.rows[of.rows[0]].double().numpy()
        return row

    def objective(self, of: Subproblems) -> float:
        """Return what the program's minimum lacks to be a margin's."""
        return float(self._row(of) @ self._offset)

    def numbers(self, dual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return slopes and multipliers `(open units,)` from the multipliers of all rows."""
        multipliers, right, left, _ = np.nan_to_num(dual).reshape(4, -1)
        right, left = np.maximum(right, 0.0), np.maximum(left, 0.0)
        total = right + left
        return np.where(total > 0, right / np.where(total > 0, total, 1.0), 0.0), multipliers

    def off(self, point: np.ndarray, signs: np.ndarray) -> np.ndarray:
        """Return how far units `(open units,)` without a sign are off their hinges at a point of the columns."""
        read = self._reads @ point + self._bias
        off: np.ndarray = np.abs(point[self.inputs :] - np.maximum(read, self._left * read))
        return np.where(signs == 0, off, 0.0)


def ended_by_programs(
    ball: PreparedBall,
    subproblems: Subproblems,
    losses: Tensor,
    forest: Forest,
    store: SubproblemStore,
    attack: Attack,
    budget: Budget,
    effort: Effort,
) -> tuple[Subproblems, Tensor] | None:
    """Return subproblems, and their losses, without the deep ones that programs prove or split; None: a counterexample.

    The forest keeps proofs, and the store gets what splits leave open.
    """
    splits = (subproblems.signs != 0).sum(dim=1)
    deep = (splits >= DEEP) & (splits < subproblems.signs.shape[1])
    programs = LeafPrograms.on(ball) if bool(deep.any()) else None
    if programs is None:
        return subproblems, losses
    for i in torch.nonzero(deep).squeeze(1).tolist():
        own = subproblems[i : i + 1]
        left = _left_of(programs, own, forest, attack, budget, effort)
        if left is None:
            return None
        if len(left) == 1 and torch.equal(left[0].nodes, own.nodes):
            deep[i] = False
            continue
        for part in left:
            store.add(part)
    return subproblems[~deep], losses[~deep]


def _left_of(
    programs: LeafPrograms, of: Subproblems, forest: Forest, attack: Attack, budget: Budget, effort: Effort
) -> list[Subproblems] | None:
    """Return what programs leave open of one subproblem, itself where they split it nowhere; None: a counterexample."""
    part, waiting, left, most = _Part(programs, forest), [of], list[Subproblems](), effort.deep_programs + PROGRAMS
    while waiting and effort.deep_programs < most and not budget.exhausted:
        own = waiting.pop()
        effort.deep_programs += 1
        is_proved, point = part.solved(own, budget)
        if is_proved:
            continue
        if point is None:
            left.append(own)
            continue
        inputs = torch.from_numpy(point[: programs.inputs]).float()[None]
        if bool(are_near(programs.ball, inputs, own.rows)[0]):
            if tried(programs.ball, attack, inputs):
                return None
            # Most likely a tie: no split ends it.
            left.append(own)
            continue
        off = programs.off(point, own.signs[0].numpy())
        unit = int(off.argmax())
        if off[unit] <= OFF:
            left.append(own)
        else:
            waiting += _halves(own, unit, forest, programs.ball.open_units)
    return left + waiting


def _halves(of: Subproblems, unit: int, forest: Forest, open_units: Tensor) -> list[Subproblems]:
    """Return both halves of one subproblem at a unit, given by its place among the open ones."""
    first, halves = forest.split(int(of.nodes[0]), int(open_units[unit])), list[Subproblems]()
    for number, sign in enumerate((1, -1)):
        signs = of.signs.clone()
        signs[0, unit] = sign
        halves.append(replace(of, nodes=torch.tensor([first + number]), signs=signs))
    return halves


@dataclass
class _Part:
    """One subproblem that grows into a tree by programs, which all change one warm model."""

    programs: LeafPrograms
    forest: Forest
    warm: WarmModel | None = None

    def proved(self, of: Subproblems, dual: np.ndarray | None) -> bool:
        """Return whether multipliers of all rows prove a subproblem; keep the numbers then."""
        if dual is None:
            return False
        ball, (slopes, multipliers) = self.programs.ball, self.programs.numbers(dual)
        exact = ball.exact_multipliers(torch.from_numpy(multipliers)[None])
        if not ball.proved(of.rows.numpy(), of.signs, slopes[None], exact, of.boxes, of.points)[0]:
            return False
        self.forest.close(int(of.nodes[0]), slopes, exact[0], int(of.boxes[0]), of.points[0].numpy())
        return True

    def solved(self, of: Subproblems, budget: Budget) -> tuple[bool, np.ndarray | None]:
        """Return whether a subproblem is proved by its program, and the point of its optimum."""
        model = self.programs.model(of)
        if model is None:
            return False, None
        try:
            if self.warm is None:
                self.warm = WarmModel(model)
            else:
                self.warm.change_model(model)
            solution = self.warm.solve(budget.remaining, GOAL - self.programs.objective(of))
        except (ValueError, RuntimeError):
            # Numbers that a model, or the solver, does not take: nothing is proposed.
            self.warm = None
            return False, None
        return self.proved(of, solution.row_dual) or self.proved(of, _refuting(model, solution.ray)), solution.primal


def _refuting(model: LinearModel, ray: np.ndarray | None) -> np.ndarray | None:
    """Return multipliers by which a ray that refutes all points outweighs any cost; None where it refutes none."""
    if ray is None:
        return None
    gaps = [safe_bound(model, side * ray, np.zeros(model.columns)) for side in (1.0, -1.0)]
    side, gap = (1.0, gaps[0]) if gaps[0] > gaps[1] else (-1.0, gaps[1])
    ends = np.maximum(np.abs(model.col_lower), np.abs(model.col_upper))
    return side * ray * (4.0 * float(np.abs(model.cost) @ ends) + 4.0) / gap if 0 < gap < math.inf else None
