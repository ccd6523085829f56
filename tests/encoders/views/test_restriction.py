import math

import pytest
import torch
from torch.nn import functional

from encoders import Network, Node
from encoders.formulations.restrict import freeze
from encoders.network import INPUT
from encoders.ops import OPS, Abs, Add, Affine, Conv2d, LeakyRelu, MaxPool2d, Relu, Reshape, Sigmoid, UnsupportedView
from encoders.views.restriction import Selection
from tests.conformance.op_cases import CASES
from tests.networks.chains import chain, random_relu_network

F64 = torch.float64
# Sums of a few dozen terms of size 1 to 10 in float64.
ROUNDING = 1e-10
RESTRICTABLE = [name for name, op in OPS.items() if "restrict" in op.views()]


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def conv_network(pool_first: bool) -> Network:
    middle = [MaxPool2d((2, 2), (2, 2)), Relu()] if pool_first else [Relu(), MaxPool2d((2, 2), (2, 2))]
    convolution = Conv2d(random(3, 1, 3, 3, seed=1), random(3, seed=2))
    return chain(
        (1, 8, 8), convolution, *middle, Reshape((27,)), Affine(random(5, 27, seed=3)), Relu(),
        Affine(random(3, 5, seed=4), random(3, seed=5)), dtype=F64,
    )  # fmt: skip


@pytest.mark.parametrize("name", RESTRICTABLE)
def test_a_piece_equals_its_op_at_the_point_and_wherever_its_conditions_hold(name):
    for case in CASES[name]:
        op = case.op.cast(F64, torch.device("cpu"))
        x = [random(1, *shape, seed=7) for shape in case.shapes]
        restriction = op.restrict(*x)
        assert torch.allclose(restriction.piece.evaluate(*x), op.evaluate(*x), rtol=0, atol=0)
        near = [value + 0.3 * random(200, *value.shape[1:], seed=8) for value in x]
        if restriction.conditions is None:
            holds = torch.ones(200, dtype=torch.bool)
        else:
            holds = (restriction.conditions.evaluate(*near) >= 0).flatten(1).all(dim=1)
            assert bool((restriction.conditions.evaluate(*x) >= 0).all())
        inside = [value[holds] for value in near]
        assert torch.allclose(restriction.piece.evaluate(*inside), op.evaluate(*inside), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("name", RESTRICTABLE)
def test_the_matrix_of_a_piece_is_its_linear_part(name):
    for case in CASES[name]:
        op = case.op.cast(F64, torch.device("cpu"))
        restriction = op.restrict(*(random(1, *shape, seed=9) for shape in case.shapes))
        for part in (restriction.piece, restriction.conditions):
            if part is None:
                continue
            x = [random(4, *shape, seed=10) for shape in case.shapes]
            zero = [torch.zeros_like(value) for value in x]
            flat = torch.cat([value.reshape(4, -1) for value in x], dim=1).numpy()
            expected = (part.evaluate(*x) - part.evaluate(*zero)).reshape(4, -1).numpy()
            assert abs((part.matrix(*case.shapes) @ flat.T).T - expected).max() <= 1e-8 * max(1, abs(expected).max())


def test_ops_without_pieces_say_so_by_name():
    for name in ("sigmoid", "tanh", "mwd"):
        with pytest.raises(UnsupportedView, match="restrict"):
            CASES[name][0].op.restrict(random(1, *CASES[name][0].shapes[0], seed=1))
    network = chain((2,), Affine(random(2, 2, seed=1)), Sigmoid(), Affine(random(2, 2, seed=2)), Sigmoid())
    with pytest.raises(ValueError, match=r"1-sigmoid.*3-sigmoid"):
        freeze(network, random(1, 2, seed=3))


def test_the_printed_relu_of_bastani_is_another_function():
    """Section 4 prints x <= 0 -> y = x and x >= 0 -> y = 0, which is min(x, 0)."""
    x = torch.tensor([[-2.0, 3.0]], dtype=F64)
    restriction = Relu().restrict(x)
    printed = Selection((2,), 1.0 - restriction.piece.plus)
    assert restriction.piece.evaluate(x).tolist() == [[0.0, 3.0]]
    assert printed.evaluate(x).tolist() == [[-2.0, 0.0]]


def test_a_tie_goes_with_the_direction_and_without_one_a_relu_is_inactive():
    zero, up, down = (torch.tensor([[value]], dtype=F64) for value in (0.0, 1.0, -1.0))
    assert Relu().restrict(zero).piece.evaluate(up).item() == 0.0
    assert Relu().restrict(zero, direction=up).piece.evaluate(up).item() == 1.0
    assert Relu().restrict(zero, direction=down).piece.evaluate(up).item() == 0.0
    assert LeakyRelu(0.5).restrict(zero, direction=down).piece.evaluate(up).item() == 0.5
    assert Abs().restrict(zero, direction=down).piece.evaluate(down).item() == 1.0
    # The tolerance decides what a tie is.
    small = torch.tensor([[1e-13]], dtype=F64)
    assert Relu().restrict(small, direction=down, tolerance=1e-12).piece.evaluate(up).item() == 0.0
    assert Relu().restrict(small, direction=down).piece.evaluate(up).item() == 1.0


def test_equal_pool_cells_go_with_the_direction_and_without_one_the_first_wins():
    pool, x = MaxPool2d((2, 2), (2, 2)), torch.ones(1, 1, 2, 2, dtype=F64)
    cells = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]], dtype=F64)
    assert pool.restrict(x).piece.evaluate(cells).item() == 1.0
    direction = torch.tensor([[[[0.0, 5.0], [1.0, 0.0]]]], dtype=F64)
    assert pool.restrict(x, direction=direction).piece.evaluate(cells).item() == 2.0


