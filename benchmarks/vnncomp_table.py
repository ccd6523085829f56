"""Instances of VNN-COMP families: what `verify` decides within a time limit, compared with the expected verdicts.

    python benchmarks/vnncomp_table.py FAMILY [FAMILY ...] --timeout 10 [--every 3] [--out results.csv]

FAMILY is a folder with instances.csv (network, property, seconds) and expected.csv. A verdict that contradicts an
expected one is wrong; the script then ends with status 1. One thread; seconds are those of the property alone, without
the start of Python and the reading of files.
"""

import argparse
import collections
import contextlib
import csv
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

from verifier import verify

WORDS = ("unsat", "sat", "unknown", "timeout", "error")


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("families", nargs="+", type=Path)
    arguments.add_argument("--timeout", type=float, default=10.0)
    arguments.add_argument("--every", type=int, default=1, help="every n-th instance")
    arguments.add_argument("--method", default="auto")
    arguments.add_argument("--out", type=Path, help="a table of all instances")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    print("family instances unsat sat unknown timeout error wrong median_s total_s")
    with contextlib.ExitStack() as stack:
        table = None
        if options.out is not None:
            # Row by row: what a run of hours has found is there when it is stopped.
            table = csv.writer(stack.enter_context(options.out.open("w", newline="", buffering=1)))
            table.writerow(("family", "onnx", "vnnlib", "expected", "verdict", "seconds", "by"))
        wrong = sum(contradictions(family, options, table) for family in options.families)
    return 1 if wrong else 0


def contradictions(family: Path, options: argparse.Namespace, table: Any) -> int:
    """Decide the instances of a family, print its line, and return how many verdicts are wrong."""
    began, counts, seconds, wrong = time.perf_counter(), collections.Counter(), [], 0
    for network, name, expected in instances(family)[:: options.every]:
        verdict, spent, remark = decided(family / network, family / name, options)
        counts[verdict] += 1
        seconds.append(spent)
        if {verdict, expected} == {"sat", "unsat"}:
            wrong += 1
            print(f"WRONG: {network} {name}: {verdict}, expected {expected}", file=sys.stderr)
        if table is not None:
            table.writerow((family.name, network, name, expected, verdict, f"{spent:.3f}", remark))
    numbers = " ".join(str(counts[word]) for word in WORDS)
    total = time.perf_counter() - began
    median = statistics.median(seconds)
    print(f"{family.name} {len(seconds)} {numbers} {wrong} {median:.2f} {total:.0f}", flush=True)
    return wrong


def instances(family: Path) -> list[tuple[str, str, str]]:
    """Return (network, property, expected verdict) of a family, in the order of instances.csv."""
    with (family / "expected.csv").open(newline="") as file:
        expected = {(row["onnx"], row["vnnlib"]): row["expected"] for row in csv.DictReader(file)}
    with (family / "instances.csv").open(newline="") as file:
        pairs = [(row[0].strip(), row[1].strip()) for row in csv.reader(file) if row]
    return [(network, name, expected.get((network, name), "unknown")) for network, name in pairs]


def decided(network: Path, name: Path, options: argparse.Namespace) -> tuple[str, float, str]:
    """Return (verdict, seconds, the method or the reason); what fails is an error with its message."""
    try:
        (verified,) = verify(network, name, method=options.method, time_limit=options.timeout).properties
    except Exception as error:  # a crash is a line of the table, not its end
        print(f"ERROR: {network.name} {name.name}: {type(error).__name__}: {error}", file=sys.stderr)
        return "error", 0.0, f"{type(error).__name__}: {error}"[:200]
    return verified.verdict.value, verified.seconds, verified.method or verified.reason or ""


if __name__ == "__main__":
    sys.exit(main())
