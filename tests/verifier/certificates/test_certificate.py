"""Certificates of real searches hold; altered ones are refused unless they prove what they still say."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
import torch

from encoders.network import Network, Node
from encoders.ops import Affine, Relu, Reshape, Tanh
from encoders.region import BallRegion
from tests.networks.batches import random_batch
from tests.networks.chains import chain, hinge_network
from tests.networks.hinge_graphs import hinge_networks
from tests.networks.random_boxes import points_of
from tests.oracles.exact_checker import holds_exactly
from tests.oracles.node_values import exact_values
from tests.oracles.polygons import least_margin
from tests.oracles.without_planes import without_planes
from verifier.bounds.split.search import decide_ball
from verifier.budget import Budget
from verifier.certificates.certificate import BoxSlopes, Certificate
from verifier.certificates.error import CertificateError
from verifier.certificates.sign_leaves import leaf_bounds
from verifier.certificates.sign_tree import LEAF, SplitTree, leaf_signs

# Seeds of networks, and radii at most 0.001 below the exact ones, so that proofs need splits.
CASES = {0: 0.3466, 1: 0.2167, 7: 0.1826, 8: 0.1630, 10: 0.1044, 12: 0.1591, 13: 0.4638, 15: 0.1757}
PAST = 0.002


@cache
def case(seed: int) -> tuple[Network, Certificate]:
    """Return a network of two inputs and the certificate of a search near its exact radius."""
    network = hinge_network(seed, (2, 8, 6, 3))
    batch = random_batch(network, 1, seed)
    region = batch.region(CASES[seed])
    with without_planes():
        answer = decide_ball(network, region, int(batch.classes[0]), lambda points: False, Budget(), 4000)
    assert answer.certificate is not None, answer.reason
    return network, answer.certificate


def is_true(certificate: Certificate, network: Network) -> bool:
    """Return whether the claim holds, by the oracle on the exact ball."""
    radius = Fraction(certificate.radius)
    ends = [[Fraction(v) + sign * radius for v in certificate.centre.tolist()] for sign in (-1, 1)]
    least, greatest = certificate.domain or (-1e9, 1e9)
    lower = [max(v, Fraction(least)) for v in ends[0]]
    upper = [min(v, Fraction(greatest)) for v in ends[1]]
    return least_margin(network, lower, upper, certificate.winner) > 0  # type: ignore[arg-type]


def passes(certificate: Certificate, network: Network) -> bool:
    """Return whether the check passes; AssertionError if a refusal is no sentence of ours.

    The checker in exact arithmetic, too, accepts nothing that is false.
    """
    exact = holds_exactly(certificate, network)
    try:
        certificate.check(network)
    except ValueError as error:
        assert len(str(error)) > 10
        assert not exact or is_true(certificate, network)
        return False
    return True


def largest(certificate: Certificate) -> int:
    """Return which tree has the most leaves."""
    return max(range(len(certificate.trees)), key=lambda k: len(certificate.trees[k].slopes))


def with_tree(certificate: Certificate, number: int, tree: SplitTree) -> Certificate:
    trees = list(certificate.trees)
    trees[number] = tree
    return replace(certificate, trees=tuple(trees))


def with_box(certificate: Certificate, number: int, box: BoxSlopes) -> Certificate:
    boxes = list(certificate.boxes)
    boxes[number] = box
    return replace(certificate, boxes=tuple(boxes))


# --------------------------------------------------------------------------------------------------- what must be said


@pytest.mark.parametrize("seed", CASES)
def test_certificates_of_searches_pass_and_are_true(seed):
    network, certificate = case(seed)
    certificate.check(network)
    assert is_true(certificate, network)
    assert certificate.leaves == sum(int((tree.splits == LEAF).sum()) for tree in certificate.trees)


def test_certificates_of_random_graphs_pass_and_are_true_at_points():
    """Residual sums, joins, maps and max pools: exact values at corners and inner points agree with what was proved."""
    proved = 0
    for seed, network in enumerate(hinge_networks(16)):
        if network.output_shape[0] < 2:
            continue
        generator = np.random.default_rng(seed)
        centre = torch.from_numpy(generator.normal(size=(1, *network.input_shape)))
        winner = int(network.evaluate(centre).argmax())
        for radius in (1.0, 0.3):
            # The largest radius that is proved is the likeliest to need splits.
            region = BallRegion(centre, torch.tensor([radius], dtype=centre.dtype))
            certificate = decide_ball(network, region, winner, lambda points: False, Budget(), 20).certificate
            if certificate is not None:
                break
        else:
            continue
        certificate.check(network)
        for point in points_of(region.enclosure(), generator, 2):
            outputs = exact_values(network, point)[network.output.name]
            assert all(outputs[winner] > outputs[k] for k in range(len(outputs)) if k != winner)
        proved += 1
    assert proved >= 8


def test_the_cases_need_splits():
    assert sum(case(seed)[1].leaves > 2 for seed in CASES) >= 6


@pytest.mark.parametrize("seed", CASES)
def test_a_radius_past_the_exact_one_is_refused(seed):
    network, certificate = case(seed)
    larger = replace(certificate, radius=certificate.radius + PAST)
    assert not is_true(larger, network) and not passes(larger, network)
    for grown in (1e-9, 1e-5, 1e-4, 5e-4):
        altered = replace(certificate, radius=certificate.radius + grown)
        assert is_true(altered, network) or not passes(altered, network)


@pytest.mark.parametrize("seed", CASES)
def test_other_centres_winners_and_domains_are_never_proved_falsely(seed):
    network, certificate = case(seed)
    generator = np.random.default_rng(seed)
    for winner in set(range(3)) - {certificate.winner}:
        altered = replace(certificate, winner=winner)
        assert not passes(altered, network)
        swapped = tuple(
            replace(tree, rival=certificate.winner if tree.rival == winner else tree.rival) for tree in altered.trees
        )
        assert not is_true(altered, network) and not passes(replace(altered, trees=swapped), network)
    false = refused = 0
    for size in (1e-12, 1e-6, 1e-3, 0.01, 0.1, 0.3):
        moved = certificate.centre + size * generator.choice([-1.0, 1.0], 2)
        altered = replace(certificate, centre=moved.clip(0.0, 1.0))
        truth, passed = is_true(altered, network), passes(altered, network)
        assert truth or not passed
        false, refused = false + (not truth), refused + (not passed)
    wider = replace(certificate, domain=None)
    assert is_true(wider, network) or not passes(wider, network)
    assert refused >= false


def test_a_network_with_one_other_weight_is_refused():
    network, certificate = case(7)
    nodes = list(network.nodes)
    first = nodes[0].op
    assert isinstance(first, Affine)
    weight = first.weight.clone()
    weight[0, 0] = torch.nextafter(weight[0, 0], torch.tensor(9.0))
    nodes[0] = Node(nodes[0].name, replace(first, weight=weight), nodes[0].inputs)
    other = Network(tuple(nodes), network.input_shape, network.dtype)
    with pytest.raises(CertificateError, match="about network"):
        certificate.check(other)
    # Under the right name the numbers of one network prove nothing that is false of the other.
    forged = replace(certificate, digest=other.digest)
    assert is_true(forged, other) or not passes(forged, other)


def test_other_ops_are_refused():
    network = chain((2,), Affine(torch.eye(2)), Tanh(), Affine(torch.eye(2)))
    certificate = Certificate(network.digest, np.zeros(2), 0.1, None, 0, (), np.zeros(0, dtype=np.int32), ())
    with pytest.raises(CertificateError, match="1-tanh"):
        certificate.check(network)


# ----------------------------------------------------------------------------------------------------------- the trees


@pytest.mark.parametrize("seed", [s for s in CASES if s != 0])
def test_trees_must_be_against_every_rival_once(seed):
    network, certificate = case(seed)
    first, second = certificate.trees
    for trees in ((), (first,), (second,), (first, first), (first, second, second), (second, first, first)):
        with pytest.raises(CertificateError, match="trees against"):
            replace(certificate, trees=trees).check(network)
    own = replace(certificate, trees=(first, second, replace(second, rival=certificate.winner)))
    with pytest.raises(CertificateError, match="trees against"):
        own.check(network)
    # The order of the trees does not matter; whose numbers they are does.
    assert passes(replace(certificate, trees=(second, first)), network)
    swapped = (replace(first, rival=second.rival), replace(second, rival=first.rival))
    assert not passes(replace(certificate, trees=swapped), network)


@pytest.mark.parametrize("seed", CASES)
def test_every_broken_tree_is_refused(seed):
    network, certificate = case(seed)
    number = largest(certificate)
    tree = certificate.trees[number]
    split = np.flatnonzero(tree.splits != LEAF)
    assert len(split)
    shapes = {
        "splits after the end": np.append(tree.splits, LEAF),
        "ends before": tree.splits[:-1],
        "split twice": np.concatenate([tree.splits[:1], tree.splits[:1], [LEAF, LEAF, LEAF]]),
        "does not exist": np.where(np.arange(len(tree.splits)) == split[0], 10_000, tree.splits),
    }
    for sentence, splits in shapes.items():
        with pytest.raises(CertificateError, match=sentence):
            leaf_signs(splits, 10_000)
        with pytest.raises(CertificateError):
            with_tree(certificate, number, replace(tree, splits=splits)).check(network)
    # As many splits as the leaves ask for, in an order that is no tree.
    with pytest.raises(CertificateError, match="splits after the end"):
        with_tree(certificate, number, replace(tree, splits=np.roll(tree.splits, 1))).check(network)
    for k in range(len(tree.slopes)):
        fewer = replace(tree, sets=np.delete(tree.sets, k))
        with pytest.raises(CertificateError, match="a tree of n leaves has n - 1 splits"):
            with_tree(certificate, number, fewer).check(network)


@pytest.mark.parametrize("seed", CASES)
def test_a_tree_without_its_last_cuts_is_proved_by_its_numbers_or_refused(seed):
    """A split and its two leaves made one leaf, with either one's numbers: a true claim, but too weak a proof."""
    network, certificate = case(seed)
    number = largest(certificate)
    tree = certificate.trees[number]
    refused = tried = 0
    for place in np.flatnonzero(tree.splits[:-2] != LEAF).tolist():
        if (tree.splits[place + 1 : place + 3] == LEAF).all():
            leaf = int((tree.splits[:place] == LEAF).sum())
            splits = np.delete(tree.splits, [place + 1, place + 2])
            splits[place] = LEAF
            for gone in (leaf, leaf + 1):
                merged = replace(tree, splits=splits, sets=np.delete(tree.sets, gone))
                refused += not passes(with_tree(certificate, number, merged), network)
                tried += 1
    assert refused > 0 or not tried


