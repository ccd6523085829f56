"""`detect`: a detector is fitted, saved and measured, with an attack that knows it; refusals say what to do."""

import dataclasses
import json

import numpy as np
import pytest

from verifier import attack, detect
from verifier.cli import main
from verifier.data import load_data


def test_a_detector_of_digits_keeps_its_rate_and_is_measured_under_attacks(tmp_path, capsys):
    """Fitted to the test digits, since these are all that there are: the rate on them is that of the half it saw."""
    file = tmp_path / "odds.safetensors"
    fitted = detect("fit", "digits-relu", "digits", file, samples=8, rate=0.05)
    assert fitted.inputs > 300 and fitted.threshold > 1.0
    clean = detect("score", "digits-relu", "digits", file)
    assert clean.inputs == fitted.inputs and 0.0 < clean.false_positives < 0.09 and clean.attacked is None
    pgd = detect("score", "digits-relu", "digits", file, attack="pgd", epsilon=0.1, limit=60)
    assert 0 < pgd.attacked <= pgd.inputs <= 60
    assert pgd.robust == pytest.approx(1.0 - pgd.attacked * (1.0 - pgd.detected) / pgd.inputs)
    known = detect("score", "digits-relu", "digits", file, attack="evasion", epsilon=0.1, limit=60)
    assert known.detected <= pgd.detected + 0.2
    plain = attack("digits-relu", "digits", "pgd", 0.1, limit=60, out=None)
    assert pgd.attacked == plain.inputs - plain.robust - (plain.inputs - pgd.inputs)
    command = ["detect", "score", "digits-relu", "--data", "digits", "--detector", str(file), "--limit", "20"]
    assert main(command) == 0 and "clean:" in capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["command"] == "detect"


@pytest.mark.parametrize(
    ("action", "options", "words"),
    [
        ("look", {}, "supported: fit, score"), ("score", {"attack": "pgd"}, "together"),
        ("fit", {"attack": "pgd", "epsilon": 0.1}, "fit takes neither"),
        ("score", {"attack": "odd", "epsilon": 0.1}, "supported: .*evasion"),
        ("fit", {"noise": ["pink:0.1"]}, "noise 'pink:0.1'"), ("fit", {"noise": ["normal"]}, "normal:0.1"),
        ("fit", {"limit": 40}, "inputs"), ("score", {}, "no detector"),
        ("score", {"noise": ["normal:0.1"]}, "are of fit"), ("score", {"samples": 8}, "are of fit"),
        ("score", {"rate": 0.1}, "are of fit"), ("fit", {"split": "validation"}, "split 'validation'"),
        ("fit", {"norm": "2"}, "of an attack, and there is none"),
        ("score", {"attack": "evasion", "epsilon": 1, "norm": "2"}, "'evasion' does not support the 2-norm"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused(action, options, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        detect(action, "digits-relu", "digits", tmp_path / "d.safetensors", **options)


def test_data_of_a_file_are_read_as_elsewhere_and_no_detector_is_written_over(tmp_path, capsys):
    digits, file = load_data("digits"), tmp_path / "odds.safetensors"
    x, y = digits.inputs[:200].reshape(200, -1), digits.labels[:200]
    header = ",".join(["class", *(f"p{i}" for i in range(64))])
    np.savetxt(tmp_path / "d.csv", np.column_stack([y, 2 * x + 1]), "%.9g", ",", header=header, comments="")
    shared = ["digits-relu", "--data", str(tmp_path / "d.csv"), "--label", "class", "--clip", "1", "3"]
    shared += ["--mean", "1", "--std", "2", "--detector", str(file)]
    assert main(["detect", "fit", *shared, "--samples", "2", "--rate", ".2"]) == 0
    before = file.read_bytes()
    assert main(["detect", "fit", *shared]) == 2
    assert "exists; name another file" in capsys.readouterr().err and file.read_bytes() == before
    score = ["detect", "score", *shared, "--offset", "20", "--limit", "10", "--json"]
    assert main([*score, "--attack", "deepfool", "--norm", "2", "--epsilon", "1e9"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["norm"] == "2" and found["attacked"] == found["inputs"] == 10
    assert main([*score, "--split", "train"]) == 2 and "--split train" in capsys.readouterr().err
    with pytest.raises(ValueError, match="another mean and std"):
        detect("score", "digits-relu", "digits", file)


def test_a_detector_of_another_network_and_data_without_labels_are_refused(tmp_path):
    file = tmp_path / "made" / "odds.safetensors"
    detect("fit", "digits-relu", "digits", file, samples=1, rate=0.1)
    with pytest.raises(ValueError, match="fitted to another network"):
        detect("score", "digits-mwd", "digits", file)
    digits = load_data("digits")
    in_memory = detect("score", "digits-relu", (digits.inputs[:10], digits.labels[:10]), file)
    assert in_memory.inputs == detect("score", "digits-relu", "digits", file, limit=10).inputs
    unlabelled = dataclasses.replace(load_data("digits"), labels=None)
    with pytest.raises(ValueError, match="has no labels"):
        detect("score", "digits-relu", unlabelled, file)
    assert np.isfinite(detect("score", "digits-relu", "digits", file, limit=10).false_positives)
