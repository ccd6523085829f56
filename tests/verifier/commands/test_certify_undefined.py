"""Functions without a value in a part of a ball: models give NaN there, so nothing is proved, whatever comes after."""

import math

import numpy as np
import pytest
import torch

from encoders import Box, write_network
from encoders.network import INPUT, Network, Node
from encoders.ops import Affine, Concat, Curve, Mwd, Op, Relu, Sigmoid, Softmax
from encoders.questions import output_within
from tests.networks.chains import chain
from verifier import certify, verify
from verifier.verdict import Verdict

F64 = torch.float64
METHODS = ("interval", "alpha-crown", "lp", "input-split", "auto")
# What has no value at or below zero, and what hides that from a box.
PARTIAL = [("log", ()), ("power", (0.5,)), ("power", (-1.0,)), ("power", (-2.0,)), ("power", (-0.5,))]
BOUNDED: list[Op] = [Sigmoid(), Curve("sin"), Curve("sign"), Curve("arctangent")]
SECONDS = 0.3


def network(function: Op, bounded: Op) -> Network:
    """Return y0 = 9 + bounded(function(x)), y1 = 0.5 x, both for x near 0.05."""
    nodes = (
        Node("function", function, (INPUT,)), Node("bounded", bounded, ("function",)),
        Node("both", Concat(0), ("bounded", INPUT)),
        Node("scores", Affine(torch.tensor([[1.0, 0.0], [0.0, 0.5]]), torch.tensor([9.0, 0.0])), ("both",)),
    )  # fmt: skip
    return Network(nodes, (1,), torch.float32)


@pytest.mark.parametrize(
    ("function", "arguments", "method"),
    [(*row, "crown") for row in PARTIAL] + [(*PARTIAL[0], method) for method in METHODS],
)
def test_no_ball_with_a_point_without_value_is_certified(tmp_path, function, arguments, method) -> None:
    path = tmp_path / "model.safetensors"
    write_network(network(Curve(function, arguments), Sigmoid()), path)
    data = np.array([[0.0625]], dtype=np.float32), np.array([0])
    result = certify(path, data, [0.05, 0.0625, 0.1], method=method, time_limit=SECONDS, out=None)
    certified = [row.certified for row in result.results]
    # A root has a value at zero.
    assert certified == [1, int(arguments == (0.5,)), 0]


@pytest.mark.parametrize("bounded", BOUNDED, ids=lambda op: op.kind)
def test_whatever_follows_the_function(tmp_path, bounded) -> None:
    path = tmp_path / "model.safetensors"
    write_network(network(Curve("log"), bounded), path)
    lower, upper = torch.tensor([-0.1], dtype=F64), torch.tensor([0.1], dtype=F64)
    for ends, verdict in ((lower, Verdict.UNKNOWN), (lower.abs() * 0.5, Verdict.UNSAT)):
        asked = output_within(ends, upper, [0.0, -10.0], [20.0, 10.0])
        for method in ("interval", "crown", "lp"):
            result = verify(path, asked, method=method, time_limit=60.0, out=None)
            assert result.properties[0].verdict is verdict, method


@pytest.mark.parametrize("method", ["interval", "crown", "alpha-crown", "input-split", "milp", "auto"])
def test_a_last_op_that_compares_boxes_is_none_the_wiser(tmp_path, method) -> None:
    # Class 0 is near, class 1 far from all that the sigmoid can give; the model itself gives NaN below zero.
    last = Mwd(torch.tensor([[1.0], [1.0]]), torch.tensor([[0.0], [50.0]]), torch.zeros(2, dtype=torch.bool))
    path = tmp_path / "model.safetensors"
    write_network(chain((1,), Affine(torch.tensor([[1.0]])), Curve("log"), Sigmoid(), last), path)
    data = np.array([[0.0625]], dtype=np.float32), np.array([0])
    result = certify(path, data, [0.05, 0.1], method=method, time_limit=SECONDS, out=None)
    assert [row.certified for row in result.results] == [1, 0]
    assert [row.trusted for row in result.results][1] == 0


def test_boxes_of_nodes_behind_the_function_are_all_numbers() -> None:
    box_of = network(Curve("log"), Relu()).interval
    points = Box(torch.tensor([[0.5], [-0.5], [0.0]], dtype=F64), torch.tensor([[1.0], [0.5], [0.5]], dtype=F64))
    (found,) = box_of(points)
    assert found.lower[0].isfinite().all()
    assert bool((found.lower[1:] == -math.inf).all()) and bool((found.upper[1:] == math.inf).all())
    assert Softmax(0).undefined(points) is None and Curve("sin").undefined(points) is None
    assert Curve("log").undefined(points).tolist() == [False, True, True]
    assert Curve("power", (0.5,)).undefined(points).tolist() == [False, True, False]
    assert Curve("power", (-2.0,)).undefined(points).tolist() == [False, True, True]
    assert Curve("power", (2.0,)).undefined(points) is None
