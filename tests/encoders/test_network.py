"""A network checks its graph, identifies itself by what it computes, and computes each node once."""

import dataclasses
import gc
import math
import weakref
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from encoders.box import Box
from encoders.network import INPUT, Network, Node
from encoders.ops import (
    Add,
    AddConstant,
    Affine,
    BatchNorm,
    Concat,
    Conv2d,
    LeakyRelu,
    Mwd,
    Op,
    Relu,
    Reshape,
    Slice,
    Sub,
)

F64 = torch.float64


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def residual(seed: int = 1) -> Network:
    """Return y = A (h + relu(B h)), h = relu(C x): the hidden value h has two readers."""
    return Network(
        (
            Node("c", Affine(random(3, 2, seed=seed), random(3, seed=seed + 1)), (INPUT,)),
            Node("h", Relu(), ("c",)),
            Node("b", Affine(random(3, 3, seed=seed + 2)), ("h",)),
            Node("r", Relu(), ("b",)),
            Node("sum", Add(), ("r", "h")),
            Node("a", Affine(random(2, 3, seed=seed + 3), random(2, seed=seed + 4)), ("sum",)),
        ),
        (2,),
        dtype=F64,
    )


def chain(*ops: Op, shape: tuple[int, ...], **settings: Any) -> Network:
    names = [INPUT, *(f"n{i}" for i in range(len(ops)))]
    nodes = tuple(Node(names[i + 1], op, (names[i],)) for i, op in enumerate(ops))
    return Network(nodes, shape, **settings)


def chain_of_one(op: Op) -> Network:
    return chain(op, shape=(2,))


# ----------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ((), "no nodes"),
        ((Node("a", Relu(), (INPUT,)), Node("a", Relu(), ("a",))), r"node 'a' \(relu\): the name is taken"),
        ((Node("input", Relu(), (INPUT,)),), r"node 'input' \(relu\): the name is taken"),
        ((Node("s", Add(), (INPUT,)),), r"node 's' \(add\): takes 2 inputs, got 1"),
        ((Node("a", Relu(), ("b",)), Node("b", Relu(), (INPUT,))), r"node 'a' \(relu\): unknown or later input 'b'"),
        ((Node("a", Relu(), ("a",)),), r"node 'a' \(relu\): unknown or later input 'a'"),
        ((Node("f", Affine(torch.ones(1, 3)), (INPUT,)),), r"node 'f' \(affine\): affine takes 3 values"),
        ((Node("f", Affine(torch.tensor([[1.0, math.nan]])), (INPUT,)),), r"node 'f' \(affine\): weight holds NaN"),
        (
            (Node("f", Affine(torch.ones(1, 2), torch.tensor([math.inf])), (INPUT,)),),
            r"node 'f' \(affine\): bias holds NaN or infinity",
        ),
    ],
)
def test_errors_name_the_source_and_the_node(nodes: tuple[Node, ...], message: str) -> None:
    with pytest.raises(ValueError, match=rf"file\.onnx.*{message}"):
        Network(nodes, (2,), source="file.onnx")


def test_evaluation_refuses_inputs_of_another_shape() -> None:
    network = residual()
    for x in (np.zeros(2), np.zeros((4, 3)), np.float32(1.0), torch.zeros(2, 2, 1)):
        with pytest.raises(ValueError, match=r"network takes x of shape \(batch, 2\)"):
            network.evaluate(x)
    with pytest.raises(ValueError, match=r"takes boxes of shape \(2,\), got \(3,\)"):
        network.interval(Box.point(torch.zeros(1, 3)))


# --------------------------------------------------------------------------------------------------- evaluation


def test_a_residual_network_computes_its_formula() -> None:
    network = residual()
    first, second, third = (network.nodes[i].op for i in (0, 2, 5))
    assert isinstance(first, Affine) and isinstance(second, Affine) and isinstance(third, Affine)
    assert first.bias is not None and third.bias is not None
    x = random(7, 2, seed=9)
    h = (x @ first.weight.T + first.bias).clamp(min=0)
    expected = (h + (h @ second.weight.T).clamp(min=0)) @ third.weight.T + third.bias
    torch.testing.assert_close(network.evaluate(x), expected)
    assert network.output_shape == (2,) and network.parameter_count == 6 + 3 + 9 + 6 + 2
    assert network.shapes == {INPUT: (2,), "c": (3,), "h": (3,), "b": (3,), "r": (3,), "sum": (3,), "a": (2,)}


