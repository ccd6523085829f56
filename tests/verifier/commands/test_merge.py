"""Runs of parts make up the run of the whole; what does not belong together is refused, and nothing is touched."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from encoders.questions import robust
from tests.networks.chains import random_relu_network
from tests.runs.files import records_of, write_job, write_records
from verifier import attack, certify, check, merge, robustness, verify
from verifier.runs.folder import RunError
from verifier.runs.manifest import read_manifest

INPUTS = 150
PASSING = {"seconds", "median_seconds", "spent", "records", "adversarial", "versions"}


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> tuple[Path, Path]:
    return write_job(tmp_path_factory.mktemp("job"), random_relu_network(0, (4, 8, 6, 3)), INPUTS, wrong=5)


def balls(data: Path) -> list:
    with np.load(data) as arrays:
        return [robust(x, 0.2, int(y), 3) for x, y in zip(arrays["x"][:7], arrays["y"][:7], strict=True)]


VERBS = {
    "certify": lambda model, data, **options: certify(model, data, [0.02, 0.1], method="crown", **options),
    "attack": lambda model, data, **options: attack(model, data, "pgd", 0.1, **options),
    "robustness": lambda model, data, **options: robustness(model, data, 0.1, estimators=["fgsm"], **options),
    "verify": lambda model, data, **options: verify(model, balls(data), method="auto", certificates=True, **options),
}


def lasting(value):
    """Return a JSON value without what passes."""
    if isinstance(value, dict):
        return {name: lasting(inner) for name, inner in value.items() if name not in PASSING}
    return [lasting(inner) for inner in value] if isinstance(value, list) else value


def contents(folder: Path) -> dict:
    """Return what a run holds: records in their order, arrays, names of certificates, and the summary."""
    summary = json.loads((folder / "results.json").read_text())
    found = {"records": lasting(records_of(folder)), "summary": lasting(summary)}
    for name in ("witnesses", "adversarial"):
        path = folder / f"{name}.npz"
        if path.exists():
            with np.load(path) as arrays:
                order = np.argsort(arrays["index"])
                found[name] = {key: arrays[key][order].tolist() for key in arrays.files}
    found["certificates"] = sorted(path.name for path in folder.glob("certificates/*.npz"))
    return found


def bytes_of(*folders: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("verb", VERBS)
def test_the_shards_of_a_run_make_up_the_run(job, tmp_path, verb) -> None:
    VERBS[verb](*job, out=tmp_path / "whole")
    shards = [tmp_path / f"shard-{number}" for number in (1, 2)]
    for number, folder in enumerate(shards, start=1):
        VERBS[verb](*job, out=folder, shard=f"{number}/2")
    before = bytes_of(*shards)
    # In any order.
    result = merge(shards[::-1], tmp_path / "merged")
    assert bytes_of(*shards) == before
    assert contents(tmp_path / "merged") == contents(tmp_path / "whole")
    assert result.runs == 2 and result.inputs == {"verify": 7}.get(verb, INPUTS)
    checked = check(tmp_path / "merged", allow_uncertified=True)
    assert not checked.refused and checked.witnesses == check(tmp_path / "whole", allow_uncertified=True).witnesses
    kept = (tmp_path / "merged" / "records.jsonl").read_bytes()
    VERBS[verb](*job, out=tmp_path / "merged")
    assert (tmp_path / "merged" / "records.jsonl").read_bytes() == kept, "nothing is left to do"
    manifest = read_manifest(tmp_path / "merged")
    assert manifest is not None and manifest.merged[1]["inputs"][1] == manifest.merged[0]["inputs"][0]


@pytest.fixture(scope="module")
def shards(job, tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("shards")
    for number in (1, 2, 3):
        certify(*job, [0.05], method="crown", out=folder / f"{number}", shard=f"{number}/3")
    return [folder / f"{number}" for number in (1, 2, 3)]


def test_a_missing_part_is_refused_by_name(shards, tmp_path) -> None:
    with pytest.raises(RunError, match=r"64 inputs from 64 on are in none of the runs .the shards 1/3, 3/3 are"):
        merge([shards[0], shards[2]], tmp_path / "merged")
    # The last one, too: the others say of what they are parts.
    with pytest.raises(RunError, match="22 inputs from 128 on"):
        merge(shards[:2], tmp_path / "merged")
    assert not (tmp_path / "merged").exists() and not list(tmp_path.iterdir())


def test_strangers_are_refused(job, shards, tmp_path) -> None:
    certify(*job, [0.05], method="crown", out=tmp_path / "seed", shard="3/3", seed=1)
    certify(*job, [0.06], method="crown", out=tmp_path / "radius", shard="3/3")
    certify(*job, [0.05], method="crown", out=tmp_path / "limit", shard="2/2", limit=100)
    faults = {"seed": "seed is 1 there and 0 here", "radius": "different radii", "limit": "parts of different"}
    for name, words in faults.items():
        with pytest.raises(RunError, match=words):
            merge([*shards[:2], tmp_path / name], tmp_path / "merged")
    with pytest.raises(RunError, match="holds no run"):
        merge([*shards, tmp_path], tmp_path / "merged")
    with pytest.raises(RunError, match="named twice"):
        merge([*shards, shards[0]], tmp_path / "merged")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(RunError, match="not empty"):
        merge(shards, tmp_path / "full")


def test_what_is_not_finished_is_refused_with_what_to_do(shards, tmp_path) -> None:
    shutil.copytree(shards[2], tmp_path / "3")
    (tmp_path / "3" / "results.json").unlink()
    with pytest.raises(RunError, match="not finished; the command of the run, given again"):
        merge([*shards[:2], tmp_path / "3"], tmp_path / "merged")


def test_overlaps_that_agree_are_one_and_those_that_disagree_are_refused(job, shards, tmp_path) -> None:
    certify(*job, [0.05], method="crown", out=tmp_path / "again", offset=64, limit=64)
    merge([*shards, tmp_path / "again"], tmp_path / "merged")
    merge(shards, tmp_path / "plain")
    assert (tmp_path / "merged" / "records.jsonl").read_bytes() == (tmp_path / "plain" / "records.jsonl").read_bytes()
    records = records_of(tmp_path / "again")
    # Less is known than in the shard: what the shard says is taken, and of the others what comes first.
    lower, records[3]["lower"] = records[3]["lower"], records[3]["lower"] / 2
    write_records(tmp_path / "again", records)
    merge([tmp_path / "again", *shards], tmp_path / "more")
    more = records_of(tmp_path / "more")
    assert more[67]["lower"] == lower and more[66] == records[2] and more[63] == records_of(shards[0])[63]
    records[3]["label"] = records[3]["prediction"] = (records[3]["label"] + 1) % 3
    write_records(tmp_path / "again", records)
    with pytest.raises(RunError, match="disagree on input 67: in one of them label was"):
        merge([*shards, tmp_path / "again"], tmp_path / "other")


def test_lost_records_are_no_answers(shards, tmp_path) -> None:
    """A summary says that the inputs were asked about; without their records nobody knows what was found."""
    cut = shutil.copytree(shards[0], tmp_path / "cut")
    path = cut / "records.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))
    with pytest.raises(RunError, match="2 inputs from"):
        merge([cut, *shards[1:]], tmp_path / "merged")


def test_lost_files_are_refused(job, tmp_path) -> None:
    ask = {"epsilons": [0.02], "method": "crown", "certificates": True, "limit": 70}
    for number in (1, 2):
        certify(*job, out=tmp_path / f"{number}", shard=f"{number}/2", **ask)
    # Crown finds no witness: the record is made to claim one.
    records = records_of(tmp_path / "1")
    records[9] |= {"upper": 1.0, "upper_method": "crown"}
    write_records(tmp_path / "1", records)
    next((tmp_path / "2" / "certificates").glob("*.npz")).unlink()
    with pytest.raises(RunError, match="lacks the witness of input 9"):
        merge([tmp_path / "1", tmp_path / "2"], tmp_path / "merged")
    with pytest.raises(RunError, match="lacks the certificate of input"):
        merge([tmp_path / "2", tmp_path / "1"], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/2"])
def test_a_shard_that_is_none_is_refused(job, tmp_path, text) -> None:
    with pytest.raises(ValueError, match="the part i of n"):
        certify(*job, [0.05], method="crown", out=tmp_path / "run", shard=text)
    assert not list(tmp_path.iterdir())


def test_more_parts_than_units_are_refused(job, tmp_path) -> None:
    with pytest.raises(ValueError, match="make 3 units"):
        certify(*job, [0.05], method="crown", out=tmp_path / "run", shard="1/4")
    assert not list(tmp_path.iterdir())


def test_a_full_folder_is_a_sentence_and_leaves_nothing(shards, tmp_path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = bytes_of(*shards)
    monkeypatch.setattr("verifier.commands.merge.write_manifest", full)
    with pytest.raises(OSError, match=r"cannot be written: .*No space left on device; the runs are as they were"):
        merge(shards, tmp_path / "merged")
    assert not list(tmp_path.iterdir()) and bytes_of(*shards) == before


def test_a_manifest_that_is_not_of_the_records_is_refused_by_check(shards, tmp_path) -> None:
    merge(shards, tmp_path / "merged")
    path = tmp_path / "merged" / "manifest.json"
    manifest = json.loads(path.read_text())
    for change, words in (
        ({"inputs": [0, INPUTS + 1]}, f"names input {INPUTS}, of which there is no record"),
        ({"run": "0" * 64}, "is of another run"),
        ({"whole": [3]}, "field 'whole' is a list of 1"),
    ):
        path.write_text(json.dumps({**manifest, **change}))
        refused = check(tmp_path / "merged", allow_uncertified=True).refused
        assert [index for index, _ in refused] == [-1] and words in refused[0][1]
