"""A line of records.jsonl that is no record is refused by its number, whatever it holds."""

import json
from dataclasses import replace

import pytest

from verifier.fields import RecordError
from verifier.runs import kinds
from verifier.runs.folder import RunError, open_run, read_run
from verifier.runs.kinds import check_configuration
from verifier.runs.record_lines import LARGEST_LINE, read_lines
from verifier.runs.records import names_of, parse_record

COMMON = {"schema": 1, "model": "a", "data": "b", "seed": 0, "clip": [0, 1], "norm": "inf"}
CONFIGURATIONS = {
    "certify": {**COMMON, "command": "certify", "method": "exact"},
    "attack": {**COMMON, "command": "attack", "attack": "pgd", "epsilon": 0.1, "target": None},
    "robustness": {**COMMON, "command": "robustness", "method": "crown", "estimators": ["attack"], "solver": "highs"},
    "compare": {**COMMON, "command": "compare", "epsilon": 0.1},
    "verify": {"schema": 1, "model": "a", "seed": 0, "command": "verify", "method": "exact"},
}
HEAD = {
    "schema": 1, "index": 3, "label": 2, "prediction": 2, "correct": True, "model": "a", "data": "b", "seconds": 0.5,
    "versions": {"torch": "2.8"},
}  # fmt: skip
BRACKET = {
    "lower": 0.05, "upper": 0.09, "trusted": -1.0, "lower_method": "exact", "upper_method": "attack",
    "trusted_method": "", "strength": "checked", "execution_only": None,
}  # fmt: skip
SPENT = [{"stage": "crown", "seconds": 0.1, "outcome": "nothing", "reason": "time limit", "colour": 7}]
RECORDS = {
    "certify": {
        **HEAD, **BRACKET, "refuted": None, "open_units": 4, "tie": False, "tried": [0.1], "reason": None,
        "spent": SPENT,
        "certificate": {"file": "certificates/x.npz", "sha256": "00", "radius": 0.05, "leaves": 3, "bytes": 99},
    },
    "attack": {
        **HEAD, "distance": 0.09, "adversarial": 1, "robust": False, "tie": False, "execution_only": 0.08, "queries": 9,
        "gradients": 3, "vanishing": False, "reason": None,
    },
    "robustness": {
        **HEAD, **BRACKET, "tried": 0.1, "reason": None,
        "estimators": {"attack": {"radius": 0.09, "outcome": "found", "seconds": 0.1}},
    },
    "verify": {
        "schema": 1, "index": 3, "model": "a", "seconds": 0.5, "versions": {"torch": "2.8"}, "name": "p.vnnlib",
        "file": "/p.vnnlib", "digest": "ab", "box": 1, "boxes": 2, "verdict": "unsat", "strength": "checked",
        "method": "exact", "reason": None, "tried": 60.0, "spent": SPENT,
        "certificate": {"file": "certificates/x.npz", "sha256": "00", "radius": 0.05, "leaves": 3, "bytes": 99},
    },
    "compare": {**HEAD, "methods": {"crown": {**BRACKET, "open_units": 3, "refuted": None, "seconds": 0.1}}},
}  # fmt: skip
NOBODY = ("null", "true", "-1e300", '"0.1"', "[]", "{}", "1e400", "1" + "0" * 400)


def with_line(tmp_path, command: str, line: bytes):
    """Write a run whose third line is this one; return its folder."""
    folder = tmp_path / "run"
    configuration = {name: value for name, value in CONFIGURATIONS[command].items() if name != "schema"}
    with open_run(folder, configuration):
        pass
    others = [json.dumps({**RECORDS[command], "index": index}).encode() for index in (7, 8, 9)]
    (folder / "records.jsonl").write_bytes(b"\n".join([*others[:2], line, others[2]]) + b"\n")
    return folder, configuration


@pytest.mark.parametrize("command", CONFIGURATIONS)
def test_a_record_of_each_command_is_taken(tmp_path, command):
    folder, configuration = with_line(tmp_path, command, json.dumps(RECORDS[command]).encode())
    assert sorted(read_run(folder).lines.records) == [3, 7, 8, 9]
    with open_run(folder, configuration) as run:
        written = run.records[3].to_json()
    assert {name: contained(RECORDS[command][name], written[name]) for name in RECORDS[command]} == RECORDS[command]


def contained(wanted, written):
    """Return what was written under the names that are wanted: optional fields are written too."""
    return {n: contained(wanted[n], written[n]) for n in wanted} if isinstance(wanted, dict) else written


