"""Points and thresholds that name planes above the first hinge, as a certificate keeps them (`planes`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from verifier.certificates.error import CertificateError


@dataclass(frozen=True, eq=False)
class PlanePoints:
    """What names planes, for each of k rows that are bounded with them.

    units: `(p,)`, places among the values of the first hinge; points: `(k, inputs)` in steps of 1/255 of the box's
    sides; thresholds: `(k, p)` in steps of 1/8192.
    """

    units: np.ndarray
    points: np.ndarray
    thresholds: np.ndarray

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, rows: np.ndarray | slice) -> PlanePoints:
        """Return what names the planes of some rows."""
        return PlanePoints(self.units, self.points[rows], self.thresholds[rows])

    @classmethod
    def joined(cls, parts: Sequence[PlanePoints]) -> PlanePoints:
        """Return the rows of parts, one part after the other; CertificateError where their units differ."""
        units = parts[0].units
        if not all(np.array_equal(units, part.units) for part in parts):
            raise CertificateError("planes of leaves: those of different trees are of different units")
        points, thresholds = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("points", "thresholds")
        )
        return cls(units, points, thresholds)

    def check(self, inputs: int, values: int, rows: int, what: str) -> None:
        """Raise CertificateError unless numbers are of the kinds and shapes that the arithmetic takes.

        inputs: of the network; values: of its first hinge, 0 where there is none; what: they are of.
        """
        if not values:
            raise CertificateError(f"planes of {what}: there is no hinge that they could lie above")
        if self.units.ndim != 1 or self.units.dtype.kind not in "iu":
            raise CertificateError(f"planes of {what}: units must be a vector of integers")
        if len(np.unique(self.units)) != len(self.units) or not (
            0 <= int(self.units.min(initial=0)) <= int(self.units.max(initial=0)) < values
        ):
            raise CertificateError(f"planes of {what}: a unit is named twice, or does not exist")
        shapes = ((rows, inputs), (rows, len(self.units)))
        for numbers, shape in zip((self.points, self.thresholds), shapes, strict=True):
            if numbers.dtype.kind not in "iu" or numbers.shape != shape:
                raise CertificateError(f"planes of {what}: numbers of type {numbers.dtype}, shape {numbers.shape}")
