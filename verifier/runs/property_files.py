"""A property as the plain arrays that a run keeps of it, and the digest of its exact numbers.

The digest covers all that a proof or a witness depends on: the box, the bounds of a witness in it, coefficients,
offsets, which rows are strict, the offsets as they were written, the ball that cuts the box, and the copies of networks
that it is about. Names, files and shapes are no part of it.
"""

from __future__ import annotations

import hashlib
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from encoders.files import replacing
from encoders.joint import Joint
from encoders.norm_ball import NormBall
from encoders.property import Halfspaces, Property
from verifier.npz import ArrayFileError, read_npz_file

# The folder of a run that holds properties that came from no file.
FOLDER = "properties"
ENDS = ("inner.lower", "inner.upper")


def digest_of(asked: Property) -> str:
    """Return the SHA-256 of the exact numbers of a property."""
    found = hashlib.sha256()
    for name, array in sorted(_arrays(asked).items()):
        found.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def write_property(asked: Property, run: Path) -> None:
    """Write a property into the folder of a run, under its digest, unless it is there."""
    path = _path(run, digest_of(asked))
    if path.exists():
        return
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **_arrays(asked))


def read_stored(run: Path, digest: str) -> Property:
    """Return the property of a digest that a run keeps; ValueError if there is none, or it is another."""
    if not digest.isalnum():
        raise ValueError("its digest is none")
    try:
        arrays = read_npz_file(_path(run, digest))
        asked = _property(arrays)
    except (ArrayFileError, KeyError, TypeError, IndexError, ZeroDivisionError, RecursionError) as error:
        raise ValueError(f"the run does not keep the property {digest[:12]}: {error}") from None
    if digest_of(asked) != digest:
        raise ValueError(f"the run keeps another property than {digest[:12]} under its name")
    return asked


def _path(run: Path, digest: str) -> Path:
    return run / FOLDER / f"{digest}.npz"


def _arrays(asked: Property) -> dict[str, np.ndarray]:
    """Return the numbers of a property as arrays, of boxes flat and of polyhedra row below row."""
    arrays = {"lower": _flat(asked.lower), "upper": _flat(asked.upper)}
    if asked.inner is not None:
        arrays |= dict(zip(ENDS, map(_flat, asked.inner), strict=True))
    sizes = [len(halfspaces.offsets) for halfspaces in asked.unsafe]
    written = [
        None if halfspaces.written is None else [str(Fraction(offset)) for offset in halfspaces.written]
        for halfspaces in asked.unsafe
    ]
    arrays |= {
        "sizes": np.array(sizes, dtype="<i8"), "written": np.frombuffer(json.dumps(written).encode(), dtype=np.uint8)
    }  # fmt: skip
    if asked.ball is not None:
        ends = json.dumps([asked.ball.radius, asked.ball.norm]).encode()
        arrays |= {"ball.centre": _flat(asked.ball.centre), "ball": np.frombuffer(ends, dtype=np.uint8)}
    if asked.joint is not None:
        arrays["joint"] = np.frombuffer(json.dumps(asked.joint.to_json()).encode(), dtype=np.uint8)
    if asked.unsafe:
        strict = [mark for h, size in zip(asked.unsafe, sizes, strict=True) for mark in h.strict or (False,) * size]
        arrays |= {
            "coefficients": np.concatenate([_float64(halfspaces.coefficients) for halfspaces in asked.unsafe]),
            "offsets": np.concatenate([_float64(halfspaces.offsets) for halfspaces in asked.unsafe]),
            "strict": np.array(strict, dtype=np.uint8),
        }
    return arrays


def _property(arrays: dict[str, np.ndarray]) -> Property:
    """Return the property of arrays that anyone may have written; many errors say that they hold none."""
    sizes, written = arrays["sizes"].tolist(), json.loads(arrays["written"].tobytes())
    unsafe, start = [], 0
    for size, exact in zip(sizes, written, strict=True):
        rows = slice(start, start := start + size)
        unsafe.append(
            Halfspaces(
                torch.from_numpy(arrays["coefficients"][rows]), torch.from_numpy(arrays["offsets"][rows]),
                tuple(bool(mark) for mark in arrays["strict"][rows].tolist()),
                None if exact is None else tuple(Fraction(offset) for offset in exact),
            )
        )  # fmt: skip
    ends = {name: torch.from_numpy(arrays[name]) for name in ("lower", "upper", *ENDS) if name in arrays}
    inner = (ends[ENDS[0]], ends[ENDS[1]]) if ENDS[0] in ends else None
    joint = Joint.from_json(json.loads(arrays["joint"].tobytes())) if "joint" in arrays else None
    ball = None
    if "ball" in arrays:
        radius, norm = json.loads(arrays["ball"].tobytes())
        ball = NormBall(torch.from_numpy(arrays["ball.centre"]), float(radius), norm)
    return Property(ends["lower"], ends["upper"], tuple(unsafe), inner=inner, joint=joint, ball=ball)


def _flat(values: Tensor) -> np.ndarray:
    return _float64(values.flatten())


def _float64(values: Tensor) -> np.ndarray:
    found: np.ndarray = values.detach().cpu().contiguous().numpy().astype("<f8")
    return found
