"""The one loop: whatever the verb, a run that was stopped goes on to the result of one that was not."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from encoders import Property, write_network
from encoders.questions import robust
from tests.networks.chains import random_relu_network
from verifier import attack, certify, compare, robustness, verify
from verifier.batch import BATCH_SIZE
from verifier.runs.folder import RunError

# Two batches, so that a run stops between them.
INPUTS = BATCH_SIZE + 6
VERBS = {
    "certify": lambda model, data, **options: certify(model, data, [0.02, 0.1], method="crown", **options),
    "attack": lambda model, data, **options: attack(model, data, "fgsm", 0.1, **options),
    "robustness": lambda model, data, **options: robustness(model, data, 0.1, estimators=["fgsm"], **options),
    "compare": lambda model, data, **options: compare(model, data, 0.1, methods=["interval", "attack"], **options),
    "verify": lambda model, data, **options: verify(model, balls(data), method="crown", **options),
}
# Positions that are worked on, and written, together, and how many there are.
TOGETHER = dict.fromkeys(VERBS, BATCH_SIZE) | {"verify": 1}
COUNT = dict.fromkeys(VERBS, INPUTS) | {"verify": 12}
# What depends on the clock, on the place of the folder, or on the versions that are installed.
PASSING = {"seconds", "median_seconds", "records", "adversarial", "versions"}


def balls(data: Path) -> list[Property]:
    """Return the robustness of the first inputs of a file as properties."""
    count = COUNT["verify"]
    with np.load(data) as arrays:
        return [robust(x, 0.1, int(y), 3) for x, y in zip(arrays["x"][:count], arrays["y"][:count], strict=True)]


class Stop(KeyboardInterrupt):
    """The interruption of a test."""


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> tuple[Path, Path]:
    """Return (model, data) files of a small network and INPUTS inputs, some of them classified wrongly."""
    folder = tmp_path_factory.mktemp("job")
    network = random_relu_network(0, (4, 8, 6, 3))
    write_network(network, folder / "model.safetensors")
    x = torch.rand(INPUTS, 4, generator=torch.Generator().manual_seed(0))
    labels = network.evaluate(x).argmax(dim=1).numpy()
    labels[::9] = (labels[::9] + 1) % 3
    np.savez(folder / "data.npz", x=x.numpy(), y=labels)
    return folder / "model.safetensors", folder / "data.npz"


def lasting(value):
    """Return a JSON value without what passes."""
    if isinstance(value, dict):
        return {name: lasting(inner) for name, inner in value.items() if name not in PASSING}
    return [lasting(inner) for inner in value] if isinstance(value, list) else value


def contents(folder: Path) -> dict:
    """Return what a finished run holds: records and witnesses by input, and the summary."""
    records = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    with np.load(folder / "witnesses.npz") as arrays:
        order = np.argsort(arrays["index"])
        witnesses = {name: arrays[name][order].tolist() for name in ("index", "x", "distance")}
    summary = json.loads((folder / "results.json").read_text())
    return {"records": {r["index"]: lasting(r) for r in records}, "witnesses": witnesses, "summary": lasting(summary)}


@pytest.fixture(scope="module")
def whole(job, tmp_path_factory) -> dict[str, dict]:
    """Return by verb what a run holds that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    for verb, ask in VERBS.items():
        ask(*job, out=folder / verb)
    return {verb: contents(folder / verb) for verb in VERBS}


@pytest.mark.parametrize("verb", VERBS)
def test_an_interruption_loses_no_batch_and_the_run_goes_on(job, whole, tmp_path, verb):
    def stop(done: int, total: int) -> None:
        raise Stop

    with pytest.raises(Stop):
        VERBS[verb](*job, out=tmp_path / "run", progress=stop)
    kept = (tmp_path / "run" / "records.jsonl").read_bytes()
    assert len(kept.splitlines()) == TOGETHER[verb] and not (tmp_path / "run" / "results.json").exists()
    VERBS[verb](*job, out=tmp_path / "run")
    assert (tmp_path / "run" / "records.jsonl").read_bytes().startswith(kept), "what was done is not done again"
    assert contents(tmp_path / "run") == whole[verb]


@pytest.mark.parametrize("verb", VERBS)
def test_a_kill_in_the_middle_of_a_line_costs_that_input_alone(job, whole, tmp_path, verb):
    with pytest.raises(Stop):
        VERBS[verb](*job, out=tmp_path / "run", progress=lambda *_: (_ for _ in ()).throw(Stop()))
    path = tmp_path / "run" / "records.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:40])
    VERBS[verb](*job, out=tmp_path / "run")
    assert contents(tmp_path / "run") == whole[verb]


@pytest.mark.parametrize("verb", VERBS)
def test_ranges_of_the_inputs_make_up_the_whole(job, whole, tmp_path, verb):
    """A part of the inputs is another range, in any order."""
    first, count = TOGETHER[verb], COUNT[verb]
    for offset, limit in ((first, count - first), (0, first)):
        result = VERBS[verb](*job, out=tmp_path / "run", offset=offset, limit=limit)
        assert result.inputs == limit
    path = tmp_path / "run" / "records.jsonl"
    before = path.read_bytes()
    calls: list[tuple[int, int]] = []
    VERBS[verb](*job, out=tmp_path / "run", progress=lambda *done: calls.append(done))
    assert path.read_bytes() == before and calls[-1] == (count, count)
    assert contents(tmp_path / "run") == whole[verb]


@pytest.mark.parametrize("verb", VERBS)
def test_another_question_in_the_folder_of_a_run_is_refused_and_changes_nothing(job, tmp_path, verb):
    VERBS[verb](*job, out=tmp_path / "run", limit=3)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    for ask, change in ((VERBS[verb], {"seed": 1}), (VERBS["certify" if verb != "certify" else "attack"], {})):
        with pytest.raises(RunError, match="holds another run"):
            ask(*job, out=tmp_path / "run", limit=3, **change)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("verb", VERBS)
def test_bad_questions_are_refused_before_anything_is_written(job, tmp_path, verb):
    model, data = job
    bad = (
        {"norm": "3"}, {"limit": 0}, {"offset": COUNT[verb]}, {"clip": (0.4, 0.5)},
        {"time_limit": -1.0}, {"device": "x"},
    )  # fmt: skip
    for options in bad:
        # What only inputs of a data set have is no option of properties at all.
        with pytest.raises((ValueError, TypeError) if verb == "verify" else ValueError, match=r"."):
            VERBS[verb](model, data, out=tmp_path / "run", **options)
    with pytest.raises((ValueError, OSError), match="missing"):
        VERBS[verb](model.with_name("missing.onnx"), data, out=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
