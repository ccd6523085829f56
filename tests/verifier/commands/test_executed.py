"""Certified executions end to end: a back door that rounding opens, certificates, forgeries, and refusals."""

import json

import numpy as np
import pytest
import torch

from encoders import write_network
from encoders.ops import Affine, Relu
from tests.networks.chains import chain, random_relu_network
from tests.runs.files import records_of
from verifier import certify, check
from verifier.cli import main
from verifier.commands.executed import by_class
from verifier.runs.records import configuration_digest

BIG = 2.0**30


def back_door():
    """f = (max(B (x - .55), 0) + x) - max(B (x - .55), 0), which is x; float32 forgets x right of .55."""
    return chain(
        (1,),
        Affine(torch.tensor([[BIG], [1.0]]), torch.tensor([-0.55 * BIG, 0.0])),
        Relu(),
        Affine(torch.tensor([[1.0, 1.0], [1.0, 0.0]])),
        Relu(),
        Affine(torch.tensor([[1.0, -1.0], [0.0, 0.0]]), torch.tensor([0.0, 0.25])),
    )


HALF = (np.array([[0.5]], dtype=np.float32), np.array([0]))


def written(place, network):
    write_network(network, place / "model.safetensors")
    return place / "model.safetensors"


def counts(result):
    (row,) = result.results
    return row.certified, row.falsified, row.open


def test_a_back_door_of_rounding_is_certified_in_real_arithmetic_alone(tmp_path):
    network = back_door()
    model = written(tmp_path, network)
    outside = network.evaluate(torch.tensor([[0.6]]))
    assert outside[0, 0] < outside[0, 1], "the execution is wrong there"
    assert counts(certify(model, HALF, [0.1], method="exact", clip=(0, 1))) == (1, 0, 0)
    found = certify(model, HALF, [0.1], method="exact", clip=(0, 1), arithmetic="float32")
    assert found.results[0].certified == 0
    # Left of the door nothing large is added, and the executions are those of the real function.
    assert counts(certify(model, HALF, [0.04], method="exact", clip=(0, 1), arithmetic="float32")) == (1, 0, 0)


@pytest.mark.parametrize("seed", range(3))
def test_margins_below_the_rounding_are_not_certified(tmp_path, seed):
    """The class of an input wins by less than sums in another order may differ by."""
    network = random_relu_network(seed, (3, 30, 20, 2))
    last = network.output.op
    tied = Affine(last.weight[:1].repeat(2, 1), torch.tensor([2.0**-22, 0.0]) + last.bias[0])
    model = written(tmp_path, chain((3,), *(node.op for node in network.nodes[:-1]), tied))
    x = np.random.default_rng(seed).random((1, 3), dtype=np.float32)
    data = (x, np.array([0]))
    real, executed = (
        certify(model, data, [0.01], method="crown", clip=(0, 1), arithmetic=name) for name in ("real", "float32")
    )
    if real.correct:
        assert executed.results[0].certified == 0


def test_executions_certify_no_more_than_real_numbers_and_nearly_as_much(tmp_path):
    rows = {}
    for name in ("real", "float32"):
        found = certify("digits-relu", "digits", [0.01, 0.03], method="crown", limit=60, arithmetic=name)
        rows[name] = found
        assert all(bracket.lower <= 0.03 for bracket in found.brackets.values()) or name == "real"
    for real, executed in zip(rows["real"].results, rows["float32"].results, strict=True):
        assert 0.95 * real.certified <= executed.certified <= real.certified