@pytest.mark.parametrize("seed", CASES)
def test_other_numbers_of_leaves_and_boxes_cannot_prove_what_is_false(seed):
    """Past the exact radius no numbers pass, however they are drawn; at it, useless ones are refused."""
    network, certificate = case(seed)
    generator = np.random.default_rng(seed)
    number = largest(certificate)
    tree = certificate.trees[number]
    false = replace(certificate, radius=certificate.radius + PAST)
    draws: list[Callable[[np.ndarray], np.ndarray]] = [
        lambda x: np.full_like(x, np.nan),
        lambda x: np.full_like(x, np.inf),
        lambda x: np.full_like(x, -np.inf),
        np.zeros_like,
        lambda x: np.roll(x, 1, axis=0),
        lambda x: x[::-1],
        lambda x: -x,
        lambda x: x + 1.0,
        lambda x: x * 1e30,
        lambda x: x * generator.normal(size=x.shape),
        lambda x: x.astype(np.float16),
        lambda x: x.astype(np.float64),
        lambda x: generator.normal(size=x.shape) * 10.0 ** generator.uniform(-5, 5),
    ]
    endless = with_tree(certificate, number, replace(tree, multipliers=np.full_like(tree.multipliers, np.inf)))
    assert not passes(endless, network)
    for draw in draws:
        other = replace(tree, slopes=draw(tree.slopes), multipliers=draw(tree.multipliers))
        for base in (certificate, false):
            altered = with_tree(base, number, other)
            assert base is certificate or not passes(altered, network)
            passes(altered, network)
        for k, box in enumerate(certificate.boxes):
            altered = with_box(false, k, replace(box, slopes=draw(box.slopes.astype(np.float64))))
            assert not passes(altered, network)


