"""The fields of a record and of run.json, command by command: types, ranges, and what must agree between them.

`check_record` asks each field for its type and range, then the fields for each other and for the run's configuration,
and raises RecordError with a sentence that names the field; whoever reads the file adds the line. Further fields are
allowed, so that later versions may add some.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from encoders.region import NORMS
from verifier.runs.records import SCHEMA, Record, RecordError, bracket_of, configuration_digest, shown
from verifier.verdict import Bracket, Strength

# Of integers: what a float64 holds exactly.
LARGEST_INTEGER = 1 << 53

Rule = Callable[[Any], bool]
# By field: whether a value will do, what is expected in words, whether a record must have the field.
Fields = Mapping[str, tuple[Rule, str, bool]]


def index_of(record: Record) -> int:
    """Return the position in the data that a record is about; RecordError if it names none."""
    index = record.get("index")
    if not _whole(0)(index):
        raise RecordError(f"not a record: field 'index' is {shown(index)}; expected a whole number of at least 0")
    return int(record["index"])


def check_record(record: Record, configuration: Mapping[str, Any]) -> None:
    """Raise RecordError unless a record is one of this run and agrees with itself."""
    _check_fields(COMMON, record)
    for name in ("model", "data"):
        if record[name] != configuration[name]:
            raise RecordError(f"its record is about another {name} than the run")
    if record.get("run", "") not in ("", configuration_digest(configuration)):
        raise RecordError("its record was made under another configuration than run.json states")
    label, prediction, correct = record["label"], record["prediction"], record["correct"]
    if correct is not (label == prediction):
        raise RecordError(f"label {label}, prediction {prediction}, correct {correct} do not go together")
    KINDS[configuration["command"]](record, configuration)


# ------------------------------------------------------------------------------------------------------ single fields


def _whole(least: int) -> Rule:
    return lambda value: type(value) is int and least <= value < LARGEST_INTEGER


def _number(least: float) -> Rule:
    def holds(value: Any) -> bool:
        # An integer is compared as it is: it may be too large for a float.
        if type(value) is int:
            return least <= value < LARGEST_INTEGER
        return type(value) is float and math.isfinite(value) and value >= least

    return holds


def _or_null(rule: Rule) -> Rule:
    return lambda value: value is None or rule(value)


def _is_text(value: Any) -> bool:
    return type(value) is str


def _is_flag(value: Any) -> bool:
    return type(value) is bool


def _are_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value.values()))


def _are_radii(value: Any) -> bool:
    return isinstance(value, list) and all(map(_number(0.0), value))


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_text, value))


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _check_fields(fields: Fields, record: Record, where: str = "") -> None:
    """Raise RecordError naming the first field that is missing or not what it should be."""
    for name, (rule, words, required) in fields.items():
        if name not in record:
            if required:
                raise RecordError(f"malformed: field {where + name!r} is missing")
        elif not rule(record[name]):
            raise RecordError(f"malformed: field {where + name!r} is {shown(record[name])}; expected {words}")


NUMBER = (_number(0.0), "a finite number of at least 0", True)
END = (_or_null(_number(0.0)), "a finite number of at least 0, or null", True)
LOWER = (_or_null(_number(-1.0)), "a finite number of at least -1, or null for infinity", True)
TEXT = (_is_text, "text", True)
REASON = (_or_null(_is_text), "text or null", True)
FLAG = (_is_flag, "true or false", True)
COUNT = (_whole(0), "a whole number of at least 0", True)


def _optional(field: tuple[Rule, str, bool]) -> tuple[Rule, str, bool]:
    return field[0], field[1], False


COMMON: Fields = {
    "schema": (lambda value: type(value) is int and value == SCHEMA, f"{SCHEMA}", True),
    "index": COUNT, "label": COUNT, "prediction": (_whole(-1), "a class, or -1 for none", True), "correct": FLAG,
    "model": TEXT, "data": TEXT, "seconds": NUMBER, "versions": (_are_texts, "an object of texts", True),
    "run": _optional(TEXT),
}  # fmt: skip
BRACKET: Fields = {
    "lower": LOWER, "upper": END, "trusted": _optional(LOWER), "lower_method": TEXT, "upper_method": TEXT,
    "trusted_method": _optional(TEXT),
    "strength": (lambda value: value in tuple(map(str, Strength)), f"one of {', '.join(Strength)}", True),
    "execution_only": _optional(END),
    "refuted": (_or_null(_is_pair), "two names or null", False),
    "open_units": (_or_null(_whole(0)), "a whole number of at least 0, or null", False),
}  # fmt: skip
CERTIFICATE: Fields = {
    "file": TEXT, "sha256": TEXT, "radius": _optional(NUMBER), "leaves": _optional(COUNT), "bytes": _optional(COUNT)
}  # fmt: skip
CERTIFY: Fields = {
    **BRACKET, "tried": (_are_radii, "a list of finite numbers of at least 0", True), "reason": REASON,
    "tie": _optional(FLAG), "certificate": (_or_null(_is_object), "an object or null", False),
    "no_certificate": _optional(REASON),
}  # fmt: skip
ATTACK: Fields = {
    "distance": END, "adversarial": (_or_null(_whole(0)), "a class or null", True), "robust": FLAG, "tie": FLAG,
    "execution_only": END, "queries": COUNT, "gradients": COUNT,
    "vanishing": (_or_null(_is_flag), "true, false or null", True), "reason": REASON,
}  # fmt: skip
ROBUSTNESS: Fields = {
    **BRACKET, "estimators": (_is_object, "an object", True), "tried": NUMBER, "reason": REASON,
}  # fmt: skip
ESTIMATE: Fields = {"radius": END, "outcome": TEXT, "seconds": NUMBER}
COMPARE: Fields = {"methods": (lambda value: _is_object(value) and bool(value), "an object that is not empty", True)}
METHOD: Fields = {**BRACKET, "seconds": NUMBER}


# --------------------------------------------------------------------------------------------------- kinds of records


def _check_bracket(record: Record) -> Bracket:
    lower, upper = (math.inf if record[name] is None else record[name] for name in ("lower", "upper"))
    if lower >= upper and not lower == upper == math.inf:
        raise RecordError(f"the record claims that {lower!r} is safe and {upper!r} is not")
    try:
        return bracket_of(record)
    except ValueError as error:
        raise RecordError(str(error)) from None


def _check_certify(record: Record, configuration: Mapping[str, Any]) -> None:
    if not record["correct"]:
        return
    _check_fields(CERTIFY, record)
    _check_bracket(record)
    if record.get("certificate") is not None:
        _check_fields(CERTIFICATE, record["certificate"], "certificate.")


def _check_attack(record: Record, configuration: Mapping[str, Any]) -> None:
    if not record["correct"]:
        return
    _check_fields(ATTACK, record)
    distance = record["distance"]
    if record["robust"] is not (distance is None or distance > configuration["epsilon"]):
        raise RecordError(f"robust {record['robust']} and distance {distance!r} do not go together")
    if (distance is None) is not (record["adversarial"] is None):
        raise RecordError(f"adversarial {record['adversarial']} and distance {distance!r} do not go together")


def _check_robustness(record: Record, configuration: Mapping[str, Any]) -> None:
    _check_fields(ROBUSTNESS, record)
    bracket = _check_bracket(record)
    names = list(configuration["estimators"])
    if sorted(record["estimators"]) != sorted(names):
        raise RecordError(f"its estimators are not those of the run, {', '.join(names)}")
    for name, estimate in record["estimators"].items():
        if not _is_object(estimate):
            raise RecordError(f"malformed: field 'estimators.{name}' is {shown(estimate)}; expected an object")
        _check_fields(ESTIMATE, estimate, f"estimators.{name}.")
        if estimate["radius"] is not None and estimate["radius"] < bracket.upper:
            raise RecordError(f"the radius of estimator {name} is below the bracket's upper end {bracket.upper!r}")


def _check_compare(record: Record, configuration: Mapping[str, Any]) -> None:
    _check_fields(COMPARE, record)
    for name, answer in record["methods"].items():
        if not _is_object(answer):
            raise RecordError(f"malformed: field 'methods.{name}' is {shown(answer)}; expected an object")
        _check_fields(METHOD, answer, f"methods.{name}.")
        _check_bracket(answer)


KINDS: Mapping[str, Callable[[Record, Mapping[str, Any]], None]] = {
    "certify": _check_certify, "attack": _check_attack, "robustness": _check_robustness, "compare": _check_compare,
}  # fmt: skip


# ------------------------------------------------------------------------------------------------------ configurations


def _is_domain(value: Any) -> bool:
    number = _number(-math.inf)
    return value is None or (
        isinstance(value, list) and len(value) == 2 and all(map(number, value)) and value[0] < value[1]
    )


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _are_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(map(_number(-math.inf), value))


def _one_of(names: Collection[str]) -> tuple[Rule, str, bool]:
    return lambda value: _is_text(value) and value in names, f"one of {', '.join(names)}", True


def _is_target(value: Any) -> bool:
    return value is None or _is_text(value) or _whole(0)(value)


SETTINGS: Fields = {
    "schema": COMMON["schema"], "command": _one_of(KINDS), "model": TEXT, "data": TEXT,
    "seed": (_whole(-LARGEST_INTEGER), "a whole number", True), "norm": _one_of(NORMS),
    "clip": (_is_domain, "two finite numbers, the lower first, or null", True),
    "origin": (_is_object, "an object", False),
}  # fmt: skip
ORIGIN: Fields = {
    "model": _optional(TEXT), "data": _optional(TEXT), "data_dir": _optional(REASON), "layout": _optional(REASON),
    "mean": (_are_numbers, "a list of numbers", False), "std": (_are_numbers, "a list of numbers", False),
}  # fmt: skip
COMMAND_SETTINGS: Mapping[str, Fields] = {
    "certify": {"method": TEXT},
    "attack": {"attack": TEXT, "epsilon": NUMBER, "target": (_is_target, "a class, a name or null", True)},
    "robustness": {"method": TEXT, "estimators": (_are_names, "a list of names", True), "solver": TEXT},
    "compare": {"epsilon": NUMBER},
}


def check_configuration(configuration: Record) -> None:
    """Raise RecordError naming the first setting of run.json that is missing or not what it should be."""
    _check_fields(SETTINGS, configuration)
    _check_fields(ORIGIN, configuration.get("origin", {}), "origin.")
    _check_fields(COMMAND_SETTINGS[configuration["command"]], configuration)
