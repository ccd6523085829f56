"""How a descent moves: step rules, each with the state it carries from one step to the next.

    Vertex     the least point of the linearisation over the whole ball: FGSM (Goodfellow, Shlens, Szegedy 2015)
    Steepest   steps of one length: I-FGSM/BIM (Kurakin et al. 2017), PGD (Madry et al. 2018); with momentum MI-FGSM
               (Dong et al. 2018, equation 6): m <- mu m + g / |g|_1
    Plain      steps of the gradient itself: plain PGD (Pallaprolu, Madala 2020)
    AdaDelta   Zeiler (2012), as in Agrawal et al. (2019), with the box on the right side of the centre as well
    Adaptive   APGD (Croce, Hein 2020): steps that halve, and a return to the best point, when progress stalls

Every rule projects its points onto the ball. Losses are minimised.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from verifier.attacks.ball import Ball


def replace_rows(old: Tensor, new: Tensor, rows: Tensor) -> Tensor:
    """Return `old` with the given rows (an index tensor) of `new`; neither is written to.

    A `where` over the rows takes ten times as long.
    """
    if len(rows) == len(old):
        return new
    return old.index_copy(0, rows, new.index_select(0, rows)) if len(rows) else old


class Walk(ABC):
    """The state of one descent: one row for each point that still moves."""

    def __init__(self, ball: Ball) -> None:
        self.ball = ball

    @abstractmethod
    def advance(self, x: Tensor, gradient: Tensor, losses: Tensor) -> Tensor:
        """Return the points after x `(batch, n)`, given gradient and loss there."""

    def keep(self, rows: Tensor) -> None:
        """Drop all but the given rows (an index tensor)."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value.index_select(0, rows))
        self.ball = self.ball.at(rows)


class StepRule(ABC):
    """The settings of a walk. needs_losses: whether it looks at them, or at gradients only."""

    needs_losses: ClassVar[bool] = False

    @abstractmethod
    def begin(self, ball: Ball, steps: int) -> Walk:
        """Return the walk of a descent of that many steps in the balls."""


@dataclass(frozen=True)
class Vertex(StepRule):
    """Jump to the least point of the linearisation at the point, taken as if at the centre."""

    def begin(self, ball: Ball, steps: int) -> Walk:
        return _VertexWalk(ball)


class _VertexWalk(Walk):
    def advance(self, x: Tensor, gradient: Tensor, losses: Tensor) -> Tensor:
        return self.ball.vertex(gradient)


@dataclass(frozen=True)
class Steepest(StepRule):
    """Steepest steps. length: in units of the radius; momentum: the share of the past kept in the direction."""

    length: float
    momentum: float = 0.0

    def begin(self, ball: Ball, steps: int) -> Walk:
        return _SteepestWalk(ball, self)