def test_a_node_may_read_one_value_twice() -> None:
    network = Network((Node("twice", Add(), (INPUT, INPUT)), Node("zero", Sub(), ("twice", "twice"))), (2,))
    assert network.fold(3, lambda op, values: sum(values), ["twice"]) == [6]
    assert network.evaluate(torch.ones(1, 2)).tolist() == [[0.0, 0.0]]


def test_evaluation_keeps_the_dtype_of_x_and_reads_integers_as_the_files() -> None:
    network = chain(Affine(torch.tensor([[0.1]])), shape=(1,))
    assert network.evaluate(torch.ones(1, 1, dtype=F64)).item() == float(np.float32(0.1))
    assert network.evaluate(np.ones((1, 1), dtype=np.float32)).dtype == torch.float32
    assert network.evaluate([[1]]).dtype == torch.float32
    assert network.evaluate(torch.ones(1, 1, dtype=torch.uint8)).dtype == torch.float32
    assert dataclasses.replace(network, dtype=F64).evaluate([[1]]).dtype == F64


def test_evaluation_takes_any_array_that_numpy_has() -> None:
    network = residual()
    x = np.arange(6.0).reshape(3, 2)
    plain = network.evaluate(x)
    assert torch.equal(network.evaluate(x[::-1]), plain.flip(0))
    assert torch.equal(network.evaluate(np.broadcast_to(x[0], (2, 2))), network.evaluate(x[[0, 0]]))
    assert torch.equal(network.evaluate(x.tolist()), plain)


def test_evaluation_is_differentiable() -> None:
    x = random(2, 2, seed=10).requires_grad_()
    assert torch.autograd.gradcheck(residual().evaluate, (x,))


def test_the_cast_is_made_once() -> None:
    network = residual()
    single = network.cast(torch.float32)
    assert single is network.cast(torch.float32, "cpu") and single.cast(torch.float32) is single
    assert single.digest == network.digest
    assert all(t.dtype == torch.float32 for node in single.nodes for t in node.op.parameters().values())


def test_a_cast_of_a_cast_starts_from_the_stored_weights() -> None:
    # 0.1 in float64 is not 0.1 in float32: a verdict would be about other weights.
    network = chain(Affine(torch.tensor([[0.1]], dtype=F64)), shape=(1,), dtype=F64)
    x = torch.ones(1, 1, dtype=F64)
    assert network.cast(torch.float32).evaluate(x).item() == 0.1
    assert network.evaluate(x).item() == 0.1
    box = network.cast(torch.float32).interval(Box.point(x))[0]
    assert float(box.lower) <= Fraction(0.1) <= float(box.upper) and float(box.upper) - 0.1 < 1e-12


def test_masks_survive_a_cast() -> None:
    mwd = Mwd(torch.ones(2, 2), torch.zeros(2, 2), torch.tensor([True, False]))
    op = chain(mwd, shape=(2,)).cast(F64).output.op
    assert isinstance(op, Mwd) and op.negated.dtype == torch.bool and op.weight.dtype == F64


def test_scalar_outputs_have_scores() -> None:
    network = chain(Affine(torch.ones(1, 2)), Reshape(()), shape=(2,))
    assert network.evaluate(torch.ones(3, 2)).tolist() == [2.0] * 3
    assert network.scores(torch.ones(3, 2)).tolist() == [[2.0]] * 3


def test_scores_are_the_outputs_but_for_a_last_mwd_layer() -> None:
    x = random(4, 2, seed=11)
    assert torch.equal(residual().scores(x), residual().evaluate(x))
    layer = Mwd(random(3, 2, seed=12).abs(), random(3, 2, seed=13), torch.zeros(3, dtype=torch.bool))
    for network in (chain(layer, shape=(2,)), chain(Relu(), layer, shape=(2,))):
        torch.testing.assert_close(network.scores(x), network.evaluate(x).log())


# ------------------------------------------------------------------------------------------------------ interval


