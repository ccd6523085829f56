"""What certificates of runs cost: bytes a leaf, and how long both checkers take beside the search.

    PYTHONPATH=. python benchmarks/certificate_cost.py RUN ... [--least LEAVES] [--data-dir MNIST]

Seconds of the search are those of an input's stages, by the clock, as its record has them; those of the fast check are
by the clock, too, the least of three, so that their ratio means something on a quiet machine; the exact check is in CPU
seconds. `--least` leaves out smaller certificates. A line for each certificate of at least 100 leaves, and one for each
run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from verifier.certificates.exactly import ExactChecker
from verifier.commands.check import loaded_claims
from verifier.runs.folder import read_run

SHOWN, REPEATS = 100, 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--least", type=int, default=1, metavar="LEAVES")
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args()
    for run in options.runs:
        stored, exact = read_run(run), ExactChecker()
        claims = loaded_claims(run, stored.configuration, None, None, options.data_dir)
        proofs, sizes, shares, exactly, refused = 0, [], [], [], []
        for index, record in sorted(stored.lines.records.items()):
            if record.proved < 0:
                continue
            proofs += 1
            named = record.certificate
            if named is None or named.leaves < options.least:
                continue
            search, fast = sum(stage.seconds for stage in record.spent), []
            for _ in range(REPEATS):
                started = time.perf_counter()
                claims.leaves(record)
                fast.append(time.perf_counter() - started)
            started = time.process_time()
            found = exact.leaves(*claims.exact_question(record))
            seconds = time.process_time() - started
            if isinstance(found, str):
                refused.append(f"{index}: {found}")
            sizes.append((named.bytes, named.leaves))
            shares.append(min(fast) / search)
            exactly.append(seconds)
            if named.leaves >= SHOWN:
                print(
                    f"{run.name} {index}: {named.leaves:,} leaves, {named.bytes:,} bytes; search {search:.2f} s, fast "
                    f"check {min(fast):.3f} s ({min(fast) / search:.1%}), exact check {seconds:.2f} CPU s"
                )
        if not sizes:
            print(f"{run.name}: {proofs} proofs, no certificate of at least {options.least} leaves")
            continue
        total, leaves = map(sum, zip(*sizes, strict=True))
        print(
            f"{run.name}: {proofs} proofs, {len(sizes)} certificates, {leaves:,} leaves, {total / leaves:.0f} bytes a "
            f"leaf (at most {max(a / b for a, b in sizes):.0f}); check over search {statistics.median(shares):.1%} "
            f"(most {max(shares):.1%}); exact check {sum(exactly):.1f} CPU s, "
            f"most {max(exactly):.2f}; not decided {refused}"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
