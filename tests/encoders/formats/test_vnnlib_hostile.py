"""Files that ask for too much are refused by name, at once, and before the memory is taken."""

import gzip
import time
from pathlib import Path

import pytest

import encoders
from encoders.formats import PropertyFileError
from encoders.limits import Limits

# Seconds of this process, far below what an unbounded reader takes.
AT_ONCE = 2.0

DECLARED = "(declare-const X_0 Real)(declare-const Y_0 Real)(assert (<= 0 X_0 1))\n"
EITHER = "(assert (or (<= Y_0 1) (>= Y_0 2)))"
NETWORK = "(declare-network f (declare-input X Real [{}]) (declare-output Y Real [{}]))"

HOSTILE = {
    "nesting": (DECLARED + "(assert " + "(and " * 100_000 + "(<= Y_0 1)" + ")" * 100_001, "nesting=101"),
    "open brackets": (DECLARED + "(" * 100_000, "nesting=101"),
    "disjuncts": (DECLARED + EITHER * 17, "disjuncts=131072"),
    "more disjuncts than a number should hold": (DECLARED + EITHER * 50_000, "disjuncts="),
    "disjuncts in one formula": (DECLARED + f"(assert (and {EITHER[8:-1] * 40}))", "disjuncts="),
    "rows of all disjuncts": (
        DECLARED + EITHER * 14 + f"(assert (and {''.join(f'(<= Y_0 {i})' for i in range(200))}))",
        "formula_rows=",
    ),
    "rows within one formula": (
        DECLARED + f"(assert (and {EITHER[8:-1] * 14} {''.join(f'(<= Y_0 {i})' for i in range(200))}))",
        "formula_rows=3506176",
    ),
    "boxes": (
        NETWORK.format(2**22, 1) + f"(assert (or {''.join(f'(<= X[0] {i})' for i in range(32))}))",
        "coefficients=134217728",
    ),
    "inputs": (NETWORK.format("9" * 12, 1), "input_values=999999999999"),
    "inputs in many dimensions": (NETWORK.format(",".join(["9" * 18] * 16), 1), "input_values="),
    "coefficients": (
        NETWORK.format(1, 2**20) + "(assert (<= 0 X[0] 1))" + "(assert (or (<= Y[0] 1) (<= Y[1] 1)))" * 6,
        "coefficients=402653184",
    ),
    "exponent": (DECLARED + "(assert (<= Y_0 1e999999999))", "at '1e999999999': an exponent outside"),
    "exponent of many digits": (DECLARED + f"(assert (<= Y_0 1e{'9' * 900}))", "an exponent outside"),
    "digits": (DECLARED + f"(assert (<= Y_0 {'1' * 1_000_000}))", "a number of 1,000,000 characters"),
    "index": (NETWORK.format(1, 1) + f"(assert (<= X[{'9' * 100_000}] 1))", "must be a whole number"),
    "product": (DECLARED + f"(assert (<= (* {'1e999 ' * 10_000}) Y_0))", "more than 8,192 bits"),
    "a word": (DECLARED + "(assert " + "a" * 5_000_000, "the file ends before this bracket is closed"),
    "quotation marks": (DECLARED + "(assert " + '"' * 100_001, "is not expected here"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_at_once(tmp_path: Path, name: str) -> None:
    text, message = HOSTILE[name]
    path = tmp_path / "hostile.vnnlib"
    path.write_text(text)
    before = time.process_time()
    with pytest.raises(PropertyFileError, match=rf"hostile\.vnnlib.*{message}") as caught:
        encoders.read_property(path)
    assert time.process_time() - before < AT_ONCE
    assert len(str(caught.value)) < 2_000


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.vnnlib.gz"
    path.write_bytes(gzip.compress(b" " * 2**27))
    before = time.process_time()
    with pytest.raises(PropertyFileError, match=r"the file of properties, which unpacks .* --allow expanded_bytes="):
        encoders.read_property(path)
    assert time.process_time() - before < AT_ONCE


@pytest.mark.parametrize("name", ["text_bytes", "tokens", "nesting", "disjuncts", "formula_rows", "coefficients"])
def test_a_limit_is_lifted_by_its_option(tmp_path: Path, name: str) -> None:
    path = tmp_path / "plain.vnnlib"
    path.write_text(DECLARED + EITHER)
    with pytest.raises(PropertyFileError, match=f"--allow {name}=") as caught:
        encoders.read_property(path, Limits(**{name: 1}))
    asked = int(str(caught.value).split(f"--allow {name}=")[1].split()[0])
    # Nesting is told as it is met; everything else is known in full.
    encoders.read_property(path, Limits(**{name: 3 if name == "nesting" else asked}))
