"""What is asked of a detector: each option stands here once. Loads neither numpy nor torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from verifier.commands.request import Data, Model, Request, checked_radius
from verifier.options import number, option, radius

if TYPE_CHECKING:
    from encoders.region import Norm

# What fit takes unless it is told otherwise.
SAMPLES, RATE = 64, 0.01


class DetectOptions(TypedDict, total=False):
    """The keywords of `detect`; `DetectRequest` says what each means."""

    noise: Sequence[str]
    samples: int
    rate: float
    attack: str | None
    epsilon: float | None
    norm: Norm
    clip: tuple[float, float] | None
    label: str | int | None
    mean: Sequence[float]
    std: Sequence[float]
    limit: int | None
    offset: int
    data_dir: str | Path | None
    split: str


@dataclasses.dataclass(frozen=True)
class DetectRequest:
    """What is asked of a detector. Raises ValueError with what is supported.

    action: fit or score. noise: kinds and sizes of fit, as normal:0.1; empty: normal and sign of .05 and .1. samples,
    rate: of fit, draws of each noise and the share of clean inputs that may be flagged. attack: a name of `ATTACKS`, or
    evasion, which knows the detector; within epsilon, in the norm. clip: where noise and attacks stay. clip, label,
    mean, std, limit, offset, data_dir, split: as `Request` says.
    """

    action: str
    noise: Sequence[str] = option(
        (), "question", "fit: kinds normal, uniform, sign and sizes (default: normal and sign of .05 and .1)",
        nargs="+", metavar="KIND:SIZE",
    )  # fmt: skip
    samples: int = option(SAMPLES, "question", "fit: draws of each noise (default: 64)", type=int, metavar="N")
    rate: float = option(
        RATE, "question", "fit: share of clean inputs flagged (default: .01)", type=number, metavar="R"
    )
    attack: str | None = option(
        None, "question", "score: of `verifier show --attacks`, or evasion, which knows the detector", metavar="NAME"
    )
    epsilon: float | None = option(None, "question", "score: of the attack", type=radius, metavar="E")
    norm: Norm = option("inf", "question", "score: of the attack: inf (default), 2 or 1")
    clip: tuple[float, float] | None = option(
        None, "data", "domain of every input value", nargs=2, type=number, metavar=("LO", "HI")
    )
    label: str | int | None = option(
        None, "data", "column of the labels in a .csv file, by name or place (default: the last)", metavar="COLUMN"
    )
    mean: Sequence[float] = option(
        (), "data", "normalise: subtract, one value or one per channel", nargs="+", type=number, metavar="M"
    )
    std: Sequence[float] = option((), "data", "normalise: then divide", nargs="+", type=number, metavar="S")
    limit: int | None = option(None, "data", "at most N inputs", type=int, metavar="N")
    offset: int = option(0, "data", "start at input K", type=int, metavar="K")
    data_dir: str | Path | None = option(None, "data", "where the files of named data lie", type=Path, metavar="DIR")
    split: str = option("test", "data", "part of named data: test (default) or train", metavar="PART")

    def __post_init__(self) -> None:
        if self.action not in ("fit", "score"):
            raise ValueError(f"unknown action {self.action!r}; supported: fit, score")
        if (self.attack is None) != (self.epsilon is None) or (self.attack is not None and self.action == "fit"):
            raise ValueError("score takes an attack and an epsilon together; fit takes neither")
        if self.norm != "inf" and self.attack is None:
            raise ValueError(f"the {self.norm}-norm is of an attack, and there is none; name one, or leave it away")
        if self.action == "score" and (self.noise or self.samples != SAMPLES or self.rate != RATE):
            raise ValueError("noise, samples and rate are of fit; the file has those that score takes: leave them out")
        if self.epsilon is not None:
            checked_radius(self.epsilon)
        if self.samples < 1:
            raise ValueError(f"samples must be positive, got {self.samples}")

    def about(self, model: Model, data: Data) -> Request:
        """Return what is shared with other questions, about a model and data."""
        clip = None if self.clip is None else (self.clip[0], self.clip[1])
        return Request(
            model, data, norm=self.norm, clip=clip, label=self.label, mean=self.mean, std=self.std, limit=self.limit,
            offset=self.offset, data_dir=self.data_dir, split=self.split, device="cpu",
        )  # fmt: skip
