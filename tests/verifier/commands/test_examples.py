"""Fine-tuning takes from runs what holds, about the data that it trains on, and nothing else."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from encoders import read_network
from verifier import attack, certify, compare, train
from verifier.cli import main
from verifier.commands.examples import read_examples, roundings
from verifier.data import load_data
from verifier.runs.folder import read_run
from verifier.training.validation import split

RADIUS, LIMIT = 0.15, 120
SMALL = {"hidden": (12,), "batch": 50}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A small network on digits, a run of attack about its training inputs, and one of certify."""
    place = tmp_path_factory.mktemp("tuned")
    train("relu", "digits", place / "start.safetensors", epochs=3, **SMALL)
    attack(place / "start.safetensors", "digits", "pgd", RADIUS, split="train", limit=LIMIT, out=place / "attack")
    certify(place / "start.safetensors", "digits", [0.05], method="crown", split="train", limit=LIMIT,
            out=place / "certify")  # fmt: skip
    return place


def losses_at(model: Path, examples) -> float:
    """Return the share of examples that a network gets wrong."""
    labels = torch.from_numpy(load_data("digits", split="train").labels[examples.rows])
    return float(
        (read_network(model).scores(torch.from_numpy(examples.points)).argmax(dim=1) != labels).double().mean()
    )


def test_fine_tuning_takes_back_what_the_runs_found(place):
    runs = [place / "attack", place / "certify"]
    out = place / "tuned.safetensors"
    result = train("relu", "digits", out, start=place / "start.safetensors", examples=runs, epochs=20, **SMALL)
    found = read_examples(runs, place / "start.safetensors", load_data("digits", split="train"))
    assert [taken["examples"] for taken in result.metadata["examples"]] == [
        len(read_run(run).witnesses) for run in runs
    ]
    assert result.metadata["regime"] == "fine-tuning"
    assert result.metadata["plan"]["learning_rate"] == pytest.approx(0.1)
    before, after = (losses_at(place / f"{name}.safetensors", found) for name in ("start", "tuned"))
    assert before == 1.0 and after < 0.8
    # The second round starts from the same inputs, and has the examples of both.
    attack(out, "digits", "pgd", RADIUS, split="train", limit=LIMIT, out=place / "again")
    again = read_examples([place / "attack", place / "again"], out, load_data("digits", split="train"))
    inputs = load_data("digits", split="train").inputs[again.rows]
    assert float(np.abs(again.points - inputs).max()) <= RADIUS and len(again.taken) == 2


def test_examples_of_held_out_inputs_are_not_trained_on(place, monkeypatch):
    seen = {}

    def watched(self, *_):
        seen.update(trained=self.inputs.shape[0], judged=self.score.inputs.shape[0], labels=self.labels)
        raise RuntimeError("seen")

    monkeypatch.setattr("verifier.commands.train.Trainer.run", watched)
    with pytest.raises(RuntimeError, match="seen"):
        train("relu", "digits", place / "held.safetensors", start=place / "start.safetensors",
              examples=[place / "attack"], **SMALL)  # fmt: skip
    data = load_data("digits", split="train")
    held_out, kept = split(len(data), 0)
    rows = np.array(sorted(read_run(place / "attack").witnesses))
    assert seen["trained"] == len(kept) + np.isin(rows, kept.numpy()).sum()
    assert seen["judged"] == len(held_out) + np.isin(rows, held_out.numpy()).sum() > len(held_out)
    assert seen["labels"][len(kept) :].tolist() == data.labels[rows[np.isin(rows, kept.numpy())]].tolist()


def test_whole_pixels_stay_unsafe_or_are_left_out(place):
    data = load_data("digits", split="train")
    start = place / "start.safetensors"
    whole = read_examples([place / "attack"], start, data, levels=16)
    levels = whole.points.astype(np.float64) * 16
    assert np.array_equal(levels, np.round(levels)) and losses_at(start, whole) == 1.0
    assert whole.taken[0].examples + whole.taken[0].unrounded == len(read_run(place / "attack").witnesses)
    near = read_examples([place / "attack"], start, data, levels=16, within=0.13)
    assert float(np.abs(near.points - data.inputs[near.rows]).max()) <= 0.13
    assert near.taken[0].examples < whole.taken[0].examples
    with pytest.raises(ValueError, match="off the grid of 7"):
        read_examples([place / "attack"], start, data, levels=7)
    point, centre = np.array([0.3, 0.24, 0.5, 0.76]), np.array([0.25, 0.25, 0.5, 0.75])
    nearest, away = roundings(point, centre, 4)
    assert nearest.tolist() == [0.25, 0.25, 0.5, 0.75] and away.tolist() == [0.5, 0.0, 0.5, 1.0]


