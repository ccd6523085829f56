"""Whoever alters a run by hand, deletes from it or adds to it, is found out by `check`, and has gained nothing.

Each test is an attacker: it takes a run that holds, changes something, and must be refused (exit status 1 or 2, one
sentence, no traceback).
"""

import hashlib
import io
import json
import math
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from encoders import write_network
from encoders.ops import Affine, Sigmoid
from tests.networks.chains import chain, random_relu_network
from tests.networks.mwd_chains import random_mwd_network
from tests.runs.files import CLIP, records_of, write_job, write_records
from tests.runs.json_values import leaves
from verifier import attack, certify, check, compare, robustness
from verifier.cli import main
from verifier.runs.folder import RunError, read_run
from verifier.summaries.results_file import differences


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Four runs of one small network that hold: by their commands' names."""
    place = tmp_path_factory.mktemp("made")
    model, data = write_job(place, random_relu_network(2, (3, 8, 6, 3)), 8, wrong=1)
    certify(model, data, [0.02, 0.1, 0.3], method="exact", clip=CLIP, out=place / "certify")
    attack(model, data, "pgd", 0.2, clip=CLIP, out=place / "attack")
    robustness(model, data, 0.2, method="crown", estimators=["attack", "fgsm"], clip=CLIP, out=place / "robustness")
    compare(model, data, 0.2, methods=["interval", "crown", "attack"], clip=CLIP, out=place / "compare")
    return place


@pytest.fixture
def run(made, tmp_path):
    """Return a function that copies the run of a command."""

    def copied(command: str = "certify") -> Path:
        target = tmp_path / f"{command}-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(made / command, target)
        return target

    return copied


def proved(records: list[dict]) -> dict:
    """Return the record of an input that is proved safe with some effort."""
    return max((r for r in records if r.get("certificate")), key=lambda record: record["certificate"]["leaves"])


def refused_at(folder: Path, index: int, **more) -> str:
    """Return why `check` refuses an input; nothing if it does not."""
    return "; ".join(reason for at, reason in check(folder, **more).refused if at == index)


@pytest.mark.parametrize("command", ["certify", "attack", "robustness", "compare"])
def test_what_was_not_altered_holds(made, command):
    result = check(made / command, allow_uncertified=True)
    assert not result.refused and result.inputs == 8 and result.witnesses > 0
    assert result.certified == result.checked + result.uncertified
    assert result.uncertified == (0 if command in ("certify", "attack") else result.certified)


# --------------------------------------------------------------------------------------------------------- certificates


def test_whoever_deletes_a_certificate_gains_nothing(run):
    """The field alone, the field and the file, or an excuse in its place: the network could have one."""
    for number, change in enumerate(({}, {"certificate": None}, {"no_certificate": "the moon was full\x1b[2J"})):
        folder = run()
        records = records_of(folder)
        record = proved(records)
        named = record.pop("certificate")
        if number:
            (folder / named["file"]).unlink()
        record |= change
        write_records(folder, records)
        reason = refused_at(folder, record["index"])
        assert "no certificate, though a proof about this network can have one" in reason and "--certificates" in reason
        assert "\x1b" not in reason
        assert main(["check", str(folder)]) == 1
        assert main(["check", str(folder), "--allow-uncertified"]) == 0
        allowed = check(folder, allow_uncertified=True)
        assert allowed.uncertified == 1 and allowed.certified == allowed.checked + 1 and not allowed.refused
        assert dict(allowed.without) == {"a proof about this network can have one": 1}  # no advice that was taken
        # A run that was stopped lacks what the same command makes; it is refused as well.
        (folder / "results.json").unlink()
        reason = refused_at(folder, record["index"])
        assert "give its command again" in reason and "--" not in reason


def test_a_strength_or_a_wider_claim_does_not_spare_the_certificate(run):
    for change in ({"lower": None, "upper": None}, {"lower": 1e-9}, {"lower_method": "milp"}):
        folder = run()
        records = records_of(folder)
        record = proved(records)
        del record["certificate"]
        record |= change
        write_records(folder, records)
        assert "no certificate" in refused_at(folder, record["index"])
    # A claim that is made one of a solver is no claim any more, and the summary shows that.
    record |= {"strength": "trusted"}
    write_records(folder, records)
    assert "results.json" in refused_at(folder, -1) and not refused_at(folder, record["index"]).count("no certificate")


