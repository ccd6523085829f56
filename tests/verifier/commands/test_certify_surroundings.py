"""Scales, domains and fixed inputs, end to end: against grids, against networks in other units, and forged."""

import json
import shutil
from fractions import Fraction

import numpy as np
import pytest
import torch

from encoders import write_network
from encoders.ops import Affine, Relu
from tests.networks.chains import chain, random_relu_network
from tests.runs.files import records_of, write_records
from verifier import attack, certify, check, compare, robustness
from verifier.cli import main
from verifier.runs.records import configuration_digest

RADII = [0.05, 0.2, 0.6]
SCALE = (0.5, 2.0, 0.1)
# Points along each side of a box.
GRID = 13
SLOWER = ("interval", "alpha-crown", "lp", "milp", "input-split")


def drawn(tmp_path, seed: int, count: int = 4, inputs: int = 3):
    """Return (network, model file, x, y): a random network and inputs labelled by it."""
    network = random_relu_network(seed, (inputs, 6, 5, 3))
    path = tmp_path / f"model-{seed}.safetensors"
    write_network(network, path)
    x = torch.rand(count, inputs, generator=torch.Generator().manual_seed(seed)).numpy()
    return network, path, x, network.evaluate(torch.from_numpy(x)).argmax(dim=1).numpy()


def nearest_on_grid(network, centre, label, widths, domain) -> tuple[float, float]:
    """Return (least scaled distance of an unsafe point on a grid of the largest box, the spacing there)."""
    moving = widths > 0
    lower, upper = (
        np.maximum(centre - widths * max(RADII), domain[0]),
        np.minimum(centre + widths * max(RADII), domain[1]),
    )
    sides = [
        np.linspace(a, b, GRID) if m else np.array([c]) for a, b, m, c in zip(lower, upper, moving, centre, strict=True)
    ]
    points = np.stack([side.ravel() for side in np.meshgrid(*sides)], axis=1)
    outputs = network.cast(torch.float64, torch.device("cpu")).evaluate(torch.from_numpy(points)).numpy()
    others = np.delete(outputs, label, axis=1).max(axis=1)
    unsafe = points[others >= outputs[:, label]]
    away = np.abs(unsafe - centre)[:, moving] / widths[moving]
    return float(away.max(axis=1).min()) if len(unsafe) else np.inf


@pytest.mark.parametrize(
    "method", ["auto", "crown", "exact", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOWER)]
)
def test_brackets_are_in_units_of_the_scale(tmp_path, method):
    for seed in range(2, 4):
        network, path, x, y = drawn(tmp_path, seed)
        domain = np.array([[-0.1, 0.0, 0.0], [1.0, 1.2, 1.0]])
        found = certify(
            path, (x, y), RADII, method=method, scale=SCALE, clip_file=domain, fix=[2] if seed == 2 else (), out=None
        )
        widths = np.array(SCALE) * ([1, 1, 0] if seed == 2 else 1)
        for index, bracket in found.brackets.items():
            centre = x[index].astype(np.float64)
            near = nearest_on_grid(network, centre, y[index], widths, domain)
            assert bracket.lower < near, (seed, index)
            if method == "exact":
                assert bracket.upper <= near * (1 + 1e-9) or near > max(RADII)
                assert all(row.open == 0 for row in found.results)


@pytest.mark.parametrize(
    "method", ["exact", *(pytest.param(name, marks=pytest.mark.slow) for name in ("input-split", "milp"))]
)
def test_a_scale_of_powers_of_two_is_a_network_in_other_units(tmp_path, method):
    network, path, x, y = drawn(tmp_path, 5, count=6)
    scale = np.array([0.25, 2.0, 1.0], dtype=np.float32)
    first = network.nodes[0].op
    rest = [node.op for node in network.nodes[1:]]
    other = chain((3,), Affine(first.weight * torch.from_numpy(scale), first.bias), *rest)
    write_network(other, tmp_path / "other.safetensors")
    scaled = certify(path, (x, y), RADII, method=method, scale=scale, out=None)
    plain = certify(tmp_path / "other.safetensors", (x / scale, y), RADII, method=method, out=None)
    assert [(row.certified, row.falsified) for row in scaled.results] == [
        (row.certified, row.falsified) for row in plain.results
    ]
    assert scaled.results[-1].falsified > 0


