"""Attacks as a method: search, replay every proposal, and pull each witness towards its input."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from encoders.region import NORMS, BallRegion
from verifier.attacks import Attack, Search
from verifier.bounds.interval import refute_at
from verifier.budget import Budget
from verifier.methods.base import Batch, Decision, Findings, Method, Witness
from verifier.methods.pursuit import pursue
from verifier.verdict import Outcome

# Halvings of the segment from an input to its witness: the distance is then within 2^-10 of its least there.
SEGMENT_STEPS = 10

# Whether points show what is asked of them, `(k,)`, given their places among the points in question.
Shows = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Replay:
    """What replaying points shows: masks `(batch,)`.

    executed: the user's model gives another class a value at least as large. real: so it is in real arithmetic,
    by an enclosure or in rational numbers. tie: the user's model gives equal values. undecided: by row, why the order
    in real arithmetic is not known.
    """

    executed: Tensor
    real: Tensor
    tie: Tensor
    undecided: dict[int, str] = field(default_factory=dict)


def replay(batch: Batch, points: Tensor) -> Replay:
    """Run points `(batch, *shape)` in the user's model, and compare the network's real outputs there."""
    classes = batch.classes.cpu().numpy()
    outputs = batch.subject.execute(points)
    own = outputs[np.arange(len(outputs)), classes]
    others = outputs.copy()
    others[np.arange(len(outputs)), classes] = -np.inf
    best_other = others.max(axis=1)
    found = refute_at(batch.subject.network, points, batch.classes)
    # A NaN compares as false: such a point is no witness.
    executed, tie = torch.from_numpy(best_other >= own), torch.from_numpy(best_other == own)
    return Replay(executed, found.refuted.cpu(), tie, found.undecided)


class FalsifyMethod(Method):
    """Finds by attacks; proves nothing. Attacks run in the given order, each on what the others left."""

    proves = False
    finds = True
    norms = NORMS

    def __init__(self, name: str, attacks: Sequence[Attack]) -> None:
        self.name = name
        self.attacks = tuple(attacks)

    def decide(self, batch: Batch, region: BallRegion, budget: Budget) -> Decision:
        decision = Decision(torch.zeros(len(batch), dtype=torch.bool))
        for attack in self.attacks:
            if region.norm not in attack.norms:
                continue
            rows = [row for row in range(len(batch)) if row not in decision.witnesses]
            if not rows or budget.exhausted:
                break
            self._attack(attack, batch, region, torch.tensor(rows, device=batch.centres.device), decision, budget)
        return decision

    def bracket(self, batch: Batch, epsilons: Sequence[float], findings: Findings, budget: Budget) -> None:
        """Attack the requested radii in rising order, each where it is still open, after a look for ties at 0."""
        if not budget.exhausted:
            findings.add(range(len(batch)), [0.0] * len(batch), own_ties(batch), self)
        for epsilon in sorted(set(epsilons) - {0.0}):
            rows = [i for i, bracket in enumerate(findings.brackets) if bracket.at(epsilon) is Outcome.OPEN]
            if not rows or budget.exhausted:
                continue
            part = batch.at(torch.tensor(rows, device=batch.centres.device))
            findings.add(rows, [epsilon] * len(rows), self.decide(part, part.region(epsilon), budget), self)

    def _attack(
        self, attack: Attack, batch: Batch, region: BallRegion, rows: Tensor, decision: Decision, budget: Budget
    ) -> None:
        part, within = batch.at(rows), region[rows]
        search = Search(batch.subject.network, within, part.classes, part.seeds, budget)
        shown = pursue(attack, search, lambda hits, points: confirm(part.at(hits), within[hits], points))
        indices = rows.tolist()
        decision.witnesses.update({indices[i]: witness for i, witness in shown.witnesses.items()})
        decision.reasons.update({indices[i]: reason for i, reason in shown.reasons.items()})
        for i, distance in shown.execution_only.items():
            known = decision.execution_only.get(indices[i], distance)
            decision.execution_only[indices[i]] = min(distance, known)


def confirm(batch: Batch, region: BallRegion, points: Tensor) -> Decision:
    """Return the witnesses among points of the regions, each replayed and pulled towards its input.

    points: `(batch, *shape)` in the model's dtype, inside their regions.
    """
    decision = Decision(torch.zeros(len(batch), dtype=torch.bool))
    shown = replay(batch, points)
    inside = region.contains(points).cpu()
    distances = region.distance(points).tolist()
    apart = torch.nonzero((shown.executed != shown.real) & inside).squeeze(1).to(points.device)
    if len(apart):
        # Rounding may part them, or the graph is not the model: then there is nothing to say about it.
        batch.subject.outputs(points[apart], ["a point that an attack proposed"] * len(apart))
    for row in torch.nonzero(shown.executed & ~shown.real & inside).squeeze(1).tolist():
        decision.execution_only[row] = distances[row]
        if row in shown.undecided:
            decision.reasons[row] = (
                f"a point is unsafe in the model's execution; in real arithmetic {shown.undecided[row]}"
            )
    rows = torch.nonzero(shown.executed & shown.real & inside).squeeze(1)
    chosen = rows.to(points.device)
    part = batch.at(chosen)

    def unsafe(index: Tensor, at: Tensor) -> Tensor:
        seen = replay(part.at(index), at)
        return seen.executed & seen.real

    for row, witness in zip(rows.tolist(), shorten(part, region[chosen], points[chosen], unsafe), strict=True):
        if witness is None:
            decision.execution_only[row] = distances[row]
        else:
            decision.witnesses[row] = witness
    return decision


def own_ties(batch: Batch) -> Decision:
    """Return the inputs that are counterexamples themselves: another class has at least the same value."""
    points = batch.region(0.0).clip(batch.centres, batch.subject.network.dtype)
    shown = replay(batch, points)
    rows = torch.nonzero(shown.executed & shown.real).squeeze(1).tolist()
    witnesses = {row: Witness(points[row].cpu(), 0.0, bool(shown.tie[row])) for row in rows}
    return Decision(torch.zeros(len(batch), dtype=torch.bool), witnesses)


def shorten(batch: Batch, region: BallRegion, points: Tensor, shows: Shows) -> list[Witness | None]:
    """Return witnesses on the segments from the inputs to points that show what is asked, as near as bisection gets.

    Each is run once more alone: some runtimes round otherwise in a batch, and the user will run it alone. None where
    a point shows it in company only.
    """
    if not len(points):
        return []
    best = _nearest_on_segments(region, points, torch.arange(len(points)), shows)
    held = torch.ones(len(points), dtype=torch.bool)
    for row in range(len(points)):
        index = torch.tensor([row])
        if bool(shows(index, best[index])[0]):
            continue
        held[row] = bool(shows(index, points[index])[0])
        if held[row]:
            best[index] = _nearest_on_segments(region[index.to(points.device)], points[index], index, shows)
    tie = torch.cat(
        [replay(batch.at(index), best[index]).tie for index in torch.arange(len(points)).split(1)] or [held]
    )
    distances = region.distance(best).tolist()
    return [Witness(best[i].cpu(), distances[i], bool(tie[i])) if held[i] else None for i in range(len(best))]


def _nearest_on_segments(region: BallRegion, points: Tensor, index: Tensor, shows: Shows) -> Tensor:
    """Return the nearest points found by halving the segments from the centres; index: of the points, for `shows`."""
    best, unsafe = points.clone(), torch.ones(len(points), dtype=torch.float64, device=points.device)
    safe = torch.zeros_like(unsafe)
    exact = points.to(torch.float64)
    for _ in range(SEGMENT_STEPS if len(points) else 0):
        share = (safe + unsafe) / 2
        middle = region.clip(
            region.centre + share.reshape(-1, *[1] * (points.dim() - 1)) * (exact - region.centre), points.dtype
        )
        hit = shows(index, middle).to(points.device)
        best[hit] = middle[hit]
        unsafe, safe = torch.where(hit, share, unsafe), torch.where(hit, safe, share)
    return best
