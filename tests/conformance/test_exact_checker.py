"""The checker in exact arithmetic accepts what searches prove, refuses what is false, and needs nothing but Python."""

import io
import json
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

import verifier_check
from encoders.formats.native import write_network
from encoders.network import INPUT, Network, Node
from encoders.ops import Affine, Concat, LogSoftmax, Relu, Reshape, Sigmoid, Softmax
from encoders.passes.class_scores import class_scores
from encoders.property import Halfspaces
from encoders.region import BallRegion
from tests.conftest import REPOSITORY
from tests.networks.batches import random_batch
from tests.networks.chains import chain, hinge_network
from tests.networks.hinge_graphs import hinge_networks, odd_network
from tests.networks.random_boxes import box_of, points_of
from tests.oracles.exact_checker import content_of, holds_exactly, plain
from tests.oracles.node_values import exact_values
from tests.oracles.polygons import least_margin
from verifier import certify, check
from verifier.bounds.inputs.certified import certificate_by_inputs
from verifier.bounds.split.search import decide_ball
from verifier.budget import Budget
from verifier.certificates.certificate import Certificate
from verifier.certificates.conjunctions import Conjunctions
from verifier.certificates.error import CertificateError
from verifier.certificates.input_tree import InputTree
from verifier.certificates.shortened import shortened
from verifier.certificates.sign_tree import SplitTree
from verifier.cli import main
from verifier_check import Refused, Undecided, boxes, file
from verifier_check.bounds import Program
from verifier_check.rewrites import scores
from verifier_check.sign_trees import check_signs

F64 = torch.float64
# Seeds of networks of two inputs, and radii at most 0.001 below the exact ones.
CASES = {1: 0.2167, 7: 0.1826}
PAST = 0.002
KINDS = {"sides": np.int32, "values": np.float64, "passes": np.uint8}


def by_signs(network: Network, region: BallRegion, winner: int) -> Certificate | None:
    return decide_ball(network, region, winner, lambda _: False, Budget(), 60).certificate


def by_inputs(network: Network, region: BallRegion, winner: int) -> Certificate | None:
    asked = Conjunctions.of_class(network.cast(torch.float64), winner)
    found = certificate_by_inputs(network, asked, region, winner, Budget(), 60)
    return found if isinstance(found, Certificate) else None


MAKERS = {"signs": by_signs, "inputs": by_inputs}


def certificates(networks: Iterator[Network], make: Callable[..., Certificate | None]) -> Iterator[tuple]:
    """Yield networks of which a small ball is proved, with its certificate."""
    for seed, network in enumerate(networks):
        if len(network.output_shape) != 1 or network.output_shape[0] < 2:
            continue
        centre = torch.from_numpy(np.random.default_rng(seed).normal(size=(1, *network.input_shape)))
        winner = int(network.evaluate(centre).argmax())
        found = make(network, BallRegion(centre, torch.tensor([0.1], dtype=torch.float64)), winner)
        if found is not None:
            yield network, found


@pytest.mark.parametrize("name", MAKERS)
def test_what_searches_prove_of_graphs_of_every_affine_op_holds_exactly(name: str) -> None:
    """Maps, pools, values read twice: both checkers accept, whatever rounding did to the fast one."""
    graphs = (*hinge_networks(8), *(odd_network(seed) for seed in range(9)))
    found = 0
    for network, certificate in certificates(iter(graphs), MAKERS[name]):
        certificate.check(network)
        assert holds_exactly(certificate, network) is True
        if name == "signs":
            assert holds_exactly(shortened(certificate, network), network) is True
        assert holds_exactly(replace(certificate, winner=1 - min(certificate.winner, 1)), network) is False
        found += 1
    assert found >= 8


