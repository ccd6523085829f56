"""Integer programming as a method: `milp` proves by the word of a solver in a worker process, and finds by replay."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from encoders.network import Network
from encoders.region import BallRegion
from verifier.answers import Decision
from verifier.batch import Batch
from verifier.bounds.interval import compare_classes
from verifier.bounds.programs.milp import Effort, ExactRows, MilpSearch, programs, too_large
from verifier.bounds.programs.milp_radius import RadiusAnswer, RadiusSearch
from verifier.bounds.programs.tightening import Tightening
from verifier.budget import Budget
from verifier.methods.base import Findings, Method
from verifier.methods.bisection import bisect_brackets
from verifier.methods.crown import try_points
from verifier.solvers import Solver, find_solver
from verifier.verdict import Bracket, Outcome, Strength

# Steps beyond a solver's point, in units of the inputs' size (`Batch.units`), to get over the tie that a least distance
# normally is.
NUDGES = (0.0, 1e-7, 1e-6, 3e-6, 1e-5, 3e-5)


class MilpMethod(Method):
    """Proves and finds by integer programs over the exact rows, on what linear bounds leave open.

    solver: a name of `verifier.solvers`, run in a worker process; second: another one that must agree with every proof.
    gap: brackets with a witness are closed to this width, in units of the inputs' size (`Batch.units`), by minimising
    the radius; infinite: not at all. seconds: for
    one input at one radius, or its least radius, at most. nodes: of one program. tighten: seconds for tightening the
    boxes of a ball by linear programs. together: all open rivals in one program, not one program each.
    """

    batch_size = 8
    proves = True
    finds = True
    strength = Strength.TRUSTED

    def __init__(
        self,
        solver: str = "highs",
        second: str | None = None,
        *,
        name: str = "milp",
        gap: float = 1e-4,
        seconds: float = 60.0,
        nodes: int | None = None,
        tighten: float = 0.0,
        together: bool = False,
    ) -> None:
        self.name = name
        self.solver_names = (solver,) if second is None else (solver, second)
        self.gap, self.seconds, self.nodes, self.tighten, self.together = gap, seconds, nodes, tighten, together
        self._solvers: tuple[Solver, ...] = ()

    @property
    def solvers(self) -> tuple[Solver, ...]:
        """The solvers, each in a worker process of its own; ValueError if one is unknown or not installed."""
        if not self._solvers:
            self._solvers = tuple(find_solver(f"worker:{name}") for name in self.solver_names)
        return self._solvers

    def refusal(self, network: Network) -> str | None:
        for node in network.nodes:
            if "exact" not in node.op.views() or "envelope" not in node.op.views():
                return (
                    f"method {self.name!r} needs exact rows and linear bounds of every op; node {node.name!r} "
                    f"({node.op.kind}) lacks them. Methods for such networks: interval, crown, auto"
                )
        try:
            takes_integers = all(solver.integers for solver in self.solvers)
        except ValueError as error:
            return f"method {self.name!r}: {error}"
        if not takes_integers:
            return f"method {self.name!r} needs solvers of integer programs, which {self.solver_names} are not"
        reason = too_large(network)
        if reason is None:
            return None
        return (
            f"method {self.name!r} would need an integer program for each input of {reason}. "
            "Methods for such networks: crown, alpha-crown, auto"
        )

    def decide(self, batch: Batch, region: BallRegion, budget: Budget) -> Decision:
        decision = Decision(torch.zeros(len(batch), dtype=torch.bool))
        if not len(batch):
            return decision
        wins = compare_classes(batch.subject.network, region.enclosure(), batch.classes).wins.cpu()
        for row in range(len(batch)):
            if budget.exhausted:
                decision.reasons[row] = "time limit"
                continue
            index = torch.tensor([row], device=batch.centres.device)
            share = self._share(budget, len(batch) - row)
            rivals = torch.nonzero(~wins[row]).squeeze(1)
            decision.take(row, self._decide_one(batch.at(index), region[index], rivals, share))
        return decision

    def bracket(self, batch: Batch, epsilons: Sequence[float], findings: Findings, budget: Budget) -> None:
        """Decide the requested radii that are open in rising order, then minimise the radius where a witness is known.

        Where a requested radius stays open the radius is minimised within the largest one. What that says of safe radii
        moves the bracket's trusted end, whatever others have proved. As long as a requested radius is open the reason
        stays the one about that ball.
        """
        bisect_brackets(self, batch, [0.0, *epsilons], findings, budget, 0)
        largest = max(epsilons, default=math.inf)
        gaps = (self.gap * batch.units).tolist()
        for row in range(len(batch)):
            bracket = findings.brackets[row]
            within = bracket.upper if math.isfinite(bracket.upper) else largest
            known = max(bracket.lower, bracket.trusted)
            if known < 0.0 or not within - known > gaps[row] or math.isinf(within):
                continue
            if budget.exhausted:
                return
            asked = findings.reasons.get(row)
            self._minimise(batch, row, within, findings, self._share(budget, len(batch) - row))
            if asked is not None and _is_open(findings.brackets[row], epsilons):
                findings.reasons[row] = asked

    def _decide_one(self, one: Batch, region: BallRegion, rivals: Tensor, budget: Budget) -> Decision:
        proved, shown = (Decision(torch.full((1,), is_safe)) for is_safe in (True, False))
        if not len(rivals):
            return proved

        def attack(points: Tensor) -> bool:
            try_points(one, region, points.unsqueeze(0).to(region.centre), shown)
            return bool(shown.witnesses)

        exact = ExactRows(one.subject.network, _on_processor(region))
        rows = _differences(one, rivals)
        least, points = exact.least(rows)
        if points is not None and bool((least <= 0).any()) and attack(points[least <= 0]):
            return shown
        if self.tighten > 0 and bool((least <= 0).any()):
            exact.tighten(rows[int(least.argmin())].numpy(), min(self.tighten, budget.remaining))
            least = torch.maximum(least, exact.least(rows)[0])
        search = MilpSearch(exact, attack, self.solvers, Effort(budget, self.nodes))
        # The class that linear bounds say is nearest comes first: a counterexample ends the search.
        for group in programs(least, self.together):
            answer = search.decide(rows[group].numpy(), float(least[group].min()))
            for decision in (proved, shown):
                _count_units(decision, exact)
            if answer.found:
                return shown
            if not answer.proved:
                asked = ", ".join(str(rival) for rival in sorted(rivals[group].tolist()))
                shown.reasons[0] = f"class {asked}: {answer.reason}{_spent(exact.tightening)}"
                return shown
        return proved

    def _minimise(self, batch: Batch, row: int, within: float, findings: Findings, budget: Budget) -> None:
        """Narrow the bracket of a row by minimising the radius on the ball of radius `within`."""
        one = batch.at(torch.tensor([row], device=batch.centres.device))
        bracket, known = findings.brackets[row], findings.witnesses.get(row)
        gap = self.gap * float(one.units[0])
        ball = one.region(within)
        beyond = one.region(min(within + 2 * gap, max(batch.reach, within)))
        shown = Decision(torch.zeros(1, dtype=torch.bool))

        def nearest(points: Tensor) -> float:
            found = Decision(torch.zeros(1, dtype=torch.bool))
            try_points(one, beyond, self._nudged(one, points).unsqueeze(0), found)
            for witness in found.witnesses.values():
                best = min(bracket.upper, *(w.distance for w in shown.witnesses.values()), math.inf)
                if witness.distance < best:
                    shown.witnesses[0] = witness
            return min(bracket.upper, *(witness.distance for witness in shown.witnesses.values()), math.inf)

        wins = compare_classes(one.subject.network, ball.enclosure(), one.classes).wins.cpu()
        rows = _differences(one, torch.nonzero(~wins[0]).squeeze(1))
        exact = ExactRows(one.subject.network, _on_processor(ball))
        search = RadiusSearch(exact, nearest, self.solvers[0], Effort(budget, self.nodes), gap, self.together)
        point = None if known is None or known.distance > within else known.point
        found = search.minimise(rows, max(bracket.lower, bracket.trusted), point, bracket.upper)
        _count_units(shown, exact)
        self._take(findings, row, shown, found)

    def _take(self, findings: Findings, row: int, shown: Decision, found: RadiusAnswer) -> None:
        """Put a minimised radius into the findings; a bound that a witness contradicts is no proof."""
        if found.effort.reason:
            shown.reasons[0] = found.effort.reason
        findings.add([row], [math.inf], shown, self)
        if found.lower < findings.brackets[row].upper:
            findings.add([row], [found.lower], Decision(torch.ones(1, dtype=torch.bool)), self)

    def _nudged(self, one: Batch, points: Tensor) -> Tensor:
        """Return the points `(count, *shape)`, then all of them moved a little on, along the sign of their step.

        A least distance puts most coordinates on the border of the ball: those go on, and so does the margin.
        """
        centre = one.centres
        steps = points.to(centre) - centre
        unit = float(one.units[0])
        share = steps.abs() / steps.abs().amax().clamp(min=1e-300)
        moved = torch.cat([points.to(centre) + nudge * unit * share.round() * steps.sign() for nudge in NUDGES])
        return moved if one.domain is None else moved.clamp(*one.domain)

    def _share(self, budget: Budget, inputs: int) -> Budget:
        """Return the next input's part of a budget for several: what easy ones leave goes to the later ones."""
        return Budget(min(budget.remaining / inputs, self.seconds))


