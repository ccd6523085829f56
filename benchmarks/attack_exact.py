"""Every attack against exact robust radii in the inf-norm: how often it finds the nearest counterexample, how nearly.

    python benchmarks/exact_answers.py train FOLDER --only mnist-2x24 --data-dir MNIST
    python benchmarks/attack_exact.py radii digits-relu --folder RUNS [--inputs 100] [--seconds 60]
    python benchmarks/attack_exact.py attacks digits-relu --folder RUNS [--inputs 100] [--attacks ddn fmn ...]
    python benchmarks/attack_exact.py table --folder RUNS

`radii` closes the bracket of each correctly classified input by `restriction` and `exact` (a witness from above, a
certificate from below) and keeps those that it closes to a share of CLOSED. `attacks` runs attacks on the inputs that
are kept; `table` prints what they found. All append to files of the folder and go on where they were stopped.

A counterexample counts where it is replayed and unsafe in rational numbers. *nearest* is the share of inputs where one
is found within NEAR of the exact radius: for attacks that search a ball, in the ball of that radius. *ratio* is the
median of distance over radius, for those the least of LADDER at which they break the input. Seconds are CPU seconds of
the attack alone, of one run of all inputs together, for each input. A counterexample nearer than the certified end
would show a wrong proof, and stops the run.

In the 2- and the 1-norm nothing here decides radii: `attacks --norm 2` compares with the nearest counterexample that
any of the attacks found, which is an upper end only.
"""

import argparse
import json
import math
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from encoders.region import NORMS, Norm
from verifier.answers import Answer
from verifier.attacks import ATTACKS, Attack, Proposals, Search
from verifier.batch import Batch
from verifier.budget import Budget
from verifier.commands.job import DataJob, load_job
from verifier.commands.request import Request
from verifier.methods import METHODS
from verifier.methods.exact import ExactMethod
from verifier.witnesses.find import find_witnesses

RADII = (0.02, 0.05, 0.1, 0.2, 0.4, 0.9)
# Absolute width that brackets are closed to, and the share of the radius at which one counts as exact.
GAP, CLOSED = 1e-5, 1e-3
NEAR = 1e-3
# Balls that attacks within a radius are given in turn, in units of the exact radius.
LADDER = (1.0 + NEAR, 1.003, 1.01, 1.03, 1.1, 1.3, 2.0, 4.0)


@dataclass(frozen=True)
class Radius:
    """What is known of one input: the certified and the replayed end of its bracket, and the seconds it took."""

    index: int
    label: int
    lower: float
    upper: float
    seconds: float

    @property
    def exact(self) -> bool:
        return math.isfinite(self.upper) and 0.0 < self.upper - self.lower <= CLOSED * self.upper


class Timed(Attack):
    """Another attack, the CPU seconds of whose first run are kept; `pursue` may run it again."""

    norms: ClassVar[tuple[str, ...]] = NORMS

    def __init__(self, inner: Attack) -> None:
        self.inner = inner
        self.seconds: float | None = None

    def propose(self, search: Search) -> Tensor:
        raise AssertionError("run is what is called")

    def run(self, search: Search) -> Proposals:
        started = time.process_time()
        proposals = self.inner.run(search)
        if self.seconds is None:
            self.seconds = time.process_time() - started
        return proposals


def radii(job: DataJob, path: Path, count: int, seconds: float) -> None:
    """Append the brackets of the first correctly classified inputs that the file lacks."""
    known = {radius.index for radius in read_radii(path)}
    seen = 0
    for rows in job.batches():
        points, labels = job.points(rows), job.labels(rows)
        right = job.subject.execute(points).argmax(axis=1) == labels
        for i in np.flatnonzero(right).tolist():
            seen += 1
            if seen > count:
                return
            if rows[i] in known:
                continue
            batch = job.batch(points[i : i + 1], [rows[i]], labels[i : i + 1])
            budget, started = Budget(seconds), time.process_time()
            answers = METHODS["restriction"].bracket(batch, RADII, [Answer()], budget)
            (answer,) = ExactMethod(gap=GAP, refinements=40).bracket(batch, (), answers, budget)
            used = time.process_time() - started
            append(path, {"index": rows[i], "label": int(labels[i]), "lower": answer.bracket.lower,
                          "upper": answer.bracket.upper, "seconds": used})  # fmt: skip


def read_radii(path: Path) -> list[Radius]:
    """Return the brackets of a file, in the order of the inputs."""
    return sorted((Radius(**line) for line in lines(path)), key=lambda radius: radius.index)