def test_certificates_hold_and_forged_errors_are_refused(tmp_path):
    run = tmp_path / "run"
    options = {"method": "crown", "limit": 6, "arithmetic": "float32", "certificates": True, "out": run}
    found = certify("digits-relu", "digits", [0.03], **options)
    judged = check(run)
    assert judged.refused == () and judged.checked == judged.certified == 6 >= found.results[0].certified > 0
    path = run / "records.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for change, words in (
        (lambda line: line.update(errors=[e / 2 for e in line["errors"]]), "may err by"),
        (lambda line: line.update(errors=line["errors"][1:]), "errors of execution"),
        (lambda line: line.update(errors=[]), "errors of execution"),
        (lambda line: line.update(errors=[e * 2 for e in line["errors"]]), "is about network"),
    ):
        forged = json.loads(json.dumps(lines))
        change(forged[0])
        path.write_text("".join(json.dumps(line) + "\n" for line in forged))
        refused = dict(check(run).refused)
        assert words in refused[0], refused
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    # Another claim than the run was made for.
    for name, value in (("radius", 0.01), ("arithmetic", "float64")):
        settings = json.loads((run / "run.json").read_text())
        forged = {**settings, name: value}
        (run / "run.json").write_text(json.dumps(forged))
        path.write_text("".join(json.dumps({**line, "run": configuration_digest(forged)}) + "\n" for line in lines))
        assert check(run).refused
        (run / "run.json").write_text(json.dumps(settings))


def test_a_run_is_taken_up_again_with_the_same_answers(tmp_path):
    options = {"method": "crown", "arithmetic": "float32", "out": tmp_path / "run", "certificates": True}
    certify("digits-relu", "digits", [0.03], limit=5, **options)
    first = records_of(tmp_path / "run")
    again = certify("digits-relu", "digits", [0.03], limit=8, **options)
    assert again.inputs == 8 and records_of(tmp_path / "run")[:5] == first[:5]
    assert check(tmp_path / "run").refused == ()


def test_inputs_of_a_run_that_is_taken_up_again_keep_the_errors_that_they_stated(tmp_path):
    """Alone they have smaller errors than among more of their class; a witness of before may be none with others."""
    options = {"method": "auto", "arithmetic": "float32", "out": tmp_path / "run", "certificates": True}
    certify("digits-relu", "digits", [0.03], limit=4, time_limit=0.0, **options)
    first = records_of(tmp_path / "run")
    again = certify("digits-relu", "digits", [0.03], limit=16, **options)
    records = records_of(tmp_path / "run")
    assert [record["errors"] for record in records[:4]] == [record["errors"] for record in first]
    pairs = [(one, later) for one in first for later in records[4:] if later["label"] == one["label"]]
    assert any(later["errors"] != one["errors"] for one, later in pairs)
    assert again.results[0].open == 0 and check(tmp_path / "run").refused == ()


def test_what_was_proved_with_errors_that_are_not_enough_is_proved_again(tmp_path):
    run = tmp_path / "run"
    options = {"method": "interval", "arithmetic": "float32", "limit": 5, "out": run}
    certify("digits-relu", "digits", [0.2, 0.001], **options)
    honest = records_of(run)
    forged = [{**line, "lower": 0.15, "errors": [e / 1e6 for e in line["errors"]]} for line in honest]
    (run / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in forged))
    certify("digits-relu", "digits", [0.2, 0.18, 0.001], **options)
    last = {line["index"]: line for line in records_of(run)}
    assert all(last[line["index"]]["lower"] <= line["lower"] + 1e-4 for line in honest)
    assert all(last[line["index"]]["errors"] == line["errors"] for line in honest)


def test_errors_stated_before_are_kept_where_they_are_enough():
    errors = torch.tensor([[1.0, 1.0], [3.0, 1.0], [2.0, 2.0]], dtype=torch.float64)
    kept = by_class([0, 0, 1], errors, [(1.5, 1.5), (2.5, 2.0), ()])
    assert kept == {(0, (1.5, 1.5)): [0], (0, (3.0, 1.0)): [1], (1, (2.0, 2.0)): [2]}
    assert by_class([0, 0, 1], errors, [(), (), ()]) == {(0, (3.0, 1.0)): [0, 1], (1, (2.0, 2.0)): [2]}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--arithmetic", "float16"], "digits-relu is executed in float32, not in float16"),
        (["--arithmetic", "float31"], "unknown arithmetic 'float31'; supported: real, float64, float32"),
        (["--arithmetic", "float64"], "digits-relu is executed in float32, not in float64"),
        (["--arithmetic", "float32", "--delta", "0.1"], "leave out one of the two"),
    ],
)
def test_bad_questions_are_refused(arguments, words, capsys):
    code = main(["certify", "digits-relu", "--data", "digits", "--epsilon", "0.01", "--out", "never", *arguments])
    assert code == 2 and words in capsys.readouterr().err
