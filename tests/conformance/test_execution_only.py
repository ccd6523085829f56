"""What only the model's own rounding gets wrong is counted in every result."""

import io
import json

import numpy as np
import pytest
import torch
from rich.console import Console

from encoders import write_network
from encoders.ops import Affine
from tests.networks.chains import chain
from verifier import certify, compare, robustness
from verifier.metrics import execution_only_at, robustness_at
from verifier.reports import certify as certify_report
from verifier.reports import compare as compare_report
from verifier.reports import robustness as robustness_report
from verifier.verdict import Bracket


def test_counted_are_inputs_within_the_radius_that_are_not_falsified_there():
    """Six inputs at radius .3: certified, open, falsified, falsified farther out, a point beyond, none."""
    brackets = [Bracket(0.5), Bracket(0.1), Bracket(0.0, 0.2), Bracket(0.1, 0.4), Bracket(0.1), Bracket(0.1)]
    executed = [0.3, 0.25, 0.1, 0.3, 0.31, None]
    assert execution_only_at(0.3, brackets, executed) == 3
    row = robustness_at(0.3, brackets, 8, executed)
    assert (row.execution_only, row.certified, row.falsified, row.open) == (3, 1, 1, 4)
    assert robustness_at(0.3, brackets, 8).execution_only == 0


@pytest.fixture
def job(tmp_path):
    """Return a model y = (x + 2^24, 2^24) and four inputs of class 0, which is ahead by x in real arithmetic.

    float32 adds nothing to 2^24 for x up to 1: there the two outputs are equal.
    """
    write_network(
        chain((1,), Affine(torch.tensor([[1.0], [0.0]]), torch.full((2,), 2.0**24))), tmp_path / "m.safetensors"
    )
    x = np.array([[2.5], [2.75], [4.0], [8.0]], dtype=np.float32)
    return tmp_path / "m.safetensors", (x, np.zeros(4, dtype=np.int64))


def printed(table) -> str:
    console = Console(width=100, file=io.StringIO())
    console.print(table)
    return " ".join(console.file.getvalue().split())


def test_certify_robustness_and_compare_say_it_in_their_json_and_tables(job, tmp_path):
    """At radius 2 the first two inputs come down to .5 and .75, where float32 adds nothing; all four are safe."""
    model, data = job
    result = certify(model, data, [0.5, 2.0], method="crown", clip=(0.0, 10.0), out=tmp_path / "certify")
    assert [row.certified for row in result.results] == [4, 4]
    attacked = certify(model, data, [0.5, 2.0], method="auto", clip=(0.0, 10.0))
    measured = robustness(model, data, 2.0, method="interval", estimators=["fgsm"], clip=(0.0, 10.0))
    rows = compare(model, data, 2.0, methods=["attack", "interval"], clip=(0.0, 10.0)).rows
    by_name = {row.method: row.execution_only for row in rows}
    assert measured.execution_only == 2 and measured.to_json()["execution_only"] == 2
    assert by_name == {"attack": 2, "interval": 0}
    assert "execution only: 2 of 4" in printed(robustness_report.table(measured))
    table = printed(compare_report.table(compare(model, data, 2.0, methods=["attack", "interval"], clip=(0.0, 10.0))))
    assert "execution alone" in table
    for outcome in (result, attacked):
        for row in outcome.to_json()["results"]:
            assert row["execution_only"] >= 0


def test_the_table_of_certify_has_the_column_only_where_there_is_something(job):
    model, data = job
    result = certify(model, data, [2.0], method="restriction", clip=(0.0, 10.0))
    assert result.results[0].execution_only == 2 and result.results[0].falsified == 0
    text = printed(certify_report.table(result))
    assert "execution" in text and "execution alone" in text
    assert "execution" not in printed(certify_report.table(certify(model, data, [0.1], clip=(0.0, 10.0))))


def test_records_keep_the_least_distance_through_all_radii(job, tmp_path):
    model, data = job
    out = tmp_path / "run"
    certify(model, data, [3.0], method="restriction", clip=(0.0, 10.0), out=out)
    first = [json.loads(line)["execution_only"] for line in (out / "records.jsonl").read_text().splitlines()]
    certify(model, data, [2.9, 3.0], method="restriction", clip=(0.0, 10.0), out=out)
    second = [json.loads(line)["execution_only"] for line in (out / "records.jsonl").read_text().splitlines()]
    assert first[0] is not None
    assert all(b is not None and b <= a for a, b in zip(first, second, strict=True) if a is not None)
