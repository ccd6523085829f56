"""The adjoint of a linear op: c . (op(x) - op(0)) is the sum of its shares times the inputs, whatever the constants."""

import pytest
import torch

from encoders.ops import Relu
from tests.conformance.op_cases import ROWS, Case, random

# Sums of at most a few dozen products of sizes 1 to 10 in float64.
ROUNDING = 1e-11


@pytest.mark.parametrize("case", ROWS)
def test_adjoints_of_linear_ops_are_transposes(case: Case):
    op = case.op.cast(torch.float64, torch.device("cpu"))
    if not op.linear:
        return
    inputs = [random(2, *shape, seed=k).to(torch.float64) for k, shape in enumerate(case.shapes)]
    zeros = [torch.zeros_like(x) for x in inputs]
    change = op.evaluate(*inputs) - op.evaluate(*zeros)
    coefficients = random(*change.shape, seed=9).to(torch.float64)
    shares = op.transposed(coefficients, *case.shapes)
    assert [share.shape for share in shares] == [x.shape for x in inputs]
    found = sum((share * x).reshape(2, -1).sum(dim=1) for share, x in zip(shares, inputs, strict=True))
    expected = (coefficients * change).reshape(2, -1).sum(dim=1)
    size = 1.0 + float((coefficients * change).abs().sum())
    assert ((found - expected).abs() <= ROUNDING * size).all()


def test_other_ops_have_none():
    with pytest.raises(TypeError, match="relu"):
        Relu().transposed(torch.zeros(1, 2), (2,))
