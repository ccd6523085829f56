"""A run that is taken up again misses what was damaged meanwhile, and does that work again."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from encoders.questions import robust
from tests.networks.chains import random_relu_network
from tests.runs.files import CLIP, records_of, write_job
from verifier import attack, certify, check, compare, robustness, verify
from verifier.runs.folder import RunError

COMMANDS = ("certify", "attack", "robustness", "compare", "verify")


def work(command: str, place: Path, out: Path, **more):
    """Run a command, or go on with it; return its result."""
    model, data = place / "model.safetensors", place / "data.npz"
    if command == "certify":
        return certify(model, data, [0.02, 0.3], method="exact", clip=CLIP, out=out, **more)
    if command == "attack":
        return attack(model, data, "pgd", 0.3, clip=CLIP, out=out, **more)
    if command == "robustness":
        return robustness(model, data, 0.3, estimators=["fgsm"], clip=CLIP, out=out, **more)
    if command == "verify":
        with np.load(data) as arrays:
            asked = [robust(x, 0.3, int(y), 3, domain=CLIP) for x, y in zip(arrays["x"], arrays["y"], strict=True)]
        return verify(model, asked, method="exact", out=out, **more)
    return compare(model, data, 0.3, methods=["interval", "attack"], clip=CLIP, out=out, **more)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("resumed")
    write_job(place, random_relu_network(2, (3, 8, 6, 3)), 6)
    for command in COMMANDS:
        work(command, place, place / command)
    return place


def arrays_of(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "witnesses.npz") as stored:
        return dict(stored)


def damage(folder: Path, how: str) -> None:
    path = folder / "witnesses.npz"
    content, arrays = path.read_bytes(), arrays_of(folder)
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "nonsense":
        path.write_bytes(b"nonsense")
    else:
        changes = {
            "one missing": {name: array[1:] for name, array in arrays.items()},
            "shape": {"x": arrays["x"][:, :2]},
            "dtype": {"x": arrays["x"].astype(np.float64)},
            "nan": {"x": np.full_like(arrays["x"], np.nan), "distance": np.full_like(arrays["distance"], np.nan)},
            "elsewhere": {"x": 1.0 - arrays["x"]},
            "outside": {"x": arrays["x"] + 5},
            "nearer": {"distance": arrays["distance"] / 2},
            "farther": {"distance": arrays["distance"] * 2},
            "harmless": {"x": centres_of(folder, arrays["index"])},
            "lengths": {"index": arrays["index"][1:]},
            "scalar": {"distance": np.float64(0.1)},
        }
        np.savez(path, **{**arrays, **changes[how]})


def centres_of(folder: Path, index: np.ndarray) -> np.ndarray:
    with np.load(json.loads((folder / "run.json").read_text())["origin"]["data"]) as stored:
        return stored["x"][index]


EVERY = (
    "missing", "truncated", "nonsense", "one missing", "shape", "dtype", "nan", "elsewhere", "outside", "nearer",
    "farther", "harmless", "lengths", "scalar",
)  # fmt: skip
CASES = [("attack", how) for how in EVERY] + [(c, how) for c in COMMANDS if c != "attack" for how in EVERY[3:5]]


@pytest.mark.parametrize(("command", "how"), CASES)
def test_damaged_witnesses_are_noticed_and_searched_again(made, tmp_path, command, how):
    folder = tmp_path / "run"
    shutil.copytree(made / command, folder)
    before = sorted(arrays_of(folder)["index"].tolist())
    damage(folder, how)
    result = work(command, made, folder)
    assert any("worked on again" in warning for warning in result.warnings), result.warnings
    assert sorted(arrays_of(folder)["index"].tolist()) == before
    held = check(folder, allow_uncertified=True)
    assert not held.refused and held.inputs == 6 and held.witnesses == len(before)
    assert not any("again" in warning for warning in work(command, made, folder).warnings)


def test_a_witness_of_nobody_is_not_believed(made, tmp_path):
    """Left behind by a process that was killed, or put there: an attack that goes on searches for itself."""
    folder = tmp_path / "run"
    shutil.copytree(made / "attack", folder)
    (folder / "records.jsonl").write_text("")
    damage(folder, "nearer")
    work("attack", made, folder)
    assert not check(folder).refused


def test_what_was_proved_of_an_input_stands_while_its_witness_is_searched_again(made, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(made / "certify", folder)
    before = {record["index"]: record for record in records_of(folder)}
    damage(folder, "missing")
    work("certify", made, folder, time_limit=0.0)
    stopped = {record["index"]: record for record in records_of(folder)}
    both = [i for i, record in before.items() if record["lower"] > 0 and record["upper"] is not None]
    assert both
    for index in both:
        assert stopped[index]["upper"] is None and stopped[index]["lower"] == before[index]["lower"]
        assert stopped[index]["certificate"] == before[index]["certificate"]
    assert not check(folder).refused


def test_the_withdrawal_is_written_before_any_work(made, tmp_path, monkeypatch):
    """Killed right afterwards, the run holds: nothing claims a witness that is gone, and no summary counts it."""
    folder = tmp_path / "run"
    shutil.copytree(made / "attack", folder)
    damage(folder, "one missing")
    monkeypatch.setattr("verifier.commands.attack._Attacking.work", lambda *_: pytest.fail("killed"))
    with pytest.raises(pytest.fail.Exception):
        work("attack", made, folder)
    assert not (folder / "results.json").exists() and len(records_of(folder)) == 5
    assert not check(folder).refused


def test_a_certificate_that_is_gone_is_made_again(made, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(made / "certify", folder)
    paths = sorted((folder / "certificates").iterdir())
    paths[0].unlink()
    paths[1].write_bytes(paths[1].read_bytes()[:-1])
    result = work("certify", made, folder)
    assert any("certificate" in warning for warning in result.warnings)
    held = check(folder)
    assert not held.refused and held.checked == held.certified >= len(paths)


def test_a_record_beyond_the_data_is_refused_when_resumed(made, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(made / "attack", folder)
    records = records_of(folder)
    (folder / "records.jsonl").write_text("".join(json.dumps({**r, "index": r["index"] + 6}) + "\n" for r in records))
    with pytest.raises(RunError, match="the data end before input 6"):
        work("attack", made, folder)


def test_a_comparison_that_is_extended_repeats_nothing_and_only_adds(made, tmp_path):
    """First some inputs, then more methods on all of them: what stood in a record stands there still."""
    out = tmp_path / "run"
    model, data = made / "model.safetensors", made / "data.npz"
    compare(model, data, 0.3, methods=["interval"], clip=CLIP, limit=4, out=out)
    first = {record["index"]: record["methods"]["interval"] for record in records_of(out)}
    compare(model, data, 0.3, methods=["interval", "attack"], clip=CLIP, out=out)
    second = {record["index"]: record["methods"] for record in records_of(out)}
    assert sorted(second) == list(range(6))
    assert all(second[index]["interval"] == answer for index, answer in first.items())
    assert not check(out, allow_uncertified=True).refused


def test_a_measurement_at_a_larger_radius_keeps_what_is_known(made, tmp_path):
    out = tmp_path / "run"
    model, data = made / "model.safetensors", made / "data.npz"
    small = robustness(model, data, 0.1, method="crown", estimators=["fgsm"], clip=CLIP, out=out)
    large = robustness(model, data, 0.3, method="crown", estimators=["fgsm"], clip=CLIP, out=out)
    for before, after in zip(small.brackets, large.brackets, strict=True):
        assert after.lower >= before.lower and after.upper <= before.upper
    assert not check(out, allow_uncertified=True).refused


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_in_the_place_of_a_file_stops_nobody(made, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(made / "attack", folder)
    (folder / "witnesses.npz").unlink()
    os.mkfifo(folder / "witnesses.npz")
    assert work("attack", made, folder).confirmed > 0


@pytest.mark.parametrize("command", COMMANDS)
def test_records_that_were_worked_on_again_name_their_run(made, tmp_path, command):
    """The digest by which a record of another configuration is told stays in every line, written however often."""
    folder = tmp_path / "run"
    shutil.copytree(made / command, folder)
    (folder / "witnesses.npz").unlink()
    work(command, made, folder)
    assert {record.get("run") for record in records_of(folder)} == {
        record["run"] for record in records_of(made / command)
    }
