"""The matrix of attacks and defences: its laws, the rules by which its cells count, and a run that is stopped."""

import csv
import importlib
import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from encoders import write_network
from encoders.ops import Affine, KWinners, RandomAffine, Relu
from tests.conftest import REPOSITORY
from tests.networks.chains import chain
from verifier import attack
from verifier.data import load_data
from verifier.votes import BROKEN

INPUTS, EPSILON = 16, 0.1
ROWS = ("none", "k-WTA", "delta rule", "odds detector")


@pytest.fixture(scope="module")
def matrix():
    """Return the modules of the benchmark, which import each other as scripts do."""
    sys.path.insert(0, str(REPOSITORY / "benchmarks"))
    try:
        names = ("attack_defence", "attack_defence_rows", "attack_defence_cells")
        main, rows, cells = (importlib.import_module(name) for name in names)
        yield SimpleNamespace(main=main, rows=rows, cells=cells)
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return data whose labels are those of a small network, and files of networks by row."""
    folder, generator = tmp_path_factory.mktemp("matrix"), torch.Generator().manual_seed(0)
    first, second = torch.randn(12, 6, generator=generator), torch.randn(3, 12, generator=generator)
    bias, other = torch.randn(12, generator=generator) / 4, torch.randn(12, 6, generator=generator) / 4
    networks = {
        "none": chain((6,), Affine(first, bias), Relu(), Affine(second)),
        "surrogate": chain((6,), Affine(first + other, bias), Relu(), Affine(second)),
        "k-WTA": chain((6,), Affine(first, bias), KWinners(5), Affine(second)),
        "delta rule": chain((6,), RandomAffine(first, bias, deviation=first.abs() / 20), Relu(), Affine(second)),
    }
    for name, network in networks.items():
        write_network(network, folder / f"{name}.safetensors", {})
    x = torch.rand(240, 6, generator=generator)
    y = networks["none"].evaluate(x).argmax(dim=1)
    np.savez(folder / "data.npz", x=x.numpy(), y=y.numpy())
    return folder


@pytest.fixture
def run(matrix, files, monkeypatch):
    """Return what runs the benchmark on these networks in place of trained ones."""
    monkeypatch.setattr(matrix.main, "trained", lambda defence, name, *rest: files / f"{name}.safetensors")
    command = ["--quick", "--data", str(files / "data.npz"), "--inputs", str(INPUTS)]
    return lambda folder, *rows: matrix.main.main([*command, "--folder", str(folder), "--rows", *rows])


def row_of(matrix, files, name: str, detector=None):
    data = load_data(str(files / "data.npz"))
    scale = replace(matrix.main.QUICK, inputs=INPUTS)
    paths = (files / f"{name}.safetensors", files / "surrogate.safetensors")
    return matrix.rows.make_row(name, scale, data, paths, detector)


def test_the_laws_hold_the_inputs_are_the_same_and_nothing_is_done_twice(matrix, run, tmp_path, capsys):
    assert run(tmp_path, *ROWS) == 0
    told = json.loads((tmp_path / "matrix.json").read_text())
    lines = [json.loads(line) for line in (tmp_path / "cells.jsonl").read_text().splitlines()]
    assert {len(line["cell"]["withstood"]) for line in lines} == {INPUTS} and told["norm"] == "inf"
    for name in ROWS:
        shares = told["rows"][name]["shares"]
        known = {heading: share for heading, share in shares.items() if share is not None}
        assert min(known.values()) == shares["certified"] <= shares["strongest"]
        assert all(shares["strongest"] <= share for heading, share in known.items() if heading != "certified")
        assert (shares["BPDA"] is None) == (name != "k-WTA") and (shares["EOT"] is None) == (name != "delta rule")
    assert told["rows"]["none"]["shares"]["clean"] == 1.0 > told["rows"]["none"]["shares"]["strongest"]
    table = (tmp_path / "matrix.csv").read_text()
    assert [line["defence"] for line in csv.DictReader(table.splitlines())] == [*ROWS]
    assert 10_000 < (tmp_path / "matrix.png").stat().st_size < 1_000_000
    capsys.readouterr()
    assert run(tmp_path, *ROWS) == 0
    assert len((tmp_path / "cells.jsonl").read_text().splitlines()) == len(lines)
    assert (tmp_path / "matrix.csv").read_text() == table


def test_what_is_stopped_keeps_what_is_known_and_goes_on(matrix, run, tmp_path, monkeypatch):
    decide, calls = matrix.main.decide, []

    def stopped(*arguments):
        calls.append(arguments)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return decide(*arguments)

    monkeypatch.setattr(matrix.main, "decide", stopped)
    rows = ROWS[:2]
    assert run(tmp_path, *rows) == 130
    lines = [*csv.DictReader((tmp_path / "matrix.csv").read_text().splitlines())]
    assert [line["defence"] for line in lines] == [*rows] and lines[0]["certified"]
    assert lines[1]["FGSM"] and not lines[1]["square"] and not lines[1]["strongest"]
    assert run(tmp_path, *rows) == 0 and run(tmp_path / "whole", *rows) == 0
    assert (tmp_path / "matrix.csv").read_text() == (tmp_path / "whole" / "matrix.csv").read_text()


def test_contradictions_stop_the_run(matrix):
    def masks(**changed):
        return {
            "clean": [True] * 2,
            "PGD": [True, False],
            "strongest": [True, False],
            "certified": [True, False],
        } | changed

    matrix.main.check("row", masks())
    with pytest.raises(ArithmeticError, match=r"row: inputs \[1\] are certified and do not withstand"):
        matrix.main.check("row", masks(certified=[True, True]))
    with pytest.raises(ArithmeticError, match=r"inputs \[1\] are strongest and do not withstand PGD"):
        matrix.main.check("row", masks(strongest=[True, True]))


@pytest.mark.parametrize(("column", "name"), [("FGSM", "fgsm"), ("square", "square"), ("C&W", "cw")])
def test_cells_of_ordinary_networks_count_as_the_command_does(matrix, files, column, name):
    row, settings = row_of(matrix, files, "none"), matrix.main.QUICK.settings
    cell = matrix.cells.decide(row, matrix.cells.attack_of(row, column, settings), EPSILON)
    asked = {**matrix.cells.COLUMNS[column][1], **settings.get(name, {})}
    found = attack(
        row.path, files / "data.npz", name, EPSILON, clip=row.job.dataset.clip, limit=INPUTS, settings=asked, out=None
    )
    assert sum(cell.withstood) == found.robust < INPUTS


def test_a_detected_network_is_broken_by_what_is_not_flagged_alone(matrix, files, tmp_path):
    plain = row_of(matrix, files, "none")
    odds = matrix.rows.fitted(plain.path, matrix.main.QUICK, str(files / "data.npz"), None)
    fgsm = matrix.cells.attack_of(plain, "FGSM", {})
    never, always = (row_of(matrix, files, "none", replace(odds, threshold=end)) for end in (torch.inf, -torch.inf))
    assert matrix.cells.decide(never, fgsm, EPSILON).withstood == matrix.cells.decide(plain, fgsm, EPSILON).withstood
    assert not always.clean.any() and not any(matrix.cells.decide(always, fgsm, EPSILON).withstood)
    # What is flagged behind the clean inputs alone: none of the points counts.
    blind = replace(never, detector=replace(odds, threshold=-torch.inf))
    assert matrix.cells.decide(blind, fgsm, EPSILON).withstood == blind.clean.tolist()


def test_a_network_that_draws_is_broken_by_votes_at_the_border(matrix, files, monkeypatch):
    row, asked = row_of(matrix, files, "delta rule"), []

    def votes(network, points, draws, seed):
        asked.append((points, draws))
        outcomes = torch.zeros(len(points), dtype=torch.int64)
        outcomes[0] = BROKEN
        return SimpleNamespace(outcomes=lambda classes: outcomes)

    monkeypatch.setattr(matrix.cells, "votes_at", votes)
    cell = matrix.cells.decide(row, matrix.cells.attack_of(row, "PGD", {}), EPSILON)
    first = int(row.clean.nonzero()[0])
    assert cell.withstood == [bool(right) and i != first for i, right in enumerate(row.clean)]
    ((points, draws),) = asked
    assert draws == row.draws == matrix.main.QUICK.draws
    away = (points.double() - row.points[row.clean].double()).abs().amax(dim=1)
    assert bool((away <= EPSILON).all()) and bool((away >= EPSILON * (1 - 1e-5)).all())
