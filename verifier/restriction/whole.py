"""The restriction's program written out, for any solver and for export: the reference of the lazy forms.

    reduced_model    variables d and epsilon; every row of the question (15,000 x 784 entries on a LeNet)
    explicit_model   variables x, epsilon and the value of every node, as in Bastani et al. (2016): sparse

Both have the optimum of the lazy forms.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.sparse import csr_array, eye_array, hstack, vstack

from encoders.linear_model import Direction, LinearModel, RowBuilder
from encoders.network import INPUT
from verifier.restriction.optimum import Optimum, Outcome
from verifier.restriction.question import Question
from verifier.solvers import Solver, Termination

# Bounds of hidden variables are those that intervals give, moved apart by this share of their node's largest against
# rounding.
WIDENING = 1e-6


def reduced_model(question: Question) -> LinearModel:
    """Return the program over (d, epsilon) with all rows, scaled to |row|_1 = 1."""
    n = question.inputs
    builder = RowBuilder(n + 1)
    builder.add(_ball(n), np.zeros(2 * n), math.inf)
    rows = question.rows(np.arange(len(question.at_centre)))
    scale = np.maximum(np.abs(rows).sum(axis=1), 1e-7 * question.units / question.input_unit)
    block = csr_array(hstack([csr_array(rows / scale[:, None]), csr_array((len(rows), 1))], format="csr"))
    builder.add(block, -question.at_centre / scale, math.inf)
    cost, lower, upper = _columns(question, question.lower, question.upper)
    return LinearModel(cost, *builder.stack(), lower, upper, question.direction)


def explicit_model(question: Question) -> LinearModel:
    """Return the program over (x, epsilon, values of all nodes); direction INNER."""
    network, n = question.frozen.network, question.inputs
    centre = question.centre.flatten().cpu().numpy()
    starts, columns = {INPUT: 0}, n + 1
    boxes = {INPUT: (centre + question.lower, centre + question.upper)}
    for node in network.nodes:
        starts[node.name] = columns
        columns += int(np.prod(network.shapes[node.name], dtype=np.int64))
    builder = RowBuilder(columns)
    ball = csr_array(hstack([_ball(n), csr_array((2 * n, columns - n - 1))], format="csr"))
    builder.add(ball, np.concatenate([-centre, centre]), math.inf)
    for node in network.nodes:
        shapes = [network.shapes[name] for name in node.inputs]
        piece = question.frozen.piece(node)
        matrix = piece.matrix(*shapes)
        zeros = [torch.zeros(1, *shape, dtype=torch.float64, device=question.centre.device) for shape in shapes]
        constant = piece.evaluate(*zeros).flatten().cpu().numpy()
        low, high = (np.concatenate([boxes[name][end] for name in node.inputs]) for end in (0, 1))
        boxes[node.name] = _image(matrix, constant, low, high)
        places = np.concatenate(
            [starts[i] + np.arange(math.prod(shape)) for i, shape in zip(node.inputs, shapes, strict=True)]
        )
        own = _spread(eye_array(len(constant), format="csr"), starts[node.name] + np.arange(len(constant)), columns)
        builder.add(csr_array(own - _spread(matrix, places, columns)), constant, constant)
        restriction = question.frozen.restrictions.get(node.name)
        if restriction is not None and restriction.conditions is not None:
            conditions = restriction.conditions.matrix(*shapes)
            kept = np.diff(conditions.indptr) > 0
            builder.add(_spread(csr_array(conditions[np.flatnonzero(kept)]), places, columns), 0.0, math.inf)
    identity = np.eye(question.label_rows + 1)
    labels = csr_array(np.delete(identity[question.target] - identity, question.target, axis=0))
    outputs = starts[network.output.name] + np.arange(question.label_rows + 1)
    builder.add(_spread(labels, outputs, columns), question.alpha, math.inf)
    cost, lower, upper = _columns(question, *boxes[INPUT])
    hidden = [boxes[node.name] for node in network.nodes]
    low, high = (np.concatenate([ends, *(box[i] for box in hidden)]) for i, ends in enumerate((lower, upper)))
    return LinearModel(np.append(cost, np.zeros(columns - n - 1)), *builder.stack(), low, high, Direction.INNER)


def solve_whole(question: Question, model: LinearModel, solver: Solver, seconds: float = math.inf) -> Optimum:
    """Return the answer of a solver to one of the two models of the question."""
    n = question.inputs
    solution = solver.solve(model, seconds)
    word = str(solution.stats.get("status", ""))
    if solution.termination is Termination.INFEASIBLE:
        return Optimum(Outcome.INFEASIBLE, math.inf, rows=model.rows, word=word)
    if solution.termination is not Termination.OPTIMAL or solution.primal is None:
        return Optimum(Outcome.STOPPED, max(0.0, solution.bound), rows=model.rows, word=word)
    step = solution.primal[:n]
    if model.columns > n + 1:
        step = step - question.centre.flatten().cpu().numpy()
    step = np.clip(step, question.lower, question.upper)
    return Optimum(Outcome.FOUND, float(solution.primal[n]), step, rounds=1, rows=model.rows, word=word)


def _ball(n: int) -> csr_array:
    """Return the rows epsilon - d_i >= 0 and epsilon + d_i >= 0 over (d, epsilon)."""
    identity, ones = eye_array(n, format="csr"), csr_array(np.ones((n, 1)))
    return csr_array(vstack([hstack([-identity, ones]), hstack([identity, ones])], format="csr"))


def _columns(question: Question, lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    cost = np.append(np.zeros(question.inputs), 1.0)
    return cost, np.append(lower, 0.0), np.append(upper, question.reach)


def _spread(block: csr_array, places: np.ndarray, columns: int) -> csr_array:
    """Return the rows with their columns moved to the given places."""
    return csr_array((block.data, places[block.indices], block.indptr), shape=(block.shape[0], columns))


def _image(matrix: csr_array, constant: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the range of matrix x + constant over low <= x <= high, a little widened."""
    middle, radius = matrix @ ((low + high) / 2) + constant, abs(matrix) @ ((high - low) / 2)
    slack = WIDENING * (radius + np.abs(middle)).max(keepdims=True)
    return middle - radius - slack, middle + radius + slack
