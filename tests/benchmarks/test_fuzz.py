"""The fuzzer: pieces that resume, counts that add up, and what is planted is found and kept."""

import fcntl
import json
import random

import torch

from benchmarks import fuzz
from encoders.ops import Affine
from encoders.passes import execution_margins
from encoders.region import BallRegion
from tests.networks.chains import chain
from tests.oracles.executions import execution
from tests.whole_runs.verdicts import judge

# A seed that takes a tenth of a second, and one whose network is executed in float32.
QUICK, EXECUTED = 7, 10


def test_pieces_are_counted_once_and_a_torn_line_is_asked_again(tmp_path, capsys):
    assert fuzz.run(tmp_path, 600.0, 1, QUICK, QUICK + 1) == 0
    whole = (tmp_path / fuzz.NAME).read_text()
    assert fuzz.run(tmp_path, 600.0, 1, QUICK, QUICK + 1) == 0
    assert (tmp_path / fuzz.NAME).read_text() == whole
    (tmp_path / fuzz.NAME).write_text(whole + whole[: len(whole) // 2])
    assert list(fuzz.pieces_in(tmp_path)) == [QUICK]
    fuzz.keep(tmp_path, {**json.loads(whole), "seed": 99})
    pieces = fuzz.pieces_in(tmp_path)
    assert list(pieces) == [QUICK, 99]
    shown = fuzz.summary(pieces)
    assert f"{2 * pieces[99]['cases']:,} cases of 2 networks" in shown and "wrong: 0" in shown
    assert pieces[99]["cases"] == sum(pieces[99]["verdicts"].values()) > 0
    again = fuzz.piece_of(QUICK)
    assert {**again, "seconds": 0} == {**pieces[QUICK], "seconds": 0}
    assert "wrong: 0" in capsys.readouterr().out


def test_no_time_begins_no_piece_and_two_runs_do_not_share_a_folder(tmp_path, capsys):
    assert fuzz.run(tmp_path, 0.0, 1) == 0 and fuzz.pieces_in(tmp_path) == {}
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert fuzz.run(tmp_path, 0.0, 1) == 2
    assert "another run adds to" in capsys.readouterr().err


def test_a_bound_of_too_small_a_ball_is_reported_and_kept(tmp_path, capsys, monkeypatch):
    enclosure = BallRegion.enclosure
    monkeypatch.setattr(BallRegion, "enclosure", lambda self: enclosure(self.with_radius(0.7 * self.radius)))
    assert fuzz.run(tmp_path, 600.0, 1, 3, 4) == 1
    assert "WRONG seed 3" in capsys.readouterr().out
    kept = json.loads((tmp_path / "wrong-3" / "what.json").read_text())
    assert "UNSOUND" in " ".join(kept["wrong"]) and (tmp_path / "wrong-3" / "network.safetensors").exists()
    # The status stays what it was.
    assert fuzz.run(tmp_path, 0.0, 1) == 1


def test_errors_of_executions_that_are_too_small_are_found(monkeypatch):
    bounds = execution_margins.execution_errors

    def halved(*arguments):
        box, error = bounds(*arguments)
        return box, error * 2.0**-12

    monkeypatch.setattr("tests.whole_runs.verdicts.execution_errors", halved)
    assert any("errors: UNSOUND" in message for message in judge(EXECUTED).wrong)


def test_drawn_executions_differ():
    """Sums in other orders are not the same, or nothing would be tested."""
    generator = torch.Generator().manual_seed(4)
    op = Affine(torch.randn(5, 60, generator=generator), torch.randn(5, generator=generator))
    x = torch.randn(20, 60, generator=generator)
    network = chain((60,), op)
    drawn = [execution(network, x, random.Random(i)) for i in range(8)]
    assert len({tuple(found.flatten().tolist()) for found in drawn}) >= 5
    exact = network.cast(torch.float64).evaluate(x.double())
    assert all(float((found.double() - exact).abs().max()) < 1e-4 for found in drawn)
