"""Trees over inputs and units cover their box; what is unsafe in leaves is refuted soundly; altered trees are not."""

import hashlib
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from encoders import write_network
from encoders.network import Network
from encoders.ops import Affine, Gather, Reshape, Sigmoid, Slice, Tanh
from encoders.property import Halfspaces, Property
from encoders.region import BallRegion
from tests.networks.batches import random_batch
from tests.networks.chains import chain, hinge_network, random_relu_network
from tests.oracles.exact_checker import holds_exactly
from tests.oracles.polygons import least_margin
from tests.seeds import seeds
from verifier import certify, check, verify
from verifier.bounds.inputs.certified import certificate_by_inputs
from verifier.budget import Budget
from verifier.certificates.certificate import Certificate
from verifier.certificates.conjunctions import Conjunctions
from verifier.certificates.error import CertificateError
from verifier.certificates.files import read_certificate, write_certificate
from verifier.certificates.input_tree import LEAF, InputTree, PartBounds, check_tree

# Seeds of networks and radii just below the exact ones.
CASES = {0: 0.3466, 1: 0.2167, 7: 0.1826, 8: 0.1630}
PAST = 0.002
SQUARE = (torch.zeros(1, 2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64))


def made_for(network: Network, region: BallRegion, winner: int, most: int = 20_000) -> Certificate | str:
    asked = Conjunctions.of_class(network.cast(torch.float64, torch.device("cpu")), winner)
    return certificate_by_inputs(network, asked, region, winner, Budget(), most)


@cache
def case(seed: int) -> tuple[Network, Certificate]:
    """Return a network of two inputs and a certificate near its exact radius."""
    network = hinge_network(seed, (2, 8, 6, 3))
    batch = random_batch(network, 1, seed)
    made = made_for(network, batch.region(CASES[seed]), int(batch.classes[0]))
    assert isinstance(made, Certificate), made
    return network, made


def tree_of(*nodes: tuple[int, float], tightened: bool = True) -> InputTree:
    sides, values = zip(*nodes, strict=True)
    return InputTree(np.array(sides, dtype=np.int32), np.array(values), np.full(len(sides), tightened))


def passes(certificate: Certificate, network: Network) -> bool:
    """Return whether the check passes; the checker in exact arithmetic, too, accepts nothing that is false."""
    exact = holds_exactly(certificate, network)
    try:
        certificate.check(network)
    except CertificateError:
        if exact:
            ball = certificate._ball(network)
            assert least_margin(network, ball.lower[0].tolist(), ball.upper[0].tolist(), certificate.winner) > 0
        return False
    return True


def smooth_network(seed: int) -> Network:
    """Return a network of two inputs, sigmoids and tangents, and three outputs."""
    generator = torch.Generator().manual_seed(seed)

    def affine(rows: int, columns: int) -> Affine:
        weight = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
        return Affine(weight, torch.randn(rows, generator=generator, dtype=torch.float64) * 0.3)

    ops = (affine(5, 2), Sigmoid(), affine(4, 5), Tanh(), affine(3, 4))
    return chain((2,), *ops, dtype=torch.float64)


# --------------------------------------------------------------------------------------------------------- what holds


@pytest.mark.parametrize("seed", CASES)
def test_certificates_hold_and_need_splits(seed: int) -> None:
    network, certificate = case(seed)
    certificate.check(network)
    assert certificate.leaves > 1 and not certificate.trees


@pytest.mark.parametrize("seed", CASES)
def test_a_larger_radius_another_winner_fewer_splits_and_fewer_marks_prove_nothing_false(seed: int) -> None:
    network, certificate = case(seed)
    tree = certificate.inputs
    assert tree is not None
    wider = replace(certificate, radius=CASES[seed] + PAST)
    others = [replace(certificate, winner=k) for k in range(3) if k != certificate.winner]
    whole = replace(certificate, inputs=tree_of((LEAF, 0.0)))
    unmarked = replace(wider, inputs=replace(tree, tightened=np.zeros_like(tree.tightened)))
    for altered in (wider, *others, whole, unmarked):
        assert not passes(altered, network)


