"""The options of `verify`, each declared once."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from encoders.limits import Limits, read_limits
from verifier.commands.request import Model, Progress, check_memory_limit, check_workers
from verifier.options import option, workers


class _ReadLimits(argparse.Action):
    """Reads limits, each written NAME=N."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: object) -> None:
        try:
            setattr(namespace, self.dest, read_limits(values))
        except ValueError as error:
            raise argparse.ArgumentError(self, str(error)) from None


class ReadNetworks(argparse.Action):
    """Reads the model of a network, written NAME=FILE; may be given for several."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: object) -> None:
        name, equals, place = values.partition("=")
        known = getattr(namespace, self.dest) or {}
        if not (name and equals and place) or name in known:
            raise argparse.ArgumentError(self, f"write NAME=FILE, each name once, not {values!r}")
        setattr(namespace, self.dest, {**known, name: place})


class VerifyOptions(TypedDict, total=False):
    """The keywords of `verify`; `VerifyRequest` says what each means."""

    method: str
    limit: int | None
    offset: int
    time_limit: float
    memory_limit: float | None
    seed: int
    device: str
    networks: Mapping[str, Model] | None
    limits: Limits
    out: str | Path | None
    workers: int | str | None
    shard: str | None
    cluster: str | None
    progress: Progress | None


@dataclasses.dataclass(frozen=True, eq=False)
class VerifyRequest:
    """How properties are asked about.

    method: of the table `verifier.methods.METHODS`.
    limit, offset: so many properties from this one of the list on; None: all that follow.
    time_limit: seconds for each property; a larger one tries again what a run left open.
    memory_limit: GiB that the process, or all workers together, may hold; work that finds it above them stops, and
    stays open. None: three quarters of what the machine or its group of processes has.
    seed: of the attacks' random starts, and part of the run's identity.
    device: "auto", "cpu" or "cuda", where bounds and attacks are computed.
    networks: the models of further networks that a property is about, by their names in it.
    limits: what files may ask for before they are refused.
    out: a folder that keeps the run and resumes it; "auto" is runs/verify-<digest>; None writes nothing.
    workers: processes that work side by side, each in its share of the memory and on one thread; 1 is this process
    alone. None: this process; on the command line ("auto") as many as there are processors, once they pay.
    shard: "i/n", the part i of n of the properties; `merge` makes one run of the runs of all parts.
    cluster: the address of the scheduler of a Dask cluster that works instead, or "local" for one of so many workers.
    progress: called with (boxes done, boxes in all).

    Raises ValueError with what an option supports.
    """

    method: str = option(
        "auto", "question", "of `verifier show --methods`; auto: all that apply (default)", metavar="NAME"
    )
    limit: int | None = option(None, "data", "at most N properties", type=int, metavar="N")
    offset: int = option(0, "data", "start at property K of the list, from 0", type=int, metavar="K")
    time_limit: float = option(math.inf, "limits", "seconds a property", type=float, metavar="S")
    memory_limit: float | None = option(
        None, "limits", "memory of all processes at which work stops (default: 3/4 of the machine's)",
        type=float, metavar="GIB",
    )  # fmt: skip
    seed: int = option(0, "question", "seed of the attacks' random starts", type=int, metavar="N")
    device: str = option("auto", "limits", "auto, cpu or cuda", metavar="NAME")
    networks: Mapping[str, Model] | None = option(
        None, "question", "the model of another network that a property is about, by its name there", flag="--network",
        action=ReadNetworks, metavar="NAME=FILE",
    )  # fmt: skip
    limits: Limits = option(
        Limits(), "limits", "let a file ask for more than a limit allows", flag="--allow", nargs="+",
        action=_ReadLimits, metavar="NAME=N",
    )  # fmt: skip
    out: str | Path | None = option(
        None, "output", "folder of the run (default: runs/verify-<digest>)", type=Path, metavar="DIR"
    )
    workers: int | str | None = option(
        None, "limits", "processes that work side by side (default: as many as pay)", type=workers, metavar="N"
    )
    shard: str | None = option(None, "data", "part I of N of the properties, for `verifier merge`", metavar="I/N")
    cluster: str | None = option(
        None, "limits", "work on a Dask cluster: the address of its scheduler, or local", metavar="ADDRESS"
    )
    progress: Progress | None = None

    def __post_init__(self) -> None:
        if math.isnan(self.time_limit) or self.time_limit < 0:
            raise ValueError(f"a time limit must be a number of seconds that is not negative, got {self.time_limit}")
        check_memory_limit(self.memory_limit)
        check_workers(self.workers, self.shard)
        if self.offset < 0 or (self.limit is not None and self.limit < 1):
            raise ValueError(f"{self.limit} properties from {self.offset} on are none; name at least one, from 0 on")
