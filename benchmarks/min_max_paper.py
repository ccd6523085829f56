"""What Pallaprolu, Madala (2020) say of the min-max problem, as commands that take seconds.

    python benchmarks/min_max_paper.py danskin     the gradient at a maximiser beside that of the greatest loss
    python benchmarks/min_max_paper.py surface     outputs of one hidden layer of 100 relus at random, and concavity
    python benchmarks/min_max_paper.py balls       balls of the 1, 2 and inf-norm and projections on them

danskin   phi(w) = max over a box of L(w, x + d), for a 2-16-2 network and an input, d* by a grid of 301 x 301 points.
          Central differences of phi by w in random directions against the gradient of L at d*, and at worse points:
          what Danskin's theorem says at a maximiser, and what is left of it at an approximate one.
surface   The transfer function over a square and the loss of class 0; how often a midpoint lies below its chord, which
          a concave function forbids.
balls     Random points and their nearest points of each ball, by the projections that attacks use.

Results go to --out as CSV and PNG.
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from verifier.attacks.geometry import project

matplotlib.use("Agg")

EPSILON = 0.3
STEP = 1e-5


def danskin(options: argparse.Namespace) -> None:
    torch.manual_seed(options.seed)
    module = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2)).double()
    weights = dict(module.named_parameters())
    x, label = torch.rand(1, 2, dtype=torch.float64), torch.tensor([0])
    axis = torch.linspace(-EPSILON, EPSILON, 301, dtype=torch.float64)
    points = x + torch.cartesian_prod(axis, axis)

    def losses(at: dict[str, Tensor], where: Tensor) -> Tensor:
        scores = functional_call(module, at, (where,))
        return nn.functional.cross_entropy(scores, label.expand(len(where)), reduction="none")

    values = losses(weights, points).detach()
    order = values.argsort(descending=True)
    greatest = float(values[order[0]])
    directions = [{name: torch.randn_like(value) for name, value in weights.items()} for _ in range(20)]
    slopes = []
    for direction in directions:
        ends = [
            losses({name: (w + sign * STEP * direction[name]).detach() for name, w in weights.items()}, points).max()
            for sign in (1, -1)
        ]
        slopes.append(float(ends[0] - ends[1]) / (2 * STEP))
    rows: list[list[object]] = []
    for share in (0.0, 0.001, 0.01, 0.03, 0.1, 0.3, 1.0):
        place = points[order[min(int(share * len(points)), len(points) - 1)]][None]
        loss = losses(weights, place).sum()
        gradient = dict(zip(weights, torch.autograd.grad(loss, [*weights.values()]), strict=True))
        at_point = [sum(float((gradient[name] * part).sum()) for name, part in d.items()) for d in directions]
        error = np.linalg.norm(np.subtract(at_point, slopes)) / np.linalg.norm(slopes)
        rows.append([share, greatest - float(loss.detach()), float(error)])
    write(options, "danskin", ["share of points above", "loss below the greatest", "relative error of slopes"], rows)


def surface(options: argparse.Namespace) -> None:
    from matplotlib import pyplot

    torch.manual_seed(options.seed)
    module = nn.Sequential(nn.Linear(2, 100), nn.ReLU(), nn.Linear(100, 2)).double()
    for layer in (module[0], module[2]):
        nn.init.normal_(layer.weight, std=layer.weight.shape[1] ** -0.5)
        nn.init.normal_(layer.bias)
    axis = torch.linspace(-3, 3, 201, dtype=torch.float64)
    with torch.no_grad():
        scores = module(torch.cartesian_prod(axis, axis))
        pictures = {"output of class 0": scores[:, 0], "loss of class 0": -scores.log_softmax(dim=1)[:, 0]}
        ends = 6 * torch.rand(2, 10_000, 2, dtype=torch.float64) - 3
        middle = ends.mean(dim=0)
        below = []
        for value in (lambda at: module(at)[:, 0], lambda at: -module(at).log_softmax(dim=1)[:, 0]):
            gap = value(middle) - (value(ends[0]) + value(ends[1])) / 2
            below.append([float((gap < 0).double().mean()), float((gap > 0).double().mean())])
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for place, (title, values) in zip(axes, pictures.items(), strict=True):
        shown = place.contourf(axis, axis, values.reshape(201, 201).T, levels=30)
        place.set(title=title)
        figure.colorbar(shown, ax=place)
    figure.savefig(options.out / "surface.png", dpi=130)
    names = ["midpoint below its chord (not concave)", "above (not convex)"]
    write(options, "surface", ["of", *names], [[t, *b] for t, b in zip(pictures, below, strict=True)])


def balls(options: argparse.Namespace) -> None:
    from matplotlib import pyplot

    generator = torch.Generator().manual_seed(options.seed)
    points = 4 * torch.rand(40, 2, dtype=torch.float64, generator=generator) - 2
    figure, axes = pyplot.subplots(1, 3, figsize=(10, 3.6), layout="constrained")
    angle = np.linspace(0, 2 * np.pi, 400)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    rows: list[list[object]] = []
    for place, (norm, power) in zip(axes, (("1", 1), ("2", 2), ("inf", np.inf)), strict=True):
        nearest = project(points, torch.ones(len(points), dtype=points.dtype), norm)
        edge = circle / np.linalg.norm(circle, ord=power, axis=0)
        place.plot(*edge, color="black")
        for a, b in zip(points.numpy(), nearest.numpy(), strict=True):
            place.plot([a[0], b[0]], [a[1], b[1]], color="gray", linewidth=0.6)
        place.plot(*nearest.numpy().T, "r.", markersize=4)
        place.set(title=f"{norm}-norm", xlim=(-2, 2), ylim=(-2, 2), aspect="equal")
        rows.append([norm, float(np.linalg.norm(nearest, ord=power, axis=1).max())])
    figure.savefig(options.out / "balls.png", dpi=130)
    write(options, "balls", ["norm", "greatest norm of a projection"], rows)


def write(options: argparse.Namespace, name: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with (options.out / f"{name}.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    for row in [header, *rows]:
        print("  ".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row))


COMMANDS = {"danskin": danskin, "surface": surface, "balls": balls}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs") / "min-max-paper")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    COMMANDS[arguments.command](arguments)
