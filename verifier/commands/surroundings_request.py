"""The surroundings that a question asks for, from its options, the data and the shape of the model's input."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from verifier.commands.request import Request
from verifier.data import Dataset
from verifier.data.vectors import places, read_vectors
from verifier.subject import Subject
from verifier.surroundings import Surroundings, deviations

# The scale that is computed from the data.
DEVIATIONS = "std"


def asked_surroundings(request: Request, dataset: Dataset, subject: Subject) -> Surroundings:
    """Return what surrounds the inputs of a dataset that fits the subject; raise ValueError with what does not fit."""
    shape, columns = subject.network.input_shape, dataset.columns
    ends = scale = None
    if request.clip_file is not None:
        vectors = read_vectors(request.clip_file, ("lower", "upper"), shape, columns, request.limits)
        ends = torch.from_numpy(vectors)
    if isinstance(request.scale, str) and request.scale == DEVIATIONS:
        scale = deviations(dataset.inputs)
    elif request.scale is not None:
        (vector,) = read_vectors(request.scale, ("scale",), shape, columns, request.limits)
        scale = torch.from_numpy(vector)
    found = Surroundings(shape, dataset.clip, ends, places(request.fix, shape, columns), scale)
    if bool(found.held.all()):
        raise ValueError("every input is fixed, so that nothing is asked; leave some free (--fix, --scale)")
    found.reach(float(dataset.inputs.min()), float(dataset.inputs.max()), request.norm)
    if ends is not None:
        _check_data(found, dataset, subject)
    return found


def _check_data(found: Surroundings, dataset: Dataset, subject: Subject) -> None:
    """Raise ValueError naming the first value of the data outside its domain, as stored or as the model takes it."""
    which = [f"input {row} of {dataset.name}" for row in range(len(dataset))]
    found.check_inside(torch.tensor(dataset.inputs, dtype=torch.float64), which)
    found.check_inside(subject.points(dataset.inputs, found.domain).to(torch.float64), which)


def described(dataset: Dataset, found: Surroundings) -> Dataset:
    """Return the dataset with a note that says what surrounds its inputs, where that is more than a clip."""
    words = []
    if found.ends is not None:
        words.append("each input within its domain")
    held = int(found.held.sum())
    if held:
        words.append(f"{held} of {found.held.numel()} inputs fixed{_named(found.held, dataset.columns)}")
    if found.scale is not None:
        moving = found.scale[~found.held]
        words.append(f"radii in units of a scale from {float(moving.min()):.3g} to {float(moving.max()):.3g}")
    return dataclasses.replace(dataset, note=", ".join([dataset.note, *words])) if words else dataset


def _named(held: Tensor, columns: tuple[str, ...]) -> str:
    """Return the names of a few fixed columns in brackets."""
    positions = np.flatnonzero(held.flatten().numpy()).tolist()
    if not columns or len(positions) > 8:
        return ""
    return f" ({', '.join(columns[place] for place in positions)})"
