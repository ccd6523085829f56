"""The convolutional MWD layer is the dense layer with tied weights: values, gradients, intervals."""

import pytest
import torch
from torch import Tensor

from encoders import Box
from encoders.layers import Mwd as MwdLayer
from encoders.layers import MwdConv2d as MwdConv2dLayer
from encoders.layers.mwd import ATTRACTOR_RANGE, WEIGHT_RANGE
from encoders.layers.mwd_unit import mwd
from encoders.ops import Mwd, MwdConv2d

F64 = torch.float64
# (kernel, stride, padding, image): no padding, one side, all sides, padding that meets the other edge.
GEOMETRIES = [
    ((3, 2), (1, 1), (0, 0), (2, 5, 4)),
    ((3, 3), (2, 1), (1, 2), (1, 6, 5)),
    ((5, 4), (2, 3), (4, 3), (2, 3, 7)),
    ((4, 4), (1, 1), (3, 3), (1, 2, 2)),
]


def make(geometry, seed: int = 0) -> tuple[MwdConv2dLayer, Tensor]:
    kernel, stride, padding, shape = geometry
    generator = torch.Generator().manual_seed(seed)
    layer = MwdConv2dLayer(shape[0], 6, kernel, stride, padding, "mixed", generator=generator).double()
    return layer, torch.rand(5, *shape, generator=generator, dtype=F64)


def op_of(layer: MwdConv2dLayer) -> MwdConv2d:
    u, w = layer.u.detach(), layer.w.detach()
    return MwdConv2d(u, w, layer.negated, layer.stride, (*layer.padding, *layer.padding))


def tied(layer: MwdConv2dLayer, shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Return u, w `(outputs, inputs)` and the mask of the dense layer, built place by place; u = 0 elsewhere."""
    (top, left), (down, right) = layer.padding, layer.stride
    rows = (shape[1] + 2 * top - layer.kernel[0]) // down + 1
    columns = (shape[2] + 2 * left - layer.kernel[1]) // right + 1
    u = torch.zeros(len(layer.u), rows, columns, *shape, dtype=F64)
    w = torch.zeros_like(u)
    for row in range(rows):
        for column in range(columns):
            for a in range(layer.kernel[0]):
                for b in range(layer.kernel[1]):
                    i, j = row * down - top + a, column * right - left + b
                    if 0 <= i < shape[1] and 0 <= j < shape[2]:
                        u[:, row, column, :, i, j] = layer.u[:, :, a, b]
                        w[:, row, column, :, i, j] = layer.w[:, :, a, b]
    count = rows * columns
    return u.reshape(-1, u[0, 0, 0].numel()), w.reshape(-1, u[0, 0, 0].numel()), layer.negated.repeat_interleave(count)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_values_and_intervals_are_those_of_the_tied_dense_layer(geometry):
    layer, x = make(geometry)
    u, w, negated = tied(layer, geometry[3])
    dense, op = Mwd(u.detach(), w.detach(), negated), op_of(layer)
    own = op.distance_layer(geometry[3])
    assert torch.equal(own.weight, dense.weight) and torch.equal(own.attractor, dense.attractor)
    assert torch.equal(own.negated, negated)
    with torch.no_grad():
        value = layer(x)
    assert tuple(value.shape[1:]) == op.output_shape(geometry[3])
    assert torch.equal(value, op.evaluate(x))
    assert torch.equal(value.flatten(1), dense.evaluate(x.flatten(1)))
    box = Box(x - 0.1, x + 0.2)
    conv, full = op.interval(box), dense.interval(Box(box.lower.flatten(1), box.upper.flatten(1)))
    assert torch.equal(conv.lower.flatten(1), full.lower) and torch.equal(conv.upper.flatten(1), full.upper)
    lower, upper = layer.pseudo_interval(box.lower, box.upper)
    assert torch.allclose(lower.flatten(1), full.lower, atol=1e-12)
    assert torch.allclose(upper.flatten(1), full.upper, atol=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_gradients_are_those_of_the_tied_dense_layer(geometry, share):
    layer, x = make(geometry, seed=1)
    layer.pseudo_share = share
    leaves = [x.clone().requires_grad_(), layer.u, layer.w]
    value = layer(leaves[0])
    feedback = torch.randn(value.shape, generator=torch.Generator().manual_seed(2), dtype=F64)
    ours = torch.autograd.grad(value, leaves, feedback)
    # The indexed copies in `tied` lead autograd back to u and w; only places on the image must share feedback.
    u, w, negated = tied(layer, geometry[3])
    flat = leaves[0].flatten(1)
    parts = []
    for unit in range(len(u)):
        on = u[unit] != 0
        parts.append(mwd(flat[:, on], u[unit : unit + 1, on], w[unit : unit + 1, on], negated[unit : unit + 1], share))
    expected = torch.autograd.grad(torch.cat(parts, dim=1), leaves, feedback.flatten(1))
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max()))


def test_the_op_passes_pseudogradients_to_attacks():
    layer, x = make(GEOMETRIES[1], seed=3)
    leaf = x.clone().requires_grad_()
    (ours,) = torch.autograd.grad(layer(leaf).sum(), leaf)
    (op,) = torch.autograd.grad(op_of(layer).evaluate_pseudo(leaf).sum(), leaf)
    assert torch.equal(ours, op)


def test_a_padded_place_is_no_zero_pixel():
    # Attractors at 1: a zero pixel would be at distance 1 from them.
    op = MwdConv2d(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3), torch.tensor([False]), (1, 1), (1, 1, 1, 1))
    assert torch.equal(op.evaluate(torch.ones(1, 1, 3, 3)), torch.ones(1, 1, 3, 3))


def test_parameters_are_clamped_and_settings_without_a_meaning_refused():
    layer, _ = make(GEOMETRIES[0])
    with torch.no_grad():
        layer.u.add_(10)
        layer.w.sub_(10)
    layer.clamp_parameters()
    assert float(layer.u.detach().max()) == WEIGHT_RANGE[1] and float(layer.w.detach().min()) == ATTRACTOR_RANGE[0]
    for settings in (
        {"kernel": 0},
        {"kernel": 3, "stride": 0},
        {"kernel": 3, "padding": 3},
        {"kernel": 3, "padding": -1},
    ):
        with pytest.raises(ValueError):
            MwdConv2dLayer(1, 2, **settings)
    with pytest.raises(ValueError, match="unknown unit types"):
        MwdConv2dLayer(1, 2, 3, types="neg")


def test_a_window_of_the_whole_image_is_the_dense_layer():
    dense = MwdLayer(12, 4, "mixed", generator=torch.Generator().manual_seed(4)).double()
    conv = MwdConv2dLayer(3, 4, (2, 2)).double()
    conv.load_state_dict({"u": dense.u.reshape(4, 3, 2, 2), "w": dense.w.reshape(4, 3, 2, 2), "negated": dense.negated})
    x = torch.rand(7, 3, 2, 2, generator=torch.Generator().manual_seed(5), dtype=F64)
    assert torch.equal(conv(x).flatten(1), dense(x.flatten(1)))