@pytest.mark.parametrize("command", CONFIGURATIONS)
def test_what_is_written_is_read_again_with_fields_of_versions_to_come(command):
    kind, configuration = kinds.RECORDS[command], CONFIGURATIONS[command]
    record = kind.from_json({**RECORDS[command], "colour": {"of": ["the", 1]}}, configuration)
    assert record.others == {"colour": {"of": ["the", 1]}}
    again = kind.from_json(json.loads(json.dumps(record.to_json(), allow_nan=False)), configuration)
    assert again == record
    for name in {"certificate", "estimators", "methods"} & {*RECORDS[command]}:
        nested = json.loads(json.dumps(RECORDS[command]))
        inner = nested[name] if name == "certificate" else next(iter(nested[name].values()))
        inner["colour"] = 7
        read_again = kind.from_json(
            json.loads(json.dumps(kind.from_json(nested, configuration).to_json())), configuration
        )
        written = read_again.to_json()[name]
        assert (written if name == "certificate" else next(iter(written.values())))["colour"] == 7
        assert name != "methods" or kind.from_json(RECORDS[command], configuration).weakened(read_again)
    wrong = kind.from_json({**RECORDS[command], "prediction": 1, "correct": False}, configuration)
    assert wrong.is_asked is (command in ("robustness", "compare", "verify"))
    assert kind.from_json(wrong.to_json(), configuration) == wrong


@pytest.mark.parametrize("command", CONFIGURATIONS)
def test_every_field_of_a_record_is_needed_and_has_a_type(tmp_path, command):
    """Each field, also of nested objects, is left out, and replaced by values of other types or out of range."""
    path = tmp_path / "records.jsonl"
    optional = {
        "trusted", "trusted_method", "execution_only", "refuted", "open_units", "tie", "certificate",
        "certificate.radius", "certificate.leaves", "certificate.bytes", "spent",
    }  # fmt: skip
    wrong = {"index": '"3"', "seconds": '"1"', "lower": "-2", "upper": "-0.5", "trusted": "-3", "open_units": "0.5"}
    record = RECORDS[command]
    places = [(name,) for name in record] + [(n, k) for n, v in record.items() if isinstance(v, dict) for k in v]
    places += [("methods", "crown", k) for k in record.get("methods", {}).get("crown", {})]
    places += [("estimators", "attack", k) for k in record.get("estimators", {}).get("attack", {})]
    for place in places:
        if place[0] == "versions" and len(place) > 1:
            continue
        for value in (None, *NOBODY, wrong.get(place[-1], '"x"' if place[-1] != "reason" else "3")):
            changed = json.loads(json.dumps(record))
            inner = changed
            for name in place[:-1]:
                inner = inner[name]
            if value is None:
                if place[-1] in optional or ".".join(place) in optional:
                    continue
                del inner[place[-1]]
                text = json.dumps(changed)
            else:
                inner[place[-1]] = "@"
                text = json.dumps(changed).replace('"@"', value)
            path.write_text(text + "\n")
            found = read_lines(path, CONFIGURATIONS[command])
            if found.faults:
                assert found.faults[0].line == 1 and not found.records
            else:
                # What is allowed in some places: null, an object, whole numbers, texts.
                assert value in ("null", "true", '"0.1"', '"x"', "{}", "[]"), (place, value)
                assert len(found.records) == 1


LINES = {
    "nonsense": b"nonsense",
    "empty": b"",
    "list": b"[1]",
    "number": b"3",
    "nan": b'{"index": 3, "seconds": NaN}',
    "infinity": b'{"index": Infinity}',
    "too large": b'{"index": 1e400}',
    "huge": b'{"index": 1' + b"0" * 5000 + b"}",
    "negative": b'{"index": -1}',
    "true": b'{"index": true}',
    "text": b'{"index": "3"}',
    "repeated": b'{"index": 3, "index": 4}',
    "repeated inside": b'{"index": 3, "versions": {"a": "1", "a": "2"}}',
    "no utf-8": b'{"index": 3, "reason": "\xff\xfe"}',
    "utf-16": '{"index": 3}'.encode("utf-16"),
    "surrogate": b'{"index": 3, "reason": "\\ud800"}',
    "nested": b'{"index": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "two": b'{"index": 3} {"index": 4}',
    "long": b'{"index": 3, "reason": "' + b"x" * LARGEST_LINE + b'"}',
}


