"""The contract of an attack, and the check that makes misreporting impossible.

An attack only *proposes* points. `Attack.run` clips them to the region in the dtype of the model (rounded
inward), evaluates them again and keeps a point only where the class margin is not positive. Whether such a point
is a counterexample is decided later, by replay in the user's model and in real arithmetic.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from encoders.box import Box
from encoders.network import Network
from encoders.region import BallRegion
from verifier.attacks.ball import contains
from verifier.attacks.criteria import check_targets, shortfalls
from verifier.attacks.report import Report
from verifier.budget import Budget


@dataclass(frozen=True, eq=False)
class Search:
    """What an attack is given.

    network: the graph, whose `scores` and gradients the attack may ask for.
    region: the balls to search, `(batch, *shape)`.
    classes: `(batch,)`, the classes to leave.
    seeds: one for each input, not for the batch, so that a result does not depend on how inputs were grouped.
    budget: the time that is left; an attack returns what it has when it is exhausted.
    targets: `(batch,)`, the classes to reach; None where any class but the own will do.
    report: what the search costs is counted there; made anew unless given.
    slack: `(batch,)`, by how much in scores a point must be unsafe to end the search of its input, or None for not at
    all: where points on the boundary turned out to be unsafe by rounding only, the search goes on behind it. Points
    that are unsafe by less are still proposed where none is by more.

    Raises ValueError if a target is the class to leave, or no class of the network.
    """

    network: Network
    region: BallRegion
    classes: Tensor
    seeds: Sequence[int]
    budget: Budget
    targets: Tensor | None = None
    report: Report | None = field(default=None, repr=False)
    slack: Tensor | None = None

    def __post_init__(self) -> None:
        if self.targets is not None:
            check_targets(self.classes, self.targets, int(self.network.output_shape[0]))
        if self.report is None:
            object.__setattr__(self, "report", Report.empty(len(self.seeds), self.classes.device))

    def __len__(self) -> int:
        return len(self.seeds)

    @property
    def record(self) -> Report:
        """The report, for those who write to it."""
        assert self.report is not None
        return self.report

    def at(self, rows: Tensor) -> "Search":
        """Return the search over the given rows (an index tensor); it writes to the same report."""
        seeds = [self.seeds[row] for row in rows.tolist()]
        targets = None if self.targets is None else self.targets[rows]
        slack = None if self.slack is None else self.slack[rows]
        report = self.record.at(rows)
        return Search(self.network, self.region[rows], self.classes[rows], seeds, self.budget, targets, report, slack)

    def shortfalls(self, scores: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        """Return how far scores `(rows, classes)` of the given rows are from ending the search: at <= 0.

        The class margin, or with targets how far the target is behind the best other class, and the slack.
        """
        targets = None if self.targets is None else self.targets[rows]
        missing = shortfalls(scores, self.classes[rows], targets)
        return missing if self.slack is None else missing + self.slack[rows].to(missing)


@dataclass(frozen=True, eq=False)
class Proposals:
    """Points `(batch, *shape)` in the model's dtype, inside their regions, and a mask of those that look unsafe.

    unsafe: another class than the own, or the target where there is one, wins or ties. report: what it took.
    """

    points: Tensor
    unsafe: Tensor
    report: Report | None = None


class Attack(ABC):
    """A search for unsafe points: it finds, and never proves. Subclasses implement `propose`.

    norms: of the balls it can search.
    needs_gradient: whether it differentiates the network, or only asks for outputs.
    minimal: whether it minimises the distance, the radius being only an outer limit.
    """

    norms: ClassVar[tuple[str, ...]] = ("inf",)
    needs_gradient: ClassVar[bool] = True
    minimal: ClassVar[bool] = False
    # Whether inputs with domains of their own are searched one by one.
    one_domain: ClassVar[bool] = False

    @abstractmethod
    def propose(self, search: Search) -> Tensor:
        """Return one point for each region, in any floating dtype; it need not be inside or unsafe."""

    def run(self, search: Search) -> Proposals:
        """Return the proposed points, clipped and evaluated anew in the model's dtype.

        Raises ValueError if the attack does not support the norm of the regions.
        """
        if search.region.norm not in self.norms:
            raise ValueError(
                f"the attack {type(self).__name__} does not support the {search.region.norm}-norm; "
                f"it supports: {', '.join(self.norms)}"
            )
        points = self.proposed(replace(search, region=search.region.inside))
        points, inside = clip(search.region, points, search.network.dtype)
        with torch.no_grad():
            unsafe = shortfalls(search.network.scores(points), search.classes, search.targets) <= 0
        return Proposals(points, unsafe & inside, search.report)

    def proposed(self, search: Search) -> Tensor:
        """Return what `propose` does, one by one where inputs have domains of their own and it takes but one."""
        domain = search.region.domain
        if not self.one_domain or not isinstance(domain, Box) or domain.batch == 1:
            return self.propose(search)
        rows = torch.arange(len(search), device=search.classes.device)
        return torch.cat([self.propose(search.at(row)) for row in rows.split(1)])


def clip(region: BallRegion, points: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return (points of the balls in `dtype`, a mask of those for which the region confirms it).

    As `BallRegion.clip`, which is asked only for rows that are not inside yet.
    """
    if points.dtype != dtype:
        points = region.clip(points, dtype)
        return points, contains(region, points)
    inside = contains(region, points)
    # The caller's own memory, which an attack may have returned, is not written to.
    points = points.clone(memory_format=torch.contiguous_format)
    if not bool(inside.all()):
        rows = torch.nonzero(~inside).squeeze(1)
        part = region[rows]
        points[rows] = part.clip(points[rows], dtype)
        inside[rows] = part.contains(points[rows])
    return points, inside