@pytest.mark.parametrize("seed", [7, 13])
def test_an_altered_byte_of_a_leaf_still_proves_its_part_or_is_refused(seed):
    """With one byte altered a check passes exactly if every leaf's bound is above zero: no number is taken on trust."""
    network, certificate = case(seed)
    generator = np.random.default_rng(seed)
    number = largest(certificate)
    tree = certificate.trees[number]
    program = certificate.program(network)
    row = np.zeros(3)
    row[certificate.winner], row[tree.rival] = 1.0, -1.0
    signs = leaf_signs(tree.splits, program.units)
    passed = refused = 0
    for _ in range(60):
        numbers = {name: getattr(tree, name).copy() for name in ("slopes", "multipliers")}
        changed = numbers[str(generator.choice(list(numbers)))]
        data = changed.view(np.uint8).reshape(-1)
        place = generator.integers(len(data))
        data[place] ^= generator.integers(1, 256)
        altered = replace(tree, **numbers)
        as_they_stand = altered.numbers(slice(None), signs[:, certificate.open_units])
        found = leaf_bounds(program, row, signs, certificate.open_units, *as_they_stand)
        proves = passes(with_tree(certificate, number, altered), network)
        assert proves == bool((found > 0).all())
        passed, refused = passed + proves, refused + (not proves)
    assert passed and refused


