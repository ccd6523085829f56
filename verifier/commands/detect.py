"""Fit a detector of perturbed inputs to a model, and measure what it flags of clean and of attacked inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor

from encoders.region import BallRegion
from verifier.attacks import ATTACKS, Attack, Search
from verifier.budget import Budget
from verifier.commands.detect_request import DetectOptions, DetectRequest
from verifier.commands.job import classified
from verifier.commands.request import Data, Model, Progress
from verifier.data import Dataset
from verifier.detection.evasion import Evasion
from verifier.detection.files import read_detector, write_detector
from verifier.detection.odds import Noise, Odds, fit
from verifier.runs.records import SCHEMA
from verifier.subject import Subject

# The attack that knows the detector; others are of `verifier.attacks.ATTACKS`.
EVASION = "evasion"
# Inputs that are attacked together.
ROWS = 100


@dataclasses.dataclass(frozen=True)
class DetectResult:
    """What `detect` returns. Shares are of the inputs that are named; None where nothing was measured.

    inputs: how many the model classifies correctly; false_positives: the share of them that is flagged. attacked: how
    many of them an attack made another class; detected: the share of those that is flagged; corrected: the share to
    which the detector gives the right class. robust: the share of inputs whose attacked point is of the right class, or
    flagged.
    """

    action: str
    detector: Path
    threshold: float
    rate: float
    inputs: int
    false_positives: float | None = None
    attack: str | None = None
    epsilon: float | None = None
    norm: str | None = None
    attacked: int | None = None
    detected: float | None = None
    corrected: float | None = None
    robust: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        fields = {**dataclasses.asdict(self), "detector": str(self.detector)}
        return {"schema": SCHEMA, "command": "detect", **fields}


def detect(
    action: str,
    model: Model,
    data: Data,
    detector: str | Path,
    *,
    progress: Progress | None = None,
    **options: Unpack[DetectOptions],
) -> DetectResult:
    """Fit a detector (action `fit`), or measure one (`score`); nothing of this is a proof.

    model, data: as `Request` says; fit on inputs that are not measured later (split: train). detector: the .safetensors
    file, written or read. options: as `DetectRequest` says. Raises ValueError with what is wrong.
    """
    request, file = DetectRequest(action, **options), Path(detector)
    _check_attack(request)
    if action == "fit":
        _check_new(file)
    subject, dataset = classified(request.about(model, data), "detect")
    inputs = _right(subject, dataset, request)
    if action == "score":
        return _scored(subject, file, inputs, request, dataset.clip, progress)
    noises = _noises(request.noise)
    found = fit(subject.network, inputs[0], inputs[2], noises, request.samples, request.rate, dataset.clip)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_detector(found, file)
    return DetectResult(action, file, found.threshold, request.rate, len(inputs[0]))


# Inputs, their labels, and the seeds of their noise.
Inputs = tuple[Tensor, Tensor, list[int]]


def _check_attack(request: DetectRequest) -> None:
    """Raise ValueError unless there is an attack of this name and norm, where one is asked for."""
    known = {**{name: attack.norms for name, attack in ATTACKS.items()}, EVASION: Evasion.norms}
    if request.attack is None:
        return
    if request.attack not in known:
        raise ValueError(f"unknown attack {request.attack!r}; supported: {', '.join(known)}")
    if request.norm not in known[request.attack]:
        wrong = f"attack {request.attack!r} does not support the {request.norm}-norm"
        raise ValueError(f"{wrong}; it supports: {', '.join(known[request.attack])}")


def _check_new(file: Path) -> None:
    """Raise ValueError unless a detector can be written to a file without losing another."""
    if file.suffix != ".safetensors":
        raise ValueError(f"{file}: detectors are written as .safetensors")
    if file.exists():
        raise ValueError(f"--detector {file} exists; name another file")


def _right(subject: Subject, dataset: Dataset, request: DetectRequest) -> Inputs:
    """Return the inputs that the model classifies correctly."""
    assert dataset.labels is not None
    chosen = dataset.indices(request.limit, request.offset)
    x = torch.tensor(np.asarray(dataset.inputs[chosen.start : chosen.stop])).to(subject.network.dtype)
    y = torch.tensor(dataset.labels[chosen.start : chosen.stop]).long()
    with torch.no_grad():
        right = torch.nonzero(subject.network.scores(x).argmax(dim=1) == y).squeeze(1)
    return x[right], y[right], [chosen.start + row for row in right.tolist()]


def _noises(texts: Sequence[str]) -> tuple[Noise, ...]:
    """Return the noises of texts as normal:0.1."""
    made = []
    for text in texts or ("normal:0.05", "normal:0.1", "sign:0.05", "sign:0.1"):
        kind, _, size = text.partition(":")
        try:
            made.append(Noise(kind, float(size)))
        except ValueError as error:
            raise ValueError(f"noise {text!r}: {error}; write for example normal:0.1") from None
    return tuple(made)


def _scored(
    subject: Subject,
    file: Path,
    inputs: Inputs,
    request: DetectRequest,
    clip: tuple[float, float] | None,
    progress: Progress | None,
) -> DetectResult:
    odds, (x, y, seeds) = read_detector(file), inputs
    if odds.digest != subject.digest:
        raise ValueError(
            f"{file} was fitted to another network than {subject.name}, or with another mean and std; fit one to this"
        )
    flagged = odds.scores(subject.network, x, seeds).flagged
    share = float(flagged.double().mean())
    result = DetectResult("score", file, odds.threshold, odds.rate, len(x), share)
    if request.attack is None:
        return result
    result = dataclasses.replace(result, attack=request.attack, epsilon=request.epsilon, norm=request.norm)
    points, unsafe = _attacked(subject, odds, inputs, request, odds.clip if clip is None else clip, progress)
    broken = torch.nonzero(unsafe).squeeze(1)
    if not len(broken):
        return dataclasses.replace(result, attacked=0, robust=1.0)
    seen = odds.scores(subject.network, points[broken], [seeds[row] for row in broken.tolist()])
    return dataclasses.replace(
        result,
        attacked=len(broken),
        detected=float(seen.flagged.double().mean()),
        corrected=float((seen.corrected == y[broken]).double().mean()),
        robust=1.0 - int((~seen.flagged).sum()) / len(x),
    )


def _attacked(
    subject: Subject,
    odds: Odds,
    inputs: Inputs,
    request: DetectRequest,
    clip: tuple[float, float] | None,
    progress: Progress | None,
) -> tuple[Tensor, Tensor]:
    """Return (the attack's points, which of them lie in the ball and are of another class)."""
    x, y, seeds = inputs
    attack: Attack = Evasion(odds) if request.attack == EVASION else ATTACKS[str(request.attack)]
    points, unsafe = [], []
    for rows in torch.arange(len(x)).split(ROWS):
        radius = torch.full((len(rows),), float(request.epsilon or 0.0), dtype=torch.float64)
        region = BallRegion(x[rows].double(), radius, clip, request.norm)
        own = [seeds[row] for row in rows.tolist()]
        found = attack.run(Search(subject.network, region, y[rows], own, Budget()))
        points.append(found.points)
        unsafe.append(found.unsafe & region.contains(found.points))
        if progress is not None:
            progress(int(rows[-1]) + 1, len(x))
    return torch.cat(points), torch.cat(unsafe)
