"""Certify a classifier of a table: radii relative to each column, a column that stays, words as labels.

A small ReLU network learns who is given a loan from a .csv file that is written first. Radii are shares of each
column's standard deviation; where somebody lives cannot change. The run is kept, and checked as somebody else would.
"""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import nn

from verifier import certify, check
from verifier.reports.certify import table

COLUMNS = ("age", "income", "debt", "region")


def write_loans(path: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Write a table of loans; return its numbers `(count, 4)`, and whether each was refused."""
    random = np.random.default_rng(0)
    age, income = random.uniform(18, 80, count), random.lognormal(10, 0.6, count)
    debt, region = random.uniform(0, 1, count), random.integers(0, 2, count)
    refused = np.log(income) - 10 - 2 * (debt - 0.5) + 0.02 * (age - 45) < 0
    x = np.stack([age, income, debt, region], axis=1)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*COLUMNS, "decision"])
        writer.writerows([*row, "refused" if no else "approved"] for row, no in zip(x.tolist(), refused, strict=True))
    return x, refused


def trained(x: np.ndarray, refused: np.ndarray) -> nn.Sequential:
    """Return a network of one logit, in float64 as the table is; its first layer also scales the columns."""
    torch.manual_seed(0)
    inputs, labels = torch.from_numpy((x - x.mean(axis=0)) / x.std(axis=0)), torch.from_numpy(refused).double()
    module = nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 1)).double()
    optimiser = torch.optim.Adam(module.parameters(), lr=0.02)
    for _ in range(200):
        optimiser.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(module(inputs)[:, 0], labels).backward()
        optimiser.step()
    first = module[0]
    assert isinstance(first, nn.Linear)
    with torch.no_grad():
        first.weight /= torch.from_numpy(x.std(axis=0))
        first.bias -= first.weight @ torch.from_numpy(x.mean(axis=0))
    return module


def main() -> None:
    """Print the table of a certification, how its data were read, and what a check of its run says."""
    with tempfile.TemporaryDirectory() as folder:
        path, run = Path(folder) / "loans.csv", Path(folder) / "run"
        module = trained(*write_loans(path, 300)).eval()
        torch.export.save(
            torch.export.export(module, (torch.zeros(2, 4).double(),), dynamic_shapes=[{0: torch.export.Dim("batch")}]),
            Path(folder) / "loans.pt2",
        )
        result = certify(
            Path(folder) / "loans.pt2", path, [0.05, 0.2], label="decision", scale="std", fix=["region"], limit=20,
            method="exact", out=run,
        )  # fmt: skip
        Console().print(table(result))
        print(result.data)
        checked = check(run)
        print(f"{checked.checked} certificates hold, {len(checked.refused)} claims refused")


if __name__ == "__main__":
    main()
