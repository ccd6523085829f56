"""The least value of a row of the output on one linear piece of a network, by a linear program in the input alone.

Where the signs of all hinge units are known the network is affine in the input, and the signs that were split are
half-spaces of it. The program's multipliers are those of `verifier.certificates.split_program`; what they prove is
evaluated there, so nothing here is trusted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
import torch
from torch import Tensor

from encoders.box import Box
from encoders.linear_model import Direction, LinearModel
from verifier.bounds.split.form import HingeNetwork
from verifier.budget import Budget
from verifier.solvers.highs_backend import WarmModel


@dataclass(frozen=True, eq=False)
class PieceAnswer:
    """Proposals: multipliers `(units,)`, one of which may prove the piece, and the flat point of the least value."""

    multipliers: tuple[np.ndarray, ...]
    point: Tensor | None


def solve_piece(
    network: HingeNetwork, box: Box, slopes: Tensor, signs: Tensor, row: np.ndarray, budget: Budget
) -> PieceAnswer:
    """Return proposals for one piece.

    slopes: `(units,)` of all hinge units on the piece; signs: of those that were split, +1 or -1, else 0; row: of the
    output.
    """
    splits = torch.nonzero(signs).squeeze(1)
    side = signs[splits].to(torch.float64)
    weights, bias, outputs, offsets = _affine(network, slopes.to(torch.float64), splits)
    cost = torch.from_numpy(row) @ outputs
    rows = scipy.sparse.csr_array((side[:, None] * weights).numpy())
    try:
        model = LinearModel(
        cost.numpy(), rows, (-side * bias).numpy(), np.full(len(splits), np.inf),
        box.lower.flatten().numpy(), box.upper.flatten().numpy(), Direction.EXACT,
    )  # fmt: skip
        solution = WarmModel(model).solve(budget.remaining)
    except (ValueError, RuntimeError):
        # Numbers that a model, or the solver, does not take: nothing is proposed.
        return PieceAnswer((), None)
    row_multipliers = [] if solution.row_dual is None else [solution.row_dual]
    if solution.ray is not None:
        # Multipliers that refute all points by `gap` are taken so often that this outweighs the least of the row.
        ray = np.abs(solution.ray)
        gap = float(ray @ model.row_lower) - _greatest(ray @ rows, model)
        least = float(torch.from_numpy(row) @ offsets) - _greatest(-model.cost, model)
        if gap > 0:
            row_multipliers.append(ray * (2.0 * max(-least, 0.0) / gap))
    multipliers = []
    for numbers in row_multipliers:
        all_multipliers = np.zeros(len(signs))
        all_multipliers[splits.numpy()] = np.nan_to_num(numbers) * side.numpy()
        multipliers.append(all_multipliers)
    return PieceAnswer(tuple(multipliers), None if solution.primal is None else torch.from_numpy(solution.primal))


def _greatest(cost: np.ndarray, model: LinearModel) -> float:
    """Return the greatest value of a cost over the model's box."""
    return float(np.maximum(cost * model.col_lower, cost * model.col_upper).sum())


def _affine(network: HingeNetwork, slopes: Tensor, splits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return (weights, bias) of what some units read, then of the output, as affine functions of the input.

    splits: `(k,)`, the places of the units among all, in rising order.
    """
    sizes = [stage.size for stage in network.hinges]
    ends = torch.tensor([0, *sizes]).cumsum(0).tolist()

    def at_hinge(k: int, cost: Tensor) -> Tensor:
        return cost * slopes[ends[k] : ends[k + 1]]

    reads = [(torch.zeros(0, dtype=network.dtype), torch.zeros(0, network.inputs, dtype=network.dtype))]
    for k, stage in enumerate(network.hinges):
        own = splits[(splits >= ends[k]) & (splits < ends[k + 1])] - ends[k]
        if len(own):
            reads.append(network.back(stage, torch.eye(stage.size, dtype=network.dtype)[own], at_hinge))
    output = torch.eye(network.output.size, dtype=network.dtype)
    offsets, outputs = network.back(network.output, output, at_hinge)
    return torch.cat([read[1] for read in reads]), torch.cat([read[0] for read in reads]), outputs, offsets