def test_intervals_of_every_node_contain_its_exact_values() -> None:
    network = residual()
    generator = torch.Generator().manual_seed(14)
    lower = random(5, 2, seed=15)
    box = Box(lower, lower + torch.rand(5, 2, generator=generator, dtype=F64))
    names = [node.name for node in network.nodes]
    boxes = dict(zip(names, network.interval(box, names), strict=True))
    assert torch.equal(network.interval(box)[0].lower, boxes["a"].lower)
    for _ in range(100):
        share = torch.rand(5, 2, generator=generator, dtype=F64).round(decimals=1)
        x = torch.minimum(torch.maximum(box.lower * (1 - share) + box.upper * share, box.lower), box.upper)
        for row in range(5):
            values: dict[str, list[Fraction]] = {INPUT: [Fraction(v) for v in x[row].tolist()]}
            for node in network.nodes:
                inputs = [values[name] for name in node.inputs]
                values[node.name] = exact(node.op, inputs)
                ends = zip(
                    boxes[node.name].lower[row].tolist(),
                    values[node.name],
                    boxes[node.name].upper[row].tolist(),
                    strict=True,
                )
                assert all(low <= value <= high for low, value, high in ends)


def exact(op: Op, inputs: list[list[Fraction]]) -> list[Fraction]:
    if isinstance(op, Affine):
        bias = [0.0] * op.weight.shape[0] if op.bias is None else op.bias.tolist()
        return [
            sum((Fraction(w) * v for w, v in zip(row, inputs[0], strict=True)), start=Fraction(b))
            for row, b in zip(op.weight.tolist(), bias, strict=True)
        ]
    if isinstance(op, Relu):
        return [max(v, Fraction(0)) for v in inputs[0]]
    return [a + b for a, b in zip(*inputs, strict=True)]


# ---------------------------------------------------------------------------------------------------------- fold


class Value:
    """A value that can be referred to weakly."""


def test_fold_computes_each_node_once_and_frees_values_after_their_last_reader() -> None:
    network = residual()
    alive: list[weakref.ref[Value]] = []
    seen: list[Op] = []
    most = 0

    def step(op: Op, values: Sequence[Value]) -> Value:
        nonlocal most
        seen.append(op)
        most = max(most, sum(ref() is not None for ref in alive))
        result = Value()
        alive.append(weakref.ref(result))
        return result

    gc.disable()
    try:
        outputs = network.fold(Value(), step)
    finally:
        gc.enable()
    assert len(outputs) == 1 and seen == [node.op for node in network.nodes]
    # The widest cut: h, kept for the sum, and its successor b (then r).
    assert most == 2
    assert [ref() is not None for ref in alive] == [False] * 5 + [True]


def test_fold_returns_targets_in_order_and_stops_at_the_last() -> None:
    network = residual()
    count = 0

    def step(op: Op, values: Sequence[int]) -> int:
        nonlocal count
        count += 1
        return 10 * sum(values)

    # c = 10, h = 100; the nodes after h are not computed.
    assert network.fold(1, step, ["h", INPUT, "c", "h"]) == [100, 1, 10, 100]
    assert count == 2
    assert network.fold(1, step, [INPUT]) == [1] and count == 2


# -------------------------------------------------------------------------------------------------------- digest


def test_the_digest_ignores_names_and_source() -> None:
    network = residual()
    renamed = {INPUT: INPUT} | {node.name: f"other{i}" for i, node in enumerate(network.nodes)}
    nodes = tuple(Node(renamed[n.name], n.op, tuple(renamed[i] for i in n.inputs)) for n in network.nodes)
    assert Network(nodes, (2,), dtype=F64, source="elsewhere").digest == network.digest


def flipped_bit(op: Op, name: str, index: int) -> Op:
    """Return the op with one weight moved to the next float (a mask: flipped)."""
    value = op.parameters()[name].clone()
    flat = value.view(-1)
    flat[index] = ~flat[index] if value.dtype == torch.bool else torch.nextafter(flat[index], flat[index] + 1)
    return dataclasses.replace(op, **{name: value})  # type: ignore[arg-type]


def test_the_digest_changes_with_every_single_weight() -> None:
    normal = BatchNorm(*(random(2, seed=20 + i).square() for i in range(4)))
    layers = [
        normal,
        Affine(random(3, 2, seed=24), random(3, seed=25)),
        Mwd(random(2, 3, seed=26).abs(), random(2, 3, seed=27), torch.tensor([True, False])),
    ]
    digests = [chain(*layers, shape=(2,)).digest]
    for i, op in enumerate(layers):
        for name, value in op.parameters().items():
            for index in range(value.numel()):
                changed = [*layers[:i], flipped_bit(op, name, index), *layers[i + 1 :]]
                digests.append(chain(*changed, shape=(2,)).digest)
    assert len(digests) == 1 + 4 * 2 + 9 + 14 and len(set(digests)) == len(digests)


