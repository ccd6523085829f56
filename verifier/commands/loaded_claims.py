"""The claims of a run about inputs, with the model at a place and a dataset that are seen to be those of the run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from verifier.agreement import INPUTS
from verifier.commands.changes import ChangeClaims
from verifier.commands.claims import Claims, place_of, require_digest
from verifier.commands.executed import ExecutedClaims
from verifier.commands.property_claims import PropertyClaims, load_property_claims
from verifier.data import Dataset, load_data
from verifier.runs.folder import StoredRun
from verifier.subject import Subject, load_model, load_subject
from verifier.surroundings import Surroundings


class Places(TypedDict, total=False):
    """Where model and data are now, if not where a run says it found them; their digests must be those of the run.

    networks: of the further models of a run of verify, by their names.
    """

    model: str | Path | None
    data: str | Path | None
    data_dir: str | Path | None
    networks: Mapping[str, str | Path] | None


def claims_of(
    run: Path,
    stored: StoredRun,
    *,
    model: str | Path | None = None,
    data: str | Path | None = None,
    data_dir: str | Path | None = None,
    networks: Mapping[str, str | Path] | None = None,
) -> Claims | PropertyClaims:
    """Return the claims of a run of any command, from its `Places`; ValueError if these are not found or are others."""
    if stored.configuration["command"] == "verify":
        return load_property_claims(run, stored, model, data, networks)
    return loaded_claims(run, stored.configuration, model, data, data_dir)


def load_claims(
    run: Path, configuration: Mapping[str, Any], model: str | Path, dataset: Dataset, data: str | Path
) -> Claims:
    """Return the claims; ValueError if model or data are not those of the run. data: what messages call the dataset.

    The dataset is put into the shape of the model's input first.
    """
    origin = configuration.get("origin", {})
    load, claims = (load_model, ChangeClaims) if "delta" in configuration else (load_subject, Claims)
    if "arithmetic" in configuration:
        claims = ExecutedClaims
    subject = load(model, device="cpu", mean=origin.get("mean", ()), std=origin.get("std", ()))
    dataset = dataset.fit_to(subject.network.input_shape, origin.get("layout"))
    for name, place, found in (("model", model, subject.digest), ("data", data, dataset.digest)):
        require_digest(name, place, found, configuration)
    # A proof about the graph is one about the model only if they are the same.
    surroundings = Surroundings.of_settings(configuration, subject.network.input_shape)
    points = subject.points(dataset.inputs[:INPUTS], surroundings.domain)
    subject = _randomised(subject.probed(points, surroundings.domain), configuration)
    return claims(run, configuration, subject, dataset, surroundings)


def _randomised(subject: Subject, configuration: Mapping[str, Any]) -> Subject:
    """Return the subject that a run was about, the mean or the draws; ValueError where run.json does not say which."""
    if "draws_within" in configuration:
        subject = subject.over_draws(configuration["draws_within"])
    stated = {name: configuration[name] for name in ("randomised", "draws_within") if name in configuration}
    if stated != subject.randomness:
        raise ValueError(f"run.json says {stated} of the randomness of the model, which has {subject.randomness}")
    return subject


def loaded_claims(
    run: Path,
    configuration: Mapping[str, Any],
    model: str | Path | None,
    data: str | Path | None,
    data_dir: str | Path | None,
) -> Claims:
    """Return the claims of a run with its model and data; ValueError if these are not found or are others."""
    origin = configuration.get("origin", {})
    places = {name: place_of(name, given, origin) for name, given in (("model", model), ("data", data))}
    clip = configuration.get("clip")
    dataset = load_data(
        places["data"],
        data_dir=data_dir or origin.get("data_dir"),
        split=origin.get("split", "test"),
        clip=None if clip is None else tuple(clip),
        label=origin.get("label"),
        classes="delta" not in configuration,
    )
    return load_claims(run, configuration, places["model"], dataset, places["data"])
