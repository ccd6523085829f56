"""The native format: what is written is read again, bit for bit, and nothing else is read."""

import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from encoders import Network, Node, read_network, write_network
from encoders.formats import open_runtime, read_metadata
from encoders.formats.errors import ModelFileError
from encoders.formats.native import FORMAT
from encoders.limits import Limits
from encoders.network import INPUT
from encoders.ops import (
    OPS,
    Affine,
    Mwd,
)  # fmt: skip
from tests.conftest import REPOSITORY
from tests.networks.chains import chain
from tests.networks.op_examples import EXAMPLES


def example(kind: str) -> Network:
    shape, op = EXAMPLES[kind]
    return Network((Node(f"{kind} näme", op, (INPUT,) * op.arity),), shape, torch.float32)


def test_every_op_has_an_example() -> None:
    assert set(EXAMPLES) == set(OPS)


@pytest.mark.parametrize("kind", OPS)
def test_a_round_trip_keeps_everything(kind: str, tmp_path: Path) -> None:
    network, path = example(kind), tmp_path / "model.safetensors"
    metadata = {"accuracy": 0.1, "classes": ["a", "ß"], "nested": {"empty": None}}
    write_network(network, path, metadata)
    read = read_network(path)
    assert read.digest == network.digest
    assert [(n.name, n.inputs, n.op.settings()) for n in read.nodes] == [
        (n.name, n.inputs, n.op.settings()) for n in network.nodes
    ]
    for before, after in zip(network.nodes, read.nodes, strict=True):
        assert before.op.parameters().keys() == after.op.parameters().keys()
        for name, value in before.op.parameters().items():
            assert value.dtype == after.op.parameters()[name].dtype
            assert torch.equal(value, after.op.parameters()[name])
    assert read_metadata(path) == metadata
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_the_link_of_mwd_units_is_written_where_it_is_not_the_default(tmp_path: Path) -> None:
    gaussian = example("mwd").output.op
    assert gaussian.settings() == {}
    linear = Mwd(gaussian.weight, gaussian.attractor, gaussian.negated, torch.rand(3), "linear")
    networks = [chain((4,), op) for op in (gaussian, linear)]
    for network in networks:
        write_network(network, tmp_path / "a.safetensors")
        read = read_network(tmp_path / "a.safetensors")
        assert read.digest == network.digest and read.output.op.link == network.output.op.link
    assert networks[0].digest != networks[1].digest


def test_shared_and_transposed_weights_are_written_as_values(tmp_path: Path) -> None:
    weight = torch.rand(4, 4, dtype=torch.float64)
    network = chain((4,), Affine(weight), Affine(weight), Affine(weight.t()), dtype=torch.float64)
    write_network(network, tmp_path / "a.safetensors")
    read = read_network(tmp_path / "a.safetensors")
    assert (read.digest, read.dtype) == (network.digest, torch.float64)
    assert read_metadata(tmp_path / "a.safetensors") == {}


def test_the_runtime_is_the_network_in_its_own_dtype(tmp_path: Path) -> None:
    network = example("mwd")
    write_network(network, tmp_path / "a.safetensors")
    x = torch.rand(5, 4)
    assert torch.equal(torch.from_numpy(open_runtime(tmp_path / "a.safetensors")(x.numpy())), network.evaluate(x))


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_network(example("relu"), path)
    before = path.read_bytes()
    with pytest.raises(ModelFileError, match="plain JSON"):
        write_network(example("tanh"), path, {"when": object()})
    assert path.read_bytes() == before
    with pytest.raises(ModelFileError, match="missing"):
        write_network(example("tanh"), tmp_path / "missing" / "a.safetensors")
    with pytest.raises(ModelFileError, match=r"as \.safetensors only"):
        write_network(example("tanh"), tmp_path / "a.onnx")


Change = Callable[[dict[str, Any], dict[str, torch.Tensor]], object]

