"""What files, folders and options could make the exact checker say of another claim than is meant, or of none."""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import verifier_check
from encoders.formats.native import write_network
from encoders.network import Network
from encoders.ops import Affine, Reshape
from tests.networks.chains import chain
from tests.oracles.exact_checker import content_of, plain
from verifier.certificates.certificate import Certificate
from verifier.certificates.error import CertificateError
from verifier.certificates.exactly import ExactChecker
from verifier.certificates.files import read_certificate
from verifier.certificates.input_tree import InputTree
from verifier.npz import read_npz
from verifier_check import Refused, Undecided, read_network
from verifier_check.file import Certificate as PlainCertificate

POINT = [[[0.0, 1.0], [0.0, 0.0]]]


def of_one_leaf() -> tuple[Network, Certificate]:
    """Return a network of a map of 2 x 2 cells, whose class 0 wins where the second cell is above the third."""
    network = chain((1, 2, 2), Reshape((4,)), Affine(torch.tensor([[0.0, 1.0, -1.0, 0.0], [0.0, -1.0, 1.0, 0.0]])))
    tree = InputTree(np.array([-1], dtype=np.int32), np.zeros(1), np.zeros(1, dtype=bool))
    none = np.zeros(0, dtype=np.int32)
    return network, Certificate(network.digest, np.array(POINT), 0.1, None, 0, (), none, (), tree)


def with_arrays(content: bytes, **arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **(read_npz(content) | arrays))
    return buffer.getvalue()


def test_arrays_stored_by_columns_are_of_no_other_point(tmp_path: Path) -> None:
    """The bytes of POINT, marked as stored by columns, are its mirror image, where class 1 wins."""
    network, certificate = of_one_leaf()
    certificate.check(network)
    content = content_of(certificate)
    assert verifier_check.check_certificate(content, plain(network))[1] == 1
    forged = with_arrays(content, centre=np.asfortranarray(np.array(POINT).transpose(0, 2, 1)))
    (tmp_path / "forged.npz").write_bytes(forged)
    named = hashlib.sha256(forged).hexdigest()
    with pytest.raises(CertificateError, match="not refuted"):
        read_certificate(tmp_path / "forged.npz", named, 0).check(network)
    with pytest.raises(Undecided, match="by columns"):
        verifier_check.check_certificate(forged, plain(network))


def test_a_domain_has_the_shape_of_the_centre() -> None:
    content = content_of(of_one_leaf()[1])
    ends = {"domain.lower": np.zeros((1, 2, 2)), "domain.upper": np.ones((1, 2, 2))}
    assert PlainCertificate(with_arrays(content, **ends)).domain is not None
    with pytest.raises(Refused, match="domain"):
        PlainCertificate(with_arrays(content, **{name: end.reshape(2, 2, 1) for name, end in ends.items()}))


@pytest.mark.parametrize("options", [["--sample", "0"], ["--sample", "-2"], ["--time-limit", "nan"]])
def test_nothing_drawn_and_no_time_are_no_arguments(options: list[str], tmp_path: Path) -> None:
    """Of no certificate at all each would hold, with exit status 0."""
    network, certificate = of_one_leaf()
    write_network(network, tmp_path / "network.safetensors")
    (tmp_path / "own.npz").write_bytes(content_of(certificate))
    names = [str(tmp_path / "network.safetensors"), str(tmp_path / "own.npz")]
    assert verifier_check.main([*names, "--sample", "1", "--time-limit", "60"]) == 0
    with pytest.raises(SystemExit) as stopped:
        verifier_check.main([*names, *options])
    assert stopped.value.code == 2


def test_what_memory_does_not_allow_is_not_decided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    network, certificate = of_one_leaf()
    write_network(network, tmp_path / "network.safetensors")
    (tmp_path / "own.npz").write_bytes(content_of(certificate))

    def without_memory(*arguments: object) -> int:
        raise MemoryError

    monkeypatch.setattr("verifier_check.certificate.check_inputs", without_memory)
    assert verifier_check.main([str(tmp_path / "network.safetensors"), str(tmp_path / "own.npz")]) == 3
    assert "not decided: it needs more memory" in capsys.readouterr().out
    assert ExactChecker().leaves(content_of(certificate), network, None) == "it needs more memory than there is"


@pytest.mark.parametrize(
    ("op", "settings"),
    [
        ("axis-sum", {"axes": [-1], "size": 2, "keep_axes": False}),
        ("axis-sum", {"axes": [1, 1], "size": 4, "keep_axes": False}),
        ("average-pool2d", {"kernel": [1, 1], "stride": [1, 1], "padding": [0] * 4, "count_padding": "false"}),
        ("max-pool2d", {"kernel": [1, 1], "stride": [1, 1, 2], "padding": [0] * 4, "dilation": [1, 1]}),
        ("reshape", {"shape": [True, 4]}),
    ],
)
def test_settings_that_the_format_does_not_have_are_refused(op: str, settings: dict[str, object]) -> None:
    nodes = [{"name": "own", "op": op, "inputs": ["input"], "settings": settings}]
    graph = json.dumps({"dtype": "float32", "input_shape": [1, 2, 2], "nodes": nodes})
    texts = {"format": "robustness-verifier-network", "schema": "1", "network": graph}
    header = json.dumps({"__metadata__": texts}).encode()
    with pytest.raises(Refused, match=r"own|no network file"):
        read_network(len(header).to_bytes(8, "little") + header)


def test_a_property_that_says_more_than_is_read_is_refused() -> None:
    network, certificate = of_one_leaf()
    content, asked = content_of(certificate), {"unsafe": [{"coefficients": [[1.0, -1.0]], "offsets": [0.0]}]}
    assert verifier_check.check_certificate(content, plain(network), json.dumps(asked).encode())[1] == 1
    for more in (asked | {"lower": [0.0] * 4}, {"unsafe": [asked["unsafe"][0] | {"inputs": [[1.0] * 4]}]}):
        with pytest.raises(Refused, match="nothing else"):
            verifier_check.check_certificate(content, plain(network), json.dumps(more).encode())
