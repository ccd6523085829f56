"""Attacks whose every proposal is confirmed: what they find in regions is a witness, or is said not to be one."""

from collections.abc import Sequence

import torch
from torch import Tensor

from encoders.region import BallRegion
from verifier.answers import Decision
from verifier.attacks import Attack, Search
from verifier.batch import Batch
from verifier.budget import Budget
from verifier.witnesses.confirm import confirm
from verifier.witnesses.pursuit import pursue


def find_witnesses(attacks: Sequence[Attack], batch: Batch, region: BallRegion, budget: Budget) -> Decision:
    """Return what attacks find in the regions, in the given order, each on what the others left; nothing is proved.

    An attack that does not support the regions' norm is left out.
    """
    decision = Decision(torch.zeros(len(batch), dtype=torch.bool))
    for attack in attacks:
        if region.norm not in attack.norms:
            continue
        rows = [row for row in range(len(batch)) if row not in decision.witnesses]
        if not rows or budget.exhausted:
            break
        _find(attack, batch, region, torch.tensor(rows, device=batch.centres.device), decision, budget)
    return decision


def _find(attack: Attack, batch: Batch, region: BallRegion, rows: Tensor, decision: Decision, budget: Budget) -> None:
    part, within = batch.at(rows), region[rows]
    search = Search(batch.subject.network, within, part.classes, part.seeds, budget)
    shown = pursue(attack, search, lambda hits, points: confirm(part.at(hits), within[hits], points))
    indices = rows.tolist()
    decision.witnesses.update({indices[i]: witness for i, witness in shown.witnesses.items()})
    decision.reasons.update({indices[i]: reason for i, reason in shown.reasons.items()})
    for i, distance in shown.execution_only.items():
        known = decision.execution_only.get(indices[i], distance)
        decision.execution_only[indices[i]] = min(distance, known)
