"""What a model file holds, and what there is to ask about it with."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from encoders.network import Network
from verifier.subject import open_model


@dataclasses.dataclass(frozen=True, eq=False)
class ShowResult:
    """What `show` returns: the network of a model file with its metadata (None without a model), and which tables."""

    network: Network | None
    metadata: dict[str, str]
    methods: bool = False
    attacks: bool = False


def show(model: str | Path | None = None, *, methods: bool = False, attacks: bool = False) -> ShowResult:
    """Return what a model file holds. methods, attacks: also list those that exist, and whether they take the model.

    Raises ValueError with what is wrong, also where nothing is asked.
    """
    if model is None and not (methods or attacks):
        raise ValueError("name a MODEL, or ask for --methods or --attacks")
    network, metadata = (None, {}) if model is None else open_model(model)
    return ShowResult(network, {key: str(value) for key, value in metadata.items()}, methods, attacks)
