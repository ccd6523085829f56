"""The files of a run: a job to run, and the lines of its records."""

import json
from pathlib import Path

import numpy as np
import torch

from encoders import write_network

CLIP = (0.0, 1.0)


def write_job(place: Path, network, count: int, wrong: int = 0) -> tuple[Path, Path]:
    """Write a network and inputs labelled by it, the first `wrong` ones wrongly; return both paths."""
    write_network(network, place / "model.safetensors")
    x = torch.rand(count, *network.input_shape, generator=torch.Generator().manual_seed(4))
    y = network.evaluate(x).argmax(dim=1).numpy()
    y[:wrong] = (y[:wrong] + 1) % network.output_shape[0]
    np.savez(place / "data.npz", x=x.numpy(), y=y)
    return place / "model.safetensors", place / "data.npz"


def records_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


def write_records(folder: Path, records: list[dict]) -> None:
    (folder / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
