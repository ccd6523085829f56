"""ONNX files of a few hundred bytes that ask for too much: what each must be refused for, by a word of the message."""

import gzip
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from tests.networks.onnx_models import FLOAT, model

make = helper.make_node
HUGE = 2**31


def of(*nodes: onnx.NodeProto, shape: Sequence[object] = ("N", 1, 4, 4), opset: int = 17, **weights: object) -> bytes:
    return model(list(nodes), list(shape), weights, opset).SerializeToString()


def added(*nodes: onnx.NodeProto, opset: int = 17, **weights: object) -> bytes:
    """Return a file that adds the value `c` of the nodes to its input."""
    return of(*nodes, make("Add", ["x", "c"], ["y"]), shape=["N", 4], opset=opset, **weights)


def integers(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def changed(change: Callable[[onnx.ModelProto], object]) -> bytes:
    """Return y = x W, with the model changed."""
    source = model([make("MatMul", ["x", "w"], ["y"])], ["N", 4], {"w": np.ones((4, 4))})
    change(source)
    return source.SerializeToString()


def with_dims(*dims: int) -> Callable[[onnx.ModelProto], object]:
    def change(source: onnx.ModelProto) -> None:
        tensor = source.graph.initializer[0]
        del tensor.dims[:]
        tensor.dims.extend(dims)
        tensor.raw_data = b""

    return change


def external(**where: str) -> Callable[[onnx.ModelProto], object]:
    def change(source: onnx.ModelProto) -> None:
        tensor = source.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in where.items():
            tensor.external_data.add(key=key, value=value)

    return change


def loop() -> onnx.NodeProto:
    """Return a loop that computes `c` in 2^60 rounds."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [make("Identity", ["cond"], ["again"]), make("Identity", ["v"], ["w"])],
        "body",
        [value("i", TensorProto.INT64, []), value("cond", TensorProto.BOOL, []), value("v", FLOAT, [4])],
        [value("again", TensorProto.BOOL, []), value("w", FLOAT, [4])],
    )
    return make("Loop", ["n", "", "start"], ["c"], body=body)


def tower(operator: str, count: int, **weights: object) -> list[onnx.NodeProto]:
    """Return nodes of which each doubles a constant."""
    names = [f"t{i}" for i in range(count)]
    attributes = {"axis": 0} if operator == "Concat" else {}
    return [make(operator, [a, a], [b], **attributes) for a, b in zip(["w", *names], [*names, "c"], strict=False)]


def strings() -> onnx.TensorProto:
    return helper.make_tensor("s", TensorProto.STRING, [1], [b"a" * 40 + b"!"])


def text_node() -> bytes:
    source = model(
        [make("StringNormalizer", ["s"], ["t"]), make("Cast", ["t"], ["c"], to=FLOAT), make("Add", ["x", "c"], ["y"])],
        ["N", 4],
    )
    source.graph.initializer.append(strings())
    return source.SerializeToString()


def shared_weight(nodes: int) -> bytes:
    """Return products that all read one constant of 16 MiB, none of which is stored."""
    chain = ["x", *(f"v{i}" for i in range(nodes - 1)), "y"]
    return of(
        make("ConstantOfShape", ["n"], ["c"]),
        *(make("MatMul", [a, "c"], [b]) for a, b in itertools.pairwise(chain)),
        shape=["N", 2048],
        n=integers(2048, 2048),
    )


def nan_attribute(operator: str, **attributes: object) -> bytes:
    return of(make(operator, ["x"], ["y"], **attributes), opset=10)


ONE = [1, 1, 1, 1]

# Name: (content, word of the message).
FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "pool kernel": (
        lambda: of(make("MaxPool", ["x"], ["y"], kernel_shape=[HUGE, HUGE], pads=[HUGE - 1] * 4)),
        "window cells",
    ),
    "pool kernel without pads": (lambda: of(make("MaxPool", ["x"], ["y"], kernel_shape=[HUGE, 1])), "window cells"),
    "mean pool kernel": (
        lambda: of(make("AveragePool", ["x"], ["y"], kernel_shape=[2**40, 2**40], pads=[2**39] * 4)),
        "window cells",
    ),
    "pool work": (
        lambda: of(make("AveragePool", ["x"], ["y"], kernel_shape=[1024, 1024]), shape=["N", 1, 4096, 4096]),
        "operations",
    ),
    "pool strides": (lambda: of(make("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2**62, 1])), "stride"),
    "pool dilations": (
        lambda: of(make("MaxPool", ["x"], ["y"], kernel_shape=[1, 1], dilations=[2**62, 1])),
        "stride or dilation",
    ),
    "negative kernel": (lambda: of(make("MaxPool", ["x"], ["y"], kernel_shape=[-1, -1])), "kernel >= 1"),
    "negative stride": (lambda: of(make("MaxPool", ["x"], ["y"], kernel_shape=[1, 1], strides=[-1, 1])), "stride >= 1"),
    "zero stride": (lambda: of(make("Conv", ["x", "w"], ["y"], strides=[0, 1]), w=np.ones((1, 1, 1, 1))), "stride"),
    "conv pads": (
        lambda: of(make("Conv", ["x", "w"], ["y"], pads=[2**40] * 4), w=np.ones((1, 1, 1, 1))),
        "padded input",
    ),
    "conv pads and strides": (
        lambda: of(make("Conv", ["x", "w"], ["y"], pads=[2**30] * 4, strides=[2**30] * 2), w=np.ones((1, 1, 1, 1))),
        "padded input",
    ),
    "conv groups": (
        lambda: of(make("Conv", ["x", "w"], ["y"], group=-(2**62)), w=np.ones((1, 1, 1, 1))),
        "groups",
    ),
    "input": (lambda: of(make("Relu", ["x"], ["y"]), shape=["N", 2**62, 2**62]), "input values"),
    "input of many axes": (lambda: of(make("Relu", ["x"], ["y"]), shape=["N"] + [1] * 5000), "axes"),
    "negative input": (lambda: of(make("Relu", ["x"], ["y"]), shape=["N", -4]), "positive"),
    "empty input": (lambda: of(make("Relu", ["x"], ["y"]), shape=["N", 0]), "positive"),
    "reshape": (lambda: of(make("Reshape", ["x", "s"], ["y"]), s=integers(1, 2**62, 2**62)), "does not fit"),
    "reshape twice inferred": (lambda: of(make("Reshape", ["x", "s"], ["y"]), s=integers(1, -1, -1)), "does not fit"),
    "reshape to many axes": (lambda: of(make("Reshape", ["x", "s"], ["y"]), s=np.ones(200, np.int64)), "axes"),
    "unsqueeze": (lambda: of(make("Unsqueeze", ["x", "s"], ["y"]), s=np.arange(1, 200)), "axes"),
    "long list": (lambda: of(make("Reshape", ["x", "s"], ["y"]), s=np.ones(10**5, np.int64)), "list of integers"),
    "folded list": (
        lambda: of(make("ConstantOfShape", ["n"], ["s"]), make("Reshape", ["x", "s"], ["y"]), n=integers(2**23)),
        "list of integers",
    ),
    "expand the input": (lambda: of(make("Expand", ["x", "s"], ["y"]), s=integers(1, 2**40, 1)), "constant bytes"),
    "tile the input": (lambda: of(make("Tile", ["x", "s"], ["y"]), s=integers(1, 2**40)), "constant bytes"),
    "pad the input": (lambda: of(make("Pad", ["x", "s"], ["y"]), s=integers(0, 0, 0, 2**40)), "constant bytes"),
    "constant of shape": (lambda: added(make("ConstantOfShape", ["n"], ["c"]), n=integers(2**40)), "constant bytes"),
    "constant of negative shape": (lambda: added(make("ConstantOfShape", ["n"], ["c"]), n=integers(-4)), "negative"),
    "constant of overflowing shape": (
        lambda: added(make("ConstantOfShape", ["n"], ["c"]), n=integers(2**32, 2**32)),
        "constant bytes",
    ),
    "expand": (lambda: added(make("Expand", ["w", "n"], ["c"]), w=np.ones(1), n=integers(2**40)), "constant bytes"),
    "gather": (
        lambda: added(
            make("ConstantOfShape", ["n"], ["i"], value=helper.make_tensor("", 7, [1], [0])),
            make("Gather", ["w", "i"], ["c"]),
            n=integers(2**22),
            w=np.ones((1, 64)),
        ),
        "constant bytes",
    ),
    "broadcast": (
        lambda: added(
            make("ConstantOfShape", ["n"], ["a"]),
            make("ConstantOfShape", ["m"], ["b"]),
            make("Add", ["a", "b"], ["c"]),
            n=integers(2**20, 1),
            m=integers(1, 2**20),
        ),
        "constant bytes",
    ),
    "tower of concatenations": (lambda: added(*tower("Concat", 60), w=np.ones(4)), "constant bytes"),
    "many constants": (
        lambda: added(
            *(make("ConstantOfShape", ["n"], [f"c{i}"]) for i in range(40)),
            make("Concat", [f"c{i}" for i in range(40)], ["c"], axis=0),
            n=integers(2**22),
        ),
        "constant bytes",
    ),
    "many readers of one constant": (lambda: shared_weight(100), "constant bytes"),
    "range": (
        lambda: added(make("Range", ["a", "b", "d"], ["c"]), a=np.float32(0), b=np.float32(1e30), d=np.float32(1)),
        "whole numbers",
    ),
    "range of whole numbers": (
        lambda: added(make("Range", ["a", "b", "d"], ["c"]), a=np.int64(0), b=np.int64(2**62), d=np.int64(1)),
        "constant bytes",
    ),
    "range without steps": (
        lambda: added(make("Range", ["a", "b", "d"], ["c"]), a=np.int64(0), b=np.int64(9), d=np.int64(0)),
        "must not be zero",
    ),
    "tile": (lambda: added(make("Tile", ["w", "n"], ["c"]), w=np.ones(4), n=integers(2**40)), "constant bytes"),
    "pad": (lambda: added(make("Pad", ["w", "n"], ["c"]), w=np.ones(4), n=integers(0, 2**40)), "constant bytes"),
    "one hot": (
        lambda: added(make("OneHot", ["i", "n", "v"], ["c"]), i=integers(0), n=integers(2**40), v=np.ones(2)),
        "not folded",
    ),
    "random": (lambda: added(make("RandomNormal", [], ["c"], shape=[2**40])), "not folded"),
    "loop": (lambda: added(loop(), n=np.int64(2**60), start=np.ones(4)), "not folded"),
    "text": (text_node, "STRING"),
    "division by zero": (
        lambda: of(
            make("Div", ["s", "z"], ["t"]), make("Reshape", ["x", "t"], ["y"]), s=integers(1, 16), z=integers(0)
        ),
        "by zero",
    ),
    "overflow": (
        lambda: of(make("Mul", ["s", "s"], ["t"]), make("Reshape", ["x", "t"], ["y"]), s=integers(1, 2**32)),
        "beyond",
    ),
    "weight of no bytes": (lambda: changed(with_dims(2**40)), "weight bytes"),
    "weight of few bytes": (lambda: changed(with_dims(2**20)), "0 bytes of values"),
    "weight of overflowing shape": (lambda: changed(with_dims(2**32, 2**32, 2**32)), "weight bytes"),
    "weight of negative shape": (lambda: changed(with_dims(-1, 4)), "none < 0"),
    "weight of many axes": (lambda: changed(with_dims(*[1] * 5000)), "axes"),
    "empty weight": (lambda: changed(with_dims(4, 0)), "empty"),
    "weight outside": (lambda: changed(external(location="../../../../etc/passwd")), "no file in the folder"),
    "weight at the root": (lambda: changed(external(location="/etc/passwd")), "no file in the folder"),
    "weight of a device": (lambda: changed(external(location="/dev/zero")), "no file in the folder"),
    "weight in memory": (lambda: changed(external(location="*/_ORT_MEM_ADDR_/*", offset="64")), "no file"),
    "weight of itself": (lambda: changed(external(location="weight of itself.onnx", length="-5")), "no numbers"),
    "weight beyond its file": (lambda: changed(external(location="weight beyond its file.onnx", offset="9000")), "64"),
    "weight without place": (lambda: changed(external()), "does not state where"),
    "leaky slope": (lambda: nan_attribute("LeakyRelu", alpha=float("nan")), "slope"),
    "clip end": (lambda: nan_attribute("Clip", min=float("nan")), "nan"),
    "gemm alpha": (
        lambda: of(make("Gemm", ["x", "w"], ["y"], alpha=float("nan")), shape=["N", 4], w=np.ones((4, 4))),
        "NaN",
    ),
    "gemm beta": (
        lambda: of(
            make("Gemm", ["x", "w", "b"], ["y"], beta=float("inf")), shape=["N", 4], w=np.ones((4, 4)), b=np.ones(4)
        ),
        "round",
    ),
    "epsilon": (
        lambda: of(make("BatchNormalization", ["x", "w", "w", "w", "w"], ["y"], epsilon=float("nan")), w=np.ones(1)),
        "epsilon",
    ),
    "too many nodes": (
        lambda: of(*(make("Relu", ["x"], ["y"]) for _ in range(20_001)), shape=["N", 4]),
        "--allow nodes=20001",
    ),
    "half a hundred problems": (
        lambda: of(
            *(make("Erf", [f"v{i}" if i else "x"], [f"v{i + 1}"]) for i in range(500)), make("Relu", ["v500"], ["y"])
        ),
        "and 450 more",
    ),
    "long name": (
        lambda: of(make("Erf" * 10**5, ["x"], ["y" * 10**6], name="n" * 10**6), make("Relu", ["y" * 10**6], ["y"])),
        "no such operator",
    ),
    "many attributes": (lambda: many_attributes(), "attribute"),
    "unused imports": (lambda: changed(lambda m: m.opset_import.add(domain="ai.onnx", version=17)), "opsets"),
}


def many_attributes() -> bytes:
    node = make("Relu", ["x"], ["y"])
    for i in range(2 * 10**4):
        node.attribute.add(name=f"a{i}", type=AttributeProto.INT, i=1)
    return of(node)


def bomb() -> bytes:
    """Return some 65 kilobytes that unpacks to a valid model of 64 MiB: zeros that no node reads."""
    source = model([make("Relu", ["x"], ["y"])], ["N", 4])
    source.graph.initializer.append(numpy_helper.from_array(np.zeros(2**24, np.float32), "unread"))
    return gzip.compress(source.SerializeToString(), 9)


def write_all(folder: Path) -> dict[str, str]:
    """Write every file; return the word by which each must be refused, by file name."""
    words = {}
    for name, (build, word) in FILES.items():
        (folder / f"{name}.onnx").write_bytes(build())
        words[f"{name}.onnx"] = word
    (folder / "bomb.onnx.gz").write_bytes(bomb())
    (folder / "zeros.onnx.gz").write_bytes(gzip.compress(bytes(2**20)) * 600)
    return words | {"bomb.onnx.gz": "expanded bytes", "zeros.onnx.gz": "expanded bytes"}
