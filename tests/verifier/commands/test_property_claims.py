"""Whoever alters a run of `verify` by hand is found out by `check`, and has gained nothing.

Each test is an attacker: it takes a run that holds, changes something, and must be refused.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from encoders import Box, Property, write_network
from encoders.ops import Affine, Sigmoid
from encoders.property import Halfspaces
from encoders.questions import always_largest, output_within
from tests.networks.chains import chain, random_relu_network
from tests.runs.files import records_of, write_records
from tests.runs.json_values import leaves
from verifier import check, verify
from verifier.certificates.files import read_certificate, write_certificate
from verifier.cli import main
from verifier.runs.folder import read_run
from verifier.runs.property_files import digest_of, write_property
from verifier.summaries.results_file import differences

DECLARED = "".join(f"(declare-const {name} Real)\n" for name in ("X_0", "X_1", "X_2", "Y_0", "Y_1"))
BOX = "(and (>= X_0 {0}) (<= X_0 .5) (>= X_1 .1) (<= X_1 .4) (>= X_2 .2) (<= X_2 .3))"
# Records of the run, by what they are about.
FILE, BROKEN, FIRST, SECOND, OBJECT, CLASS, VACUOUS = range(7)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A run that holds: files of one box and of two, proved and broken, and objects of each kind."""
    place = tmp_path_factory.mktemp("properties")
    network = random_relu_network(2, (3, 8, 6, 2))
    write_network(network, place / "model.safetensors")
    x = torch.rand(4000, 3, generator=torch.Generator().manual_seed(0)).double()
    lower, upper = torch.tensor([0.3, 0.1, 0.2]).double(), torch.tensor([0.5, 0.4, 0.3]).double()
    outputs = network.evaluate(lower + x * (upper - lower))[:, 0]
    beyond, within = float(outputs.max()) + 0.05, float(outputs.median())
    for name, boxes, limit in (("safe", [0.3], beyond), ("broken", [0.3], within), ("two", [0.3, 0.4], beyond)):
        text = f"{DECLARED}(assert (or {' '.join(BOX.format(box) for box in boxes)}))(assert (>= Y_0 {limit!r}))"
        (place / f"{name}.vnnlib").write_text(text)
    high = float(outputs.max()) + 0.1
    winner = int(network.evaluate(lower[None]).argmax())
    objects = [
        output_within(lower, upper, [-1e3, -1e3], [high, 1e3]),
        always_largest(lower, lower, winner, 2),
        Property(lower, upper, ()),
    ]
    files = [place / f"{name}.vnnlib" for name in ("safe", "broken", "two")]
    verify(place / "model.safetensors", [*files, *objects], method="exact", out=place / "run")
    return place


@pytest.fixture
def run(made, tmp_path):
    """Return a function that copies the run."""

    def copied() -> Path:
        target = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(made / "run", target)
        return target

    return copied


def refused_at(folder: Path, index: int, **more) -> str:
    return "; ".join(reason for at, reason in check(folder, **more).refused if at == index)


def rewritten(folder: Path, index: int, change: dict) -> None:
    records = records_of(folder)
    records[index] |= change
    write_records(folder, records)


def test_what_was_not_altered_holds(made):
    result = check(made / "run")
    assert not result.refused and result.inputs == 7 and result.witnesses == 1
    assert result.certified == result.checked == 6 and not result.without and result.leaves >= 5
    records = records_of(made / "run")
    assert [record["verdict"] for record in records] == ["unsat", "sat", *["unsat"] * 5]
    assert records[CLASS]["certificate"] and records[VACUOUS].get("certificate") is None


def test_a_property_file_that_has_changed_is_refused(made, run, tmp_path):
    """Another offset, box, strictness, or number of boxes; the file that is gone; the right one in another place."""
    folder = run()
    place = tmp_path / "elsewhere"
    place.mkdir()
    for path in made.glob("*.vnnlib"):
        shutil.copy(path, place)
    assert not check(folder, data=place).refused
    text = (place / "safe.vnnlib").read_text()
    for before, after in (("X_0 .5", "X_0 .51"), (">= Y_0", "> Y_0"), (">= Y_0 ", ">= Y_0 1"), ("(>= Y_0", "(>= Y_1")):
        (place / "safe.vnnlib").write_text(text.replace(before, after))
        assert "is not the property of the run" in refused_at(folder, FILE, data=place)
    (place / "safe.vnnlib").write_text((place / "two.vnnlib").read_text())
    assert "2 boxes" in refused_at(folder, FILE, data=place)
    (place / "safe.vnnlib").unlink()
    assert "safe.vnnlib" in refused_at(folder, FILE, data=place)
    assert main(["check", str(folder), "--data", str(place)]) == 1


