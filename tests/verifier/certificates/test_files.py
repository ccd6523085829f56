"""Certificates written and read again: the domain is a pair of numbers, a box, or none."""

import hashlib
import io
import json
import time
import tracemalloc

import numpy as np
import pytest
import torch

import verifier_check
from encoders import BallRegion, Box
from tests.networks.batches import random_batch
from tests.networks.chains import hinge_network
from tests.oracles.exact_checker import content_of, plain
from verifier.bounds.split.search import decide_ball
from verifier.budget import Budget
from verifier.certificates.error import CertificateError
from verifier.certificates.files import read_certificate, write_certificate
from verifier.certificates.shortened import shortened
from verifier_check.file import Certificate as PlainCertificate
from verifier_check.time_limit import TimeLimit
from verifier_check.trees import leaf_signs

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


def long_numbers(value: float):
    """Return an alteration that gives the first set of numbers as floats, one multiplier of them another value."""

    def alter(header, arrays):
        assert "long" not in arrays
        sets = arrays["slopes"].shape[1]
        halves = (arrays["multipliers"][0].astype(np.uint16) << 8 | arrays["multipliers"][1]).astype(np.uint32) << 16
        multipliers = halves.view(np.float32).astype(np.float64).T[:1].copy()
        multipliers[0, 0] = value
        arrays["long"] = np.arange(sets) == 0
        arrays |= {"long.slopes": arrays["slopes"].T[:1] / 255.0, "long.multipliers": multipliers}
        arrays["slopes"], arrays["multipliers"] = arrays["slopes"][:, 1:], arrays["multipliers"][:, :, 1:]

    return alter


def not_finite(header, arrays):
    arrays["multipliers"] = arrays["multipliers"].copy()
    arrays["multipliers"][:, 0, 0] = 0x7F, 0xC0


# What is asked of the file before anything of it is evaluated: alterations, and a word of what both checkers say.
NO_FILES = {
    "unknown array": (lambda header, arrays: arrays.update(extra=np.zeros(3)), "extra"),
    "array of another kind": (lambda header, arrays: arrays.update({"inputs.values": np.zeros(3)}), "inputs.values"),
    "unknown field": (lambda header, arrays: header.update(note="x"), "note"),
    "trees of units that no field names": (
        lambda header, arrays: arrays.update({"unit_trees.0.places": np.zeros(0, np.uint8)}), "unit_trees.0.places",
    ),
    "half of a domain": (
        lambda header, arrays: (header.update(domain=None), arrays.update({"domain.lower": np.zeros(2)})), "upper",
    ),
    "marks without numbers": (lambda header, arrays: arrays.update(long=np.zeros(9, bool)), "long.slopes"),
    "NaN multiplier": (not_finite, "finite"),
    "long NaN": (long_numbers(np.nan), "NaN"),
    "long infinity": (long_numbers(np.inf), "NaN or infinity"),
    "infinite radius": (lambda header, arrays: header.update(radius=np.inf), "Infinity"),
    "radius as text": (lambda header, arrays: header.update(radius="0.1"), "'0.1'"),
    "class that is no whole number": (lambda header, arrays: header.update(winner=float(header["winner"])), "whole"),
    "class that is a truth value": (lambda header, arrays: header.update(winner=True), "whole"),
    "schema that is no whole number": (lambda header, arrays: header.update(schema=2.0), "2.0"),
    "text in the domain": (lambda header, arrays: header.update(domain=["0", "1"]), "'0'"),
    "long header": (lambda header, arrays: header.update(digest="0" * (1 << 24)), "bytes, more than"),
}  # fmt: skip


def test_what_a_file_does_not_hold_by_its_kind_is_refused_by_name_by_both_checkers(tmp_path):
    network = hinge_network(1, (2, 8, 6, 3))
    batch = random_batch(network, 1, 1)
    written = decide_ball(network, batch.region(0.2167), int(batch.classes[0]), lambda _: False, Budget(), 1000)
    assert written.certificate is not None
    stored = write_certificate(shortened(written.certificate, network), tmp_path / "certificates", 4)
    given = (tmp_path / stored.file).read_bytes()
    held = rewritten(given, long_numbers(0.0))
    for content, word in ((held, None), *((rewritten(given, alter), word) for alter, word in NO_FILES.values())):
        (tmp_path / "altered.npz").write_bytes(content)
        said = []
        started = time.process_time()
        for reads in (
            lambda content=content: read_certificate(tmp_path / "altered.npz", hashlib.sha256(content).hexdigest(), 4),
            lambda content=content: verifier_check.check_certificate(content, plain(network)),
        ):
            try:
                reads()
            except (CertificateError, verifier_check.Refused) as error:
                said.append(str(error))
        assert len(said) == (0 if word is None else 2) and all(word in each for each in said), (word, said)
        assert time.process_time() - started < 1


