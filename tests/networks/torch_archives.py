"""The entries of a saved `.pt2` archive, to be changed and written again."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

MODEL = "models/model.json"
SAMPLES = "data/sample_inputs/model.pt"
WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"

Entries = dict[str, bytes]


def saved_entries(path: Path) -> Entries:
    """Save a small program; return its entries without the root folder's name."""
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    exported = torch.export.export(
        model, (torch.zeros(2, 3),), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False
    )
    torch.export.save(exported, path)
    with zipfile.ZipFile(path) as archive:
        return {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}


def write_entries(path: Path, entries: Entries) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(f"model/{name}", content)


def edited(entries: Entries, name: str, edit: Callable[[Any], object]) -> Entries:
    value = json.loads(entries[name])
    edit(value)
    return entries | {name: json.dumps(value).encode()}


def first(config: dict[str, Any]) -> dict[str, Any]:
    return next(iter(config["config"].values()))
