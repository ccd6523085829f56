"""Inputs as images, and images as text that stands in a page."""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Pixels of a side; of larger images every second, third, ... pixel is shown.
LARGEST_SIDE = 64


@dataclass(frozen=True)
class Pictures:
    """An input, its counterexample and their difference as addresses of images; without the input's data only one.

    note: what the pictures show otherwise than it is, empty where they show all.
    """

    original: str | None
    adversarial: str
    difference: str | None
    note: str = ""


def as_picture(x: np.ndarray) -> np.ndarray | None:
    """Return an input as an image `(height, width)` or `(height, width, 3)`; None if it has no such shape.

    Images are `(height, width)`, or 1 or 3 channels first. Vectors whose length is a square n^2 are shown as n x n
    in C order, those of length 3 n^2 as three channels.
    """
    values = np.asarray(x, dtype=np.float64)
    if values.ndim == 1:
        for channels in (1, 3):
            side = math.isqrt(len(values) // channels)
            if side > 1 and channels * side * side == len(values):
                values = values.reshape(channels, side, side)
                break
    if values.ndim == 3 and values.shape[0] in (1, 3):
        values = values[0] if values.shape[0] == 1 else values.transpose(1, 2, 0)
    elif values.ndim != 2:
        return None
    return values


def scale_of_difference(differences: Sequence[np.ndarray], width: float) -> float:
    """Return the largest of 1, 2, 5, 10, ... that keeps every scaled difference within half the width of the range."""
    largest = max((float(np.abs(difference).max()) for difference in differences), default=0.0)
    if largest == 0 or 0.5 * width / largest < 1:
        return 1.0
    wanted = 0.5 * width / largest
    power = 10.0 ** math.floor(math.log10(wanted))
    return max(step * power for step in (1.0, 2.0, 5.0) if step * power <= wanted * (1 + 1e-12))


def pictures(original: np.ndarray | None, point: np.ndarray) -> Pictures | None:
    """Return the pictures of a counterexample; None where it has not the shape of an image, or has no finite values."""
    if as_picture(point) is None or not np.isfinite(point).all():
        return None
    known = [np.asarray(x, dtype=np.float64) for x in (original, point) if x is not None and x.shape == point.shape]
    low, high = min(float(x.min()) for x in known), max(float(x.max()) for x in known)
    low, high = (0.0, 1.0) if low >= 0 and high <= 1 else (low, max(high, low + 1e-12))
    if len(known) == 1:
        return Pictures(None, _address(known[0], low, high), None, _note(known[0]))
    difference = known[1] - known[0]
    factor = scale_of_difference([difference], high - low)
    note = f"difference x {factor:g}" + (f", {shown}" if (shown := _note(point)) else "")
    middle = (low + high) / 2
    scaled = middle + factor * difference
    return Pictures(_address(known[0], low, high), _address(known[1], low, high), _address(scaled, low, high), note)


def png(pixels: np.ndarray) -> bytes:
    """Return an image of bytes, `(height, width)` or `(height, width, 3)`, as a PNG file (ISO/IEC 15948)."""
    height, width = pixels.shape[:2]
    colour = 0 if pixels.ndim == 2 else 2
    lines = b"".join(b"\0" + np.ascontiguousarray(line).tobytes() for line in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def _address(x: np.ndarray, low: float, high: float) -> str:
    picture = as_picture(x)
    assert picture is not None
    step = _step(picture)
    scaled = np.clip((picture[::step, ::step] - low) / (high - low), 0, 1)
    content = png(np.round(255 * scaled).astype(np.uint8))
    return f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"


def _step(picture: np.ndarray) -> int:
    return max(1, -(-int(max(picture.shape[:2])) // LARGEST_SIDE))


def _note(x: np.ndarray) -> str:
    picture = as_picture(x)
    assert picture is not None
    step = _step(picture)
    return "" if step == 1 else f"one pixel of {step} in each direction"
