"""`attack` from Python and from the command line: counts, files, resumption, bad input."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from encoders import Network, Node, read_network, write_network
from encoders.network import INPUT
from encoders.ops import Affine, Relu
from tests.networks.chains import random_relu_network
from verifier import attack, certify, check
from verifier.attacks import ATTACKS
from verifier.cli import main
from verifier.commands.adversarial_example import AdversarialExample, Exhibit, confidences
from verifier.commands.attack_request import AttackRequest, check_gradient
from verifier.commands.job import load_job
from verifier.commands.request import Request
from verifier.reports.attack import write
from verifier.reports.exhibits import as_picture, difference_factor
from verifier.subject import Subject
from verifier.witnesses.targeted import reaches

# Float32 products depend on the size of the batch in the last bits.
ROUNDING = 1e-6
FIELDS = {
    "schema", "command", "about", "attack", "norm", "epsilon", "target", "model", "digest", "data", "classes", "inputs",
    "correct", "robust", "robust_accuracy", "confirmed", "execution_only", "timed_out", "mean_distance",
    "median_distance", "queries", "gradients", "vanishing_gradients", "seconds", "records", "adversarial", "warnings",
}  # fmt: skip


@pytest.fixture
def small(tmp_path):
    """Return the path of a small ReLU network and arrays that it classifies partly right."""
    network = random_relu_network(0, (9, 10, 8, 3))
    path = tmp_path / "small.safetensors"
    write_network(network, path)
    x = torch.rand(90, 9, generator=torch.Generator().manual_seed(0))
    y = network.evaluate(x).argmax(dim=1)
    y[::7] = (y[::7] + 1) % 3
    np.savez(tmp_path / "small.npz", x=x.numpy(), y=y.numpy())
    return path, (x.numpy(), y.numpy())


def test_means_over_draws_of_a_network_without_any_are_said_to_be_the_network(small):
    path, (x, y) = small
    settings = {"steps": 1, "restarts": 1}
    eot = attack(path, (x, y), "eot", 0.2, settings={**settings, "draws": 5}, clip=(0.0, 1.0), limit=20)
    (warning,) = eot.warnings
    assert "draws nothing: one draw is the network itself" in warning
    assert 0 < eot.gradients <= eot.correct
    assert attack(path, (x, y), "pgd", 0.2, settings=settings, clip=(0.0, 1.0), limit=20).warnings == ()


@pytest.mark.parametrize(("name", "norm"), [("deepfool", "2"), ("pgd", "inf"), ("adv-alpha", "1")])
def test_counts_distances_and_examples_agree(small, name, norm):
    path, (x, y) = small
    result = attack(path, (x, y), name, 0.2, norm=norm, clip=(0.0, 1.0))
    assert result.inputs == 90 and result.correct == 90 - len(y[::7])
    within = [e for e in result.examples.values() if e.distance <= 0.2]
    assert result.robust == result.correct - len(within)
    assert 0 < result.robust < result.correct
    assert result.confirmed == len(result.examples)
    assert result.mean_distance == pytest.approx(np.mean([e.distance for e in result.examples.values()]))
    network = read_network(path)
    for index, example in result.examples.items():
        assert example.label == y[index]
        difference = example.point.astype(np.float64) - x[index]
        assert np.linalg.norm(difference, float(norm)) <= example.distance
        assert example.point.min() >= 0 and example.point.max() <= 1
        outputs = network.evaluate(example.point[None])[0]
        assert int(outputs.argmax()) == example.prediction
        assert bool((outputs >= outputs[example.label]).sum() > 1)
    # Attacks that minimise the distance look beyond epsilon, the others do not.
    assert (result.confirmed > len(within)) == ATTACKS[name].minimal


def test_no_input_that_is_certified_is_broken(small):
    path, data = small
    brackets = certify(path, data, [0.02], method="interval", clip=(0.0, 1.0)).brackets
    for name in ("deepfool", "cw", "fab", "auto"):
        found = attack(path, data, name, 0.05, clip=(0.0, 1.0), limit=40).examples
        for index, example in found.items():
            assert example.distance > brackets[index].lower


def test_a_minimal_attack_takes_epsilon_zero_and_one_without_counterexamples_has_no_mean():
    constant = nn.Sequential(nn.Linear(4, 2))
    with torch.no_grad():
        constant[0].weight.zero_()
        constant[0].bias.copy_(torch.tensor([1.0, 0.0]))
    x, y = torch.rand(5, 4), torch.zeros(5, dtype=torch.int64)
    result = attack(constant, (x, y), "deepfool", 0.0, clip=(0.0, 1.0))
    assert (result.robust, result.confirmed, result.mean_distance) == (5, 0, None)
    assert result.vanishing_gradients == 1.0
    json.dumps(result.to_json(), allow_nan=False)


def test_an_input_that_another_class_reaches_in_real_arithmetic_is_broken_at_distance_zero(monkeypatch):
    # The user's model says class 0 by a tie, and so does the label; the graph gives class 1 the larger value.
    module = nn.Linear(4, 2)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[0.01] * 4, [0.02] * 4]))
        module.bias.copy_(torch.tensor([0.5, 0.75]))

    def tying(*arguments, **settings):
        job = load_job(*arguments, **settings)
        subject = dataclasses.replace(
            job.subject, agreement=None, runtime=lambda x: np.zeros((len(x), 2), dtype=np.float32)
        )
        return dataclasses.replace(job, subject=subject)

    monkeypatch.setattr("verifier.commands.attack.load_job", tying)
    # An attack that always moves away from the input.
    result = attack(module, (torch.rand(3, 4), torch.zeros(3, dtype=torch.int64)), "adv-loss", 0.1)
    assert (result.correct, result.robust, result.mean_distance) == (3, 0, 0.0)


def test_a_target_must_win_in_real_arithmetic_too():
    # Class 1 beats class 0 everywhere, class 2 is 1e-3 behind; the user's model rounds to halves, so 1 and 2 tie.
    module = nn.Linear(1, 3)
    with torch.no_grad():
        module.weight.zero_()
        module.bias.copy_(torch.tensor([0.0, 1.0, 0.999]))
    job = load_job(Request(module, (torch.rand(1, 1), torch.tensor([0])), device="cpu"), "attack")
    halves = np.array([[0.0, 1.0, 1.0]], dtype=np.float32)
    subject = dataclasses.replace(job.subject, runtime=lambda x: halves)
    batch = dataclasses.replace(job.batch(job.points(range(1)), [0], job.labels(range(1))), subject=subject)
    executed, real = reaches(batch, job.points(range(1)), torch.tensor([2]))
    assert (bool(executed), bool(real)) == (True, False)
    executed, real = reaches(batch, job.points(range(1)), torch.tensor([1]))
    assert (bool(executed), bool(real)) == (True, True)


def test_a_model_that_disagrees_with_its_graph_is_not_broken(small, monkeypatch):
    path, data = small
    constant = np.array([[1.0, 0.0, 0.0]], dtype=np.float32)
    kept = data[1] == 0

    def stubborn(*arguments, **settings):
        job = load_job(*arguments, **settings)

        def run(x):
            return np.repeat(constant, len(x), axis=0)

        subject = dataclasses.replace(job.subject, agreement=None, runtime=run)
        return dataclasses.replace(job, subject=subject)

    monkeypatch.setattr("verifier.commands.attack.load_job", stubborn)
    result = attack(path, (data[0][kept], data[1][kept]), "pgd", 0.3)
    assert result.correct == result.robust > 10
    assert result.confirmed == result.execution_only == 0


def test_a_run_that_was_killed_resumes_with_the_same_result(small, tmp_path):
    path, data = small
    fresh = attack(path, data, "fab", 0.1, out=tmp_path / "fresh")
    shutil.copytree(tmp_path / "fresh", tmp_path / "killed")
    # The second batch starts at 64: as if the process had died while writing its records.
    records = tmp_path / "killed" / "records.jsonl"
    lines = records.read_text().splitlines(keepends=True)
    records.write_text("".join(lines[:64]) + lines[64][:40])
    for _ in range(2):
        again = attack(path, data, "fab", 0.1, out=tmp_path / "killed")
        left, right = (result.to_json() for result in (again, fresh))
        assert {key for key in FIELDS if left[key] != right[key]} <= {"seconds", "records", "adversarial"}
    names = {entry.name for entry in (tmp_path / "killed").iterdir()}
    assert names == {"run.json", "records.jsonl", "witnesses.npz", "adversarial.npz", "results.json", ".lock"}
    with np.load(tmp_path / "killed" / "adversarial.npz") as arrays:
        assert set(arrays) == {"index", "x", "distance", "label", "prediction"}
        assert arrays["index"].tolist() == sorted(fresh.examples)
        for row, index in enumerate(arrays["index"]):
            assert np.array_equal(arrays["x"][row], fresh.examples[int(index)].point)
            assert arrays["distance"][row] == fresh.examples[int(index)].distance


def test_a_run_grows_by_inputs(small, tmp_path):
    path, data = small
    attack(path, data, "deepfool", 0.1, limit=50, out=tmp_path / "run")
    grown = attack(path, data, "deepfool", 0.1, out=tmp_path / "run")
    fresh = attack(path, data, "deepfool", 0.1)
    assert (grown.inputs, grown.robust, grown.confirmed) == (90, fresh.robust, fresh.confirmed)
    assert grown.mean_distance == pytest.approx(fresh.mean_distance, rel=1e-3)


def test_zero_seconds_are_taken_up_again(small, tmp_path):
    path, data = small
    stopped = attack(path, data, "pgd", 0.2, time_limit=0.0, out=tmp_path / "run", limit=30)
    assert stopped.robust == stopped.correct == stopped.timed_out
    resumed = attack(path, data, "pgd", 0.2, out=tmp_path / "run", limit=30)
    assert resumed.timed_out == 0 and resumed.robust == attack(path, data, "pgd", 0.2, limit=30).robust
    assert resumed.robust < resumed.correct


def test_another_attack_radius_or_norm_is_another_run(small, tmp_path):
    path, data = small
    attack(path, data, "deepfool", 0.1, limit=3, out=tmp_path / "run")
    for name, epsilon, norm in (("cw", 0.1, "inf"), ("deepfool", 0.2, "inf"), ("deepfool", 0.1, "2")):
        with pytest.raises(ValueError, match="holds another run"):
            attack(path, data, name, epsilon, norm=norm, limit=3, out=tmp_path / "run")


@pytest.mark.parametrize("target", ["second", "least-likely", 2])
@pytest.mark.parametrize("name", ["deepfool", "pgd", "adv-alpha"])
def test_a_target_counts_that_class_only(small, target, name):
    path, (x, y) = small
    kept = y != 2
    result = attack(path, (x[kept], y[kept]), name, 0.4, target=target, clip=(0.0, 1.0))
    network = read_network(path)
    assert result.confirmed > 0
    scores = network.evaluate(torch.tensor(x[kept]))
    for index, example in result.examples.items():
        order = scores[index].argsort(descending=True).tolist()
        wanted = {"second": order[1], "least-likely": order[-1], 2: 2}[target]
        outputs = network.evaluate(example.point[None])[0]
        # The confirmed batch and this one point are rounded apart.
        assert float(outputs[wanted]) >= float(outputs.max()) - ROUNDING
    anything = attack(path, (x[kept], y[kept]), name, 0.4, clip=(0.0, 1.0))
    assert result.robust >= anything.robust


def test_nan_reaches_no_target(small):
    path, (x, y) = small
    job = load_job(Request(path, (x, y), device="cpu"), "attack")
    batch = job.batch(job.points(range(1, 4)), [1, 2, 3], job.labels(range(1, 4)))
    broken = dataclasses.replace(job.subject, runtime=lambda v: np.full((len(v), 3), np.nan, dtype=np.float32))
    executed, _ = reaches(dataclasses.replace(batch, subject=broken), job.points(range(1, 4)), (batch.classes + 1) % 3)
    assert not bool(executed.any())


@dataclasses.dataclass(frozen=True, eq=False)
class Step(Relu):
    """An op without a derivative."""

    def evaluate(self, *x):
        return (x[0] > 0).to(x[0].dtype)


def test_a_network_without_gradients_is_refused_by_attacks_that_need_them():
    nodes = (Node("step", Step(), (INPUT,)), Node("last", Affine(torch.eye(2), None), ("step",)))
    network = Network(nodes, (2,), source="steps.onnx")
    subject = Subject("steps.onnx", network, lambda x: x, torch.device("cpu"))
    with pytest.raises(ValueError, match=r"steps.onnx: no gradient .* 'cw' needs one; .*square"):
        check_gradient(AttackRequest("cw", "inf", 0.1), subject)
    check_gradient(AttackRequest("square", "inf", 0.1), subject)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "nonsense"}, "unknown attack 'nonsense'; supported: .*deepfool.*fab"),
        ({"epsilon": 0.0}, "radius 0 is the input itself; .*an attack that minimises the distance: .*deepfool"),
        ({"epsilon": -0.1}, "not negative"), ({"epsilon": math.nan}, "finite"),
        ({"name": "cw", "norm": "1"}, "attack 'cw' does not support the 1-norm; it supports: inf, 2"),
        ({"norm": "7"}, "unknown norm"), ({"target": "third"}, "unknown target 'third'; supported: a class, second"),
        ({"target": 3}, "target 3 is not one of the 3 classes"), ({"target": 1}, "target 1 is the label of input"),
        ({"clip": (0.4, 0.6)}, "outside"), ({"limit": 0}, "limit"), ({"device": "tpu"}, "unknown device"),
        ({"time_limit": -1.0}, "time limit"),
    ],
)  # fmt: skip
def test_impossible_requests_are_refused_before_anything_is_written(small, tmp_path, arguments, message):
    path, data = small
    with pytest.raises(ValueError, match=message):
        attack(path, data, **{"name": "fgsm", "epsilon": 0.1, "out": tmp_path / "run", **arguments})
    assert not (tmp_path / "run").exists()


def test_json_has_the_stated_fields_and_is_all_of_standard_output(small, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["attack", "small.safetensors", "--data", "small.npz", "--attack", "deepfool", "--epsilon", "1/10"]
    assert main([*command, "--norm", "2", "--limit", "20", "--clip", "0", "1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result) == FIELDS
    assert (result["schema"], result["command"], result["attack"], result["inputs"]) == (1, "attack", "deepfool", 20)
    assert (result["epsilon"], result["norm"], result["target"]) == (0.1, "2", None)
    assert result["robust"] <= result["correct"] and result["mean_distance"] > 0
    folder = Path(result["records"]).parent
    assert folder.parent == Path("runs") and folder.name.startswith("attack-")
    # Nine elements are shown as 3 x 3.
    assert (folder / "adversarial.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((folder / "results.json").read_text())["robust"] == result["robust"]
    records = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    assert [record["index"] for record in records] == list(range(20))


def test_a_table_is_printed_without_json(small, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["attack", "digits-relu", "--data", "digits", "--attack", "adv-loss", "--epsilon", "0.1", "--limit", "10"]
    assert main(command) == 0
    output = capsys.readouterr().out
    assert "10 of 10 inputs" in output and "adv-loss" in output and "adversarial.npz" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--attack", "nonsense", "--epsilon", "0.1"], "supported:"),
        (["--attack", "fgsm", "--epsilon", "0"], "positive epsilon"),
        (["--attack", "cw", "--epsilon", "0.1", "--norm", "1"], "1-norm"),
        (["--attack", "pgd", "--epsilon", "0.1", "--target", "0"], "label of input"),
        (["--attack", "pgd", "--epsilon", "0.1", "--clip", "0.4", "0.5"], "outside"),
        (["--attack", "pgd"], "--epsilon"),
        (["--epsilon", "0.1"], "--attack"),
    ],
)
def test_bad_input_gets_a_sentence_and_status_2(small, tmp_path, capsys, monkeypatch, arguments, message):
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    try:
        status = main(["attack", "../small.safetensors", "--data", "../small.npz", *arguments])
    except SystemExit as exit_:  # argparse leaves by itself
        status = exit_.code
    captured = capsys.readouterr()
    assert status == 2 and message in captured.err and captured.out == ""
    assert list(folder.iterdir()) == []


def exhibit(original, point):
    example = AdversarialExample(0, np.asarray(original), np.asarray(point), 0.1, 1, 2)
    return Exhibit(example, 0.9, 0.6)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((64,), (8, 8)), ((3072,), (32, 32, 3)), ((1, 5, 4), (5, 4)), ((3, 5, 4), (5, 4, 3)), ((5, 4), (5, 4)),
     ((5,), None), ((2, 4, 4), None), ((1,), None)],
)  # fmt: skip
def test_image_shapes_are_recognised(shape, expected):
    picture = as_picture(np.zeros(shape))
    assert (None if picture is None else picture.shape) == expected


@pytest.mark.parametrize(("difference", "factor"), [(0.01, 50.0), (0.06, 5.0), (0.3, 1.0), (0.0, 1.0), (0.9, 1.0)])
def test_the_difference_is_scaled_by_a_round_factor_that_keeps_it_in_range(difference, factor):
    assert difference_factor([exhibit(np.zeros(4), np.array([difference, 0, 0, 0]))], 1.0) == factor


def test_inputs_that_are_no_images_leave_no_picture(tmp_path):
    network = nn.Linear(5, 2)
    x = torch.rand(6, 5)
    result = attack(network, (x, network(x).argmax(dim=1)), "deepfool", 0.1, out=tmp_path / "run")
    assert result.confirmed > 0
    assert write(result, tmp_path) == [result.adversarial] and not (tmp_path / "adversarial.png").exists()


def test_confidences_are_the_outputs_where_they_are_shares_and_their_softmax_elsewhere():
    shares = np.array([[0.25, 0.75], [1.0, 0.0]], dtype=np.float32)
    assert np.array_equal(confidences(shares), shares)
    assert confidences(np.array([[1000.0, 1000.0 + math.log(3)]]))[0].tolist() == pytest.approx([0.25, 0.75])


def test_points_of_a_surrogate_are_only_judged_by_the_model(small, tmp_path, capsys):
    path, data = small
    options = {"clip": (0.0, 1.0), "settings": {"restarts": 1}}
    alone = attack(path, data, "pgd", 0.2, **options)
    itself = attack(path, data, "pgd", 0.2, surrogate=path, **options)
    assert itself.robust == alone.robust and itself.queries == itself.gradients == 0
    other = random_relu_network(1, (9, 10, 8, 3))
    write_network(other, tmp_path / "other.safetensors")
    found = attack(path, data, "pgd", 0.2, surrogate=tmp_path / "other.safetensors", out=tmp_path / "run", **options)
    assert found.robust >= alone.robust and found.to_json()["surrogate"] == other.digest
    # What is claimed is claimed of the model, and replayed in it.
    assert found.confirmed == len(found.examples) and not check(tmp_path / "run", data=tmp_path / "small.npz").refused
    assert json.loads((tmp_path / "run" / "run.json").read_text())["surrogate"] == other.digest
    with pytest.raises(ValueError, match="holds another run"):
        attack(path, data, "pgd", 0.2, surrogate=path, out=tmp_path / "run", **options)
    write_network(random_relu_network(1, (9, 10, 4)), tmp_path / "wide.safetensors")
    arguments = ["attack", str(path), "--data", str(tmp_path / "small.npz"), "--attack", "fgsm", "--epsilon", "0.2"]
    assert main([*arguments, "--surrogate", str(tmp_path / "wide.safetensors")]) == 2
    assert "surrogate's output shape is (4,), the network's (3,)" in capsys.readouterr().err
    with pytest.raises(ValueError, match="does not support the 1-norm"):
        attack(path, data, "square", 0.2, norm="1", surrogate=path)
