"""Optimised slopes (alpha-CROWN: Xu et al. 2021): the line below an open unit is chosen by gradient ascent.

Every slope in its range gives a sound bound, so the search runs in float32 and proves nothing: whoever uses the slopes
computes the bound again, rigorously. All are found together: those of the pass from the outputs, one for each row and
unit, and those of the passes that bound hidden units, one for each unit. S-shapes have places where their lines touch
instead, which all rows share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from encoders.box import Box
from encoders.scaling import exponents
from verifier.bounds.adam import adam
from verifier.bounds.linear.bounds import LinearBounds, linear_bounds
from verifier.budget import Budget

# Bytes of the coefficients of one step beyond which hidden units keep their boxes: autograd keeps them all.
HIDDEN_SLOPES_BYTES = 256 * 2**20


@dataclass(frozen=True)
class SlopeSearch:
    """How long to optimise: steps of Adam with a decaying rate, within a budget.

    reach: inputs are left alone that have a bound further below zero than this many times the margin at their centre.
    Slopes seldom close half of what a bound loses, so 1 skips searches that would be in vain. planes: whether planes
    above the first hinge are looked for, too, where ascent takes the network (`verifier.bounds.split.ball_margins`).
    """

    steps: int = 20
    learning_rate: float = 0.25
    decay: float = 0.95
    reach: float = math.inf
    budget: Budget = field(default_factory=Budget)
    planes: bool = False


def optimised_slopes(
    bounds: LinearBounds, rows: Tensor, needed: Tensor, search: SlopeSearch
) -> dict[tuple[str, str], Tensor]:
    """Return the slopes of the best step, in float64; empty where nothing can be chosen.

    bounds: of the ops' own choice. rows: `(batch, rows, *output_shape)`; needed: mask `(batch, rows)` of those whose
    least value should become positive. The search stops early once all are.
    Hidden units are bounded again where the passes fit into HIDDEN_SLOPES_BYTES; elsewhere their boxes stay.
    """
    choices = _choices(bounds)
    if not choices:
        return {}
    targets = _affordable_targets(bounds)
    parameters = _start(bounds, choices, targets, rows.shape[1])
    boxes = {name: Box(box.lower.to(torch.float32), box.upper.to(torch.float32)) for name, box in bounds.boxes.items()}
    averages = {name: [torch.zeros_like(value), torch.zeros_like(value)] for name, value in parameters.items()}
    rows = _in_units(bounds, rows).to(torch.float32)
    best = _Best(torch.full((rows.shape[0],), -torch.inf, device=rows.device), parameters)
    for step in range(search.steps):
        if search.budget.exhausted:
            break
        trial = linear_bounds(
            bounds.network, bounds.region, slopes=parameters, boxes=boxes, tighten=targets, dtype=torch.float32,
            piece_bytes=HIDDEN_SLOPES_BYTES,
        )  # fmt: skip
        # What is proved already counts no more; an input improves when the sum of what it lacks does.
        lacking = torch.where(needed, trial.minimise(rows).bound, torch.inf).clamp(max=0.0)
        score = lacking.detach().nan_to_num(-torch.inf, 0.0, -torch.inf).sum(dim=1)
        best.take(score, parameters)
        gain = lacking.sum()
        # Behind an op whose bounds are constants (MWD) no slope reaches the margin: there is nothing to choose.
        if bool((score >= 0).all()) or not bool(gain.isfinite()) or not gain.requires_grad:
            break
        gains = torch.autograd.grad(gain, list(parameters.values()), allow_unused=True)
        rate = search.learning_rate * search.decay**step
        for (name, value), slope_gain in zip(parameters.items(), gains, strict=True):
            if slope_gain is not None:
                value.data.add_(adam(averages[name], slope_gain, step), alpha=rate)
        _clamp(parameters, choices)
    return {name: value.to(torch.float64) for name, value in best.parameters.items()}


class _Best:
    """The parameters of each input's best step: score `(batch,)`."""

    def __init__(self, score: Tensor, parameters: dict[tuple[str, str], Tensor]) -> None:
        self.score = score
        self.parameters = {name: value.detach().clone() for name, value in parameters.items()}

    def take(self, score: Tensor, parameters: dict[tuple[str, str], Tensor]) -> None:
        """Take over the parameters of the inputs whose score is better."""
        better = score > self.score
        self.score = torch.where(better, score, self.score)
        for name, value in parameters.items():
            mask = better.reshape(-1, *[1] * (value.dim() - 1))
            self.parameters[name] = torch.where(mask, value.detach(), self.parameters[name])


def _clamp(parameters: dict[tuple[str, str], Tensor], choices: dict[str, tuple[Tensor, Tensor, Tensor]]) -> None:
    """Move parameters in place into the ranges of the slopes that they are."""
    with torch.no_grad():
        for (_, op), value in parameters.items():
            ends = [end.to(torch.float32) for end in choices[op][:2]]
            least_slope, greatest_slope = (e.unsqueeze(1) if value.dim() > e.dim() else e for e in ends)
            value.copy_(torch.minimum(torch.maximum(value, least_slope), greatest_slope))


def _in_units(bounds: LinearBounds, rows: Tensor) -> Tensor:
    """Return the rows for outputs of size 1: Adam has a stabiliser of 1e-8, and squares gradients in float32."""
    box = bounds.boxes[bounds.network.output.name]
    sizes = torch.maximum(box.lower.abs(), box.upper.abs()).flatten(1).amax(dim=1).cpu().numpy()
    powers = -torch.from_numpy(exponents(sizes)).to(rows.device)
    return torch.ldexp(rows, powers.reshape(-1, *[1] * (rows.dim() - 1)))


def _choices(bounds: LinearBounds) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Return (least, greatest, chosen) lower slopes of the nodes that have units with a choice."""
    choices = {}
    for node in bounds.network.nodes:
        if len(node.inputs) == 1:
            slopes = node.op.slope_range(bounds.boxes[node.inputs[0]])
            if slopes is not None and bool((slopes[0] < slopes[1]).any()):
                choices[node.name] = slopes
    return choices


def _affordable_targets(bounds: LinearBounds) -> tuple[str, ...]:
    """Return the nodes whose hidden units may be bounded again in each step, those with the fewest bytes first."""
    costs = sorted((cost, name) for name, cost in bounds.pass_bytes().items())
    targets, total = [], 0
    for cost, name in costs:
        total += cost
        if total <= HIDDEN_SLOPES_BYTES:
            targets.append(name)
    return tuple(targets)


def _start(
    bounds: LinearBounds, choices: dict[str, tuple[Tensor, Tensor, Tensor]], targets: Sequence[str], rows: int
) -> dict[tuple[str, str], Tensor]:
    """Return the parameters at the ops' own choice, by (node whose units are bounded, node of the op)."""
    order = {node.name: i for i, node in enumerate(bounds.network.nodes)}
    by_row = {node.name for node in bounds.network.nodes if node.op.slopes_by_row}
    output = bounds.network.output.name
    parameters = {}
    for name, (_, _, slope) in choices.items():
        value = slope.to(torch.float32)
        own = value.unsqueeze(1).repeat(1, rows, *[1] * (value.dim() - 1)) if name in by_row else value.clone()
        parameters[output, name] = own.requires_grad_()
        for target in targets:
            if order[name] < order[target]:
                parameters[target, name] = value.clone().requires_grad_()
    return parameters
