"""The scores of a classifier are in the order of its outputs, whatever stands behind them."""

import numpy as np
import pytest
import torch

from encoders import Network, Node
from encoders.network import INPUT
from encoders.ops import (
    AddConstant,
    Affine,
    ArgMax,
    Curve,
    LogSoftmax,
    MultiplyConstant,
    Op,
    Relu,
    Reshape,
    Sigmoid,
    Slice,
    Softmax,
    Tanh,
    Transpose,
)
from encoders.passes.class_scores import before_order, class_scores
from tests.networks.chains import chain, random_relu_network

GENERATOR = torch.Generator().manual_seed(0)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=GENERATOR)


def followed(network: Network, *ops: Op) -> Network:
    nodes = list(network.nodes)
    for number, op in enumerate(ops):
        nodes.append(Node(f"last-{number}", op, (nodes[-1].name,)))
    return Network(tuple(nodes), network.input_shape, network.dtype)


ENDS: dict[str, tuple[Op, ...]] = {
    "softmax": (Softmax(0),),
    "log-softmax": (LogSoftmax(0),),
    "sigmoid": (Sigmoid(),),
    "two in a row": (Tanh(), Softmax(0)),
    "a reshape between": (Reshape((3, 1)), Softmax(0), Reshape((3,))),
}


@pytest.mark.parametrize("end", ENDS)
def test_ops_that_keep_the_order_are_left_out(end: str) -> None:
    network = random_relu_network(3)
    found = class_scores(followed(network, *ENDS[end]))
    assert [node.op.kind for node in found.network.nodes[: len(network.nodes)]] == [n.op.kind for n in network.nodes]
    x = torch.rand(50, 2, generator=GENERATOR)
    assert torch.equal(found.network.evaluate(x), network.evaluate(x))
    assert end.split()[0] in ("two", "a") or end in found.note
    # The user's outputs stand as they are.
    outputs = found.model.evaluate(x).numpy()
    assert np.array_equal(found.read(outputs), outputs)


def test_a_softmax_along_a_part_does_not_keep_the_order() -> None:
    parts = (Reshape((2, 2)), Softmax(1), Reshape((4,)))
    network = chain((3,), Affine(normal(4, 3)), *parts)
    assert class_scores(network).network is network and class_scores(network).note == ""
    # (0, 5 | 1, 2): the shares of the second, .99 and .73, are in another order than of the first part, 0 and 1.
    x = torch.tensor([[0.0, 5.0, 1.0, 2.0]])
    shares = chain((4,), *parts).evaluate(x)
    assert float(shares[0, 0]) < float(shares[0, 2]) and float(shares[0, 1]) > float(shares[0, 3])
    assert float(shares[0, 2]) < float(shares[0, 3]) < float(shares[0, 1])


def test_a_network_without_such_an_end_is_itself() -> None:
    network = random_relu_network(4)
    found = class_scores(network)
    assert found.network is network is found.model and found.note == "" and found.threshold is None
    moved = chain((2, 2), Transpose((1, 0)), Reshape((4,)))
    assert class_scores(moved).network is moved


def test_a_network_that_is_a_softmax_alone_keeps_a_node() -> None:
    found = class_scores(chain((3,), Softmax(0)))
    x = torch.rand(4, 3, generator=GENERATOR)
    assert torch.equal(found.network.evaluate(x), x)


ONE: dict[str, tuple[tuple[Op, ...], float]] = {
    "logit": ((), 0.0),
    "logit as a number": ((Reshape(()),), 0.0),
    "sigmoid": ((Sigmoid(),), 0.5),
    "tanh": ((Tanh(),), 0.0),
    "sigmoid of a tanh": ((Tanh(), Sigmoid()), 0.5),
    "sigmoid as a number": ((Sigmoid(), Reshape(())), 0.5),
}


@pytest.mark.parametrize("end", ONE)
def test_one_output_is_two_classes(end: str) -> None:
    ops, threshold = ONE[end]
    network = random_relu_network(5, (2, 6, 1))
    found = class_scores(followed(network, *ops))
    assert found.threshold == threshold and f"above {threshold:g}" in found.note
    x = torch.rand(50, 2, generator=GENERATOR)
    logits = network.evaluate(x)[:, 0]
    assert torch.equal(found.network.evaluate(x), torch.stack([torch.zeros(50), logits], dim=1))
    read = found.read(found.model.evaluate(x).numpy())
    assert read.shape == (50, 2) and np.array_equal(read.argmax(axis=1), (logits > 0).long().numpy())
    assert 0 < int((logits > 0).sum()) < 50