DIFFERENT: list[Callable[[], Network]] = [
    residual,
    lambda: dataclasses.replace(residual(), dtype=torch.float32),
    lambda: chain(LeakyRelu(0.1), shape=(2,)),
    lambda: chain(LeakyRelu(math.nextafter(0.1, 1.0)), shape=(2,)),
    lambda: chain(LeakyRelu(0.1), shape=(3,)),
    lambda: chain(Relu(), shape=(2,)),
    lambda: chain(Relu(), Relu(), shape=(2,)),
    lambda: chain_of_one(BatchNorm(*[torch.ones(2)] * 4)),
    lambda: chain_of_one(BatchNorm(*[torch.ones(2)] * 4, epsilon=1e-3)),
    lambda: chain_of_one(Slice(0, 0, 1)),
    lambda: chain_of_one(Slice(0, 1, 2)),
    lambda: chain_of_one(Affine(torch.ones(1, 2))),
    lambda: chain_of_one(Affine(torch.ones(1, 2), torch.zeros(1))),
    lambda: chain_of_one(Affine(torch.ones(1, 2, dtype=F64))),
    lambda: chain_of_one(Affine(torch.ones(1, 2, dtype=torch.bfloat16))),
    lambda: chain_of_one(AddConstant(torch.zeros(2))),
    lambda: chain_of_one(AddConstant(torch.tensor([0.0, -0.0]))),
    lambda: chain_of_one(AddConstant(torch.zeros(1))),
    lambda: chain_of_one(AddConstant(torch.zeros(()))),
    *(
        lambda s=settings: chain(Conv2d(torch.ones(2, 1, 2, 2), None, **s), shape=(s.get("groups", 1), 4, 4))  # type: ignore[misc]
        for settings in [
            {},
            {"stride": (1, 2)},
            {"stride": (2, 1)},
            {"padding": (1, 0, 0, 0)},
            {"padding": (0, 0, 1, 0)},
            {"dilation": (2, 1)},
            {"groups": 2},
        ]
    ),
]


def test_the_digest_tells_settings_dtypes_shapes_and_ops_apart() -> None:
    digests = [make().digest for make in DIFFERENT]
    assert len(set(digests)) == len(digests)
    assert digests == [make().digest for make in DIFFERENT], "equal networks have equal digests"


def test_the_digest_covers_the_wiring() -> None:
    def wired(first: str, second: str) -> str:
        nodes = (
            Node("a", Relu(), (INPUT,)),
            Node("b", LeakyRelu(0.5), (INPUT,)),
            Node("join", Concat(0), (first, second)),
        )
        return Network(nodes, (2,)).digest

    pairs = [("a", "b"), ("b", "a"), ("a", "a"), (INPUT, "b"), ("b", INPUT)]
    assert len({wired(*pair) for pair in pairs}) == len(pairs)


def test_the_digest_does_not_depend_on_memory_layout() -> None:
    weight = random(3, 4, seed=30)
    expected = chain(Affine(weight), shape=(4,)).digest
    assert chain(Affine(weight.T.contiguous().T), shape=(4,)).digest == expected
    assert chain(Affine(torch.cat([weight, weight])[:3]), shape=(4,)).digest == expected


def test_no_box_is_given_where_subnormal_numbers_are_flushed():
    # 1e-310 times 1e300 is 1e-10, but reads as 0 there: no slack could cover that.
    network = chain(Affine(torch.tensor([[1e-310]], dtype=torch.float64)), shape=(1,), dtype=torch.float64)
    box = Box.point(torch.full((1, 1), 1e300, dtype=torch.float64))
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush subnormal numbers")
    try:
        with pytest.raises(RuntimeError, match="flushed to zero"):
            network.interval(box)
    finally:
        torch.set_flush_denormal(False)
    (range_,) = network.interval(box)
    # The stored weight is not exactly 1e-310: subnormal numbers have fewer digits.
    assert Fraction(float(range_.lower)) <= Fraction(1e-310) * Fraction(1e300) <= Fraction(float(range_.upper))
