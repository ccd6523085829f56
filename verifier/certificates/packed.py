"""The numbers of leaves as arrays of a file: in one and two bytes where these hold them exactly, in eight elsewhere.

A short slope is a multiple of 1/255, a short multiplier a float32 whose lower half is zero. Columns come first and the
bytes of multipliers apart, so that what neighbouring leaves have in common stands together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

STEPS = 255
INTEGERS = (np.uint8, np.int8, np.uint16, np.int16, np.int32)


def pack(slopes: np.ndarray, multipliers: np.ndarray) -> dict[str, np.ndarray]:
    """Return sets of numbers `(sets, units)` as arrays by name; `unpack` gives the same numbers."""
    slopes, multipliers = slopes.astype(np.float64), multipliers.astype(np.float64)
    steps, halves = _short(slopes, multipliers)
    is_long = ~((steps / STEPS == slopes) & (_wide(halves) == multipliers)).all(axis=1)
    short = ~is_long
    planes = np.stack([halves[short].T >> 8, halves[short].T & 0xFF]).astype(np.uint8)
    arrays = {"slopes": np.ascontiguousarray(steps[short].T), "multipliers": planes}
    if is_long.any():
        arrays |= {"long": is_long, "long.slopes": slopes[is_long], "long.multipliers": multipliers[is_long]}
    return arrays


def unpack(arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return (slopes, multipliers) `(sets, units)` float64; ValueError if the arrays do not go together."""
    steps, planes = arrays["slopes"], arrays["multipliers"]
    if any(values.dtype != np.uint8 for values in (steps, planes)):
        raise ValueError("short numbers must be bytes")
    if steps.ndim != 2 or planes.shape != (2, *steps.shape):
        raise ValueError(f"slopes of shape {steps.shape} do not go with multipliers of shape {planes.shape}")
    slopes, multipliers = (steps / STEPS).T, _wide(planes[0].astype(np.uint16) << 8 | planes[1]).T
    if not np.isfinite(multipliers).all():
        raise ValueError("a multiplier is no finite number")
    if "long" not in arrays:
        return slopes, multipliers
    is_long = arrays["long"].astype(bool)
    return _joined(is_long, slopes, arrays["long.slopes"]), _joined(is_long, multipliers, arrays["long.multipliers"])


def _joined(is_long: np.ndarray, short: np.ndarray, long: np.ndarray) -> np.ndarray:
    values = np.zeros((len(is_long), short.shape[1]))
    values[~is_long], values[is_long] = short, long
    return values


def narrow(
    values: np.ndarray, kinds: Sequence[type] = (np.uint8, np.int8, np.uint16, np.int16, np.int32)
) -> np.ndarray:
    """Return numbers in the first of some kinds that holds them all, or as they are."""
    for kind in kinds:
        with np.errstate(over="ignore", invalid="ignore"):
            made: np.ndarray = values.astype(kind)
        if np.array_equal(made, values):
            return made
    return values


def _short(slopes: np.ndarray, multipliers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        steps = np.round(np.nan_to_num(slopes) * STEPS).clip(0, STEPS).astype(np.uint8)
        halves = (multipliers.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return steps, halves


def _wide(halves: np.ndarray) -> np.ndarray:
    """Return what the upper halves of float32 are, with lower halves of zero."""
    wide: np.ndarray = (halves.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return wide


class Reader:
    """An array whose rows are taken one part after the other."""

    def __init__(self, values: np.ndarray) -> None:
        self._left = values

    def take(self, count: int) -> np.ndarray:
        """Return the next rows; ValueError where so many are not left."""
        if not 0 <= count <= len(self._left):
            raise ValueError(f"{count} numbers are named where {len(self._left)} are left")
        taken, self._left = self._left[:count], self._left[count:]
        return taken

    @property
    def done(self) -> bool:
        """Whether nothing is left."""
        return not len(self._left)
