"""Certificates written and read again: the domain is a pair of numbers, a box, or none."""

import hashlib
import io
import json

import numpy as np
import pytest
import torch

from encoders import BallRegion, Box
from tests.networks.batches import random_batch
from tests.networks.chains import hinge_network
from verifier.bounds.split.search import decide_ball
from verifier.budget import Budget
from verifier.certificates.error import CertificateError
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


def rewritten(content: bytes, alter) -> bytes:
    """Return a file with its header and arrays altered."""
    arrays = dict(np.load(io.BytesIO(content)))
    header = json.loads(arrays.pop("header").tobytes())
    alter(header, arrays)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, header=np.frombuffer(json.dumps(header).encode(), dtype=np.uint8), **arrays)
    return buffer.getvalue()


ALTERED = {
    "schema 1": (lambda header, arrays: header.update(schema=1), "prove the answer again"),
    "schema 9": (lambda header, arrays: header.update(schema=9), "schema 9"),
    "more splits": (lambda header, arrays: arrays.update(splits=np.append(arrays["splits"], -1)), "more numbers"),
    "fewer sets": (lambda header, arrays: arrays.update(sets=arrays["sets"][:-1]), "are left"),
    "fewer places": (lambda header, arrays: arrays.update({"boxes.places": arrays["boxes.places"][:-1]}), "are left"),
    "fewer leaves": (lambda header, arrays: header["trees"][0].__setitem__(1, 0), "numbers"),
    "negative sets": (lambda header, arrays: header["trees"][0].__setitem__(2, -1), "are left"),
    "endless sets": (lambda header, arrays: header["trees"][0].__setitem__(2, 1 << 62), "are left"),
    "no numbers": (lambda header, arrays: arrays.pop("slopes"), "slopes"),
    "flat numbers": (lambda header, arrays: arrays.update(slopes=arrays["slopes"][0]), "no certificate"),
}


@pytest.mark.parametrize("name", ALTERED)
def test_counts_that_do_not_go_together_are_refused(name, tmp_path):
    network = hinge_network(1, (2, 8, 6, 3))
    batch = random_batch(network, 1, 1)
    written = decide_ball(network, batch.region(0.2167), int(batch.classes[0]), lambda _: False, Budget(), 1000)
    assert written.certificate is not None
    stored = write_certificate(written.certificate, tmp_path / "certificates", 4)
    alter, sentence = ALTERED[name]
    content = rewritten((tmp_path / stored.file).read_bytes(), alter)
    (tmp_path / "altered.npz").write_bytes(content)
    with pytest.raises(CertificateError, match=sentence):
        read_certificate(tmp_path / "altered.npz", hashlib.sha256(content).hexdigest(), 4).check(network)
