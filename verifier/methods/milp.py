"""Integer programming as a method: `milp` proves by the word of a solver in a worker process, and finds by replay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from encoders.network import Network
from encoders.region import BallRegion, domain_ends
from verifier.answers import Answer
from verifier.batch import Batch
from verifier.bounds.interval import compare_classes
from verifier.bounds.programs.milp import Effort, ExactRows, MilpSearch, programs, too_large
from verifier.bounds.programs.milp_radius import RadiusSearch
from verifier.bounds.programs.tightening import Tightening
from verifier.budget import Budget
from verifier.methods.base import Method
from verifier.methods.bisection import bisect_brackets
from verifier.solvers import Solver, find_solver
from verifier.verdict import Bracket, Outcome, Strength
from verifier.witnesses.minimisers import try_points

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
    scales = True
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
                    f"({node.op.kind}) lacks them"
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
        return f"method {self.name!r} would need an integer program for each input of {reason}"

    def decide(self, batch: Batch, region: BallRegion, budget: Budget) -> list[Answer]:
        if not len(batch):
            return []
        answers = [Answer.open("time limit")] * len(batch)
        wins = compare_classes(batch.subject.network, region.enclosure(), batch.classes).wins.cpu()
        for row in range(len(batch)):
            if budget.exhausted:
                break
            index = torch.tensor([row], device=batch.centres.device)
            share = self._share(budget, len(batch) - row)
            rivals = torch.nonzero(~wins[row]).squeeze(1)
            answers[row] = self._decide_one(batch.one(row), region[index], rivals, share)
        return answers

    def bracket(
        self, batch: Batch, epsilons: Sequence[float], answers: Sequence[Answer], budget: Budget
    ) -> list[Answer]:
        """Decide the requested radii that are open in rising order, then minimise the radius where a witness is known.

        Where a requested radius stays open the radius is minimised within the largest one. What that says of safe radii
        moves the bracket's trusted end, whatever others have proved. With a scale no radius is minimised. As long as a
        requested radius is open the reason stays the one about that ball.
        """
        known = bisect_brackets(self, batch, [0.0, *epsilons], answers, budget, 0)
        largest = max(epsilons, default=math.inf)
        if batch.scale is not None:
            return known
        gaps = (self.gap * batch.units).tolist()
        for row, answer in enumerate(known):
            bracket = answer.bracket
            within = bracket.upper if math.isfinite(bracket.upper) else largest
            safe = max(bracket.lower, bracket.trusted)
            if safe < 0.0 or not within - safe > gaps[row] or math.isinf(within):
                continue
            if budget.exhausted:
                break
            known[row] = self._minimise(batch.one(row), within, answer, self._share(budget, len(batch) - row))
            if answer.reason is not None and _is_open(known[row].bracket, epsilons):
                known[row] = replace(known[row], reason=answer.reason)
        return known

    def _decide_one(self, one: Batch, region: BallRegion, rivals: Tensor, budget: Budget) -> Answer:
        proved, shown = Answer.proved(float(region.radius[0]), self.name, self.strength), Answer()
        if not len(rivals):
            return proved

        def attack(points: Tensor) -> bool:
            nonlocal shown
            (tried,) = try_points(one, region, points.unsqueeze(0).to(region.centre), [0], self.name)
            shown = shown.merge(tried)
            return shown.witness is not None

        exact = ExactRows(one.subject.network, region.on_processor())
        rows = _differences(one, rivals)
        least, points = exact.least(rows)
        if points is not None and bool((least <= 0).any()) and attack(points[least <= 0]):
            return shown
        if self.tighten > 0 and bool((least <= 0).any()):
            exact.tighten(rows[int(least.argmin())].numpy(), min(self.tighten, budget.remaining))
            least = torch.maximum(least, exact.least(rows)[0])
        search = MilpSearch(exact, attack, self.solvers, Effort(budget, self.nodes))
        counted = Answer()
        # The class that linear bounds say is nearest comes first: a counterexample ends the search.
        for group in programs(least, self.together):
            answer = search.decide(rows[group].numpy(), float(least[group].min()))
            counted = Answer.open(open_units=exact.binaries)
            if answer.falsified:
                return shown.merge(counted)
            if not answer.proved:
                asked = ", ".join(str(rival) for rival in sorted(rivals[group].tolist()))
                reason = f"class {asked}: {answer.reason}{_spent(exact.tightening)}"
                return shown.merge(counted).merge(Answer.open(reason))
        return proved.merge(counted)

    def _minimise(self, one: Batch, within: float, answer: Answer, budget: Budget) -> Answer:
        """Return an answer about the one input after minimising the radius on the ball of radius `within`."""
        bracket, witness = answer.bracket, answer.witness
        gap = self.gap * float(one.units[0])
        ball = one.region(within)
        beyond = one.region(min(within + 2 * gap, max(one.reach, within)))
        known = answer

        def nearest(points: Tensor) -> float:
            nonlocal known
            (tried,) = try_points(one, beyond, self._nudged(one, points).unsqueeze(0), [0], self.name)
            if tried.witness is not None:
                known = known.merge(Answer.broken(tried.witness, self.name))
            return known.bracket.upper

        wins = compare_classes(one.subject.network, ball.enclosure(), one.classes).wins.cpu()
        rows = _differences(one, torch.nonzero(~wins[0]).squeeze(1))
        exact = ExactRows(one.subject.network, ball.on_processor())
        search = RadiusSearch(exact, nearest, self.solvers[0], Effort(budget, self.nodes), gap, self.together)
        point = None if witness is None or witness.distance > within else witness.point
        least = search.minimise(rows, max(bracket.lower, bracket.trusted), point, bracket.upper)
        known = known.merge(Answer.open(least.effort.reason or None, open_units=exact.binaries))
        # A bound that a witness contradicts is no proof.
        safe = least.lower < known.bracket.upper
        return known.merge(Answer.proved(least.lower, self.name, self.strength)) if safe else known

    def _nudged(self, one: Batch, points: Tensor) -> Tensor:
        """Return the points `(count, *shape)`, then all of them moved a little on, along the sign of their step.

        A least distance puts most coordinates on the border of the ball: those go on, and so does the margin.
        """
        centre = one.centres
        steps = points.to(centre) - centre
        unit = float(one.units[0])
        share = steps.abs() / steps.abs().amax().clamp(min=1e-300)
        moved = torch.cat([points.to(centre) + nudge * unit * share.round() * steps.sign() for nudge in NUDGES])
        return moved.clamp(*domain_ends(one.domain, moved))

    def _share(self, budget: Budget, inputs: int) -> Budget:
        """Return the next input's part of a budget for several: what easy ones leave goes to the later ones."""
        return budget.share(inputs, self.seconds)


def _is_open(bracket: Bracket, epsilons: Sequence[float]) -> bool:
    """Return whether neither a proof, a witness nor a solver decides one of the radii."""
    return any(bracket.at(epsilon) is Outcome.OPEN and not bracket.only_trusted_at(epsilon) for epsilon in epsilons)


def _differences(one: Batch, rivals: Tensor) -> Tensor:
    """Return rows `(rivals, outputs)` with y_c - y_k = row . y."""
    rows = torch.zeros(len(rivals), one.subject.network.output_shape[0], dtype=torch.float64)
    rows[:, int(one.classes[0])] = 1.0
    rows[torch.arange(len(rivals)), rivals] = -1.0
    return rows


def _spent(tightening: Tightening | None) -> str:
    """Return in words what tightening the boxes took and left."""
    if tightening is None:
        return ""
    units = f"{tightening.open_units} of {tightening.open_before} units behind the first layer stayed open"
    return f"; after {tightening.programs} programs in {tightening.seconds:.1f} s for tighter boxes {units}"
