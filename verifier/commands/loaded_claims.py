"""The claims of a run about inputs, with the model at a place and a dataset that are seen to be those of the run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from verifier.agreement import INPUTS
from verifier.commands.changes import ChangeClaims
from verifier.commands.claims import Claims, require_digest
from verifier.commands.executed import ExecutedClaims
from verifier.data import Dataset
from verifier.subject import Subject, load_model, load_subject
from verifier.surroundings import Surroundings


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
