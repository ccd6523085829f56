"""Regression end to end: outputs that change by less than delta, against grids, by hand, from tables, and forged."""

import json
import shutil

import numpy as np
import pytest
import torch

from encoders import write_network
from encoders.ops import Affine, Relu, Reshape, Sigmoid
from tests.networks.chains import chain, random_relu_network
from tests.runs.files import records_of
from verifier import certify, check
from verifier.cli import main
from verifier.runs.records import configuration_digest

RADII = [0.02, 0.1, 0.4]
DELTA = 0.25
GRID = 25


def written(place, network, name="model"):
    write_network(network, place / f"{name}.safetensors")
    return place / f"{name}.safetensors"


@pytest.mark.parametrize(("seed", "sizes"), [(0, (2, 6, 1)), (1, (2, 6, 5, 2))])
@pytest.mark.parametrize("scale", [None, [0.5, 2.0]])
def test_what_is_certified_changes_by_less_on_a_grid_and_the_rest_by_more(tmp_path, seed, sizes, scale):
    network = random_relu_network(seed, sizes)
    x = torch.rand(3, 2, generator=torch.Generator().manual_seed(seed)).numpy()
    found = certify(
        written(tmp_path, network), x, RADII, method="exact", delta=DELTA, scale=scale, clip=(0, 1), out=None
    )
    exact = network.cast(torch.float64, torch.device("cpu"))
    assert found.inputs == found.correct == 3 and all(row.open == 0 for row in found.results)
    for index, bracket in found.brackets.items():
        centre = torch.from_numpy(x[index].astype(np.float64))
        for radius in RADII:
            widths = radius * torch.tensor(scale or [1.0, 1.0], dtype=torch.float64)
            ends = (centre - widths).clamp(min=0), (centre + widths).clamp(max=1)
            sides = [torch.linspace(float(a), float(b), GRID, dtype=torch.float64) for a, b in zip(*ends, strict=True)]
            change = (exact.evaluate(torch.cartesian_prod(*sides)) - exact.evaluate(centre[None])).abs().max()
            if bracket.lower >= radius:
                assert float(change) < DELTA
            else:
                assert bracket.upper <= radius


def test_the_radius_of_a_slope_is_delta_over_its_length(tmp_path):
    """f = 3 x_0 - x_1 (+ 7): changes by 4 e in the ball of e, with the scale (1, 2) by 5 e, x_0 fixed by 2 e."""
    model = written(
        tmp_path, chain((2,), Affine(torch.eye(2)), Relu(), Affine(torch.tensor([[3.0, -1.0]]), torch.tensor([7.0])))
    )
    x = np.array([[4.0, 4.0]], dtype=np.float32)
    for options, factor in [({}, 4), ({"scale": [1, 2]}, 5), ({"scale": [1, 2], "fix": [0]}, 2)]:
        radius = 0.5 / factor
        (bracket,) = certify(
            model, x, [radius * 0.999, radius * 1.001], method="exact", delta=0.5, out=None, **options
        ).brackets.values()
        assert bracket.lower >= radius * 0.999 and radius * (1 - 1e-6) <= bracket.upper <= radius * 1.001


@pytest.mark.parametrize("method", ["auto", "crown", "input-split"])
def test_other_methods_and_smooth_networks(tmp_path, method):
    network = chain(
        (2,), Affine(torch.tensor([[1.0, 2.0], [0.5, -1.0]])), Sigmoid(), Affine(torch.tensor([[2.0, 1.0]]))
    )
    x = np.array([[0.2, 0.4], [0.9, 0.1]])
    found = certify(written(tmp_path, network), x, [0.05, 3.0], method=method, delta=0.4, out=None)
    assert found.results[0].certified == 2 and found.results[1].certified == 0
    if method != "crown":
        assert found.results[1].falsified == 2


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    place = tmp_path_factory.mktemp("changes")
    model = written(place, random_relu_network(0, (2, 6, 1)))
    rows = [f"{a!r},{b!r},{price}" for a, b, price in [(0.1, 0.9, "12.5"), (0.5, 0.5, "n/a"), (0.8, 0.3, "-3")]]
    (place / "houses.csv").write_text("\n".join(["size,age,price", *rows]) + "\n")
    arguments = ["certify", str(model), "--data", str(place / "houses.csv"), "--delta", "0.25", "--clip", "0", "1"]
    arguments += ["--epsilon", ".01", ".5", "--method", "exact", "--out", str(place / "run")]
    return place, arguments


def test_a_table_with_a_target_is_certified_resumed_and_checked(made, capsys):
    place, arguments = made
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["delta"] == 0.25 and found["inputs"] == found["correct"] == 3
    assert found["results"][0]["certified"] == 3 and found["results"][1]["falsified"] > 0
    before = (place / "run" / "records.jsonl").read_text()
    assert main(arguments) == 0 and "changes by less" in " ".join(capsys.readouterr().out.split())
    assert (place / "run" / "records.jsonl").read_text() == before
    checked = check(place / "run")
    assert not checked.refused and checked.checked == checked.certified == 3 and checked.witnesses > 0
    assert main([part if part != "0.25" else "0.2" for part in arguments]) == 2


@pytest.mark.parametrize("delta", [0.2, 0.3, 0.0])
def test_whoever_changes_delta_is_refused(made, tmp_path, delta):
    place, arguments = made
    if not (place / "run").exists():
        assert main(arguments) == 0
    shutil.copytree(place / "run", tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    stated = {**json.loads(path.read_text()), "delta": delta}
    path.write_text(json.dumps(stated))
    digest = configuration_digest({name: value for name, value in stated.items() if name != "origin"})
    records = [{**record, "run": digest} for record in records_of(tmp_path / "run")]
    (tmp_path / "run" / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    refused = check(tmp_path / "run").refused
    assert {index for index, _ in refused} >= {0, 1, 2}
    del stated["delta"]
    path.write_text(json.dumps(stated))
    with pytest.raises(ValueError):
        check(tmp_path / "run")


def test_images_keep_their_shape_in_witnesses(tmp_path):
    weight = torch.tensor([[1.0, -1.0, 2.0, 0.5]])
    model = written(tmp_path, chain((1, 2, 2), Reshape((4,)), Affine(weight)))
    x = torch.rand(2, 1, 2, 2, generator=torch.Generator().manual_seed(1)).numpy()
    np.savez(tmp_path / "data.npz", x=x, y=np.array([0.5, 0.7]))
    found = certify(model, tmp_path / "data.npz", [0.01, 0.5], delta=0.1, fix=[3], out=tmp_path / "run")
    assert (found.results[0].certified, found.results[1].falsified) == (2, 2)
    with np.load(tmp_path / "run" / "witnesses.npz") as witnesses:
        assert witnesses["x"].shape == (2, 1, 2, 2)
        np.testing.assert_array_equal(witnesses["x"][:, 0, 1, 1], x[:, 0, 1, 1])
    assert not check(tmp_path / "run", allow_uncertified=True).refused
    assert certify(model, tmp_path / "data.npz", [0.01, 0.5], delta=0.1, fix=[3], out=tmp_path / "run").inputs == 2


@pytest.mark.parametrize("delta", [0.0, -1.0, float("nan"), float("inf")])
def test_what_is_no_delta_is_refused(tmp_path, delta):
    model = written(tmp_path, random_relu_network(3, (2, 6, 1)))
    with pytest.raises(ValueError, match="delta must be"):
        certify(model, np.zeros((1, 2)), [0.1], delta=delta, out=None)