def test_a_leaf_cuts_the_input_where_a_hinge_reads_it() -> None:
    """y = relu(x), margin y - x / 2 + 0.4: where x >= 0, y = x and the margin is x / 2 + 0.4, at least 0.4 there, while
    it would be -0.1 at x = -1, the end of the ball."""
    last = Affine(torch.tensor([[1.0, -0.5], [0.0, 0.0]], dtype=F64), torch.tensor([0.4, 0.0], dtype=F64))
    nodes = (
        Node("y", Relu(), (INPUT,)),
        Node("both", Concat(0), ("y", INPUT)),
        Node("classes", last, ("both",)),
    )
    network, none = Network(nodes, (1,), F64), np.zeros((1, 1))
    tree = SplitTree(1, np.array([0, -1, -1], dtype=np.int32), none, none, np.zeros(2, dtype=np.int32))
    centre, units = np.zeros(1), np.zeros(1, dtype=np.int32)
    certificate = Certificate(network.digest, centre, 1.0, None, 0, (), units, (tree,))
    certificate.check(network)
    assert holds_exactly(certificate, network) is True


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("seed", CASES)
def test_a_radius_past_the_exact_one_is_not_proved_exactly(name: str, seed: int) -> None:
    network = hinge_network(seed, (2, 8, 6, 3))
    batch = random_batch(network, 1, seed)
    certificate = MAKERS[name](network, batch.region(CASES[seed]), int(batch.classes[0]))
    assert certificate is not None and holds_exactly(certificate, network) is True
    lower, upper = (
        end[0].tolist() for end in (batch.region(CASES[seed] + PAST).lower, batch.region(CASES[seed] + PAST).upper)
    )
    assert not least_margin(network, lower, upper, certificate.winner) > 0
    assert holds_exactly(replace(certificate, radius=certificate.radius + PAST), network) is False


