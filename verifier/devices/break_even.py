"""From how much work on a device is faster than the processor, measured here once and kept.

A pass is a batch through a few layers in float64, there and back: what is decided about a batch is decided on the
processor. Work is counted in multiply-adds. It is measured at widths that double, and the least work from which on the
device is faster at every size is the answer; infinite where there is none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from encoders.files import write_atomically

BATCH, LAYERS, REPEATS = 64, 4, 3
WIDTHS = (16, 32, 64, 128, 256, 512, 1024, 2048)
# No more is measured once the device is so many times as fast.
PLAIN = 4.0
NAME = "device-break-even.json"


def break_even(device: torch.device, folder: Path | None = None) -> float:
    """Return the multiply-adds of a pass from which on a device is faster than the processor; infinite for none.

    folder: that of the user's caches. What was measured there before is taken, of the same machine, number of
    processors and threads, version of torch and device; where it cannot be kept it is measured again.
    """
    path, key = (cache_folder() if folder is None else folder) / NAME, _key(device)
    known = _read(path)
    if key in known:
        return known[key]
    found = least_work(measured(device))
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        # JSON has no infinity.
        kept = {name: None if math.isinf(work) else work for name, work in {**known, key: found}.items()}
        write_atomically(path, json.dumps(kept, indent=2, sort_keys=True).encode())
    return found


def least_work(rows: Sequence[tuple[float, float, float]]) -> float:
    """Return from which work on the device is faster at every size; rows: (work, seconds here, seconds there)."""
    least = math.inf
    for work, here, there in sorted(rows, reverse=True):
        if there >= here:
            break
        least = work
    return least


def measured(device: torch.device, clock: Callable[[], float] = time.perf_counter) -> list[tuple[float, float, float]]:
    """Return (multiply-adds, seconds on the processor, seconds on the device) of a pass at each width."""
    rows: list[tuple[float, float, float]] = []
    for width in WIDTHS:
        here, there = (_seconds(width, where, clock) for where in (torch.device("cpu"), device))
        rows.append((float(BATCH * LAYERS * width**2), here, there))
        if here > PLAIN * there:
            break
    return rows


def cache_folder() -> Path:
    """Return the user's folder for what can be made again."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA")
    else:
        base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "robustness-verifier"


def _seconds(width: int, device: torch.device, clock: Callable[[], float]) -> float:
    """Return the shortest time of a pass at a width, after one that does not count."""
    generator = torch.Generator().manual_seed(width)
    x = torch.rand(BATCH, width, generator=generator, dtype=torch.float64)
    weight = (torch.rand(width, width, generator=generator, dtype=torch.float64) / width).to(device)
    shortest = math.inf
    for repeat in range(REPEATS + 1):
        started = clock()
        value = x.to(device)
        for _ in range(LAYERS):
            value = (value @ weight).clamp(min=0.0)
        # What is on the processor again is done.
        value.cpu()
        seconds = clock() - started
        if repeat:
            shortest = min(shortest, seconds)
    return shortest


def _key(device: torch.device) -> str:
    """Return what tells times apart; by a digest, so that a shared folder names no machine."""
    name = torch.cuda.get_device_name(device) if torch.cuda.is_available() else str(device)
    threads = [os.cpu_count(), torch.get_num_threads()]
    text = json.dumps([platform.node(), platform.machine(), *threads, torch.__version__, name])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _read(path: Path) -> dict[str, float]:
    """Return what was measured before; what is no such file says nothing."""
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(values, dict):
        return {}
    found = {name: math.inf if work is None else work for name, work in values.items()}
    return {name: float(work) for name, work in found.items() if type(work) in (int, float) and work >= 0}