def test_a_probability_is_read_with_the_other_one_in_the_same_order() -> None:
    found = class_scores(chain((1,), Sigmoid()))
    half = np.float32(0.5)
    near = [half, np.nextafter(half, np.float32(0)), np.nextafter(half, np.float32(1)), 1e-30, 1.0, 0.0, 0.25, 0.75]
    values = np.array([near, np.linspace(0, 1, 8)], np.float32).reshape(-1, 1)
    read = found.read(values)
    assert read.dtype == np.float32 and np.allclose(read.sum(axis=1), 1.0, rtol=0, atol=1e-7)
    assert np.array_equal(np.sign(read[:, 1] - read[:, 0]), np.sign(values[:, 0] - half))


def test_a_threshold_that_no_input_of_a_sigmoid_reaches_is_not_moved_before_it() -> None:
    # tanh(sigmoid(x)) is above 0 everywhere: the threshold is one of the sigmoid's value.
    found = class_scores(chain((1,), Affine(torch.ones(1, 1)), Sigmoid(), Tanh()))
    assert found.threshold == 0.0
    assert found.network.evaluate(torch.tensor([[-3.0]]))[0].tolist() == [0.0, pytest.approx(0.0474, abs=1e-4)]


def test_the_class_that_a_model_returns_is_that_of_its_scores() -> None:
    network = random_relu_network(6)
    for end in ((ArgMax(0),), (ArgMax(0, True),), (ArgMax(0, True), Reshape(()))):
        found = class_scores(followed(network, Softmax(0), *end))
        x = torch.rand(50, 2, generator=GENERATOR)
        assert torch.equal(found.network.evaluate(x), network.evaluate(x)) and "arg-max" in found.note
        classes = found.model.evaluate(x).numpy().astype(np.int64)
        read = found.read(classes)
        assert np.array_equal(read.argmax(axis=1), network.evaluate(x).argmax(dim=1).numpy())
        assert set(read.flatten().tolist()) == {0.0, 1.0}
        assert np.isnan(found.read(np.array([7]))).all() and np.isnan(found.read(np.array([np.nan]))).all()


def test_what_is_no_classifier_is_refused() -> None:
    for network in (
        chain((4,), Reshape((2, 2))),
        chain((4,), Reshape((2, 2)), ArgMax(1)),
        chain((1,), ArgMax(0)),
    ):
        with pytest.raises(ValueError, match="a classifier's output is one vector of at least 2 classes"):
            class_scores(network)


def test_values_before_the_order_are_a_vector() -> None:
    network = chain((4,), Affine(normal(4, 4)), Reshape((4, 1, 1)), Softmax(0))
    before, dropped = before_order(network)
    assert before.output_shape == (4,) and [node.op.kind for node in dropped] == ["softmax"]
    hidden = chain((2,), Affine(normal(3, 2)), Relu())
    assert before_order(hidden) == (hidden, ())
    assert INPUT in before.nodes[0].inputs


def test_outputs_beside_axes_of_size_one_are_one_vector() -> None:
    network = random_relu_network(4)
    classes = network.output_shape[0]
    x = torch.rand(20, 2, generator=GENERATOR)
    for shape, last in (((classes, 1, 1), ()), ((1, classes, 1), (Softmax(1),))):
        found = class_scores(followed(network, Reshape(shape), *last))
        assert found.network.output_shape == (classes,)
        assert f"outputs of shape {shape} are one vector" in found.note
        assert torch.equal(found.network.evaluate(x), network.evaluate(x))
        outputs = found.model.evaluate(x).numpy()
        assert found.read(outputs).argmax(axis=1).tolist() == network.evaluate(x).argmax(dim=1).tolist()


SHARES: dict[str, tuple[Op, ...]] = {
    "one of two shares": (Reshape((2,)), Softmax(0), Slice(0, 1, 2)),
    "a clip": (Slice(0, 0, 1), Relu(), MultiplyConstant(torch.tensor(-1.0)), AddConstant(torch.tensor(1.0)), Relu()),
    "a sigmoid written out": (
        Slice(0, 0, 1), MultiplyConstant(torch.tensor(-1.0)), Curve("exp"), AddConstant(torch.tensor(1.0)),
        Curve("power", (-1.0,)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("end", SHARES)
def test_a_share_of_one_whose_threshold_nobody_says_is_refused(end: str) -> None:
    with pytest.raises(ValueError, match="lies between 0 and 1"):
        class_scores(chain((3,), Affine(normal(2, 3)), *SHARES[end]))
