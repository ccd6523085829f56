"""Where model and data of a run came from, for whoever loads them again: no part of the run's identity."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from verifier.commands.request import Request


def origin_of(request: Request) -> dict[str, Any]:
    """Return the arguments that load the model and the data again; files by their full paths."""
    origin: dict[str, Any] = {"mean": list(request.mean), "std": list(request.std), "layout": request.layout}
    origin |= placed({name: getattr(request, name) for name in ("model", "data")})
    if "data" in origin:
        origin["data_dir"] = None if request.data_dir is None else str(Path(request.data_dir).resolve())
        origin["split"] = request.split
        origin["label"] = None if request.label is None else str(request.label)
    return origin


def placed(named: Mapping[str, Any]) -> dict[str, str]:
    """Return where what was named by files or names lies, files by their full paths; nothing of objects."""
    places = {name: place for name, place in named.items() if isinstance(place, str | Path)}
    return {name: str(Path(place).resolve()) if Path(place).exists() else str(place) for name, place in places.items()}
