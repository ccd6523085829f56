"""Runs as one page: a file that anyone opens in a browser, with what was asked, proved, found and left open."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from encoders.files import write_atomically
from verifier.pages.render import page
from verifier.pages.run_page import page_of
from verifier.runs.records import SCHEMA

# The first line of every page: a file that begins otherwise is somebody's and stays.
FIRST_LINE = "<!doctype html>"


@dataclasses.dataclass(frozen=True, eq=False)
class ReportResult:
    """What `report` returns: the page, its size, and the runs and inputs that it is about."""

    out: Path
    runs: tuple[str, ...]
    inputs: int
    bytes: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        fields = dataclasses.asdict(self)
        return {"schema": SCHEMA, "command": "report", **fields, "out": str(self.out), "runs": list(self.runs)}


def report(runs: str | Path | Sequence[str | Path], out: str | Path, *, title: str | None = None) -> ReportResult:
    """Write a page about one run folder or several, side by side, and return where it is.

    runs: nothing in the folders is changed, and every text in them is escaped. out: a page there is replaced. Models
    and data are read where the runs found them, for the graph and for pictures; without them the page says so.

    Raises ValueError if a folder holds no run or no records, or if `out` is a folder or a file that is no page.
    """
    started = time.perf_counter()
    folders = [Path(runs)] if isinstance(runs, str | Path) else [Path(run) for run in runs]
    if not folders:
        raise ValueError("a page is about at least one run; name the folder of a run")
    path = Path(out)
    _check_target(path)
    pages = [page_of(folder) for folder in folders]
    default = pages[0].model if len(pages) == 1 else f"{len(pages)} runs"
    content = page(pages, title or f"Robustness of {default}").encode()
    write_atomically(path, content)
    inputs = sum(len(run.rows) for run in pages)
    return ReportResult(path, tuple(map(str, folders)), inputs, len(content), time.perf_counter() - started)


def _check_target(path: Path) -> None:
    """Raise ValueError unless a page may be written there."""
    if path.is_dir():
        raise ValueError(f"--out {path} is a folder; name a file, say {path / 'page.html'}")
    if not path.parent.is_dir():
        raise ValueError(f"--out {path}: there is no folder {path.parent}")
    if path.exists():
        with path.open("rb") as file:
            if file.read(len(FIRST_LINE)).lower() != FIRST_LINE.encode():
                raise ValueError(f"--out {path} exists and is no page; name another file, or remove it")
