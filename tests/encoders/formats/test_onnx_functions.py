"""Functions that an ONNX file defines: read as onnxruntime runs them, and counted before they are expanded."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from encoders import read_network
from encoders.formats import open_runtime
from encoders.formats.errors import ModelFileError
from encoders.formats.onnx_reader import convert
from encoders.limits import LimitError, Limits

make = helper.make_node
OPSETS = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]


def function(name: str, inputs: list[str], outputs: list[str], nodes: list, attributes: tuple = (), opset: int = 18):
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("own", 1)]
    return helper.make_function("own", name, inputs, outputs, nodes, imports, list(attributes))


def referring(node: onnx.NodeProto, name: str, to: str, kind: int) -> onnx.NodeProto:
    """Return the node with an attribute that is the caller's."""
    node.attribute.append(onnx.AttributeProto(name=name, ref_attr_name=to, type=kind))
    return node


def model(nodes: list, functions: list, weights: dict | None = None, shape: tuple = ("N", 4)) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, shape)],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in (weights or {}).items()],
    )
    return helper.make_model(graph, functions=functions, opset_imports=OPSETS, ir_version=8)


def layered() -> onnx.ModelProto:
    """Two calls of a layer, which calls a leaky relu whose slope is the caller's."""
    leaky = function(
        "leaky", ["z"], ["a"], [referring(make("LeakyRelu", ["z"], ["a"]), "alpha", "slope", 1)], ("slope",)
    )
    inner = referring(make("leaky", ["z"], ["a"], domain="own"), "slope", "steep", 1)
    layer = function(
        "layer", ["x", "w"], ["out", "sum"],
        [make("MatMul", ["x", "w"], ["z"]), inner, make("Add", ["a", "x"], ["out"]), make("Neg", ["a"], ["sum"])],
        ("steep",),
    )  # fmt: skip
    calls = [
        make("layer", ["x", "w"], ["h", "minus"], domain="own", steep=0.25),
        make("layer", ["h", "v"], ["k", ""], domain="own", steep=0.5),
        make("Sub", ["k", "minus"], ["y"]),
    ]
    random = np.random.default_rng(1)
    return model(calls, [leaky, layer], {"w": random.normal(size=(4, 4)), "v": random.normal(size=(4, 4))})


def test_calls_of_functions_are_read_as_onnxruntime_runs_them(tmp_path: Path) -> None:
    onnx.save(layered(), tmp_path / "model.onnx")
    network, runtime = read_network(tmp_path / "model.onnx"), open_runtime(tmp_path / "model.onnx")
    assert [node.op.kind for node in network.nodes].count("leaky-relu") == 2
    x = np.random.default_rng(2).normal(size=(5, 4)).astype(np.float32)
    assert np.allclose(runtime(x), network.evaluate(x).numpy(), atol=1e-5)


def test_what_a_function_holds_and_nobody_reads_does_not_reach_the_runtime(tmp_path: Path) -> None:
    # onnxruntime would compute a constant of 2^40 bytes when it opens the file.
    huge = [
        make("Constant", [], ["n"], value_ints=[2**38]),
        make("ConstantOfShape", ["n"], ["unread"]),
        make("Relu", ["x"], ["a"]),
    ]
    onnx.save(model([make("f", ["x"], ["y"], domain="own")], [function("f", ["x"], ["a"], huge)]), tmp_path / "m.onnx")
    x = np.array([[-1.0, 2.0, 0.0, 3.0]], np.float32)
    assert open_runtime(tmp_path / "m.onnx")(x).tolist() == [[0.0, 2.0, 0.0, 3.0]]


def tower(height: int, body: str = "Relu") -> onnx.ModelProto:
    """A function of one node, and above it functions that call the one below twice."""
    functions = [function("f0", ["x"], ["a"], [make(body, ["x"], ["a"])])]
    for level in range(1, height + 1):
        below = f"f{level - 1}"
        calls = [make(below, ["x"], ["b"], domain="own"), make(below, ["b"], ["a"], domain="own")]
        functions.append(function(f"f{level}", ["x"], ["a"], calls))
    return model([make(f"f{height}", ["x"], ["y"], domain="own")], functions)


def test_a_tower_of_functions_is_expanded_within_the_limits_and_refused_beyond() -> None:
    assert len(convert(tower(4), "f.onnx").nodes) == 2**4
    for height in (20, 45):
        with pytest.raises(LimitError, match="functions expanded, asks for"):
            convert(tower(height), "f.onnx")
    with pytest.raises(LimitError, match="expanded bytes"):
        convert(tower(12), "f.onnx", Limits(expanded_bytes=10_000))


def test_an_attribute_that_a_call_repeats_counts_wherever_it_is_referred_to() -> None:
    nodes = [referring(make("Constant", [], [f"c{i}"]), "value", "held", 4) for i in range(40)]
    repeating = function("f", ["x"], ["a"], [*nodes, make("Add", ["x", "c0"], ["a"])], ("held",))
    held = numpy_helper.from_array(np.ones(2**18, np.float32))
    source = model([make("f", ["x"], ["y"], domain="own", held=held)], [repeating], shape=("N", 2**18))
    with pytest.raises(LimitError, match="expanded bytes"):
        convert(source, "f.onnx", Limits(expanded_bytes=2**24))


def deep(height: int) -> onnx.ModelProto:
    functions = [function("f0", ["x"], ["a"], [make("Relu", ["x"], ["a"])])]
    for level in range(1, height + 1):
        call = make(f"f{level - 1}", ["x"], ["a"], domain="own")
        functions.append(function(f"f{level}", ["x"], ["a"], [call]))
    return model([make(f"f{height}", ["x"], ["y"], domain="own")], functions)


def branching() -> onnx.ModelProto:
    graph = helper.make_graph([make("Relu", ["x"], ["z"])], "b", [], [helper.make_tensor_value_info("z", 1, None)])
    node = make("If", ["x"], ["a"], then_branch=graph, else_branch=graph)
    return model([make("f", ["x"], ["y"], domain="own")], [function("f", ["x"], ["a"], [node])])


RELU = [make("Relu", ["x"], ["a"])]
REFUSED = {
    "calls itself": lambda: model(
        [make("f", ["x"], ["y"], domain="own")],
        [function("f", ["x"], ["a"], [make("f", ["x"], ["a"], domain="own")])],
    ),
    "defined twice": lambda: model([make("f", ["x"], ["y"], domain="own")], [function("f", ["x"], ["a"], RELU)] * 2),
    "uses opset 13": lambda: model(
        [make("f", ["x"], ["y"], domain="own")], [function("f", ["x"], ["a"], RELU, opset=13)]
    ),
    "in more than 50 calls": lambda: deep(2000),
    "holds a graph": branching,
    "(LRN)": lambda: tower(1, "LRN"),
}


@pytest.mark.parametrize("word", REFUSED)
def test_functions_that_cannot_be_expanded_are_refused_by_what_is_wrong(word: str) -> None:
    with pytest.raises(ModelFileError) as error:
        convert(REFUSED[word](), "f.onnx")
    assert word in str(error.value)
