"""MWD units with the linear link: l_inf-distance neurons."""

import pytest
import torch

from encoders import Box
from encoders.layers import Mwd as MwdLayer
from encoders.layers.mwd import WEIGHT_RANGE
from encoders.layers.mwd_linear import distance, linear_mwd
from encoders.ops import Mwd

F64 = torch.float64


def problem(seed: int, rows: int = 9, inputs: int = 5, units: int = 7):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(rows, inputs, generator=generator, dtype=F64)
    u, w = (torch.rand(units, inputs, generator=generator, dtype=F64) for _ in range(2))
    negated = torch.rand(units, generator=generator) < 0.5
    return x, 3 * u, w, negated, torch.randn(units, generator=generator, dtype=F64)


def test_a_negated_unit_of_weight_one_is_an_l_inf_distance_neuron():
    x, u, w, negated, bias = problem(0)
    op = Mwd(torch.ones_like(u), w, torch.ones_like(negated), bias, "linear")
    neuron = torch.linalg.vector_norm(x[:, None] - w, ord=torch.inf, dim=-1) + bias
    assert torch.equal(op.evaluate(x), neuron)
    plain = Mwd(torch.ones_like(u), w, torch.zeros_like(negated), None, "linear")
    assert torch.allclose(plain.evaluate(x), bias - neuron, atol=1e-15)


@pytest.mark.parametrize("seed", range(5))
def test_intervals_contain_sampled_outputs_and_their_ends_are_reached(seed):
    x, u, w, negated, bias = problem(seed)
    op = Mwd(u, w, negated, bias, "linear")
    box = Box(x - 0.1, x + 0.2)
    outer, scores = op.interval(box), op.score_box(box)
    assert torch.equal(outer.lower, scores.lower) and torch.equal(outer.upper, scores.upper)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(200):
        point = box.lower + torch.rand(x.shape, generator=generator, dtype=F64) * (box.upper - box.lower)
        point = torch.minimum(torch.maximum(point, box.lower), box.upper)
        assert bool(outer.contains(op.evaluate(point)).all())
        assert torch.equal(op.scores(point), op.evaluate(point))
    # A distance is greatest at the farther ends and least at the nearest points, unit by unit.
    for unit in range(len(u)):
        farther = torch.where(box.upper - w[unit] > w[unit] - box.lower, box.upper, box.lower)
        nearest = torch.minimum(torch.maximum(w[unit].expand_as(x), box.lower), box.upper)
        ends = torch.stack([op.evaluate(p)[:, unit] for p in (farther, nearest)])
        assert torch.allclose(ends.amin(0), outer.lower[:, unit], atol=1e-13)
        assert torch.allclose(ends.amax(0), outer.upper[:, unit], atol=1e-13)


def test_true_gradients_agree_with_finite_differences_and_vanish_at_the_attractor():
    x, u, w, negated, bias = problem(1)
    leaves = [t.clone().requires_grad_() for t in (x, u, w)]
    assert torch.autograd.gradcheck(lambda *a: linear_mwd(*a, negated, bias), leaves, eps=1e-6, atol=1e-6)
    centre = w[:1].clone().requires_grad_()
    linear_mwd(centre, u[:1], w[:1], negated[:1], bias[:1]).sum().backward()
    assert centre.grad is not None and not bool(centre.grad.any())


def test_the_pseudogradient_shares_feedback_and_the_blend_is_linear():
    x, u, w, _, _ = problem(2)
    feedback = torch.rand(9, 7, generator=torch.Generator().manual_seed(3), dtype=F64)

    def gradients(share):
        leaves = [t.clone().requires_grad_() for t in (x, u, w)]
        return torch.autograd.grad(distance(*leaves, share), leaves, feedback)

    t = u * (x[:, None] - w)
    z = t.abs().amax(-1, keepdim=True)
    towards = feedback[:, :, None] * torch.exp(t * t - z * z) * t / z
    torch.testing.assert_close(gradients(1.0)[0], (towards * u).sum(1), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(gradients(1.0)[2], -(towards * u).sum(0), rtol=1e-3, atol=1e-6)
    for blend, pseudo, true in zip(gradients(0.3), gradients(1.0), gradients(0.0), strict=True):
        torch.testing.assert_close(blend, 0.3 * pseudo + 0.7 * true)
    with pytest.raises(ValueError, match="pseudo_share must lie in"):
        linear_mwd(x, u, w, torch.zeros(7, dtype=torch.bool), None, 1.5)


def test_second_derivatives_are_refused():
    x, u, w, _, _ = problem(4)
    leaf = x.clone().requires_grad_()
    with pytest.raises(RuntimeError, match="create_graph"):
        torch.autograd.grad(distance(leaf, u, w, 0.0).sum(), leaf, create_graph=True)


def test_the_layer_is_the_op_trains_its_bias_and_leaves_attractors_free():
    layer = MwdLayer(5, 8, "mixed", generator=torch.Generator().manual_seed(5), link="linear").double()
    with torch.no_grad():
        layer.bias.copy_(torch.randn(8, generator=torch.Generator().manual_seed(6)))
    x = problem(5)[0]
    op = Mwd(layer.u.detach(), layer.w.detach(), layer.negated, layer.bias.detach(), "linear")
    for share in (0.0, 0.5, 1.0):
        layer.pseudo_share = share
        assert torch.equal(layer(x), op.evaluate(x))
    layer(x).sum().backward()
    assert torch.equal(layer.bias.grad, torch.full((8,), 9.0, dtype=F64))
    with torch.no_grad():
        layer.u.add_(10)
        layer.w.add_(10)
    layer.clamp_parameters()
    assert float(layer.u.detach().max()) == WEIGHT_RANGE[1] and float(layer.w.detach().min()) >= 10
    with pytest.raises(TypeError, match="Gaussian link"):
        layer.pseudo_interval(x, x)


def test_the_gaussian_layer_stores_no_bias_and_unknown_links_are_refused():
    assert set(MwdLayer(2, 3).state_dict()) == {"u", "w", "negated"}
    with pytest.raises(ValueError, match="unknown link 'cubic'; supported: gaussian, linear"):
        MwdLayer(2, 3, link="cubic")