@pytest.mark.parametrize("seed", CASES)
def test_altered_splits_prove_nothing_false(seed: int) -> None:
    """Past the exact radius no tree passes, wherever it splits, units included."""
    network, certificate = case(seed)
    tree = certificate.inputs
    assert tree is not None
    generator = np.random.default_rng(seed)
    false = replace(certificate, radius=CASES[seed] + PAST)
    split = tree.sides != LEAF
    for _ in range(12):
        sides, values = tree.sides.copy(), tree.values.copy()
        sides[split] = generator.integers(0, 16, int(split.sum()))
        values[split] = generator.normal(size=int(split.sum())) * 10.0 ** generator.uniform(-2, 1)
        marks = generator.random(len(sides)) < 0.7
        assert not passes(replace(false, inputs=InputTree(sides, values, marks)), network)
    for value in (-1e300, 1e300, 0.0, 0.5):
        assert not passes(replace(false, inputs=replace(tree, values=np.full_like(tree.values, value))), network)


@pytest.mark.parametrize("seed", seeds(6, 60))
def test_leaves_that_pass_hold_no_unsafe_point(seed: int) -> None:
    """Random trees over inputs and units: a network that passes has no unsafe point among those of a grid."""
    network = random_relu_network(seed, (2, 7, 5, 3)) if seed % 2 else smooth_network(seed)
    generator = np.random.default_rng(seed)
    asked = Conjunctions.of_class(network.cast(torch.float64, torch.device("cpu")), seed % 3)
    axis = torch.linspace(0.0, 1.0, 41, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    excess = asked.excess(grid)
    proved = 0
    for _ in range(6):
        corner, width = torch.from_numpy(generator.random((1, 2)) * 0.8), 0.2 * float(generator.random())
        inside = ((grid >= corner) & (grid <= corner + width)).all(dim=1)
        tree = random_tree(generator, 2 + len(network.nodes))
        try:
            check_tree(tree, asked, corner, corner + width)
        except CertificateError:
            continue
        proved += 1
        assert bool((excess[inside] > 0).all())
    assert proved or float(excess.min()) <= 0


def random_tree(generator: np.random.Generator, coordinates: int) -> InputTree:
    nodes: list[tuple[int, float]] = []

    def grow(depth: int) -> None:
        if depth == 0 or generator.random() < 0.2:
            nodes.append((LEAF, 0.0))
            return
        nodes.append((int(generator.integers(coordinates)), float(generator.normal(scale=0.5))))
        grow(depth - 1)
        grow(depth - 1)

    grow(4)
    return tree_of(*nodes)


@pytest.mark.parametrize("seed", seeds(8, 200))
def test_bounds_of_parts_are_below_the_exact_ones_and_do_not_depend_on_other_parts(seed: int) -> None:
    network = random_relu_network(seed, (2, 7, 5, 3))
    winner = seed % 3
    asked = Conjunctions.of_class(network.cast(torch.float64, torch.device("cpu")), winner)
    ends = torch.from_numpy(np.sort(np.random.default_rng(seed).random((2, 4, 2)), axis=0))
    ends[1, 0] = ends[0, 0]
    bounds = PartBounds(asked)
    whole = bounds.root(*SQUARE)
    parts = replace(type(whole).joined([whole] * 4), lower=ends[0], upper=ends[1])
    found, slopes = bounds.step(parts, True)
    for number in range(4):
        exact = least_margin(network, ends[0, number].tolist(), ends[1, number].tolist(), winner)
        assert exact > 0 or bool(found.is_open[number].any())
        alone, own = bounds.step(parts[number : number + 1], True)
        assert torch.equal(alone.is_open[0], found.is_open[number])
        assert torch.allclose(own[0], slopes[number], rtol=1e-9, atol=1e-12)
        # What is left of a box holds its unsafe points.
        points = ends[0, number] + torch.rand(200, 2, dtype=torch.float64) * (ends[1, number] - ends[0, number])
        unsafe = points[asked.excess(points) <= 0]
        assert bool(((found.lower[number] <= unsafe) & (unsafe <= found.upper[number])).all())


@pytest.mark.parametrize("seed", CASES)
def test_leaves_may_be_split_at_units_too_and_a_split_outside_leaves_one_part_empty(seed: int) -> None:
    network, certificate = case(seed)
    tree = certificate.inputs
    assert tree is not None
    leaf = int(np.flatnonzero(tree.sides == LEAF)[-1])
    for side, value in ((2, 0.0), (9, 0.1), (15, -0.2), (0, 9.0), (3, -1e300), (4, 1e300)):
        sides, values, marks = (
            np.concatenate([given[:leaf], [own], given[leaf : leaf + 1], given[leaf:]])
            for given, own in ((tree.sides, side), (tree.values, value), (tree.tightened, False))
        )
        mixed = InputTree(sides.astype(np.int32), values, marks.astype(bool))
        assert mixed.leaves == tree.leaves + 1
        # A half is proved as its whole was, but where lines that are chosen by its box turn out worse.
        assert passes(replace(certificate, inputs=mixed), network) or 0 < abs(value) < 1
        assert not passes(replace(certificate, inputs=mixed, radius=CASES[seed] + PAST), network)


# -------------------------------------------------------------------------------------------------- trees and files


@pytest.mark.parametrize(
    "nodes",
    [
        ((0, 0.5), (-1, 0.0)), ((-1, 0.0), (-1, 0.0), (0, 0.5)), ((0, 0.5), (-1, 0.0), (-1, 0.0), (-1, 0.0)),
        ((0, np.nan), (-1, 0.0), (-1, 0.0)), ((0, np.inf), (-1, 0.0), (-1, 0.0)), ((99, 0.5), (-1, 0.0), (-1, 0.0)),
        ((-2, 0.5), (-1, 0.0), (-1, 0.0)),
    ],
)  # fmt: skip
def test_splits_that_are_no_tree_are_refused(nodes: tuple[tuple[int, float], ...]) -> None:
    asked = Conjunctions.of_class(random_relu_network(1, (2, 7, 5, 3)).cast(torch.float64, torch.device("cpu")), 0)
    with pytest.raises(CertificateError, match=r"tree|split"):
        check_tree(tree_of(*nodes), asked, *SQUARE)


def test_parts_above_stand_where_the_form_says() -> None:
    tree = tree_of((0, 0.25), (-1, 0.0), (1, 0.5), (1, 0.125), (-1, 0.0), (-1, 0.0), (-1, 0.0))
    assert tree.second_halves().tolist() == [2, 0, 6, 5, 0, 0, 0] and tree.leaves == 4


def test_certificates_go_through_files_and_mixtures_are_refused(tmp_path: Path) -> None:
    network, certificate = case(1)
    named = write_certificate(certificate, tmp_path / "certificates", 0)
    again = read_certificate(tmp_path / named.file, named.sha256, 0)
    again.check(network)
    assert again.leaves == certificate.leaves == named.leaves
    tree = certificate.inputs
    assert tree is not None
    for bad in (
        replace(tree, sides=tree.sides.astype(np.float64)), replace(tree, values=tree.values.astype(np.float32)),
        replace(tree, sides=tree.sides[None]), replace(tree, values=tree.values[:-1]),
        replace(tree, tightened=tree.tightened.astype(np.int8)), replace(tree, tightened=tree.tightened[1:]),
    ):  # fmt: skip
        with pytest.raises(CertificateError):
            replace(certificate, inputs=bad).check(network)


def test_networks_of_smooth_ops_have_certificates() -> None:
    for seed in range(3):
        network = smooth_network(seed)
        centre = torch.full((1, 2), 0.3, dtype=torch.float64)
        winner = int(network.evaluate(centre).argmax())
        for radius in (0.4, 0.1, 0.02):
            region = BallRegion(centre, torch.tensor([radius], dtype=torch.float64), None)
            certificate = made_for(network, region, winner, 20)
            if isinstance(certificate, Certificate):
                certificate.check(network)
                assert not passes(replace(certificate, winner=(winner + 1) % 3), network)
                break
        else:
            pytest.fail("none is proved")


def test_parts_that_are_all_refuted_at_once_are_not_bounded_again() -> None:
    """Not every op takes a batch of no boxes."""
    rows = Gather(torch.tensor([[0, 1], [1, 0]]))
    affine = Affine(torch.eye(2, dtype=torch.float64), torch.tensor([9.0, 0.0], dtype=torch.float64))
    network = chain((2,), rows, Reshape((4,)), Slice(0, 0, 2), affine, dtype=torch.float64)
    region = BallRegion(torch.zeros(1, 2, dtype=torch.float64), torch.ones(1, dtype=torch.float64), None)
    certificate = made_for(network, region, 0)
    assert isinstance(certificate, Certificate) and certificate.leaves == 1
    certificate.check(network)


def test_a_search_that_ends_early_says_so() -> None:
    network = hinge_network(0, (2, 8, 6, 3))
    batch = random_batch(network, 1, 0)
    region, winner = batch.region(CASES[0]), int(batch.classes[0])
    asked = Conjunctions.of_class(network.cast(torch.float64, torch.device("cpu")), winner)
    assert "2 parts" in str(certificate_by_inputs(network, asked, region, winner, Budget(), 2))
    assert "time limit" in str(certificate_by_inputs(network, asked, region, winner, Budget(0.0), 2))
    assert isinstance(made_for(network, batch.region(CASES[0] + 0.01), winner, 300), str)


def test_runs_of_input_split_keep_certificates_that_check_evaluates(tmp_path: Path) -> None:
    network = random_relu_network(2, (3, 10, 8, 3))
    write_network(network, tmp_path / "model.safetensors")
    x = torch.rand(6, 3, generator=torch.Generator().manual_seed(1))
    data = tmp_path / "data.npz"
    np.savez(data, x=x.numpy(), y=network.evaluate(x).argmax(dim=1).numpy())
    made = certify(
        tmp_path / "model.safetensors", data, [0.05], method="input-split", clip=(0, 1), certificates=True,
        out=tmp_path / "run",
    )  # fmt: skip
    assert made.results[0].certified_checked >= 2
    assert len(list((tmp_path / "run" / "certificates").iterdir())) >= 2
    assert not check(tmp_path / "run").refused


def test_properties_of_several_rows_about_smooth_networks_have_certificates(tmp_path: Path) -> None:
    """Unsafe is where two outputs are both high, or a third low: each can be, not all together."""
    network = smooth_network(1)
    write_network(network, tmp_path / "model.safetensors")
    axis = torch.linspace(0.0, 1.0, 60, dtype=torch.float64)
    outputs = network.evaluate(torch.cartesian_prod(axis, axis))
    half = float(torch.minimum(outputs[:, 0], outputs[:, 1]).max()) + 0.05
    both = Halfspaces(
        torch.tensor([[-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]).double(), torch.full((2,), -half, dtype=torch.float64)
    )
    low = Halfspaces(torch.tensor([[0.0, 0.0, 1.0]]).double(), (outputs[:, 2].min() - 0.05).reshape(1))
    asked = Property(*(end[0] for end in SQUARE), (both, low), name="both")
    out = tmp_path / "run"
    made = verify(tmp_path / "model.safetensors", [asked], method="input-split", certificates=True, out=out)
    assert made.properties[0].verdict == "unsat"
    result = check(out)
    assert not result.refused and result.checked == 1 and result.leaves > 1
    # The same tree about what holds of no such box.
    certificate = read_certificate(*_named(out))
    for offsets in (both.offsets + 0.2, both.offsets + 2.0):
        false = Conjunctions.of_polyhedra(network, (Halfspaces(both.coefficients, offsets), low))
        if bool((false.excess(torch.cartesian_prod(axis, axis)) <= 0).any()):
            with pytest.raises(CertificateError, match="not refuted"):
                certificate.check(network, false)


def _named(run: Path) -> tuple[Path, str, int]:
    (path,) = (run / "certificates").iterdir()
    return path, hashlib.sha256(path.read_bytes()).hexdigest(), 0
