"""Checks certificates in exact arithmetic, with Python's standard library alone.

Exit status: 0 all hold, 1 one does not, 3 one is not decided, as it needs what is
not supported or takes too long; 2 the arguments are
wrong, or a run names no certificate.
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
from verifier_check.refusals import MALFORMED, Refused, Undecided
from verifier_check.runs import check_record, run_files
from verifier_check.time_limit import TimeLimit


def main(arguments: Sequence[str] | None = None) -> int:
    """Check what the command line names; print a line each, and return the exit status."""
    parser = argparse.ArgumentParser(prog="verifier_check", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("network", type=Path, help="the network's native file")
    parser.add_argument("places", type=Path, nargs="+", help="certificates (.npz), or folders of runs")
    parser.add_argument("--property", type=Path, metavar="FILE", help="what they are about (.vnnlib, or JSON)")
    parser.add_argument("--sample", type=int, metavar="K", help="check so many of all, drawn at random (seed 0)")
    parser.add_argument("--time-limit", type=float, default=math.inf, metavar="S", help="seconds a certificate")
    options = parser.parse_args(arguments)
    try:
        if options.network.stat().st_size > MOST_NETWORK:
            raise Undecided(f"it has more than {MOST_NETWORK:,} bytes")
        network = read_network(options.network.read_bytes())
        asked = None if options.property is None else options.property.read_bytes()
        jobs: list[tuple[str, Path, tuple[dict[str, Any], dict[str, Any]] | None]] = []
        for place in options.places:
            before = len(jobs)
            jobs += run_files(place) if place.is_dir() else [(place.name, place, None)]
            if len(jobs) == before:
                raise Refused(f"{place}: its records name no certificate")
    except Undecided as error:
        print(f"{options.network}: not decided: {error}")
        return 3
    except (Refused, *MALFORMED) as error:
        print(f"cannot be read: {error}", file=sys.stderr)
        return 2
    if options.sample is not None and options.sample < len(jobs):
        jobs = sorted(random.Random(0).sample(jobs, max(options.sample, 0)), key=lambda job: job[1].name)
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
        except Undecided as error:
            status = status or 3
            print(f"{name}: not decided: {error}")
        except (Refused, *MALFORMED) as error:
            status = 1
            print(f"{name}: DOES NOT HOLD: {error}")
    print(f"{held} of {len(jobs)} hold")
    return status
