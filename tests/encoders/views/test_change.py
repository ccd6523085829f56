"""What an op's value changes by, as a sum of ops: equal to the difference of both values, in rational numbers."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from encoders.ops import Op
from tests.conformance.op_cases import CASES, Case, random
from tests.oracles.op_values import IRRATIONAL, exact_numbers, exact_value, number_for

KNOWN = ("affine", "conv2d", "add", "sub", "reshape", "transpose", "concat", "slice", "relu")


def moved(op: Op, share: float) -> Op:
    """Return the op with other weights; whole numbers stay."""
    weights = {name: value for name, value in op.parameters().items() if value.is_floating_point()}
    changed = {name: value + share * (1.0 + value.abs()) for name, value in weights.items()}
    return replace(op, **changed) if changed else op


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=f"{kind}-{i}")
        for kind, cases in CASES.items()
        if kind not in IRRATIONAL
        for i, case in enumerate(cases)
    ],
)
@pytest.mark.parametrize("share", [0.0, 1e-3, 2.0**-70])
def test_a_change_is_the_difference_of_both_values(case: Case, share: float) -> None:
    other, number = moved(case.op, share), number_for(case.op)
    change = case.op.change(other)
    if change is None:
        assert case.op.kind not in KNOWN
        return
    x = tuple(exact_numbers(random(*shape, seed=i), number) for i, shape in enumerate(case.shapes))
    d = tuple(exact_numbers(random(*shape, seed=10 + i), number) for i, shape in enumerate(case.shapes))
    together = tuple(a + b for a, b in zip(x, d, strict=True))
    wanted = exact_value(other, together, number) - exact_value(case.op, x, number)
    if change.of_both is not None:
        found: Any = exact_value(change.of_both, (*d, *x), number)
    else:
        assert change.of_change is not None
        found = exact_value(change.of_change, d, number)
        for op in change.of_value:
            found = found + exact_value(op, x, number)
    assert np.all(found == wanted)


def test_weights_whose_difference_no_float_holds_are_differed_exactly() -> None:
    op = CASES["affine"][0].op
    change = op.change(replace(op, weight=torch.full_like(op.parameters()["weight"], 1e-30)))
    assert change is not None and len(change.of_value) == 2


def test_ops_of_other_shape_or_setting_have_no_change() -> None:
    affine, shape = CASES["affine"][0].op, CASES["slice"][0].op
    assert affine.change(replace(affine, weight=affine.parameters()["weight"][:1], bias=None)) is None
    for other in (case.op for case in CASES["slice"] if not shape.is_same(case.op)):
        assert shape.change(other) is None
