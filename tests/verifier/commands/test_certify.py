"""`certify` from Python: shipped models, consistency of brackets, configuration and bad input."""

import json
import math
import re

import numpy as np
import pytest
import torch
from torch import nn

from encoders import read_network, write_network
from encoders.layers import Mwd
from tests.networks.chains import random_relu_network
from tests.networks.mwd_chains import random_mwd_network
from tests.seeds import few_or
from verifier import certify
from verifier.bounds.programs import milp
from verifier.data import from_arrays, load_data
from verifier.methods import METHODS
from verifier.verdict import Outcome
from verifier.zoo import shipped_models

STOPPED = r"^1 subproblems of the region; \d+ subproblems are open after \d+, the margin is at least -\S+ in float32$"
# Floors of the shipped models on the held-out digits.
ACCURACY = {"digits-relu": 0.96, "digits-conv": 0.97, "digits-mwd": 0.93}


@pytest.fixture
def small(tmp_path):
    """Return the path of a small ReLU network and arrays that it classifies partly right."""
    network = random_relu_network(0, (5, 10, 8, 3))
    path = tmp_path / "small.safetensors"
    write_network(network, path)
    x = torch.rand(70, 5, generator=torch.Generator().manual_seed(0))
    y = network.evaluate(x).argmax(dim=1)
    y[::7] = (y[::7] + 1) % 3
    return path, (x.numpy(), y.numpy())


@pytest.mark.parametrize("name", ACCURACY)
def test_shipped_models_are_accurate_and_small(name):
    path = shipped_models()[name]
    assert path.stat().st_size < 1_000_000
    data = load_data("digits")
    network = read_network(path)
    relus = sum(math.prod(network.shapes[node.name]) for node in network.nodes if node.op.kind == "relu")
    assert relus <= 300
    predictions = network.evaluate(torch.tensor(data.fit_to(network.input_shape).inputs)).argmax(dim=1)
    assert float((predictions.numpy() == data.labels).mean()) >= ACCURACY[name]


@pytest.mark.parametrize("count", few_or(10, 40))
@pytest.mark.parametrize("name", ACCURACY)
def test_counts_add_up_and_no_certificate_is_contradicted_by_random_points(name, count):
    result = certify(name, "digits", [0.004, 0.05], limit=count)
    for row in result.results:
        assert row.certified + row.falsified + row.open == result.correct
        assert row.certified_checked == row.certified
        assert row.certified_accuracy <= row.attack_accuracy
    data, network = load_data("digits"), read_network(shipped_models()[name])
    generator = torch.Generator().manual_seed(0)
    for index, bracket in result.brackets.items():
        assert bracket.lower < bracket.upper
        x = torch.tensor(data.inputs[index]).reshape(1, *network.input_shape).double()
        noise = (2 * torch.rand(200, *network.input_shape, generator=generator, dtype=torch.float64) - 1).sign()
        points = (x + max(bracket.lower, 0.0) * noise).clamp(0, 1)
        assert bool((network.scores(points).argmax(dim=1) == int(data.labels[index])).all())


def test_a_run_resumes_with_the_same_result_and_extends_by_radii_and_inputs(small, tmp_path):
    path, data = small
    fresh = certify(path, data, [0.02, 0.1], out=tmp_path / "fresh")
    certify(path, data, [0.02], limit=50, out=tmp_path / "grown")
    grown = certify(path, data, [0.02, 0.1], out=tmp_path / "grown")
    assert grown.results == fresh.results
    again = certify(path, data, [0.02, 0.1], out=tmp_path / "grown")
    assert again.results == fresh.results and again.brackets == grown.brackets
    assert {entry.name for entry in (tmp_path / "grown").iterdir()} == {
        "run.json", "records.jsonl", "witnesses.npz", "results.json", ".lock",
    }  # fmt: skip


def test_witnesses_can_be_replayed(small, tmp_path):
    path, data = small
    result = certify(path, data, [0.2], out=tmp_path / "run")
    network = read_network(path)
    with np.load(tmp_path / "run" / "witnesses.npz") as arrays:
        assert len(arrays["index"]) == result.results[0].falsified > 0
        for index, x, distance in zip(arrays["index"], arrays["x"], arrays["distance"], strict=True):
            outputs = network.evaluate(x[None])[0]
            own = int(data[1][index])
            assert bool((outputs >= outputs[own]).sum() > 1)
            assert abs(x - data[0][index]).max() <= distance == result.brackets[int(index)].upper


def test_records_hold_a_bracket_for_each_input(small, tmp_path):
    path, data = small
    result = certify(path, data, [0.1], limit=20, offset=3, out=tmp_path / "run")
    assert result.records is not None
    records = [json.loads(line) for line in result.records.read_text().splitlines()]
    assert [record["index"] for record in records] == list(range(3, 23))
    for record in records:
        assert record["schema"] == 1
        assert record["correct"] == (record["label"] == record["prediction"])
        if record["correct"]:
            assert record["strength"] == "checked" and record["tried"] == [0.1]


