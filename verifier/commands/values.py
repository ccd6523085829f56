"""How numbers, radii and targets are written on the command line."""

import argparse
from fractions import Fraction


def number(text: str) -> float:
    """Return a number written as 0.1 or 8/255."""
    try:
        return float(Fraction(text)) if "/" in text else float(text)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"not a number: {text!r}") from None


def target(text: str) -> int | str:
    """Return a class, or the name of a target."""
    return int(text) if text.isdecimal() else text


def radius(text: str) -> float:
    """Return a finite number that is not negative."""
    value = number(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"epsilon must be a finite number that is not negative, got {text!r}")
    return value
