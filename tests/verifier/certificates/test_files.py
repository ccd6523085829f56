"""Certificates written and read again: the domain is a pair of numbers, a box, or none."""

import numpy as np
import pytest
import torch

from encoders import BallRegion, Box
from tests.networks.chains import hinge_network
from verifier.bounds.split.search import decide_ball
from verifier.budget import Budget
from verifier.certificates.files import read_certificate, write_certificate

CENTRE = torch.tensor([[0.25, 0.5]], dtype=torch.float64)
DOMAINS = {
    "pair": (0.0, 1.0),
    "none": None,
    "box": Box(torch.tensor([[0.2, 0.5]], dtype=torch.float64), torch.tensor([[0.3, 0.51]], dtype=torch.float64)),
}


@pytest.mark.parametrize("name", DOMAINS)
def test_a_certificate_is_read_as_it_was_written_and_still_holds(name, tmp_path):
    network, domain = hinge_network(3, (2, 8, 6, 3)), DOMAINS[name]
    region = BallRegion(CENTRE, torch.full((1,), 0.02, dtype=torch.float64), domain)
    winner = int(network.evaluate(CENTRE).argmax())
    written = decide_ball(network, region, winner, lambda _: False, Budget(), 1000).certificate
    assert written is not None
    stored = write_certificate(written, tmp_path / "certificates", 4)
    read = read_certificate(tmp_path / stored.file, stored.sha256, 4)
    read.check(network)
    assert np.array_equal(read.centre, written.centre) and read.radius == written.radius
    if isinstance(domain, Box):
        assert isinstance(read.domain, Box)
        assert torch.equal(read.domain.lower, domain.lower) and torch.equal(read.domain.upper, domain.upper)
    else:
        assert read.domain == domain
