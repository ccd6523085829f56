"""Where inputs may move, and in what units: a domain, coordinates that stay as they are, a scale for each coordinate.

With a scale s the ball of radius e around c is the box |x_i - c_i| <= e s_i, cut to the domain; radii and distances are
then in units of the scaled norm max_i |x_i - c_i| / s_i. A scale of 0 fixes a coordinate. What is fixed is the domain's
business: it holds the input's own value there and nothing else, so every norm and method heeds it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.box import Box, Shape
from encoders.region import BallRegion, Domain, Norm, domain_ends, euclidean_up, sum_up
from encoders.rounding import add_up, next_up

# Coordinates that a message names.
NAMED = 8


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What surrounds the inputs of a model of an input shape.

    clip: the (least, greatest) value of every coordinate; None: no limit.
    ends: the least and greatest value of each coordinate, `(2, *shape)`, float64, finite; None: those of the clip.
    fixed: places, in C order and rising, of coordinates that stay as they are.
    scale: of each coordinate, `(*shape)`, float64, finite, >= 0; None: 1 for all.

    Raises ValueError on numbers that are no domain, no places or no scale.
    """

    shape: Shape
    clip: tuple[float, float] | None = None
    ends: Tensor | None = None
    fixed: tuple[int, ...] = ()
    scale: Tensor | None = None

    def __post_init__(self) -> None:
        count = int(np.prod(self.shape, dtype=int))
        if self.ends is not None:
            _check_numbers("the domain", self.ends, (2, *self.shape))
            least, greatest = domain_ends(self.clip, self.ends)
            wrong = (self.ends[0] > self.ends[1]) | (self.ends[0] > greatest) | (self.ends[1] < least)
            if bool(wrong.any()):
                place = int(wrong.flatten().nonzero()[0])
                ends = self.ends.flatten(1)[:, place].tolist()
                raise ValueError(f"the domain of input {place}, {ends}, is no interval within the clip {self.clip}")
        if self.scale is not None:
            _check_numbers("the scale", self.scale, self.shape)
            if bool((self.scale < 0).any()):
                place = int((self.scale < 0).flatten().nonzero()[0])
                raise ValueError(
                    f"the scale of input {place} is {float(self.scale.flatten()[place])}; it is at least 0"
                )
        if any(not 0 <= place < count for place in self.fixed) or list(self.fixed) != sorted(set(self.fixed)):
            raise ValueError(f"fixed inputs {self.fixed} are not rising places of 0 to {count - 1}")

    @classmethod
    def of_settings(cls, settings: Mapping[str, Any], shape: Shape) -> Surroundings:
        """Return those that run.json states for inputs of a shape; ValueError if they are not for these."""
        clip, ends, scale = (settings.get(name) for name in ("clip", "domain", "scale"))
        try:
            ends = None if ends is None else torch.tensor(ends, dtype=torch.float64).reshape(2, *shape)
            scale = None if scale is None else torch.tensor(scale, dtype=torch.float64).reshape(shape)
        except (RuntimeError, ValueError, TypeError, OverflowError):
            raise ValueError(f"the run's domain or scale is not for inputs of shape {shape}") from None
        return cls(shape, None if clip is None else tuple(clip), ends, tuple(settings.get("fixed", ())), scale)

    @property
    def settings(self) -> dict[str, Any]:
        """What run.json states of them, beside the clip: of what is not there, nothing."""
        found: dict[str, Any] = {}
        if self.ends is not None:
            found["domain"] = self.ends.flatten(1).tolist()
        if self.fixed:
            found["fixed"] = list(self.fixed)
        if self.scale is not None:
            found["scale"] = self.scale.flatten().tolist()
        return found

    @property
    def plain(self) -> bool:
        """Whether all coordinates are alike."""
        return not self.settings

    @property
    def held(self) -> Tensor:
        """A mask `(*shape)` of the coordinates that stay as they are."""
        held = torch.zeros(int(np.prod(self.shape, dtype=int)), dtype=torch.bool)
        held[list(self.fixed)] = True
        held = held.reshape(self.shape)
        return held if self.scale is None else held | (self.scale == 0)

    @property
    def domain(self) -> Domain:
        """What every input lies in: the clip, or a box of one input."""
        if self.ends is None:
            return self.clip
        least, greatest = domain_ends(self.clip, self.ends)
        return Box(self.ends[:1].clamp(min=least, max=greatest), self.ends[1:].clamp(min=least, max=greatest))

    @property
    def units(self) -> Tensor | None:
        """The scale as `BallRegion` takes it: 1 where a coordinate does not move."""
        return None if self.scale is None else torch.where(self.held, 1.0, self.scale)

    def domain_of(self, centres: Tensor) -> Domain:
        """Return the domain around inputs `(batch, *shape)`, float64: a box for each where coordinates are fixed."""
        held = self.held.to(centres.device)
        if not bool(held.any()):
            domain = self.domain
            return Box(domain.lower.to(centres), domain.upper.to(centres)) if isinstance(domain, Box) else domain
        least, greatest = (end.expand_as(centres) for end in domain_ends(self.domain, centres))
        return Box(torch.where(held, centres, least), torch.where(held, centres, greatest))

    def region(self, centres: Tensor, radii: Tensor, norm: Norm) -> BallRegion:
        """Return the balls around inputs `(batch, *shape)`, float64, on the processor."""
        return BallRegion(centres, radii, self.domain_of(centres), norm, self.units)

    def reach(self, least: float, greatest: float, norm: Norm) -> float:
        """Return the greatest distance between points of the domain, rounded up; least, greatest: where there is none.

        Coordinates that are fixed do not count. Raises ValueError where float64 does not hold it.
        """
        domain = self.domain
        lower, upper = domain_ends((least, greatest) if domain is None else domain, torch.zeros(1, dtype=torch.float64))
        widths = add_up(upper, -lower).expand(1, *self.shape)
        widths = torch.where(self.held, 0.0, widths)
        if self.units is not None:
            widths = torch.where(widths == 0, 0.0, next_up(widths / self.units))
        flat = widths.flatten(1)
        measure = {"inf": lambda values: values.amax(dim=1), "2": euclidean_up, "1": sum_up}[norm]
        reach = float(measure(flat))
        if not np.isfinite(reach):
            raise ValueError("in units of the scale the domain is wider than float64 holds; give a larger scale")
        return reach

    def check_inside(self, points: Tensor, which: Sequence[str]) -> None:
        """Raise ValueError naming the first value of inputs `(batch, *shape)` outside the domain."""
        least, greatest = domain_ends(self.domain, points.to(torch.float64))
        outside = ((points < least) | (points > greatest)).flatten(1)
        if not bool(outside.any()):
            return
        row, place = outside.nonzero()[0].tolist()
        ends = [float(end.expand_as(points)[row].flatten()[place]) for end in (least, greatest)]
        raise ValueError(
            f"{which[row]}: its value {place} is {float(points[row].flatten()[place])!r} in the model's precision, "
            f"outside its domain [{ends[0]!r}, {ends[1]!r}]; widen it, scale the data, or fix what does not move"
        )


def deviations(inputs: NDArray[np.floating[Any]]) -> Tensor:
    """Return the standard deviation of each coordinate over inputs `(n, *shape)`: the scale "std" of the data."""
    with np.errstate(over="ignore", invalid="ignore"):
        return torch.from_numpy(np.atleast_1d(inputs.astype(np.float64).std(axis=0)))


def _check_numbers(what: str, values: Tensor, shape: Shape) -> None:
    if tuple(values.shape) != shape or values.dtype != torch.float64:
        raise ValueError(f"{what} has shape {tuple(values.shape)}; numbers of float64 of shape {shape} are expected")
    wrong = (~values.isfinite()).flatten().nonzero().flatten().tolist()
    if wrong:
        raise ValueError(f"{what} holds {float(values.flatten()[wrong[0]])} at place {wrong[0]}; give finite numbers")
