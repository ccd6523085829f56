"""Bastani's linear program in its forms, on the inputs of smallest closed-form bound (feasible in their own region).

    python benchmarks/restriction_lp.py forms  --model lenet.safetensors --data-dir MNIST --inputs 30 --of 2000
    python benchmarks/restriction_lp.py attack --model lenet.safetensors --data-dir MNIST --inputs 8

forms   lazy (radius and ball master), all rows at once (--all-rows inputs of them), explicit with hidden variables by
        interior point (--explicit inputs): seconds of one core (process time), rounds, rows, optimum in pixels
own     the first --inputs test inputs: how many pass the screen at --pixels, and which of those are feasible; with
        --uncut all of them, solved to the end: how many are infeasible at any radius
alpha   the --inputs of smallest bound: feasible with a margin of 0, 1, 3 and the one that each needs; and how many
        points are adversarial as they are, rounded to whole pixels, and rounded with care
attack  the program in the region of an attacked point, and walking on: distances in pixels, seconds

The network is that of `verifier train lenet --data mnist --epochs 2 --out lenet.safetensors`.
"""

import argparse
import csv
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from encoders import Network, read_network
from verifier.answers import Answer
from verifier.batch import Batch
from verifier.budget import Budget
from verifier.data import load_data
from verifier.methods.restriction import RestrictionMethod
from verifier.restriction.lazy import solve_lazily
from verifier.restriction.optimum import Optimum, Outcome
from verifier.restriction.points import pixel_alpha, pixel_points
from verifier.restriction.pull import Programs
from verifier.restriction.regions import ask_own_region
from verifier.restriction.screen import screen
from verifier.restriction.whole import explicit_model, reduced_model, solve_whole
from verifier.solvers import find_solver
from verifier.subject import Subject

DOMAIN = (0.0, 1.0)
PIXELS = 255.0


def second_labels(network: Network, x: torch.Tensor) -> torch.Tensor:
    return torch.cat([network.evaluate(part).topk(2, dim=1).indices[:, 1] for part in x.split(200)])


def bounds_of(network: Network, x: torch.Tensor, targets: torch.Tensor) -> np.ndarray:
    parts = zip(x.split(100), targets.split(100), strict=True)
    return np.concatenate([screen(network, part, classes, DOMAIN, 1.0) for part, classes in parts])


def timed(work: Callable[[], Optimum]) -> tuple[Optimum, float]:
    started = time.process_time()
    answer = work()
    return answer, time.process_time() - started


def forms(network: Network, x: torch.Tensor, options: argparse.Namespace) -> None:
    targets = second_labels(network, x)
    bounds = bounds_of(network, x, targets)
    quantiles = np.quantile(bounds * PIXELS, [0.01, 0.05, 0.1, 0.25, 0.5])
    print(f"screen of {len(x)}: quantiles 1/5/10/25/50 % {np.round(quantiles, 1)} px", flush=True)
    rows: list[list[object]] = []
    seconds: dict[str, list[float]] = {}
    apart = 0.0
    for number, i in enumerate(np.argsort(bounds)[: options.inputs].tolist()):
        question = ask_own_region(network, x[i : i + 1], int(targets[i]), DOMAIN, 1.0)
        work = {name: lambda q=question, n=name: solve_lazily(q, n) for name in ("radius", "ball")}
        if number < options.all_rows:
            work["all rows"] = lambda q=question: solve_whole(q, reduced_model(q), find_solver("highs"))
        if number < options.explicit:
            work["explicit"] = lambda q=question: solve_whole(q, explicit_model(q), find_solver("highs-ipm"))
        optima = []
        for name, solve in work.items():
            answer, spent = timed(solve)
            seconds.setdefault(name, []).append(spent)
            optima.append(answer.radius * PIXELS)
            row = [i, name, str(answer.outcome), answer.radius * PIXELS, answer.rounds, answer.rows, spent]
            rows.append([*row, bounds[i] * PIXELS])
            print("  ".join(f"{v:.5f}" if isinstance(v, float) else str(v) for v in rows[-1]), flush=True)
        if np.isfinite(optima).all():
            apart = max(apart, max(optima) - min(optima))
    for name, values in seconds.items():
        both = [a / b for a, b in zip(values, seconds["radius"], strict=False)]
        print(f"{name}: median {statistics.median(values):.3f} s ({min(values):.3f} to {max(values):.3f}) of "
              f"{len(values)}; median ratio to radius {statistics.median(both):.1f}")  # fmt: skip
    print(f"largest difference of optima: {apart:.2e} px")
    write(options.out, ["input", "form", "outcome", "pixels", "rounds", "rows", "seconds", "bound pixels"], rows)


