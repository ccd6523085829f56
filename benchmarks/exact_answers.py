"""How many inputs the exact method decides, and how long it takes.

    python benchmarks/exact_answers.py train FOLDER --data-dir MNIST          # mnist-2x24, -2x50, -3x100: plain Adam
    python benchmarks/exact_answers.py decide MODEL --data mnist --data-dir MNIST --epsilon 0.05 --inputs 50
    python benchmarks/exact_answers.py radius MODEL --data digits --inputs 100 --seconds 20

`decide` asks the method `exact` about correctly classified inputs one by one: intervals, PGD, linear bounds, then
branch and bound on what is left; seconds are of all stages together. `radius` attacks, pulls the witness to the nearest
of its linear region, and asks about balls just short of it until the bracket is closed to 1e-4: the share is that of
inputs where this takes no more than the seconds. Both print one line of JSON.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from encoders.formats import write_network
from encoders.formats.torch_export import from_module
from verifier.answers import Answer
from verifier.batch import BATCH_SIZE, Batch
from verifier.bounds.split.answer import SplitAnswer
from verifier.bounds.split.search import decide_ball
from verifier.budget import Budget
from verifier.commands.job import Job, load_job
from verifier.commands.request import Request
from verifier.data import load_data
from verifier.methods import METHODS, exact
from verifier.methods.exact import ExactMethod

HIDDEN = {"mnist-2x24": (24, 24), "mnist-2x50": (50, 50), "mnist-3x100": (100, 100, 100)}
EPOCHS = {"mnist-2x24": 10, "mnist-2x50": 10, "mnist-3x100": 10}
RADII = (0.02, 0.05, 0.1, 0.2, 0.4, 0.9)
GAP = 1e-4


def train(name: str, data_dir: Path | None, folder: Path) -> None:
    """Train one network by Adam with rate 1e-3 in batches of 100, and write it."""
    torch.manual_seed(0)
    data = load_data("mnist", data_dir=data_dir, split="train")
    x, y = torch.tensor(data.inputs).flatten(1), torch.tensor(data.labels)
    layers: list[nn.Module] = []
    before = x.shape[1]
    for width in HIDDEN[name]:
        layers += [nn.Linear(before, width), nn.ReLU()]
        before = width
    module = nn.Sequential(*layers, nn.Linear(before, 10))
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-3)
    for _ in range(EPOCHS[name]):
        for rows in torch.randperm(len(x)).split(100):
            optimiser.zero_grad()
            functional.cross_entropy(module(x[rows]), y[rows]).backward()
            optimiser.step()
    test = load_data("mnist", data_dir=data_dir)
    inputs, labels = torch.tensor(test.inputs).flatten(1), torch.tensor(test.labels)
    accuracy = float((module(inputs).argmax(dim=1) == labels).double().mean())
    path = folder / f"{name}.safetensors"
    write_network(from_module(module, (x.shape[1],)), path)
    print(json.dumps({"model": path.name, "accuracy": accuracy}))


def singles(job: Job, count: int) -> list[Batch]:
    """Return the first `count` correctly classified inputs, each a batch of its own."""
    found: list[Batch] = []
    for rows in job.units(BATCH_SIZE):
        points, labels = job.points(rows), job.labels(rows)
        right = job.subject.execute(points).argmax(axis=1) == labels
        found += [job.batch(points[i : i + 1], [rows[i]], labels[i : i + 1]) for i in np.flatnonzero(right).tolist()]
        if len(found) >= count:
            break
    return found[:count]


def decide(batches: list[Batch], epsilon: float, seconds: float) -> dict[str, object]:
    """Return the counts and the seconds of the decisions at one radius."""
    answers: list[SplitAnswer] = []

    def noted(*question: Any) -> SplitAnswer:
        answers.append(decide_ball(*question))
        return answers[-1]

    exact.decide_ball = noted
    certified = falsified = searched = 0
    times, subproblems, programs, units = [], [], [], []
    for batch in batches:
        answers.clear()
        started = time.perf_counter()
        (answer,) = METHODS["exact"].decide(batch, batch.region(epsilon), Budget(seconds))
        times.append(time.perf_counter() - started)
        certified += answer.vouched_safe(epsilon)
        falsified += answer.witness is not None
        searched += bool(answers)
        subproblems.append(sum(answer.subproblems for answer in answers))
        programs.append(sum(answer.programs for answer in answers))
        units += [answers[0].open_units] if answers else []
    exact.decide_ball = decide_ball
    return {
        "epsilon": epsilon, "inputs": len(batches), "certified": certified, "falsified": falsified,
        "open": len(batches) - certified - falsified, "searched": searched,
        "median_open_units": statistics.median(units) if units else None, **spread(times),
        "most_parts": max(subproblems), "programs": sum(programs),
    }  # fmt: skip


def radius(batches: list[Batch], seconds: float) -> dict[str, object]:
    """Return how many brackets close to GAP within the seconds."""
    gaps, times = [], []
    for batch in batches:
        budget = Budget(seconds)
        answers = METHODS["restriction"].bracket(batch, RADII, [Answer()], budget)
        (answer,) = ExactMethod(gap=GAP, refinements=40).bracket(batch, (), answers, budget)
        times.append(time.perf_counter() - budget.started)
        gaps.append(answer.bracket.upper - max(0.0, answer.bracket.lower))
    closed = [gap <= GAP for gap in gaps]
    return {"inputs": len(batches), "closed": sum(closed), "share": sum(closed) / len(closed), **spread(times),
            "widest_gap": max(gaps)}  # fmt: skip


def spread(times: list[float]) -> dict[str, float]:
    """Return the median, the 90 % quantile and the greatest of the seconds."""
    return {
        "median_seconds": round(statistics.median(times), 3),
        "seconds_90": round(float(np.quantile(times, 0.9)), 3),
        "most_seconds": round(max(times), 3),
    }


def main() -> None:
    """Read the command line and run one command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("train", "decide", "radius"))
    parser.add_argument("path", help="a folder to train into, or a model")
    parser.add_argument("--only", choices=tuple(HIDDEN), help="train one network")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--epsilon", type=float, default=0.05)
    parser.add_argument("--inputs", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.command == "train":
        Path(options.path).mkdir(parents=True, exist_ok=True)
        for name in [options.only] if options.only else HIDDEN:
            train(name, options.data_dir, Path(options.path))
        return
    job = load_job(Request(options.path, options.data, data_dir=options.data_dir, device="cpu"), "certify")
    batches = singles(job, options.inputs)
    result = (
        radius(batches, options.seconds)
        if options.command == "radius"
        else decide(batches, options.epsilon, options.seconds)
    )
    print(json.dumps({"model": Path(options.path).name, "data": options.data, **result}))


if __name__ == "__main__":
    main()