def records_of(result) -> list[dict]:
    return [json.loads(line) for line in result.records.read_text().splitlines()]


@pytest.mark.parametrize(
    ("method", "attribute", "reason"),
    [
        ("exact", "subproblems", STOPPED),
        ("auto", "subproblems", STOPPED),
        ("milp", "nodes", r"^class \d: \d+ binaries, more than the 0 of the method$"),
        ("contraction", "nodes", r"^contraction: class \d: limit of 1 boxes"),
        ("auto", "nodes", r"^contraction: class \d: limit of 1 boxes"),
    ],
)
def test_an_open_input_says_in_its_record_what_its_method_says(tmp_path, monkeypatch, method, attribute, reason):
    """A limit is set that some input meets, with nothing in front; `auto` hands on what its stages say."""
    is_mwd = "contraction" in reason
    network = random_mwd_network(1, (4, 8, 3)) if is_mwd else random_relu_network(3, (6, 40, 40, 40, 3))
    monkeypatch.setattr(milp, "MOST_BINARIES", 0)
    for stage in METHODS[method].stages:
        if stage.name in ("attack", "input-split"):
            monkeypatch.setattr(stage, "bracket", lambda batch, epsilons, answers, budget: answers)
        if stage.name in ("exact", "milp", "contraction") and hasattr(stage, attribute):
            monkeypatch.setattr(stage, attribute, 1)
    write_network(network, tmp_path / "model.safetensors")
    x = torch.rand(5, *network.input_shape, generator=torch.Generator().manual_seed(0))
    data = (x.numpy(), network.evaluate(x).argmax(dim=1).numpy())
    result = certify(tmp_path / "model.safetensors", data, [0.04], method=method, clip=(0, 1), out=tmp_path / "run")
    records = records_of(result)
    assert [record["reason"] is None for record in records] == [
        b.at(0.04) is not Outcome.OPEN for b in result.brackets.values()
    ]
    reasons = [record["reason"] for record in records if record["reason"] is not None]
    assert reasons and all(re.search(reason, found) for found in reasons), reasons


def test_what_a_solver_vouches_for_is_kept_apart_in_records_and_not_asked_again(small, tmp_path, monkeypatch):
    path, (x, _) = small
    y = read_network(path).evaluate(torch.tensor(x)).argmax(dim=1).numpy()
    run = {"method": "milp", "clip": (0.0, 1.0), "limit": 40, "out": tmp_path / "run"}
    result = certify(path, (x, y), [0.01, 0.05], **run)
    assert [row.certified + row.falsified + row.open for row in result.results] == [40, 40]
    trusted = [r for r in records_of(result) if result.brackets[r["index"]].only_trusted_at(0.05)]
    assert len(trusted) == result.results[1].trusted > 0 and result.results[1].open >= len(trusted)
    for record in trusted:
        assert record["trusted"] is None or record["trusted"] >= 0.05
        assert (record["trusted_method"], record["strength"]) == ("milp", "checked")
        assert record["lower"] < 0.05 and record["lower_method"] != "milp"
        assert record["reason"] == "safe by the word of a solver alone (milp)" and record["open_units"] > 0
    monkeypatch.setattr(METHODS["milp"], "bracket", lambda *_: pytest.fail("asked again"))
    again = certify(path, (x, y), [0.01, 0.05], **run)
    assert again.brackets == result.brackets and again.results == result.results


def test_another_model_data_or_setting_is_refused_and_nothing_changes(small, tmp_path):
    path, data = small
    folder = tmp_path / "run"
    certify(path, data, [0.1], limit=5, out=folder)
    before = {entry.name: entry.read_bytes() for entry in folder.iterdir()}
    other = tmp_path / "other.safetensors"
    write_network(random_relu_network(1, (5, 10, 8, 3)), other)
    for arguments in (
        {"model": other, "data": data},
        {"model": path, "data": (data[0] * 0.5, data[1])},
        {"model": path, "data": data, "seed": 1},
        {"model": path, "data": data, "method": "interval"},
        {"model": path, "data": data, "clip": (0.0, 1.0)},
    ):
        with pytest.raises(ValueError, match="holds another run"):
            certify(**arguments, epsilons=[0.1], out=folder)
    assert {entry.name: entry.read_bytes() for entry in folder.iterdir()} == before


def test_zero_seconds_leave_inputs_open_and_a_later_run_decides_them(small, tmp_path):
    path, data = small
    stopped = certify(path, data, [0.01], limit=20, time_limit=0.0, out=tmp_path / "run")
    assert stopped.results[0].open == stopped.correct
    resumed = certify(path, data, [0.01], limit=20, out=tmp_path / "run")
    assert resumed.results == certify(path, data, [0.01], limit=20).results
    assert resumed.results[0].certified > 0