def test_a_record_of_another_property_is_refused(run, made):
    """The proof of one property under the name of another, or as one of the run's own."""
    safe, broken = (str(made / f"{name}.vnnlib") for name in ("safe", "broken"))
    for change, words in (
        ({"name": "broken.vnnlib"}, "is called 'broken.vnnlib'"),
        ({"name": broken, "file": broken}, "is not the property of the run"),
        ({"file": None}, "names none"),
        ({"file": None, "name": " P.vnnlib.GZ "}, "names none"),
        ({"file": None, "name": "mine"}, "does not keep the property"),
        ({"digest": "0" * 64}, "is not the property of the run"),
        ({"boxes": 2}, "1 boxes"),
        ({"file": str(made / "model.safetensors"), "name": "model.safetensors"}, "suffix"),
    ):
        folder = run()
        rewritten(folder, FILE, change)
        assert words in refused_at(folder, FILE), change
    folder = run()
    records = records_of(folder)
    # The broken property takes over all that proves the safe one.
    stolen = {name: records[FILE][name] for name in ("verdict", "strength", "method", "certificate")}
    rewritten(folder, BROKEN, stolen)
    assert refused_at(folder, BROKEN)
    assert safe in {record["file"] for record in records}


def test_a_property_that_is_kept_cannot_be_exchanged(run):
    """One that is easier to prove, under the digest of the one that was asked about, or under its own."""
    folder = run()
    digest = records_of(folder)[OBJECT]["digest"]
    path = folder / "properties" / f"{digest}.npz"
    easy = Property(torch.zeros(3).double(), torch.zeros(3).double(), ())
    write_property(easy, folder)
    content = path.read_bytes()
    path.write_bytes((folder / "properties" / f"{digest_of(easy)}.npz").read_bytes())
    assert "another property" in refused_at(folder, OBJECT)
    path.write_bytes(content)
    # Under its own digest it is another property, which every record beside it and the asker sees.
    rewritten(folder, OBJECT, {"digest": "../" + digest})
    assert "digest is none" in refused_at(folder, OBJECT)


def test_a_proof_needs_its_own_certificate(run):
    for index in (FILE, FIRST, SECOND, OBJECT, CLASS):
        folder = run()
        rewritten(folder, index, {"certificate": None, "no_certificate": "the moon was full"})
        reason = refused_at(folder, index)
        assert "no certificate, though a proof about this network can have one" in reason and "--certificates" in reason
        allowed = check(folder, allow_uncertified=True)
        assert allowed.uncertified == 1 and {at for at, _ in allowed.refused} == {-1}, "the summary names it"
    folder = run()
    records = records_of(folder)
    records[FIRST]["certificate"], records[SECOND]["certificate"] = (
        records[SECOND]["certificate"],
        records[FIRST]["certificate"],
    )
    write_records(folder, records)
    assert "expected" in refused_at(folder, FIRST) and "expected" in refused_at(folder, SECOND)


def test_a_certificate_of_another_box_or_class_is_refused(run, made):
    """A proof of a smaller box or radius, of another class or network, in the place of the box's."""

    def exchanged(index: int, make) -> str:
        folder = run()
        records = records_of(folder)
        named = records[index]["certificate"]
        found = read_certificate(folder / named["file"], named["sha256"], index)
        written = write_certificate(make(found), folder / "certificates", index)
        records[index]["certificate"] = {
            name: getattr(written, name) for name in ("file", "sha256", "radius", "leaves")
        }
        write_records(folder, records)
        return refused_at(folder, index)

    assert exchanged(FILE, lambda found: found) == ""

    def smaller(found):
        upper = found.domain.lower + (found.domain.upper - found.domain.lower) / 2
        return replace(found, domain=Box(found.domain.lower, upper), centre=found.domain.lower[0].numpy())

    assert "another box" in exchanged(FILE, smaller)
    assert "another box" in exchanged(FILE, lambda found: replace(found, domain=None))
    assert "another box" in exchanged(FILE, lambda found: replace(found, domain=(0.0, 1.0)))
    assert "another box" in exchanged(FILE, lambda found: replace(found, centre=found.centre + 1))
    assert "cover the box" in exchanged(FILE, lambda found: replace(found, radius=found.radius / 2))
    assert "not about what is unsafe" in exchanged(FILE, lambda found: replace(found, winner=1))
    assert "not about what is unsafe" in exchanged(CLASS, lambda found: replace(found, winner=1 - found.winner))
    assert "network" in exchanged(FILE, lambda found: replace(found, digest="0" * 64))
    tree_gone = exchanged(FILE, lambda found: replace(found, trees=found.trees[:-1]))
    assert "trees against" in tree_gone


def test_a_witness_is_tested_against_the_property_as_it_was_written(run):
    folder = run()
    path = folder / "witnesses.npz"
    with np.load(path) as stored:
        arrays = dict(stored)
    for change, words in (
        ({"x": arrays["x"] + np.float32(1)}, "outside the box"),
        ({"x": arrays["x"].astype(np.float64) * (1 + 1e-12)}, "none of float32"),
        ({"x": np.full_like(arrays["x"], np.nan)}, "not finite"),
        ({"distance": arrays["distance"] + 1}, "claims"),
        ({"index": arrays["index"] + 1}, "there is no witness"),
    ):
        np.savez(path, **{**arrays, **change})
        assert words in refused_at(folder, BROKEN), words
    np.savez(path, **{**arrays, "index": np.array([FILE])})
    assert "witness" in refused_at(folder, FILE)
    path.unlink()
    assert "no witness" in refused_at(folder, BROKEN)


