"""Balls around inputs, cut to a domain: the regions that robustness is asked over."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from encoders.box import Box
from encoders.rounding import add_down, add_up, next_down, next_up

Norm = Literal["inf", "2", "1"]
NORMS: tuple[str, ...] = get_args(Norm)

# What inputs live in: the (least, greatest) value of every coordinate; one box (batch 1) with bounds for each; a box
# for each input of a batch; or all.
Domain: TypeAlias = tuple[float, float] | Box | None

# By how much of the radius a point is pulled in, in turn, until rounding leaves it inside.
PULLS = (0.0, 2.0**-48, 2.0**-40, 2.0**-32, 2.0**-24, 2.0**-16)
# By what share scaled boxes are shortened: more than the roundings of a distance in scaled units, so that what lies in
# the shorter box is not measured to lie beyond the radius.
SCALED_SHARE = 2.0**-49


@dataclass(frozen=True, eq=False)
class BallRegion:
    """The closed balls of a norm around a batch of centres, cut to the domain.

    centre: `(batch, *shape)`, float64, finite, inside the domain, in the units of the network's raw input.
    radius: `(batch,)`, float64, finite, >= 0, in the same units.
    domain: what the balls are cut to: a box of one coordinate or many, exactly as it is given.
    norm: "inf", "2" or "1", of the difference to the centre over all coordinates.
    scale: `(*shape)`, float64, finite, > 0: the inf-norm is then that of (x_i - c_i) / scale_i, in whose units radii
    and distances are; None: 1 for all. Other norms have none.

    Membership is conservative: a point accepted truly lies in ball and domain. In the inf-norm it is decided on
    the stored bounds `lower` and `upper`, which are rounded *inward*: every float point in them truly lies in the
    ball. In the other norms they bound the box around the ball, and the distance, rounded up, is compared with the
    radius; so it is where there is a scale. Proofs use `enclosure`, rounded *outward*, which holds the whole ball.

    Raises ValueError on another dtype, a radius that is negative or not finite, a scale that is not positive, or a
    centre outside the domain.
    """

    centre: Tensor
    radius: Tensor
    domain: Domain = None
    norm: Norm = "inf"
    scale: Tensor | None = None
    lower: Tensor = field(init=False)
    upper: Tensor = field(init=False)

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise ValueError(f"unknown norm {self.norm!r}; supported: {', '.join(NORMS)}")
        if self.centre.dtype != torch.float64 or self.radius.dtype != torch.float64:
            raise ValueError("a region is stored in float64")
        if self.radius.shape != self.centre.shape[:1]:
            raise ValueError(f"{tuple(self.radius.shape)} radii for {self.centre.shape[0]} centres")
        if not bool((self.radius >= 0).all()) or not bool(self.radius.isfinite().all()):
            raise ValueError("a radius must be a finite number that is not negative")
        if not bool(self.centre.isfinite().all()):
            raise ValueError("a centre holds NaN or infinity")
        if isinstance(self.domain, Box):
            shape, one = tuple(self.domain.lower.shape), tuple(self.centre.shape[1:])
            if shape not in ((1, *one), tuple(self.centre.shape)):
                raise ValueError(
                    f"a domain of shape {shape}, where one box of {one} is expected, or one for each input"
                )
        self._check_scale()
        least, greatest = domain_ends(self.domain, self.centre)
        if bool((self.centre < least).any()) or bool((self.centre > greatest).any()):
            raise ValueError(f"a centre lies outside the domain {domain_words(self.domain)}")
        widths = self._widths(outward=False)
        lower, upper = add_up(self.centre, -widths), add_down(self.centre, widths)
        object.__setattr__(self, "lower", lower.clamp(min=least))
        object.__setattr__(self, "upper", upper.clamp(max=greatest))

    @classmethod
    def of_box(cls, box: Box) -> BallRegion:
        """Return boxes (float64, finite) exactly: the balls around their middles that hold them, cut to them."""
        return cls.around(torch.minimum(torch.maximum(box.lower / 2 + box.upper / 2, box.lower), box.upper), box)

    @classmethod
    def around(cls, centre: Tensor, box: Box) -> BallRegion:
        """Return the same boxes as the smallest balls around centres of them, `(batch, *shape)`."""
        away = torch.maximum(add_up(box.upper, -centre), add_up(centre, -box.lower))
        region = cls(centre, away.flatten(1).amax(dim=1), box)
        if not torch.equal(region.lower, box.lower) or not torch.equal(region.upper, box.upper):
            raise ValueError("a box whose sides float64 cannot measure")
        return region

    @property
    def unscaled(self) -> BallRegion:
        """The smallest balls without a scale that hold these, cut to the boxes around these; these if they have none.

        The same questions for whatever reads a radius as a length, with radii of their own.
        """
        return self if self.scale is None else BallRegion.around(self.centre, self.enclosure())

    @property
    def inside(self) -> BallRegion:
        """As `unscaled`, around boxes that are rounded inward: for whoever searches for points of the balls."""
        return self if self.scale is None else BallRegion.around(self.centre, Box(self.lower, self.upper))

    def _check_scale(self) -> None:
        if self.scale is None:
            return
        if self.norm != "inf":
            raise ValueError(f"a scale is supported in the inf-norm, not in the {self.norm}-norm")
        if self.scale.dtype != torch.float64 or self.scale.shape != self.centre.shape[1:]:
            raise ValueError(f"a scale is stored in float64, in the shape of an input, {tuple(self.centre.shape[1:])}")
        if not bool(((self.scale > 0) & self.scale.isfinite()).all()):
            raise ValueError("a scale must hold finite numbers above 0; what cannot move is fixed by the domain")
        if not bool(self._widths(outward=True).isfinite().all()):
            raise ValueError("a radius times the scale of a coordinate is beyond the largest float64")

    def _widths(self, outward: bool) -> Tensor:
        """Return how far each coordinate may move, rounded outward or inward; without a scale that is exact."""
        radii = self._columns(self.radius).expand_as(self.centre)
        if self.scale is None:
            return radii
        widths = radii * self.scale
        if outward:
            return torch.where(radii == 0, 0.0, next_up(widths))
        return next_down(widths * (1.0 - SCALED_SHARE)).clamp(min=0.0)

    def _columns(self, values: Tensor) -> Tensor:
        return values.reshape(-1, *[1] * (self.centre.dim() - 1))

    def on_processor(self) -> BallRegion:
        """Return the same balls in the memory of the processor."""
        domain = self.domain
        if isinstance(domain, Box):
            domain = Box.unchecked(domain.lower.cpu(), domain.upper.cpu())
        scale = None if self.scale is None else self.scale.cpu()
        return BallRegion(self.centre.cpu(), self.radius.cpu(), domain, self.norm, scale)

    def enclosure(self) -> Box:
        """Return boxes that contain the balls in real arithmetic."""
        least, greatest = domain_ends(self.domain, self.centre)
        widths = self._widths(outward=True)
        lower, upper = add_down(self.centre, -widths), add_up(self.centre, widths)
        return Box(lower.clamp(min=least), upper.clamp(max=greatest))

    def contains(self, points: Tensor) -> Tensor:
        """Return a mask `(batch,)`: which points lie in their ball and the domain, without tolerance."""
        exact = points.to(torch.float64)
        inside = ((self.lower <= exact) & (exact <= self.upper)).flatten(1).all(dim=1)
        if self.norm == "inf" and self.scale is None:
            return inside
        return inside & (self.distance(points) <= self.radius)

    def clip(self, points: Tensor, dtype: torch.dtype) -> Tensor:
        """Return points of the balls that `dtype` can hold: those given, the others moved inside.

        In the inf-norm these are the nearest, rounded inward. In the other norms a point outside is clipped to the
        domain and then pulled towards the centre; project it first to get the nearest. A ball thinner than the
        spacing of `dtype` falls back to the centre, so centres should be numbers of that dtype.
        """
        if points.dtype == dtype and bool(self.contains(points).all()):
            return points.clone(memory_format=torch.contiguous_format)
        inside = torch.minimum(torch.maximum(points.to(torch.float64), self.lower), self.upper)
        if self.norm != "inf":
            return self._pull_inside(inside, dtype)
        rounded = inside.to(dtype)
        widened = rounded.to(torch.float64)
        down = torch.nextafter(rounded, torch.full_like(rounded, -torch.inf))
        up = torch.nextafter(rounded, torch.full_like(rounded, torch.inf))
        rounded = torch.where(widened > self.upper, down, torch.where(widened < self.lower, up, rounded))
        widened = rounded.to(torch.float64)
        off = (widened > self.upper) | (widened < self.lower)
        return torch.where(off, self.centre.to(dtype), rounded)

    def distance(self, points: Tensor) -> Tensor:
        """Return the distances `(batch,)` from the centres in the norm, rounded up."""
        exact = points.to(torch.float64)
        away = torch.maximum(add_up(exact, -self.centre), add_up(self.centre, -exact))
        if self.scale is not None:
            # 0 / s is exactly 0, and x / x exactly 1; what overflows is infinitely far.
            away = torch.where((away == 0) | (away == self.scale), away / self.scale, next_up(away / self.scale))
        away = away.flatten(1)
        if self.norm == "inf":
            return away.amax(dim=1)
        return sum_up(away) if self.norm == "1" else euclidean_up(away)

    def with_radius(self, radius: Tensor | float) -> BallRegion:
        """Return the balls of another radius around the same centres."""
        radii = torch.as_tensor(radius, dtype=torch.float64, device=self.centre.device)
        return replace(self, radius=radii.expand(self.centre.shape[0]).clone())

    def __getitem__(self, rows: Tensor | slice) -> BallRegion:
        """Return the regions of the given batch rows."""
        domain = self.domain
        if isinstance(domain, Box) and domain.batch > 1:
            domain = domain[rows]
        return BallRegion(self.centre[rows], self.radius[rows], domain, self.norm, self.scale)

    def _pull_inside(self, points: Tensor, dtype: torch.dtype) -> Tensor:
        distance = self.distance(points)
        share = torch.where(distance > self.radius, self.radius / distance, torch.ones_like(distance))
        result = self._round_inward(points, dtype)
        for pull in PULLS:
            outside = ~self.contains(result)
            if not bool(outside.any()):
                return result
            pulled = self.centre + (points - self.centre) * self._columns(share * (1.0 - pull))
            result = torch.where(self._columns(outside), self._round_inward(pulled, dtype), result)
        return torch.where(self._columns(~self.contains(result)), self.centre.to(dtype), result)

    def _round_inward(self, points: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the points in `dtype`, each coordinate rounded towards the centre."""
        rounded = points.to(dtype)
        widened = rounded.to(torch.float64)
        away = torch.where(points >= self.centre, widened > points, widened < points)
        return torch.where(away, torch.nextafter(rounded, self.centre.to(dtype)), rounded)


