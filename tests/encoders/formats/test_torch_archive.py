"""Opening a .pt2 file runs no code from it: no pickle, no expression, no import, no guard."""

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from encoders import read_network
from encoders.formats import PICKLE_SUFFIXES, open_runtime
from encoders.formats.errors import ModelFileError
from tests.networks.torch_archives import (
    CONSTANTS,
    MODEL,
    SAMPLES,
    WEIGHTS,
    Entries,
    edited,
    first,
    saved_entries,
    write_entries,
)


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def torch_pickle(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def touching(mark: Path) -> str:
    return f"__import__('pathlib').Path({str(mark)!r}).touch()"


def with_expression(program: dict[str, Any], text: str) -> None:
    sizes = program["graph_module"]["graph"]["tensor_values"]["input"]["sizes"]
    sizes[0]["as_expr"]["expr_str"] = text


def with_tree(program: dict[str, Any], context: object) -> None:
    signature = program["graph_module"]["module_call_graph"][0]["signature"]
    signature["in_spec"] = json.dumps([1, {"type": "builtins.dict", "context": context, "children_spec": []}])


ATTACKS: dict[str, Callable[[Entries, Path], Entries]] = {
    "weights flagged as pickle": lambda e, mark: (
        edited(e, WEIGHTS, lambda c: first(c).update(use_pickle=True))
        | {"data/weights/weight_0": torch_pickle(Bomb(mark))}
    ),
    "opaque constant": lambda e, mark: (
        edited(
            e, CONSTANTS, lambda c: c["config"].update(a=first(json.loads(e[WEIGHTS])) | {"path_name": "opaque_obj_0"})
        )
        | {"data/constants/opaque_obj_0": pickle.dumps(Bomb(mark))}
    ),
    "custom object": lambda e, mark: (
        edited(
            e, CONSTANTS, lambda c: c["config"].update(a=first(json.loads(e[WEIGHTS])) | {"path_name": "custom_obj_0"})
        )
        | {"data/constants/custom_obj_0": pickle.dumps(Bomb(mark))}
    ),
    "weights of an older version": lambda e, mark: e | {"data/weights/model.pt": torch_pickle(Bomb(mark))},
    "constants of an older version": lambda e, mark: e | {"data/constants/model.pt": torch_pickle(Bomb(mark))},
    "second model": lambda e, mark: e | {"models/other.json": e[MODEL], "data/sample_inputs/other.pt": b""},
    "compiled library": lambda e, mark: e | {"data/aotinductor/model/a.so": b""},
    "expression": lambda e, mark: edited(e, MODEL, lambda p: with_expression(p, touching(mark))),
    "range of an expression": lambda e, mark: edited(
        e, MODEL, lambda p: p["range_constraints"].update({touching(mark): {"min_val": 0, "max_val": None}})
    ),
    "enum in the structure of inputs": lambda e, mark: edited(
        e, MODEL, lambda p: with_tree(p, json.dumps({"__enum__": True, "fqn": "antigravity:a", "name": "a"}))
    ),
    "function outside the operators": lambda e, mark: edited(
        e, MODEL, lambda p: p["graph_module"]["graph"]["nodes"][0].update(target="torch.load")
    ),
    "no schema": lambda e, mark: edited(e, MODEL, lambda p: p.pop("graph_module")),
    "not JSON": lambda e, mark: e | {MODEL: b"{"},
    "no weights": lambda e, mark: {name: content for name, content in e.items() if "weight_0" not in name},
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_archive_with_more_than_plain_data_is_refused_and_runs_nothing(name: str, tmp_path: Path) -> None:
    path, mark = tmp_path / "model.pt2", tmp_path / "mark"
    entries = ATTACKS[name](saved_entries(path), mark)
    write_entries(path, entries)
    for read in (read_network, open_runtime):
        with pytest.raises(ModelFileError, match=r"model\.pt2"):
            read(path)
    assert not mark.exists()


def test_sample_inputs_and_guards_are_dropped_unread(tmp_path: Path) -> None:
    path, mark = tmp_path / "model.pt2", tmp_path / "mark"
    entries = saved_entries(path)
    digest = read_network(path).digest
    entries = edited(entries, MODEL, lambda p: p.update(guards_code=[f"{touching(mark)} is None"]))
    write_entries(path, entries | {SAMPLES: torch_pickle(Bomb(mark))})
    assert read_network(path).digest == digest
    assert open_runtime(path)(torch.zeros(2, 3).numpy()).shape == (2, 2)
    assert not mark.exists()


def test_an_operator_with_side_effects_is_not_executed(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    entries = saved_entries(path)

    def edit(program: dict[str, Any]) -> None:
        nodes = program["graph_module"]["graph"]["nodes"]
        index = next(i for i, node in enumerate(nodes) if "relu" in node["target"])
        nodes[index]["target"] = "torch.ops.aten.erfinv.default"

    write_entries(path, edited(entries, MODEL, edit))
    with pytest.raises(ModelFileError, match=r"aten\.erfinv"):
        open_runtime(path)


def test_malformed_archives_are_refused_by_path(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    saved_entries(path)
    good = path.read_bytes()
    for content in (good[: len(good) // 2], b"text" * 50, b""):
        path.write_bytes(content)
        with pytest.raises(ModelFileError, match=r"model\.pt2"):
            read_network(path)
    write_entries(path, {"readme": b"a zip file of something else"})
    with pytest.raises(ModelFileError, match=r"not a complete \.pt2 archive"):
        read_network(path)
    write_entries(path, {".data/version": b"3", "readme": b"a torch archive of something else"})
    with pytest.raises(ModelFileError, match="not an exported program"):
        read_network(path)


@pytest.mark.parametrize("suffix", PICKLE_SUFFIXES)
def test_pickles_are_refused_unopened_with_the_line_that_exports(suffix: str, tmp_path: Path) -> None:
    path, mark = tmp_path / f"model{suffix}", tmp_path / "mark"
    torch.save(Bomb(mark), path)
    for read in (read_network, open_runtime):
        with pytest.raises(ModelFileError, match=r"torch\.export\.save\(torch\.export\.export\(model\.eval\(\)"):
            read(path)
    assert not mark.exists()