def own(network: Network, x: torch.Tensor, options: argparse.Namespace) -> None:
    x = x[: options.inputs]
    targets = second_labels(network, x)
    started = time.process_time()
    bounds = bounds_of(network, x, targets)
    print(f"screen: {(time.process_time() - started) / len(x) * 1e3:.2f} ms an input")
    passed = np.arange(len(x)) if options.uncut else np.flatnonzero(bounds * PIXELS <= options.pixels)
    cutoff = math.inf if options.uncut else options.pixels / PIXELS
    counts, seconds = dict.fromkeys(Outcome, 0), []
    radii = []
    for i in passed.tolist():
        question = ask_own_region(network, x[i : i + 1], int(targets[i]), DOMAIN, 1.0)
        answer, spent = timed(lambda q=question: solve_lazily(q, cutoff=cutoff))
        counts[answer.outcome] += 1
        seconds.append(spent)
        if answer.outcome is Outcome.FOUND:
            radii.append(answer.radius * PIXELS)
    words = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    within = [radius for radius in radii if radius <= options.pixels]
    print(f"{len(passed)} of {len(x)} asked at {options.pixels} px: {words}; "
          f"median {statistics.median(seconds or [0]):.3f} s; frequency {len(within) / len(x):.4f}, "
          f"severity {np.mean(within) if within else float('nan'):.2f} px")  # fmt: skip


def alpha(network: Network, x: torch.Tensor, options: argparse.Namespace) -> None:
    targets = second_labels(network, x)
    bounds = bounds_of(network, x, targets)
    float32 = network.cast(torch.float32)
    counts: dict[str, list[int]] = {}
    for i in np.argsort(bounds)[: options.inputs].tolist():
        question = ask_own_region(network, x[i : i + 1], int(targets[i]), DOMAIN, 1.0)
        own_margin = pixel_alpha(question)
        for name, margin in (("0", 0.0), ("1", 1.0), ("3", 3.0), ("its own", own_margin)):
            asked = replace(question, alpha=margin)
            answer = solve_lazily(asked)
            row = counts.setdefault(name, [0, 0, 0, 0])
            if answer.step is None:
                continue
            careful = pixel_points(asked, answer.step)
            exact = x[i : i + 1] + torch.from_numpy(answer.step).reshape_as(x[i : i + 1])
            points = torch.cat([exact, careful]).float()
            hit = (float32.evaluate(points).argmax(dim=1) == int(targets[i])).tolist()
            row[:] = [a + b for a, b in zip(row, (True, hit[0], hit[1], any(hit[1:])), strict=True)]
    print(f"alpha: of {options.inputs} inputs feasible, adversarial as they are, rounded, rounded with care")
    for name, row in counts.items():
        print(f"{name}: {row}")


def attack(network: Network, x: torch.Tensor, options: argparse.Namespace) -> None:
    points = x[: options.inputs]
    float32 = network.cast(torch.float32)
    subject = Subject("lenet", network, lambda v: float32.evaluate(torch.from_numpy(v)).numpy(), torch.device("cpu"))
    classes = network.evaluate(points).argmax(dim=1)
    batch = Batch(subject, points, classes, tuple(range(len(points))), DOMAIN, 1.0)
    method = RestrictionMethod()
    started = time.process_time()
    radii = [e / PIXELS for e in (5, 10, 20, 40, 60)]
    answers = method.attack.bracket(batch, radii, [Answer()] * len(batch), Budget())
    print(f"attack: {(time.process_time() - started) / len(points):.2f} s an input")
    rows: list[list[object]] = []
    for row, witness in enumerate(answer.witness for answer in answers):
        if witness is None:
            continue
        line: list[object] = [row, witness.distance * PIXELS]
        for regions in (1, options.regions):
            started = time.process_time()
            pulled = Programs(regions).pull(batch.one(row), witness, Budget())
            line += [pulled.distance * PIXELS, time.process_time() - started]
        rows.append(line)
        print("  ".join(f"{v:.4f}" if isinstance(v, float) else str(v) for v in line), flush=True)
    write(options.out, ["input", "attack pixels", "one region", "seconds", "regions", "seconds"], rows)


def write(path: Path | None, header: list[str], rows: list[list[object]]) -> None:
    if path is not None:
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows])


COMMANDS = {"forms": forms, "own": own, "alpha": alpha, "attack": attack}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--inputs", type=int, default=30)
    parser.add_argument("--of", type=int, default=2000)
    parser.add_argument("--all-rows", type=int, default=6)
    parser.add_argument("--explicit", type=int, default=2)
    parser.add_argument("--pixels", type=float, default=20.0)
    parser.add_argument("--uncut", action="store_true")
    parser.add_argument("--regions", type=int, default=6)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    network = read_network(options.model).cast(torch.float64)
    data = load_data("mnist", data_dir=options.data_dir)
    count = max(options.inputs, options.of if options.command in ("forms", "alpha") else 0)
    x = torch.tensor(data.inputs[:count]).double().reshape(-1, *network.input_shape)
    COMMANDS[options.command](network, x, options)


if __name__ == "__main__":
    main()
