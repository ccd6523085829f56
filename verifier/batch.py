"""Inputs of one subject that are worked on together, and the balls around them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from encoders.box import Box
from encoders.network import Network
from encoders.property import Halfspaces
from encoders.region import BallRegion, Domain, Norm, domain_ends
from encoders.scaling import unit
from verifier.subject import Subject

# Inputs worked on together. Batches start at multiples of it in the data, so that a resumed run repeats them.
BATCH_SIZE = 64


@dataclass(frozen=True, eq=False)
class Batch:
    """Inputs of one subject: centres `(batch, *shape)` float64 on the device, reference classes, seeds.

    reach: the largest radius that is asked about; with a domain, the whole domain lies within it. norm: of the balls.
    scale: of the coordinates, as that of `BallRegion`, in whose units radii are then; None: 1 for all.
    conjunctions: where the subject's network is that of the margins of a property, the network before it and the
    polyhedra, for methods that look at their rows one by one.
    """

    subject: Subject
    centres: Tensor
    classes: Tensor
    seeds: tuple[int, ...]
    domain: Domain
    reach: float
    norm: Norm = "inf"
    conjunctions: tuple[Network, tuple[Halfspaces, ...]] | None = None
    scale: Tensor | None = None

    def __len__(self) -> int:
        return len(self.seeds)

    def region(self, radius: Tensor | float) -> BallRegion:
        """Return the balls of a radius (one number, or one for each input) around the centres."""
        radii = torch.as_tensor(radius, dtype=torch.float64, device=self.centres.device)
        return BallRegion(self.centres, radii.expand(len(self)).clone(), self.domain, self.norm, self.scale)

    @property
    def bounded(self) -> bool:
        """Whether the domain has two finite ends everywhere: the ball of the reach is then all of it."""
        ends = domain_ends(self.domain, self.centres)
        return self.domain is not None and all(bool(end.isfinite().all()) for end in ends)

    @property
    def units(self) -> Tensor:
        """Return powers of two `(batch,)` that no input value asked about exceeds: in these, tolerances are meant."""
        if self.bounded:
            ends = (end.expand_as(self.centres).abs().flatten(1) for end in domain_ends(self.domain, self.centres))
            sizes = torch.maximum(*(end.amax(dim=1) for end in ends)).tolist()
        else:
            widest = self.reach * (1.0 if self.scale is None else float(self.scale.max()))
            sizes = (self.centres.abs().flatten(1).amax(dim=1) + widest).tolist()
        return torch.tensor([unit(size) for size in sizes], dtype=torch.float64)

    def one(self, row: int) -> Batch:
        """Return the batch of one input."""
        return self.at(torch.tensor([row], device=self.centres.device))

    def at(self, rows: Tensor) -> Batch:
        """Return the batch of the given rows (an index tensor)."""
        seeds = tuple(self.seeds[row] for row in rows.tolist())
        domain = self.domain[rows] if isinstance(self.domain, Box) and self.domain.batch > 1 else self.domain
        return replace(self, centres=self.centres[rows], classes=self.classes[rows], seeds=seeds, domain=domain)


@dataclass(frozen=True, eq=False)
class Group:
    """Some of the inputs that are worked on together, by their places among them.

    errors: what an execution may move each score by, of questions about executions.
    """

    places: tuple[int, ...]
    batch: Batch
    errors: tuple[float, ...] = ()
