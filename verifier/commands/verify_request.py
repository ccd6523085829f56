"""The options of `verify`, each declared once, and the words of its verdicts."""

from __future__ import annotations

import argparse
import dataclasses
import enum
import math
from typing import Any, TypedDict

from encoders.limits import Limits, read_limits
from verifier.commands.request import Progress
from verifier.options import option


class Verdict(enum.StrEnum):
    """The words of VNN-COMP. Of several boxes the verdict that comes last here counts for all."""

    UNSAT = "unsat"  # proved: no counterexample exists
    UNKNOWN = "unknown"
    TIMEOUT = "timeout"
    SAT = "sat"  # a counterexample exists


class _ReadLimits(argparse.Action):
    """Reads limits, each written NAME=N."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: object) -> None:
        try:
            setattr(namespace, self.dest, read_limits(values))
        except ValueError as error:
            raise argparse.ArgumentError(self, str(error)) from None


class VerifyOptions(TypedDict, total=False):
    """The keywords of `verify`; `VerifyRequest` says what each means."""

    method: str
    time_limit: float
    seed: int
    device: str
    limits: Limits
    progress: Progress | None


@dataclasses.dataclass(frozen=True, eq=False)
class VerifyRequest:
    """How properties are asked about.

    method: of the table `verifier.methods.METHODS`.
    time_limit: seconds for each property.
    seed: of the attacks' random starts.
    device: "auto", "cpu" or "cuda", where bounds and attacks are computed.
    limits: what files may ask for before they are refused.
    progress: called with (properties done, properties in all).

    Raises ValueError with what an option supports.
    """

    method: str = option(
        "auto", "question", "of `verifier show --methods`; auto: all that apply (default)", metavar="NAME"
    )
    time_limit: float = option(math.inf, "limits", "seconds a property", type=float, metavar="S")
    seed: int = option(0, "question", "seed of the attacks' random starts", type=int, metavar="N")
    device: str = option("auto", "limits", "auto, cpu or cuda", metavar="NAME")
    limits: Limits = option(
        Limits(), "limits", "let a file ask for more than a limit allows", flag="--allow", nargs="+",
        action=_ReadLimits, metavar="NAME=N",
    )  # fmt: skip
    progress: Progress | None = None

    def __post_init__(self) -> None:
        if math.isnan(self.time_limit) or self.time_limit < 0:
            raise ValueError(f"a time limit must be a number of seconds that is not negative, got {self.time_limit}")
