"""The experiments of Bastani et al. (2016) as commands.

    python benchmarks/bastani_paper.py toy                                            Figure 1
    python benchmarks/bastani_paper.py images --model lenet.safetensors --data-dir MNIST    Figure 2
    python benchmarks/bastani_paper.py table1 --model lenet.safetensors --data-dir MNIST --inputs 200
    python benchmarks/bastani_paper.py networks --data-dir MNIST --inputs 200 --examples 500    Table 1, Figure 3
    python benchmarks/bastani_paper.py rounding --model lenet.safetensors --data-dir MNIST --inputs 100    section 6

toy     a 2-D network with 8 hidden units: the region of an input, its half-spaces and how many of them are redundant
images  adversarial images of whole pixels and their perturbation, scaled, from the program in an attack's region
table1  the row of the original network, and the curves of Figure 3: the baseline (L-BFGS-B), the paper's estimator
        (second label), all labels, the program in an attack's region, that attack alone, and FGSM; beside the paper's
        numbers. --inputs scales it; --estimators chooses. A run in --out is continued by the same command.
networks  trains the original LeNet and fine-tunes it for T = 1, 2 rounds on counterexamples of the baseline's and of
        the paper's estimator among the first --examples training inputs, always from the original inputs; measures all
        by both estimators, by attack and by what --method proves. All that is in --out is reused, half-finished runs
        continued. Full size: --train-inputs 60000 --examples 60000 --epochs 30 --inputs 10000 (L-BFGS-B: .9 s an input,
        network). Networks that --method exact decides at the radius have a bracket that closes: --data digits
        --network relu --hidden 32 16 --levels 16 --pixels 1.6 --epochs 30 --inputs 360 --examples 1437 --method exact
rounding  how many points of L-BFGS-B are no counterexamples any more once rounded to whole pixels, by margin alpha;
          --breakable spares L-BFGS-B (1.9 CPU s an input) what has no counterexample near
--data cifar10 takes table1 to the paper's other network: `verifier train nin --hidden 24 --data cifar10 ...`

Networks: `verifier train lenet --data mnist --epochs 2 --out lenet.safetensors`, and without relus after the
convolutions `verifier train lenet-linear-convolutions ...`. Results go to --out as CSV and PNG.
"""

import argparse
import csv
import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch

from encoders import BallRegion, Network, Node, read_network
from encoders.network import INPUT
from encoders.ops import Affine, Relu
from verifier import RobustnessResult, robustness, train
from verifier.answers import Answer
from verifier.attacks import ATTACKS, Search
from verifier.attacks.lbfgs import Lbfgs
from verifier.batch import Batch
from verifier.budget import Budget
from verifier.data import load_data
from verifier.methods.restriction import RestrictionMethod
from verifier.reports.robustness import curves_figure, write_curves, write_radii
from verifier.restriction.lazy import solve_lazily
from verifier.restriction.pull import Programs
from verifier.restriction.redundant import redundant_conditions
from verifier.restriction.regions import ask_own_region
from verifier.solvers import find_solver
from verifier.subject import load_subject

matplotlib.use("Agg")

PIXELS = 20
# The paper's original networks by data: accuracy %; frequency % and severity px by the baseline and by theirs.
PAPER: dict[str, dict[str, object]] = {
    "mnist": {"accuracy": 99.08, "lbfgs": (1.32, 11.9), "restriction-second": (7.15, 12.4)},
    "cifar10": {"accuracy": 91.31, "restriction-second": (61.5, 2.82)},
}
# The five networks: accuracy %, frequency % and severity px by the baseline's and by their estimator.
PAPER_NETWORKS = {
    "original": (99.08, 1.32, 7.15, 11.9, 12.4),
    "baseline-t1": (99.14, 1.02, 6.89, 11.0, 12.3),
    "baseline-t2": (99.15, 0.99, 6.97, 10.9, 12.4),
    "ours-t1": (99.17, 1.18, 5.40, 12.8, 12.2),
    "ours-t2": (99.23, 1.12, 5.03, 12.2, 11.7),
}
SOURCES = {"baseline": "lbfgs", "ours": "restriction-second"}
SHOWN = ("original", "baseline-t2", "ours-t2")
# Margins in scores that L-BFGS-B is to win by; .15 is the paper's.
ALPHAS = (0.0, 0.15, 1.0, 3.0)
ESTIMATORS = ("fgsm", "lbfgs", "restriction-second", "restriction-all", "attack", "restriction")