def domain_ends(domain: Domain, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return (least, greatest) values of a domain, which broadcast over a batch; infinite where there is no limit.

    In the dtype and on the device of `like`: exact in float64, else rounded to nearest.
    """
    if isinstance(domain, Box):
        return domain.lower.to(like), domain.upper.to(like)
    least, greatest = (-math.inf, math.inf) if domain is None else domain
    return like.new_tensor(least), like.new_tensor(greatest)


def domain_words(domain: Domain) -> str:
    """Return a domain in words, for messages."""
    if isinstance(domain, Box):
        return "(a box with bounds for each coordinate)"
    return "without limit" if domain is None else f"[{domain[0]}, {domain[1]}]"


def sum_up(values: Tensor) -> Tensor:
    """Return upper bounds of the sums `(batch,)` over the second axis of values `(batch, n)`, each step rounded up.

    Summed in pairs, in an order that depends on n alone.
    """
    while values.shape[1] > 1:
        half = values.shape[1] // 2
        paired = add_up(values[:, :half], values[:, half : 2 * half])
        values = torch.cat([paired, values[:, 2 * half :]], dim=1)
    return values.sum(dim=1)


def euclidean_up(values: Tensor) -> Tensor:
    """Return upper bounds of the 2-norms `(batch,)` of non-negative values `(batch, n)`.

    Divided by the greatest value first, so that no square under- or overflows; every step is rounded up.
    """
    greatest = values.amax(dim=1, keepdim=True)
    scaled = values / torch.where(greatest > 0, greatest, 1.0)
    # x / x is exactly 1, and 0 / x exactly 0.
    scaled = torch.where((scaled == 0) & (values == 0) | (values == greatest), scaled, next_up(scaled))
    squares = torch.where((scaled == 0) | (scaled == 1), scaled, next_up(scaled * scaled))
    total = sum_up(squares)
    # A sum of exactly 1 is that of a single value that is not zero (a root of 1 need not be: 1 + 2^-52 has it too).
    least = greatest.squeeze(1)
    length = torch.where(total == 1, least, next_up(least * next_up(total.sqrt())))
    return torch.where(least == 0, 0.0, length.nan_to_num(torch.inf, torch.inf))