def test_leaves_of_random_trees_cover_every_sign_pattern_and_meet_only_at_zero():
    """Each pattern of signs lies in exactly one leaf, and leaves come in the order of the splits."""
    for seed in range(40):
        generator = np.random.default_rng(seed)
        units = int(generator.integers(1, 6))
        splits: list[int] = []

        def grow(left: list[int], splits: list[int] = splits, generator: np.random.Generator = generator) -> None:
            if not left or generator.random() < 0.3:
                splits.append(LEAF)
                return
            unit = int(generator.choice(left))
            splits.append(unit)
            rest = [other for other in left if other != unit]
            grow(rest)
            grow(rest)

        grow(list(range(units)))
        signs = leaf_signs(np.array(splits, dtype=np.int32), units)
        patterns = np.array(np.meshgrid(*[[-1, 1]] * units)).reshape(units, -1).T
        inside = ((signs[:, None] == 0) | (signs[:, None] == patterns[None])).all(axis=2)
        assert (inside.sum(axis=0) == 1).all()
        assert len(signs) == splits.count(LEAF)
    first = leaf_signs(np.array([2, 0, -1, -1, 1, -1, -1]), 3)
    assert first.tolist() == [[1, 0, 1], [-1, 0, 1], [0, 1, -1], [0, -1, -1]]


def test_cuts_that_are_no_tree_are_refused():
    for splits in (
        [],
        [0],
        [0, LEAF],
        [LEAF, LEAF],
        [0, 0, LEAF, LEAF, LEAF],
        [0, LEAF, 0, LEAF, LEAF],
        [3, LEAF, LEAF],
    ):
        with pytest.raises(CertificateError):
            leaf_signs(np.array(splits, dtype=np.int32), 3)
    with pytest.raises(CertificateError):
        leaf_signs(np.array([-2, LEAF, LEAF]), 3)


# --------------------------------------------------------------------------------------------------- shapes and ranges


