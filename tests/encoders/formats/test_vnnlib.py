"""VNN-LIB files with answers worked out by hand, and the sentences that refuse what is not supported."""

import gzip
import math
from fractions import Fraction
from pathlib import Path

import pytest
import torch

import encoders
from encoders.formats import PropertyFileError
from encoders.limits import Limits

DECLARED = "(declare-const X_0 Real)\n(declare-const X_1 Real)\n(declare-const Y_0 Real)\n(declare-const Y_1 Real)\n"
BOX = "(assert (and (>= X_0 -1) (<= X_0 1) (>= X_1 0) (<= X_1 2)))\n"


def read(folder: Path, text: str, limits: Limits = Limits()) -> tuple[encoders.Property, ...]:
    path = folder / "asked.vnnlib"
    path.write_text(text)
    return encoders.read_property(path, limits)


def one(folder: Path, text: str) -> encoders.Property:
    (asked,) = read(folder, text)
    return asked


def rows(asked: encoders.Property) -> list[tuple[list[list[float]], list[float]]]:
    """Return (C, d) of every polyhedron."""
    return [(halfspaces.coefficients.tolist(), halfspaces.offsets.tolist()) for halfspaces in asked.unsafe]


def test_a_conjunction_is_one_polyhedron(tmp_path: Path) -> None:
    asked = one(tmp_path, DECLARED + BOX + "(assert (<= Y_1 Y_0)) ; tie\n(assert (>= Y_0 0.5))")
    assert asked.lower.tolist() == [-1.0, 0.0] and asked.upper.tolist() == [1.0, 2.0] and asked.inner is None
    assert rows(asked) == [([[-1.0, 1.0], [-1.0, 0.0]], [0.0, -0.5])]
    assert asked.name == "asked" and asked.source.endswith("asked.vnnlib") and not asked.strict and not asked.note


def test_a_disjunction_is_several_polyhedra(tmp_path: Path) -> None:
    asked = one(tmp_path, DECLARED + BOX + "(assert (or (<= Y_0 3) (and (>= Y_1 1) (or (>= Y_0 5) (<= Y_1 7)))))")
    assert rows(asked) == [
        ([[1.0, 0.0]], [3.0]),
        ([[0.0, -1.0], [-1.0, 0.0]], [-1.0, -5.0]),
        ([[0.0, -1.0], [0.0, 1.0]], [-1.0, 7.0]),
    ]


def test_disjuncts_with_one_box_are_one_property(tmp_path: Path) -> None:
    inputs = "(assert (or (and (>= X_0 0) (<= X_0 1)) (and (>= X_0 2) (<= X_0 3))))(assert (= X_1 0))"
    first, second = read(tmp_path, DECLARED + inputs + "(assert (or (<= Y_0 Y_1) (<= Y_1 -1)))")
    assert first.lower.tolist() == [0.0, 0.0] and first.upper.tolist() == [1.0, 0.0]
    assert second.lower.tolist() == [2.0, 0.0] and second.upper.tolist() == [3.0, 0.0]
    assert rows(first) == rows(second) == [([[1.0, -1.0]], [0.0]), ([[0.0, 1.0]], [-1.0])]
    assert [asked.name for asked in (first, second)] == ["asked (1 of 2)", "asked (2 of 2)"]


def test_a_bound_that_says_nothing_new_makes_no_box_of_its_own(tmp_path: Path) -> None:
    asked = one(tmp_path, DECLARED + BOX + "(assert (or (and (<= X_0 5) (<= Y_0 1)) (<= Y_1 2)))")
    assert asked.upper.tolist() == [1.0, 2.0] and len(asked.unsafe) == 2


def test_boxes_and_outputs_mix_in_one_disjunction(tmp_path: Path) -> None:
    mixed = "(assert (or (and (<= X_0 0) (<= Y_0 1)) (<= Y_1 2) (and (<= Y_1 3) (<= X_0 0))))"
    narrow, wide = read(tmp_path, DECLARED + BOX + mixed)
    assert narrow.upper.tolist() == [0.0, 2.0] and rows(narrow) == [([[1.0, 0.0]], [1.0]), ([[0.0, 1.0]], [3.0])]
    assert wide.upper.tolist() == [1.0, 2.0] and rows(wide) == [([[0.0, 1.0]], [2.0])]