DAMAGES: dict[str, Change] = {
    "op 'sort' is unknown": lambda g, t: g["nodes"][0].update(op="sort"),
    "'colour' is unknown": lambda g, t: g["nodes"][0]["settings"].update(colour=1),
    "'stride' is missing": lambda g, t: g["nodes"][0]["settings"].pop("stride"),
    "groups must be int": lambda g, t: g["nodes"][0]["settings"].update(groups=True),
    "stride must have 2 entries": lambda g, t: g["nodes"][0]["settings"].update(stride=[1, 1, 1]),
    "dilation must be a list": lambda g, t: g["nodes"][0]["settings"].update(dilation=1),
    "dilation must be int": lambda g, t: g["nodes"][0]["settings"].update(dilation=[1.0, 1]),
    "tensor 'weight' is missing": lambda g, t: t.pop("0.weight"),
    "'9.weight' belongs to no node": lambda g, t: t.update({"9.weight": torch.zeros(1)}),
    "element type torch.int64": lambda g, t: t.update({"0.weight": t["0.weight"].long()}),
    "must have 4 axes": lambda g, t: t.update({"0.weight": t["0.weight"][0].clone()}),
    "holds NaN or infinity": lambda g, t: t["0.weight"].fill_(torch.nan),
    "unknown or later input": lambda g, t: g["nodes"][0].update(inputs=["b"]),
    "list of names": lambda g, t: g["nodes"][0].update(inputs="input"),
    "dtype 'float16' is unknown": lambda g, t: g.update(dtype="float16"),
    "input_shape must be int": lambda g, t: g.update(input_shape=[4, "6", 6]),
    "nodes must be a list": lambda g, t: g.update(nodes={}),
    "has no nodes": lambda g, t: (g.update(nodes=[]), t.clear()),
    "must be a JSON object": lambda g, t: g.update(nodes=[None]),
    "name must be text": lambda g, t: g["nodes"][0].update(name=1),
    "'extra' is unknown": lambda g, t: g.update(extra=1),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_a_damaged_graph_is_refused_by_what_is_wrong_with_it(message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_network(example("conv2d"), path)
    tensors = load_file(path)
    settings = EXAMPLES["conv2d"][1].settings()
    node = {"name": "a", "op": "conv2d", "inputs": [INPUT], "settings": settings}
    graph = {"input_shape": [4, 6, 6], "dtype": "float32", "nodes": [node]}
    DAMAGES[message](graph, tensors)
    header = {"format": FORMAT, "schema": "1", "network": json.dumps(graph), "metadata": "{}"}
    save_file(tensors, path, header)
    with pytest.raises(ModelFileError) as error:
        read_network(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)


HEADERS: dict[str, dict[str, str] | None] = {
    "without a network of this project": None,
    "(format 'pt')": {"format": "pt"},
    "schema '2'": {"format": FORMAT, "schema": "2"},
    "'network' is missing or not JSON": {"format": FORMAT, "schema": "1", "network": "{", "metadata": "{}"},
    "'network' must be a JSON object": {"format": FORMAT, "schema": "1", "network": "[]", "metadata": "{}"},
}


@pytest.mark.parametrize("message", HEADERS)
def test_a_foreign_header_is_refused(message: str, tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "a.safetensors", HEADERS[message])
    with pytest.raises(ModelFileError) as error:
        read_network(tmp_path / "a.safetensors")
    assert message in str(error.value)


def test_truncated_and_foreign_bytes_are_refused_by_path(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_network(example("affine"), path)
    content = path.read_bytes()
    for damaged in (content[:-3], content[:20], b"text", b"\xff" * 100):
        path.write_bytes(damaged)
        for read in (read_network, read_metadata, open_runtime):
            with pytest.raises(ModelFileError, match="not a complete safetensors file"):
                read(path)


# CPU seconds of a refusal that asks for no work: what does harm takes minutes, so a busy machine does not matter.
SECONDS = 30.0
CASE = REPOSITORY / "tests" / "cases" / "hostile" / "st_pool.safetensors"


def test_a_map_of_billions_is_refused_by_the_option_that_allows_it() -> None:
    for read in (read_network, open_runtime):
        with pytest.raises(ModelFileError, match=r"st_pool\.safetensors: .*--allow input_values=2000000000"):
            read(CASE)


def file_of(path: Path, shape: list[int], nodes: list[dict[str, Any]], tensors: dict[str, torch.Tensor]) -> Path:
    graph = {"input_shape": shape, "dtype": "float32", "nodes": nodes}
    save_file(tensors, path, {"format": FORMAT, "schema": "1", "network": json.dumps(graph), "metadata": "{}"})
    return path


def entry(op: str, inputs: list[str] | None = None, name: str = "a", **settings: object) -> dict[str, Any]:
    return {"name": name, "op": op, "inputs": inputs or [INPUT], "settings": settings}


ONES = [1, 1]
POOL: dict[str, Any] = {"kernel": ONES, "stride": ONES, "padding": [0, 0, 0, 0], "dilation": ONES}
CONVOLUTION: dict[str, Any] = {"stride": ONES, "padding": [0, 0, 0, 0], "dilation": ONES, "groups": 1}

HOSTILE: dict[str, tuple[str, list[int], list[dict[str, Any]], dict[str, torch.Tensor]]] = {
    "window": ("allow window_cells=", [1, 9, 9], [entry("max-pool2d", **POOL | {"kernel": [2**30, 2**30]})], {}),
    "padding": ("node", [1, 9, 9], [entry("max-pool2d", **POOL | {"padding": [2**30] * 4, "kernel": [9, 9]})], {}),
    "padded convolution": (
        "allow node_values=",
        [1, 9, 9],
        [entry("conv2d", **CONVOLUTION | {"padding": [2**30] * 4})],
        {"0.weight": torch.ones(1, 1, 1, 1)},
    ),
    "number beyond 64 bits": (
        "supported: up to 2147483647",
        [1, 9, 9],
        [entry("max-pool2d", **POOL | {"stride": [2**70, 1]})],
        {},
    ),
    "float beyond all floats": ("must be float", [4], [entry("leaky-relu", slope=10**400)], {}),
    "doubling": (
        "allow node_values=",
        [1024],
        [
            entry("concat", [last, last], name, axis=0)
            for last, name in zip([INPUT, *"abcdefghijklmnopqrs"], "abcdefghijklmnopqrst", strict=True)
        ],
        {},
    ),
    "many axes": ("positive sizes", [1] * 1000, [entry("relu")], {}),
    "many axes later": ("1000 axes", [1], [entry("reshape", shape=[1] * 1000)], {}),
    "empty input": ("positive sizes", [0, 4], [entry("relu")], {}),
    "negative input": ("positive sizes", [-4], [entry("relu")], {}),
    "weight without values": ("node", [4], [entry("affine")], {"0.weight": torch.ones(2**40, 0)}),
    "element type of eight bits": (
        "element type torch.float8",
        [4],
        [entry("affine")],
        {"0.weight": torch.ones(2, 4).to(torch.float8_e4m3fn)},
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_graph_is_refused_at_once(name: str, tmp_path: Path) -> None:
    word, shape, nodes, tensors = HOSTILE[name]
    path = file_of(tmp_path / "a.safetensors", shape, nodes, tensors)
    start = time.process_time()
    with pytest.raises(ModelFileError) as error:
        read_network(path)
    assert word in str(error.value) and str(path) in str(error.value)
    assert time.process_time() - start < SECONDS


def test_headers_that_lie_about_sizes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for header in (
        {"a": {"dtype": "F32", "shape": [2**62], "data_offsets": [0, 2**64 - 1]}},
        {"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [2**60, 2**60 + 4]}},
        {"a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}},
        {"__metadata__": {"format": 1}},
    ):
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * 4)
        with pytest.raises(ModelFileError, match=r"a\.safetensors"):
            read_network(path)
    path.write_bytes((2**62).to_bytes(8, "little") + b"{}")
    with pytest.raises(ModelFileError, match="not a complete safetensors file"):
        read_network(path)


def test_limits_of_the_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_network(example("affine"), path)
    for limits in (Limits(weight_bytes=8), Limits(text_bytes=8), Limits(node_values=1), Limits(operations=1)):
        with pytest.raises(ModelFileError, match=r"--allow [a-z_]+="):
            read_network(path, limits)


def test_a_long_chain_is_read_in_linear_time(tmp_path: Path) -> None:
    names = [INPUT, *(f"n{index}" for index in range(20_000))]
    nodes = [entry("relu", [before], name) for before, name in itertools.pairwise(names)]
    path = file_of(tmp_path / "a.safetensors", [2], nodes, {})
    start = time.process_time()
    assert len(read_network(path).nodes) == 20_000
    # Half a second; with a walk over all nodes for each of them it was minutes.
    assert time.process_time() - start < SECONDS