@pytest.mark.parametrize("seed", range(6))
def test_stated_slopes_hold_where_hinges_have_one_sign(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With JUST at 0 every hinge of one sign takes its slope, in all of which a bound lies below the values."""
    monkeypatch.setattr(boxes, "JUST", 0)
    network, generator = hinge_networks(12)[seed], np.random.default_rng(seed)
    box, bits, names = box_of(network, generator), 64, [node.name for node in network.nodes]
    ends = [
        [round(f(Fraction(v) * 2**bits)) for v in end.flatten().tolist()]
        for f, end in ((math.floor, box.lower), (math.ceil, box.upper))
    ]
    program = Program(plain(network), *ends, bits, True)
    while program.advance() is not None:
        pass
    output = names[-1]
    for point in points_of(box, generator, 4):
        values = exact_values(network, point)
        for place, value in enumerate(values[output]):
            slopes = {unit: int(generator.integers(0, 2**bits, dtype=np.uint64)) for unit in range(program.units)}
            for sign in (1, -1):
                bound = program.least(output, {place: sign << bits}, program.boxes, {}, slopes, {})
                assert Fraction(bound, 4**bits) <= sign * value


def test_a_unit_whose_box_begins_at_zero_may_take_the_slope_that_it_had_where_rounding_opened_it() -> None:
    """h = relu(x), z = h / 10, y = relu(z), margin y - 0.6 z + 0.01, x in [-1, 1].

    With y >= 0.6 z it is 0.01. With y = z, as z >= 0, it is 0.4 z + 0.01, and z >= x / 10 by the slope 1 of h: -0.03.
    Rounded outward z may be below 0.
    """
    first, scale = Affine(torch.ones(1, 1, dtype=F64), None), Affine(torch.tensor([[0.1]], dtype=F64), None)
    last = Affine(torch.tensor([[1.0, -0.6], [0.0, 0.0]], dtype=F64), torch.tensor([0.01, 0.0], dtype=F64))
    nodes = (
        Node("x", first, (INPUT,)),
        Node("h", Relu(), ("x",)),
        Node("z", scale, ("h",)),
        Node("y", Relu(), ("z",)),
        Node("both", Concat(0), ("y", "z")),
        Node("classes", last, ("both",)),
    )
    assert_just_proved(Network(nodes, (1,), F64), np.array([[1.0, 0.6]]), np.zeros((1, 2)))


def test_a_unit_whose_box_begins_at_zero_is_bounded_as_it_was_where_rounding_opened_it() -> None:
    """z = (relu(x) + relu(-x)) / 10, y = relu(z), margin 0.15 - y, x in [-1, 1].

    z counts for y by its box: at most 0.2 by intervals, and 0.1 by lines.
    """
    pair = Affine(torch.tensor([[1.0], [-1.0]], dtype=F64), None)
    total = Affine(torch.tensor([[0.1, 0.1]], dtype=F64), None)
    last = Affine(torch.tensor([[-1.0], [0.0]], dtype=F64), torch.tensor([0.15, 0.0], dtype=F64))
    nodes = (
        Node("x", pair, (INPUT,)),
        Node("h", Relu(), ("x",)),
        Node("z", total, ("h",)),
        Node("y", Relu(), ("z",)),
        Node("classes", last, ("y",)),
    )
    assert_just_proved(Network(nodes, (1,), F64), np.zeros((1, 3)), np.array([[0.0, 0.0, -1.0]]))


def assert_just_proved(network: Network, slopes: np.ndarray, multipliers: np.ndarray) -> None:
    """Both checkers accept numbers as those of the one leaf about inputs in [-1, 1]; exactly only with open units."""
    tree = SplitTree(1, np.array([-1], dtype=np.int32), slopes, multipliers, np.zeros(1, dtype=np.int32))
    units = np.arange(slopes.shape[1], dtype=np.int32)
    certificate = Certificate(network.digest, np.zeros(1), 1.0, None, 0, (), units, (tree,))
    certificate.check(network)
    assert holds_exactly(certificate, network) is True
    exactly = file.Certificate(content_of(certificate))
    with pytest.raises(Refused):
        check_signs(exactly, plain(network), 512)


def test_scores_of_classifiers_have_the_digest_of_the_document() -> None:
    two, one = (Affine(torch.randn(k, 3, generator=torch.Generator().manual_seed(k))) for k in (2, 1))
    for ops in (
        (two, LogSoftmax(0)), (two, Reshape((1, 2)), LogSoftmax(1)), (two, Reshape((1, 2))), (one, Sigmoid()), (one,),
        (Relu(), two, Sigmoid(), Reshape((2, 1))), (one, Reshape((1, 1)), Sigmoid()), (Relu(),), (two,),
    ):  # fmt: skip
        network = chain((3,), *ops)
        assert plain(network).digest == network.digest
        assert scores(plain(network)).digest == class_scores(network).network.digest


def test_a_property_of_several_rows_holds_or_not() -> None:
    """Unsafe is where both outputs are low: the combination of the rows decides, no row alone does."""
    weight = torch.tensor([[1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64)
    network = chain((2,), Affine(weight), Relu(), Affine(torch.eye(2, dtype=torch.float64)), dtype=torch.float64)
    both = Halfspaces(torch.eye(2, dtype=torch.float64), torch.full((2,), 0.2, dtype=torch.float64))
    asked = Conjunctions.of_polyhedra(network, (both,))
    region = BallRegion(torch.tensor([[0.0, 1.0]], dtype=torch.float64), torch.full((1,), 0.7, dtype=torch.float64))
    certificate = certificate_by_inputs(network, asked, region, 0, Budget(), 200)
    assert isinstance(certificate, Certificate)
    content, own = content_of(certificate), plain(network)

    def word(offset: float) -> bytes:
        return json.dumps({"unsafe": [{"coefficients": [[1, 0], [0, 1]], "offsets": [offset, offset]}]}).encode()

    verifier_check.check_certificate(content, own, word(0.2))
    with pytest.raises(Refused, match="not refuted"):
        verifier_check.check_certificate(content, own, word(0.4))


BOX = "".join(
    f"(declare-const X_{i} Real)(assert (>= X_{i} {a}))(assert (<= X_{i} {b}))"
    for i, a, b in ((0, "-0.7", "0.7"), (1, "0.3", "1.7"))
)


def test_vnn_lib_text_is_answered_by_what_covers_its_box_and_its_rows_alone() -> None:
    """Written numbers are decimals: .7 is above the float .7, so that a ball of that radius does not cover it."""
    weight = torch.tensor([[1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64)
    network = chain((2,), Affine(weight), Relu(), Affine(torch.eye(2, dtype=torch.float64)), dtype=torch.float64)
    own = plain(network)
    region = BallRegion(torch.tensor([[0.0, 1.0]], dtype=torch.float64), torch.full((1,), 0.71, dtype=torch.float64))
    both = Halfspaces(torch.eye(2, dtype=torch.float64), torch.full((2,), 0.2, dtype=torch.float64))
    certificate = certificate_by_inputs(network, Conjunctions.of_polyhedra(network, (both,)), region, 0, Budget(), 200)
    assert isinstance(certificate, Certificate)
    content = content_of(certificate)
    for rows in ("(assert (<= Y_0 0.2))(assert (< Y_1 0.2)) ; both", "(assert (or (and (>= 2e-1 Y_0) (<= Y_1 0.1))))"):
        assert "property" in verifier_check.check_certificate(content, own, f"{BOX}{rows}".encode())[0]
    for text, words in (
        (BOX + "(assert (<= Y_0 0.5))(assert (<= Y_1 0.5))", "not refuted"),
        (BOX.replace("-0.7", "-0.72") + "(assert (<= Y_0 0.2))(assert (<= Y_1 0.2))", "does not cover input 0"),
        (BOX[BOX.index("(declare-const X_1"):] + "(assert (<= Y_0 0.2))(assert (<= Y_1 0.2))", "bound each input"),
        (BOX + "(assert (<= Y_0 0.2))(assert (<= Y_2 0.2))", "beyond the 2"),
        (BOX + "(assert (<= Y_0 0.2)", "no property"),
    ):  # fmt: skip
        with pytest.raises(Refused, match=words):
            verifier_check.check_certificate(content, own, text.encode())
    for text in (BOX + "(assert (<= (+ Y_0 Y_1) 0.2))", BOX + "(assert (or (<= Y_0 0.2) (<= X_0 0.1)))"):
        with pytest.raises(Undecided, match="VNN-LIB"):
            verifier_check.check_certificate(content, own, text.encode())


def test_a_class_answers_comparisons_with_it_of_outputs_behind_a_sigmoid_and_no_other_rows() -> None:
    """Scores in front of a last sigmoid are in the order of the outputs; about their values they say nothing."""
    eye = Affine(torch.eye(2, dtype=torch.float64))
    network = chain((2,), eye, Relu(), eye, Sigmoid(), dtype=torch.float64)
    region = BallRegion(torch.tensor([[2.0, 0.5]], dtype=torch.float64), torch.full((1,), 0.5, dtype=torch.float64))
    box = "(assert (>= X_0 1.75))(assert (<= X_0 2))(assert (>= X_1 0.25))(assert (<= X_1 1))"
    for make in MAKERS.values():
        certificate = make(class_scores(network).network, region, 0)
        assert certificate is not None
        content, own = content_of(certificate), plain(network)
        assert verifier_check.check_certificate(content, own, f"{box}(assert (<= Y_0 Y_1))".encode())[0]
        # The score is at least 1.5, the output at most 1.
        with pytest.raises(Refused, match="more than their order"):
            verifier_check.check_certificate(content, own, f"{box}(assert (<= Y_0 1.4))".encode())
    with pytest.raises((Refused, Undecided)):
        verifier_check.check_certificate(content, own, f"{box}(assert (<= Y_1 Y_0))".encode())


def test_other_networks_schemas_and_broken_files_are_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = hinge_network(7, (2, 8, 6, 3))
    batch = random_batch(network, 1, 7)
    certificate = by_signs(network, batch.region(0.1), int(batch.classes[0]))
    assert certificate is not None
    content, own = content_of(certificate), plain(network)
    started = time.perf_counter()
    with pytest.raises(Refused, match="about network"):
        verifier_check.check_certificate(content, plain(hinge_network(8, (2, 8, 6, 3))))
    entry = content.index(b"PK\x01\x02")
    locked = content[: entry + 8] + b"\x01" + content[entry + 9 :]
    for broken in (b"", content[:-30], content[: len(content) // 2], b"PK" + content[2:60], b"[" * 100_000, locked):
        with pytest.raises(Refused):
            verifier_check.check_certificate(broken, own)
    with pytest.raises(Refused, match="bytes, more than"):
        verifier_check.check_certificate(bytes((1 << 26) + 1), own)
    header = np.frombuffer(b"[" * 100_000, dtype=np.uint8)
    np.savez(tmp_path / "deep.npz", header=header)
    np.savez(tmp_path / "schema.npz", header=np.frombuffer(json.dumps({"schema": 9}).encode(), dtype=np.uint8))
    np.savez_compressed(tmp_path / "large.npz", header=header, zeros=np.zeros(1 << 17))
    monkeypatch.setattr(file, "MOST_UNPACKED", 1000)
    for name, words in (("deep", "no certificate"), ("schema", "schema 9"), ("large", "unpacks")):
        with pytest.raises(Refused, match=words):
            verifier_check.check_certificate((tmp_path / f"{name}.npz").read_bytes(), own)
    assert time.perf_counter() - started < 5


def test_it_runs_alone_without_any_package_and_says_what_it_does_not_support(tmp_path: Path) -> None:
    network = hinge_network(7, (2, 8, 6, 3))
    batch = random_batch(network, 1, 7)
    certificate = by_signs(network, batch.region(0.1), int(batch.classes[0]))
    assert certificate is not None
    shutil.copytree(REPOSITORY / "verifier_check", tmp_path / "verifier_check")
    shutil.copy(REPOSITORY / "verifier_check.py", tmp_path)
    write_network(network, tmp_path / "network.safetensors")
    write_network(chain((2,), Affine(torch.eye(2)), Sigmoid(), Affine(torch.eye(2))), tmp_path / "smooth.safetensors")
    (tmp_path / "own.npz").write_bytes(content_of(certificate))
    (tmp_path / "false.npz").write_bytes(content_of(replace(certificate, radius=certificate.radius + 0.2)))

    def status(*arguments: str, program: tuple[str, ...] = ("-m", "verifier_check")) -> tuple[int, str]:
        command = [sys.executable, "-S", "-E", *program, *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        return done.returncode, done.stdout

    assert status("network.safetensors", "own.npz") == (0, status("network.safetensors", "own.npz")[1])
    assert status("network.safetensors", "own.npz", program=("verifier_check.py",))[0] == 0
    code, words = status("network.safetensors", "own.npz", "false.npz")
    assert code == 1 and "own.npz: holds" in words and "DOES NOT HOLD" in words
    assert status("missing.safetensors", "own.npz")[0] == 2
    smooth = chain((2,), Affine(torch.eye(2)), Sigmoid(), Affine(torch.eye(2)))
    small = BallRegion(torch.tensor([[0.9, 0.1]], dtype=torch.float64), torch.full((1,), 0.1, dtype=torch.float64))
    made = by_inputs(smooth, small, 0)
    assert made is not None
    (tmp_path / "smooth.npz").write_bytes(content_of(made))
    assert status("smooth.safetensors", "smooth.npz")[0] == 0
    shares = chain((2,), Affine(torch.eye(2)), Softmax(0), Affine(torch.eye(2)))
    made = by_inputs(shares, small, 0)
    assert made is not None
    with pytest.raises(Undecided, match="softmax"):
        verifier_check.check_certificate(content_of(made), plain(shares))


def test_runs_are_checked_exactly_or_by_a_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    certify("digits-relu", "digits", [0.02], method="exact", limit=4, out=run)
    model = REPOSITORY / "verifier/zoo/digits-relu.safetensors"
    found = check(run, exact=math.inf)
    assert not found.refused and found.exact == found.checked >= 3 and found.exact_leaves == found.leaves
    assert check(run, exact=2).exact == 2
    assert verifier_check.main([str(model), str(run)]) == 0
    assert verifier_check.main([str(model), str(run), "--sample", "1"]) == 0
    assert main(["check", str(run), "--exact"]) == 0
    assert "in exact arithmetic" in capsys.readouterr().out
    assert main(["check", str(run), "--sample", "1", "--exact"]) == 0
    assert "1 of them hold in exact arithmetic" in capsys.readouterr().out
    with pytest.raises(ValueError, match="-1 certificates"):
        check(run, exact=-1)
    # What takes too long is neither proved nor refused.
    shown: list[tuple[int, int]] = []
    with pytest.raises(ValueError, match="--exact or --sample"):
        check(run, time_limit=1.0)
    late = check(run, exact=math.inf, time_limit=1e-9, progress=lambda *counts: shown.append(counts))
    assert late.exact == 0 and late.undecided == {"it takes more than 1e-09 s": late.checked} and not late.refused
    assert shown[-1] == (4 + late.checked - 1, 4 + late.checked)
    assert main(["check", str(run), "--exact", "--time-limit", "1e-9"]) == 0
    assert "not decided in exact arithmetic: it takes more than" in capsys.readouterr().out
    assert verifier_check.main([str(model), str(run), "--time-limit", "1e-9"]) == 3
    records, settings = (run / "records.jsonl").read_text(), (run / "run.json").read_text()
    capsys.readouterr()
    for field, value in (("radius", "0.03"), ("lower", "0.03"), ("lower", "null")):
        (run / "records.jsonl").write_text(records.replace(f'"{field}": 0.02', f'"{field}": {value}'))
        assert verifier_check.main([str(model), str(run)]) == 1
    assert "does not cover, in input 0, the radius" in capsys.readouterr().out
    (run / "records.jsonl").write_text(records)
    for own, status in (({"scale": [1.0] * 64}, 0), ({"scale": [1.0] * 63 + [1.01]}, 1), ({"fixed": [63]}, 0)):
        (run / "run.json").write_text(json.dumps(json.loads(settings) | own))
        assert verifier_check.main([str(model), str(run)]) == status
    (run / "run.json").write_text(settings)
    first, *others = records.splitlines()
    without = {name: value for name, value in json.loads(first).items() if name != "certificate"}
    (run / "records.jsonl").write_text("\n".join([json.dumps(without), *others]))
    assert verifier_check.main([str(model), str(run)]) == 0
    assert "nothing is said of" in capsys.readouterr().out
    (run / "records.jsonl").write_text("")
    assert verifier_check.main([str(model), str(run)]) == 2
    assert "name no certificate" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["signs", "inputs", "distances"])
def test_of_a_single_number_no_class_wins_whatever_the_trees(kind: str) -> None:
    """It has no rivals, so that trees against each of them say nothing: y = relu(x) + 1 is of class 1 everywhere."""
    network = chain((1,), Relu(), Affine(torch.ones(1, 1), torch.ones(1)))
    claim = (network.digest, np.zeros(1), 5.0, None, 0, (), np.zeros(0, dtype=np.int32), ())
    leaf = np.array([-1], dtype=np.int32)
    made = {
        "signs": Certificate(*claim),
        "inputs": Certificate(*claim, InputTree(leaf, np.zeros(1), np.zeros(1, dtype=bool))),
        "distances": Certificate(*claim, distances=()),
    }[kind]
    with pytest.raises(CertificateError, match="two or more"):
        made.check(network)
    content = content_of(made) if kind != "distances" else with_distances(content_of(made))
    with pytest.raises(Refused, match="two or more"):
        verifier_check.check_certificate(content, plain(network))


def with_distances(content: bytes) -> bytes:
    """Return a certificate whose header says that it holds trees of contraction, none of them."""
    with np.load(io.BytesIO(content)) as archive:
        arrays = {name: archive[name] for name in ("header", "centre")}
    header = json.loads(arrays["header"].tobytes()) | {"schema": 3, "distances": []}
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    arrays |= {f"distances.{name}": np.zeros(0, dtype=kind) for name, kind in KINDS.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