@pytest.mark.parametrize(
    ("constraint", "row", "offset"),
    [
        ("(<= Y_0 Y_1)", [1, -1], 0),
        ("(>= (+ Y_0 Y_1 1) (* 2 3))", [-1, -1], -5),
        # 2 y_0 - y_1 - 3 <= y_0: y_0 - y_1 <= 3.
        ("(<= (- (* 2 Y_0) Y_1 3) Y_0)", [1, -1], 3),
        ("(<= (- Y_0) (- 5))", [-1, 0], -5),
        ("(>= 1e1 (* Y_1 -.5E+1))", [0, -1], 2),
        # .1 y_0 + .25 y_1 <= 1: 2 y_0 + 5 y_1 <= 20.
        ("(<= (+ (* 0.1 Y_0) (* Y_1 0.25)) 1)", [2, 5], 20),
        ("(<= (* 2 (- Y_0 Y_1) -3) +6.)", [-1, 1], 1),
        ("(<= (+ Y_0 (* 0 Y_1)) 1)", [1, 0], 1),
    ],
)
def test_linear_constraints(tmp_path: Path, constraint: str, row: list[int], offset: int) -> None:
    asked = one(tmp_path, DECLARED + BOX + f"(assert {constraint})")
    assert rows(asked) == [([row], [offset])]


def test_chains_equalities_and_inequations(tmp_path: Path) -> None:
    # 0 <= y_0 < y_1; then y_0 = 3; then y_0 < 1 or y_0 > 1.
    chain = one(tmp_path, DECLARED + BOX + "(assert (< 0 Y_0 Y_1))")
    assert rows(chain) == [([[-1.0, 0.0], [1.0, -1.0]], [0.0, 0.0])] and chain.unsafe[0].strict == (True, True)
    for sign in ("=", "=="):
        assert rows(one(tmp_path, DECLARED + BOX + f"(assert ({sign} Y_0 3))")) == [([[1, 0], [-1, 0]], [3, -3])]
    apart = one(tmp_path, DECLARED + BOX + "(assert (!= Y_0 1))")
    assert rows(apart) == [([[1, 0]], [1]), ([[-1, 0]], [-1])] and apart.strict
    inputs = one(tmp_path, DECLARED + "(assert (<= -1 X_0 1))(assert (>= 2 X_1 0))(assert (<= Y_0 0))")
    assert inputs.lower.tolist() == [-1.0, 0.0] and inputs.upper.tolist() == [1.0, 2.0]


def test_strict_comparisons_are_closed_for_proofs_and_kept_for_witnesses(tmp_path: Path) -> None:
    text = "(assert (> X_0 0))(assert (< X_0 1))(assert (= X_1 0))(assert (and (< Y_0 Y_1) (<= Y_0 5)))"
    asked = one(tmp_path, DECLARED + text)
    assert asked.strict and asked.unsafe[0].strict == (True, False)
    assert asked.lower.tolist() == [0.0, 0.0] and asked.upper.tolist() == [1.0, 0.0]
    least, greatest = asked.witness_box
    assert float(least[0]) == math.nextafter(0.0, 1.0) and float(greatest[0]) == math.nextafter(1.0, 0.0)
    tie, apart = torch.tensor([1.0, 1.0]), torch.tensor([1.0, 2.0])
    inside, edge = torch.tensor([0.5, 0.0]), torch.tensor([1.0, 0.0])
    assert asked.contains(inside, apart) and not asked.contains(inside, tie) and not asked.contains(edge, apart)


@pytest.mark.parametrize("signs", [("<=", "<"), ("<", "<=")])
def test_of_two_constraints_with_one_end_the_strict_one_counts(tmp_path: Path, signs: tuple[str, str]) -> None:
    bounds = "".join(f"(assert ({sign} X_0 1))(assert ({sign} 0 X_1))(assert ({sign} Y_0 3))" for sign in signs)
    asked = one(tmp_path, DECLARED + BOX + bounds)
    least, greatest = asked.witness_box
    assert float(greatest[0]) < 1.0 and float(least[1]) > 0.0
    assert rows(asked) == [([[1.0, 0.0]], [3.0])] and asked.unsafe[0].strict == (True,)


def test_decimals_are_rounded_outward_for_proofs_and_inward_for_witnesses(tmp_path: Path) -> None:
    # .1 lies below the float64 next to it, .3 above.
    asked = one(tmp_path, DECLARED + "(assert (<= 0.1 X_0 0.3))(assert (<= 0 X_1 0.5))(assert (<= Y_0 0.1))")
    tenth, third = Fraction(1, 10), Fraction(3, 10)
    least, greatest = asked.witness_box
    assert Fraction(float(asked.lower[0])) < tenth < Fraction(float(least[0])) == Fraction(0.1)
    assert Fraction(float(asked.upper[0])) > third > Fraction(float(greatest[0])) == Fraction(0.3)
    assert float(asked.upper[1]) == float(greatest[1]) == 0.5
    assert asked.unsafe[0].written == (tenth,) and float(asked.unsafe[0].offsets[0]) == 0.1
    assert not asked.unsafe[0].contains(torch.tensor([0.1, 0.0], dtype=torch.float64))


