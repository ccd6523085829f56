"""The comparison of devices runs with the processor on both sides, goes on where it was, and says what was not run."""

import json

from benchmarks import devices


def test_a_path_is_measured_on_both_sides_once(tmp_path, capsys, monkeypatch) -> None:
    out = tmp_path / "rows.jsonl"
    devices.main(["--smoke", "--out", str(out)])
    lines, table = out.read_text().splitlines(), capsys.readouterr().out
    assert len(lines) == 2 * 2 * len(devices.PATHS) and "not run" not in table
    assert all(name in table for name in devices.PATHS) and table.count("\n") == 2 + 2 * len(devices.PATHS)
    # The last line was not finished: it is measured again, and nothing else.
    out.write_text("".join(f"{line}\n" for line in lines[:-1]) + lines[-1][:20])
    monkeypatch.setattr(devices, "measured", lambda *_: {"seconds": 1.0, "share": 0.5})
    rows = devices.run(devices.options(["--smoke", "--out", str(out)]))
    assert [row["seconds"] for row in rows] == [*(json.loads(line)["seconds"] for line in lines[:-1]), 1.0]
    assert [json.loads(line) for line in out.read_text().splitlines()] == rows


def test_what_has_no_device_was_not_run() -> None:
    row = {"path": "crown", "batch": 8, "side": "cpu", "seconds": 0.5, "share": 0.25}
    assert devices.table([row]).splitlines()[-1] == "| crown | 8 | 0.5 (25.0%) | not run |"
    there = {**row, "side": "card", "seconds": 0.1}
    assert devices.table([row, there]).splitlines()[-1] == "| crown | 8 | 0.5 (25.0%) | 0.1 (25.0%), 5.00 |"
