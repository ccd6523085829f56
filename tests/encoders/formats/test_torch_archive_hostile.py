"""Hostile .pt2 archives: refused by what they ask for, before anything is allocated, parsed deeply or run."""

import resource
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from encoders import read_network
from encoders.formats import open_runtime
from encoders.formats.errors import ModelFileError
from encoders.limits import Limits
from tests.networks.torch_archives import CONSTANTS, MODEL, WEIGHTS, Entries, edited, first, saved_entries

# CPU seconds and bytes that a refusal may take; torch itself is loaded before. What does harm takes minutes, a refusal
# a second or less: a machine that is busy does not count as harm.
SECONDS = 30.0
BYTES = 2**30

HUGE = 2**60

Meta = dict[str, Any]


def weight(change: Callable[[Meta], object]) -> Callable[[Entries], Entries]:
    return lambda entries: edited(entries, WEIGHTS, lambda config: change(first(config)["tensor_meta"]))


def program(change: Callable[[dict[str, Any]], object]) -> Callable[[Entries], Entries]:
    return lambda entries: edited(entries, MODEL, lambda model: change(model["graph_module"]["graph"]))


def sizes(*numbers: int) -> list[dict[str, int]]:
    return [{"as_int": number} for number in numbers]


def with_creator(graph: dict[str, Any], count: int, *shape: int) -> None:
    """Add constants of a shape, each the sum of the one before and a new one, and the last to the hidden layer."""
    values, linear = graph["tensor_values"], graph["nodes"][0]
    added: list[dict[str, Any]] = []

    def call(target: str, name: str, inputs: dict[str, Any]) -> None:
        values[name] = values["linear"] | {"sizes": sizes(4), "strides": sizes(1)}
        given = [{"name": key, "arg": argument, "kind": 1} for key, argument in inputs.items()]
        outputs = [{"as_tensor": {"name": name}}]
        added.append(linear | {"target": f"torch.ops.aten.{target}", "name": name, "outputs": outputs, "inputs": given})

    for index in range(count):
        call("ones.default", f"ones_{index}", {"size": {"as_ints": list(shape)}})
        if index:
            pair = {
                "self": {"as_tensor": {"name": f"sum_{index - 1}"}},
                "other": {"as_tensor": {"name": f"ones_{index}"}},
            }
            call("add.Tensor", f"sum_{index}", pair)
        else:
            call("clone.default", "sum_0", {"self": {"as_tensor": {"name": "ones_0"}}})
    relu = graph["nodes"][1]
    relu["target"] = "torch.ops.aten.add.Tensor"
    other = {"as_tensor": {"name": f"sum_{count - 1}"}}
    relu["inputs"] = [relu["inputs"][0] | {"name": "self"}, {"name": "other", "arg": other, "kind": 1}]
    graph["nodes"] = added + graph["nodes"]


def with_input(graph: dict[str, Any], *shape: int) -> None:
    graph["tensor_values"]["input"]["sizes"] = sizes(1, *shape)
    graph["tensor_values"]["input"]["strides"] = sizes(*[1] * (1 + len(shape)))


def with_expression(graph: dict[str, Any], text: str) -> None:
    graph["tensor_values"]["input"]["sizes"][0]["as_expr"]["expr_str"] = text


