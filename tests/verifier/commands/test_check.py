"""`check` believes a run only as far as its certificates hold and its witnesses replay."""

import hashlib
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from encoders import write_network
from encoders.ops import Abs, Affine, LeakyRelu, MaxPool2d, Relu, Reshape, Sigmoid
from tests.networks.chains import chain
from tests.networks.mwd_chains import random_mwd_network
from verifier import attack, certify, check
from verifier.cli import main
from verifier.commands.check import CheckResult
from verifier.data import load_data
from verifier.reports.certify import certificates_in_words
from verifier.reports.check import shown
from verifier.reports.footnotes import counted
from verifier.runs.folder import RunError
from verifier.summaries.certify import CertificateCounts
from verifier_check.file import Certificate as PlainCertificate

CLIP = (0.0, 1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A run by the method exact on a small network, with certified and falsified inputs; its data beside it."""
    place = tmp_path_factory.mktemp("checked")
    torch.manual_seed(3)
    network = chain((4,), Affine(torch.randn(9, 4), torch.randn(9) / 4), Relu(), Affine(torch.randn(7, 9) / 2), Abs(),
                    Affine(torch.randn(3, 7)))  # fmt: skip
    write_network(network, place / "model.safetensors")
    x = torch.rand(24, 4)
    np.savez(place / "data.npz", x=x.numpy(), y=network.evaluate(x).argmax(dim=1).numpy())
    result = certify(place / "model.safetensors", place / "data.npz", [0.05, 0.2], method="exact", clip=CLIP,
                     out=place / "run")  # fmt: skip
    assert result.results[1].certified and result.results[1].falsified
    return place


def copy_of(folder: Path, to: Path) -> Path:
    """Return a copy of the run that may be altered."""
    for path in (folder / "run").rglob("*"):
        if path.is_file():
            target = to / path.relative_to(folder / "run")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return to


def records_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "records.jsonl").read_text().splitlines()]


def write_records(run: Path, records: list[dict]) -> None:
    (run / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def test_a_run_without_certificates_is_told_what_exact_arithmetic_leaves_to_others(folder, tmp_path, capsys):
    run = tmp_path / "attacked"
    attack(folder / "model.safetensors", folder / "data.npz", "fgsm", 0.2, clip=CLIP, limit=4, out=run)
    assert main(["check", str(run)]) == 0 and "exact arithmetic" not in capsys.readouterr().out
    assert main(["check", str(run), "--exact"]) == 0
    said = capsys.readouterr().out
    assert "nothing evaluated in exact arithmetic: the run has no certificate that holds" in said
    assert "witnesses are replayed in the model" in said
    assert check(run, exact=math.inf).given_exactly == 0 and check(run).given_exactly is None


def test_every_proof_of_the_exact_method_leaves_a_certificate_that_holds(folder):
    result = check(folder / "run")
    certified = [r for r in records_of(folder / "run") if r["correct"] and (r["lower"] is None or r["lower"] >= 0)]
    assert result.certified == result.checked == len(certified) > 5
    assert result.leaves > result.checked and not result.without and not result.refused and result.witnesses > 0


def test_any_altered_byte_of_any_certificate_is_refused(folder, tmp_path):
    run = copy_of(folder, tmp_path / "run")
    paths = sorted((run / "certificates").glob("*.npz"))
    random = np.random.default_rng(0)
    for path in paths:
        content = bytearray(path.read_bytes())
        content[int(random.integers(len(content)))] ^= 1 << int(random.integers(8))
        path.write_bytes(bytes(content))
    result = check(run)
    assert result.checked == 0 and len(result.refused) == len(paths)
    assert all("was altered" in reason for _, reason in result.refused)


def test_an_altered_number_is_refused_even_where_the_digest_was_made_to_fit(folder, tmp_path):
    """The arithmetic itself refuses: numbers that prove nothing, a larger ball, another input, another class."""

    def pull(arrays, header):
        arrays["multipliers"] = arrays["multipliers"].copy()
        # 0x43 and 0x80 are 256.
        arrays["multipliers"][0], arrays["multipliers"][1] = 0x43, 0x80

    alterations = {
        "pulls": (pull, "is not above 0"),
        "nans": (lambda arrays, header: arrays.update(multipliers=arrays["multipliers"] | 0xFF), "finite"),
        "nan": (lambda arrays, header: arrays.update(slopes=arrays["slopes"][:0]), "shape"),
        "cut": (lambda arrays, header: arrays.update(splits=arrays["splits"][:-1]), "are left"),
        "order": (lambda arrays, header: arrays.update(splits=arrays["splits"][::-1]), "tree"),
        "radius": (lambda arrays, header: header.update(radius=header["radius"] * 3.0), "is not above 0"),
        "smaller": (lambda arrays, header: header.update(radius=header["radius"] / 2), "the record claims"),
        "winner": (lambda arrays, header: header.update(winner=(header["winner"] + 1) % 3), "the label is"),
        "centre": (lambda arrays, header: arrays.update(centre=arrays["centre"] + np.float64(1e-9)), "another input"),
        "rivals": (lambda arrays, header: header["trees"][1].__setitem__(0, header["trees"][0][0]), "trees against"),
        "trees": (lambda arrays, header: header.update(trees=header["trees"][:1]), "more numbers"),
        "domain": (lambda arrays, header: header.update(domain=[0.2, 1.0]), "domain"),
        "index": (lambda arrays, header: header.update(index=header["index"] + 1), "schema"),
        "network": (lambda arrays, header: header.update(digest="0" * 64), "network"),
    }  # fmt: skip
    for name, (alter, words) in alterations.items():
        run = copy_of(folder, tmp_path / name)
        records = records_of(run)
        # One that needs its tree: a ball that is close to the nearest counterexample.
        record = max((r for r in records if r.get("certificate")), key=lambda r: r["certificate"]["leaves"])
        path = run / record["certificate"]["file"]
        with np.load(path) as stored:
            arrays = dict(stored)
        header = json.loads(arrays["header"].tobytes())
        alter(arrays, header)
        arrays["header"] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        path.write_bytes(buffer.getvalue())
        record["certificate"]["sha256"] = hashlib.sha256(buffer.getvalue()).hexdigest()
        write_records(run, records)
        refused = dict(check(run).refused)
        assert words in refused[record["index"]], (name, refused)


def test_altered_records_and_witnesses_are_refused(folder, tmp_path):
    run = copy_of(folder, tmp_path / "records")
    records = records_of(run)
    proved = next(r for r in records if r.get("certificate"))
    proved["lower"] *= 1.5
    found = next(r for r in records if r["upper"] is not None and r is not proved)
    found["upper"] /= 2
    write_records(run, records)
    refused = dict(check(run).refused)
    assert "the record claims" in refused[proved["index"]] and "the record claims" in refused[found["index"]]
    run = copy_of(folder, tmp_path / "witnesses")
    with np.load(run / "witnesses.npz") as stored:
        arrays = dict(stored)
    x = np.load(folder / "data.npz")["x"]
    arrays["x"][0] = x[arrays["index"][0]]
    np.savez(run / "witnesses.npz", **arrays)
    assert any("witness" in reason for _, reason in check(run).refused)


def test_a_forged_falsification_is_refused(folder, tmp_path):
    """The input itself as its witness, with a prediction that was made to fit: the model is asked again."""
    run = copy_of(folder, tmp_path / "run")
    records = records_of(run)
    with np.load(run / "witnesses.npz") as stored:
        arrays = dict(stored)
    index = int(arrays["index"][0])
    record = next(r for r in records if r["index"] == index)
    record |= {"upper": 0.0, "lower": -1.0, "prediction": (record["label"] + 1) % 3, "certificate": None}
    arrays["x"][0], arrays["distance"][0] = np.load(folder / "data.npz")["x"][index], 0.0
    np.savez(run / "witnesses.npz", **arrays)
    for correct, words in ((True, "do not go together"), (False, "does not give it class")):
        record["correct"] = correct
        write_records(run, records)
        assert words in " ".join(reason for i, reason in check(run).refused if i == index)


def test_records_that_contradict_themselves_or_are_malformed_get_a_sentence(folder, tmp_path):
    changes = [
        {"lower": 5.0, "certificate": None}, {"label": 99}, {"prediction": 99}, {"index": 999}, {"upper": 1e-9},
        {"lower": "0.3"}, {"model": "0" * 64}, {"certificate": []}, {"certificate": {"file": "x"}}, {"correct": 1},
    ]  # fmt: skip
    for number, change in enumerate(changes):
        run = copy_of(folder, tmp_path / str(number))
        records = records_of(run)
        record = next(r for r in records if r.get("certificate") and r["upper"] is not None)
        record |= change
        write_records(run, records)
        assert dict(check(run).refused).get(record["index"]), change
    run = copy_of(folder, tmp_path / "short")
    (run / "records.jsonl").write_text('{"index": 3}\n')
    assert "malformed" in dict(check(run).refused)[3]
    (run / "records.jsonl").write_text('{"index": Infinity}\n')
    with pytest.raises(RunError, match="not a record"):
        check(run)
    (copy_of(folder, tmp_path / "cut") / "witnesses.npz").write_bytes(b"")
    with pytest.raises(RunError, match="holds no witnesses"):
        check(tmp_path / "cut")


def test_missing_witnesses_of_an_attack_are_noticed(folder, tmp_path):
    attack(folder / "model.safetensors", folder / "data.npz", "pgd", 0.2, clip=CLIP, out=tmp_path / "run")
    result = check(tmp_path / "run")
    assert result.witnesses > 0 and not result.refused
    (tmp_path / "run" / "witnesses.npz").unlink()
    assert len(check(tmp_path / "run").refused) == result.witnesses


def test_balls_of_other_norms_have_certificates(folder, tmp_path):
    """Of the ball, or of the box around it; one that reaches less far than the claim is refused."""
    model, data = folder / "model.safetensors", folder / "data.npz"
    for norm in ("2", "1"):
        out = tmp_path / norm
        certify(model, data, [0.02, 0.15], method="crown", norm=norm, certificates=True, clip=CLIP, out=out)
        result, records = check(out), records_of(out)
        assert result.checked == result.certified > 0 and not result.refused
        assert any(PlainCertificate(path.read_bytes()).norm == norm for path in out.glob("*/*.npz"))
        for record in records:
            if record.get("certificate"):
                assert record["certificate"]["radius"] >= record["lower"]
                record["lower"] *= 1.5
        write_records(out, records)
        assert len(check(out).refused) >= result.checked


def test_certificates_reach_as_far_as_the_claim(folder, tmp_path):
    model, data = folder / "model.safetensors", folder / "data.npz"
    x = np.load(data)["x"][:1]
    one = (x, np.load(data)["y"][:1])
    certify(model, one, [0.001], method="exact", out=tmp_path / "one")
    np.savez(tmp_path / "one.npz", x=x, y=one[1])
    result = check(tmp_path / "one", model=model, data=tmp_path / "one.npz")
    assert result.checked == result.certified == 1 and not result.refused


def test_what_has_no_certificate_is_counted_apart(folder, tmp_path):
    model, data = folder / "model.safetensors", folder / "data.npz"
    certify(model, data, [0.02], method="crown", clip=CLIP, out=tmp_path / "plain")
    plain = check(tmp_path / "plain")
    assert plain.checked == 0 and plain.certified == sum(plain.without.values()) > 0
    certify(model, data, [0.02], method="crown", clip=CLIP, out=tmp_path / "plain", certificates=True)
    kept = check(tmp_path / "plain")
    assert kept.checked == kept.certified == plain.certified and not kept.without
    chained = random_mwd_network(5, (4, 6, 3))
    followed = chain((4,), *(node.op for node in chained.nodes), Affine(torch.eye(3)))
    curved = chain((4,), *(op for node in chained.nodes for op in (node.op, Sigmoid())), Affine(torch.eye(3)))
    for name, network in (("chained", chained), ("followed", followed), ("curved", curved)):
        model, data = tmp_path / f"{name}.safetensors", tmp_path / f"{name}.npz"
        write_network(network, model)
        x = torch.rand(6, 4)
        np.savez(data, x=x.numpy(), y=network.evaluate(x).argmax(dim=1).numpy())
        certify(model, data, [1e-4], method="auto", clip=CLIP, out=tmp_path / name, certificates=True)
        result = check(tmp_path / name, exact=math.inf)
        assert result.certified == result.checked == result.exact == 6 and not result.refused and not result.without


def test_pools_leaky_relus_and_maps_are_certified_and_checked(tmp_path):
    torch.manual_seed(1)
    network = chain((1, 4, 4), MaxPool2d((2, 2), (2, 2)), Reshape((4,)), Affine(torch.randn(6, 4)), LeakyRelu(0.1),
                    Affine(torch.randn(3, 6)))  # fmt: skip
    write_network(network, tmp_path / "model.safetensors")
    x = torch.rand(8, 1, 4, 4)
    np.savez(tmp_path / "data.npz", x=x.numpy(), y=network.evaluate(x).argmax(dim=1).numpy())
    result = certify(
        tmp_path / "model.safetensors", tmp_path / "data.npz", [0.05], method="exact", out=tmp_path / "run"
    )
    assert result.results[0].open == 0 and result.results[0].certified
    checked = check(tmp_path / "run")
    assert checked.checked == checked.certified and not checked.refused


def test_the_command_says_what_it_did_and_exits_with_1_on_a_refusal(folder, tmp_path, capsys):
    assert main(["check", str(folder / "run")]) == 0
    assert "by certificates that hold" in capsys.readouterr().out
    data = ["certify", str(folder / "model.safetensors"), "--data", str(folder / "data.npz"), "--clip", "0", "1"]
    assert main([*data, "--epsilon", "0.05", "0.2", "--method", "exact", "--out", str(folder / "run")]) == 0
    proofs = check(folder / "run").certified
    assert f"certificates: {proofs} of {proofs} proofs\n" in capsys.readouterr().out
    run = copy_of(folder, tmp_path / "run")
    next((run / "certificates").glob("*.npz")).unlink()
    assert main(["check", str(run), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["command"] == "check" and len(told["refused"]) == 1 and "cannot be read" in told["refused"][0][1]
    assert main(["check", str(tmp_path / "nothing")]) == 2
    assert "holds no run" in capsys.readouterr().err


def test_what_is_counted_has_its_number():
    found = CheckResult("run", "model", 1, 1, 1, 1, {}, 1, (), 0.0, exact=1, exact_leaves=2)
    words = list(map(str, shown(found)))
    assert words[0] == "1 proof: 1 by certificates that hold (1 leaf)"
    assert words[1].endswith("too (2 leaves)") and words[-1] == "1 witness replayed; 0.0 s for 1 input"
    assert counted(2, "witness") == "2 witnesses" and counted(0, "proof") == "0 proofs"
    counts = CertificateCounts(3, 1, {"the moon was full": 2})
    assert certificates_in_words(counts) == "certificates: 1 of 3 proofs; 2 without: the moon was full"


def test_another_model_or_other_data_are_refused(folder, tmp_path):
    network = random_mwd_network(5, (4, 6, 3))
    write_network(network, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="is not the model of the run"):
        check(folder / "run", model=tmp_path / "other.safetensors")
    np.savez(tmp_path / "other.npz", x=np.zeros((2, 4), dtype=np.float32), y=np.zeros(2, dtype=np.int64))
    with pytest.raises(ValueError, match="is not the data of the run"):
        check(folder / "run", data=tmp_path / "other.npz")


def test_a_finished_run_keeps_its_certificates_when_it_is_extended(folder, tmp_path):
    run = copy_of(folder, tmp_path / "run")
    before = {path.name for path in (run / "certificates").iterdir()}
    certify(folder / "model.safetensors", folder / "data.npz", [0.05, 0.2], method="exact", clip=CLIP, out=run)
    assert {path.name for path in (run / "certificates").iterdir()} == before
    assert not check(run).refused


def test_a_run_about_the_training_part_of_named_data_is_checked_against_it(tmp_path):
    folder = tmp_path / "run"
    attack("digits-relu", "digits", "fgsm", 0.1, split="train", limit=40, out=folder)
    result = check(folder)
    assert not result.refused and result.witnesses > 0
    stored = json.loads((folder / "run.json").read_text())
    assert stored["data"] == load_data("digits", split="train").digest != load_data("digits").digest
    stored["origin"].pop("split")
    (folder / "run.json").write_text(json.dumps(stored))
    with pytest.raises(ValueError, match="is not the data of the run"):
        check(folder)
    for split, words in (("train", "--split train is a part of named data"), ("valid", "supported: test, train")):
        with pytest.raises(ValueError, match=words):
            attack("digits-relu", (np.zeros((1, 64)), np.zeros(1)), "fgsm", 0.1, split=split)
