"""A certificate of splits of signs made as short as it still proves what it says, by the arithmetic that checks it.

Numbers are rounded: of most leaves a slope in thirds and two bits of a multiplier prove as much as what ascent left.
Two leaves whose subproblem as a whole the numbers of one of them prove become one. Leaves that the numbers of one near
them prove name these. What cannot be made shorter stays: every step is kept only where the bounds say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from encoders.network import Network
from verifier.certificates.certificate import SLACK, STEPS, BoxSlopes, Certificate
from verifier.certificates.plane_points import PlanePoints
from verifier.certificates.sign_leaves import SignLeaves
from verifier.certificates.sign_tree import LEAF, SplitTree

# Steps of slopes, which divide STEPS, and bits of multipliers, the first that prove a leaf; a multiplier of eight is a
# float32 without its lower half.
LEVELS = ((3, 2), (15, 4), (255, 8))
# Steps of the slopes of boxes, whose bounds all leaves need.
BOX_STEPS = (1, 3, 15)
# The numbers of one leaf are tried on this many beside it, so many times over.
WINDOW, ROUNDS = 16, 12


def shortened(certificate: Certificate, network: Network) -> Certificate:
    """Return a certificate of the same claim that is no longer; unchanged where it is not by signs.

    Raises CertificateError where the certificate does not hold for the network.
    """
    if certificate.inputs is not None or certificate.distances:
        return certificate
    made, leaves = _short_boxes(certificate, network)
    whole = _Whole.of_trees(made.trees, leaves)
    while (fewer := whole.merged()) is not None:
        whole = fewer
    return replace(made, trees=whole.shared(made.trees))


def _short_boxes(certificate: Certificate, network: Network) -> tuple[Certificate, SignLeaves]:
    """Return the certificate with the fewest steps of its boxes' slopes that all leaves allow, and its leaves.

    Boxes of subtrees and trees of units take too long to prove for several tries: then slopes keep their steps.
    """
    certificate = _without_unused(certificate)
    slopes, multipliers, points = _numbers(certificate.trees)
    for steps in (
        (STEPS,) if certificate.subtrees or certificate.unit_trees or certificate.unit_planes else (*BOX_STEPS, STEPS)
    ):
        boxes = tuple(_short_box(box, certificate.open_units, steps) for box in certificate.boxes)
        tried = replace(certificate, boxes=boxes)
        leaves = tried.sign_leaves(network)
        if steps == STEPS or _above(leaves, slopes, multipliers, points).all():
            break
    return tried, leaves


def _without_unused(certificate: Certificate) -> Certificate:
    """Return the certificate without boxes of subtrees that no leaf takes and no other boxes narrow."""
    used = np.zeros(1 + len(certificate.subtrees), dtype=bool)
    for tree in certificate.trees:
        if tree.boxes is not None:
            used[tree.boxes] = True
    used[0] = True
    for number in range(len(certificate.subtrees), 0, -1):
        if used[number]:
            used[certificate.subtrees[number - 1].before] = True
    place = used.cumsum() - 1
    kept = [each for each, is_used in zip(certificate.subtrees, used[1:].tolist(), strict=True) if is_used]
    return replace(
        certificate, subtrees=tuple(replace(each, before=int(place[each.before])) for each in kept),
        trees=tuple(
            replace(tree, boxes=None if tree.boxes is None or not kept else place[tree.boxes].astype(np.int32))
            for tree in certificate.trees
        ),
    )  # fmt: skip


def _short_box(box: BoxSlopes, open_units: np.ndarray, steps: int) -> BoxSlopes:
    """Return slopes in so many steps, and zeros where a unit's sign is known, whose slope does not count."""
    slopes = np.zeros_like(box.slopes)
    before = open_units[open_units < slopes.shape[1]]
    slopes[:, before] = np.round(box.slopes[:, before] * (steps / STEPS)) * (STEPS // steps)
    return BoxSlopes(box.name, box.places, slopes)


def _numbers(trees: Sequence[SplitTree]) -> tuple[np.ndarray, np.ndarray, PlanePoints | None]:
    """Return (slopes, multipliers, points) of every leaf of trees, one after the other."""
    slopes, multipliers = (
        np.concatenate([getattr(tree, name)[tree.sets] for tree in trees]) for name in ("slopes", "multipliers")
    )
    points = [tree.points[tree.sets] for tree in trees if tree.points is not None]
    return slopes, multipliers, PlanePoints.joined(points) if points else None


def _above(
    leaves: SignLeaves,
    slopes: np.ndarray,
    multipliers: np.ndarray,
    points: PlanePoints | None,
    sets: np.ndarray | None = None,
) -> np.ndarray:
    """Return which leaves numbers prove, also where arithmetic rounds otherwise."""
    is_above: np.ndarray = leaves.bounds(slopes, multipliers, sets, points) > SLACK * leaves.reach[leaves.of]
    return is_above


@dataclass(frozen=True, eq=False)
class _Whole:
    """All trees one after the other. splits, tree: `(nodes,)`, the latter which tree each node is of."""

    splits: np.ndarray
    tree: np.ndarray
    leaves: SignLeaves
    slopes: np.ndarray
    multipliers: np.ndarray
    points: PlanePoints | None

    @classmethod
    def of_trees(cls, trees: Sequence[SplitTree], leaves: SignLeaves) -> _Whole:
        """Return trees whose leaves have numbers of their own."""
        splits = np.concatenate([tree.splits for tree in trees])
        number = np.repeat(np.arange(len(trees)), [len(tree.splits) for tree in trees])
        return cls(splits, number, leaves, *_numbers(trees))

    def merged(self) -> _Whole | None:
        """Return the trees less splits whose whole subproblem the numbers of a half prove; None where there is none."""
        leaf = self.splits == LEAF
        pairs = np.flatnonzero(~leaf[:-2] & leaf[1:-1] & leaf[2:])
        first = leaf.cumsum()[pairs]
        which = np.full(len(pairs), -1)
        for half in (1, 0):
            # Boxes that hold in the half alone prove nothing of the whole: bounds with them are infinite below there.
            parents = self.leaves[first + half]
            parents.signs[np.arange(len(pairs)), self.splits[pairs]] = 0
            points = None if self.points is None else self.points[first + half]
            which[_above(parents, self.slopes[first + half], self.multipliers[first + half], points)] = half
        done = which >= 0
        if not done.any():
            return None
        pairs, first, which = pairs[done], first[done], which[done]
        splits, signs = self.splits.copy(), self.leaves.signs.copy()
        splits[pairs] = LEAF
        signs[first], signs[first + 1] = parents.signs[done], parents.signs[done]
        nodes = np.delete(np.arange(len(splits)), np.concatenate([pairs + 1, pairs + 2]))
        # The leaf whose numbers are not taken goes.
        kept = np.delete(np.arange(len(signs)), first + 1 - which)
        leaves = replace(self.leaves, signs=signs)[kept]
        points = None if self.points is None else self.points[kept]
        return _Whole(splits[nodes], self.tree[nodes], leaves, self.slopes[kept], self.multipliers[kept], points)

    def shared(self, like: Sequence[SplitTree]) -> tuple[SplitTree, ...]:
        """Return the trees with short numbers, which leaves share."""
        slopes, multipliers = _rounded(self.leaves, self.slopes, self.multipliers, self.points)
        owners, trees = _shared(self.leaves, slopes, multipliers, self.points), []
        for number, tree in enumerate(like):
            kept, sets = np.unique(owners[self.leaves.of == number], return_inverse=True)
            splits = self.splits[self.tree == number]
            boxes = None if self.leaves.boxes is None else self.leaves.boxes[self.leaves.of == number]
            points, own = None if self.points is None else self.points[kept], sets.astype(np.int32)
            trees.append(SplitTree(tree.rival, splits, slopes[kept], multipliers[kept], own, boxes, points))
        return tuple(trees)


def _rounded(
    leaves: SignLeaves, slopes: np.ndarray, multipliers: np.ndarray, points: PlanePoints | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers `(leaves, open units)` as short as they prove each leaf, of which what does not count is zero."""
    signs = leaves.signs[:, leaves.open_units]
    slopes = np.where(signs != 0, 0.0, np.nan_to_num(slopes).clip(0.0, 1.0))
    kept_slopes, kept = slopes.copy(), multipliers.astype(np.float64)
    left = np.arange(len(leaves))
    for steps, bits in LEVELS:
        tried = np.round(slopes[left] * steps) / steps, short_multipliers(multipliers[left], bits)
        done = _above(leaves[left], *tried, None if points is None else points[left])
        kept_slopes[left[done]], kept[left[done]] = (values[done] for values in tried)
        left = left[~done]
    return kept_slopes, kept


def short_multipliers(values: np.ndarray, bits: int) -> np.ndarray:
    """Return numbers of so many bits near others, as float64; infinite or zero beyond what float32 holds."""
    fraction, exponent = np.frexp(np.nan_to_num(values.astype(np.float64)))
    with np.errstate(over="ignore", under="ignore"):
        exact = np.ldexp(np.round(np.ldexp(fraction, bits)), exponent - bits)
        narrow: np.ndarray = exact.astype(np.float32).astype(np.float64)
    # Subnormal numbers of float32 lose bits, and would not be what is read again.
    return np.where(np.abs(narrow) < 2.0**-126, 0.0, narrow)


def _shared(leaves: SignLeaves, slopes: np.ndarray, multipliers: np.ndarray, points: PlanePoints | None) -> np.ndarray:
    """Return for each leaf `(leaves,)` whose numbers it takes: those of one near it, where they prove it."""
    owners = np.arange(len(leaves))
    left = owners.copy()
    for _ in range(ROUNDS):
        if len(left) < 2:
            break
        middles = np.minimum(np.arange(len(left)) // WINDOW * WINDOW + WINDOW // 2, len(left) - 1)
        tried = left[middles]
        # A set is of one tree.
        tried = np.where(leaves.of[tried] == leaves.of[left], tried, left)
        done = (tried == left) | _above(leaves[left], slopes, multipliers, points, tried)
        owners[left[done]] = tried[done]
        left = left[~done]
    return owners
