"""Subproblems all of whose signs are known: the network is affine there, and one linear program decides."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from verifier.bounds.split.descents import Attack
from verifier.bounds.split.open_subproblem import Why, why_open
from verifier.bounds.split.pieces import solve_piece
from verifier.bounds.split.prepared import PreparedBall
from verifier.bounds.split.subproblems import Subproblems
from verifier.budget import Budget


class Leaf(NamedTuple):
    """The numbers `(open units,)` that prove a subproblem, float64."""

    slopes: np.ndarray
    multipliers: np.ndarray


def settled(ball: PreparedBall, subproblem: Subproblems, attack: Attack, budget: Budget) -> Leaf | Why | None:
    """Return what proves one subproblem with all signs known, or why nothing does; None if it has a counterexample.

    The linear program of its linear piece decides; its multipliers are the multipliers.
    """
    question, rows = ball.question, subproblem.rows.numpy()
    row, reach = question.rows[rows[0]], float(ball.reach[rows[0]])
    piece_slopes = ball.known_slopes.clone()
    piece_slopes[ball.open_units] = ball.split_lines(subproblem.signs, subproblem.rows, subproblem.boxes).slope[0]
    signs = ball.on_all_units(subproblem.signs)[0]
    solution = solve_piece(question.stages, question.region.enclosure(), piece_slopes, signs, row, budget)
    slopes = subproblem.slopes.numpy().astype(np.float64)
    for multipliers in solution.multipliers:
        open_multipliers = multipliers[None, ball.open_units.numpy()]
        if ball.proved(rows, subproblem.signs, slopes, open_multipliers, subproblem.boxes, subproblem.points)[0]:
            return Leaf(slopes[0], open_multipliers[0])
    point = None if solution.point is None else solution.point.reshape(question.network.input_shape)
    if point is not None and attack(point.unsqueeze(0)):
        return None
    return why_open(question.network, question.region, point, torch.from_numpy(row), reach)
