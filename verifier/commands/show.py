"""What a model file holds, and what there is to ask about it with."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from encoders.network import Network
from verifier.subject import open_model


@dataclasses.dataclass(frozen=True, eq=False)
class ShowResult:
    """What `show` returns.

    network: of the model file; None without a model.
    metadata: what the file says beside it, as text.
    methods, attacks: which tables were asked for.
    """

    network: Network | None
    metadata: dict[str, str]
    methods: bool = False
    attacks: bool = False


def show(model: str | Path | None = None, *, methods: bool = False, attacks: bool = False) -> ShowResult:
    """Return what a model file holds; nothing is run, and the graph is not compared with its runtime.

    model: a file (.onnx, .pt2, .safetensors) or a shipped name; None: only the tables.
    methods, attacks: also list those that exist, and why a method does not take the model.

    Raises ValueError with what is wrong, also where nothing is asked.
    """
    if model is None and not (methods or attacks):
        raise ValueError("name a MODEL, or ask for --methods or --attacks")
    network, metadata = (None, {}) if model is None else open_model(model)
    return ShowResult(network, {key: str(value) for key, value in metadata.items()}, methods, attacks)