def test_certificates_of_other_places_runs_and_inputs_are_refused(run, made, tmp_path):
    outside = tmp_path / "outside.npz"
    names = [
        "../outside.npz",
        "/etc/passwd",
        "certificates/../x.npz",
        "certificates/",
        "certificates/..",
        "certificates",
    ]
    for name in (*names, "certificates/a\x00b.npz"):
        folder = run()
        records = records_of(folder)
        record = proved(records)
        shutil.copy(folder / record["certificate"]["file"], outside)
        record["certificate"]["file"] = name
        write_records(folder, records)
        assert "is no file in certificates/ of the run" in refused_at(folder, record["index"])
    folder = run()
    records = records_of(folder)
    record = proved(records)
    path = folder / record["certificate"]["file"]
    path.unlink()
    path.symlink_to(outside)
    assert "no regular file" in refused_at(folder, record["index"])
    path.unlink()
    os.mkfifo(path)
    assert "no regular file" in refused_at(folder, record["index"])
    shutil.rmtree(folder / "certificates")
    (folder / "certificates").symlink_to(made / "certify" / "certificates")
    assert "is a link" in refused_at(folder, record["index"])
    folder = run()
    records = records_of(folder)
    first, second = [r for r in records if r.get("certificate")][:2]
    first["certificate"], second["certificate"] = second["certificate"], first["certificate"]
    write_records(folder, records)
    assert "expected" in refused_at(folder, first["index"]) and "expected" in refused_at(folder, second["index"])


def test_what_a_record_says_of_its_certificate_is_read_off_the_certificate(run):
    for name, words in (("leaves", "its leaves is"), ("radius", "its radius is")):
        folder = run()
        records = records_of(folder)
        record = proved(records)
        record["certificate"][name] += 1
        write_records(folder, records)
        assert words in refused_at(folder, record["index"])


def altered(path: Path, record: dict, content: bytes) -> None:
    path.write_bytes(content)
    record["certificate"]["sha256"] = hashlib.sha256(content).hexdigest()