def test_interval_alone_finds_nothing_and_proves_no_more_than_auto(small):
    path, data = small
    alone, auto = (certify(path, data, [0.01, 0.1], method=method, limit=25) for method in ("interval", "auto"))
    assert all(a.certified <= b.certified for a, b in zip(alone.results, auto.results, strict=True))
    assert any(a.certified < b.certified for a, b in zip(alone.results, auto.results, strict=True))
    assert all(row.falsified == 0 for row in alone.results)


def test_certified_radii_are_bisected_finely(small):
    path, data = small
    result = certify(path, data, [0.01], method="interval", clip=(0.0, 1.0))
    network = read_network(path)
    from verifier.batch import Batch
    from verifier.bounds.interval import proves

    for index, bracket in result.brackets.items():
        centre = torch.tensor(data[0][index : index + 1]).double()
        classes = torch.tensor([int(data[1][index])])
        batch = Batch(None, centre, classes, (0,), (0.0, 1.0), 1.0)
        beyond = batch.region(bracket.lower + 2.0**-12).enclosure()
        assert bool(proves(network, batch.region(bracket.lower).enclosure(), classes))
        assert not bool(proves(network, beyond, classes))


def test_torch_modules_and_arrays_are_taken_directly():
    torch.manual_seed(0)
    x = torch.rand(30, 4)
    for module in (
        nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)),
        nn.Sequential(Mwd(4, 8, "negated"), Mwd(8, 3, "mixed")),
    ):
        y = module.eval()(x).argmax(dim=1)
        module.train()
        result = certify(module, (x, y), [0.01], clip=(0.0, 1.0))
        assert module.training
        assert result.correct == 30
        assert result.results[0].certified > 0


def test_normalisation_in_front_is_part_of_the_model(small, tmp_path):
    path, (x, y) = small
    plain = certify(path, (x, y), [0.02], clip=(0.0, 1.0), limit=25)
    scaled = certify(path, (x * 2 + 1, y), [0.04], mean=[1.0], std=[2.0], clip=(1.0, 3.0), limit=25)
    assert scaled.digest != plain.digest
    assert abs(scaled.results[0].certified - plain.results[0].certified) <= 1
    assert scaled.correct == plain.correct


def test_methods_that_do_not_exist_are_refused_by_name(small):
    method = "nonsense"
    with pytest.raises(ValueError, match=f"'{method}'.*{', '.join(METHODS)}"):
        certify(*small, [0.1], method=method)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epsilons": []}, "no epsilon"), ({"epsilons": [-0.1]}, "not negative"), ({"epsilons": 0.1}, "a list"),
        ({"epsilons": "0.1"}, "a list"), ({"epsilons": ["0.1"]}, "got '0.1'"), ({"norm": 2}, "'2'"),
        ({"limit": 2.5}, "whole"), ({"offset": 0.5}, "whole"),
        ({"epsilons": [math.nan]}, "finite"), ({"norm": "2", "method": "contraction"}, "2-norm: interval, crown"),
        ({"device": "tpu"}, "unknown device"), ({"limit": 0}, "limit"), ({"offset": 90}, "offset"),
        ({"time_limit": -1.0}, "time limit"), ({"std": [0.0]}, "positive"), ({"mean": [0.0, 1.0]}, "one value"),
        ({"clip": (0.4, 0.6)}, "clip|outside"),
    ],
)  # fmt: skip
def test_impossible_requests_are_refused_before_anything_is_written(small, tmp_path, arguments, message):
    path, data = small
    with pytest.raises(ValueError, match=message):
        certify(path, data, **{"epsilons": [0.1], "out": tmp_path / "run", **arguments})
    assert not (tmp_path / "run").exists()


def test_labels_are_needed_and_must_be_classes(small):
    path, (x, y) = small
    with pytest.raises(ValueError, match="labels"):
        certify(path, from_arrays(x), [0.1])
    with pytest.raises(ValueError, match="label 3"):
        certify(path, (x, np.full_like(y, 3)), [0.1])


def test_a_probable_scale_mismatch_is_said():
    digits = load_data("digits")
    result = certify("digits-relu", (1.0 - digits.inputs, digits.labels), [0.01], limit=40, method="interval")
    assert any("probably do not match" in warning for warning in result.warnings)


def test_certified_and_falsified_never_meet_on_mnist_scale_regions(small):
    path, data = small
    result = certify(path, data, [0.0, 0.01, 0.05, 0.1, 0.3], clip=(0.0, 1.0), limit=20)
    for bracket in result.brackets.values():
        outcomes = [bracket.at(e) for e in (0.0, 0.01, 0.05, 0.1, 0.3)]
        ranks = [(Outcome.CERTIFIED, Outcome.OPEN, Outcome.FALSIFIED).index(o) for o in outcomes]
        assert ranks == sorted(ranks)


def test_inputs_beyond_the_dtype_of_the_model_are_refused_with_the_remedy():
    x = np.full((3, 64), 2.0**200)
    with pytest.raises(ValueError, match=r"does not hold inputs as large as .*scale the data"):
        certify("digits-relu", (x, np.zeros(3, int)), [0.1], method="interval")