class _SteepestWalk(Walk):
    def __init__(self, ball: Ball, rule: Steepest) -> None:
        super().__init__(ball)
        self.size = ball.radius * rule.length
        self.momentum = rule.momentum
        self.past = torch.zeros_like(ball.centre) if rule.momentum else None

    def advance(self, x: Tensor, gradient: Tensor, losses: Tensor) -> Tensor:
        if self.past is not None:
            total = gradient.abs().sum(dim=1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
            gradient = self.past = self.momentum * self.past + gradient / total
        return self.ball.descend(x, gradient, self.size)


@dataclass(frozen=True)
class Plain(StepRule):
    """Steps of the gradient, whose length counts: x - length * radius * g, projected; nothing is normalised.

    So it stands still where the loss is flat: take a loss whose slopes are its own ("log-probability").
    """

    length: float

    def begin(self, ball: Ball, steps: int) -> Walk:
        return _PlainWalk(ball, self)


class _PlainWalk(Walk):
    def __init__(self, ball: Ball, rule: Plain) -> None:
        super().__init__(ball)
        self.size = ball.radius * rule.length

    def advance(self, x: Tensor, gradient: Tensor, losses: Tensor) -> Tensor:
        return self.ball.project(torch.addcmul(x, gradient, self.size[:, None], value=-1))


@dataclass(frozen=True)
class AdaDelta(StepRule):
    """Steps in units of the input: rate * sqrt(mean d^2 + floor) / sqrt(mean g^2 + floor) * g."""

    rate: float = 1.0
    decay: float = 0.9
    floor: float = 1e-6

    def begin(self, ball: Ball, steps: int) -> Walk:
        return _AdaDeltaWalk(ball, self)


class _AdaDeltaWalk(Walk):
    def __init__(self, ball: Ball, rule: AdaDelta) -> None:
        super().__init__(ball)
        self.rule = rule
        self.gradients, self.moves = torch.zeros_like(ball.centre), torch.zeros_like(ball.centre)

    def advance(self, x: Tensor, gradient: Tensor, losses: Tensor) -> Tensor:
        rule = self.rule
        self.gradients = rule.decay * self.gradients + (1 - rule.decay) * gradient * gradient
        move = ((self.moves + rule.floor) / (self.gradients + rule.floor)).sqrt() * gradient
        self.moves = rule.decay * self.moves + (1 - rule.decay) * move * move
        return self.ball.project(x - rule.rate * move)


@dataclass(frozen=True)
class Adaptive(StepRule):
    """APGD. length: of the first step in units of the radius; inertia: the weight of the new step against the last.

    progress: a step length is kept while at least this share of its steps lower the loss.
    """

    needs_losses: ClassVar[bool] = True

    length: float = 2.0
    inertia: float = 0.75
    progress: float = 0.75

    def begin(self, ball: Ball, steps: int) -> Walk:
        return _AdaptiveWalk(ball, self, checkpoints(steps))


def checkpoints(steps: int) -> tuple[int, ...]:
    """Return the steps at which APGD looks back: periods of 22 % of all steps, each 3 % shorter, at least 6 %."""
    period, shrink, least = (max(round(share * steps), 1) for share in (0.22, 0.03, 0.06))
    looks = [period]
    while looks[-1] < steps:
        period = max(period - shrink, least)
        looks.append(looks[-1] + period)
    return tuple(looks)


class _AdaptiveWalk(Walk):
    def __init__(self, ball: Ball, rule: Adaptive, looks: tuple[int, ...]) -> None:
        super().__init__(ball)
        self.rule, self.looks = rule, looks
        self.number = self.last_look = 0
        self.size = ball.radius * (1.0 if ball.norm == "1" else rule.length)
        infinite = torch.full_like(ball.radius, torch.inf)
        self.best_loss, self.last_loss, self.loss_at_look = infinite, infinite.clone(), infinite.clone()
        self.falls = torch.zeros_like(ball.radius)
        self.halved = torch.zeros_like(ball.radius, dtype=torch.bool)
        self.best = self.best_gradient = self.before = ball.centre

    def advance(self, x: Tensor, gradient: Tensor, losses: Tensor) -> Tensor:
        better = torch.nonzero(losses < self.best_loss).squeeze(1)
        self.best_loss = replace_rows(self.best_loss, losses, better)
        self.best = replace_rows(self.best, x, better)
        self.best_gradient = replace_rows(self.best_gradient, gradient, better)
        first = self.number == 0
        if first:
            self.before = x
        else:
            self.falls = self.falls + (losses < self.last_loss)
        self.last_loss = losses
        if self.number in self.looks:
            x, gradient = self._look_back(x, gradient)
        self.number += 1
        moved = self.ball.descend(x, gradient, self.size)
        if not first:
            inertia = self.rule.inertia
            moved = self.ball.project(x + inertia * (moved - x) + (1 - inertia) * (x - self.before))
        self.before = x
        return moved

    def _look_back(self, x: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Halve the steps that brought too little; return (points, gradients) to go on from."""
        slow = self.falls < self.rule.progress * (self.number - self.last_look)
        stalled = ~self.halved & (self.best_loss >= self.loss_at_look)
        self.halved = slow | stalled
        self.size = torch.where(self.halved, self.size / 2, self.size)
        self.loss_at_look, self.last_look = self.best_loss, self.number
        self.falls = torch.zeros_like(self.falls)
        back = torch.nonzero(self.halved).squeeze(1)
        x, gradient = replace_rows(x, self.best, back), replace_rows(gradient, self.best_gradient, back)
        # A return to the best point is no movement.
        self.before = replace_rows(self.before, x, back)
        self.last_loss = torch.where(self.halved, self.best_loss, self.last_loss)
        return x, gradient