def test_certificates_that_would_fill_the_memory_are_refused_at_once(run, monkeypatch):
    """Zeros that unpack to more than the file may, a header that claims more than there is, nested text, no zip."""
    monkeypatch.setattr("verifier.npz.UNPACKED", 1 << 20)
    folder = run()
    records = records_of(folder)
    record = proved(records)
    path = folder / record["certificate"]["file"]
    with np.load(path) as stored:
        arrays = dict(stored)

    def archive(**members: bytes) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in members.items():
                file.writestr(f"{name}.npy", content)
        return buffer.getvalue()

    def packed(array: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        np.save(buffer, array)
        return buffer.getvalue()

    claims = packed(np.zeros(3)).replace(b"(3,), }" + b" " * 12, b"(3000000000000,), }")
    nested = b"[" * 100_000
    hostile = {
        "unpacks to": archive(header=b"\0" * (2 << 20)),
        "claims": archive(header=claims),
        "no certificate": archive(header=packed(np.frombuffer(nested, dtype=np.uint8))),
        "no archive": b"PK\x03\x04",
        "not real numbers": archive(header=packed(np.array(["x"]))),
        "is no array": archive(header=b"nonsense"),
    }
    for words, content in hostile.items():
        altered(path, record, content)
        write_records(folder, records)
        assert words in refused_at(folder, record["index"]), words
    header = json.loads(arrays["header"].tobytes())
    changes = ({"radius": math.nan}, {"radius": 1e300}, {"trees": [[]]}, {"trees": [[[], 1, 1]]},
               {"winner": None}, {"boxes": 3})  # fmt: skip
    for change in changes:
        text = np.frombuffer(json.dumps({**header, **change}).encode(), np.uint8)
        altered(path, record, archive(**{name: packed(array) for name, array in {**arrays, "header": text}.items()}))
        write_records(folder, records)
        assert refused_at(folder, record["index"]), change


def test_runs_of_other_commands_keep_no_certificates_and_are_told_what_does(made, capsys):
    for command in ("robustness", "compare"):
        assert main(["check", str(made / command)]) == 1
        assert "verifier certify --certificates" in capsys.readouterr().err
        assert main(["check", str(made / command), "--allow-uncertified"]) == 0
    assert main(["check", str(made / "attack")]) == 0


def test_a_run_without_certificates_is_told_how_to_get_them_and_auto_is_no_exception(made, tmp_path, capsys):
    model, data = made / "model.safetensors", made / "data.npz"
    for method in ("crown", "auto"):
        out = tmp_path / method
        certify(model, data, [0.02], method=method, clip=CLIP, out=out)
        capsys.readouterr()
        assert main(["check", str(out)]) == 1
        lines = capsys.readouterr().err.strip().splitlines()
        refused = [line for line in lines if line.startswith("refused:")]
        assert len(refused) == 1 and "--certificates" in refused[0] and "inputs (" in refused[0]
        certify(model, data, [0.02], method=method, clip=CLIP, out=out, certificates=True)
        assert main(["check", str(out)]) == 0


def test_what_can_have_no_certificate_is_counted_apart_by_a_reason_that_is_computed(made, tmp_path):
    """MWD layers followed by others, sigmoids, other norms: whatever the records say."""
    torch.manual_seed(1)
    mwd = chain((3,), *(node.op for node in random_mwd_network(5, (3, 6, 3)).nodes), Affine(torch.eye(3)))
    networks = {
        "mwd": (mwd, {"method": "auto"}, "is mwd"),
        "sigmoid": (chain((3,), Affine(torch.randn(4, 3)), Sigmoid(), Affine(torch.randn(3, 4))), {}, "is sigmoid"),
        "norm": (random_relu_network(2, (3, 4, 3)), {"norm": "2"}, "the 2-norm"),
    }
    for name, (network, options, words) in networks.items():
        (tmp_path / name).mkdir()
        model, data = write_job(tmp_path / name, network, 6)
        out = tmp_path / name / "run"
        certify(model, data, [1e-4], clip=CLIP, out=out, **{"method": "interval", **options})
        records = [record | {"no_certificate": "another reason"} for record in records_of(out)]
        write_records(out, records)
        result = check(out)
        assert not result.refused and not result.checked and result.certified == sum(result.without.values()) > 0
        assert len(result.without) == 1 and words in next(iter(result.without)) and not result.uncertified


def test_a_network_too_large_for_certificates_can_have_none(made, monkeypatch):
    monkeypatch.setattr("verifier.certificates.scope.MOST_MULTIPLICATIONS", 10)
    result = check(made / "compare")
    assert not result.refused and "more than the 10 it takes on" in next(iter(result.without))


# ------------------------------------------------------------------------------------------- records and configuration


def test_two_records_of_an_input_are_refused_in_a_run_that_is_finished(run):
    for change in ({}, {"lower": 0.9, "upper": None, "certificate": None}):
        folder = run()
        records = records_of(folder)
        write_records(folder, [*records, proved(records) | change])
        assert "several records in a run that is finished, lines" in refused_at(folder, proved(records)["index"])
        assert main(["check", str(folder)]) == 1


def test_two_records_of_an_input_in_a_run_that_goes_on_only_add(run):
    folder = run()
    (folder / "results.json").unlink()
    records = records_of(folder)
    better = next(record for record in records if record.get("upper") is not None)
    write_records(folder, [*records, better])
    assert not check(folder).refused
    write_records(folder, [*records, better | {"upper": None, "upper_method": ""}])
    assert "line 9" in refused_at(folder, better["index"]) and "its bracket was" in refused_at(folder, better["index"])


def test_an_altered_record_is_refused_by_its_line_and_never_with_a_traceback(run, capsys):
    for change in ({"lower": "0.3"}, {"upper": {"a": 1}}, {"tried": None}, {"versions": 3}, {"strength": "proved"}):
        folder = run()
        records = records_of(folder)
        records[3] |= change
        write_records(folder, records)
        assert main(["check", str(folder)]) == 1
        assert "line 4: malformed: field" in capsys.readouterr().err
    for line in (b'{"index": NaN}', b"\xff", b"{" * 10_000):
        folder = run()
        path = folder / "records.jsonl"
        path.write_bytes(line + b"\n" + path.read_bytes())
        assert main(["check", str(folder)]) == 2
        assert "records.jsonl, line 1: not a record" in capsys.readouterr().err


def test_a_class_that_was_made_to_fit_is_refused_at_any_scale_of_the_outputs(tmp_path):
    """Outputs (.6, .3, .1) times a power of two: class 1 is as far from the largest at each scale."""
    for power in (-30, 0, 33):
        place = tmp_path / str(power)
        place.mkdir()
        weight = torch.tensor([[0.6], [0.3], [0.1]]) * 2.0**power
        write_network(chain((1,), Affine(weight)), place / "model.safetensors")
        for name, label in (("true", 0), ("forged", 1)):
            np.savez(place / f"{name}.npz", x=np.ones((1, 1), dtype=np.float32), y=np.array([label]))
            certify(place / "model.safetensors", place / f"{name}.npz", [0.01], clip=CLIP, out=place / name)
        assert not check(place / "true", allow_uncertified=True).refused
        (record,) = records_of(place / "forged")
        assert not record["correct"]
        record |= {"prediction": 1}
        known = {"lower": 0.1, "upper": None, "lower_method": "x", "upper_method": "", "strength": "checked"}
        write_records(place / "forged", [record | known | {"correct": True, "tried": [0.01], "reason": None}])
        assert "does not give it class 1" in refused_at(place / "forged", 0, allow_uncertified=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"norm": "2"}, "another configuration"),
        ({"seed": 1}, "another configuration"),
        ({"method": "milp"}, "another configuration"),
        ({"clip": None}, "is not the data of the run"),
        ({"clip": [0.0, 2.0]}, "is not the data of the run"),
        ({"clip": "01"}, "'clip'"),
        ({"norm": 3}, "'norm'"),
        ({"seed": "0"}, "'seed'"),
        ({"command": "attack"}, "'attack' is missing"),
        ({"command": ["certify"]}, "'command'"),
        ({"model": "00"}, "is not the model of the run"),
        ({"origin": {"model": 3}}, "'origin.model'"),
    ],
)
def test_an_altered_configuration_is_refused(run, capsys, change, words):
    folder = run()
    path = folder / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert main(["check", str(folder)]) in (1, 2)
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"a": NaN}', b"{" * 100_000, b'{"a": "\\ud800"}'])
def test_damaged_files_get_a_sentence(run, capsys, content):
    folder = run()
    (folder / "results.json").write_bytes(content)
    assert main(["check", str(folder)]) == 1
    assert "refused: the run: results.json cannot be read" in capsys.readouterr().err
    (folder / "run.json").write_bytes(content)
    assert main(["check", str(folder)]) == 2
    assert "run.json cannot be read" in capsys.readouterr().err


