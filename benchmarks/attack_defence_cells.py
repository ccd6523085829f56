"""The cells of `attack_defence.py`: which inputs withstand an attack, by the rule of the row.

An ordinary network is broken by a witness within the radius, as `verifier attack` counts them: replayed in its runtime
and unsafe in rational numbers. One that draws is broken where fresh draws vote against the label at the attack's point
(`verifier.votes`, at 95 %), which lies on the border of the ball behind what breaks the mean; the adaptive attack goes
on from there on the vote itself. A detected network is
broken by a replayed point that the detector does not flag. Inputs that the defended system gets wrong as they are, or
flags, withstand nothing.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import torch
from attack_defence_rows import Row
from torch import Tensor

from verifier import certify
from verifier.attacks import Attack, Search
from verifier.attacks.against_votes import AgainstVotes, to_border
from verifier.attacks.descent import Descent
from verifier.attacks.settings import attack_with
from verifier.attacks.source import has_pseudogradient
from verifier.attacks.transfer import Transfer
from verifier.batch import Batch
from verifier.budget import Budget
from verifier.data import from_arrays
from verifier.detection.evasion import Evasion
from verifier.methods import METHODS
from verifier.votes import BROKEN, votes_at
from verifier.witnesses.find import find_witnesses
from verifier.witnesses.replay import replay

# The attack of each column; settings that are not the table's. PGD follows true gradients: BPDA has its own column.
COLUMNS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "FGSM": ("fgsm", {}),
    "PGD": ("pgd", {"pseudogradients": "no", "restarts": 3}),
    "C&W": ("cw", {"steps": 50}),
    "square": ("square", {}),
    "BPDA": ("bpda", {}),
    "EOT": ("eot", {}),
    "transfer": ("pgd", {"restarts": 1}),
    "adaptive": ("auto", {}),
}
# Inputs that are attacked together.
ROWS = 250
# Draws within so many deviations: of 100,000 normal weights all but 1 in 5,000 draws.
DEVIATIONS = 6.0


@dataclasses.dataclass(frozen=True)
class Cell:
    """What one cell says: by input whether it withstands (or is certified), and the CPU seconds.

    found: by input whether a witness turned up beside; note: what was done, in words.
    """

    withstood: list[bool]
    seconds: float
    found: list[bool] | None = None
    note: str = ""


def attack_of(row: Row, column: str, settings: Mapping[str, Mapping[str, Any]]) -> Attack | None:
    """Return the attack of a column on a row, None where it is another column's on this network."""
    name, usual = COLUMNS[column]
    if (column == "BPDA" and not has_pseudogradient(row.network)) or (column == "EOT" and row.draws is None):
        return None
    if column == "adaptive" and row.detector is not None:
        return Evasion(row.detector)
    attack = attack_with(name, {**usual, **settings.get(name, {})})
    if isinstance(attack, Descent) and (column == "transfer" or row.draws is not None):
        # What breaks the surrogate, or the mean, just so breaks neither the network nor the vote.
        attack = dataclasses.replace(attack, until_broken=False)
    if column == "adaptive" and row.draws is not None:
        return AgainstVotes(attack)
    return Transfer(row.surrogate, attack) if column == "transfer" else attack


def decide(row: Row, attack: Attack, epsilon: float) -> Cell:
    """Return which inputs withstand an attack within epsilon, in the inf-norm."""
    started, withstood = time.process_time(), row.clean.clone()
    for rows in torch.nonzero(row.clean).squeeze(1).split(ROWS):
        if not len(rows):
            break
        indices = [row.job.indices[i] for i in rows.tolist()]
        batch = row.job.batch(row.points[rows], indices, row.labels[rows].numpy())
        withstood[rows] = ~_broken(row, attack, batch, indices, epsilon)
    return Cell(withstood.tolist(), time.process_time() - started)


def _broken(row: Row, attack: Attack, batch: Batch, indices: list[int], epsilon: float) -> Tensor:
    if row.draws is None and row.detector is None:
        radius = batch.reach * (1.0 + 1e-6) if attack.minimal else epsilon
        answers = find_witnesses([attack], batch, batch.region(radius), "attack", Budget())
        witnesses = (answer.witness for answer in answers)
        return torch.tensor([witness is not None and witness.distance <= epsilon for witness in witnesses])
    region = batch.region(epsilon)
    search = Search(row.network, region, batch.classes, batch.seeds, Budget())
    points = attack.run(search).points
    if row.detector is not None:
        shown, flagged = replay(batch, points), row.detector.scores(row.network, points, indices).flagged
        return shown.executed & shown.real & region.contains(points) & ~flagged
    assert row.draws is not None
    votes = votes_at(row.network, to_border(region, points, points.dtype), row.draws, row.job.seed)
    return votes.outcomes(batch.classes) == BROKEN


def prove(row: Row, epsilon: float, seconds: float, standing: Tensor) -> Cell:
    """Return which inputs are certified. standing: what no attack broke, for which alone the exact search is asked.

    Of a network that draws: for all draws within DEVIATIONS, more than half of all, so that the vote is certified.
    """
    started, what = time.process_time(), row.clean
    if row.draws is not None:
        proved, _, share = _certified(row, what, epsilon, "crown", None)
        assert share is not None and share > 0.5
        return Cell(proved.tolist(), time.process_time() - started, note=f"crown over {share:.6g} of the draws")
    method = "contraction" if row.network.nodes[-1].op.kind.startswith("mwd") else "alpha-crown"
    proved, found, _ = _certified(row, what, epsilon, method, seconds)
    left = standing & ~proved
    if method == "alpha-crown" and bool(left.any()):
        more, met, _ = _certified(row, left, epsilon, "auto", seconds)
        proved, found, method = proved | more, found | met, f"alpha-crown, then auto for {seconds:g} s"
    # Found without a look at the detector.
    found_list = None if row.detector is not None else found.tolist()
    return Cell(proved.tolist(), time.process_time() - started, found_list, method)


def _certified(
    row: Row, wanted: Tensor, epsilon: float, method: str, seconds: float | None
) -> tuple[Tensor, Tensor, float | None]:
    """Return masks of what is certified and falsified of the wanted inputs, and of which share of draws."""
    assert method in METHODS
    rows = torch.nonzero(wanted).squeeze(1)
    masks = torch.zeros(2, len(wanted), dtype=torch.bool)
    if not len(rows):
        return masks[0], masks[1], 1.0
    data = from_arrays(row.points[rows].numpy(), row.labels[rows].numpy(), row.job.dataset.clip)
    options: dict[str, Any] = {} if seconds is None else {"time_limit": seconds}
    if row.draws is not None:
        options["draws_within"] = DEVIATIONS
    result = certify(row.path, data, [epsilon], method=method, out=None, device="cpu", workers=1, **options)
    for place, bracket in result.brackets.items():
        masks[0, rows[place]] = bracket.lower >= epsilon
        masks[1, rows[place]] = bracket.upper <= epsilon
    return masks[0], masks[1], result.share_of_draws
