"""Certify a torch module of your own on arrays of your own.

A small ReLU network learns to tell two half moons apart; then every point is asked for a bracket around its robust
radius. Nothing is written to the disk; `out="folder"` would keep records, witnesses and a figure.
"""

from __future__ import annotations

import numpy as np
import torch
from rich.console import Console
from torch import nn

from verifier import certify
from verifier.reports.certify import table


def half_moons(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return points `(count, 2)` in [0, 1]^2 on two arcs, and which arc each lies on."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, count)
    angle = random.uniform(0, np.pi, count)
    x = np.where(labels == 0, np.cos(angle), 1.0 - np.cos(angle))
    y = np.where(labels == 0, np.sin(angle), 0.5 - np.sin(angle))
    points = np.stack([(x + 1.2) / 3.4, (y + 0.7) / 1.9], axis=1) + random.normal(0, 0.02, (count, 2))
    return points.clip(0.0, 1.0).astype(np.float32), labels


def trained(x: np.ndarray, y: np.ndarray) -> nn.Sequential:
    """Return a network of 16 and 16 relus after 300 steps of Adam."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2))
    optimiser = torch.optim.Adam(module.parameters(), lr=0.02)
    for _ in range(300):
        optimiser.zero_grad()
        nn.functional.cross_entropy(module(torch.from_numpy(x)), torch.from_numpy(y)).backward()
        optimiser.step()
    return module


def main() -> None:
    """Print the table of a certification, and the bracket of one input."""
    module = trained(*half_moons(400, seed=0))
    x, y = half_moons(16, seed=1)
    # Radii are in the units of x. `clip` is the domain that balls are cut to; without it there is none.
    result = certify(module, (x, y), [0.02, 0.05, 0.1], method="exact", clip=(0.0, 1.0))
    Console().print(table(result))
    index, bracket = next((i, b) for i, b in result.brackets.items() if np.isfinite(b.upper))
    print(f"input {index} is safe within {bracket.lower:.5f} ({bracket.lower_method}, {bracket.strength}) "
          f"and broken at {bracket.upper:.5f} ({bracket.upper_method})")  # fmt: skip


if __name__ == "__main__":
    main()