def test_the_margin_of_one_difference_has_the_radius_of_the_scaled_norm(tmp_path):
    """y = x_0 - x_1 at (3, 2): unsafe from e with e (s_0 + s_1) = 1 on; with x_1 fixed from e s_0 = 1 on."""
    model = tmp_path / "difference.safetensors"
    write_network(chain((2,), Affine(torch.eye(2)), Relu(), Affine(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))), model)
    data = (np.array([[3.0, 2.0]]), np.array([0]))
    for scale, fix, radius in [((0.3, 0.1), (), 2.5), ((0.3, 0.1), ["1"], 10 / 3), ((0.3, 0.0), (), 10 / 3)]:
        options = {"method": "exact", "scale": list(scale), "fix": fix, "out": None}
        (bracket,) = certify(model, data, [radius * 0.999, radius * 1.001], **options).brackets.values()
        assert bracket.lower >= radius * 0.999 and radius * (1 - 1e-9) <= bracket.upper <= radius * 1.001


def test_the_standard_deviation_is_that_of_all_the_data_and_constants_stay(tmp_path):
    _, path, x, y = drawn(tmp_path, 1, count=9)
    x[:, 1] = 0.5
    found = certify(path, (x, y), [0.1], scale="std", limit=2, out=tmp_path / "run")
    stated = json.loads((tmp_path / "run" / "run.json").read_text())["scale"]
    np.testing.assert_allclose(stated, x.astype(np.float64).std(axis=0), rtol=1e-12)
    assert stated[1] == 0.0 and "1 of 3 inputs fixed" in found.data


@pytest.mark.parametrize("norm", ["2", "1"])
def test_a_certificate_of_a_ball_that_the_domain_cuts_covers_no_larger_one(tmp_path, norm):
    """The boxes around both balls are the domain, whose corners lie in neither or in the larger one alone."""
    _, path, x, y = drawn(tmp_path, 2, count=1)
    domain = np.stack([x[0] - 0.002, x[0] + 0.002]).astype(np.float64)
    certify(
        path, (x, y), [0.0021], method="crown", norm=norm, clip_file=domain, certificates=True, out=tmp_path / "run"
    )
    np.savez(tmp_path / "data.npz", x=x, y=y)
    (record,) = records_of(tmp_path / "run")
    assert record["certificate"]["radius"] == record["lower"] == 0.0021
    assert not check(tmp_path / "run", model=path, data=tmp_path / "data.npz").refused
    record["lower"] = 0.003
    write_records(tmp_path / "run", [record])
    (tmp_path / "run" / "results.json").unlink()
    ((_, reason),) = check(tmp_path / "run", model=path, data=tmp_path / "data.npz").refused
    assert f"{norm}-norm" in reason and "does not cover" in reason


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
@pytest.mark.parametrize("clip", [None, pytest.param((0.0, 1.0), marks=pytest.mark.slow)])
def test_fixed_inputs_stay_in_every_norm_and_attack(tmp_path, norm, clip):
    _, path, x, y = drawn(tmp_path, 3, count=2)
    certify(path, (x, y), [0.3, 2.0], norm=norm, fix=["0:2"], clip=clip, out=tmp_path / "run")
    checked = check_objects(tmp_path / "run", path, x, y)
    assert not checked.refused
    for name in ("pgd", "deepfool", *(["cw"] if norm == "2" else [])):
        found = attack(path, (x, y), name, 0.5, norm=norm, fix=["0:2"], clip=clip, out=None)
        for example in found.examples.values():
            np.testing.assert_array_equal(example.point[:2], example.original[:2])


