"""What every question about a model and data shares: each option stands here once, with its default and its help.

The verbs take these options as keywords (`Options`), and the command line builds its arguments from the fields of
`Request`, so a new shared option is one field here and one line in `Options`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

from encoders.limits import Limits, read_limits
from verifier.commands.values import number

if TYPE_CHECKING:
    from torch import nn

    from encoders.region import Norm

# What a verb takes as a model, and as data: names, files, objects (see `verifier.data`).
Model: TypeAlias = "str | Path | nn.Module"
Data: TypeAlias = Any
# Called after each batch with (inputs done, inputs in all).
Progress = Callable[[int, int], None]


class Options(TypedDict, total=False):
    """The keywords that certify, attack, robustness and compare share; `Request` says what each means."""

    norm: Norm
    clip: tuple[float, float] | None
    layout: str | None
    mean: Sequence[float]
    std: Sequence[float]
    limit: int | None
    offset: int
    time_limit: float
    seed: int
    device: str
    data_dir: str | Path | None
    limits: Limits
    out: str | Path | None
    progress: Progress | None


def _option(default: Any, text: str, flag: str = "", **argument: Any) -> Any:
    """Return a field that the command line offers; argument: how argparse reads it."""
    return dataclasses.field(default=default, metadata={"flag": flag, "help": text, **argument})


@dataclasses.dataclass(frozen=True, eq=False)
class Request:
    """A model, data, and the shared options of a question.

    model: a file (.onnx, .pt2, .safetensors), a shipped name, or a torch module. data: a name, a .npz file, a
    `Dataset`, arrays (x, y), or an iterable of such pairs. out: a folder that keeps the run and resumes it; "auto" is
    runs/<command>-<digest>; None writes nothing. progress: called with (inputs done, inputs in all).

    Raises ValueError with what an option supports.
    """

    model: Model
    data: Data
    norm: Norm = _option("inf", "norm of the ball: inf (default), 2 or 1")
    clip: tuple[float, float] | None = _option(
        None, "domain of every input value", nargs=2, type=number, metavar=("LO", "HI")
    )
    layout: str | None = _option(None, "axes of image data: nchw or nhwc (default: as the model's)", metavar="L")
    mean: Sequence[float] = _option(
        (), "normalise: subtract, one value or one per channel", nargs="+", type=number, metavar="M"
    )
    std: Sequence[float] = _option((), "normalise: then divide", nargs="+", type=number, metavar="S")
    limit: int | None = _option(None, "at most N inputs", type=int, metavar="N")
    offset: int = _option(0, "start at input K", type=int, metavar="K")
    time_limit: float = _option(math.inf, "seconds an input", type=float, metavar="S")
    seed: int = _option(0, "seed of the attacks' random starts", type=int)
    device: str = _option("auto", "auto, cpu or cuda")
    data_dir: str | Path | None = _option(None, "where the files of named data lie", type=Path, metavar="DIR")
    limits: Limits = _option(
        Limits(), "let a file ask for more than a limit allows", flag="--allow", nargs="+", metavar="NAME=N"
    )
    out: str | Path | None = _option(
        None, "folder of the run (default: runs/<command>-<digest>)", type=Path, metavar="DIR"
    )
    progress: Progress | None = None

    def __post_init__(self) -> None:
        # Imported here: the command line builds its help from this file, without numpy.
        from verifier.data.layout import LAYOUTS

        if self.layout not in (None, *LAYOUTS):
            raise ValueError(f"unknown layout {self.layout!r}; supported: {', '.join(LAYOUTS)}")
        if math.isnan(self.time_limit) or self.time_limit < 0:
            raise ValueError(f"a time limit must be a number of seconds that is not negative, got {self.time_limit}")


def shared_arguments() -> dict[str, dict[str, Any]]:
    """Return what argparse needs of each option by its flag: `dest`, `default`, `help` and how it is read."""
    arguments = {}
    for field in dataclasses.fields(Request):
        if field.metadata:
            argument = {name: value for name, value in field.metadata.items() if name != "flag"}
            default = () if field.name == "limits" else field.default
            flag = field.metadata["flag"] or f"--{field.name.replace('_', '-')}"
            arguments[flag] = {"dest": field.name, "default": default, **argument}
    return arguments


def read_options(values: dict[str, Any], progress: Progress) -> Options:
    """Return the options among parsed arguments, as the verbs take them; a run on the command line has a folder."""
    names = {field.name for field in dataclasses.fields(Request) if field.metadata}
    options: Any = {name: value for name, value in values.items() if name in names}
    options["limits"] = read_limits(options["limits"])
    options["clip"] = None if options["clip"] is None else tuple(options["clip"])
    options |= {"out": options["out"] or "auto", "progress": progress}
    return options  # type: ignore[no-any-return]
