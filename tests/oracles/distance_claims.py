"""Points near an input where a chain of distances gives another class, decided by its definition in many digits."""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath
import numpy as np
import torch

from encoders.network import Network
from tests.oracles.op_values import exact_value
from verifier.certificates.certificate import Certificate

DIGITS = 60


def margin_at(network: Network, point: np.ndarray, winner: int) -> mpmath.mpf:
    """Return by how much the class is above the best of the others at a point, in 60 digits."""
    with mpmath.workdps(DIGITS):
        value = np.vectorize(mpmath.mpf, otypes=[object])(point)
        for node in network.nodes:
            value = exact_value(node.op, (value,), mpmath.mpf)
        return value[winner] - max(value[k] for k in range(len(value)) if k != winner)


def nearest_unsafe(
    network: Network, centre: torch.Tensor, winner: int, points: int = 151, norm: float = math.inf
) -> np.ndarray | None:
    """Return the nearest point, in a norm, of a grid over [0, 1]^2 where the class does not win."""
    axis = torch.linspace(0, 1, points, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    scores = network.scores(grid)
    others = scores.clone()
    others[:, winner] = -math.inf
    unsafe = grid[(scores[:, winner] - others.amax(dim=1)) < -1e-9]
    if not len(unsafe):
        return None
    order = torch.linalg.vector_norm(unsafe - centre, norm, dim=1).argsort()
    found: np.ndarray = unsafe[order[0]].numpy()
    assert margin_at(network, found, winner) < 0
    return found


def is_false(claim: Certificate, network: Network, unsafe: dict[int, list[np.ndarray]]) -> bool:
    """Return whether one of some points, by the class that does not win there, lies in the ball of a claim."""
    centre, radius = [Fraction(v) for v in claim.centre.tolist()], Fraction(claim.radius)
    least, greatest = claim.domain or (-math.inf, math.inf)  # type: ignore[misc]

    def holds(point: list[float]) -> bool:
        away = [abs(Fraction(x) - c) for x, c in zip(point, centre, strict=True)]
        if claim.norm == "2":
            return sum(a * a for a in away) <= radius * radius
        return (sum if claim.norm == "1" else max)(away) <= radius

    points = (p.tolist() for p in unsafe.get(claim.winner, []))
    return any(holds(point) for point in points if all(least <= x <= greatest for x in point))
