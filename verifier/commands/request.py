"""What every question about a model and data shares: each option stands here once, with its default and its help.

The verbs take these options as keywords (`Options`), and the command line builds its arguments from the fields of
`Request`, so a new shared option is one field here and one line in `Options`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

from encoders.limits import Limits, read_limits
from verifier.commands.sharding import Shard
from verifier.options import number, option, option_names, workers

if TYPE_CHECKING:
    from torch import nn

    from encoders.region import Norm

# What a verb takes as a model, and as data: names, files, objects (see `verifier.data`).
Model: TypeAlias = "str | Path | nn.Module"
Data: TypeAlias = Any
# Numbers for each input of a model: a file, an array, a tensor, a list.
Vectors: TypeAlias = Any
# Called after each batch with (inputs done, inputs in all).
Progress = Callable[[int, int], None]


class Options(TypedDict, total=False):
    """The keywords that certify, attack, robustness and compare share; `Request` says what each means."""

    norm: Norm
    clip: tuple[float, float] | None
    clip_file: Vectors | None
    fix: Sequence[int | str]
    scale: Vectors | None
    label: str | int | None
    layout: str | None
    split: str
    mean: Sequence[float]
    std: Sequence[float]
    limit: int | None
    offset: int
    time_limit: float
    memory_limit: float | None
    seed: int
    device: str
    data_dir: str | Path | None
    limits: Limits
    out: str | Path | None
    workers: int | str | None
    shard: str | None
    cluster: str | None
    progress: Progress | None


@dataclasses.dataclass(frozen=True, eq=False)
class Request:
    """A model, data, and the shared options of a question.

    model: a file (.onnx, .pt2, .safetensors), a shipped name, or a torch module.
    data: a name, a .npz or .csv file, a `Dataset`, arrays (x, y), a `DataLoader`, or any iterable of such pairs.
    norm: of the balls, over all coordinates of an input.
    clip: the domain, (least, greatest) value of every coordinate, that balls are cut to; default [0, 1] for named data
    and none for others.
    clip_file: the domain of each input of the model: a file of the least and the greatest values, or `(2, ...)` values;
    what `clip` says holds, too.
    fix: inputs of the model that stay as they are: places in C order, ranges "7:12" (7 to 11), names of columns.
    scale: of each input of the model, in norm "inf": a file or numbers, or "std", the standard deviations of the data.
    Radii are in its units: a ball holds what differs by at most epsilon times the scale; 0 fixes an input.
    label: the column of a .csv file that holds the labels, by name or place; None: the last, "none": there are none.
    layout: the order of the axes of the *data*, "nchw" or "nhwc"; None: nothing is permuted.
    split: the part of named data, "test" or "train"; other data are one part.
    mean, std: put (x - mean) / std in front of the model, one value or one for each channel. Radii stay in the units of
    the raw input.
    limit, offset: so many inputs from this position of the data on; None: all that follow.
    time_limit: seconds an input; what it stops stays open.
    memory_limit: GiB that the process, or all workers together, may hold; work that finds it above them stops, and
    stays open. None: three quarters of what the machine or its group of processes has.
    seed: of the attacks' random starts, and part of the run's identity.
    device: "auto", "cpu" or "cuda", where bounds and attacks are computed.
    data_dir: where the files of named data lie.
    limits: what files may ask for before they are refused.
    out: a folder that keeps the run and resumes it; "auto" is runs/<command>-<digest>; None writes nothing.
    workers: processes that work side by side, each in its share of the memory and on one thread; 1 is this process
    alone. None: this process; on the command line ("auto") as many as there are processors, once they pay.
    shard: "i/n", the part i of n of the inputs; `merge` makes one run of the runs of all parts.
    cluster: the address of the scheduler of a Dask cluster that works instead, or "local" for one of so many workers.
    progress: called with (inputs done, inputs in all).

    Raises ValueError with what an option supports.
    """

    model: Model
    data: Data
    norm: Norm = option("inf", "question", "norm of the ball: inf (default), 2 or 1")
    clip: tuple[float, float] | None = option(
        None, "data", "domain of every input value", nargs=2, type=number, metavar=("LO", "HI")
    )
    clip_file: Vectors | None = option(
        None, "data", "domain of each input: a file of the least and the greatest values", metavar="FILE"
    )
    fix: Sequence[int | str] = option(
        (), "question", "inputs that stay as they are: places, ranges 7:12, or columns", nargs="+", metavar="I"
    )
    scale: Vectors | None = option(
        None, "question", "radii are epsilon times this: a file of a number for each input, or std", metavar="FILE"
    )
    label: str | int | None = option(
        None, "data", "column of the labels in a .csv file, by name or place (default: the last)", metavar="COLUMN"
    )
    layout: str | None = option(None, "data", "axes of image data: nchw or nhwc (default: as the model's)", metavar="L")
    split: str = option("test", "data", "part of named data: test (default) or train", metavar="PART")
    mean: Sequence[float] = option(
        (), "data", "normalise: subtract, one value or one per channel", nargs="+", type=number, metavar="M"
    )
    std: Sequence[float] = option((), "data", "normalise: then divide", nargs="+", type=number, metavar="S")
    limit: int | None = option(None, "data", "at most N inputs", type=int, metavar="N")
    offset: int = option(0, "data", "start at input K", type=int, metavar="K")
    time_limit: float = option(math.inf, "limits", "seconds an input", type=float, metavar="S")
    memory_limit: float | None = option(
        None, "limits", "memory of all processes at which work stops (default: 3/4 of the machine's)",
        type=float, metavar="GIB",
    )  # fmt: skip
    seed: int = option(0, "question", "seed of the attacks' random starts", type=int, metavar="N")
    device: str = option("auto", "limits", "auto, cpu or cuda", metavar="NAME")
    data_dir: str | Path | None = option(None, "data", "where the files of named data lie", type=Path, metavar="DIR")
    limits: Limits = option(
        Limits(), "limits", "let a file ask for more than a limit allows", flag="--allow", nargs="+", metavar="NAME=N"
    )
    out: str | Path | None = option(
        None, "output", "folder of the run (default: runs/<command>-<digest>)", type=Path, metavar="DIR"
    )
    workers: int | str | None = option(
        None, "limits", "processes that work side by side (default: as many as pay)", type=workers, metavar="N"
    )
    shard: str | None = option(None, "data", "part I of N of the inputs, for `verifier merge`", metavar="I/N")
    cluster: str | None = option(
        None, "limits", "work on a Dask cluster: the address of its scheduler, or local", metavar="ADDRESS"
    )
    progress: Progress | None = None

    def __post_init__(self) -> None:
        # Imported here: the command line builds its help from this file, without numpy.
        from encoders.region import NORMS
        from verifier.data.layout import LAYOUTS
        from verifier.data.load import NAMES, SPLITS

        if self.norm not in NORMS:
            # Quoted where 2 was given for "2".
            known = NORMS if isinstance(self.norm, str) else map(repr, NORMS)
            raise ValueError(f"unknown norm {self.norm!r}; supported: {', '.join(known)}")
        if self.layout not in (None, *LAYOUTS):
            raise ValueError(f"unknown layout {self.layout!r}; supported: {', '.join(LAYOUTS)}")
        if self.split not in SPLITS:
            raise ValueError(f"unknown split {self.split!r}; supported: {', '.join(SPLITS)}")
        named = isinstance(self.data, str | Path) and str(self.data) in NAMES
        if self.split != "test" and not named:
            raise ValueError(
                f"--split {self.split} is a part of named data ({', '.join(NAMES)}); other data are one part: "
                "leave it away"
            )
        if self.scale is not None and self.norm != "inf":
            raise ValueError(
                f"a scale is supported in the inf-norm, not in the {self.norm}-norm; scale the data instead"
            )
        if math.isnan(self.time_limit) or self.time_limit < 0:
            raise ValueError(f"a time limit must be a number of seconds that is not negative, got {self.time_limit}")
        check_memory_limit(self.memory_limit)
        check_workers(self.workers, self.shard)


def check_memory_limit(gibibytes: float | None) -> None:
    """Raise ValueError unless a limit is None or positive."""
    if gibibytes is not None and not gibibytes > 0:
        raise ValueError(f"a memory limit must be a positive number of GiB, got {gibibytes}")


def check_workers(workers: int | str | None, shard: str | None) -> None:
    """Raise ValueError unless these are a number of processes, and a part of the inputs."""
    if workers not in (None, "auto") and (type(workers) is not int or workers < 1):
        raise ValueError(f"workers must be a whole number of at least 1, or auto, got {workers!r}")
    Shard.read(shard)


def checked_radius(epsilon: float) -> float:
    """Return a radius; ValueError unless it is a finite number that is not negative."""
    try:
        finite = math.isfinite(epsilon)
    except TypeError:
        finite = False
    if not finite or epsilon < 0:
        raise ValueError(f"epsilon must be a finite number that is not negative, got {epsilon!r}")
    return float(epsilon)


def checked_radii(epsilons: Sequence[float] | float | str) -> tuple[float, ...]:
    """Return radii, rising, each once; ValueError unless there is one, and for what is no list of them."""
    if isinstance(epsilons, str | float) or not isinstance(epsilons, Iterable):
        raise ValueError(f"epsilons must be a list of radii, such as [0.1], got {epsilons!r}")
    if not (radii := {checked_radius(epsilon) for epsilon in epsilons}):
        raise ValueError("no epsilon was given")
    return tuple(sorted(radii))


def read_options(values: dict[str, Any], progress: Progress) -> Options:
    """Return the options among parsed arguments, as the verbs take them; a run on the command line has a folder."""
    options: Any = {name: values[name] for name in option_names(Request)}
    if not isinstance(options["limits"], Limits):
        options["limits"] = read_limits(options["limits"])
    options["clip"] = None if options["clip"] is None else tuple(options["clip"])
    options |= {"out": options["out"] or "auto", "progress": progress}
    options["workers"] = options["workers"] or "auto"
    return options  # type: ignore[no-any-return]
