"""Verdicts about drawn cases against exact oracles: none may be wrong. For ten minutes or a night; it resumes.

    PYTHONPATH=. python benchmarks/fuzz.py FOLDER --seconds 28800 --workers 2
    PYTHONPATH=. python benchmarks/fuzz.py FOLDER --summary
    PYTHONPATH=. python benchmarks/fuzz.py FOLDER --seed 17

A piece is a seed: a small network of any ops, 240 inputs, and hundreds of questions about balls of three norms and
boxes with rows, by most methods, in real arithmetic and in float32 (`tests/whole_runs/verdicts.py`). A line is added to
FOLDER/pieces.jsonl for each that is finished, so that a run that was killed goes on where it was. What does not hold is
printed when it is found; the first such case is kept in FOLDER/wrong-SEED, and the status is 1. --seed asks one piece
again and writes nothing.
"""

from __future__ import annotations

import argparse
import fcntl
import itertools
import json
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import torch

from encoders import write_network
from tests.whole_runs.cases import draw_case
from tests.whole_runs.verdicts import INPUTS, judge

Piece = dict[str, Any]
# Of what is counted in a piece; changes with what a seed asks, so that no two versions are added up.
VERSION = 3
NAME = "pieces.jsonl"


def piece_of(seed: int) -> Piece:
    """Return what came of a seed."""
    torch.set_num_threads(1)
    started = time.process_time()
    counts = judge(seed)
    verdicts = {" ".join(key): number for key, number in sorted(counts.verdicts.items())}
    return {
        "version": VERSION, "seed": seed, "cases": counts.cases, "verdicts": verdicts,
        "certificates": dict(counts.certificates), "executions": counts.executions, "wrong": counts.wrong,
        "trusted": counts.trusted, "seconds": round(time.process_time() - started, 3),
    }  # fmt: skip


def pieces_in(folder: Path) -> dict[int, Piece]:
    """Return the finished pieces by their seeds; a line that was cut off when a run was killed is none."""
    found: dict[int, Piece] = {}
    path = folder / NAME
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            piece = json.loads(line)
        except json.JSONDecodeError:
            continue
        if piece.get("version") == VERSION:
            found[piece["seed"]] = piece
    return found


def keep(folder: Path, piece: Piece) -> None:
    """Add a piece to those of a folder: one write of one line, after what a killed run may have left of another."""
    path = folder / NAME
    torn = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, (("\n" if torn else "") + json.dumps(piece) + "\n").encode())
        os.fsync(handle)
    finally:
        os.close(handle)
    for message in piece["wrong"]:
        print(f"WRONG {message}", flush=True)
    if piece["wrong"] and not any(folder.glob("wrong-*")):
        case, place = draw_case(piece["seed"], INPUTS), folder / f"wrong-{piece['seed']}"
        place.mkdir()
        write_network(case.network, place / "network.safetensors")
        np.savez(place / "inputs.npz", x=case.x, y=case.y)
        (place / "what.json").write_text(json.dumps({**piece, "domain": case.domain, "words": case.words}, indent=1))


def fresh_pieces(seeds: Iterator[int], seconds: float, workers: int) -> Iterator[Piece]:
    """Yield pieces of seeds as they are finished, begun until the time is up."""
    ends = time.monotonic() + seconds
    if workers == 1:
        while time.monotonic() < ends and (seed := next(seeds, None)) is not None:
            yield piece_of(seed)
        return
    running: dict[Future[Piece], int] = {}
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        while True:
            while len(running) < workers and time.monotonic() < ends and (seed := next(seeds, None)) is not None:
                running[pool.submit(piece_of, seed)] = seed
            if not running:
                return
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                seed = running.pop(done)
                try:
                    yield done.result()
                except BrokenProcessPool:
                    # Whichever of them it was that ended its process, each is worth a look alone.
                    seeds_then = sorted({seed, *running.values()})
                    raise SystemExit(f"WRONG a process ended at one of the seeds {seeds_then}; ask --seed") from None


def summary(pieces: dict[int, Piece]) -> str:
    """Return the counts over pieces, as a table by kind, arithmetic and method."""
    rows: dict[tuple[str, str, str], Counter[str]] = {}
    certificates: Counter[str] = Counter()
    for piece in pieces.values():
        certificates.update(piece["certificates"])
        for key, number in piece["verdicts"].items():
            kind, method, arithmetic, word = key.split(" ")
            rows.setdefault((kind, arithmetic, method), Counter())[word] += number
    lines = ["| question | arithmetic | method | cases | of these |", "| --- | --- | --- | --- | --- |"]
    for key, words in sorted(rows.items()):
        shown = ", ".join(f"{number:,} {word}" for word, number in sorted(words.items()))
        lines.append(f"| {' | '.join(key)} | {words.total():,} | {shown} |")

    def total(name: str) -> float:
        values = [piece[name] for piece in pieces.values()]
        return sum(len(value) if isinstance(value, list) else value for value in values)

    cases, cpu = total("cases"), total("seconds")
    shown = ", ".join(f"{number:,} {word}" for word, number in sorted(certificates.items()))
    lines += [
        f"{cases:,} cases of {len(pieces):,} networks in {cpu:,.0f} CPU seconds, {cases / max(cpu, 1e-9):.0f} a second",
        f"{total('executions'):,} executions; certificates accepted: {shown or 'none made'}",
        f"words of solvers that do not hold: {total('trusted'):,}; wrong: {total('wrong'):,}",
    ]
    return "\n".join(lines)


def run(folder: Path, seconds: float, workers: int, first: int = 0, last: float = float("inf")) -> int:
    """Ask about seeds from the first on that no piece is of, for so long; return the status."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another run adds to {folder}; wait for it, or name another folder", file=sys.stderr)
            return 2
        pieces = pieces_in(folder)
        seeds = itertools.takewhile(lambda seed: seed < last, itertools.count(first))
        try:
            for piece in fresh_pieces((seed for seed in seeds if seed not in pieces), seconds, workers):
                keep(folder, piece)
                pieces[piece["seed"]] = piece
        except KeyboardInterrupt:
            print("interrupted; the same command goes on")
    print(summary(pieces))
    return 1 if any(piece["wrong"] for piece in pieces.values()) else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=600.0, help="for which pieces are begun")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the least seed")
    parser.add_argument("--seed", type=int, help="ask this piece alone, and write nothing")
    parser.add_argument("--summary", action="store_true", help="of what is in the folder")
    options = parser.parse_args()
    if options.seed is not None:
        piece = piece_of(options.seed)
        print(json.dumps(piece, indent=1))
        return 1 if piece["wrong"] else 0
    if options.summary:
        print(summary(pieces_in(options.folder)))
        return 0
    return run(options.folder, options.seconds, options.workers, options.first)


if __name__ == "__main__":
    sys.exit(main())
