"""Options, each declared once: a field with its default, help and group, from which the command line is built.

Also how numbers, radii and targets are written there. Loads neither numpy nor torch.
"""

from __future__ import annotations

import argparse
import dataclasses
from fractions import Fraction
from typing import Any

# The groups of options in a command's help, in their order.
GROUPS = ("question", "data", "training", "limits", "output")


def option(default: Any, group: str, text: str, flag: str = "", **argument: Any) -> Any:
    """Return a field that the command line offers in a group; argument: how argparse reads it."""
    assert group in GROUPS
    metadata = {"group": group, "help": text, "flag": flag, **argument}
    return dataclasses.field(default=default, metadata=metadata)


def option_names(options: type) -> list[str]:
    """Return the names of the fields of a class that are options."""
    return [field.name for field in dataclasses.fields(options) if "group" in field.metadata]


def add_options(groups: dict[str, Any], options: type) -> None:
    """Add the options of a class to the groups of a parser, by name; a field's default is the option's."""
    for field in dataclasses.fields(options):
        if "group" not in field.metadata:
            continue
        argument = {name: value for name, value in field.metadata.items() if name not in ("group", "flag")}
        flag = field.metadata["flag"] or f"--{field.name.replace('_', '-')}"
        groups[field.metadata["group"]].add_argument(flag, dest=field.name, default=field.default, **argument)


def number(text: str) -> float:
    """Return a number written as 0.1 or 8/255."""
    try:
        return float(Fraction(text)) if "/" in text else float(text)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"not a number: {text!r}") from None


def workers(text: str) -> int | str:
    """Return a number of processes, or "auto"."""
    if text != "auto" and (not text.isdecimal() or int(text) < 1):
        raise argparse.ArgumentTypeError(f"not a number of processes: {text!r}; a whole number of at least 1, or auto")
    return text if text == "auto" else int(text)


def sample(text: str) -> int:
    """Return how many to draw, at least one."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"not a number to draw: {text!r}; a whole number of at least 1")
    return int(text)


def target(text: str) -> int | str:
    """Return a class, or the name of a target."""
    return int(text) if text.isdecimal() else text


def radius(text: str) -> float:
    """Return a finite number that is not negative."""
    value = number(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"epsilon must be a finite number that is not negative, got {text!r}")
    return value
