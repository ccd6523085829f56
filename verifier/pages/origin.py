"""The model and the inputs of a run, read again where the run found them; a sentence where that cannot be done."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from encoders.network import Network
from verifier.data import load_data
from verifier.subject import load_model, load_subject

# What reading files that have changed since, or are gone, may raise.
UNREADABLE = (ValueError, TypeError, OSError, RuntimeError, KeyError)


def network_of(configuration: Mapping[str, Any]) -> Network | str:
    """Return the network that a run is about, or why it cannot be shown."""
    origin = configuration.get("origin", {})
    place = origin.get("model")
    if place is None:
        return "the model was an object in memory"
    if origin.get("joint") or origin.get("networks"):
        return "the properties are about copies of several networks"
    load = load_model if configuration["command"] == "verify" or "delta" in configuration else load_subject
    try:
        subject = load(place, device="cpu", mean=origin.get("mean", ()), std=origin.get("std", ()))
    except UNREADABLE as error:
        return f"the model cannot be read: {_first_line(error)}"
    if subject.digest != configuration["model"]:
        return f"{place} holds another model now, of digest {subject.digest[:12]}"
    return subject.network


def inputs_of(configuration: Mapping[str, Any], shape: tuple[int, ...]) -> np.ndarray | str:
    """Return the inputs that a run is about in a shape, or why they cannot be shown."""
    origin, clip = configuration.get("origin", {}), configuration.get("clip")
    place = origin.get("data")
    if place is None:
        return "the data were arrays in memory"
    try:
        dataset = load_data(
            place, data_dir=_folder(origin.get("data_dir")), split=origin.get("split", "test"),
            clip=None if clip is None else tuple(clip), label=origin.get("label"),
            classes="delta" not in configuration,
        ).fit_to(shape, origin.get("layout"))  # fmt: skip
    except UNREADABLE as error:
        return f"the data cannot be read: {_first_line(error)}"
    if dataset.digest != configuration["data"]:
        return f"{place} holds other data now, of digest {dataset.digest[:12]}"
    return dataset.inputs


def _folder(place: str | None) -> Path | None:
    return None if place is None else Path(place)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
