"""`verify` in balls of the 2- and 1-norm: verdicts by hand, witnesses in the ball, runs that `check` accepts."""

import math
from pathlib import Path

import pytest
import torch

from encoders import write_network
from encoders.ops import Affine
from encoders.questions import robust
from tests.networks.chains import chain, random_relu_network
from verifier import certify, check, verify


@pytest.fixture
def model(tmp_path: Path) -> Path:
    # Class 0 wins where x + y < 1: the distance from the origin is sqrt(1/2), 1 in the 1-norm, 1/2 in norm inf.
    network = chain((2,), Affine(torch.tensor([[-1.0, -1.0], [0.0, 0.0]]), torch.tensor([1.0, 0.0])))
    write_network(network, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize(("norm", "distance"), [("2", math.sqrt(0.5)), ("1", 1.0), ("inf", 0.5)])
def test_the_radius_at_which_the_verdict_turns_is_that_of_the_norm(model, norm, distance, tmp_path):
    asked = [robust([0.0, 0.0], distance * factor, 0, 2, norm=norm) for factor in (0.999, 1.001)]
    safe, broken = verify(model, asked, out=tmp_path / "run").properties
    assert safe.verdict == "unsat" and broken.verdict == "sat" and broken.witness is not None
    point = broken.witness.point.to(torch.float64)
    order = {"2": 2, "1": 1, "inf": math.inf}[norm]
    assert float(torch.linalg.vector_norm(point, order)) <= distance * 1.001 * (1 + 1e-12)
    report = check(tmp_path / "run", allow_uncertified=True)
    assert not report.refused


def test_methods_of_norm_inf_alone_are_refused_by_name(model):
    with pytest.raises(ValueError, match="does not support the 2-norm"):
        verify(model, robust([0.0, 0.0], 0.5, 0, 2, norm="2"), method="exact")


@pytest.mark.parametrize("norm", ["2", "1"])
def test_verify_says_what_certify_says(norm, tmp_path):
    network = random_relu_network(4, (5, 12, 10, 3))
    write_network(network, tmp_path / "model.safetensors")
    x = torch.rand(8, 5, generator=torch.Generator().manual_seed(2))
    labels = network.evaluate(x).argmax(dim=1)
    radius = {"2": 0.1, "1": 0.15}[norm]
    data = x.numpy(), labels.numpy()
    found = certify(tmp_path / "model.safetensors", data, [radius], method="crown", norm=norm, clip=(0, 1), out=None)
    asked = [
        robust(row.double(), radius, int(k), 3, domain=(0.0, 1.0), norm=norm) for row, k in zip(x, labels, strict=True)
    ]
    words = [one.verdict for one in verify(tmp_path / "model.safetensors", asked, method="crown").properties]
    assert [word == "unsat" for word in words] == [found.brackets[i].lower >= radius for i in range(8)]
    assert len(set(words)) > 1
