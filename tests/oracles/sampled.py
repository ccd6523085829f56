"""Unsafe points of any network: samples, corners and descents in float64, each hit decided with 60 digits.

One-sided: a point that is found is unsafe, and so refutes a ball that holds it; none found says nothing. Ties closer
than the digits are no hits.
"""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from encoders import Network
from tests.oracles.definitions import DECIMALS, value_at

F64 = torch.float64
SAMPLES, DESCENTS, STEPS = 150, 16, 12
# Relative differences of outputs that 60 digits decide; of those in float64 that are worth the digits.
DECIDED, NEAR = 1e-40, 1e-9


def margin_at(network: Network, point: Tensor, reference: int) -> float:
    """Return y_reference - max of the others, relative to the largest output, with 60 digits."""
    outputs = value_at(DECIMALS, network, point)
    others = [value for k, value in enumerate(outputs) if k != reference]
    return float((outputs[reference] - max(others)) / max(map(abs, outputs))) if any(outputs) else 0.0


def length(step: list[Fraction], norm: str) -> Fraction:
    """Return the norm of a step, its square in the 2-norm."""
    sizes = [abs(value) for value in step]
    return {"inf": max, "1": sum, "2": lambda values: sum(value * value for value in values)}[norm](sizes)


def away(point: Tensor, centre: Tensor, norm: str) -> Fraction:
    """Return the exact distance of two points, its square in the 2-norm."""
    pairs = zip(point.double().flatten().tolist(), centre.double().flatten().tolist(), strict=True)
    return length([Fraction(a) - Fraction(b) for a, b in pairs], norm)


def within(distance: Fraction, radius: float, norm: str) -> bool:
    """Return whether a distance as `away` gives it is at most a radius."""
    if math.isinf(radius):
        return True
    return distance <= (Fraction(radius) ** 2 if norm == "2" else Fraction(radius))


def unsafe_point(
    network: Network, centre: Tensor, reference: int, norm: str, radius: float, domain: tuple[float, float] | None
) -> Tensor | None:
    """Return a point of the ball in the domain that is unsafe, or None. centre: `input_shape`, float64."""
    exact = network.cast(F64)
    reach = min(radius, 1e6 if domain is None else (domain[1] - domain[0]) * centre.numel())
    points = _starts(centre, norm, reach)
    best, at = math.inf, centre
    for step in range(STEPS + 1):
        points = _inside(points, centre, norm, reach, domain).requires_grad_()
        outputs = exact.evaluate(points)
        others = torch.cat([outputs[:, :reference], outputs[:, reference + 1 :]], dim=1)
        margins = ((outputs[:, reference] - others.amax(dim=1)) / outputs.detach().abs().amax(dim=1)).nan_to_num(0.0)
        order = margins.detach().argsort()
        least = margins.detach()[order[0]].item()
        if least < best:
            best, at = least, points[order[0]].detach()
        # Where all passes an arg-max there is no gradient.
        gradient = torch.autograd.grad(margins.sum(), points)[0] if margins.requires_grad else torch.zeros_like(points)
        chosen = order[:DESCENTS]
        points = points.detach()[chosen] - reach * 0.5 / (step + 1) * gradient[chosen].sign()
    if best > NEAR or not within(away(at, centre, norm), radius, norm):
        return None
    return at if margin_at(network, at, reference) < -DECIDED else None


def _starts(centre: Tensor, norm: str, reach: float) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    n = centre.numel()
    steps = [2.0 * torch.rand(SAMPLES, n, generator=generator, dtype=F64) - 1.0]
    if n <= 6:
        steps.append(torch.tensor(list(itertools.product((-1.0, 1.0), repeat=n)), dtype=F64))
    else:
        steps.append(steps[0][:64].sign())
    steps += [torch.eye(n, dtype=F64), -torch.eye(n, dtype=F64)]
    return centre + reach * torch.cat(steps).reshape(-1, *centre.shape)


def _inside(points: Tensor, centre: Tensor, norm: str, reach: float, domain: tuple[float, float] | None) -> Tensor:
    """Return points moved into the ball, a little less than to its border, and into the domain."""
    steps = (points.detach() - centre).flatten(1)
    if norm == "inf":
        steps = steps.clamp(-reach, reach)
    else:
        sizes = torch.linalg.vector_norm(steps, float(norm), dim=1, keepdim=True)
        steps = steps * torch.where(sizes > reach, reach / sizes, torch.ones_like(sizes))
    # Additions round: the border itself could be beyond it.
    moved = centre + (steps * (1.0 - 1e-12)).reshape(points.shape)
    return moved if domain is None else moved.clamp(*domain)


def numbers_of(centre: np.ndarray) -> Tensor:
    """Return a point as float64."""
    return torch.from_numpy(centre).to(F64)