def test_an_input_fixed_to_a_decimal_is_the_nearest_float_for_witnesses(tmp_path: Path) -> None:
    asked = one(tmp_path, DECLARED + "(assert (= X_0 0.1))(assert (= X_1 0.5))(assert (<= Y_0 0))")
    assert float(asked.lower[0]) < float(asked.upper[0]) == 0.1
    assert asked.contains(asked.upper, torch.zeros(2)) and not asked.contains(asked.lower, torch.zeros(2))
    assert Fraction(float(asked.lower[0])) < Fraction(1, 10) and asked.lower[1] == asked.upper[1] == 0.5


def test_no_constraint_on_outputs_makes_every_output_unsafe(tmp_path: Path) -> None:
    asked = one(tmp_path, DECLARED + BOX)
    assert asked.contains(torch.tensor([0.0, 1.0]), torch.tensor([1e30, -5.0])) and asked.outputs == 2


@pytest.mark.parametrize(
    "text",
    [
        BOX + "(assert (>= X_0 2))",
        BOX + "(assert (or (>= X_0 2) (<= X_1 -1)))(assert (<= Y_0 0))",
        "(assert (and (< X_0 1) (>= X_0 1)))",
        BOX + "(assert (<= 1 0))",
        BOX + "(assert (< Y_0 Y_0))",
        BOX + "(assert (and (<= Y_0 0) (>= (* 2 Y_0) 1)))",
        BOX + "(assert (and (<= Y_0 Y_1) (< Y_1 Y_0)))",
    ],
)
def test_a_contradiction_is_vacuous_and_says_so(tmp_path: Path, text: str) -> None:
    asked = one(tmp_path, DECLARED + text)
    assert asked.unsafe == () and "contradict" in asked.note and "so that it holds" in asked.note


def test_a_contradictory_disjunct_is_left_out(tmp_path: Path) -> None:
    asked = one(
        tmp_path, DECLARED + BOX + "(assert (or (and (<= Y_0 0) (>= X_0 2)) (<= Y_1 0) (and (<= 1 0) (<= Y_0 0))))"
    )
    assert rows(asked) == [([[0.0, 1.0]], [0.0])] and not asked.note


INPUT, OUTPUT = "(declare-input X Real [2])", "(declare-output Y Real [1])"
OTHERS, LIKE = ("(declare-input Z Real [2])", "(declare-output W Real [1])"), "(equal-to f)"


def network(*declarations: str) -> str:
    return f"(declare-network f {' '.join(declarations)})"


VERSION_2 = """(vnnlib-version <2.0>)
(declare-network net (declare-input x float32 [1, 2,2] "in") (declare-output out Real []))
(assert (and (<= 0 x[0,0,0] 1) (<= 0 x[0,0,1] 1) (<= 0 x [0,1,0] 1) (<= 5 x[0,1,1] 6)))
(assert (>= out 2.5))
"""


def test_tensors_of_version_2(tmp_path: Path) -> None:
    asked = one(tmp_path, VERSION_2)
    assert asked.lower.tolist() == [[[0.0, 0.0], [0.0, 5.0]]] and rows(asked) == [([[-1.0]], [-2.5])]
    assert asked.note == "declared float32, decided for real numbers"


def test_class_questions_are_recognised(tmp_path: Path) -> None:
    declared = DECLARED + "(declare-const Y_2 Real)"
    asked = one(tmp_path, declared + BOX + "(assert (or (>= Y_0 Y_1) (<= Y_1 Y_2)))")
    assert asked.reference_class == 1


def test_the_packed_file_is_preferred_and_found(tmp_path: Path) -> None:
    text = DECLARED + BOX + "(assert (<= Y_0 {}))"
    path, packed = tmp_path / "both.vnnlib", tmp_path / "both.vnnlib.gz"
    packed.write_bytes(gzip.compress(text.format(1).encode()))
    assert rows(encoders.read_property(path)[0]) == [([[1.0, 0.0]], [1.0])]
    path.write_text(text.format(2))
    assert rows(encoders.read_property(path)[0]) == rows(encoders.read_property(packed)[0]) == [([[1.0, 0.0]], [1.0])]
    assert encoders.read_property(path)[0].name == "both"
    packed.unlink()
    assert rows(encoders.read_property(path)[0]) == [([[1.0, 0.0]], [2.0])]


