"""Which unit divides a subproblem, and its two halves.

Candidates are the units of each hinge whose line above costs the bound most, and those whose splits gained most in
other subproblems (pseudo-costs: Benichou et al. 1971). The halves of all are bounded by a few steps of ascent (strong
branching: Applegate et al. 1995); the unit is taken whose halves both gain, by the product of the gains (Achterberg
2007, section 5). At the optimum over the triangles most units gain for neither half without ascent, and for one half
with it: losses alone picked units of the last hinge that closed one half and left the other as it was.

Deep in a tree, beside the border of the ball, nearly every candidate has a half that these steps close: all of them are
split at once (probing: Savelsbergh 1994), in place of one with every batch.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from verifier.bounds.split.operators import OperatorNetwork
from verifier.bounds.split.prepared import PreparedBall
from verifier.bounds.split.subproblems import Forest, Subproblems

# Candidates of a subproblem: of each hinge by their losses, and of all by what their splits gained elsewhere.
BY_LOSS, BY_GAIN = 1, 3
# So many more of each hinge, and steps, where so few subproblems are divided: all others lie below these splits.
FEW, BY_LOSS_IN_FEW = 32, 10
# FEW where the network is held as its ops: with 32 a proof on a network of maps was not found in the time in which it
# is with 4.
FEW_OF_OPS = 4
# Steps of ascent for the halves of a candidate: one where many subproblems wait, as each of these decides little.
STEPS, STEPS_IN_FEW = 1, 8
# Numbers that one array over all open units may hold while candidates are tried: 32 MiB.
MOST_NUMBERS = 1 << 23
# Subproblems of so many splits are split at all units of which a half is closed.
DEEP = 24
# What a half counts that gains nothing, in shares of what the bound lacks.
NO_GAIN = 0.01


class Gains:
    """What splits gained so far, for each open unit: the mean shares, of what bounds lacked, that its halves gained."""

    def __init__(self, units: int) -> None:
        self._sums = torch.zeros(units, 2)
        self._counts = torch.zeros(units)

    def note(self, units: Tensor, gains: Tensor) -> None:
        """Take in the gains `(k, 2)` of both halves of splits of units `(k,)`."""
        self._sums.index_add_(0, units, gains)
        self._counts.index_add_(0, units, torch.ones(len(units)))

    @property
    def scores(self) -> Tensor:
        """The products of mean gains `(units,)`; zero where nothing is known."""
        means = self._sums / self._counts.clamp(min=1.0)[:, None]
        return torch.where(self._counts > 0, (means + NO_GAIN).prod(dim=1), 0.0)


@dataclass(frozen=True, eq=False)
class Division:
    """Subproblems divided at one unit each, and halves at other units, that are closed.

    splits: `(batch,)`, the unit of each as its place among the open units. halves: both of each, first the one where
    the unit is at least zero, with the numbers that a few steps of ascent gave, and still the nodes of what they are
    halves of. refuted: halves at other units that ascent closed, `of`: `(refuted,)`, of which subproblem, `units`:
    `(refuted,)`, at which unit; of each pair at most once, in the order of subproblems.
    """

    splits: Tensor
    halves: Subproblems
    refuted: Subproblems
    of: Tensor
    units: Tensor


def divided(ball: PreparedBall, subproblems: Subproblems, losses: Tensor, goal: float, gains: Gains) -> Division:
    """Return the units at which subproblems are split, and the halves.

    losses: `(batch, open units)`; gains: of splits, to which those seen here are added.
    """
    candidates = _candidates(ball, subproblems, losses, gains)
    steps = STEPS_IN_FEW if len(subproblems) <= _few(ball) else STEPS
    size = max(1, MOST_NUMBERS // max(1, 2 * candidates.shape[1] * subproblems.signs.shape[1]))
    starts = range(0, len(subproblems), size)
    parts = [
        _divided(ball, subproblems[start : start + size], candidates[start : start + size], steps, goal, gains)
        for start in starts
    ]
    return Division(
        torch.cat([part.splits for part in parts]), _joined([part.halves for part in parts]),
        _joined([part.refuted for part in parts]),
        torch.cat([part.of + start for part, start in zip(parts, starts, strict=True)]),
        torch.cat([part.units for part in parts]),
    )  # fmt: skip


def grown(forest: Forest, whole: Subproblems, division: Division, open_units: Tensor) -> Subproblems:
    """Return the refuted halves and then both halves of each subproblem, with new nodes of their own.

    A subproblem is split at the units of its refuted halves, one below the other, and at last at its own unit. What is
    refuted has the signs in front of it, too, so that its numbers, which are kept, are to be ascended again.
    """
    both, refuted, nodes, signs = division.halves, division.refuted, whole.nodes.tolist(), whole.signs.clone()
    own, own_signs = torch.zeros_like(division.of), refuted.signs.clone()
    for i, (of, unit) in enumerate(zip(division.of.tolist(), division.units.tolist(), strict=True)):
        first, sign = forest.split(nodes[of], int(open_units[unit])), int(refuted.signs[i, unit])
        own[i], nodes[of] = (first, first + 1) if sign > 0 else (first + 1, first)
        own_signs[i] = signs[of]
        own_signs[i, unit], signs[of, unit] = sign, -sign
    refuted = replace(refuted, bounds=whole.bounds[division.of], nodes=own, signs=own_signs)
    units = open_units[division.splits].tolist()
    firsts = torch.tensor([forest.split(node, unit) for node, unit in zip(nodes, units, strict=True)])
    more = torch.where(both.signs != 0, both.signs, signs.repeat_interleave(2, dim=0))
    # Numbers that close a half may not do so with more signs.
    bounds = torch.where((more != both.signs).any(dim=1), both.bounds.clamp(max=0.0), both.bounds)
    nodes_of_halves = (firsts[:, None] + torch.arange(2)).flatten()
    return refuted.joined(replace(both, bounds=bounds, nodes=nodes_of_halves, signs=more))


def _joined(parts: list[Subproblems]) -> Subproblems:
    return Subproblems(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Subproblems)))


def _divided(
    ball: PreparedBall, subproblems: Subproblems, candidates: Tensor, steps: int, goal: float, gains: Gains
) -> Division:
    """Return what `divided` does of some subproblems; candidates: places among the open units `(batch, candidates)`."""
    batch, count = candidates.shape
    each = torch.arange(batch).repeat_interleave(2 * count)
    tried, planes = _with_signs(subproblems[each], candidates.flatten()), ball.planes_of(subproblems.points)
    lines = ball.split_lines(tried.signs, tried.rows, tried.boxes, None if planes is None else planes.of(each))
    bounds, slopes, multipliers = ball.ascent.ascend(
        ball.ascent.network.output, ball.rows[tried.rows], lines, tried.slopes, tried.multipliers, steps, goal
    )
    assert multipliers is not None
    bounds = torch.maximum(bounds.nan_to_num(-torch.inf, torch.inf, -torch.inf), tried.bounds)
    tried = replace(tried, bounds=bounds, slopes=slopes, multipliers=multipliers)
    lack, before = (goal - subproblems.bounds)[:, None, None], subproblems.bounds[:, None, None]
    share = ((bounds.view(batch, count, 2) - before) / lack).nan_to_num(0.0, 1.0, 0.0).clamp(0.0, 1.0)
    is_whole = (subproblems.signs == 0).gather(1, candidates)
    gains.note(candidates[is_whole], share[is_whole])
    best = torch.where(is_whole, (share + NO_GAIN).prod(dim=2), -1.0).argmax(dim=1)
    firsts = (torch.arange(batch) * count + best) * 2
    splits = candidates.gather(1, best[:, None]).squeeze(1)
    halves = tried[torch.stack([firsts, firsts + 1], dim=1).flatten()]
    refuted = _refuted(subproblems, candidates, bounds.view(batch, count, 2), is_whole, splits, goal)
    return Division(splits, halves, tried[refuted], each[refuted], candidates.flatten()[refuted // 2])


def _refuted(
    subproblems: Subproblems, candidates: Tensor, bounds: Tensor, is_whole: Tensor, splits: Tensor, goal: float
) -> Tensor:
    """Return which of the halves `(2 batch candidates,)` that were tried are closed and say something new.

    Of deep subproblems alone: one unit after the other they would be split at these all the same.
    """
    closed = bounds > goal
    deep = (subproblems.signs != 0).sum(dim=1) >= DEEP
    takes = is_whole & (candidates != splits[:, None]) & deep[:, None] & (closed.sum(dim=2) == 1)
    # A unit may be a candidate by its loss and by its gains.
    same = (candidates[:, :, None] == candidates[:, None, :]) & takes[:, None, :]
    takes &= same.to(torch.uint8).argmax(dim=2) == torch.arange(candidates.shape[1])
    return torch.nonzero((closed & takes[:, :, None]).flatten()).squeeze(1)


def _few(ball: PreparedBall) -> int:
    return FEW_OF_OPS if isinstance(ball.question.stages, OperatorNetwork) else FEW


def _candidates(ball: PreparedBall, subproblems: Subproblems, losses: Tensor, gains: Gains) -> Tensor:
    """Return places among the open units `(batch, candidates)`; where all of a hinge are split some of these, too."""
    is_whole = subproblems.signs == 0
    losses = torch.where(is_whole, losses, -1.0)
    scores = torch.where(is_whole, gains.scores, -1.0)
    most = BY_LOSS_IN_FEW if len(subproblems) <= _few(ball) else BY_LOSS
    parts = [scores.topk(min(BY_GAIN, scores.shape[1]), dim=1).indices]
    for own in ball.ascent.units:
        part = losses[:, own]
        parts.append(part.topk(min(most, part.shape[1]), dim=1).indices + own.start)
    return torch.cat(parts, dim=1)


def _with_signs(pairs: Subproblems, units: Tensor) -> Subproblems:
    """Return pairs `(2 k)` of the same subproblem with units `(k,)` split: at least zero, then at most zero."""
    signs = pairs.signs.clone()
    signs[torch.arange(len(pairs)), units.repeat_interleave(2)] = torch.tensor([1, -1], dtype=torch.int8).repeat(
        len(units)
    )
    return replace(pairs, signs=signs)
