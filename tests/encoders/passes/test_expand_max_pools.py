"""Max pools written as relus: the same value, boxes that contain it, and exact answers by the search over signs."""

import random

import pytest
import torch

from encoders import Network, Node
from encoders.box import Box
from encoders.formulations.relax import encode_exactly, relax
from encoders.linear_model import Direction
from encoders.network import INPUT
from encoders.ops import Abs, Add, AddConstant, Affine, LeakyRelu, MaxPool2d, Op, Relu, Reshape
from encoders.passes import expand_max_pools
from tests.networks.chains import chain

F64 = torch.float64
# One rounding of each difference and each sum of a tree over at most 9 cells of size 1.
ROUNDING = 1e-14


def random_pool(seed: int) -> tuple[MaxPool2d, tuple[int, int, int]]:
    """Return a max pool with kernel, stride, padding and dilation, and a shape that it takes."""
    choose = random.Random(seed)
    while True:
        kernel, stride, dilation = ((choose.randint(1, 3), choose.randint(1, 3)) for _ in range(3))
        padding = tuple(choose.randint(0, kernel[i % 2] - 1) for i in range(4))
        shape = (choose.randint(1, 2), choose.randint(1, 7), choose.randint(1, 7))
        op = MaxPool2d(kernel, stride, padding, dilation)  # type: ignore[arg-type]
        try:
            if min(op.output_shape(shape)) >= 1:
                return op, shape
        except ValueError:
            continue


@pytest.mark.parametrize("seed", range(200))
def test_the_value_is_that_of_the_pool(seed: int) -> None:
    op, shape = random_pool(seed)
    network = chain(shape, op, dtype=F64)
    expanded = expand_max_pools(network)
    assert not any(isinstance(node.op, MaxPool2d) for node in expanded.nodes)
    assert expanded.output.name == network.output.name and expanded.output_shape == network.output_shape
    generator = torch.Generator().manual_seed(seed)
    # Of whole numbers nothing is rounded: the two agree in real arithmetic.
    whole = torch.randint(-50, 50, (20, *shape), generator=generator).to(F64)
    assert torch.equal(expanded.evaluate(whole), network.evaluate(whole))
    x = torch.rand(20, *shape, generator=generator, dtype=F64)
    assert float((expanded.evaluate(x) - network.evaluate(x)).abs().max()) <= ROUNDING


def random_network(seed: int) -> Network:
    op, shape = random_pool(seed)
    size = 1
    for n in op.output_shape(shape):
        size *= n
    weight = torch.randn(3, size, generator=torch.Generator().manual_seed(seed), dtype=F64)
    return chain(shape, op, Relu(), Reshape((size,)), Affine(weight), dtype=F64)


@pytest.mark.parametrize("seed", range(40))
def test_boxes_and_rows_of_the_expansion_contain_the_value(seed: int) -> None:
    network = random_network(seed)
    expanded = expand_max_pools(network)
    generator = torch.Generator().manual_seed(seed)
    centre, radius = (torch.rand(1, *network.input_shape, generator=generator, dtype=F64) for _ in range(2))
    box = Box(centre - radius, centre + radius)
    names = [node.name for node in expanded.nodes]
    boxes = {INPUT: box, **dict(zip(names, expanded.interval(box, names), strict=True))}
    relaxed, exact = relax(expanded, boxes), encode_exactly(expanded, boxes)
    assert exact.direction is Direction.EXACT
    for share in torch.rand(10, *network.input_shape, generator=generator, dtype=F64):
        x = box.lower + share * (box.upper - box.lower)
        values = dict(zip(names, expanded.fold(x, lambda op, v: op.evaluate(*v), names), strict=True)) | {INPUT: x}
        point = torch.zeros(len(relaxed.col_lower), dtype=F64)
        for name, places in relaxed.columns.items():
            point[torch.from_numpy(places)] = values[name].flatten()
        assert relaxed.model(torch.ones(3, dtype=F64).numpy()).violation(point.numpy()) <= 1e-9
        assert bool((boxes[network.output.name].lower <= network.evaluate(x) + ROUNDING).all())
        assert bool((boxes[network.output.name].upper >= network.evaluate(x) - ROUNDING).all())


def test_overlapping_windows_share_their_rows() -> None:
    """3 x 3 windows: 2 relus for each row of three and 2 for each window, where 9 cells at once would take 8."""
    expanded = expand_max_pools(chain((1, 6, 6), MaxPool2d((3, 3), (1, 1)), dtype=F64))
    units = sum(torch.Size(expanded.shapes[node.name]).numel() for node in expanded.nodes if isinstance(node.op, Relu))
    assert units == 2 * 4 * 6 + 2 * 4 * 4


def test_a_network_without_max_pools_is_returned_as_it_is_and_names_stay_apart() -> None:
    plain = chain((2,), Relu(), dtype=F64)
    assert expand_max_pools(plain) is plain
    double = chain(
        (1, 4, 4), MaxPool2d((2, 2), (2, 2)), MaxPool2d((1, 1), (1, 1)), MaxPool2d((2, 2), (1, 1)), dtype=F64
    )
    x = torch.rand(3, 1, 4, 4, dtype=F64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(expand_max_pools(double).evaluate(x), double.evaluate(x), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("hinge", [Relu(), LeakyRelu(0.1), Abs()])
def test_pools_of_rising_hinges_are_hinges_of_pools(hinge: Op) -> None:
    """One hinge a window in place of one a cell, though not of |x|, which falls; another reader keeps the hinge."""
    pool = MaxPool2d((2, 2), (2, 2))
    network = chain((1, 4, 4), AddConstant(torch.ones(1, dtype=F64)), hinge, pool, dtype=F64)
    expanded = expand_max_pools(network)
    cells = 2 * 4 + 4 + (16 if isinstance(hinge, Abs) else 4)
    hinges = [node for node in expanded.nodes if node.op.hinge_slope is not None]
    assert sum(torch.Size(expanded.shapes[node.name]).numel() for node in hinges) == cells
    whole = torch.randint(-50, 50, (20, 1, 4, 4), generator=torch.Generator().manual_seed(1)).to(F64)
    torch.testing.assert_close(expanded.evaluate(whole), network.evaluate(whole), rtol=0, atol=ROUNDING)
    read = Node("sum", Add(), (network.output.name, network.output.name))
    last = Node("joined", Reshape((16,)), (network.nodes[1].name,))
    both = Network((*network.nodes, read, last), (1, 4, 4), F64)
    assert torch.equal(expand_max_pools(both).evaluate(whole), both.evaluate(whole))