def test_folders_that_hold_no_run_are_refused(run, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd" / "run.json").mkdir(parents=True)
    nothing = run()
    (nothing / "records.jsonl").unlink()
    odd = run()
    (odd / "records.jsonl").unlink()
    (odd / "records.jsonl").mkdir()
    for folder, words in ((tmp_path / "empty", "holds no run"), (tmp_path / "odd", "holds no run"),
                          (nothing, "holds no records"), (odd, "cannot be read")):  # fmt: skip
        assert main(["check", str(folder)]) == 2
        assert words in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_refused(run, capsys):
    folder = run()
    folder.chmod(0)
    assert main(["check", str(folder)]) == 2
    folder.chmod(0o700)
    assert "holds no run" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------------ summaries


@pytest.mark.parametrize("command", ["certify", "attack", "robustness", "compare"])
def test_every_figure_of_a_summary_is_computed_again(made, command):
    """Each number, text and null of results.json in turn is altered: all but those that nobody can compute are seen."""
    stored = read_run(made / command)
    records, configuration = stored.lines.records, stored.configuration
    assert differences(stored.results, records, configuration) == []
    unseen = set()
    for place, value in leaves(stored.results):
        for other in (value + 1, value * 0.99 + 1e-6) if type(value) in (int, float) else ("other", 7):
            changed = json.loads(json.dumps(stored.results))
            inner = changed
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = other
            if not differences(changed, records, configuration):
                unseen.add(".".join(str(key) for key in place if not isinstance(key, int)))
    expected = {"seconds", "records", "model", "data", "classes"} | {"attack": {"adversarial"}, "compare": set()}.get(
        command, set()
    )
    assert unseen - {"results.epsilon", "epsilon"} == expected, unseen


def test_a_summary_of_other_radii_or_inputs_must_be_theirs(made):
    stored = read_run(made / "certify")
    records, configuration = stored.lines.records, stored.configuration
    for change in ({"inputs": 7}, {"offset": 1}, {"offset": -1}, {"inputs": "8"}, {"results": []}, {"results": [3]}):
        assert differences({**stored.results, **change}, records, configuration), change
    fewer = {index: record for index, record in records.items() if index}
    assert "input 0" in differences({**stored.results, "inputs": 7}, fewer, configuration)[0]
    (row, *rows) = stored.results["results"]
    assert differences({**stored.results, "results": [{**row, "epsilon": 0.25}, *rows]}, records, configuration)
    assert not differences({**stored.results, "results": rows}, records, configuration)


def test_a_summary_is_compared_when_a_run_is_checked(run, capsys):
    folder = run()
    path = folder / "results.json"
    results = json.loads(path.read_text())
    results["results"][0]["certified"] += 1
    path.write_text(json.dumps(results))
    assert main(["check", str(folder)]) == 1
    text = capsys.readouterr().err
    assert "refused: the run: results.json is not what the records say: results[0].certified is" in text


# ------------------------------------------------------------------------------------------------------------ witnesses


@pytest.mark.parametrize("command", ["certify", "attack", "robustness", "compare"])
def test_witnesses_that_are_gone_or_damaged_are_refused(run, command):
    folder = run(command)
    path = folder / "witnesses.npz"
    with np.load(path) as stored:
        arrays = dict(stored)
    index, distance = int(arrays["index"][0]), float(arrays["distance"][0])
    changes = {
        "distance": {"distance": arrays["distance"] * 0.999},
        "record claims": {"distance": arrays["distance"] * 1.001},
        "no witness within": {name: array[1:] for name, array in arrays.items()},
        "shape": {"x": arrays["x"][:, :2]},
        "float64": {"x": arrays["x"].astype(np.float64)},
        "not finite": {"x": np.full_like(arrays["x"], np.nan)},
        "the largest value": {"x": _centres(folder, arrays)},
    }
    for words, change in changes.items():
        np.savez(path, **{**arrays, **change})
        assert words in refused_at(folder, index, allow_uncertified=True), words
    assert distance > 0
    for content in (b"", path.read_bytes()[:100]):
        path.write_bytes(content)
        with pytest.raises(RunError, match="holds no witnesses"):
            check(folder)
    np.savez(path, **{**arrays, "index": arrays["index"][:1]})
    with pytest.raises(RunError, match=r"holds no witnesses.*shapes"):
        check(folder)
    path.unlink()
    assert "no witness within" in refused_at(folder, index, allow_uncertified=True)


def hidden(record: dict) -> None:
    """Let a record of any command claim no witness."""
    for answer in (record, *record.get("methods", {}).values()):
        answer |= {name: None for name in ("upper", "distance", "adversarial") if name in answer}
    for estimate in record.get("estimators", {}).values():
        estimate["radius"] = None
    record |= {"robust": True} if "robust" in record else {}


@pytest.mark.parametrize("command", ["certify", "attack", "robustness", "compare"])
def test_a_witness_that_is_there_cannot_be_passed_over(run, command):
    """A record that says nothing of the counterexample beside it, alone and with a summary that follows, or is gone."""
    folder = run(command)
    with np.load(folder / "witnesses.npz") as stored:
        index = int(stored["index"][-1])
    records = records_of(folder)
    hidden(records[index])
    write_records(folder, records)
    words = "the record claims none"
    assert words in refused_at(folder, index, allow_uncertified=True)
    # Of a run that goes on it may be the latest find, unless the record says that there is nothing so near.
    (folder / "results.json").unlink()
    assert words not in refused_at(folder, index, allow_uncertified=True)


@pytest.mark.parametrize("command", ["certify", "robustness", "compare"])
@pytest.mark.parametrize("end", ["lower", "trusted"])
def test_no_radius_reaches_beyond_a_witness_that_is_there(run, command, end):
    """Where no certificate can be asked for, the counterexample in the run's own folder still refutes the claim."""
    folder = run(command)
    (folder / "results.json").unlink()
    with np.load(folder / "witnesses.npz") as stored:
        index, distance = int(stored["index"][-1]), float(stored["distance"][-1])
    records = records_of(folder)
    hidden(records[index])
    records[index].pop("certificate", None)
    answer = records[index].get("methods", {}).get("crown", records[index])
    for radius in (distance, 2.0 * distance):
        answer |= {"lower": -1.0, "trusted": -1.0} | {end: radius}
        write_records(folder, records)
        assert "counts as safe" in refused_at(folder, index, allow_uncertified=True)
    answer[end] = math.nextafter(distance, 0.0)
    write_records(folder, records)
    assert "counts as safe" not in refused_at(folder, index, allow_uncertified=True)


def _centres(folder: Path, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Return the inputs themselves in place of the witnesses."""
    data = json.loads((folder / "run.json").read_text())["origin"]["data"]
    with np.load(data) as stored:
        return stored["x"][arrays["index"]]


def test_the_class_that_an_attack_claims_to_reach_is_asked_again(run):
    folder = run("attack")
    records = records_of(folder)
    record = next(r for r in records if r["correct"] and r["distance"] is not None)
    record["adversarial"] = next(k for k in range(3) if k not in (record["adversarial"], record["label"]))
    write_records(folder, records)
    assert "the adversarial of the record" in refused_at(folder, record["index"])