def _is_open(bracket: Bracket, epsilons: Sequence[float]) -> bool:
    """Return whether neither a proof, a witness nor a solver decides one of the radii."""
    return any(bracket.at(epsilon) is Outcome.OPEN and not bracket.only_trusted_at(epsilon) for epsilon in epsilons)


def _differences(one: Batch, rivals: Tensor) -> Tensor:
    """Return rows `(rivals, outputs)` with y_c - y_k = row . y."""
    rows = torch.zeros(len(rivals), one.subject.network.output_shape[0], dtype=torch.float64)
    rows[:, int(one.classes[0])] = 1.0
    rows[torch.arange(len(rivals)), rivals] = -1.0
    return rows


def _count_units(decision: Decision, exact: ExactRows) -> None:
    """Note in a decision about one input how many binaries its ball took, if rows were encoded."""
    if exact.binaries is not None:
        decision.open_units[0] = exact.binaries


def _spent(tightening: Tightening | None) -> str:
    """Return in words what tightening the boxes took and left."""
    if tightening is None:
        return ""
    left = f"{tightening.open_units} of {tightening.open_before} units behind the first layer stayed open"
    return f"; after {tightening.programs} programs in {tightening.seconds:.1f} s for tighter boxes {left}"


def _on_processor(region: BallRegion) -> BallRegion:
    return BallRegion(region.centre.cpu(), region.radius.cpu(), region.domain, region.norm)