def toy_network(seed: int, hidden: int = 8) -> Network:
    """Return a trained 2-hidden-2 ReLU network that separates a disc from its surroundings in [0, 1]^2."""
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(2, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 2)).double()
    x = torch.rand(2000, 2, dtype=torch.float64)
    y = ((x - 0.5).norm(dim=1) < 0.28).long()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(600):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
    first, last = model[0], model[2]
    nodes = (
        Node("hidden", Affine(first.weight.detach(), first.bias.detach()), (INPUT,)),
        Node("relu", Relu(), ("hidden",)),
        Node("scores", Affine(last.weight.detach(), last.bias.detach()), ("relu",)),
    )
    return Network(nodes, (2,), torch.float64, "toy")


def toy(options: argparse.Namespace) -> None:
    from matplotlib import pyplot

    network = toy_network(options.seed)
    axis = torch.linspace(0, 1, 300, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    scores = network.evaluate(grid)
    counts = []
    for x in torch.rand(200, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).split(1):
        question = ask_own_region(network, x, 1 - int(network.evaluate(x).argmax()), (0.0, 1.0), 1.0)
        answer = solve_lazily(question)
        redundant = int(redundant_conditions(question, find_solver("highs")).sum())
        counts.append((redundant, answer.radius, x, question, answer))
    values = [count for count, *_ in counts]
    feasible = np.mean([np.isfinite(radius) for _, radius, *_ in counts])
    histogram = np.bincount(values, minlength=9).tolist()
    print(f"of 8 half-spaces redundant: mean {np.mean(values):.2f}, 0 to 8 of them {histogram} times; "
          f"the paper's figure shows 6; own region feasible {feasible:.0%}")  # fmt: skip
    # The picture: an input whose own region holds its optimum, as in the paper's figure.
    redundant, radius, x, question, answer = min(counts, key=lambda c: (abs(c[0] - 6), abs(c[1] - 0.12)))
    figure, axes = pyplot.subplots(figsize=(5, 5), layout="constrained")
    image = (scores[:, 1] - scores[:, 0]).reshape(300, 300).T
    axes.contourf(axis, axis, image, levels=[-1e9, 0, 1e9], colors=["#cfe3f7", "#f9d9cf"])
    steps = (grid - x).numpy()
    inside = np.ones(len(steps), dtype=bool)
    rows = question.rows(np.arange(len(question.at_centre)))
    for row, value in list(zip(rows, question.at_centre, strict=True))[question.label_rows :]:
        heights = steps @ row + value
        inside &= heights >= 0
        axes.contour(axis, axis, heights.reshape(300, 300).T, levels=[0], colors="gray", linewidths=0.7)
    axes.contourf(axis, axis, inside.reshape(300, 300).T.astype(float), levels=[0.5, 1.5], colors=["#00000030"])
    px, py = x[0].tolist()
    axes.plot(px, py, "ko")
    if answer.step is not None:
        axes.plot(px + answer.step[0], py + answer.step[1], "r*", markersize=12)
        axes.add_patch(pyplot.Rectangle((px - radius, py - radius), 2 * radius, 2 * radius, fill=False, color="red"))
    axes.set(xlim=(0, 1), ylim=(0, 1), title=f"{redundant} of 8 half-spaces redundant, radius {radius:.3f}")
    figure.savefig(options.out / "toy.png", dpi=130)


def images(options: argparse.Namespace) -> None:
    from matplotlib import pyplot

    subject = load_subject(options.model)
    data = load_data("mnist", data_dir=options.data_dir)
    x = torch.tensor(data.inputs[: options.inputs]).reshape(-1, *subject.network.input_shape)
    classes = torch.from_numpy(subject.execute(x).argmax(axis=1))
    batch = Batch(subject, x.double(), classes, tuple(range(len(x))), (0.0, 1.0), 1.0)
    method = RestrictionMethod(programs=Programs(levels=255))
    answers = method.bracket(batch, [60 / 255], [Answer()] * len(x), Budget())
    rows = sorted((row for row in range(len(x)) if answers[row].witness), key=lambda row: answers[row].distance)
    shown = [rows[i] for i in np.linspace(0, len(rows) - 1, min(6, len(rows))).astype(int)]
    figure, grid = pyplot.subplots(3, len(shown), figsize=(1.7 * len(shown), 5.2), layout="constrained")
    for column, row in enumerate(shown):
        witness = answers[row].witness
        change = (witness.point.double() - batch.centres[row]).squeeze().numpy()
        pixels = round(witness.distance * 255)
        label = int(subject.execute(witness.point[None]).argmax())
        pictures = (x[row].squeeze(), witness.point.squeeze(), change)
        titles = (f"{int(classes[row])}", f"{label}", f"{pixels} px")
        for line, (picture, title) in enumerate(zip(pictures, titles, strict=True)):
            limit = (
                {"vmin": 0, "vmax": 1} if line < 2 else {"vmin": -np.abs(change).max(), "vmax": np.abs(change).max()}
            )
            grid[line, column].imshow(picture, cmap="gray", **limit)
            grid[line, column].set(xticks=[], yticks=[], title=title)
        print(f"input {row}: {int(classes[row])} -> {label}, {pixels} px", flush=True)
    figure.savefig(options.out / "images.png", dpi=130)


def table1(options: argparse.Namespace) -> None:
    result = robustness(
        options.model, options.data, options.pixels / options.levels, estimators=options.estimators,
        data_dir=options.data_dir, limit=options.inputs, offset=options.offset, method=options.method,
        time_limit=options.time_limit, out=options.out / f"{options.model.stem}-run",
        progress=lambda done, of: print(f"{done}/{of}", flush=True),
    )  # fmt: skip
    name = options.model.stem
    write_radii(result, options.out / f"{name}-radii.csv")
    write_curves(result, options.out / f"{name}-figure3.csv")
    curves_figure(result, options.out / f"{name}-figure3.png")
    rows: list[list[object]] = []
    reported = PAPER.get(options.data, {})
    for estimator, found in result.estimators.items():
        paper = reported.get(estimator, ("", ""))
        severity = "" if found.severity is None else round(found.severity * options.levels, 2)
        words = ", ".join(f"{count} {word}" for word, count in found.outcomes.items())
        rows.append([estimator, round(100 * found.frequency, 2), paper[0], severity, paper[1],
                     round(100 * found.unresolved, 2), round(found.median_seconds, 3), words])  # fmt: skip
    print(f"{result.inputs} inputs, accuracy {result.correct / result.inputs:.2%} (paper "
          f"{reported.get('accuracy', 'none')} %), {'; '.join(bracket(result, options))}, "
          f"{result.seconds:.0f} s")  # fmt: skip
    header = ["estimator", "frequency %", "paper", "severity px", "paper", "unresolved %", "median s", "outcomes"]
    for row in [header, *rows]:
        print("  ".join(map(str, row)))
    with (options.out / f"{name}-table1.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def bracket(result: RobustnessResult, options: argparse.Namespace) -> tuple[str, str]:
    """Return frequency and severity as proofs and counterexamples leave them, in words."""
    phi, mu = result.frequency, result.severity
    ends = ["none" if end is None else f"{end * options.levels:.2f}" for end in (mu.lower, mu.upper)]
    return f"frequency {100 * phi.lower:.2f} to {100 * phi.upper:.2f} %", f"severity {ends[0]} to {ends[1]} px"


def networks(options: argparse.Namespace) -> None:
    judges = (*SOURCES.values(), "attack")
    lines, curves = list[list[object]](), dict[str, tuple[float, ...]]()
    for name, path in trained_networks(options).items():
        found = measure(options, path, judges, "test", options.inputs)
        write_radii(found, options.out / f"{name}-radii.csv")
        each = [found.estimators[judge] for judge in judges]
        frequencies = [round(100 * one.frequency, 2) for one in each]
        severities = ["" if one.severity is None else round(options.levels * one.severity, 2) for one in each]
        ends = bracket(found, options)
        lines.append([name, test_accuracy(path, options), *frequencies, *severities, *ends, *PAPER_NETWORKS[name]])
        curves |= {f"{name}, {judge}": found.radii[judge] for judge in SOURCES.values() if name in SHOWN}
    measures = [f"{what} {judge}" for what in ("frequency %", "severity px") for judge in judges]
    paper = ["paper accuracy %", *(f"paper {what} {who}" for what in ("frequency %", "severity px") for who in SOURCES)]
    rows = [["network", "accuracy %", *measures, f"by {options.method}", "", *paper], *lines]
    for row in rows:
        print("  ".join(map(str, row)))
    with (options.out / "networks.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    figure3(options, curves)


def trained_networks(options: argparse.Namespace) -> dict[str, Path]:
    """Return the files of the five networks, trained unless they are there."""
    shared = {
        "data_dir": options.data_dir, "limit": options.train_inputs, "seed": options.seed, "hidden": options.hidden,
    }  # fmt: skip
    original = options.out / "original.safetensors"
    if not original.exists():
        train(options.network, options.data, original, epochs=options.epochs, **shared)
    result = {"original": original}
    for source, judge in SOURCES.items():
        start, runs = original, list[Path]()
        for number in (1, 2):
            found = measure(options, start, (judge,), "train", options.examples)
            broken = found.estimators[judge].frequency
            print(f"{source}, round {number}: {broken:.2%} of {found.inputs} training inputs broken", flush=True)
            runs.append(run_folder(options, start, (judge,), "train"))
            path = options.out / f"{source}-t{number}.safetensors"
            if not path.exists():
                how = {"start": start, "examples": runs, "levels": options.levels, "epochs": options.tuning_epochs}
                train(options.network, options.data, path, **how, **shared)
            result[path.stem] = start = path
    return result


def run_folder(options: argparse.Namespace, path: Path, estimators: Sequence[str], split: str) -> Path:
    out: Path = options.out
    return out / "-".join([path.stem, split, *estimators])


def measure(
    options: argparse.Namespace, path: Path, estimators: Sequence[str], split: str, inputs: int
) -> RobustnessResult:
    """Return frequency and severity of a network at --pixels; a run in --out is continued.

    Only test inputs are worth proofs: of training inputs the counterexamples are wanted.
    """
    proofs = {"method": options.method, "time_limit": options.time_limit} if split == "test" else {}
    return robustness(
        path, options.data, options.pixels / options.levels, estimators=estimators, levels=options.levels,
        data_dir=options.data_dir, split=split, limit=inputs, out=run_folder(options, path, estimators, split),
        **proofs,
    )  # fmt: skip


def test_accuracy(path: Path, options: argparse.Namespace) -> float:
    """Return the percentage of all test inputs that a network classifies correctly."""
    data, network = load_data(options.data, data_dir=options.data_dir), read_network(path)
    x = torch.tensor(data.inputs, dtype=network.dtype).reshape(-1, *network.input_shape)
    with torch.no_grad():
        classes = torch.cat([network.scores(part).argmax(dim=1) for part in x.split(500)])
    return round(100 * float((classes == torch.tensor(data.labels)).double().mean()), 2)


def figure3(options: argparse.Namespace, curves: dict[str, tuple[float, ...]]) -> None:
    """Write how many inputs have a radius of at most so many pixels, for three networks by both estimators."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    pixels = np.linspace(0, options.pixels, 101)
    for label, radii in curves.items():
        axes.plot(pixels, [(options.levels * np.array(radii) <= limit + 1e-6).sum() for limit in pixels], label=label)
    axes.set(xlabel="radius at most, pixels", ylabel=f"of {options.inputs} inputs")
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(options.out / "networks-figure3.png", dpi=130)


def breakable(network: Network, x: torch.Tensor, y: torch.Tensor, radius: float) -> torch.Tensor:
    """Return a mask of the inputs that one FGSM step of the radius takes to another class."""
    found = [torch.zeros(0, dtype=torch.bool)]
    for centre, label in zip(x.split(250), y.split(250), strict=True):
        region = BallRegion(centre.double(), torch.full((len(centre),), radius, dtype=torch.float64), (0.0, 1.0))
        points = ATTACKS["fgsm"].propose(Search(network, region, label, range(len(centre)), Budget()))
        with torch.no_grad():
            found.append(network.scores(points.to(centre)).argmax(dim=1) != label)
    return torch.cat(found)


def rounding(options: argparse.Namespace) -> None:
    """Write how many points of L-BFGS-B within the radius stay counterexamples as whole pixels, for each margin."""
    network, data = read_network(options.model), load_data(options.data, data_dir=options.data_dir)
    x = torch.tensor(np.asarray(data.inputs[: options.inputs]), dtype=network.dtype).reshape(-1, *network.input_shape)
    with torch.no_grad():
        y = network.scores(x).argmax(dim=1)
    if options.breakable:
        rows = breakable(network, x, y, options.pixels / options.levels)
        x, y = x[rows], y[rows]
    radius = torch.full((len(x),), options.pixels / options.levels, dtype=torch.float64)
    lines = list[list[object]]()
    for alpha in ALPHAS:
        search = Search(network, BallRegion(x.double(), radius, (0.0, 1.0)), y, range(len(x)), Budget())
        points = Lbfgs(alpha=alpha).propose(search).to(x)
        near = (points - x).flatten(1).abs().amax(dim=1).double() <= radius
        with torch.no_grad():
            whole = (points * options.levels).round() / options.levels
            kept = [network.scores(where).argmax(dim=1) != y for where in (points, whole)]
        found, still = near & kept[0], near & kept[0] & kept[1]
        failed = "" if not found.any() else round(100 - 100 * int(still.sum()) / int(found.sum()), 1)
        lines.append([alpha, len(x), int(found.sum()), int(still.sum()), failed])
    rows = [["alpha", "inputs", "counterexamples", "as whole pixels", "failures %, paper 8.3 at .15"], *lines]
    for row in rows:
        print("  ".join(map(str, row)))
    with (options.out / "rounding.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


COMMANDS = {"toy": toy, "images": images, "table1": table1, "networks": networks, "rounding": rounding}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--data", default="mnist", help="mnist, cifar10 or digits (table1, networks, rounding)")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--inputs", type=int, default=64)
    parser.add_argument("--offset", type=int, default=0)
    parser.add_argument("--pixels", type=float, default=PIXELS)
    parser.add_argument("--levels", type=int, default=255, help="pixels have the values k / levels; digits: 16")
    parser.add_argument("--method", default="interval", help="what proves: a name of `verifier methods`")
    parser.add_argument("--time-limit", type=float, default=math.inf, help="seconds an input")
    parser.add_argument("--breakable", action="store_true", help="rounding: of the inputs, those that FGSM breaks")
    parser.add_argument("--estimators", nargs="+", default=ESTIMATORS)
    parser.add_argument("--network", default="lenet", help="networks: an architecture of `verifier train`")
    parser.add_argument("--hidden", nargs="+", type=int, default=(), help="networks: its sizes")
    parser.add_argument("--epochs", type=int, default=2, help="networks: of the original one")
    parser.add_argument("--tuning-epochs", type=int, default=1, help="networks: of a round of fine-tuning")
    parser.add_argument("--train-inputs", type=int, help="networks: the first N training inputs (default: all)")
    parser.add_argument("--examples", type=int, default=500, help="networks: training inputs asked for counterexamples")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs") / "bastani-paper")
    options = parser.parse_args()
    if options.command in ("images", "table1", "rounding") and options.model is None:
        parser.error(f"{options.command} needs --model")
    options.out.mkdir(parents=True, exist_ok=True)
    COMMANDS[options.command](options)


if __name__ == "__main__":
    main()