def check_objects(run, path, x, y):
    """Check a run of arrays: they are given as a file."""
    np.savez(run.parent / "given.npz", x=x, y=y)
    return check(run, model=path, data=run.parent / "given.npz", allow_uncertified=True)


def test_no_bracket_says_the_whole_domain_is_safe_where_there_is_none(tmp_path):
    """With a fixed input and no clip the domain has infinite ends, and the box of the data is not all there is."""
    model = tmp_path / "wide.safetensors"
    write_network(chain((2,), Affine(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([1.0, 0.0]))), model)
    data = (np.array([[0.0, 0.0], [0.5, 1.0]]), np.array([0, 0]))
    for method in ("auto", "exact", "crown"):
        found = certify(model, data, [0.9, 1.0, 1.2, 1e6], method=method, fix=[1], out=None)
        assert found.brackets[0].lower < 1.0 + 1e-6 and found.results[-1].certified == 0


@pytest.fixture(scope="module")
def scaled(tmp_path_factory):
    """A run with a scale, a domain and a fixed input, of files."""
    place = tmp_path_factory.mktemp("scaled")
    network, path, x, _ = drawn(place, 2, count=6)
    # At the edge of the domain, which cuts their balls.
    x[:4, 2] = 0.0
    y = network.evaluate(torch.from_numpy(x)).argmax(dim=1).numpy()
    np.savez(place / "data.npz", x=x, y=y)
    (place / "scale.csv").write_text("0.5,1,0.1\n")
    (place / "domain.txt").write_text("0 1\n-1 2\n0 1\n")
    arguments = ["certify", str(path), "--data", str(place / "data.npz"), "--epsilon", ".05", ".3", "--method", "exact"]
    arguments += ["--scale", str(place / "scale.csv"), "--clip-file", str(place / "domain.txt"), "--fix", "0"]
    assert main([*arguments, "--out", str(place / "run")]) == 0
    return place, arguments


