"""Attacks whose every proposal is confirmed: what they find in regions is a witness, or is said not to be one."""

from collections.abc import Sequence

import torch

from encoders.region import BallRegion
from verifier.answers import Answer, merged
from verifier.attacks import Attack, Search
from verifier.batch import Batch
from verifier.budget import Budget
from verifier.verdict import Outcome
from verifier.witnesses.confirm import confirm, own_ties
from verifier.witnesses.pursuit import pursue


def find_witnesses(
    attacks: Sequence[Attack], batch: Batch, region: BallRegion, method: str, budget: Budget
) -> list[Answer]:
    """Return what attacks find in the regions, in the given order, each on what the others left; nothing is proved.

    An attack that does not support the regions' norm is left out. method: the name that goes with the witnesses.
    """
    answers = [Answer()] * len(batch)
    for attack in attacks:
        if region.norm not in attack.norms:
            continue
        rows = [row for row, answer in enumerate(answers) if answer.witness is None]
        if not rows or budget.exhausted:
            break
        index = torch.tensor(rows, device=batch.centres.device)
        answers = merged(answers, rows, _find(attack, batch.at(index), region[index], method, budget))
    return answers


def find_at_radii(
    attacks: Sequence[Attack],
    batch: Batch,
    radii: Sequence[float],
    answers: Sequence[Answer],
    method: str,
    budget: Budget,
) -> list[Answer]:
    """Return the answers after a look for ties at 0, and attacks at the radii in rising order where they are open."""
    if budget.exhausted:
        return list(answers)
    known = merged(answers, range(len(batch)), own_ties(batch, method))
    for radius in sorted(set(radii) - {0.0}):
        rows = [row for row, answer in enumerate(known) if answer.at(radius) is Outcome.OPEN]
        if not rows or budget.exhausted:
            continue
        part = batch.at(torch.tensor(rows, device=batch.centres.device))
        known = merged(known, rows, find_witnesses(attacks, part, part.region(radius), method, budget))
    return known


def _find(attack: Attack, batch: Batch, region: BallRegion, method: str, budget: Budget) -> list[Answer]:
    search = Search(batch.subject.network, region, batch.classes, batch.seeds, budget)
    return pursue(attack, search, lambda hits, points: confirm(batch.at(hits), region[hits], points, method))