def with_tree(model: dict[str, Any], text: str) -> None:
    model["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = text


HOSTILE: dict[str, tuple[str, Callable[[Entries], Entries]]] = {
    "weight beyond its storage": ("beyond the", weight(lambda m: m.update(sizes=sizes(HUGE, 1)))),
    "weight of impossible shape": ("not possible", weight(lambda m: m.update(sizes=sizes(HUGE, HUGE, 0, 7)))),
    "weight with a far offset": ("beyond the", weight(lambda m: m.update(storage_offset={"as_int": HUGE}))),
    "weight with a stride": ("beyond the", weight(lambda m: m.update(strides=sizes(2**40, 1)))),
    "weight with a negative stride": ("cannot be read", weight(lambda m: m.update(strides=sizes(-1, 1)))),
    "weight of one value, repeated": (
        "allow constant_bytes",
        weight(lambda m: m.update(sizes=sizes(2**40, 3), strides=sizes(0, 0))),
    ),
    "weight without a shape": ("cannot be read", weight(lambda m: m.pop("sizes"))),
    "weight of symbolic size": ("cannot be read", weight(lambda m: m.update(sizes=[{"as_expr": {"expr_str": "s0"}}]))),
    "unknown element type": ("cannot load", weight(lambda m: m.update(dtype=1000))),
    "constant of a terabyte": ("allow constant_bytes", program(lambda g: with_creator(g, 1, 2**40))),
    "constants of a gibibyte": ("allow constant_bytes", program(lambda g: with_creator(g, 40, 2**22))),
    "constant of impossible size": ("node 'ones_0'", program(lambda g: with_creator(g, 1, 2**40, 2**40))),
    "constant of negative size": ("node 'ones_0'", program(lambda g: with_creator(g, 1, -3))),
    "input of a terabyte": ("allow input_values", program(lambda g: with_input(g, 2**20, 2**20))),
    "input of impossible size": ("", program(lambda g: with_input(g, HUGE, HUGE))),
    "expression of a megabyte": ("expression", program(lambda g: with_expression(g, "Add(" * 250_000))),
    "expression that backtracks": ("expression", program(lambda g: with_expression(g, "Integer(" + "1" * 100_000))),
    "many nodes": ("allow program_nodes", program(lambda g: g.update(nodes=g["nodes"] * 1_700))),
    "many values": (
        "allow program_nodes",
        program(lambda g: g["tensor_values"].update({f"t{i}": {} for i in range(6_000)})),
    ),
    "many expressions": (
        "symbolic sizes",
        program(lambda g: g["tensor_values"]["input"].update(sizes=g["tensor_values"]["input"]["sizes"] * 10_500)),
    ),
    "deep JSON": ("nested deeper", lambda e: e | {MODEL: b'{"a":' * 500 + b"1" + b"}" * 500}),
    "bottomless JSON": ("not JSON", lambda e: e | {MODEL: b'{"a":' + b"[" * 1_000_000}),
    "huge number": ("not JSON", lambda e: e | {CONSTANTS: b'{"config": ' + b"9" * 1_000_000 + b"}"}),
    "deep structure of inputs": (
        "schema",
        lambda e: edited(e, MODEL, lambda m: with_tree(m, "[" * 100_000)),
    ),
    "structures without end": (
        "say once",
        lambda e: edited(
            e, MODEL, lambda m: m["graph_module"].update(module_call_graph=m["graph_module"]["module_call_graph"] * 9)
        ),
    ),
    "long operator": (
        "unsupported operators",
        program(lambda g: g["nodes"][0].update(target="torch.ops.aten." + "a" * 1_000_000)),
    ),
    "arguments of other kinds": (
        "node 'linear'",
        program(lambda g: g["nodes"][0]["inputs"][1].update(arg={"as_ints": [HUGE]})),
    ),
}


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> Entries:
    return saved_entries(tmp_path_factory.mktemp("saved") / "a.pt2")


def write(path: Path, content: Entries, compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in content.items():
            archive.writestr(f"model/{name}", data)


def assert_refused_at_once(path: Path, word: str) -> None:
    memory, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    for read in (read_network, open_runtime):
        with pytest.raises(ModelFileError) as error:
            read(path)
        assert word in str(error.value) and str(path) in str(error.value)
        assert len(str(error.value)) < 5_000
    assert time.process_time() - start < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) * 1024 < BYTES


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused_at_once(name: str, entries: Entries, tmp_path: Path) -> None:
    word, edit = HOSTILE[name]
    write(tmp_path / "a.pt2", edit(entries))
    assert_refused_at_once(tmp_path / "a.pt2", word)


def test_compressed_entries_are_refused_unread(entries: Entries, tmp_path: Path) -> None:
    path = tmp_path / "a.pt2"
    write(path, entries | {"extra/zeros": bytes(2**26)}, zipfile.ZIP_DEFLATED)
    assert_refused_at_once(path, "is compressed")


def test_entries_that_share_their_bytes_are_refused_unread(entries: Entries, tmp_path: Path) -> None:
    """A thousand names in the table of contents for one entry of a megabyte."""
    path = tmp_path / "a.pt2"
    write(path, entries | {"extra/zeros": bytes(2**20)})
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        table = archive.start_dir
    last = content.rindex(b"PK\x01\x02")
    end = content.rindex(b"PK\x05\x06")
    copies = content[last:end] * 1_000
    count = len(entries) + 1 + 1_000
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, end - table + len(copies), table, 0)
    path.write_bytes(content[:end] + copies + tail)
    assert_refused_at_once(path, "its entries say to hold")


def test_an_entry_under_two_names_of_one_spelling_is_refused(entries: Entries, tmp_path: Path) -> None:
    path = tmp_path / "a.pt2"
    write(path, entries)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"other/{MODEL}", b"{}")
    assert_refused_at_once(path, "is there twice")


@pytest.mark.parametrize("name", ["program_nodes", "member_bytes", "text_bytes", "weight_bytes"])
def test_each_limit_can_be_met_and_is_named(name: str, entries: Entries, tmp_path: Path) -> None:
    write(tmp_path / "a.pt2", entries)
    with pytest.raises(ModelFileError, match=f"--allow {name}="):
        read_network(tmp_path / "a.pt2", Limits(**{name: 2}))