def test_odd_data_are_refused_with_a_sentence():
    network, certificate = case(7)
    number = largest(certificate)
    tree, box = certificate.trees[number], certificate.boxes[0]
    twice = np.repeat(box.places[:1], len(box.places))
    altered = [
        replace(certificate, radius=-1.0),
        replace(certificate, radius=float("nan")),
        replace(certificate, radius=float("inf")),
        replace(certificate, radius=1e308),
        replace(certificate, domain=(1.0, 0.0)),
        replace(certificate, domain=(5.0, 6.0)),
        replace(certificate, domain=(float("nan"), float("nan"))),
        replace(certificate, centre=np.zeros(3)),
        replace(certificate, centre=np.zeros(0)),
        replace(certificate, centre=certificate.centre[None]),
        replace(certificate, centre=np.full(2, np.nan)),
        replace(certificate, open_units=np.repeat(certificate.open_units[:1], len(certificate.open_units))),
        replace(certificate, open_units=certificate.open_units + 100),
        replace(certificate, open_units=certificate.open_units - 100),
        replace(certificate, open_units=certificate.open_units[:-1]),
        replace(certificate, open_units=np.zeros(0, dtype=np.int32)),
        with_box(certificate, 0, replace(box, places=twice)),
        with_box(certificate, 0, replace(box, places=box.places + 100)),
        with_box(certificate, 0, replace(box, places=box.places[:-1])),
        with_box(certificate, 0, replace(box, slopes=box.slopes[:, :-1])),
        with_box(certificate, 0, replace(box, slopes=box.slopes[0])),
        with_tree(certificate, number, replace(tree, slopes=tree.slopes[:, :-1])),
        with_tree(certificate, number, replace(tree, multipliers=tree.multipliers[0])),
        with_tree(certificate, number, replace(tree, multipliers=np.zeros((0, tree.multipliers.shape[1])))),
        with_tree(certificate, number, replace(tree, splits=np.zeros(0, dtype=np.int32))),
        replace(certificate, digest=""),
    ]
    for k, found in enumerate(altered):
        with pytest.raises(ValueError) as caught:
            found.check(network)
        assert " " in str(caught.value) and "broadcast" not in str(caught.value), (k, caught.value)


def test_what_does_not_bear_on_the_claim_may_change():
    """Centres in float32 are the same numbers; boxes named twice or of other nodes are no worse than none."""
    network, certificate = case(12)
    exactly = certificate.centre.astype(np.float32).astype(np.float64)
    if (exactly == certificate.centre).all():
        assert passes(replace(certificate, centre=certificate.centre.astype(np.float32)), network)
    assert passes(replace(certificate, boxes=certificate.boxes * 2), network)
    number = largest(certificate)
    tree = certificate.trees[number]
    widened = replace(tree, slopes=tree.slopes.astype(np.float64), multipliers=tree.multipliers.astype(np.float64))
    assert passes(with_tree(certificate, number, widened), network)
    strangers = tuple(replace(box, name=f"no {box.name}") for box in certificate.boxes)
    assert not passes(replace(certificate, boxes=strangers), network)


def constant_network() -> Network:
    """Return a network whose outputs are -3, -2 and -1 everywhere."""
    return chain((2,), Affine(torch.zeros(3, 2)), Relu(), Affine(torch.zeros(3, 3), torch.tensor([-3.0, -2.0, -1.0])))


def one_leaf(rival: int, units: int) -> SplitTree:
    """Return a tree without splits whose numbers are zeros."""
    nothing, first = np.zeros((1, units)), np.zeros(1, dtype=np.int32)
    return SplitTree(rival, np.array([LEAF], dtype=np.int32), nothing, nothing, first)


def plain_certificate(network: Network, winner: int, rivals: list[int], units: int) -> Certificate:
    """Return a certificate without splits whose numbers are zeros."""
    trees = tuple(one_leaf(rival, units) for rival in rivals)
    open_units = np.arange(units, dtype=np.int32)
    return Certificate(network.digest, np.zeros(2), 0.5, None, winner, (), open_units, trees)


def test_a_certificate_of_zeros_proves_what_needs_no_numbers():
    network = constant_network()
    plain_certificate(network, 2, [0, 1], 3).check(network)
    plain_certificate(network, 2, [1, 0], 0).check(network)
    for winner in (0, 1):
        with pytest.raises(CertificateError, match="not above 0"):
            plain_certificate(network, winner, [k for k in range(3) if k != winner], 3).check(network)


def test_a_tie_is_not_proved():
    network = chain((2,), Affine(torch.tensor([[1.0, 2.0], [1.0, 2.0]])), Relu())
    with pytest.raises(CertificateError, match="not above 0"):
        plain_certificate(network, 0, [1], 2).check(network)


