"""Trees over inputs cover their box; leaves are bounded soundly; certificates of them hold, and altered ones do not."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from encoders import write_network
from encoders.network import Network
from tests.networks.batches import random_batch
from tests.networks.chains import hinge_network, random_relu_network
from tests.oracles.polygons import least_margin
from tests.seeds import seeds
from verifier import certify, check
from verifier.bounds.inputs.certified import certificate_by_inputs
from verifier.budget import Budget
from verifier.certificates.certificate import Certificate
from verifier.certificates.error import CertificateError
from verifier.certificates.files import read_certificate, write_certificate
from verifier.certificates.input_tree import InputTree, leaf_margins

# Seeds of networks and radii just below the exact ones.
CASES = {0: 0.3466, 1: 0.2167, 7: 0.1826, 8: 0.1630}
LOWER, UPPER = np.zeros(2), np.ones(2)


@cache
def case(seed: int) -> tuple[Network, Certificate]:
    """Return a network of two inputs and a certificate near its exact radius."""
    network = hinge_network(seed, (2, 8, 6, 3))
    batch = random_batch(network, 1, seed)
    made = certificate_by_inputs(network, batch.region(CASES[seed]), int(batch.classes[0]), Budget(), 20_000)
    assert isinstance(made, Certificate), made
    return network, made


def tree_of(*nodes: tuple[int, float]) -> InputTree:
    sides, values = zip(*nodes, strict=True)
    return InputTree(np.array(sides, dtype=np.int32), np.array(values))


@pytest.mark.parametrize("seed", CASES)
def test_certificates_hold_and_need_splits(seed: int) -> None:
    network, certificate = case(seed)
    certificate.check(network)
    assert certificate.leaves > 1 and not certificate.trees


@pytest.mark.parametrize("seed", CASES)
def test_a_larger_radius_another_winner_and_fewer_splits_are_refused(seed: int) -> None:
    network, certificate = case(seed)
    tree = certificate.inputs
    assert tree is not None
    wider = replace(certificate, radius=CASES[seed] + 0.002)
    others = [replace(certificate, winner=k) for k in range(3) if k != certificate.winner]
    whole = replace(certificate, inputs=tree_of((-1, 0.0)))
    for altered in (wider, *others, whole):
        with pytest.raises(CertificateError):
            altered.check(network)


def test_leaves_cover_the_box_whatever_the_tree() -> None:
    tree = tree_of((0, 0.25), (-1, 0.0), (1, 0.5), (1, 0.125), (-1, 0.0), (-1, 0.0), (-1, 0.0))
    lower, upper = tree.boxes(LOWER, UPPER)
    assert len(lower) == tree.leaves == 4
    assert np.prod(upper - lower, axis=1).sum() == 1.0
    points = np.random.default_rng(0).random((500, 2))
    inside = (lower[None] <= points[:, None]) & (points[:, None] <= upper[None])
    assert inside.all(axis=2).any(axis=1).all()


@pytest.mark.parametrize(
    "nodes",
    [
        ((0, 0.5), (-1, 0.0)), ((-1, 0.0), (-1, 0.0), (0, 0.5)), ((0, 0.5), (-1, 0.0), (-1, 0.0), (-1, 0.0)),
        ((0, 1.5), (-1, 0.0), (-1, 0.0)), ((0, -0.5), (-1, 0.0), (-1, 0.0)), ((0, np.nan), (-1, 0.0), (-1, 0.0)),
        ((2, 0.5), (-1, 0.0), (-1, 0.0)), ((-2, 0.5), (-1, 0.0), (-1, 0.0)),
        ((0, 0.5), (0, 0.75), (-1, 0.0), (-1, 0.0), (-1, 0.0)),
    ],
)  # fmt: skip
def test_splits_that_are_no_tree_over_the_box_are_refused(nodes: tuple[tuple[int, float], ...]) -> None:
    with pytest.raises(CertificateError):
        tree_of(*nodes).boxes(LOWER, UPPER)


@pytest.mark.parametrize("seed", seeds(8, 200))
def test_margins_of_leaves_are_below_the_exact_ones_and_do_not_depend_on_other_leaves(seed: int) -> None:
    network = random_relu_network(seed, (2, 7, 5, 3))
    rng = np.random.default_rng(seed)
    ends = np.sort(rng.random((2, 4, 2)), axis=0)
    ends[1, 0] = ends[0, 0]
    bounds, costs, reach = leaf_margins(network, seed % 3, *ends)
    assert costs.shape == (4, 2, 2) and reach.shape == (2,)
    for number in range(4):
        exact = least_margin(network, ends[0, number].tolist(), ends[1, number].tolist(), seed % 3)
        assert bounds[number].min() <= exact
        alone, _, _ = leaf_margins(network, seed % 3, ends[0, number : number + 1], ends[1, number : number + 1])
        assert alone[0] == pytest.approx(bounds[number], rel=1e-9, abs=1e-9)
    # A point is bounded by its value, but for rounding.
    assert bounds[0].min() == pytest.approx(float(least_margin(network, ends[0, 0], ends[0, 0], seed % 3)), abs=1e-5)


def test_certificates_go_through_files_and_mixtures_are_refused(tmp_path: Path) -> None:
    network, certificate = case(1)
    named = write_certificate(certificate, tmp_path / "certificates", 0)
    again = read_certificate(tmp_path / named.file, named.sha256, 0)
    again.check(network)
    assert again.leaves == certificate.leaves == named.leaves
    tree = certificate.inputs
    assert tree is not None
    for bad in (
        InputTree(tree.sides.astype(np.float64), tree.values), InputTree(tree.sides, tree.values.astype(np.float32)),
        InputTree(tree.sides[None], tree.values[None]), InputTree(tree.sides, tree.values[:-1]),
    ):  # fmt: skip
        with pytest.raises(CertificateError):
            replace(certificate, inputs=bad).check(network)


def test_a_search_that_ends_early_says_so() -> None:
    network = hinge_network(0, (2, 8, 6, 3))
    batch = random_batch(network, 1, 0)
    region, winner = batch.region(CASES[0]), int(batch.classes[0])
    assert "2 boxes" in str(certificate_by_inputs(network, region, winner, Budget(), 2))
    assert "time limit" in str(certificate_by_inputs(network, region, winner, Budget(0.0), 2))
    past = certificate_by_inputs(network, batch.region(CASES[0] + 0.01), winner, Budget(), 300)
    assert isinstance(past, str)


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
