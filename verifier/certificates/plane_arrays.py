"""The planes of a certificate as arrays of its file, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from verifier.certificates.packed import narrow
from verifier.certificates.plane_points import PlanePoints
from verifier.certificates.planes import UnitPlanes
from verifier.certificates.sign_tree import SplitTree

# Fields of the planes of one node's units beside their points, and those of the points.
UNIT_FIELDS = ("places", "ends", "columns", "slopes")
POINT_FIELDS = ("units", "points", "thresholds")


def plane_arrays(unit_planes: Sequence[UnitPlanes], planes: PlanePoints | None) -> dict[str, np.ndarray]:
    """Return the planes of ends of boxes, numbered as their nodes are named, and those of leaves."""
    arrays = {} if planes is None else _point_arrays("planes.", planes)
    for number, each in enumerate(unit_planes):
        prefix = f"unit_planes.{number}."
        arrays |= {prefix + name: narrow(getattr(each, name)) for name in UNIT_FIELDS}
        arrays |= _point_arrays(prefix, each.planes)
    return arrays


def read_planes(
    names: Sequence[str], arrays: Mapping[str, np.ndarray]
) -> tuple[tuple[UnitPlanes, ...], PlanePoints | None]:
    """Return (planes of ends of the boxes of named nodes, planes of leaves or None); KeyError where arrays lack."""
    made = []
    for number, name in enumerate(names):
        prefix = f"unit_planes.{number}."
        own = {key: arrays[prefix + key] for key in UNIT_FIELDS}
        made.append(UnitPlanes(name=name, planes=_points(prefix, arrays), **own))
    return tuple(made), _points("planes.", arrays) if "planes.units" in arrays else None


def set_point_arrays(trees: Sequence[SplitTree]) -> dict[str, np.ndarray]:
    """Return the points of all trees' sets, one tree after the other; none where sets have none of their own."""
    points = [tree.points for tree in trees if tree.points is not None]
    return _point_arrays("sets.", PlanePoints.joined(points)) if points else {}


def read_set_points(arrays: Mapping[str, np.ndarray]) -> PlanePoints | None:
    """Return the points of all sets, or None; KeyError where arrays lack, ValueError where they do not go together."""
    if "sets.units" not in arrays:
        return None
    points = _points("sets.", arrays)
    if points.points.ndim != 2 or points.thresholds.ndim != 2 or len(points.points) != len(points.thresholds):
        raise ValueError(f"points {points.points.shape} and thresholds {points.thresholds.shape} do not go together")
    return points


def _point_arrays(prefix: str, points: PlanePoints) -> dict[str, np.ndarray]:
    return {prefix + name: narrow(getattr(points, name)) for name in POINT_FIELDS}


def _points(prefix: str, arrays: Mapping[str, np.ndarray]) -> PlanePoints:
    return PlanePoints(*(arrays[prefix + name] for name in POINT_FIELDS))
