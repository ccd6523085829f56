"""Trees in preorder: where the second part of a split stands, and the signs of leaves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from verifier_check.refusals import Refused

LEAF = -1


def second_halves(tree: list[int]) -> list[int]:
    """Return for each node in preorder where the part above its split stands; Refused if it is no tree."""
    second, done = [0] * len(tree), list[int]()
    for place in range(len(tree) - 1, -1, -1):
        if tree[place] != LEAF:
            if len(done) < 2:
                raise Refused("the tree ends before its parts do")
            done.pop()
            second[place] = done.pop()
        done.append(place)
    if len(done) != 1:
        raise Refused("there are splits after the end of the tree, or it is empty")
    return second


def leaf_signs(splits: Sequence[int], units: int) -> Iterator[dict[int, int]]:
    """Yield the signs of the leaves of a tree in preorder; Refused where the splits are none."""
    # How many signs the path to a part has before its own, and its own: paths of deep trees are not kept side by side.
    waiting: list[tuple[int, tuple[int, int] | None]] = [(0, None)]
    signs: dict[int, int] = {}
    for split in splits:
        if not waiting:
            raise Refused("there are splits after the end of the tree")
        depth, own = waiting.pop()
        while len(signs) > depth:
            signs.popitem()
        if own is not None:
            signs[own[0]] = own[1]
        if split == LEAF:
            yield dict(signs)
        elif not 0 <= split < units or split in signs:
            raise Refused(f"unit {split} is split twice, or does not exist")
        else:
            waiting += [(len(signs), (split, -1)), (len(signs), (split, 1))]
    if waiting:
        raise Refused("the tree ends before its parts do")
