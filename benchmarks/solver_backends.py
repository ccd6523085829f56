"""The same problems on every solver, and whether they say the same.

    python benchmarks/solver_backends.py --inputs 20
    python benchmarks/solver_backends.py --models digits-relu FOLDER/mnist-2x24.safetensors --data-dir MNIST --inputs 20

Three kinds of problems at one radius, each from the correctly classified inputs that linear bounds leave open:
`lp`, the least margin over the convex rows, on every solver of linear programs; `milp`, the least margin over the exact
rows, on HiGHS and CBC, both in worker processes; `decide`, is the ball safe, of the inputs that PGD leaves open too, on
those two and on our own branch and bound. One line of JSON for each kind, model and solver: counts, seconds (a process
that starts is not counted), and against the first solver of the kind how many optima (signs, for `decide`) differ by
more than 1e-6 of max(1, size), and the greatest difference. A problem that either has stopped on is not compared.
MNIST models are trained by benchmarks/exact_answers.py.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from encoders.formulations.relax import relax
from encoders.linear_model import LinearModel
from verifier.attacks import ATTACKS
from verifier.batch import BATCH_SIZE, Batch
from verifier.bounds.programs.milp import ExactRows
from verifier.budget import Budget
from verifier.commands.job import Job, load_job
from verifier.commands.request import Request
from verifier.methods import Method
from verifier.methods.exact import ExactMethod
from verifier.methods.falsify import FalsifyMethod
from verifier.methods.milp import MilpMethod
from verifier.solvers import Solver, Termination, find_solver

LP_SOLVERS = ("highs", "highs-ipm", "cvxpy", "pulp")
MILP_SOLVERS = ("worker:highs", "worker:pulp")
AGREEMENT = 1e-6


def open_inputs(job: Job, epsilon: float, count: int) -> list[tuple[Batch, ExactRows, torch.Tensor]]:
    """Return (batch of one, its exact rows, differences of the rivals that linear bounds leave open) of each input."""
    found = []
    for rows in job.units(BATCH_SIZE):
        points, labels = job.points(rows), job.labels(rows)
        right = job.subject.execute(points).argmax(axis=1) == labels
        for i in np.flatnonzero(right).tolist():
            batch = job.batch(points[i : i + 1], [rows[i]], labels[i : i + 1])
            exact = ExactRows(job.subject.network, batch.region(epsilon))
            units = torch.eye(job.subject.classes, dtype=torch.float64)
            own = int(labels[i])
            differences = units[own] - units[torch.arange(len(units)) != own]
            least, _ = exact.least(differences)
            if bool((least <= 0).any()):
                found.append((batch, exact, differences[least.argsort()][: int((least <= 0).sum())]))
            if len(found) == count:
                return found
    return found


def solve_all(solver: Solver, models: Sequence[LinearModel], seconds: float) -> tuple[list[float], list[float]]:
    """Return (optima, NaN where it stopped; seconds) of the programs."""
    solver.solve(models[0], seconds)
    optima, times = [], []
    for model in models:
        started = time.perf_counter()
        found = solver.solve(model, seconds)
        times.append(time.perf_counter() - started)
        is_optimal = found.termination is Termination.OPTIMAL and found.primal is not None
        optima.append(float(model.cost @ found.primal) if is_optimal else math.nan)  # type: ignore[operator]
    return optima, times


def decide_all(
    method: Method, batches: Sequence[Batch], epsilon: float, seconds: float
) -> tuple[list[float], list[float]]:
    """Return (1 safe, -1 broken, NaN open; seconds) of the inputs."""
    method.decide(batches[0], batches[0].region(epsilon), Budget(seconds))
    signs, times = [], []
    for batch in batches:
        started = time.perf_counter()
        (answer,) = method.decide(batch, batch.region(epsilon), Budget(seconds))
        times.append(time.perf_counter() - started)
        signs.append(1.0 if answer.vouched_safe(epsilon) else math.nan if answer.witness is None else -1.0)
    return signs, times


def report(kind: str, model: str, name: str, answers: list[float], times: list[float], first: list[float]) -> None:
    """Print one line."""
    both = [(a, b) for a, b in zip(answers, first, strict=True) if not math.isnan(a) and not math.isnan(b)]
    differences = [abs(a - b) / max(1.0, abs(b)) for a, b in both]
    print(json.dumps({
        "kind": kind, "model": model, "solver": name, "problems": len(answers),
        "stopped": sum(math.isnan(a) for a in answers), "compared": len(both),
        "differ": sum(d > AGREEMENT for d in differences), "greatest_difference": max(differences, default=None),
        "median_seconds": round(statistics.median(times), 4), "seconds_90": round(float(np.quantile(times, 0.9)), 4),
        "most_seconds": round(max(times), 3),
    }), flush=True)  # fmt: skip


def compare(kind: str, model: str, runs: dict[str, Callable[[], tuple[list[float], list[float]]]]) -> None:
    """Run each solver and print its line."""
    first: list[float] = []
    for name, run in runs.items():
        answers, times = run()
        first = first or answers
        report(kind, model, name, answers, times, first)


def main() -> None:
    """Read the command line and run everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["digits-relu"])
    parser.add_argument("--data-dir", type=Path, help="where MNIST lies, for models of 784 inputs")
    parser.add_argument("--epsilon", type=float, default=0.05)
    parser.add_argument("--inputs", type=int, default=20, help="inputs that linear bounds leave open")
    parser.add_argument("--programs", type=int, default=40, help="linear and integer programs for each model, at most")
    parser.add_argument("--seconds", type=float, default=20.0, help="limit of one program or decision")
    parser.add_argument("--kinds", nargs="+", default=["lp", "milp", "decide"], choices=("lp", "milp", "decide"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    for model in options.models:
        data = "mnist" if "mnist" in model else "digits"
        job = load_job(Request(model, data, data_dir=options.data_dir, device="cpu"), "certify")
        run(job, Path(model).stem, options)


def run(job: Job, model: str, options: argparse.Namespace) -> None:
    """Run all kinds on one model."""
    inputs = open_inputs(job, options.epsilon, options.inputs)
    rows = [(exact, row.numpy()) for _, exact, differences in inputs for row in differences][: options.programs]
    seconds = options.seconds
    if "lp" in options.kinds:
        programs = [relax(exact.network, exact.bounds.boxes).model(row) for exact, row in rows]
        compare("lp", model, {n: lambda n=n: solve_all(find_solver(n), programs, seconds) for n in LP_SOLVERS})
    if "milp" in options.kinds:
        integers = [exact.encoded(4).model(row) for exact, row in rows]
        compare("milp", model, {n: lambda n=n: solve_all(find_solver(n), integers, seconds) for n in MILP_SOLVERS})
    if "decide" in options.kinds:
        attack = FalsifyMethod("attack", [ATTACKS["pgd"]])
        batches = [batch for batch, _, _ in inputs
                   if attack.decide(batch, batch.region(options.epsilon), Budget())[0].witness is None]  # fmt: skip
        methods = (MilpMethod(), MilpMethod("pulp", name="milp-cbc"), ExactMethod())
        if batches:
            compare("decide", model, {
                m.name: lambda m=m: decide_all(m, batches, options.epsilon, seconds) for m in methods
            })  # fmt: skip


if __name__ == "__main__":
    main()
