"""What linear bounds prove about a reference class: lower bounds of y_c - y_k over a region, for every rival k.

Intervals come first; linear bounds, then optimised lower slopes (alpha-CROWN: Xu et al. 2021), only see what is open:
by ascent with a closed gradient where matrices lie between hinges (`verifier.bounds.split.ball_margins`), else by
differentiating the passes.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from encoders.network import Network
from encoders.region import BallRegion
from verifier.bounds.interval import compare_classes
from verifier.bounds.linear.backward import Minimum
from verifier.bounds.linear.bounds import CPU_PIECE_BYTES, LinearBounds, linear_bounds
from verifier.bounds.linear.slopes import SlopeSearch, optimised_slopes
from verifier.bounds.split.ball_margins import ball_margins, takes_ascent
from verifier.budget import Budget
from verifier.devices.parts import in_parts


@dataclass(frozen=True, eq=False)
class Margins:
    """What is known of a batch: lower bounds of the margins, and proposals for an attack.

    lower: `(batch, classes)` float64 bounds of y_c - y_k, infinite where intervals decide and for c itself; all of a
    row positive is a proof. points: `(batch, rows, *input_shape)`, the minimisers of the linear functions of open
    rivals, or None.
    """

    lower: Tensor
    points: Tensor | None

    @property
    def proved(self) -> Tensor:
        """A mask `(batch,)`: the reference class strictly wins everywhere in the region. OUTER: true is a proof."""
        return (self.lower > 0).all(dim=1)


def linear_margins(
    network: Network,
    region: BallRegion,
    classes: Tensor,
    search: SlopeSearch | None = None,
    wins: Tensor | None = None,
) -> Margins:
    """Return the margins of classes `(batch,)` over the regions by linear bounds, rigorous in float64.

    search: how long to optimise slopes where the ops' own choice leaves a rival open; None: not at all. wins: what
    intervals prove, `(batch, classes)`, where it is known.
    """
    if wins is None:
        wins = compare_classes(network, region.enclosure(), classes).wins
    lower = torch.full(wins.shape, torch.inf, dtype=torch.float64, device=classes.device)
    if bool(wins.all()):
        return Margins(lower, None)
    bounds = linear_bounds(network, region)
    last = bounds.network.output
    if last.op.bounded_by_box:  # compared by what the tightened boxes in front of it give
        wins = last.op.compare(*(bounds.boxes[name] for name in last.inputs), classes=classes).wins
        return Margins(torch.where(wins, torch.inf, -torch.inf), None)
    rivals = _open_rivals(wins)
    rows = _class_differences(classes, rivals, wins.shape[1])
    minimum = bounds.minimise(rows, with_points=True)
    least = minimum.bound
    # A rival that intervals refuted needs no proof, and a row that repeats one none either.
    needed = ~wins.gather(1, rivals)
    if search is not None and search.reach < torch.inf:
        centre = (rows * network.evaluate(region.centre).unsqueeze(1)).sum(dim=2)
        needed &= ((least > -search.reach * centre) | ~needed).all(dim=1, keepdim=True)
    points, lacking = minimum.points, needed & (least <= 0)
    if search is not None and bool(lacking.any()):
        if takes_ascent(network, region):
            least, points = _ascended(network, region, classes, rivals, minimum, lacking, search)
        else:
            least, points = _optimised(bounds, rows, minimum, needed, search)
    lower = torch.where(wins, lower, lower.scatter(1, rivals, least))
    return Margins(lower, points)


def margins_in_time(
    network: Network, region: BallRegion, classes: Tensor, wins: Tensor, search: SlopeSearch | None, budget: Budget
) -> Margins:
    """Return the margins of a piece; of one that the time does not reach, what intervals prove."""
    if budget.exhausted:
        return Margins(torch.where(wins, torch.inf, -torch.inf).to(torch.float64), None)
    return linear_margins(network, region, classes, search, wins)


def piece_size(network: Network, device: torch.device) -> int:
    """Return of how many inputs a piece is at most (`in_pieces`); sys.maxsize on another device than a processor."""
    if device.type != "cpu":
        return sys.maxsize
    width = max(math.prod(shape) for shape in network.shapes.values())
    return int(max(1, CPU_PIECE_BYTES // (16 * width**2)))


def in_pieces(work: Callable[..., Margins], network: Network, region: BallRegion, classes: Tensor) -> Margins:
    """Return the margins of a batch, worked on in pieces that fit.

    work: called as `linear_margins` is. On a processor a piece is small enough for the cache, for larger networks one
    input, whose inactive units are left out. On another device it is the batch, or what its memory holds (`in_parts`).
    """
    size = min(len(classes), piece_size(network, region.centre.device))
    # Intervals of the whole batch are products of matrices; those of single inputs would read every weight again.
    wins = compare_classes(network, region.enclosure(), classes).wins
    done = in_parts(
        lambda part: work(network, region[part], classes[part], wins=wins[part]), len(classes), size
    )  # fmt: skip
    return _joined(done, region)


def _joined(done: Sequence[Margins], region: BallRegion) -> Margins:
    """Return the margins of all pieces; where a piece has fewer points than another, centres fill up."""
    lower = torch.cat([margins.lower for margins in done])
    most = max((margins.points.shape[1] for margins in done if margins.points is not None), default=0)
    if most == 0:
        return Margins(lower, None)
    points = region.centre.unsqueeze(1).repeat(1, most, *[1] * (region.centre.dim() - 1))
    start = 0
    for margins in done:
        batch = len(margins.lower)
        if margins.points is not None:
            points[start : start + batch, : margins.points.shape[1]] = margins.points
        start += batch
    return Margins(lower, points)


def _optimised(
    bounds: LinearBounds, rows: Tensor, minimum: Minimum, needed: Tensor, search: SlopeSearch
) -> tuple[Tensor, Tensor | None]:
    """Return bounds `(batch, rows)` and points with the slopes that differentiated passes found."""
    slopes = optimised_slopes(bounds, rows, needed, search)
    if not slopes:
        return minimum.bound, minimum.points
    targets = [target for target, _ in slopes]
    again = linear_bounds(bounds.network, bounds.region, slopes=slopes, boxes=bounds.boxes, tighten=targets)
    better = again.minimise(rows, with_points=True)
    return torch.maximum(minimum.bound, better.bound), better.points


def _ascended(
    network: Network,
    region: BallRegion,
    classes: Tensor,
    rivals: Tensor,
    minimum: Minimum,
    lacking: Tensor,
    search: SlopeSearch,
) -> tuple[Tensor, Tensor | None]:
    """Return bounds `(batch, rows)` and points, by ascent for the inputs that lack something, in the time there is."""
    least, points = minimum.bound.clone(), None if minimum.points is None else minimum.points.clone()
    for i in torch.nonzero(lacking.any(dim=1)).flatten().tolist():
        if search.budget.exhausted:
            break
        given = network, region[i : i + 1], int(classes[i])
        found = ball_margins(*given, search.steps, search.budget, search.planes)
        least[i] = torch.maximum(least[i], found.lower[rivals[i]])
        if points is not None:
            points[i] = found.points[rivals[i]]
    return least, points


def _open_rivals(wins: Tensor) -> Tensor:
    """Return classes `(batch, rows)` that cover every rival not refuted; surplus rows hold others."""
    count = int((~wins).sum(dim=1).max())
    return (~wins).to(torch.uint8).topk(count, dim=1).indices


def _class_differences(classes: Tensor, rivals: Tensor, count: int) -> Tensor:
    """Return rows `(batch, rows, classes)` with y_c - y_k = row . y."""
    own = functional.one_hot(classes, count).unsqueeze(1)
    return (own - functional.one_hot(rivals, count)).to(torch.float64)
