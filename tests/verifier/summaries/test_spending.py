"""What the stages of several methods took, from the stages to records and to totals."""

import json
from pathlib import Path

import pytest
import torch

from encoders import write_network
from encoders.questions import robust
from tests.networks.chains import random_relu_network
from tests.runs.files import records_of
from verifier import certify, check, verify
from verifier.answers import Answer, Spent
from verifier.methods import METHODS
from verifier.summaries.spending import StageTotal, summed, totals
from verifier.verdict import Bracket, Strength

OPEN, PROVED = Spent("crown", 0.25, "nothing", "time limit"), Spent("exact", 1.0, "proved")
FOUND, AGAIN = Spent("crown", 0.5, "both"), Spent("exact", 2.0, "nothing")


def test_a_stage_that_comes_again_counts_an_input_once() -> None:
    made = totals([(OPEN, AGAIN, PROVED), (FOUND,), ()])
    # crown: .25 + .5 s on two inputs, of which one gained both ends; exact: 2 + 1 s on one.
    assert made == (StageTotal("crown", 2, 0.75, 1, 1), StageTotal("exact", 1, 3.0, 1, 0))
    assert summed([made, made[1:]]) == (made[0], StageTotal("exact", 2, 6.0, 2, 0))


def test_the_word_for_an_outcome_says_which_end_moved() -> None:
    before = Bracket(0.1, 0.5, "a", "b")
    for after, word in (
        (before, "nothing"),
        (Bracket(0.2, 0.5, "c", "b"), "proved"),
        (Bracket(0.1, 0.4, "a", "c"), "found"),
        (Bracket(0.2, 0.4, "c", "c"), "both"),
        (before.raise_lower(0.3, "s", Strength.TRUSTED), "vouched"),
    ):
        assert Answer(after).after("s", 1.0, before, None).spent == (Spent("s", 1.0, word),)


@pytest.fixture
def job(tmp_path: Path) -> tuple[Path, tuple]:
    """Return a model and data, of which auto's first stages decide some."""
    network = random_relu_network(3, (3, 10, 8, 3))
    write_network(network, tmp_path / "model.safetensors")
    x = torch.rand(12, 3, generator=torch.Generator().manual_seed(0))
    return tmp_path / "model.safetensors", (x.numpy(), network.evaluate(x).argmax(dim=1).numpy())


def test_records_say_what_each_stage_took_also_over_two_tries(job, tmp_path) -> None:
    model, data = job
    result = certify(model, data, [0.05], clip=(0, 1), out=tmp_path / "run")
    records = records_of(tmp_path / "run")
    stages = [stage.name for stage in METHODS["auto"].stages]  # type: ignore[attr-defined]
    for record in records:
        names = [spent["stage"] for spent in record["spent"]]
        assert names and names == [name for name in stages if name in names] and names[0] == "interval"
        assert sum(spent["seconds"] for spent in record["spent"]) <= record["seconds"] * len(records)
        decided = [spent for spent in record["spent"] if spent["outcome"] != "nothing"]
        # Whatever an end rests on, its stage says that it moved it.
        moved = {record["lower_method"]} - {""} if record["lower"] >= 0.05 else {record["upper_method"]} - {""}
        assert moved <= {spent["stage"] for spent in decided}
    assert {total.stage for total in result.spent} == {s["stage"] for r in records for s in r["spent"]}
    assert sum(total.proved for total in result.spent) >= sum(row.certified for row in result.results)
    certify(model, data, [0.05, 0.1], clip=(0, 1), out=tmp_path / "run")
    for before, after in zip(records, records_of(tmp_path / "run"), strict=True):
        assert after["spent"][: len(before["spent"])] == before["spent"]


def test_check_compares_what_a_summary_says_was_spent(job, tmp_path) -> None:
    model, (x, y) = job
    verify(model, robust(torch.from_numpy(x[0]), 0.05, int(y[0]), 3), out=tmp_path / "run")
    path = tmp_path / "run" / "results.json"
    results = json.loads(path.read_text())
    assert results["properties"][0]["spent"][0]["stage"] == "interval"
    assert not check(tmp_path / "run", allow_uncertified=True).refused
    results["properties"][0]["spent"][0]["seconds"] += 1
    path.write_text(json.dumps(results))
    assert "spent" in check(tmp_path / "run", allow_uncertified=True).refused[0][1]