def test_a_run_with_a_scale_holds_and_goes_on(scaled, capsys):
    place, arguments = scaled
    checked = check(place / "run")
    assert not checked.refused and checked.checked == checked.certified > 0 and checked.witnesses > 0
    before = (place / "run" / "records.jsonl").read_text()
    assert main([*arguments, "--out", str(place / "run")]) == 0
    assert (place / "run" / "records.jsonl").read_text() == before
    other = [part.replace("scale.csv", "domain.txt") for part in arguments]
    assert main([*other, "--out", str(place / "run")]) == 2
    (place / "other.csv").write_text("0.5,1,0.2\n")
    other = [part.replace("scale.csv", "other.csv") for part in arguments]
    assert main([*other, "--out", str(place / "run")]) == 2
    assert "scale is" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        {"scale": [0.5, 1.0, 0.2]},
        {"scale": [0.5, 1.1, 0.1]},
        {"scale": [0.5, 0.5, 0.05]},
        {"scale": None},
        {"fixed": None},
        {"fixed": [0, 1]},
        {"domain": None},
        {"domain": [[0.0, -2.0, -1.0], [1.0, 3.0, 2.0]]},
    ],
)
def test_whoever_changes_the_surroundings_of_a_run_is_refused(scaled, tmp_path, change):
    """Also where records carry the digest of the changed run: certificates cover too little, or distances lie."""
    place, _ = scaled
    shutil.copytree(place / "run", tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    stated = json.loads(path.read_text())
    stated = {name: value for name, value in {**stated, **change}.items() if change.get(name, 0) is not None}
    path.write_text(json.dumps(stated))
    assert check(tmp_path / "run").refused
    digest = configuration_digest({name: value for name, value in stated.items() if name != "origin"})
    records = [{**record, "run": digest} for record in records_of(tmp_path / "run")]
    (tmp_path / "run" / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    refused = check(tmp_path / "run").refused
    assert refused
    # Smaller balls are covered by the certificates of larger ones, but the witnesses' distances are others.
    if change not in ({"scale": [0.5, 0.5, 0.05]}, {"fixed": [0, 1]}):
        assert any("cover" in reason or "about the domain" in reason for _, reason in refused)


@pytest.mark.parametrize("values", [{"scale": [1, 2]}, {"scale": [-1.0, 1, 1]}, {"scale": [1e999, 1, 1]},
    {"fixed": [7]}, {"fixed": [1, 0]}, {"domain": [[0, 0, 0]]}, {"domain": [[0, 0], [1, 1]]}])  # fmt: skip
def test_settings_that_are_none_are_refused(scaled, tmp_path, values):
    place, _ = scaled
    shutil.copytree(place / "run", tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    with pytest.raises(ValueError):
        check(tmp_path / "run")


def test_attacks_and_comparisons_and_robustness_take_a_scale(tmp_path):
    _, path, x, y = drawn(tmp_path, 4, count=3)
    options = {"scale": SCALE, "clip": (0.0, 1.0), "out": None}
    exact = certify(path, (x, y), [0.4], method="exact", **options)
    for name in ("fgsm", "auto"):
        found = attack(path, (x, y), name, 0.4, **options)
        for index, example in found.examples.items():
            away = [Fraction(float(d)) / Fraction(s) for d, s in zip(
                np.abs(example.point.astype(float) - example.original.astype(float)), SCALE, strict=True)]  # fmt: skip
            assert max(away) <= Fraction(example.distance) and example.distance <= 0.4
            assert exact.brackets[index].lower < example.distance
    assert found.robust >= exact.results[0].certified
    assert not compare(path, (x, y), 0.4, **options).violations
    measured = robustness(path, (x, y), 0.4, method="exact", **options)
    assert measured.inputs == 3 and set(measured.radii) == {"attack"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scale": [1, 2]}, "2 numbers"),
        ({"scale": [1, -2, 1]}, "input 1 is -2"),
        ({"scale": [1, float("nan"), 1]}, "nan at place 1"),
        ({"scale": [1, float("inf"), 1]}, "inf at place 1"),
        ({"scale": [0, 0, 0]}, "every input is fixed"),
        ({"scale": [1, 1e-320, 1]}, "wider than float64"),
        ({"scale": ["a", "b", "c"]}, "no numbers"),
        ({"scale": "missing.csv"}, "cannot be read"),
        ({"scale": [1, 1, 1], "norm": "2"}, "inf-norm, not in the 2-norm"),
        ({"scale": [1, 1, 1], "method": "restriction"}, "does not take a scale"),
        ({"fix": [3]}, "cannot fix '3'"),
        ({"fix": ["2:1"]}, "cannot fix '2:1'"),
        ({"fix": ["age"]}, "cannot fix 'age'"),
        ({"fix": ["0:3"]}, "every input is fixed"),
        ({"clip_file": [[0, 0, 0]]}, "3 numbers"),
        ({"clip_file": [[0, 0, 2], [1, 1, 1]]}, "no interval"),
        ({"clip_file": [[0, 0, 0], [1, 1, float("inf")]]}, "inf at place 5"),
        ({"clip_file": [[0, 0, 0.999], [1, 1, 1]]}, "its value 2 is"),
        ({"clip_file": [[2, 2, 2], [3, 3, 3]], "clip": (0, 1)}, "no interval within the clip"),
    ],
)
def test_what_is_no_scale_no_domain_or_no_input_is_refused(tmp_path, options, words):
    _, path, x, y = drawn(tmp_path, 4)
    with pytest.raises(ValueError, match=words):
        certify(path, (x, y), [0.1], out=None, **options)


def test_attacks_that_minimise_the_distance_refuse_a_scale(tmp_path):
    _, path, x, y = drawn(tmp_path, 4)
    with pytest.raises(ValueError, match="without a scale"):
        attack(path, (x, y), "deepfool", 0.1, scale=SCALE, out=None)
    with pytest.raises(ValueError, match="without a scale"):
        robustness(path, (x, y), 0.1, scale=SCALE, estimators=["restriction"], out=None)