REFUSED = [
    ("(assert (<= Z_0 1))", 6, "Z_0", "not a number, and not declared before here"),
    ("(assert (<= X_2 1))", 6, "X_2", "not declared before here"),
    ("\n(assert (<= nan 1))", 7, "nan", "not a number"),
    ("(declare-const X_00 Real)", 6, "X_00", "supported: inputs X_0, X_1"),
    ("(declare-const X_0 Real)", 6, "X_0", "declared twice"),
    ("(declare-const Y_2 Int)", 6, "Int", "Y_2 has a sort that is not supported"),
    ("(assert (<= (* Y_0 Y_1) 1))", 6, r"\*", "a product of two expressions with variables is not linear"),
    ("(assert (<= (/ Y_0 2) 1))", 6, "/", "unknown operator; supported: and, or"),
    ("(assert (not (<= Y_0 1)))", 6, "not", "turn the comparisons around"),
    ("(assert (=> (<= Y_0 1) (<= Y_1 1)))", 6, "=>", "write it with or"),
    ("(assert (or))", 6, "or", "takes one formula or more"),
    ("(assert (and (<= Y_0 1) Y_0))", 6, "and", "takes one formula or more, and nothing else"),
    ("(assert (<= Y_0))", 6, "<=", "two arguments or more, got 1"),
    ("(assert (!= Y_0 Y_1 1))", 6, "!=", "!= takes two arguments, got 3"),
    ("(assert (<= (<= Y_0 1) 2))", 6, "<=", "takes numbers, variables and sums"),
    ("(assert (<= (+) 2))", 6, r"\+", r"\+ without arguments"),
    ("(assert Y_0)", 6, "assert", r"takes one formula: \(assert FORMULA\)"),
    ("(assert (assert (<= Y_0 1)))", 6, "assert", "stands outside of other brackets"),
    ("(<= Y_0 1)", 6, "<=", "unknown command; supported: assert"),
    ("(check-sat)", 6, "check-sat", "unknown command"),
    ("(assert ((<= Y_0 1)))", 6, r"\(", "without an operator or command in front"),
    ("()", 6, r"\(", "without an operator or command in front"),
    ("(assert (<= Y_0 1)))", 6, r"\)", "stands outside of all brackets"),
    ("Y_0", 6, "Y_0", "stands outside of all brackets"),
    ("(assert\n(<= Y_0 1)", 6, r"\(", "the file ends before this bracket is closed"),
    ("(assert (<= Y_0 1)\n(assert (<= Y_1 1))", 7, "assert", "is the bracket of line 6 closed too late"),
    ("(assert (<= Y[0 ", 6, r"\[", "the file ends before this bracket is closed"),
    ("(assert (<= Y_0 ] 1))", 6, r"\]", "not expected here"),
    ('(assert (<= Y_0 " 1))', 6, '"', "not expected here"),
    ("(vnnlib-version <3.0>)", 6, "<3.0>", "supported: <1.0> and <2.0>"),
    ("(declare-network n)", 6, "n", "declare-network in a file with declare-const"),
    ("(assert (<= Y_0 1e1001))", 6, "1e1001", "an exponent outside -1000 to 1000"),
    (
        "(assert (<= (* 1.00000000000000001 Y_0) (* 1.00000000000000003 Y_1)))",
        6,
        "<=",
        "the coefficients of this row have too many digits",
    ),
    ("(assert (<= (* 1e-300 Y_0) (* 1e300 Y_1)))", 6, "<=", "numbers too far apart for float64"),
    ("(assert (<= Y_0 1e400))", 6, "<=", "numbers too far apart for float64"),
]


