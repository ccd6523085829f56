"""Randomised networks: what a draw is, how draws are distributed, and that everything else is about the mean."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from encoders import Network, Node, read_network, write_network
from encoders.box import Box
from encoders.network import INPUT
from encoders.ops import (
    OPS,
    Affine,
    Conv2d,
    DropConnect,
    DropConnect2d,
    Gather,
    RandomAffine,
    RandomConv2d,
    Relu,
    Reshape,
    ResizeAndPad,
)
from encoders.ops.placement_box import placed
from tests.networks.chains import chain
from tests.networks.op_examples import EXAMPLES

F64 = torch.float64
DRAWS = 20_000
RANDOMISED = {kind for kind, op in OPS.items() if op.randomised}
# Six standard errors of a mean of DRAWS: by chance one of a billion entries lies outside.
ERRORS = 6.0
ONES = torch.ones(2, 2)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rand(*shape: int, seed: int) -> Tensor:
    return torch.rand(*shape, generator=generator(seed), dtype=F64)


def randomised_chain(dtype: torch.dtype = torch.float32) -> Network:
    """Return resize-and-pad, a convolution, a relu, dense layers: random ones of every kind."""
    weights = rand(2, 1, 3, 3, seed=1), rand(5, 32, seed=2) - 0.5, rand(3, 5, seed=3) - 0.5
    conv, first, last = (weight.to(dtype) for weight in weights)
    return chain(
        (1, 6, 6),
        ResizeAndPad((1, 6, 6), smallest=4),
        RandomConv2d(conv, torch.zeros(2, dtype=dtype), deviation=conv / 10, bias_deviation=torch.ones(2, dtype=dtype)),
        Relu(),
        Reshape((32,)),
        RandomAffine(first, deviation=first.abs() / 10),
        Relu(),
        DropConnect(last, torch.ones(3, dtype=dtype), rate=0.3),
        dtype=dtype,
    )


@pytest.mark.parametrize("kind", OPS)
def test_a_draw_is_an_ordinary_op_of_the_same_shapes_and_a_draw_of_an_ordinary_op_is_itself(kind: str) -> None:
    shape, op = EXAMPLES[kind]
    drawn = op.draw(generator(1))
    assert not drawn.randomised
    assert drawn.output_shape(*[shape] * op.arity) == op.output_shape(*[shape] * op.arity)
    assert (drawn is op) == (kind not in RANDOMISED)
    if kind in RANDOMISED:
        assert op.draw(generator(1)).is_same(drawn)
        assert not all(op.draw(generator(seed)).is_same(drawn) for seed in range(2, 12))


def test_a_network_is_drawn_node_by_node_and_from_the_weights_as_stored(tmp_path: Path) -> None:
    network = randomised_chain()
    assert network.randomised
    drawn = network.draw(generator(3))
    assert not drawn.randomised
    assert drawn.draw(generator(4)) is drawn
    assert drawn.digest == network.draw(generator(3)).digest != network.draw(generator(4)).digest
    # A cast draws from what is stored, not from its own rounding.
    assert network.cast(F64).draw(generator(3)).digest == drawn.digest
    assert drawn.nodes[4].op.weight.dtype == torch.float32
    write_network(network, tmp_path / "a.safetensors")
    again = read_network(tmp_path / "a.safetensors")
    assert again.digest == network.digest and again.draw(generator(3)).digest == drawn.digest
    # Drawn networks are written as any other, without what made them.
    write_network(drawn, tmp_path / "b.safetensors")
    assert read_network(tmp_path / "b.safetensors").digest == drawn.digest


def test_deviations_and_rates_are_part_of_the_identity() -> None:
    weight = torch.ones(2, 2)
    ops = [Affine(weight), RandomAffine(weight, deviation=weight), RandomAffine(weight, deviation=2 * weight)]
    ops += [DropConnect(weight, rate=0.1), DropConnect(weight, rate=0.2)]
    assert len({chain((2,), op).digest for op in ops}) == len(ops)


def test_evaluation_gradients_and_bounds_are_those_of_the_mean() -> None:
    network = randomised_chain(F64)
    conv, first, last = (network.nodes[i].op for i in (1, 4, 6))
    mean = chain(
        (1, 6, 6),
        Conv2d(conv.weight, conv.bias),
        Relu(),
        Reshape((32,)),
        Affine(first.weight, first.bias),
        Relu(),
        Affine(last.weight, last.bias),
        dtype=F64,
    )
    x = rand(4, 1, 6, 6, seed=5).requires_grad_()
    for one, other in [(network.evaluate(x), mean.evaluate(x)), (network.scores(x), mean.scores(x))]:
        assert torch.equal(one, other)
        assert torch.equal(*(torch.autograd.grad(value.sum(), x)[0] for value in (one, other)))
    box = Box(x.detach() - 0.1, x.detach() + 0.1)
    (found,), (expected,) = network.interval(box), mean.interval(box)
    assert torch.equal(found.lower, expected.lower) and torch.equal(found.upper, expected.upper)


@pytest.mark.parametrize("convolution", [False, True])
def test_drawn_weights_have_the_stated_means_and_deviations_and_are_independent(convolution: bool) -> None:
    weight, deviation = rand(2, 2, seed=6) - 0.5, rand(2, 2, seed=7)
    deviation[0, 0] = 0.0
    bias, spread = rand(2, seed=8), rand(2, seed=9)
    shape = (2, 2, 1, 1) if convolution else (2, 2)
    fields = {"deviation": deviation.reshape(shape), "bias_deviation": spread}
    op = (RandomConv2d if convolution else RandomAffine)(weight.reshape(shape), bias, **fields)
    source = generator(10)
    drawn = [op.draw(source) for _ in range(DRAWS)]
    values = torch.stack([torch.cat([each.weight.flatten(), each.bias]) for each in drawn])
    mean, sigma = torch.cat([weight.flatten(), bias]), torch.cat([deviation.flatten(), spread])
    # 1e-12: the rounding of sums of equal numbers.
    assert bool(((values.mean(dim=0) - mean).abs() <= ERRORS * sigma / DRAWS**0.5 + 1e-12).all())
    # The standard error of a normal sample's deviation is sigma / sqrt(2 n).
    assert bool(((values.std(dim=0) - sigma).abs() <= ERRORS * sigma / (2 * DRAWS) ** 0.5 + 1e-12).all())
    assert bool((values[:, 0] == weight[0, 0]).all())
    correlated = torch.corrcoef(values[:, 1:].T) - torch.eye(5, dtype=F64)
    assert float(correlated.abs().max()) <= ERRORS / DRAWS**0.5


@pytest.mark.parametrize(
    "op", [DropConnect(rand(3, 4, seed=11), rate=0.25), DropConnect2d(rand(3, 4, 1, 1, seed=11), rate=0.25)]
)
def test_dropped_weights_are_zero_at_the_rate_and_have_the_stored_mean(op: DropConnect | DropConnect2d) -> None:
    source = generator(12)
    values = torch.stack([op.draw(source).weight for _ in range(DRAWS)])
    zero = values == 0
    assert torch.equal(values, torch.where(zero, 0.0, op.weight / 0.75).to(F64))
    assert bool(((zero.double().mean(dim=0) - 0.25).abs() <= ERRORS * (0.25 * 0.75 / DRAWS) ** 0.5).all())
    # W b / (1 - p) has the deviation W sqrt(p / (1 - p)).
    error = ERRORS * op.weight * (0.25 / 0.75 / DRAWS) ** 0.5
    assert bool(((values.mean(dim=0) - op.weight).abs() <= error).all())


def test_a_resized_image_is_the_nearest_pixels_on_zeros() -> None:
    op = ResizeAndPad((1, 4, 4), smallest=2)
    x = torch.arange(1.0, 17.0).reshape(1, 1, 4, 4)
    # Of rows 0..3 the sizes 2 and 3 keep floor(i 4 / size): 0 2 and 0 1 2.
    assert placed((1, 4, 4), 2, 1, 2).evaluate(x)[0, 0].tolist() == [
        [0, 0, 0, 0],
        [0, 0, 1, 3],
        [0, 0, 9, 11],
        [0, 0, 0, 0],
    ]
    assert placed((1, 4, 4), 3, 1, 0).evaluate(x)[0, 0].tolist() == [
        [0, 0, 0, 0],
        [1, 2, 3, 0],
        [5, 6, 7, 0],
        [9, 10, 11, 0],
    ]
    assert torch.equal(placed((1, 4, 4), 4, 0, 0).evaluate(x), x) and torch.equal(op.evaluate(x), x)
    source = generator(13)
    drawn = [op.draw(source) for _ in range(2000)]
    assert all(isinstance(each, Gather) for each in drawn)
    sizes = torch.tensor([int((each.index >= 0).sum()) for each in drawn])
    counts = {int(size): int((sizes == size).sum()) for size in sizes.unique()}
    # Three sizes alike: of 2000 a third, within six standard errors.
    assert counts.keys() == {4, 9, 16}
    assert all(abs(count - 2000 / 3) <= ERRORS * (2000 * 2 / 9) ** 0.5 for count in counts.values())
    # 9 places of size 2, 4 of size 3, 1 of size 4.
    assert len({tuple(each.index.flatten().tolist()) for each in drawn}) == 14


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomAffine(ONES, deviation=ONES[0]), r"deviation has shape \(2,\); it must be \(2, 2\)"),
        (lambda: RandomAffine(ONES, deviation=-ONES), "holds -1.0; deviations are not negative"),
        (lambda: RandomAffine(ONES, deviation=ONES, bias_deviation=ONES[0]), "there is no bias"),
        (lambda: DropConnect(ONES, rate=1.0), r"the rate must lie in \[0, 1\), got 1.0"),
        (lambda: ResizeAndPad((1, 4, 4), smallest=5), "a least height from 1 to the image's"),
        (lambda: ResizeAndPad((4, 4), smallest=2), "takes a shape"),
    ],
)  # fmt: skip
def test_what_is_no_distribution_is_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_deviation_that_is_not_a_number_is_refused() -> None:
    op = RandomAffine(torch.ones(2, 2), deviation=torch.full((2, 2), torch.nan))
    with pytest.raises(ValueError, match="deviation holds NaN"):
        Network((Node("a", op, (INPUT,)),), (2,))