@pytest.mark.parametrize("name", LINES)
def test_a_line_that_is_no_record_is_refused_by_number_in_check_and_when_resumed(tmp_path, name):
    folder, configuration = with_line(tmp_path, "certify", LINES[name])
    before = (folder / "records.jsonl").read_bytes()
    for reading in (lambda: read_run(folder), lambda: open_run(folder, configuration).__enter__()):
        with pytest.raises(RunError, match=r"records.jsonl, line 3: not a record: ") as caught:
            reading()
        str(caught.value).encode()
        assert len(str(caught.value)) < 1000
    assert (folder / "records.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 2}, "'schema' is 2"),
        ({"model": "other"}, "another model"),
        ({"data": "other"}, "another data"),
        ({"run": "00"}, "another configuration"),
        ({"correct": False}, "do not go together"),
        ({"lower": 0.1}, "the record claims that 0.1 is safe and 0.09 is not"),
        ({"trusted": 0.1}, "trusted end"),
        ({"strength": "proved"}, "expected one of checked"),
        ({"certificate": {"sha256": "00"}}, "'certificate.file' is missing"),
        ({"tried": [0.1, -1]}, "'tried'"),
        ({"label": 2**60}, "'label'"),
    ],
)
def test_fields_must_agree_with_each_other_and_with_the_run(tmp_path, change, words):
    folder, configuration = with_line(tmp_path, "certify", json.dumps({**RECORDS["certify"], **change}).encode())
    (fault,) = read_run(folder).lines.faults
    assert (fault.line, fault.index) == (3, 3) and words in fault.reason
    with pytest.raises(RunError, match="line 3: "), open_run(folder, configuration):
        pass


@pytest.mark.parametrize(
    ("command", "change", "words"),
    [
        ("attack", {"robust": True}, "robust True"),
        ("attack", {"distance": None}, "robust False"),
        ("attack", {"distance": 0.2}, "robust False"),
        ("attack", {"adversarial": None}, "adversarial None"),
        ("robustness", {"estimators": {}}, "not those of the run"),
        ("robustness", {"upper": 0.095}, "below the bracket"),
        ("compare", {"methods": {"crown": 3}}, "expected an object"),
    ],
)
def test_fields_of_other_commands_must_agree_too(tmp_path, command, change, words):
    folder, _ = with_line(tmp_path, command, json.dumps({**RECORDS[command], **change}).encode())
    (fault,) = read_run(folder).lines.faults
    assert fault.line == 3 and words in fault.reason


@pytest.mark.parametrize(
    ("command", "change"),
    [
        ("attack", {"distance": 0.095}),
        ("attack", {"distance": None}),
        ("robustness", {"lower": 0.01}),
        ("robustness", {"tried": 0.05}),
        ("compare", {"methods": {}}),
        ("compare", {"methods": {"crown": {**RECORDS["compare"]["methods"]["crown"], "lower": 0.06}}}),
    ],
)
def test_a_later_record_of_any_command_says_at_least_as_much(command, change):
    record = read(command, {})
    assert record.weakened(record) is None
    if change != {"methods": {}}:
        assert read(command, change).weakened(record)
    else:
        assert replace(record, methods={}).weakened(record)


def read(command, change):
    """Return the record of a command with some fields changed, and what must follow from that."""
    follows = {"adversarial": None, "robust": True} if change.get("distance", 1) is None else {}
    return kinds.RECORDS[command].from_json({**RECORDS[command], **change, **follows}, CONFIGURATIONS[command])


@pytest.mark.parametrize("command", CONFIGURATIONS)
def test_a_configuration_needs_all_of_its_settings_in_their_types(command):
    configuration = CONFIGURATIONS[command]
    check_configuration({**configuration, "origin": {"model": "m", "mean": [0.5], "data_dir": None}})
    for name in configuration:
        is_text = name in ("model", "data", "method", "attack", "solver", "target")
        for value in ("left out", [], 3.5 if is_text else "x"):
            changed = {key: old for key, old in configuration.items() if key != name}
            if value != "left out":
                changed[name] = value
            if (name, value) == ("estimators", []):
                continue
            with pytest.raises(RecordError, match=f"'{name}'"):
                check_configuration(changed)
    for origin in ([], {"mean": "0.5"}, {"model": 3}, {"std": [None]}):
        with pytest.raises(RecordError, match="origin"):
            check_configuration({**configuration, "origin": origin})


def test_a_number_that_python_cannot_make_a_float_is_no_traceback():
    with pytest.raises(RecordError):
        parse_record(b'{"index": 1' + b"0" * 10_000 + b"}")


@pytest.mark.parametrize("command", kinds.RECORDS)
def test_a_record_writes_only_names_that_it_knows(command) -> None:
    """So what else a line holds is kept once, and nothing of a record is taken for a field of versions to come."""
    cls = kinds.RECORDS[command]
    record = cls.from_json({**RECORDS[command], "colour": 7}, CONFIGURATIONS[command])
    assert record.others == {"colour": 7}
    assert {*record.to_json()} - {"colour"} <= names_of(cls, True)
    assert cls.from_json(record.to_json(), CONFIGURATIONS[command]) == record
