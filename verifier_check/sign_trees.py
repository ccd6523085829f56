"""Trees of signs: in each leaf the numbers that it names prove that the winner is above the rival."""

from __future__ import annotations

from verifier_check.bounds import Program
from verifier_check.file import Certificate, check_places, whole_numbers
from verifier_check.network import Network
from verifier_check.planes import PlanePoints
from verifier_check.properties import class_count
from verifier_check.refusals import Refused
from verifier_check.rewrites import without_max_pools
from verifier_check.sign_leaves import LeafNumbers, leaf_bound
from verifier_check.time_limit import UNLIMITED, TimeLimit
from verifier_check.trees import leaf_signs
from verifier_check.unit_boxes import prove_boxes, subtree_boxes

# Ops of trees of inputs alone.
OTHERS = ("sigmoid", "tanh", "mwd", "mwd-conv2d")


def check_signs(
    certificate: Certificate, network: Network, bits: int, opens: bool = False, limit: TimeLimit = UNLIMITED
) -> int:
    """Return how many leaves a tree of signs has, all of which hold; Refused says which does not.

    opens: as of `Program`.
    """
    classes = class_count(network, certificate.winner)
    other = next((node for node in network.nodes if node.kind in OTHERS), None)
    if other is not None:
        raise Refused(f"node {other.name!r} ({other.kind}): trees of signs are of affine ops, hinges and max pools")
    arrays, header = certificate.arrays, certificate.header
    for name, entry in arrays.items():
        entry.taken = 0
        if name in ("splits", "sets", "subtrees.signs", "subtrees.units", "subtrees.leaves", "boxes.places"):
            whole_numbers(entry, name)
    trees = [(rival, leaves, sets) for rival, leaves, sets in header["trees"]]
    rivals = [rival for rival, _, _ in trees]
    if any(type(rival) is not int for rival in rivals) or sorted(rivals) != [
        k for k in range(classes) if k != certificate.winner
    ]:
        raise Refused(f"it holds trees against {rivals!r:.60}, not against each class but {certificate.winner}")
    plain = without_max_pools(network)
    program = Program(plain, *certificate.ball(network.input_shape, bits), bits, opens, limit)
    prove_boxes(program, certificate)
    units = whole_numbers(arrays["open_units"], "open units")
    check_places(units, program.units, "open units")
    sets = LeafNumbers(arrays, len(units), bits)
    above = PlanePoints(program, arrays, "planes.", len(trees)) if "planes.units" in arrays else None
    own = PlanePoints(program, arrays, "sets.", sets.count) if "sets.units" in arrays else None
    if above is not None and own is not None:
        raise Refused("planes are of classes or of sets of numbers, not of both")
    boxes = subtree_boxes(program, certificate, units)
    leaf_boxes, all_sets = arrays.get("subtrees.leaves") if len(boxes) > 1 else None, arrays["sets"]
    splits, first = arrays["splits"], 0
    for rival, leaves, own_sets in trees:
        if type(leaves) is not int or leaves < 1:
            raise Refused(f"class {rival}: {leaves!r:.40} leaves")
        signs_of = leaf_signs(splits.take(2 * leaves - 1), program.units)
        planes = None if above is None else above.of(rival - (rival > certificate.winner))
        named, taken = all_sets.take(leaves), [0] * leaves if leaf_boxes is None else leaf_boxes.take(leaves)
        for leaf, (signs, number, box) in enumerate(zip(signs_of, named, taken, strict=True)):
            limit.check()
            if not 0 <= number < own_sets or not 0 <= box < len(boxes):
                raise Refused(f"class {rival}, leaf {leaf}: it names numbers or boxes that are not there")
            row = {certificate.winner: 1 << bits, rival: -1 << bits}
            numbers = sets.of(first + number, units, signs)
            lines = planes if own is None else own.of(first + number)
            bound = leaf_bound(program, row, boxes[box], signs, numbers, planes=lines)
            if bound is not None and not bound > 0:
                raise Refused(f"class {rival}, leaf {leaf}: the margin is at least {bound / (1 << 2 * bits):.3g} only")
        first += own_sets
    if first != sets.count or any(
        entry.taken != len(entry.values) for entry in (splits, all_sets, *([leaf_boxes] if leaf_boxes else []))
    ):
        raise Refused("it holds more numbers than its trees take")
    return sum(leaves for _, leaves, _ in trees)