@pytest.mark.parametrize(("text", "line", "token", "message"), REFUSED)
def test_what_is_not_supported_is_refused_with_file_line_and_token(
    tmp_path: Path, text: str, line: int, token: str, message: str
) -> None:
    with pytest.raises(PropertyFileError, match=rf"asked\.vnnlib, line {line}, at '{token}': .*{message}"):
        read(tmp_path, DECLARED + BOX + text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (network(INPUT, "(declare-input Z Real [2])", OUTPUT), "a second input of f"),
        (network(INPUT), "the network declares no output"),
        (network(OUTPUT), "the network declares no input"),
        (network("(declare-input X int8 [2])", OUTPUT), "X has an element type"),
        (network("(declare-input X Real [2,0])", OUTPUT), "a dimension is 0"),
        (network("(declare-input X Real [2 2])", OUTPUT), "whole numbers between commas"),
        (network("(declare-input X Real [2,])", OUTPUT), "whole numbers between commas"),
        (network("(declare-input X Real [-2])", OUTPUT), "must be a whole number"),
        (network("(declare-input X Real)", OUTPUT), "stands in declare-network"),
        (network(f"(declare-input X Real [{'1,' * 16}1])", OUTPUT), "more than 16 dimensions"),
        (network("(declare-input X Real [1])", "(declare-output X Real [1])"), "declared twice"),
        (network("(declare-input X Real [1])", "(<= 1 2)", OUTPUT), "supported in a network"),
        (network(INPUT, '(declare-hidden H Real [1] "h")', OUTPUT), "hidden nodes are not supported"),
        (network("(equal-to g)", INPUT, OUTPUT), "'g': not a network that is declared before here"),
        (network("(isomorphic-to f)", INPUT, OUTPUT), "'f': not a network that is declared before here"),
        (network("(equal-to)", INPUT, OUTPUT), "stands in declare-network, after its name"),
        (VERSION_2 + network("(equal-to net)", INPUT, OUTPUT), r"shape \[2\] and 1 outputs, net \[1, 2, 2\] and 1"),
        (
            network(INPUT, OUTPUT) + network("(declare-input Z Real [2])", "(declare-output W Real [1])"),
            "'f': declared",
        ),
        (
            network(INPUT, OUTPUT) + network(INPUT, OUTPUT).replace("f", "g", 1),
            "every variable needs a name of its own",
        ),
        (network(INPUT, OUTPUT) + network(LIKE, LIKE, *OTHERS).replace("f", "g", 1), "a second statement of what g is"),
        (VERSION_2 + "(declare-const X_0 Real)", "declare-const in a file with declare-network"),
        (VERSION_2 + "(assert (<= x[0,2,0] 1))", "index 2 in a dimension of 2"),
        (VERSION_2 + "(assert (<= x[0,1] 1))", "2 indices for a tensor of shape"),
        (VERSION_2 + "(assert (<= x 1))", "0 indices for a tensor of shape"),
        ("(declare-input X Real [1])", "unknown command"),
    ],
)
def test_what_is_not_supported_of_version_2_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PropertyFileError, match=rf"line \d+, at .*{message}"):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (DECLARED + "(assert (<= X_0 1))(assert (<= 0 X_1 1))", "input X_0 has no lower bound"),
        (DECLARED + "(assert (<= 0 X_0 1))(assert (or (<= X_1 1) (<= 0 X_1 1)))", "input X_1 has no lower bound"),
        (DECLARED + "(assert (>= X_0 0))(assert (<= 0 X_1 1))", "input X_0 has no upper bound"),
        (VERSION_2.replace("5 x[0,1,1] 6", "5 x[0,1,1]"), r"input x\[0, 1, 1\] has no upper bound"),
        (DECLARED + "(assert (<= 0 X_0 1e309))(assert (<= 0 X_1 1))", "X_0 has a bound beyond the largest float64"),
        ("(declare-const Y_0 Real)", "no input is declared"),
        ("(declare-const X_0 Real)", "no output is declared"),
        ("(declare-const X_0 Real)(declare-const X_2 Real)(declare-const Y_0 Real)", "X_2 is declared and X_1 is not"),
        ("", "the file is empty"),
    ],
)
def test_a_file_that_is_no_box_is_refused_by_the_name_of_its_input(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PropertyFileError, match=message):
        read(tmp_path, text)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PropertyFileError, match="no such file"):
        encoders.read_property(tmp_path / "absent.vnnlib")
    with pytest.raises(PropertyFileError, match=r"unknown suffix '\.txt'; supported: \.vnnlib"):
        encoders.read_property(tmp_path / "absent.txt")
    (tmp_path / "folder.vnnlib").mkdir()
    for folder in (tmp_path / "folder.vnnlib", tmp_path):
        with pytest.raises(PropertyFileError, match="is a directory"):
            encoders.read_property(folder)
    (tmp_path / "torn.vnnlib.gz").write_bytes(gzip.compress(b"(assert")[:-5])
    with pytest.raises(PropertyFileError, match="the compressed file is damaged"):
        encoders.read_property(tmp_path / "torn.vnnlib.gz")
    (tmp_path / "other.vnnlib").write_bytes(b"\xff\xfe(")
    with pytest.raises(PropertyFileError, match="not a text in UTF-8: byte 0"):
        encoders.read_property(tmp_path / "other.vnnlib")
