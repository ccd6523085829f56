"""Checks certificates in exact arithmetic, with Python's standard library alone.

Exit status: 0 all that are drawn hold, 1 one does not, 3 one is not decided, as it needs what is not supported, or too
much time or memory; 2 the arguments are wrong, or a run names no certificate.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from verifier_check.certificate import check_certificate
from verifier_check.file import MOST_BYTES
from verifier_check.network import MOST_BYTES as MOST_NETWORK
from verifier_check.network import read_network
from verifier_check.refusals import MALFORMED, UNDECIDED, Refused, Undecided, why
from verifier_check.runs import check_record, run_files
from verifier_check.time_limit import TimeLimit


def main(arguments: Sequence[str] | None = None) -> int:
    """Check what the command line names; print a line each, and return the exit status."""
    parser = argparse.ArgumentParser(prog="verifier_check", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("network", type=Path, help="the network's native file")
    parser.add_argument("places", type=Path, nargs="+", help="certificates (.npz), or folders of runs")
    parser.add_argument("--property", type=Path, metavar="FILE", help="what they are about (.vnnlib, or JSON)")
    parser.add_argument("--sample", type=_count, metavar="K", help="check so many of all, drawn at random (seed 0)")
    parser.add_argument("--time-limit", type=_seconds, default=math.inf, metavar="S", help="seconds a certificate")
    options = parser.parse_args(arguments)
    try:
        if options.network.stat().st_size > MOST_NETWORK:
            raise Undecided(f"it has more than {MOST_NETWORK:,} bytes")
        network = read_network(options.network.read_bytes())
        asked = None if options.property is None else options.property.read_bytes()
        jobs, without = _jobs(options.places)
    except UNDECIDED as error:
        print(f"{options.network}: not decided: {why(error)}")
        return 3
    except (Refused, *MALFORMED) as error:
        print(f"cannot be read: {error}", file=sys.stderr)
        return 2
    if options.sample is not None and options.sample < len(jobs):
        jobs = sorted(random.Random(0).sample(jobs, options.sample), key=lambda job: job[1].name)
    status, held = 0, 0
    for name, path, record in jobs:
        try:
            if path.is_symlink() or path.stat().st_size > MOST_BYTES:
                raise Refused(f"it is a link, or has more than {MOST_BYTES:,} bytes")
            content = path.read_bytes()
            if record is not None:
                check_record(content, *record)
            claim, leaves = check_certificate(content, network, asked, TimeLimit(options.time_limit))
            held += 1
            print(f"{name}: holds: {claim} ({leaves} leaves)")
        except UNDECIDED as error:
            status = status or 3
            print(f"{name}: not decided: {why(error)}")
        except (Refused, *MALFORMED) as error:
            status = 1
            print(f"{name}: DOES NOT HOLD: {error}")
    more = f"; nothing is said of {without} records that name no certificate" if without else ""
    print(f"{held} of {len(jobs)} hold{more}")
    return status


def _jobs(places: Sequence[Path]) -> tuple[list[Any], int]:
    """Return (name, file, what a record says of it or None) of all certificates, and how many records name none."""
    jobs, without = list[Any](), 0
    for place in places:
        found, none = run_files(place) if place.is_dir() else ([(place.name, place, None)], 0)
        if not found:
            raise Refused(f"{place}: its records name no certificate")
        jobs, without = jobs + found, without + none
    return jobs, without


def _count(text: str) -> int:
    """Return how many to draw: of none that are drawn it would be said that all hold."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is no whole number of at least 1")
    return int(text)


def _seconds(text: str) -> float:
    if not float(text) >= 0:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is no number of seconds")
    return float(text)
