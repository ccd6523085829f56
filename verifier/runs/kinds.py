"""The table of records, by command, and what run.json states of a run of each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from encoders.region import NORMS
from verifier.fields import (
    LARGEST_INTEGER,
    NAMES,
    NUMBER,
    OBJECT,
    REASON,
    TEXT,
    Kind,
    Kinds,
    check_fields,
    is_number,
    is_text,
    is_whole,
    list_of,
    one_of,
    or_null,
)  # fmt: skip
from verifier.runs.attack_record import AttackRecord
from verifier.runs.certify_record import CertifyRecord
from verifier.runs.compare_record import CompareRecord
from verifier.runs.records import SCHEMA_FIELD, Record
from verifier.runs.robustness_record import RobustnessRecord
from verifier.runs.verify_record import VerifyRecord

RECORDS: dict[str, type[Record]] = {
    "certify": CertifyRecord, "attack": AttackRecord, "robustness": RobustnessRecord, "compare": CompareRecord,
    "verify": VerifyRecord,
}  # fmt: skip


def _is_domain(value: Any) -> bool:
    number = is_number(-math.inf)
    return isinstance(value, list) and len(value) == 2 and all(map(number, value)) and value[0] < value[1]


def _is_target(value: Any) -> bool:
    return value is None or is_text(value) or is_whole(0)(value)


NUMBERS = list_of(is_number(-math.inf), "a list of numbers")
SETTINGS: Kinds = {
    **SCHEMA_FIELD,
    "command": (one_of(RECORDS), True), "model": (TEXT, True),
    "seed": (Kind(is_whole(-LARGEST_INTEGER), "a whole number"), True), "origin": (OBJECT, False),
    "randomised": (one_of(("mean",)), False),
}  # fmt: skip
# Of the commands that ask about the inputs of a data set.
ENDS = Kind(
    lambda value: isinstance(value, list) and len(value) == 2 and all(map(NUMBERS.holds, value)),
    "two lists of numbers, the least and the greatest values",
)
INPUT_SETTINGS: Kinds = {
    "scale": (list_of(is_number(0.0), "a list of numbers of at least 0"), False), "domain": (ENDS, False),
    "fixed": (list_of(is_whole(0), "a list of places"), False),
    "data": (TEXT, True), "norm": (one_of(NORMS), True),
    "clip": (or_null(Kind(_is_domain, "two finite numbers, the lower first")), True),
}  # fmt: skip
ORIGIN: Kinds = {
    "model": (TEXT, False), "data": (TEXT, False), "data_dir": (REASON, False), "layout": (REASON, False),
    "split": (TEXT, False),
    "label": (REASON, False), "networks": (OBJECT, False), "joint": (OBJECT, False),
    "mean": (NUMBERS, False), "std": (NUMBERS, False),
}  # fmt: skip
COMMAND_SETTINGS: Mapping[str, Kinds] = {
    "certify": {
        **INPUT_SETTINGS, "method": (TEXT, True), "delta": (NUMBER, False), "draws_within": (NUMBER, False),
        "arithmetic": (TEXT, False), "radius": (NUMBER, False),
    },
    "attack": {
        **INPUT_SETTINGS, "attack": (TEXT, True), "epsilon": (NUMBER, True),
        "target": (Kind(_is_target, "a class, a name or null"), True), "settings": (OBJECT, False),
        "surrogate": (TEXT, False),
    },
    "robustness": {
        **INPUT_SETTINGS, "method": (TEXT, True), "estimators": (NAMES, True), "solver": (TEXT, True)
    },
    "compare": {**INPUT_SETTINGS, "epsilon": (NUMBER, True)},
    "verify": {"method": (TEXT, True)},
}  # fmt: skip


def check_configuration(configuration: Mapping[str, Any]) -> None:
    """Raise RecordError naming the first setting of run.json that is missing or not what it should be."""
    check_fields(SETTINGS, configuration)
    check_fields(ORIGIN, configuration.get("origin", {}), "origin.")
    check_fields(COMMAND_SETTINGS[configuration["command"]], configuration)
