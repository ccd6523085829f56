"""How exactly MWD networks are decided, and how long it takes.

    python benchmarks/exact_mwd.py radius MODEL --data digits --inputs 100 --seconds 60
    python benchmarks/exact_mwd.py formulas --variables 16 20 25 50 75 --formulas 20 --nodes 100000

`radius` closes the brackets of correctly classified inputs one by one to 1e-4 by contraction with branching, from
nothing: the share is that of inputs where this takes no more than the seconds, and `proved_by_intervals` counts those
whose lower end intervals alone would have proved. `formulas` decides random 3-SAT networks
with 4.3 clauses a variable, where such formulas are hardest, with a limit of boxes. Both print JSON, one line a row.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from exact_answers import singles, spread

from encoders.satisfiability import formula_to_network, random_formula
from verifier.answers import Answer
from verifier.bounds.mwd import contraction
from verifier.budget import Budget
from verifier.certificates.distance_chain import dense_layers
from verifier.commands.job import load_job
from verifier.commands.request import Request
from verifier.methods.contraction import ContractionMethod
from verifier.methods.interval import IntervalMethod

GAP = 1e-4
RATIO = 4.3


def radius(model: str, data: str, data_dir: Path | None, count: int, seconds: float) -> dict[str, object]:
    """Return how many brackets close to GAP within the seconds, and why the others do not."""
    job = load_job(Request(model, data, data_dir=data_dir, device="cpu"), "certify")
    batches = singles(job, count)
    method = ContractionMethod(nodes=1_000_000, refinements=60, gap=GAP)
    # Compiling is no part of the answer.
    method.decide(batches[0], batches[0].region(0.1), Budget())
    brackets, times, reasons, by_intervals = [], [], [], 0
    for batch in batches:
        budget = Budget(seconds)
        (answer,) = method.bracket(batch, (), [Answer()], budget)
        times.append(time.perf_counter() - budget.started)
        brackets.append(answer.bracket)
        radius = min(answer.bracket.lower, 1.0)
        (proof,) = IntervalMethod().decide(batch, batch.region(radius), Budget())
        by_intervals += proof.vouched_safe(radius)
        if answer.bracket.upper - answer.bracket.lower > GAP:
            reasons.append(answer.reason or "")
    gaps = [0.0 if b.lower == b.upper else b.upper - max(0.0, b.lower) for b in brackets]
    closed = [gap <= GAP and seconds_used <= seconds for gap, seconds_used in zip(gaps, times, strict=True)]
    return {
        "model": Path(model).name, "data": data, "inputs": len(batches), "closed": sum(closed),
        "share": sum(closed) / len(closed), **spread(times), "widest_gap": max(gaps),
        "median_radius": statistics.median(b.upper for b in brackets), "proved_by_intervals": by_intervals,
        "reasons": reasons,
    }  # fmt: skip


def formulas(variables: int, count: int, nodes: int) -> dict[str, object]:
    """Return how many random formulas are decided, and in how many boxes."""
    codes, boxes, times = [], [], []
    for seed in range(count):
        formula = random_formula(variables, round(RATIO * variables), seed)
        packed = contraction.pack(dense_layers(formula_to_network(formula), "exact"))
        started = time.perf_counter()
        answer = contraction.search(packed, np.zeros(variables), np.ones(variables), 0, 1, nodes)
        times.append(time.perf_counter() - started)
        codes.append(answer.code)
        boxes.append(answer.nodes)
    return {
        "variables": variables, "formulas": count, "satisfiable": codes.count(contraction.FOUND),
        "unsatisfiable": codes.count(contraction.REFUTED), "open": count - len([c for c in codes if c < 2]),
        "median_boxes": statistics.median(boxes), "most_boxes": max(boxes), **spread(times),
    }  # fmt: skip


def main() -> None:
    """Read the command line and run one command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("radius", "formulas"))
    parser.add_argument("model", nargs="?", default="digits-mwd")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--inputs", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--variables", type=int, nargs="+", default=[16, 20, 25, 50, 75])
    parser.add_argument("--formulas", type=int, default=20)
    parser.add_argument("--nodes", type=int, default=100_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.command == "radius":
        print(json.dumps(radius(options.model, options.data, options.data_dir, options.inputs, options.seconds)))
        return
    formulas(5, 1, 1)  # compiles
    for variables in options.variables:
        print(json.dumps(formulas(variables, options.formulas, options.nodes)), flush=True)


if __name__ == "__main__":
    main()
