"""A proof that one class wins on a whole ball, as data that anyone can evaluate again.

First come the slopes that prove the boxes of hinge units, node by node; then, for every rival class, a tree that splits
the ball by the signs of units until each leaf's slopes and multipliers prove that the rival stays below. A tree covers
the ball by its form, both halves of every split being closed, and each leaf is one evaluation of a bound that holds for
any numbers (`verifier.certificates.split_program`). Or the ball is divided by its inputs instead, and what is unsafe
may be a property (`verifier.certificates.input_tree`). This module imports no solver and no bound code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from encoders.box import Box
from encoders.network import Network
from encoders.region import BallRegion, Domain, Norm
from verifier.certificates.ball_minimum import BallMinimum
from verifier.certificates.conjunctions import Conjunctions
from verifier.certificates.distance_tree import DistanceTree, check_distance_trees
from verifier.certificates.error import CertificateError
from verifier.certificates.input_tree import InputTree, check_tree, envelope_refusal
from verifier.certificates.plane_points import PlanePoints
from verifier.certificates.planes import UnitPlanes, check_points, made_planes, tightened_by_planes
from verifier.certificates.sign_leaves import SignLeaves
from verifier.certificates.sign_tree import SplitTree
from verifier.certificates.split_program import SplitProgram, split_refusal
from verifier.certificates.subtree_boxes import SubtreeBoxes, with_subtrees
from verifier.certificates.unit_trees import UnitTrees, tightened_by_trees

# Whoever makes a certificate lets bounds pass this share of the margin's reach, so that they do on machines that round
# otherwise, too.
SLACK = 1e-11
# Slopes of box bounds are stored in this many steps.
STEPS = 255


@dataclass(frozen=True, eq=False)
class BoxSlopes:
    """Slopes for the bounds of some units of a node: places `(k,)`, slopes `(2 k, units so far)` in steps of 1/255.

    They come after the bounds that need no numbers (`SplitProgram.tighten_open_units`), for units these leave open.
    """

    name: str
    places: np.ndarray
    slopes: np.ndarray


@dataclass(frozen=True, eq=False)
class Certificate:
    """What is claimed: class `winner` beats every other on the ball around `centre`, cut to the domain.

    digest: of the network.
    centre: `input_shape`, floating; the input in the model's dtype.
    radius: of the closed ball, in the units of the raw input.
    domain: what the ball is cut to.
    winner: the class that is proved to win, strictly.
    boxes: the slopes that prove the boxes of hinge units, node by node.
    open_units: which units, of those of all hinges side by side, the leaves' columns are of.
    trees: one for each rival class.
    inputs: how the ball is divided by its inputs, for all rivals together; then there are neither boxes nor trees.
    subtrees: boxes proved again under signs, for leaves that name them.
    unit_trees: trees that prove ends of the boxes of hinge units, node by node, after the slopes in `boxes`.
    unit_planes: planes that prove such ends, after the slopes and before the trees.
    planes: of the leaves against each class but the winner, in their order; or sets of numbers of trees have their own.
    distances: one tree for each rival class where the network is a chain of distances; then there is nothing else.
    norm: of the ball; another than the inf-norm only where it is divided by its inputs.

    It claims nothing until `check` has evaluated it: strength CHECKED, rigorous float64 arithmetic.
    """

    digest: str
    centre: np.ndarray
    radius: float
    domain: Domain
    winner: int
    boxes: tuple[BoxSlopes, ...]
    open_units: np.ndarray
    trees: tuple[SplitTree, ...]
    inputs: InputTree | None = None
    subtrees: tuple[SubtreeBoxes, ...] = ()
    unit_trees: tuple[UnitTrees, ...] = ()
    unit_planes: tuple[UnitPlanes, ...] = ()
    planes: PlanePoints | None = None
    distances: tuple[DistanceTree, ...] = ()
    norm: Norm = "inf"

    @property
    def leaves(self) -> int:
        """How many subproblems the ball is split into, over all rivals."""
        if self.inputs is not None:
            return self.inputs.leaves
        return sum(tree.leaves for tree in self.trees) + sum(tree.leaves for tree in self.distances)

    def check(self, network: Network, asked: Conjunctions | None = None) -> None:
        """Evaluate everything again; CertificateError says what does not hold.

        asked: what is unsafe of the network, in float64, where that is not another class: only a ball that is divided
        by its inputs can prove it.
        """
        if network.digest != self.digest:
            raise CertificateError(f"it is about network {self.digest}, not {network.digest}")
        self._check_types()
        if self.inputs is not None:
            self._check_inputs(self.inputs, network, asked)
            return
        if self.norm != "inf":
            raise CertificateError(f"only trees of inputs are about balls of the {self.norm}-norm")
        if self.distances:
            self._check_distances(network, asked)
            return
        other = split_refusal(network)
        if other is not None:
            raise CertificateError(
                f"node {other.name!r} ({other.op.kind}) is neither affine nor a hinge nor a max pool"
            )
        self._check_winner(network)
        classes = network.output_shape[0]
        rivals = sorted(tree.rival for tree in self.trees)
        if rivals != [k for k in range(classes) if k != self.winner]:
            raise CertificateError(f"it holds trees against the classes {rivals}, not against each but {self.winner}")
        self._check_leaves(network)

    def _check_winner(self, network: Network) -> None:
        shape = network.output_shape
        # A single number has no rivals, so that anything would prove that it wins.
        if len(shape) != 1 or shape[0] < 2 or not 0 <= self.winner < shape[0]:
            raise CertificateError(f"class {self.winner} is none of two or more, the output is of shape {shape}")

    def _check_types(self) -> None:
        """Raise CertificateError unless every array is of the kind and dimensions that the arithmetic takes."""
        places = [self.open_units, *(box.places for box in self.boxes)]
        places += [values for tree in self.trees for values in (tree.splits, tree.sets)]
        places += [tree.boxes for tree in self.trees if tree.boxes is not None]
        numbers = [box.slopes for box in self.boxes]
        numbers += [values for tree in self.trees for values in (tree.slopes, tree.multipliers)]
        if self.inputs is not None:
            places.append(self.inputs.sides)
            marks = self.inputs.tightened
            if (
                self.trees
                or self.boxes
                or self.subtrees
                or self.unit_trees
                or self.unit_planes
                or self.planes is not None
                or self.distances
                or self.inputs.values.dtype != np.float64
                or marks.dtype != bool
            ):
                raise CertificateError(
                    "a ball is divided by its inputs, at numbers of float64 and with marks, or by signs, not by both"
                )
        if any(values.ndim != 1 or values.dtype.kind not in "iu" for values in places):
            raise CertificateError("places and splits must be vectors of integers")
        if any(values.ndim != 2 or values.dtype.kind not in "uf" for values in numbers):
            raise CertificateError("slopes and multipliers must be matrices of real numbers")
        numbers += [each for trees in self.unit_trees for each in (trees.slopes, trees.multipliers)]
        numbers += [each for subtree in self.subtrees for each in (subtree.slopes, subtree.multipliers)]
        if any(np.isnan(values).any() for values in numbers if values.dtype.kind == "f"):
            raise CertificateError("slopes and multipliers must be numbers, not NaN")
        if self.centre.dtype.kind != "f" or not np.isfinite(self.centre).all():
            raise CertificateError("its centre does not hold finite numbers")
        if any(len(tree.splits) != 2 * tree.leaves - 1 for tree in self.trees):
            raise CertificateError("a tree of n leaves has n - 1 splits")

    def _ball(self, network: Network) -> Box:
        """Return the box (batch 1) around what the claim is about."""
        if self.centre.shape != network.input_shape:
            raise CertificateError(f"its centre has shape {self.centre.shape}, the input {network.input_shape}")
        centre = torch.from_numpy(self.centre.astype(np.float64)).unsqueeze(0)
        return BallRegion(centre, torch.tensor([self.radius], dtype=torch.float64), self.domain).enclosure()

    def _check_inputs(self, tree: InputTree, network: Network, asked: Conjunctions | None) -> None:
        """Bound every part that the ball is divided into, many side by side."""
        other = envelope_refusal(network)
        if other is not None:
            raise CertificateError(f"node {other.name!r} ({other.op.kind}) has no linear bounds")
        ball = self._ball(network)
        if asked is None:
            self._check_winner(network)
            asked = Conjunctions.of_class(network.cast(torch.float64, torch.device("cpu")), self.winner)
        centre = torch.from_numpy(self.centre.astype(np.float64)).flatten()
        around = None if self.norm == "inf" else BallMinimum(centre, self.radius, self.norm)
        check_tree(tree, asked, ball.lower.flatten(1), ball.upper.flatten(1), around)

    def _check_distances(self, network: Network, asked: Conjunctions | None) -> None:
        """Contract every part that the ball is divided into."""
        if asked is not None:
            raise CertificateError("trees of contraction are about classes, not about a property")
        self._check_winner(network)
        ball = self._ball(network)
        ends = ball.lower.flatten(1), ball.upper.flatten(1)
        check_distance_trees(self.distances, network, self.winner, *ends)

    def program(self, network: Network) -> SplitProgram:
        """Return the rows of the network on the ball, their boxes tightened; CertificateError if it names no units."""
        program = SplitProgram(network, self._ball(network))
        boxes = {box.name: box for box in self.boxes}
        above = {planes.name: planes for planes in self.unit_planes}
        divided = {trees.name: trees for trees in self.unit_trees}
        while (name := program.advance()) is not None:
            program.tighten_open_units(name)
            if name in boxes:
                box = boxes[name]
                count = program.boxes[name].lower.numel()
                _check_places(box.places, count, f"boxes of {name!r}")
                if box.slopes.shape != (2 * len(box.places), program.units):
                    raise CertificateError(f"the slopes of {name!r} have shape {box.slopes.shape}")
                program.tighten(name, box.places, box.slopes / STEPS)
            if name in above:
                tightened_by_planes(program, above[name])
            if name in divided:
                tightened_by_trees(program, divided[name], above.get(name))
        read = {hinge.source for hinge in program.hinges}
        for several in (self.unit_trees, self.unit_planes):
            names = [each.name for each in several]
            if len(set(names)) < len(names) or not read.issuperset(names):
                raise CertificateError(f"of units: one of the nodes {names!r:.80} is named twice, or read by no hinge")
        _check_places(self.open_units, program.units, "open units")
        return with_subtrees(program, self.open_units, self.subtrees)

    def sign_leaves(self, network: Network) -> SignLeaves:
        """Return the leaves of all trees, their boxes and planes proved; CertificateError as of `program`."""
        program, planes = self.program(network), None
        if self.planes is not None:
            ball = program.on_box(0)
            check_points(ball, self.planes, len(self.trees), "leaves")
            planes = made_planes(ball, self.planes)
        return SignLeaves.of_trees(program, self.winner, self.open_units, self.trees, planes, self.set_points(program))

    def set_points(self, program: SplitProgram) -> PlanePoints | None:
        """Return the points of all sets of all trees' numbers, checked; None where sets have none of their own."""
        named = [tree.points for tree in self.trees if tree.points is not None]
        if not named:
            return None
        if len(named) < len(self.trees) or self.planes is not None:
            raise CertificateError("planes of leaves: sets have points of their own in all trees or in none")
        for tree, points in zip(self.trees, named, strict=True):
            check_points(program, points, len(tree.slopes), "leaves")
        return PlanePoints.joined(named)

    def _check_leaves(self, network: Network) -> None:
        """Evaluate the leaves of all trees, many side by side."""
        for tree in self.trees:
            if tree.slopes.shape != tree.multipliers.shape or tree.slopes.shape[1] != len(self.open_units):
                raise CertificateError(
                    f"class {tree.rival}: {len(self.open_units)} open units, but numbers of shape {tree.slopes.shape}"
                )
            if not 0 <= int(tree.sets.min(initial=0)) <= int(tree.sets.max(initial=0)) < len(tree.slopes):
                raise CertificateError(f"class {tree.rival}: a leaf names numbers that are not there")
            if tree.boxes is not None:
                named = 0 <= int(tree.boxes.min(initial=0)) <= int(tree.boxes.max(initial=0)) <= len(self.subtrees)
                if len(tree.boxes) != tree.leaves or not named:
                    raise CertificateError(f"class {tree.rival}: a leaf names boxes that are not there")
        leaves = self.sign_leaves(network)
        before = np.cumsum([0, *(len(tree.slopes) for tree in self.trees)])[leaves.of]
        sets = before + np.concatenate([tree.sets.astype(np.int64) for tree in self.trees])
        slopes, multipliers = (
            np.concatenate([getattr(tree, name) for tree in self.trees]) for name in ("slopes", "multipliers")
        )
        bounds = leaves.bounds(slopes, multipliers, sets, self.set_points(leaves.program))
        worst = int(bounds.argmin())
        if not bounds[worst] > 0:
            number = int(leaves.of[worst])
            leaf = worst - int((leaves.of < number).sum())
            raise CertificateError(
                f"class {self.trees[number].rival}, leaf {leaf}: the margin is proved to be at least "
                f"{bounds[worst]:.3g} only, which is not above 0"
            )


def _check_places(places: np.ndarray, count: int, what: str) -> None:
    if len(np.unique(places)) != len(places) or (len(places) and (places.min() < 0 or places.max() >= count)):
        raise CertificateError(f"{what}: a place is named twice, or does not exist")
