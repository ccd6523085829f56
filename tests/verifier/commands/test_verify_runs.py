"""Runs of `verify`: stopped anywhere they go on, what is known is not asked again, more properties extend them."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch

from encoders import Property, write_network
from encoders.ops import Affine, Relu
from encoders.questions import output_within
from tests.networks.chains import chain
from tests.runs.files import records_of
from verifier import check, verify
from verifier.cli import main
from verifier.methods import METHODS
from verifier.runs.folder import RunError

DECLARED = "".join(f"(declare-const {name} Real)\n" for name in ("X_0", "X_1", "Y_0", "Y_1"))
BOX = "(and (>= X_0 {0}) (<= X_0 {1}) (>= X_1 0) (<= X_1 .5))"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return the file of y = (relu(x_0 + x_1), relu(x_0 - x_1))."""
    weight = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    write_network(chain((2,), Affine(weight), Relu(), Affine(torch.eye(2))), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def boxes(folder: Path, name: str, limit: float, *ends: tuple[float, float]) -> Path:
    """Write a property of several boxes, x_0 between ends and x_1 up to .5: y_0 stays below the limit."""
    text = " ".join(BOX.format(*pair) for pair in ends)
    (folder / name).write_text(f"{DECLARED}(assert (or {text}))(assert (>= Y_0 {limit}))")
    return folder / name


class Stop(KeyboardInterrupt):
    """The interruption of a test."""


def stopping(after: int):
    def progress(done: int, total: int) -> None:
        if done == after:
            raise Stop

    return progress


def lasting(folder: Path) -> list[dict]:
    def without(value):
        """Return a value of JSON without what passes."""
        if isinstance(value, dict):
            return {name: without(inner) for name, inner in value.items() if name not in ("seconds", "versions")}
        return [without(inner) for inner in value] if isinstance(value, list) else value

    return without(records_of(folder))


def test_a_run_that_is_stopped_between_boxes_goes_on(model, tmp_path, monkeypatch):
    path = boxes(tmp_path, "p.vnnlib", 9.0, (0, 0.1), (0.2, 0.3), (0.4, 0.5))
    verify(model, path, method="exact", out=tmp_path / "whole")
    with pytest.raises(Stop):
        verify(model, path, method="exact", out=tmp_path / "run", progress=stopping(2))
    kept = (tmp_path / "run" / "records.jsonl").read_bytes()
    assert len(kept.splitlines()) == 2 and not (tmp_path / "run" / "results.json").exists()
    assert not check(tmp_path / "run").refused
    (found,) = verify(model, path, method="exact", out=tmp_path / "run").properties
    assert found.verdict == "unsat" and (tmp_path / "run" / "records.jsonl").read_bytes().startswith(kept)
    assert lasting(tmp_path / "run") == lasting(tmp_path / "whole")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*.*") if path.name != "results.json"}
    monkeypatch.setattr(type(METHODS["exact"]), "decide", lambda *_: pytest.fail("asked again"))
    again = verify(model, path, method="exact", out=tmp_path / "run").properties[0]
    assert again.to_json() == found.to_json()
    assert {path: path.read_bytes() for path in before} == before
    assert not check(tmp_path / "run").refused


def test_after_a_witness_the_boxes_behind_it_are_left_out(model, tmp_path):
    path = boxes(tmp_path, "p.vnnlib", 0.7, (0, 0.1), (0.2, 0.3), (0.4, 0.5))
    (found,) = verify(model, path, out=tmp_path / "run").properties
    assert found.verdict == "sat" and found.boxes == 3 and found.witness is not None
    assert [record["verdict"] for record in records_of(tmp_path / "run")] == ["unsat", "sat"]
    assert not check(tmp_path / "run", allow_uncertified=True).refused
    (again,) = verify(model, path, out=tmp_path / "run").properties
    assert again.witness is not None and torch.equal(again.witness.point, found.witness.point)
    assert len(records_of(tmp_path / "run")) == 2
    # The witness is gone: its box is asked about again.
    (tmp_path / "run" / "witnesses.npz").unlink()
    third = verify(model, path, out=tmp_path / "run")
    assert third.properties[0].verdict == "sat" and "worked on again" in third.warnings[0]
    assert not check(tmp_path / "run", allow_uncertified=True).refused


def test_more_properties_extend_a_run_and_others_are_refused(model, tmp_path):
    first, second = (boxes(tmp_path, f"{n}.vnnlib", 9.0 + n, (0, 0.1), (0.2, 0.3)) for n in range(2))
    verify(model, first, out=tmp_path / "run")
    kept = (tmp_path / "run" / "records.jsonl").read_bytes()
    both = verify(model, [first, second], out=tmp_path / "run")
    assert [found.property for found in both.properties] == [str(first), str(second)]
    assert (tmp_path / "run" / "records.jsonl").read_bytes().startswith(kept) and len(lasting(tmp_path / "run")) == 4
    for asked in (
        first,
        [second, first],
        [first, first],
        [output_within([0, 0], [0.1, 0.5], [-1, -1], [9, 9]), second],
    ):
        with pytest.raises(RunError, match="holds another run"):
            verify(model, asked, out=tmp_path / "run")
    part = verify(model, [first, second], out=tmp_path / "part", offset=1)
    assert [found.property for found in part.properties] == [str(second)]
    assert [record["index"] for record in records_of(tmp_path / "part")] == [2, 3]
    assert not check(tmp_path / "part", allow_uncertified=True).refused
    with pytest.raises(ValueError, match="none from 2 on"):
        verify(model, [first, second], offset=2)


def test_a_larger_time_limit_tries_again_what_was_left_open(model, tmp_path):
    path = boxes(tmp_path, "p.vnnlib", 9.0, (0, 0.1), (0.2, 0.3))
    (found,) = verify(model, path, out=tmp_path / "run", time_limit=0.0).properties
    assert found.verdict == "timeout" and len(records_of(tmp_path / "run")) == 1
    before = (tmp_path / "run" / "records.jsonl").read_bytes()
    assert verify(model, path, out=tmp_path / "run", time_limit=0.0).properties[0].verdict == "timeout"
    assert (tmp_path / "run" / "records.jsonl").read_bytes() == before
    assert not check(tmp_path / "run").refused
    (found,) = verify(model, path, out=tmp_path / "run", time_limit=60.0).properties
    assert found.verdict == "unsat" and [record["tried"] for record in records_of(tmp_path / "run")] == [60.0, 60.0]
    # What is unknown without a limit stays so: the method has done what it can.
    tie = Property(
        torch.zeros(2).double(), torch.zeros(2).double(), output_within([0, 0], [1, 1], [0, -9], [9, 9]).unsafe
    )
    calls = []
    for limit in (math.inf, 5.0):
        verify(model, tie, method="interval", out=tmp_path / "tie", time_limit=limit)
        calls.append(len((tmp_path / "tie" / "records.jsonl").read_text().splitlines()))
    assert calls == [1, 1]


def test_certificates_are_kept_when_asked_for_and_always_by_exact(model, tmp_path):
    path = boxes(tmp_path, "p.vnnlib", 9.0, (0, 0.1))
    cases = (
        ("exact", {}, True), ("auto", {}, False), ("auto", {"certificates": True}, True),
        ("crown", {"certificates": True}, True), ("exact", {"certificates": False}, False),
    )  # fmt: skip
    for method, options, kept in cases:
        out = tmp_path / "run"
        (found,) = verify(model, path, method=method, out=out, **options).properties
        entry = found.to_json()
        assert found.verdict == "unsat" and (entry["certificate"] is not None) is kept
        if kept:
            assert (out / entry["certificate"]).is_file() and not check(out).refused
        else:
            assert "--certificates" in check(out).refused[0][1]
            again = verify(model, path, method=method, out=out, certificates=True).properties[0]
            assert again.certificates[0] is not None and not check(out).refused
        shutil.rmtree(out)


def test_objects_are_kept_in_the_run_so_that_it_can_be_checked(model, tmp_path):
    asked = output_within([0, 0], [1, 1], [-1, -9], [2.5, 9], name="p.vnnlib")
    (found,) = verify(model, asked, method="exact", out=tmp_path / "run").properties
    assert found.verdict == "unsat" and found.file is None and found.property == "p.vnnlib (object)"
    result = check(tmp_path / "run")
    assert not result.refused and result.checked == 1
    shutil.rmtree(tmp_path / "run" / "properties")
    assert "does not keep the property" in check(tmp_path / "run").refused[0][1]
    verify(model, asked, method="exact", out=tmp_path / "run")


def test_the_command_line_keeps_a_run_by_the_list_of_properties(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    first, second = (str(boxes(tmp_path, f"{n}.vnnlib", 9.0 + n, (0, 0.1)).name) for n in range(2))
    for asked in ([first], [first, second], [second]):
        assert main(["verify", "model.safetensors", *asked, "--json", "--method", "exact"]) == 0
        printed = json.loads(capsys.readouterr().out)
        folder = Path(printed["records"]).parent
        assert folder.parent.name == "runs" and folder.name.startswith("verify-")
        assert all((folder / entry["certificate"]).is_file() for entry in printed["properties"])
        assert main(["check", str(folder)]) == 0
        assert json.loads((folder / "results.json").read_text())["properties"] == printed["properties"]
        capsys.readouterr()
    assert len(list((tmp_path / "runs").iterdir())) == 3


def test_an_interruption_ends_with_its_status_and_leaves_what_is_known(model, tmp_path, monkeypatch, capsys):
    path = boxes(tmp_path, "p.vnnlib", 9.0, (0, 0.1), (0.2, 0.3))
    from verifier.commands import verify as module

    decide, seen = module.find_prover, []

    def interrupted(name: str):
        seen.append(name)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return decide(name)

    monkeypatch.setattr("verifier.commands.verify.find_prover", interrupted)
    arguments = ["verify", str(model), str(path), "--out", str(tmp_path / "run"), "--results", str(tmp_path / "r.txt")]
    assert main(arguments) == 130
    assert len(records_of(tmp_path / "run")) == 1 and not (tmp_path / "r.txt").exists()
    assert main(arguments) == 0 and (tmp_path / "r.txt").read_text() == "unsat\n"
    capsys.readouterr()
