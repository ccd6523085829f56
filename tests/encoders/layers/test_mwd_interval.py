"""The interval of an MWD layer for training: its values are the op's, its pseudogradients the formula's."""

import pytest
import torch

from encoders import Box
from encoders.layers import mwd_interval
from encoders.layers.mwd_interval import IntervalSquares, pseudo_interval
from encoders.ops import Mwd

# The compiled kernels approximate exp by eight squarings of 1 + a/256.
SHARE_TOLERANCE = 2e-3


def case(seed: int, dtype: torch.dtype = torch.float64, batch: int = 7, inputs: int = 13, units: int = 5):
    generator = torch.Generator().manual_seed(seed)
    lower = 0.7 * torch.rand(batch, inputs, generator=generator, dtype=dtype)
    upper = lower + 0.3 * torch.rand(batch, inputs, generator=generator, dtype=dtype)
    u = 2 * torch.rand(units, inputs, generator=generator, dtype=dtype)
    u[0, 0] = 0.0
    return lower, upper, u, torch.rand(units, inputs, generator=generator, dtype=dtype)


def gradients(arguments, feedback, sharpness):
    leaves = [t.clone().requires_grad_() for t in arguments]
    outputs = IntervalSquares.apply(*leaves, sharpness)
    return torch.autograd.grad(outputs, leaves, feedback)


@pytest.mark.parametrize("seed", range(3))
def test_values_are_those_of_the_interval_view(seed):
    lower, upper, u, w = case(seed)
    negated = torch.tensor([True, False, True, False, False])
    ends = pseudo_interval(lower, upper, u, w, negated)
    box = Mwd(u, w, negated).interval(Box(lower, upper))
    assert torch.allclose(ends[0], box.lower, atol=1e-12)
    assert torch.allclose(ends[1], box.upper, atol=1e-12)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sharpness", [1.0, 4.0])
def test_pseudogradients_follow_the_formula(monkeypatch, compiled, dtype, sharpness):
    if not compiled:
        monkeypatch.setattr(mwd_interval, "_compiled", lambda x: False)
    arguments = case(1, dtype)
    feedback = tuple(torch.rand(7, 5, generator=torch.Generator().manual_seed(2), dtype=dtype) for _ in range(2))
    # The oracle: autograd through the shares, taken as constants, of u^2 d_i^2.
    lower, upper, u, w = (t.clone().requires_grad_() for t in arguments)
    above, below = lower[:, None] - w, upper[:, None] - w
    near = (u * torch.maximum(above, -below).clamp(min=0)) ** 2
    far = (u * torch.maximum(below, -above)) ** 2
    total = sum(
        (torch.exp(sharpness * (square - square.amax(-1, keepdim=True))).detach() * square * back[:, :, None]).sum()
        for square, back in ((near, feedback[0]), (far, feedback[1]))
    )
    expected = torch.autograd.grad(total, (lower, upper, u, w))
    tolerance = SHARE_TOLERANCE if compiled else 1e-5
    for value, wanted in zip(gradients(arguments, feedback, sharpness), expected, strict=True):
        assert float((value - wanted).abs().max()) <= tolerance * float(wanted.abs().max())


def test_one_input_a_unit_gives_the_true_gradient(monkeypatch):
    monkeypatch.setattr(mwd_interval, "_compiled", lambda x: False)
    lower, upper, u, w = case(3, batch=4, inputs=1, units=3)
    u += 0.1
    leaves = [t.clone().requires_grad_() for t in (lower, upper, u, w)]
    assert torch.autograd.gradcheck(IntervalSquares.apply, leaves, eps=1e-7, atol=1e-5)
