"""The SMT-LIB text of a certificate: a solver that shares nothing confirms what holds, and refutes what does not."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from encoders.network import Network
from encoders.ops import Affine, Tanh
from tests.networks.batches import random_batch
from tests.networks.chains import chain, random_relu_network
from tests.oracles.polygons import least_margin
from verifier.bounds.split.search import decide_ball
from verifier.budget import Budget
from verifier.certificates.certificate import Certificate
from verifier.certificates.error import CertificateError
from verifier.certificates.sign_tree import LEAF
from verifier.certificates.smt_lib import smt_text


def proved(seed: int) -> tuple[Network, Certificate]:
    """Return a network of two inputs and the certificate of the largest of some radii that is proved."""
    network = random_relu_network(seed, (2, 6, 5, 3))
    batch = random_batch(network, 1, seed)
    for radius in (0.4, 0.3, 0.2, 0.15, 0.1, 0.05, 0.02):
        answer = decide_ball(network, batch.region(radius), int(batch.classes[0]), lambda _: False, Budget(), 500)
        if answer.certificate is not None:
            return network, answer.certificate
    raise AssertionError(answer.reason)


def answers(certificate: Certificate, network: Network) -> list[str]:
    """Return what z3 says to each question: a program of its own, which the extra `smt` installs."""
    # Beside the Python that runs: an environment need not be on the path.
    solver = shutil.which("z3", path=str(Path(sys.executable).parent)) or shutil.which("z3")
    if solver is None:
        pytest.skip("z3 is not installed")
    text = "\n".join(smt_text(certificate, network))
    done = subprocess.run([solver, "-smt2", "-in"], input=text, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.split()


@pytest.mark.parametrize("seed", [1, 2, 5])
def test_a_solver_confirms_certificates_that_hold_and_refutes_those_that_do_not(seed: int) -> None:
    network, certificate = proved(seed)
    said = answers(certificate, network)
    # One question for each hinge node, each tree and each leaf.
    assert said == ["unsat"] * (2 + len(certificate.trees) + certificate.leaves)
    wider = replace(certificate, radius=9.0 * certificate.radius)
    ends = [[v + sign * wider.radius for v in wider.centre.tolist()] for sign in (-1, 1)]
    assert wider.domain is None or isinstance(wider.domain, tuple)
    least, greatest = wider.domain or (-1e9, 1e9)
    low, high = [max(v, least) for v in ends[0]], [min(v, greatest) for v in ends[1]]
    assert least_margin(network, low, high, wider.winner) < 0 and "sat" in answers(wider, network)
    others = [k for k in range(3) if k != certificate.winner]
    renamed = tuple(
        replace(tree, rival=certificate.winner if tree.rival == others[0] else tree.rival) for tree in certificate.trees
    )
    assert "sat" in answers(replace(certificate, winner=others[0], trees=renamed), network)


def test_a_tree_that_leaves_signs_out_is_seen_without_a_solver_of_numbers() -> None:
    network, certificate = proved(1)
    text = list(smt_text(certificate, network))
    covers = [line for line in text if "(not (or false" in line]
    assert len(covers) == len(certificate.trees)
    leaves = sum(int((tree.splits == LEAF).sum()) for tree in certificate.trees)
    assert sum(line.count("(and true") for line in covers) == leaves == certificate.leaves


def test_other_networks_and_other_certificates_have_no_text() -> None:
    network, certificate = proved(1)
    with pytest.raises(CertificateError, match="another network"):
        list(smt_text(certificate, random_relu_network(9, (2, 6, 5, 3))))
    smooth = chain((2,), Affine(torch.eye(2)), Tanh())
    with pytest.raises(CertificateError, match="tanh"):
        list(smt_text(replace(certificate, digest=smooth.digest), smooth))
    with pytest.raises(CertificateError, match="no tree of signs"):
        list(smt_text(replace(certificate, trees=()), network))
    assert np.isfinite(certificate.centre).all()
