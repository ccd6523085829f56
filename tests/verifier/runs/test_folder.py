"""Run folders survive what happens to them."""

import dataclasses
import errno
import json
import math

import numpy as np
import pytest

from encoders.files import replacing, write_atomically
from verifier.runs.certify_record import CertifyRecord
from verifier.runs.folder import RunError, open_run

CONFIGURATION = {"command": "certify", "model": "a", "data": "b", "seed": 0}


def record(index: int, **more: object) -> CertifyRecord:
    """Return a record of `certify` about a correctly classified input, of which nothing is known."""
    head = {"schema": 1, "index": index, "label": 2, "prediction": 2, "correct": True, "model": "a", "data": "b"}
    bracket = {"lower": -1.0, "upper": None, "lower_method": "", "upper_method": "", "strength": "checked"}
    own = {"seconds": 0.1, "versions": {"torch": "2"}, "tried": [0.1], "reason": None}
    return CertifyRecord.from_json({**head, **bracket, **own, **more}, CONFIGURATION)


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
        assert run.records[0].answer.bracket.lower == 0.2


def test_finishing_leaves_one_record_an_input_and_the_witness_that_it_claims(tmp_path):
    point = np.zeros(3, dtype=np.float32)
    with open_run(tmp_path / "run", CONFIGURATION) as run:
        run.append([record(0, upper=0.5)], {0: (point, 0.5), 4: (point, 0.3)})
        run.append([record(0, upper=0.2)], {0: (point + 1, 0.2)})
        assert len(run.records_path.read_text().splitlines()) == 2
        run.finish({"inputs": 1})
        assert [json.loads(line)["upper"] for line in run.records_path.read_text().splitlines()] == [0.2]
        assert run.results_path.exists()
        # A witness that was written before its record, by a process that was killed, is nobody's.
        run.append([record(1)], {0: (point + 2, 0.1)})
        assert not run.results_path.exists(), "the summary is that of other records"
        run.finish({})
        run.finish({})
        witnesses = run.witnesses()
    assert {index: distance for index, (_, distance) in witnesses.items()} == {0: 0.2}
    assert witnesses[0][0].tolist() == [1.0, 1.0, 1.0]


def test_pieces_of_witnesses_never_replace_each_other(tmp_path):
    point = np.zeros(3, dtype=np.float32)
    with open_run(tmp_path / "run", CONFIGURATION) as run:
        for upper in (0.5, 0.4, 0.3):
            run.append([record(0, upper=upper)], {0: (point, upper)})
        pieces = sorted((tmp_path / "run" / "witnesses").iterdir())
        pieces[0].write_bytes(b"")
        assert run.witnesses()[0][1] == 0.3
        assert len(run.notices) == 1 and "holds no witnesses" in run.notices[0]
        run.append([record(0, upper=0.2)], {0: (point, 0.2)})
        assert len(list((tmp_path / "run" / "witnesses").iterdir())) == 3


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ({"upper": 0.2}, {"upper": 0.3}, "its bracket was"),
        ({"lower": 0.2}, {"lower": 0.1}, "its bracket was"),
        ({"tried": [0.1, 0.2]}, {"tried": [0.2]}, "are gone"),
        ({}, {"label": 1, "prediction": 1}, "label was 2 and is 1"),
        ({}, {"prediction": 1, "correct": False}, "prediction was 2"),
    ],
)
def test_a_later_record_that_says_less_is_refused_by_its_line(tmp_path, before, after, words):
    with open_run(tmp_path / "run", CONFIGURATION) as run:
        run.append([record(5), record(0, **before)], {})
        run.append([record(0, **after)], {})
    with pytest.raises(RunError, match=f"line 3: input 0 .*line 2.*{words}"), open_run(tmp_path / "run", CONFIGURATION):
        pass


def test_a_record_made_under_another_configuration_is_refused_by_its_line(tmp_path):
    with open_run(tmp_path / "run", CONFIGURATION) as run:
        run.append([record(0)], {})
    path = tmp_path / "run" / "run.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    changed = {**CONFIGURATION, "seed": 1}
    with pytest.raises(RunError, match=r"line 1: .*another configuration"), open_run(tmp_path / "run", changed):
        pass


def test_a_setting_that_only_the_folder_states_is_another_run(tmp_path):
    with open_run(tmp_path / "run", {**CONFIGURATION, "levels": 255}):
        pass
    with pytest.raises(RunError, match="levels is 255 there and None here"), open_run(tmp_path / "run", CONFIGURATION):
        pass


def test_nothing_is_removed_through_a_link_to_the_certificates_of_another_run(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "proof.npz").write_bytes(b"kept")
    with open_run(tmp_path / "run", CONFIGURATION) as run:
        run.certificates.symlink_to(other)
        run.finish({})
    assert (other / "proof.npz").read_bytes() == b"kept"


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
    one = record(0)
    with open_run(tmp_path / "run", CONFIGURATION) as run:
        with pytest.raises(ValueError, match="JSON compliant"):
            run.append([dataclasses.replace(one, head=dataclasses.replace(one.head, seconds=math.inf))], {})
        assert not run.records_path.exists() or run.records_path.read_text() == ""


def test_a_write_that_fails_names_its_file_and_leaves_the_old_one(tmp_path):
    write_atomically(tmp_path / "kept.json", b"old")
    with (
        pytest.raises(OSError, match=r"kept.json cannot be written: .*File too large"),
        replacing(tmp_path / "kept.json"),
    ):
        raise OSError(errno.EFBIG, "File too large")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]
