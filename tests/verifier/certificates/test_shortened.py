"""Shortened certificates claim the same, prove it, and stay false where the claim is false."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from encoders.network import Network
from encoders.region import BallRegion
from tests.networks.batches import random_batch
from tests.networks.chains import hinge_network, random_relu_network
from tests.oracles.polygons import least_margin
from tests.oracles.without_planes import without_planes
from tests.seeds import seeds
from verifier.bounds.split.search import decide_ball
from verifier.budget import Budget
from verifier.certificates import files, sign_leaves
from verifier.certificates.certificate import Certificate
from verifier.certificates.error import CertificateError
from verifier.certificates.files import keep_certificate, read_certificate, write_certificate
from verifier.certificates.shortened import short_multipliers, shortened
from verifier.certificates.sign_leaves import SignLeaves

# Seeds of networks, and radii just below the exact ones; past them by PAST the claim is false.
CASES = {0: 0.3466, 1: 0.2167, 7: 0.1826, 10: 0.1044, 12: 0.1591, 13: 0.4638}
PAST = 0.002


def case(seed: int) -> tuple[Network, Certificate]:
    network = hinge_network(seed, (2, 8, 6, 3))
    batch = random_batch(network, 1, seed)
    region, winner = batch.region(CASES[seed]), int(batch.classes[0])
    with without_planes():
        found = decide_ball(network, region, winner, lambda _: False, Budget(), 4000)
    assert found.certificate is not None, found.reason
    return network, found.certificate


@pytest.mark.parametrize("seed", CASES)
def test_a_short_certificate_claims_and_proves_the_same_in_fewer_bytes(seed: int, tmp_path: Path) -> None:
    network, certificate = case(seed)
    short = shortened(certificate, network)
    short.check(network)
    for name in ("digest", "radius", "domain", "winner", "open_units"):
        assert getattr(short, name) is getattr(certificate, name)
    assert short.leaves <= certificate.leaves
    assert all(len(tree.slopes) <= tree.leaves for tree in short.trees)
    whole, less = (write_certificate(made, tmp_path / "certificates", 3) for made in (certificate, short))
    assert whole.bytes is not None and less.bytes is not None and less.bytes <= whole.bytes
    again = read_certificate(tmp_path / less.file, less.sha256, 3)
    again.check(network)
    for tree, read in zip(short.trees, again.trees, strict=True):
        for name in ("rival", "splits", "slopes", "multipliers", "sets"):
            assert np.array_equal(getattr(tree, name), getattr(read, name)), name


@pytest.mark.parametrize("seed", CASES)
def test_what_is_false_is_proved_by_no_numbers_that_leaves_share(seed: int) -> None:
    network, certificate = case(seed)
    short = shortened(certificate, network)
    generator = np.random.default_rng(seed)
    false = replace(short, radius=short.radius + PAST)
    with pytest.raises(CertificateError):
        false.check(network)
    for _ in range(5):
        trees = tuple(
            replace(tree, sets=generator.integers(0, len(tree.slopes), tree.leaves).astype(np.int32))
            for tree in short.trees
        )
        with pytest.raises(CertificateError):
            replace(false, trees=trees).check(network)
        # On the true ball a leaf passes exactly if the numbers that it names prove it.
        program = short.program(network)
        leaves = [SignLeaves.of_trees(program, short.winner, short.open_units, [tree]) for tree in trees]
        proves = all((x.bounds(t.slopes, t.multipliers, t.sets) > 0).all() for x, t in zip(leaves, trees, strict=True))
        try:
            replace(short, trees=trees).check(network)
        except CertificateError:
            assert not proves
        else:
            assert proves


def test_sets_that_are_not_there_are_refused() -> None:
    network, certificate = case(7)
    short = shortened(certificate, network)
    tree = max(short.trees, key=lambda tree: tree.leaves)
    others = tuple(other for other in short.trees if other is not tree)
    for sets in (
        np.full(tree.leaves, -1), np.full(tree.leaves, len(tree.slopes)), tree.sets[:-1], tree.sets.astype(np.float64),
        np.full(tree.leaves, 2**63, dtype=np.uint64), tree.sets[None], np.zeros(0, dtype=np.int32),
    ):  # fmt: skip
        with pytest.raises(CertificateError):
            replace(short, trees=(*others, replace(tree, sets=sets))).check(network)


@pytest.mark.parametrize("seed", seeds(6, 60))
def test_short_certificates_of_random_networks_are_true(seed: int) -> None:
    """Against the exact least margin, over radii from easy ones to ones past the exact radius."""
    network = random_relu_network(seed, (2, 7, 5, 3))
    generator = np.random.default_rng(seed)
    centre = torch.from_numpy(generator.random((1, 2)))
    winner, proved = int(network.evaluate(centre).argmax()), 0
    for radius in (0.01, 0.05, 0.1, 0.2):
        region = BallRegion(centre, torch.tensor([radius], dtype=torch.float64), None)
        found = decide_ball(network, region, winner, lambda _: False, Budget(), 400).certificate
        if found is None:
            continue
        short = shortened(found, network)
        short.check(network)
        box = region.enclosure()
        assert least_margin(network, box.lower[0].tolist(), box.upper[0].tolist(), winner) > 0
        proved += 1
        with pytest.raises(CertificateError):
            replace(short, winner=(winner + 1) % 3).check(network)
    assert proved or seed


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_short_multipliers_are_near_and_hold_few_bits(bits: int) -> None:
    generator = np.random.default_rng(bits)
    values = generator.normal(size=500) * 10.0 ** generator.uniform(-30, 30, 500)
    made = short_multipliers(values, bits)
    assert (np.abs(made - values) <= np.abs(values) * 2.0**-bits).all()
    fraction = np.frexp(made)[0] * 2.0**bits
    assert (fraction == np.round(fraction)).all()
    extreme = short_multipliers(np.array([0.0, 1e-300, np.nan, 1e300, -np.inf]), bits)
    assert extreme.tolist() == [0.0, 0.0, 0.0, np.inf, -np.inf]


def test_a_certificate_that_is_too_long_is_not_written_and_the_reason_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, certificate = case(7)
    monkeypatch.setattr(files, "MOST_BYTES", 1000)
    said = keep_certificate(certificate, network, tmp_path / "certificates", 0)
    assert isinstance(said, str) and "1,000 that one may take" in said
    monkeypatch.undo()
    monkeypatch.setattr(sign_leaves, "MOST_SIGNS", 10)
    said = keep_certificate(certificate, network, tmp_path / "certificates", 0)
    assert isinstance(said, str) and "more than is evaluated" in said
    assert not (tmp_path / "certificates").exists()
