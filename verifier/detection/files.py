"""Fitted detectors as safetensors files: three tensors, and a JSON text among the metadata. Nothing is unpickled."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from encoders.files import write_atomically
from verifier.detection.odds import Noise, Odds

FORMAT = "odds-detector-1"


def write_detector(detector: Odds, path: Path) -> None:
    """Write a detector; reading gives the same numbers."""
    told = {
        "format": FORMAT, "noises": [[noise.kind, noise.size] for noise in detector.noises],
        "samples": detector.samples, "clip": detector.clip, "threshold": detector.threshold, "rate": detector.rate,
        "digest": detector.digest,
    }  # fmt: skip
    tensors = {"mean": detector.mean.contiguous(), "deviation": detector.deviation.contiguous()}
    tensors["profile"] = detector.profile.contiguous()
    write_atomically(path, save(tensors, {"detector": json.dumps(told)}))


def read_detector(path: Path) -> Odds:
    """Return the detector in a file; ValueError where it holds none that makes sense."""
    try:
        with safe_open(str(path), framework="pt") as file:
            told = json.loads((file.metadata() or {})["detector"])
            mean, deviation, profile = (file.get_tensor(name) for name in ("mean", "deviation", "profile"))
        if told["format"] != FORMAT or {mean.dtype, deviation.dtype, profile.dtype} != {torch.float64}:
            raise ValueError(f"its format is {told['format']!r}; supported: {FORMAT}, in float64")
        threshold, rate = (float(told[name]) for name in ("threshold", "rate"))
        if not (math.isfinite(threshold) and math.isfinite(rate)) or not bool(
            (mean + deviation + profile).isfinite().all() and (deviation > 0).all()
        ):
            raise ValueError("numbers are not finite, or deviations not positive")
        clip = None if told["clip"] is None else (float(told["clip"][0]), float(told["clip"][1]))
        noises = tuple(Noise(str(kind), float(size)) for kind, size in told["noises"])
        return Odds(noises, int(told["samples"]), clip, mean, deviation, profile, threshold, rate, str(told["digest"]))
    except (OSError, SafetensorError, KeyError, TypeError, IndexError, ValueError) as error:
        raise ValueError(f"{path}: no detector: {error}; `verifier detect fit` writes one") from None
