"""An attack whose proposals are confirmed, and which goes on where they are unsafe by rounding only.

A point on a boundary may be unsafe in the arithmetic of the search and not in the user's model or in real numbers. Such
a point ends nothing: the search runs again and has to get behind the boundary by more than rounding explains there, in
rounds of growing margins. What it proposes by less is confirmed as well.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor

from encoders.box import Box
from verifier.answers import Answer, merged
from verifier.attacks import Attack, Search
from verifier.attacks.criteria import shortfalls
from verifier.devices.parts import OUT_OF_MEMORY, in_parts

# Margins asked for, in turn, in units of `rounding_margin`. From the second round on, for runtimes that round much
# worse, at least the width of the enclosure in the model's own dtype, which deep networks make too large to start with.
ROUNDS = (1.0, 256.0)
# The rounding error at a point is taken as so many times the one seen there, and so many units of its largest score.
SEEN, UNITS = 8.0, 16.0

# Confirms points `(k, *shape)` of the given rows of the search that was handed in: an answer about each.
Confirm = Callable[[Tensor, Tensor], list[Answer]]


def pursue(attack: Attack, search: Search, confirm: Confirm) -> list[Answer]:
    """Return what an attack finds that is confirmed, by row of the search.

    Points that are safe in the arithmetic of the search by no more than rounding are confirmed too. What the memory of
    a device does not hold is searched in parts; an input that it does not hold alone stays open, with the reason.
    """
    everyone = torch.arange(len(search), device=search.classes.device)

    def work(part: slice) -> list[Answer]:
        rows = everyone[part]
        own = search if len(rows) == len(search) else search.at(rows)
        with own.record.all_or_nothing():
            return _pursue(attack, own, lambda hits, points: confirm(rows[hits], points))

    return list(chain(*in_parts(work, len(search), len(search), lambda row: [Answer.open(OUT_OF_MEMORY)])))


def _pursue(attack: Attack, search: Search, confirm: Confirm) -> list[Answer]:
    answers = [Answer()] * len(search)
    rows = torch.arange(len(search), device=search.classes.device)
    slack: Tensor | None = None
    for margin in (*ROUNDS, 0.0):
        search = replace(search, slack=slack)
        proposals = attack.run(search)
        bounds, missing = rounding_margin(search, proposals.points)
        hits = torch.nonzero(proposals.unsafe | (missing <= bounds)).squeeze(1)
        if not len(hits):
            break
        shown = confirm(rows[hits], proposals.points[hits])
        answers = merged(answers, rows[hits].tolist(), shown)
        is_unsafe = proposals.unsafe[hits].tolist()
        failed = [i for i, answer in enumerate(shown) if is_unsafe[i] and answer.witness is None]
        if not failed or search.budget.exhausted:
            break
        again = hits[torch.tensor(failed, device=hits.device)]
        rows, search, slack = rows[again], search.at(again), margin * bounds[again]
        if margin > ROUNDS[0]:
            slack = torch.maximum(slack, enclosure_width(search, proposals.points[again]))
    return answers


def rounding_margin(search: Search, points: Tensor) -> tuple[Tensor, Tensor]:
    """Return (estimates of the rounding errors of the class margins at points, these margins), each `(batch,)` float64.

    An estimate, which guides a search and proves nothing: what is seen against float64, and units of the scores.
    """
    with torch.no_grad():
        here = search.network.scores(points).to(torch.float64)
        there = search.network.scores(points.to(torch.float64))
    missing, exact = (shortfalls(scores, search.classes, search.targets) for scores in (here, there))
    kind = torch.finfo(points.dtype)
    size = here.abs().amax(dim=1).nan_to_num(0.0, 0.0, 0.0)
    seen = (missing - exact).abs().nan_to_num(0.0, 0.0, 0.0)
    return SEEN * seen + UNITS * kind.eps * size + kind.tiny, missing


def enclosure_width(search: Search, points: Tensor) -> Tensor:
    """Return twice the greatest width of the outputs' intervals at points in the model's dtype; 0 if it is infinite."""
    (box,) = search.network.interval(Box.point(points))
    width = (box.upper - box.lower).to(torch.float64).amax(dim=1)
    return torch.where(width.isfinite(), 2.0 * width, 0.0)