def distances(job: DataJob, name: str, known: list[Radius], norm: Norm) -> dict[str, Any]:
    """Return the distances at which an attack breaks the inputs (infinite where it does not), and its seconds."""
    rows = [radius.index for radius in known]
    everything = job.points(range(rows[-1] + 1))
    labels = np.array([radius.label for radius in known])
    batch = job.batch(everything[rows], rows, labels, norm)
    attack = Timed(ATTACKS[name])
    found = np.full(len(batch), math.inf)
    if attack.inner.minimal:
        search_ball(attack, batch, torch.full((len(batch),), batch.reach * (1.0 + 1e-6), dtype=torch.float64), found)
    else:
        exact = torch.tensor([radius.upper for radius in known], dtype=torch.float64)
        for share in LADDER:
            left = torch.nonzero(torch.from_numpy(np.isinf(found))).squeeze(1)
            if not len(left):
                break
            part = np.full(len(left), math.inf)
            search_ball(attack, batch.at(left), share * exact[left], part)
            # What is met in a ball is no minimum: the ball is what the attack was good for.
            found[left.numpy()] = np.where(np.isfinite(part), share * exact[left].numpy(), math.inf)
    return {"attack": name, "inputs": rows, "distances": found.tolist(), "seconds": attack.seconds}


def search_ball(attack: Attack, batch: Batch, radius: Tensor, found: np.ndarray) -> None:
    """Write the distances of confirmed counterexamples into `found`."""
    for row, answer in enumerate(find_witnesses([attack], batch, batch.region(radius), "attack", Budget(math.inf))):
        if answer.witness is not None:
            found[row] = answer.witness.distance


def attacks(job: DataJob, known: list[Radius], path: Path, names: list[str], norm: Norm) -> None:
    """Append what each attack finds that supports the norm and that the file lacks."""
    done = {line["attack"] for line in lines(path)}
    for name in names:
        if name in done or norm not in ATTACKS[name].norms:
            continue
        # Balls of an exact radius are known in the inf-norm only.
        if norm != "inf" and not ATTACKS[name].minimal:
            continue
        line = distances(job, name, known, norm)
        if norm == "inf":
            for radius, distance in zip(known, line["distances"], strict=True):
                assert distance > radius.lower, f"{name}: input {radius.index} is broken at {distance}, {radius}"
        append(path, line)
        print(row_of(line, exact_of(known, norm, path)), flush=True)


def exact_of(known: list[Radius], norm: Norm, path: Path) -> dict[int, float]:
    """Return the exact radius of each input, in other norms than inf the least distance of the file."""
    if norm == "inf":
        return {radius.index: radius.upper for radius in known}
    least: dict[int, float] = {}
    for line in lines(path):
        for index, distance in zip(line["inputs"], line["distances"], strict=True):
            least[index] = min(distance, least.get(index, math.inf))
    return least


def row_of(line: dict[str, Any], exact: dict[int, float]) -> str:
    """Return a row of the table."""
    pairs = [(d / exact[i]) for i, d in zip(line["inputs"], line["distances"], strict=True) if i in exact]
    near = sum(ratio <= 1.0 + 1.0001 * NEAR for ratio in pairs) / len(pairs)
    broken = sum(math.isfinite(ratio) for ratio in pairs) / len(pairs)
    return (
        f"| {line['attack']} | {near:.0%} | {statistics.median(pairs):.4f} | {np.quantile(pairs, 0.9):.3f} "
        f"| {broken:.0%} | {1000 * line['seconds'] / len(pairs):.2f} |"
    )


def table(folder: Path) -> None:
    """Print what the folder's files say, a table for each network and norm."""
    for path in sorted(folder.glob("*-attacks.jsonl")):
        stem = path.name.removesuffix("-attacks.jsonl")
        model, norm = stem.rsplit("-", 1)
        known = [radius for radius in read_radii(folder / f"{model}-radii.jsonl") if radius.exact]
        print(f"\n{model}, {norm}-norm: {len(known)} inputs with exact radii (inf-norm)")
        print("| attack | nearest | median ratio | 90 % | broken | CPU ms an input |")
        print("| --- | --- | --- | --- | --- | --- |")
        exact = exact_of(known, norm, path)  # type: ignore[arg-type]
        for line in lines(path):
            print(row_of(line, exact))


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a file, none where there is no file."""
    return [json.loads(text) for text in path.read_text().splitlines()] if path.exists() else []


def append(path: Path, line: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def main() -> None:
    """Read the command line and run one command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("radii", "attacks", "table"))
    parser.add_argument("model", nargs="?", help="a shipped name or a file; not of `table`")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--inputs", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=60.0, help="for one exact radius")
    parser.add_argument("--norm", choices=NORMS, default="inf")
    parser.add_argument("--attacks", nargs="+", choices=list(ATTACKS), default=list(ATTACKS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.command == "table":
        table(options.folder)
        return
    if options.model is None:
        parser.error("name a model")
    name = Path(options.model).stem
    job = load_job(Request(options.model, options.data, data_dir=options.data_dir, device="cpu"), "attack")
    file = options.folder / f"{name}-radii.jsonl"
    if options.command == "radii":
        radii(job, file, options.inputs, options.seconds)
        known = read_radii(file)
        print(f"{name}: {sum(radius.exact for radius in known)} of {len(known)} radii exact")
        return
    known = [radius for radius in read_radii(file) if radius.exact][: options.inputs]
    attacks(job, known, options.folder / f"{name}-{options.norm}-attacks.jsonl", options.attacks, options.norm)


if __name__ == "__main__":
    main()
