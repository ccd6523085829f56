"""The nearest unsafe point that a minimal-distance attack has met, and the segment search that ends some of them."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from encoders.region import domain_ends
from verifier.attacks.base import Attack, Search
from verifier.attacks.criteria import all_labels, slopes
from verifier.attacks.descent import Descent
from verifier.attacks.geometry import lengths
from verifier.attacks.halfspace import step_to_halfspace
from verifier.attacks.linearise import Linearisation, linearise
from verifier.attacks.source import Source, has_pseudogradient, pseudogradient
from verifier.attacks.steps import Steepest

# Boundaries that a projection looks at, and the share by which it goes beyond: enough for float32.
POLISH_CANDIDATES = 3
POLISH_OVERSHOOT = 2e-4
# Balls of these shares of the radius are searched in turn on pseudogradients, by so many steps of a tenth.
RETRY_SHARES = tuple(2.0**-k for k in range(5, -1, -1))
RETRY_STEPS = 20
RETRY_HALVINGS = 10
# By how much a step is lengthened whose end is unsafe only by the rounding of one grouping of inputs, in turn.
SECURING_SHARES = (1e-6, 1e-5, 1e-4, 1e-3)


class Nearest:
    """For each input the nearest unsafe point offered so far; where there is none, the one with the least shortfall.

    points: `(batch, *shape)` in the model's dtype; distances: `(batch,)`, infinite where nothing unsafe was met.
    norm: that of the region unless given; "0" counts changed coordinates. margin: by how much another class (or the
    target) must win; every shortfall is counted from there. source: what is differentiated. Points are clipped to the
    domain, never to the radius: whether they lie in the ball is the caller's question. ends: of the domain, float64;
    least, greatest: the same in the model's dtype.
    """

    def __init__(self, search: Search, norm: str | None = None, margin: float = 0.0) -> None:
        self.search = search
        self.source = Source(search.network)
        self.margin = margin
        self.norm = search.region.norm if norm is None else norm
        self.centre = search.region.centre.to(search.network.dtype)
        self.ends = domain_ends(search.region.domain, search.region.centre)
        self.least, self.greatest = (end.to(self.centre) for end in self.ends)
        self.points = self.centre.clone()
        self.distances = torch.full_like(search.region.radius, torch.inf, dtype=self.centre.dtype)
        self.shortfalls = torch.full_like(self.distances, torch.inf)

    @property
    def bounded(self) -> bool:
        """Whether there is a domain with two finite ends."""
        return bool(self.least.isfinite().all()) and bool(self.greatest.isfinite().all())

    @property
    def width(self) -> float:
        """The greatest width of the domain."""
        return float((self.ends[1] - self.ends[0]).max())

    @property
    def found(self) -> Tensor:
        """A mask `(batch,)` of the inputs with an unsafe point."""
        return self.distances.isfinite()

    def all_rows(self) -> Tensor:
        """Return the index of every input."""
        return torch.arange(len(self.distances), device=self.distances.device)

    def clamp(self, x: Tensor) -> Tensor:
        """Return the points moved into the domain."""
        return x.clamp(self.least, self.greatest)

    def rooms(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return how far the coordinates of points may fall and rise in the domain, each `(rows, n)`."""
        return (x - self.least).flatten(1), (self.greatest - x).flatten(1)

    def measure(self, rows: Tensor, scores: Tensor) -> Tensor:
        """Return how far scores of points of the given inputs are from what is searched for: reached at <= 0."""
        return self.search.shortfalls(scores, rows) + self.margin

    def linearise(self, rows: Tensor, x: Tensor, candidates: int | None, aims: Tensor | None = None) -> Linearisation:
        """Return the models at points of the given inputs, after offering the points.

        aims: classes `(rows,)` whose boundary alone is looked at; those of the search where it has targets.
        """
        if self.search.targets is not None:
            aims = self.search.targets[rows]
        model = linearise(self.source, x, self.search.classes[rows], aims, candidates)
        self.search.record.count_gradients(rows)
        self.search.record.note_gradient(rows, model.vanishing())
        self.offer(rows, x, self.measure(rows, model.scores))
        if self.search.slack is None:
            return model
        # The boundary that counts lies behind the true one.
        return replace(model, margins=model.margins + self.search.slack[rows, None].to(model.margins))

    def differentiate(
        self, rows: Tensor, x: Tensor, loss: str = "margin", aims: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return (shortfalls, margins, gradients `(rows, n)`) at points of the given inputs, after offering the points.

        margins: what has to fall to 0 to reach the aims, classes `(rows,)`; without aims the shortfalls. gradients: of
        a row of `LOSSES` with these aims; where the search has targets, negated, of the target, without aims.
        """
        targets = self.search.targets
        classes = self.search.classes[rows] if targets is None else targets[rows]
        sign = 1.0 if targets is None else -1.0
        scores, gradients = self.source.differentiate(x, lambda scores: sign * slopes(loss, scores, classes, aims))
        self.search.record.count_gradients(rows)
        flat = gradients.flatten(1)
        self.search.record.note_gradient(rows, (flat == 0).all(dim=1))
        values = self.measure(rows, scores)
        self.offer(rows, x, values)
        if aims is None:
            return values, values, flat
        ahead = scores.gather(1, classes[:, None]) - scores.gather(1, aims[:, None])
        margins = ahead.squeeze(1) + self.margin
        return values, margins if self.search.slack is None else margins + self.search.slack[rows].to(margins), flat

    def aims(self, count: int) -> Iterator[Tensor]:
        """Yield the classes to aim at in turn, one for each input: of the others the `count` best at it, best first.

        None where the search has targets, or no time is left.
        """
        search = self.search
        if not count or search.targets is not None or search.budget.exhausted or not len(search):
            return
        with torch.no_grad():
            scores = search.network.scores(self.centre)
        search.record.count_queries(self.all_rows())
        yield from all_labels(scores, search.classes)[:, :count].unbind(dim=1)

    def evaluate(self, rows: Tensor, x: Tensor) -> Tensor:
        """Return the shortfalls at points of the given inputs, after offering the points."""
        with torch.no_grad():
            values = self.measure(rows, self.search.network.scores(x))
        self.search.record.count_queries(rows)
        self.offer(rows, x, values)
        return values

    def offer(self, rows: Tensor, points: Tensor, values: Tensor) -> None:
        """Take in points with their shortfalls where they are nearer than all before."""
        away = lengths((points - self.centre[rows]).flatten(1), self.norm)
        nearer = (values <= 0) & (away < self.distances[rows])
        closer = ~self.found[rows] & ~nearer & (values < self.shortfalls[rows])
        take = nearer | closer
        self.points[rows[take]] = points[take].detach()
        self.shortfalls[rows[take]] = values[take].detach()
        self.distances[rows[nearer]] = away[nearer].detach()

    def polish(self, steps: int) -> None:
        """Project the inputs on the boundaries linearised at their unsafe points, and keep what is unsafe and nearer.

        On a linear network this is the nearest unsafe point, up to the overshoot.
        """
        for _ in range(steps):
            rows = torch.nonzero(self.found).squeeze(1)
            if not len(rows) or self.search.budget.exhausted:
                break
            model = self.linearise(rows, self.points[rows], POLISH_CANDIDATES)
            margins, gradients = model.nearest_boundary(self.norm)
            centre = self.centre[rows]
            back = ((centre - self.points[rows]).flatten(1) * gradients).sum(dim=1)
            step = step_to_halfspace(gradients, margins + self.margin + back, *self.rooms(centre), self.norm)
            self.evaluate(rows, self.clamp(centre + (1.0 + POLISH_OVERSHOOT) * step.reshape_as(centre)))

    def pull(self, steps: int) -> None:
        """Bisect the segments from the inputs to their unsafe points, down to 2^-steps of each."""
        rows = torch.nonzero(self.found).squeeze(1)
        if not len(rows):
            return
        centre, far = self.centre[rows], self.points[rows].clone()
        safe, unsafe = torch.zeros_like(self.distances[rows]), torch.ones_like(self.distances[rows])
        for _ in range(steps):
            if self.search.budget.exhausted:
                break
            share = (safe + unsafe) / 2
            middle = self.clamp(centre + share.reshape(-1, *[1] * (far.dim() - 1)) * (far - centre))
            hit = self.evaluate(rows, middle) <= 0
            unsafe, safe = torch.where(hit, share, unsafe), torch.where(hit, safe, share)

    def secure(self) -> None:
        """Go a little beyond unsafe points that are safe when all inputs are evaluated together.

        Points on a boundary change sides by the rounding of products, which depends on how inputs are grouped; the base
        class judges all of them together.
        """
        for share in SECURING_SHARES:
            if not bool(self.found.any()) or self.search.budget.exhausted:
                break
            with torch.no_grad():
                values = self.measure(self.all_rows(), self.search.network.scores(self.points))
            self.search.record.count_queries(self.all_rows())
            rows = torch.nonzero(self.found & ~(values <= 0)).squeeze(1)
            if not len(rows):
                break
            centre = self.centre[rows]
            self.points[rows] = self.clamp(centre + (1.0 + share) * (self.points[rows] - centre))


class NearestAttack(Attack):
    """An attack that minimises the distance. Subclasses implement `approach`.

    Where it found nothing on a network with MWD layers, whose true gradients reach one input of each unit only, it goes
    on with pseudogradients.
    """

    minimal: ClassVar[bool] = True
    one_domain: ClassVar[bool] = True

    @abstractmethod
    def approach(self, nearest: Nearest) -> None:
        """Offer unsafe points to `nearest`, which names the inputs and what is differentiated."""

    def begin(self, search: Search) -> Nearest:
        """Return what `approach` is given; attacks with a distance of their own make it here."""
        return Nearest(search)

    def retry(self, nearest: Nearest) -> None:
        """Offer points found by descents on pseudogradients in growing balls, and by bisection of the segments to them.

        Pseudogradients have directions, but no scale: they are sums over the inputs of a unit where only the largest
        counts, so that steps to a linearised boundary would be far too short.
        """
        search, descent = nearest.search, Descent(RETRY_STEPS, Steepest(0.1), sources=(pseudogradient,))
        for share in RETRY_SHARES:
            rows = torch.nonzero(~nearest.found).squeeze(1)
            if not len(rows) or search.budget.exhausted:
                break
            part = search.at(rows)
            part = replace(part, region=part.region.with_radius(share * part.region.radius))
            nearest.evaluate(rows, nearest.clamp(descent.propose(part)))
        nearest.pull(RETRY_HALVINGS)

    def propose(self, search: Search) -> Tensor:
        """Return the nearest unsafe point met for each input, else the one with the least margin."""
        nearest = self.begin(search)
        self.approach(nearest)
        rows = torch.nonzero(~nearest.found).squeeze(1)
        if has_pseudogradient(search.network) and len(rows) and not search.budget.exhausted:
            again = self.begin(search.at(rows))
            again.source = pseudogradient(search.network)
            self.retry(again)
            nearest.offer(rows, again.points, again.shortfalls)
        self._leave_flat_places(nearest)
        nearest.secure()
        return nearest.points

    def _leave_flat_places(self, nearest: Nearest) -> None:
        """Search by descents, which have other directions, where nothing was found and the input's gradient is zero."""
        rows = torch.nonzero(~nearest.found).squeeze(1)
        if not len(rows) or nearest.search.budget.exhausted:
            return
        flat = nearest.linearise(rows, nearest.centre[rows], 1).vanishing()
        rows = rows[flat]
        if len(rows):
            again = self.begin(nearest.search.at(rows))
            NearestAttack.retry(self, again)
            nearest.offer(rows, again.points, again.shortfalls)
