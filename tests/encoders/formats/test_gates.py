"""Activations that exporters write out as products, read as one function: its values, and what is left alone."""

import math
from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import Tensor, nn

from encoders.formats.errors import ModelFileError
from encoders.formats.onnx_reader import convert
from encoders.formats.torch_export import from_module
from encoders.ops import Curve, Op
from tests.networks.onnx_models import model, run_onnxruntime

make = helper.make_node
X = np.linspace(-7.0, 7.0, 60, dtype=np.float32).reshape(15, 4)


def erf_gelu(factor_first: bool, divide: bool) -> onnx.ModelProto:
    """x (1 + erf(x / sqrt 2)) / 2 in the orders in which exporters write it."""
    inner = make("Div", ["x", "root"], ["z"]) if divide else make("Mul", ["inverse", "x"], ["z"])
    nodes = [inner, make("Erf", ["z"], ["e"]), make("Add", ["e", "one"], ["s"])]
    if factor_first:
        nodes += [make("Mul", ["x", "half"], ["h"]), make("Mul", ["h", "s"], ["y"])]
    else:
        nodes += [make("Mul", ["x", "s"], ["p"]), make("Mul", ["p", "half"], ["y"])]
    weights = {"root": np.float32(math.sqrt(2)), "inverse": np.float32(math.sqrt(0.5))}
    return model(nodes, ["N", 4], {**weights, "one": np.float32(1), "half": np.float32(0.5)})


def tanh_gelu(by_power: bool) -> onnx.ModelProto:
    cube = (
        [make("Pow", ["x", "three"], ["c"])]
        if by_power
        else [make("Mul", ["x", "x"], ["q"]), make("Mul", ["x", "q"], ["c"])]
    )
    nodes = [
        *cube, make("Mul", ["c", "cubic"], ["m"]), make("Add", ["x", "m"], ["a"]), make("Mul", ["a", "scale"], ["b"]),
        make("Tanh", ["b"], ["t"]), make("Add", ["one", "t"], ["s"]), make("Mul", ["s", "x"], ["p"]),
        make("Mul", ["p", "half"], ["y"]),
    ]  # fmt: skip
    numbers = {"three": 3.0, "cubic": 0.044715, "scale": math.sqrt(2 / math.pi), "one": 1.0, "half": 0.5}
    return model(nodes, ["N", 4], {name: np.float32(value) for name, value in numbers.items()})


def swish(factor: float) -> onnx.ModelProto:
    nodes = [make("Mul", ["x", "k"], ["z"]), make("Sigmoid", ["z"], ["s"]), make("Mul", ["s", "x"], ["y"])]
    return model(nodes, ["N", 4], {"k": np.float32(factor)})


MISH = [make("Softplus", ["x"], ["p"]), make("Tanh", ["p"], ["t"]), make("Mul", ["x", "t"], ["y"])]
READ: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "gelu": (lambda: erf_gelu(False, True), "erf-gate"),
    "gelu, factor first": (lambda: erf_gelu(True, True), "erf-gate"),
    "gelu, by the inverse": (lambda: erf_gelu(True, False), "erf-gate"),
    "tanh gelu": (lambda: tanh_gelu(True), "tanh-gate"),
    "tanh gelu by products": (lambda: tanh_gelu(False), "tanh-gate"),
    "silu": (lambda: swish(1.0), "silu"),
    "quick gelu": (lambda: swish(1.702), "silu"),
    "reversed": (lambda: swish(-0.3), "silu"),
    "mish": (lambda: model(MISH, ["N", 4]), "mish"),
    "square": (lambda: model([make("Mul", ["x", "x"], ["y"])], ["N", 4]), "power"),
}


@pytest.mark.parametrize("name", READ)
def test_a_written_out_activation_is_one_curve_with_its_values(name: str) -> None:
    build, function = READ[name]
    source = build()
    network = convert(source, "test")
    assert [node.op.function for node in network.nodes if isinstance(node.op, Curve)] == [function]
    expected = run_onnxruntime(source, X)
    assert expected is not None
    # onnxruntime's own approximations err by some float32 roundings of x.
    assert np.abs(network.evaluate(torch.from_numpy(X)).numpy() - expected).max() <= 3e-6


TORCH: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": lambda x: x * torch.sigmoid(x),
    "quick gelu": lambda x: torch.sigmoid(1.702 * x) * x,
    "gelu": lambda x: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0))),
    "tanh gelu": lambda x: 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3)))),
    "fourth power": lambda x: x * x * x * x,
    "inverse": lambda x: 2.0 / (1.0 + x.abs()),
}


class Module(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.mark.parametrize("name", TORCH)
def test_a_written_out_activation_of_torch_is_one_curve_with_its_values(name: str) -> None:
    network = from_module(Module(TORCH[name]).double(), (4,))
    assert sum(isinstance(node.op, Curve) for node in network.nodes) == 1
    x = torch.from_numpy(X).double()
    own = network.cast(torch.float64, torch.device("cpu")) if network.dtype != torch.float64 else network
    torch.testing.assert_close(own.evaluate(x), TORCH[name](x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "nodes",
    [
        [make("Relu", ["x"], ["a"]), make("Sigmoid", ["a"], ["s"]), make("Mul", ["x", "s"], ["y"])],
        [make("Erf", ["x"], ["e"]), make("Add", ["e", "two"], ["s"]), make("Mul", ["x", "s"], ["y"])],
        [make("Tanh", ["x"], ["e"]), make("Add", ["e", "one"], ["s"]), make("Mul", ["x", "s"], ["y"])],
        [make("Mul", ["x", "row"], ["z"]), make("Sigmoid", ["z"], ["s"]), make("Mul", ["x", "s"], ["y"])],
        [make("Mul", ["x", "zero"], ["z"]), make("Sigmoid", ["z"], ["s"]), make("Mul", ["x", "s"], ["y"])],
        [make("Abs", ["x"], ["a"]), make("Pow", ["a", "two"], ["s"]), make("Mul", ["x", "s"], ["y"])],
    ],
    ids=["another value", "another constant", "another gate", "many factors", "a factor of 0", "another base"],
)
def test_what_is_no_gate_is_no_curve(nodes: list[onnx.NodeProto]) -> None:
    weights = {"one": np.float32(1), "two": np.float32(2), "zero": np.float32(0), "row": np.float32([1, 2, 3, 4])}
    used = {name: value for name, value in weights.items() if any(name in node.input for node in nodes)}
    try:
        network = convert(model(nodes, ["N", 4], used), "test")
    except ModelFileError as error:
        assert "product of two" in str(error)
        return
    last: Op = network.output.op
    assert not isinstance(last, Curve)
