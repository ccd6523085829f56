"""Families of VNN-COMP: what `verify` decides in fresh processes within a limit of wall time, against what is known.

    python benchmarks/vnncomp/run.py FAMILY [FAMILY ...] [--limit 60] [--every 3] [--out results.csv]

FAMILY is a folder with instances.csv (network, property, seconds) and expected.csv. The rows are written to --out as
they come; the same command goes on where it was stopped. At the end, or when it is interrupted, the table is printed
and the cactus plot drawn beside the rows. A verdict that contradicts the expected one, or a certificate that does not
hold, is said at once; the status is then 1. After an interruption it is 130.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from figures import GROUPS, cactus, read_peers, table
from instances import Instance, Row, Settings, decided, every, read_family, words
from rows import RowFile

INTERRUPTED = 130


def main() -> int:
    options = _arguments()
    try:
        settings = Settings(
            words(options.verifier), options.method, options.limit, options.threads, options.certificates
        )
        instances = list(every([each for folder in options.families for each in read_family(folder)], options.every))
        peers, kept = read_peers(options.peers, instances), RowFile(options.out, settings)
    except (ValueError, OSError) as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 2
    done = {row.key for row in kept.rows}
    for row in kept.rows:
        _shout(row)
    finished = _worked([each for each in instances if each.key not in done], settings, kept, options.processes)
    asked = {instance.key: number for number, instance in enumerate(instances)}
    rows = sorted((row for row in kept.rows if row.key in asked), key=lambda row: asked[row.key])
    if rows:
        print(table(rows, peers, options.by))
        plot = cactus(rows, peers, options.out.with_suffix(".png"))
        print(f"\n{len(rows)} of {len(instances)} instances; rows in {options.out}, cactus plot in {plot}")
    return 1 if any(row.is_wrong for row in rows) else 0 if finished else INTERRUPTED


def _arguments() -> argparse.Namespace:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("families", nargs="+", type=Path)
    arguments.add_argument("--limit", type=float, default=60.0, help="seconds an instance, start-up included")
    arguments.add_argument("--every", type=int, default=1, help="every n-th instance of each family")
    arguments.add_argument("--method", default="auto")
    arguments.add_argument("--certificates", action="store_true", help="keep certificates, and check them apart")
    arguments.add_argument("--processes", type=int, default=1, help="instances at a time")
    arguments.add_argument("--threads", type=int, default=1, help="of each process")
    arguments.add_argument("--out", type=Path, default=Path("vnncomp.csv"), help="rows; the plot lies beside it")
    arguments.add_argument("--by", choices=list(GROUPS), default="family", help="the lines of the table")
    arguments.add_argument(
        "--peers", type=Path, action="append", default=[], metavar="CSV",
        help="what other tools take: tool, family, onnx, vnnlib, seconds (empty where undecided)",
    )  # fmt: skip
    arguments.add_argument("--verifier", default=f"{sys.executable} -m verifier", help="the command")
    options = arguments.parse_args()
    for name in ("limit", "every", "processes", "threads"):
        if not getattr(options, name) > 0:
            arguments.error(f"--{name} must be positive, got {getattr(options, name)}")
    return options


def _worked(waiting: Sequence[Instance], settings: Settings, kept: RowFile, processes: int) -> bool:
    """Work on instances and keep their rows; False where an interruption came first."""
    stop, began = threading.Event(), time.monotonic()
    # A shell that starts this program in the background has interruptions ignored, here and by the processes that are
    # interrupted at the limit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # What ends a program politely ends this one as an interruption would.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with concurrent.futures.ThreadPoolExecutor(processes) as pool:
        tasks = [pool.submit(decided, instance, settings, stop) for instance in waiting]
        try:
            for number, task in enumerate(concurrent.futures.as_completed(tasks), 1):
                row = task.result()
                kept.add(row)
                _shout(row)
                left = (time.monotonic() - began) / number * (len(waiting) - number)
                print(
                    f"{number} of {len(waiting)}: {row.family} {Path(row.onnx).name} {Path(row.vnnlib).name}: "
                    f"{row.verdict} in {row.wall:.1f} s, about {left:.0f} s left",
                    file=sys.stderr,
                )
        except KeyboardInterrupt:
            stop.set()
            pool.shutdown(cancel_futures=True)
            for task in tasks:
                if not task.cancelled() and task.done() and task.exception() is None:
                    _keep_last(task.result(), kept)
            print("interrupted; the same command goes on from here", file=sys.stderr)
            return False
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    return True


def _keep_last(row: Row, kept: RowFile) -> None:
    """Keep a row that was ready when the run was interrupted."""
    if row.key not in {known.key for known in kept.rows}:
        kept.add(row)
        _shout(row)


def _shout(row: Row) -> None:
    """Say at once what must never happen."""
    if row.is_wrong:
        why = f"expected {row.expected}" if row.check != "refused" else f"its run is refused: {row.remark}"
        print(f"WRONG: {' '.join(row.key)}: {row.verdict}, {why}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
