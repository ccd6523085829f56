"""From which work a device pays is measured once, and what was kept is taken only where it is about the same."""

import json
import math

import pytest
import torch

from verifier.devices import break_even as module
from verifier.devices.break_even import NAME, break_even, cache_folder, least_work, measured


@pytest.mark.parametrize(
    ("rows", "work"),
    [
        ([(1, 1.0, 2.0), (2, 2.0, 2.0), (4, 4.0, 2.0), (8, 8.0, 2.0)], 4),
        # Faster for once is not faster from there on.
        ([(1, 2.0, 1.0), (2, 2.0, 3.0), (4, 4.0, 3.0)], 4),
        ([(1, 2.0, 1.0), (2, 4.0, 1.0)], 1),
        ([(1, 1.0, 2.0), (2, 1.0, 2.0)], math.inf),
        ([(1, 1.0, 1.0)], math.inf),
    ],
)
def test_the_least_work_is_that_from_which_the_device_is_faster_at_every_size(rows, work):
    assert least_work(rows) == work


def clock_of(device_seconds: float):
    """Return a clock by which a pass takes 1, 2, 4, ... seconds here and always the same there."""
    passes = [second for width in range(8) for second in [2.0**width] * 4 + [device_seconds] * 4]
    ticks = iter([tick for seconds in passes for tick in (0.0, seconds)])
    return lambda: next(ticks)


def test_passes_are_measured_there_and_back(device, monkeypatch):
    monkeypatch.setattr(module, "WIDTHS", (4, 8, 16, 32, 64, 128))
    rows = measured(device, clock_of(6.0))
    assert [(here, there) for _, here, there in rows] == [(1, 6), (2, 6), (4, 6), (8, 6), (16, 6), (32, 6)]
    assert least_work(rows) == 64 * 4 * 32**2
    # Once it is plain that the device is faster, nothing larger is measured.
    assert len(measured(device, clock_of(1.5))) == 4


def test_what_was_measured_is_kept_for_this_machine_and_device(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(module, "measured", lambda device: calls.append(device) or [(64.0, 1.0, 2.0)])
    device = torch.device("cuda")
    assert break_even(device, tmp_path) == break_even(device, tmp_path) == math.inf
    assert len(calls) == 1
    kept = json.loads((tmp_path / NAME).read_text())
    assert list(kept.values()) == [None]
    monkeypatch.setattr(torch, "__version__", "0.0")
    break_even(device, tmp_path)
    assert len(calls) == 2 and len(json.loads((tmp_path / NAME).read_text())) == 2


@pytest.mark.parametrize("content", ["", "[1]", '{"a": "b"}', '{"a": -1}', '{"a": true}', "\udcff"])
def test_a_file_that_holds_something_else_is_measured_again(tmp_path, monkeypatch, content):
    (tmp_path / NAME).write_bytes(content.encode(errors="surrogateescape"))
    monkeypatch.setattr(module, "measured", lambda device: [(64.0, 2.0, 1.0)])
    assert break_even(torch.device("cuda"), tmp_path) == 64.0


def test_where_nothing_can_be_kept_it_is_measured(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(module, "measured", lambda device: [(64.0, 2.0, 1.0)])
    assert break_even(torch.device("cuda"), tmp_path / "file" / "folder") == 64.0


def test_the_folder_is_the_users_own(tmp_path, monkeypatch):
    monkeypatch.setattr(module.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "robustness-verifier"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "robustness-verifier"