@pytest.mark.parametrize("margin", [1e-3, 1e-6, 1e-9, 1e-14, 1e-100])
def test_the_border_of_a_proof_is_sharp(margin):
    """Outputs relu(margin) and relu(0) or the reverse: the smallest lead is proved, the smallest lag refused."""
    for sign in (1.0, -1.0):
        bias = torch.tensor([max(sign, 0.0) * margin, max(-sign, 0.0) * margin], dtype=torch.float64)
        network = chain((2,), Affine(torch.zeros(2, 2, dtype=torch.float64), bias), Relu(), dtype=torch.float64)
        assert passes(plain_certificate(network, 0, [1], 2), network) == (sign > 0)


@pytest.mark.parametrize("leaf", [0, 511, 512, 700, 1023])
def test_every_leaf_of_a_large_tree_counts(leaf):
    """1,024 leaves are evaluated in pieces: one whose numbers prove nothing is found in any of them."""
    last = Affine(torch.zeros(2, 10), torch.tensor([1.0, 0.0]))
    network = chain((2,), Affine(torch.ones(10, 2)), Relu(), last)
    splits = np.array(_full_tree(list(range(10))), dtype=np.int32)
    slopes, multipliers = np.zeros((1024, 10)), np.zeros((1024, 10))
    tree = SplitTree.of_leaves(1, splits, slopes, multipliers, np.arange(10))
    proof = replace(plain_certificate(network, 0, [], 10), trees=(tree,))
    proof.check(network)
    broken = multipliers.copy()
    broken[leaf, 3] = np.inf
    with pytest.raises(CertificateError, match=f"leaf {leaf}:"):
        with_tree(proof, 0, replace(tree, multipliers=broken)).check(network)


def _full_tree(units: list[int]) -> list[int]:
    return [units[0], *_full_tree(units[1:]), *_full_tree(units[1:])] if units else [LEAF]


def test_places_that_are_named_twice_are_refused():
    network, certificate = case(7)
    box, units = certificate.boxes[0], certificate.open_units
    with pytest.raises(CertificateError, match="named twice"):
        replace(certificate, open_units=np.append(units[:-1], units[0])).check(network)
    with pytest.raises(CertificateError, match="named twice"):
        with_box(certificate, 0, replace(box, places=np.append(box.places[:-1], box.places[0]))).check(network)


def test_winners_that_are_no_class_are_refused():
    """Class -1 of outputs -3, -2, -1 would be read as the last one; class 9 is none."""
    network = constant_network()
    for winner in (-1, 9):
        with pytest.raises(CertificateError):
            plain_certificate(network, winner, [0, 1, 2], 3).check(network)


def test_an_output_that_is_no_vector_is_refused():
    """Outputs of shape (1, 3) are three classes; with one class counted, no tree at all would do."""
    network = chain((2,), Affine(torch.zeros(3, 2), torch.tensor([-3.0, -2.0, -1.0])), Reshape((1, 3)))
    with pytest.raises(CertificateError):
        plain_certificate(network, 0, [], 0).check(network)


def test_nothing_is_proved_where_subnormal_numbers_are_flushed():
    """y = 1e5 - 1e8 relu(1e-40 x) is about -9e5 at x = 1e38; with the weight read as 0 it is above zero."""
    first, last = torch.tensor([[1e-40]]), torch.tensor([[-1e8], [0.0]])
    network = chain((1,), Affine(first), Relu(), Affine(last, torch.tensor([1e5, 0.0])))
    tree = one_leaf(1, 0)
    certificate = Certificate(network.digest, np.full(1, 1e38), 0.0, None, 0, (), np.zeros(0, dtype=np.int32), (tree,))
    torch.set_flush_denormal(True)
    try:
        with pytest.raises((CertificateError, RuntimeError)):
            certificate.check(network)
    finally:
        torch.set_flush_denormal(False)


def test_a_ball_that_the_domain_cuts_is_proved_on_what_is_left():
    """x - 0.2 > 0 fails on a part of [0.1, 0.9], which the domain [0.3, 1] cuts off."""
    network = chain((1,), Affine(torch.tensor([[1.0], [0.0]]), torch.tensor([-0.2, 0.0])))
    tree = one_leaf(1, 0)
    claim = Certificate(network.digest, np.full(1, 0.5), 0.4, (0.3, 1.0), 0, (), np.zeros(0, dtype=np.int32), (tree,))
    claim.check(network)
    for domain in ((0.1, 1.0), None):
        assert not passes(replace(claim, domain=domain), network)
