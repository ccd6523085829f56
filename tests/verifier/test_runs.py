"""Run folders survive what happens to them."""

import numpy as np
import pytest

from verifier.runs import RunError, open_run

CONFIGURATION = {"command": "certify", "model": "a", "seed": 0}


def record(index: int, **more: object) -> dict[str, object]:
    return {"index": index, **more}


def test_a_half_written_last_line_is_cut_off(tmp_path):
    with open_run(tmp_path / "run", CONFIGURATION) as run:
        run.append([record(0), record(1)], {})
    with (tmp_path / "run" / "records.jsonl").open("a") as file:
        file.write('{"index": 2, "lo')
    with open_run(tmp_path / "run", CONFIGURATION) as run:
        assert set(run.records) == {0, 1}
        run.append([record(2)], {})
    with open_run(tmp_path / "run", CONFIGURATION) as run:
        assert set(run.records) == {0, 1, 2}


def test_a_broken_line_before_the_last_is_an_error_that_names_it(tmp_path):
    with open_run(tmp_path / "run", CONFIGURATION) as run:
        run.append([record(0)], {})
    path = tmp_path / "run" / "records.jsonl"
    path.write_text("nonsense\n" + path.read_text())
    with pytest.raises(RunError, match="line 1"), open_run(tmp_path / "run", CONFIGURATION):
        pass


def test_the_last_record_of_an_index_counts(tmp_path):
    with open_run(tmp_path / "run", CONFIGURATION) as run:
        run.append([record(0, lower=0.1)], {})
        run.append([record(0, lower=0.2)], {})
    with open_run(tmp_path / "run", CONFIGURATION) as run:
        assert run.records[0]["lower"] == 0.2


def test_the_nearest_witness_of_an_input_is_kept_and_merging_repeats_safely(tmp_path):
    point = np.zeros(3, dtype=np.float32)
    with open_run(tmp_path / "run", CONFIGURATION) as run:
        run.append([record(0)], {0: (point, 0.5), 4: (point, 0.3)})
        run.append([record(0)], {0: (point + 1, 0.2)})
        run.finish({})
        run.append([record(0)], {0: (point + 2, 0.4)})
        run.finish({})
        run.finish({})
        witnesses = run.witnesses()
    assert {index: distance for index, (_, distance) in witnesses.items()} == {0: 0.2, 4: 0.3}
    assert witnesses[0][0].tolist() == [1.0, 1.0, 1.0]


def test_another_configuration_is_refused_by_the_name_of_what_differs(tmp_path):
    with open_run(tmp_path / "run", CONFIGURATION):
        pass
    other = {**CONFIGURATION, "seed": 1}
    with pytest.raises(RunError, match="seed is 0 there and 1 here"), open_run(tmp_path / "run", other):
        pass


def test_a_folder_of_something_else_is_refused_untouched(tmp_path):
    (tmp_path / "thesis.tex").write_text("all of it")
    with pytest.raises(RunError, match="holds no run"), open_run(tmp_path, CONFIGURATION):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(RunError, match="is a file"), open_run(tmp_path / "thesis.tex", CONFIGURATION):
        pass


def test_two_processes_cannot_share_a_run(tmp_path):
    with (
        open_run(tmp_path / "run", CONFIGURATION),
        pytest.raises(RunError, match="in use"),
        open_run(tmp_path / "run", CONFIGURATION),
    ):
        pass


def test_infinite_numbers_never_reach_a_record(tmp_path):
    with open_run(tmp_path / "run", CONFIGURATION) as run:
        with pytest.raises(ValueError, match="JSON compliant"):
            run.append([record(0, lower=float("inf"))], {})
        assert not run.records_path.exists() or run.records_path.read_text() == ""