def test_a_witness_that_is_there_cannot_be_passed_over(run):
    for change in ({"verdict": "unknown"}, {"verdict": "unsat", "strength": "checked"}):
        folder = run()
        rewritten(folder, BROKEN, change)
        assert "witness" in refused_at(folder, BROKEN, allow_uncertified=True)
    (folder / "results.json").unlink()
    assert "counts as safe" in refused_at(folder, BROKEN, allow_uncertified=True)


def test_boxes_that_are_left_out_are_missed(run):
    """A file is proved when all its boxes are: one without its record, hidden among others, or counted away."""
    folder = run()
    records = records_of(folder)
    write_records(folder, [record for record in records if record["index"] != SECOND])
    assert "verdict" in refused_at(folder, -1)
    folder = run()
    rewritten(folder, FIRST, {"boxes": 1})
    assert "2 boxes" in refused_at(folder, FIRST)
    folder = run()
    records = records_of(folder)
    records = [record for record in records if record["index"] != SECOND]
    write_records(folder, [*records, {**records[OBJECT - 1], "index": SECOND, "box": 0}])
    assert "among the boxes of another" in refused_at(folder, SECOND)


def test_boxes_without_number_cost_no_time_and_no_memory(run):
    """A record that claims to be one of more boxes than there are atoms of anything."""
    folder = run()
    rewritten(folder, FIRST, {"boxes": (1 << 53) - 1})
    assert "2 boxes" in refused_at(folder, FIRST) and refused_at(folder, -1)
    path = folder / "results.json"
    results = json.loads(path.read_text())
    for change in ({"inputs": (1 << 53) - 1}, {"offset": (1 << 53) - 1}, {"inputs": 1 << 20}):
        path.write_text(json.dumps({**results, **change}))
        assert refused_at(folder, -1)


def test_every_figure_of_a_summary_is_computed_again(made, tmp_path):
    stored = read_run(made / "run")
    shutil.copytree(made / "run", tmp_path / "run")
    unseen = set()
    for place, value in leaves(stored.results):
        changed = json.loads(json.dumps(stored.results))
        inner = changed
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value + 1 if type(value) in (int, float) else "other"
        if not differences(changed, stored.lines.records, stored.configuration):
            unseen.add(".".join(str(key) for key in place if not isinstance(key, int)))
    # What the records do not hold of a witness is held against the witnesses of the run.
    assert unseen == {"seconds", "records", "model", "properties.witness", "properties.witness.input",
                      "properties.witness.output"}  # fmt: skip
    for change in ({"input": [0.0] * 3}, {"output": [9.0, 9.0]}, None, {}, {"input": 3, "output": "x"}):
        changed = json.loads(json.dumps(stored.results))
        before = changed["properties"][1]["witness"]
        changed["properties"][1]["witness"] = None if change is None else {**before, **change} if change else {}
        (tmp_path / "run" / "results.json").write_text(json.dumps(changed))
        assert refused_at(tmp_path / "run", -1), change
    changed = json.loads(json.dumps(stored.results))
    changed["properties"][0]["witness"] = stored.results["properties"][1]["witness"]
    (tmp_path / "run" / "results.json").write_text(json.dumps(changed))
    assert refused_at(tmp_path / "run", -1)
    for change in ({"properties": []}, {"properties": 3}, {"inputs": 8}, {"offset": 1}, {"inputs": 1 << 60}):
        assert differences({**stored.results, **change}, stored.lines.records, stored.configuration), change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 1}, "another configuration"),
        ({"method": "milp"}, "another configuration"),
        ({"command": "certify"}, "is missing"),
        ({"model": "00"}, "is not the model of the run"),
        ({"data": "00"}, "another data"),
        ({"origin": {}}, "name it with --model"),
    ],
)
def test_an_altered_configuration_is_refused(run, capsys, change, words):
    folder = run()
    path = folder / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert main(["check", str(folder)]) in (1, 2)
    assert words in capsys.readouterr().err


def test_what_can_have_no_certificate_is_counted_apart(tmp_path):
    network = chain((2,), Affine(torch.ones(2, 2)), Sigmoid())
    write_network(network, tmp_path / "model.safetensors")
    one = Halfspaces(torch.tensor([[-1.0, 0.0]]).double(), torch.tensor([-0.99]).double())
    asked = Property(torch.zeros(2).double(), torch.ones(2).double(), (one,))
    verify(tmp_path / "model.safetensors", asked, out=tmp_path / "run")
    result = check(tmp_path / "run")
    assert not result.refused and result.certified == 1 and not result.checked
    assert "is sigmoid" in next(iter(result.without))