def test_a_field_that_stands_twice_is_refused_by_both_checkers(tmp_path):
    """The last of two radii would count in Python, the first elsewhere."""
    network = hinge_network(1, (2, 8, 6, 3))
    batch = random_batch(network, 1, 1)
    written = decide_ball(network, batch.region(0.01), int(batch.classes[0]), lambda _: False, Budget(), 1000)
    stored = write_certificate(written.certificate, tmp_path / "certificates", 4)
    arrays = dict(np.load(tmp_path / stored.file))
    text = arrays.pop("header").tobytes().replace(b'"winner"', b'"radius": 0.5, "winner"')
    np.savez(tmp_path / "twice.npz", header=np.frombuffer(text, dtype=np.uint8), **arrays)
    content = (tmp_path / "twice.npz").read_bytes()
    with pytest.raises(CertificateError, match="twice"):
        read_certificate(tmp_path / "twice.npz", hashlib.sha256(content).hexdigest(), 4)
    with pytest.raises(verifier_check.Refused, match="twice"):
        PlainCertificate(content)


def file_of_network(shape, nodes, tensors=()):
    """Return a network's native file; nodes: (op, inputs, settings); tensors: (name, data, repeats)."""
    data, header = b"", {}
    for name, values in tensors:
        stored = np.asarray(values, dtype=np.float32)
        header[name] = {
            "dtype": "F32",
            "shape": list(stored.shape),
            "data_offsets": [len(data), len(data) + stored.nbytes],
        }
        data += stored.tobytes()
    entries = [
        {"name": f"n{i}", "op": op, "inputs": inputs, "settings": settings}
        for i, (op, inputs, settings) in enumerate(nodes)
    ]
    graph = json.dumps({"input_shape": shape, "dtype": "float32", "nodes": entries})
    texts = {"format": "robustness-verifier-network", "schema": "1", "network": graph}
    text = json.dumps({"__metadata__": texts, **header}).encode()
    return len(text).to_bytes(8, "little") + text + data


FAR, WINDOW = 10**9, {"stride": [1, 1], "padding": [0, 0, 0, 0], "dilation": [1, 1]}
KERNEL = [("0.weight", np.ones((1, 1, 1, 1)))]
LARGE = {
    "padding": ((1, 2, 2), [("conv2d", ["input"], {**WINDOW, "padding": [FAR, FAR, FAR, FAR], "groups": 1})], KERNEL),
    "padding of a pool": (
        (1, 2, 2),
        [("max-pool2d", ["input"], {**WINDOW, "padding": [FAR] * 4, "kernel": [2, 2]})],
        (),
    ),
    "kernel": ((1, 2, 2), [("max-pool2d", ["input"], {**WINDOW, "padding": [FAR] * 4, "kernel": [2 * FAR] * 2})], ()),
    "doubled": ((2,), [("concat", [f"n{i - 1}" if i else "input"] * 2, {"axis": 0}) for i in range(60)], ()),
    "input": ((FAR, FAR), [("relu", ["input"], {})], ()),
}


@pytest.mark.parametrize("name", LARGE)
def test_networks_too_large_for_exact_arithmetic_are_told_from_their_shapes_at_once(name):
    shape, nodes, tensors = LARGE[name]
    started = time.process_time()
    with pytest.raises(verifier_check.Undecided, match=r"values and .* products"):
        verifier_check.read_network(file_of_network(shape, nodes, tensors))
    assert time.process_time() - started < 1


def test_settings_that_are_no_sizes_and_tensors_that_overlap_are_refused_at_once():
    started = time.process_time()
    for changed in ({"stride": [0, 1]}, {"stride": [1e-300, 1]}, {"padding": [-1, 0, 0, 0]}, {"dilation": ["1", 1]}):
        content = file_of_network((1, 2, 2), [("conv2d", ["input"], {**WINDOW, "groups": 1, **changed})], KERNEL)
        with pytest.raises((verifier_check.Refused, verifier_check.Undecided)):
            verifier_check.check_certificate(b"", verifier_check.read_network(content))
    content = file_of_network((2,), [("affine", [f"n{i - 1}" if i else "input"], {}) for i in range(3)],
                              [(f"{i}.weight", np.eye(2)) for i in range(3)])  # fmt: skip
    assert verifier_check.read_network(content)
    shared = content.replace(b"[16, 32]", b"[ 0, 16]").replace(b"[32, 48]", b"[ 0, 16]")[:-32]
    with pytest.raises(verifier_check.Refused, match="overlap"):
        verifier_check.read_network(shared)
    assert time.process_time() - started < 1


def test_what_takes_longer_than_the_limit_is_not_decided():
    """Every kind of tree asks the clock: with no time left none of them holds, and none is refused."""
    network = hinge_network(1, (2, 8, 6, 3))
    batch = random_batch(network, 1, 1)
    written = decide_ball(network, batch.region(0.01), int(batch.classes[0]), lambda _: False, Budget(), 1000)
    with pytest.raises(verifier_check.Undecided, match="more than 0 s"):
        verifier_check.check_certificate(content_of(written.certificate), plain(network), None, TimeLimit(0.0))


def test_a_deep_tree_takes_no_more_room_than_its_splits():
    """Of 20,000 units, one split after the other: paths side by side would be 200 million signs."""
    units = 20_000
    leaves = leaf_signs([*range(units), -1, *[-1] * units], units)
    tracemalloc.start()
    assert len(next(leaves)) == units and next(leaves)[units - 1] == -1
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1 << 24