def forged(place: Path, name: str) -> Path:
    """Return a copy of the run of attack, in which the first witness is its input."""
    copy = place / name
    shutil.copytree(place / "attack", copy, dirs_exist_ok=True)
    with np.load(copy / "witnesses.npz") as stored:
        arrays = dict(stored)
    arrays["x"] = arrays["x"].copy()
    arrays["x"][0] = load_data("digits", split="train").inputs[int(arrays["index"][0])]
    np.savez(copy / "witnesses.npz", **arrays)
    return copy


def test_what_does_not_fit_is_refused_before_work_starts(place, tmp_path, capsys):
    start, data = place / "start.safetensors", load_data("digits", split="train")

    def refused(words: str, *runs: Path, **options) -> None:
        with pytest.raises(ValueError, match=words):
            train("relu", options.pop("data", "digits"), tmp_path / "no.safetensors", examples=runs,
                  **{"start": start, **SMALL, **options})  # fmt: skip

    refused("witness of input .* does not hold: the model still gives", forged(place, "forged"))
    attack(start, "digits", "pgd", RADIUS, limit=40, out=tmp_path / "test")
    refused("is not the data of the run.*--split train", tmp_path / "test")
    refused("is not the data of the run", place / "attack", data=dataclasses.replace(data, inputs=data.inputs * 0.5))
    refused("is not the data of the run", place / "attack", data=dataclasses.replace(data, clip=(0.0, 2.0)))
    refused("do not fit|elements", place / "attack", data=dataclasses.replace(data, inputs=data.inputs[:, :60]))
    attack(start, "digits", "fgsm", 1e-6, split="train", limit=40, out=tmp_path / "none")
    refused("holds no witnesses", tmp_path / "none")
    compare(start, "digits", 0.05, methods=["interval"], split="train", limit=5, out=tmp_path / "compare")
    refused("is a run of compare; examples are taken from", tmp_path / "compare")
    certify(start, "digits", [0.1], delta=1e-3, split="train", limit=5, method="crown", out=tmp_path / "delta")
    refused("is a run of certify --delta", tmp_path / "delta")
    refused("names a run twice", place / "attack", place / "certify" / ".." / "attack")
    refused("nothing is left", place / "attack", within=1e-6)
    refused("holds no run", tmp_path)
    train("relu", "digits", tmp_path / "other.safetensors", epochs=1, **SMALL)
    refused("no run is about the network that --start names", place / "attack", start=tmp_path / "other.safetensors")
    refused("needs --start", place / "attack", start=None)
    refused("fine-tuning does not take --attack", place / "attack", attack="pgd")
    refused("needs --examples", regime="fine-tuning")
    refused("plain does not take --levels", levels=16)
    attack(start, "digits", "pgd", RADIUS, split="train", offset=400, limit=30, out=tmp_path / "late")
    refused("held out or beyond --limit", tmp_path / "late", limit=300)
    assert not (tmp_path / "no.safetensors").exists()
    copy = forged(place, "moved")
    settings = json.loads((copy / "run.json").read_text())
    settings["origin"]["model"] = str(tmp_path / "gone.safetensors")
    shutil.copy(place / "attack" / "witnesses.npz", copy)
    (copy / "run.json").write_text(json.dumps(settings))
    # The network to start from is at hand, wherever the run found it.
    arguments = ["train", "relu", "--data", "digits", "--start", str(start), "--examples", str(copy), "--levels", "16"]
    more = ["--hidden", "12", "--epochs", "1", "--out", str(tmp_path / "tuned.safetensors")]
    assert main([*arguments, *more]) == 0
    assert f"{copy}: " in capsys.readouterr().out