@pytest.mark.parametrize("pool_first", [True, False])
def test_a_frozen_network_equals_the_network_inside_the_region_and_differs_outside(pool_first):
    network = conv_network(pool_first)
    for seed in range(20):
        x = random(1, 1, 8, 8, seed=100 + seed)
        for fuse in (True, False):
            frozen = freeze(network, x, fuse=fuse)
            near = x + 0.02 * random(300, 1, 8, 8, seed=seed) * torch.rand(300, 1, 1, 1, dtype=F64)
            holds = frozen.holds(near)
            assert bool(frozen.holds(x).all())
            assert torch.allclose(frozen.evaluate(near[holds]), network.evaluate(near[holds]), rtol=0, atol=ROUNDING)
            far = x + 5 * random(50, 1, 8, 8, seed=seed + 1)
            assert not bool(frozen.holds(far).any())
            assert not torch.allclose(frozen.evaluate(far), network.evaluate(far), rtol=0, atol=1e-3)


def test_fused_regions_hold_all_that_unfused_ones_do_and_more():
    network = conv_network(pool_first=True)
    more = 0
    for seed in range(20):
        x = random(1, 1, 8, 8, seed=seed)
        near = x + 0.05 * random(300, 1, 8, 8, seed=50 + seed)
        fused, plain = freeze(network, x).holds(near), freeze(network, x, fuse=False).holds(near)
        assert not bool((plain & ~fused).any())
        more += int((fused & ~plain).sum())
    assert more > 0


def test_a_batch_is_frozen_point_by_point():
    network = conv_network(pool_first=False)
    x, near = random(5, 1, 8, 8, seed=1), random(5, 1, 8, 8, seed=2)
    outputs, conditions = freeze(network, x).forward(near)
    for i in range(5):
        one = freeze(network, x[i : i + 1]).forward(near[i : i + 1])
        assert torch.allclose(outputs[i], one[0][0], rtol=0, atol=ROUNDING)
        assert torch.allclose(conditions[i], one[1][0], rtol=0, atol=ROUNDING)


def test_the_directional_pattern_gives_the_directional_derivative_at_a_tie():
    """Every pre-activation is 0 at the origin: without a direction the frozen network is constant."""
    network = chain((3,), Affine(random(6, 3, seed=1)), Relu(), Affine(random(2, 6, seed=2)), dtype=F64)
    origin = torch.zeros(1, 3, dtype=F64)
    for seed in range(20):
        direction = random(1, 3, seed=10 + seed)
        step = 1e-3 * direction
        assert torch.allclose(freeze(network, origin, direction).evaluate(step), network.evaluate(step), atol=1e-15)
        assert not torch.allclose(freeze(network, origin).evaluate(step), network.evaluate(step), atol=1e-6)


def test_a_residual_network_keeps_its_wiring():
    nodes = (
        Node("a", Affine(random(4, 4, seed=1), random(4, seed=2)), (INPUT,)),
        Node("r", Relu(), ("a",)),
        Node("s", Add(), ("r", INPUT)),
        Node("o", Abs(), ("s",)),
    )
    network = Network(nodes, (4,), F64)
    x = random(1, 4, seed=3)
    frozen = freeze(network, x)
    near = x + 0.2 * random(200, 4, seed=4)
    holds = frozen.holds(near)
    assert 0 < int(holds.sum()) < 200
    assert torch.allclose(frozen.evaluate(near[holds]), network.evaluate(near[holds]), atol=ROUNDING)


def test_the_frozen_network_is_differentiable_where_the_network_is():
    network = random_relu_network(3).cast(F64)
    x = torch.rand(1, 2, dtype=F64, generator=torch.Generator().manual_seed(1))
    point = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(network.evaluate(point)[0, 0], point)
    (found,) = torch.autograd.grad(freeze(network, x).evaluate(point)[0, 0], point)
    assert torch.allclose(found, expected, atol=1e-12)
    assert math.isfinite(float(functional.relu(found).sum()))
