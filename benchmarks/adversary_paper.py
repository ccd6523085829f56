"""The experiments of Huang, Xu, Schuurmans, Szepesvari (2015), "Learning with a Strong Adversary", as commands.

    python benchmarks/adversary_paper.py table1 --data-dir MNIST --runs 1 --epochs 5 --inputs 2000
    python benchmarks/adversary_paper.py table2 | cifar | figure1 | figure2 | linear   (same options)

table1    a 784-1000-1000-10 network trained in five ways, under the paper's attacks at length 1.5 in the 2-norm; and
          by Nokland's objective (2015), perturbed inputs alone, with --rows nokland
table2    LeNet, plain and with an adversary, at the same length
cifar     cnn-small on CIFAR-10, which the paper announced and left out; length 0.25
figure1   accuracy of LeNet against the length, 0 to 4, for three attacks, clipped to [0, 1] and not
figure2   accuracy of LeNet on held-out training images by epoch, plain and with an adversary: clean, and under Adv_Loss
linear    0 against 1 by robust logistic regression: certified against measured error (Pallaprolu, Madala 2020)

Columns: clean; fixed (Adv_Loss of the plain network of the same run: for it the same as loss, in the paper not);
sign, loss, alpha (Adv_Loss_Sign, Adv_Loss, Adv_Alpha; unclipped, as the paper says nothing of a domain);
the same clipped to [0, 1] afterwards; auto (the ensemble of this project in the domain, on --strong inputs).
Training sees examples of the same length, unclipped. Every option scales: `--train-inputs 6000 --epochs 1 --inputs 500`
takes a minute. Networks are trained once into --cache by `verifier.train` and reused; results go to --out as CSV, the
figures as PNG too. figure2 keeps its curves in --cache: the epochs of a training that `verifier.train` would do.
"""

import argparse
import csv
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from torch import Tensor

from encoders import BallRegion, Network, read_network
from verifier import attack, certify, train
from verifier.attacks import ATTACKS, Search
from verifier.attacks.linearised_margin import LinearisedLoss, LinearisedMargin
from verifier.budget import Budget
from verifier.commands.train import prepare
from verifier.data import Dataset, from_arrays, load_data
from verifier.training.adversaries import Adversary
from verifier.training.architectures import ARCHITECTURES
from verifier.training.request import TrainRequest
from verifier.training.validation import Score

matplotlib.use("Agg")

STEPS = {"sign": LinearisedLoss(sign=True), "loss": LinearisedLoss(), "alpha": LinearisedMargin(whole=True)}
LENGTHS = [0.5 * i for i in range(9)]
BATCH = 250


def methods(length: float, layer_length: float) -> dict[str, dict[str, object]]:
    """Return what trains each row, for perturbations of a length in the 2-norm."""
    same = {"attack_epsilon": length, "attack_norm": "2", "unclipped": True}
    return {
        "normal": {"regime": "plain"},
        "dropout": {"regime": "dropout"},
        "goodfellow": {"regime": "goodfellow", "attack": "adv-loss-sign", **same},
        "lwa": {"regime": "lwa", **same},
        "lwa-layer": {"regime": "lwa-layer", "layer": "1", "attack_epsilon": layer_length},
        "nokland": {"regime": "perturbed-only", "attack": "adv-loss-sign", **same},
    }


class Experiment:
    """The options of a command, and the data it is judged on."""

    def __init__(self, options: argparse.Namespace, data: str) -> None:
        self.options, self.data = options, data
        held_out = load_data(data, data_dir=options.data_dir)
        assert held_out.labels is not None
        self.inputs = torch.tensor(np.asarray(held_out.inputs[: options.inputs], dtype=np.float32))
        self.labels = torch.tensor(held_out.labels[: options.inputs])

    def kept(self, name: str, method: str, run: int, settings: dict[str, object], suffix: str) -> Path:
        """Return where something made by a training is kept."""
        options = self.options
        values = "_".join(str(value) for value in settings.values())
        parts = [name, method, values, f"n{options.train_inputs}", f"e{options.epochs}", f"s{run}"]
        path: Path = options.cache / ("_".join(parts) + suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def network(self, name: str, method: str, run: int, settings: dict[str, object]) -> Network:
        """Return a trained network, trained unless it is there."""
        options, path = self.options, self.kept(name, method, run, settings, ".safetensors")
        if not path.exists():
            print(f"training {path.name}", flush=True)
            train(
                name, self.data, path, epochs=options.epochs, seed=run, data_dir=options.data_dir,
                limit=options.train_inputs, **settings,
            )  # fmt: skip
        return read_network(path)

    def batches(self, network: Network) -> list[tuple[Tensor, Tensor]]:
        """Return the inputs in the network's shape, and labels."""
        x = self.inputs.reshape(len(self.inputs), *network.input_shape)
        return list(zip(x.split(BATCH), self.labels.split(BATCH), strict=True))

    def points(self, network: Network, step: str, length: float) -> list[tuple[Tensor, Tensor]]:
        """Return where a step of a length in the 2-norm leads from every input, and labels."""
        result = []
        for x, y in self.batches(network):
            radius = torch.full((len(x),), length, dtype=torch.float64)
            search = Search(network, BallRegion(x.double(), radius, None, "2"), y, range(len(x)), Budget())
            result.append((STEPS[step].propose(search).to(x.dtype), y))
        return result

    def strong(self, network: Network, length: float) -> float:
        """Return the accuracy under the ensemble in the domain, on fewer inputs."""
        robust, count = 0, 0
        for x, y in self.batches(network):
            x, y = x[: self.options.strong - count], y[: self.options.strong - count]
            if not len(x):
                break
            count += len(x)
            right = network.scores(x).argmax(dim=1) == y
            x, y = x[right], y[right]
            radius = torch.full((len(x),), length, dtype=torch.float64)
            region = BallRegion(x.double(), radius, (0.0, 1.0), "2")
            robust += int((~ATTACKS["auto"].run(Search(network, region, y, range(len(x)), Budget())).unsafe).sum())
        return robust / count

    def row(self, network: Network, plain: Network, length: float) -> list[float]:
        """Return the columns of a row."""
        made = {step: self.points(network, step, length) for step in STEPS}
        fixed = [
            (points.reshape(len(points), *network.input_shape), y) for points, y in self.points(plain, "loss", length)
        ]
        values = [accuracy(network, self.batches(network)), accuracy(network, fixed)]
        values += [accuracy(network, points) for points in made.values()]
        values += [accuracy(network, [(x.clamp(0, 1), y) for x, y in points]) for points in made.values()]
        return [*values, self.strong(network, length)]

    def write(self, name: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Write a CSV file and print it."""
        self.options.out.mkdir(parents=True, exist_ok=True)
        with (self.options.out / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
        for row in [header, *rows]:
            print("  ".join(f"{value:.4f}" if isinstance(value, float) else str(value) for value in row), flush=True)


def accuracy(network: Network, batches: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Return the share of points that get their label."""
    with torch.no_grad():
        right = [network.scores(x).argmax(dim=1) == y for x, y in batches]
    return float(torch.cat(right).double().mean())


def table(options: argparse.Namespace, title: str, name: str, data: str, length: float, rows: Sequence[str]) -> None:
    """Train the named rows in every run, and write means and, of several runs, deviations."""
    experiment = Experiment(options, data)
    settings = methods(length, options.layer_length)
    header = ["method", "clean", "fixed", *STEPS, *(f"{step} clipped" for step in STEPS), "auto"]
    lines = list[list[object]]()
    for method in [row for row in rows if row in options.rows]:
        values = []
        for run in range(options.runs):
            plain = experiment.network(name, "normal", run, settings["normal"])
            values.append(experiment.row(experiment.network(name, method, run, settings[method]), plain, length))
        means = np.array(values)
        lines.append([method, *means.mean(axis=0).tolist()])
        if options.runs > 1:
            lines.append([f"{method} +-", *means.std(axis=0, ddof=1).tolist()])
    experiment.write(title, header, lines)


def table1(options: argparse.Namespace) -> None:
    table(options, "table1", "mlp", "mnist", 1.5, [*methods(1.5, 1.0)])


def table2(options: argparse.Namespace) -> None:
    table(options, "table2", "lenet", "mnist", 1.5, ["normal", "lwa"])


def cifar(options: argparse.Namespace) -> None:
    table(options, "cifar", "cnn-small", "cifar10", 0.25, ["normal", "goodfellow", "lwa"])


def figure1(options: argparse.Namespace) -> None:
    experiment = Experiment(options, "mnist")
    network = experiment.network("lenet", "normal", 0, methods(1.5, 1.0)["normal"])
    curves = dict[str, list[float]]()
    for step in STEPS:
        points = {length: experiment.points(network, step, length) for length in LENGTHS}
        curves[step] = [accuracy(network, part) for part in points.values()]
        clipped = [[(x.clamp(0, 1), y) for x, y in part] for part in points.values()]
        curves[f"{step} clipped"] = [accuracy(network, part) for part in clipped]
    experiment.write("figure1", ["attack", *map(str, LENGTHS)], [[name, *values] for name, values in curves.items()])
    plot(options.out / "figure1.png", LENGTHS, curves, "length of the perturbation (2-norm)")


def figure2(options: argparse.Namespace) -> None:
    experiment = Experiment(options, "mnist")
    rows = {row: how for row, how in methods(1.5, 1.0).items() if row in ("normal", "lwa")}
    curves = dict[str, list[float]]()
    for row, how in rows.items():
        kept = experiment.kept("lenet", row, 0, how, ".figure2.json")
        if not kept.exists():
            kept.write_text(json.dumps(curves_by_epoch(experiment, how)))
        curves |= {f"{row}, {judge}": values for judge, values in json.loads(kept.read_text()).items()}
    epochs = range(1, options.epochs + 1)
    experiment.write("figure2", ["method", *map(str, epochs)], [[name, *values] for name, values in curves.items()])
    plot(options.out / "figure2.png", epochs, curves, "epoch")


def curves_by_epoch(experiment: Experiment, how: dict[str, Any]) -> dict[str, list[float]]:
    """Return accuracies after each epoch of a training of LeNet: clean, and under Adv_Loss at length 1.5, unclipped."""
    options = experiment.options
    request = TrainRequest(
        "lenet", epochs=options.epochs, seed=0, data_dir=options.data_dir, limit=options.train_inputs, **how
    )
    data = load_data("mnist", split="train", data_dir=options.data_dir)
    trainer = prepare(request, ARCHITECTURES["lenet"], data)
    kept, curves = trainer.score, dict[str, list[float]](clean=[], Adv_Loss=[])
    assert isinstance(kept, Score)
    judges = {"clean": None, "Adv_Loss": Adversary(LinearisedLoss(), 1.5, "2")}

    def score(module: torch.nn.Module) -> float:
        for name, judge in judges.items():
            curves[name].append(dataclasses.replace(kept, adversary=judge)(module))
        return kept(module)

    trainer.score = score
    trainer.run()
    return curves


def plot(path: Path, x: Sequence[float], curves: Mapping[str, Sequence[float]], label: str) -> None:
    """Write a picture of accuracies; what belongs to one curve has its colour, and dashes."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for number, (name, values) in enumerate(curves.items()):
        style = {"color": f"C{number // 2}", "linestyle": "--" if number % 2 else "-", "marker": "."}
        axes.plot(x, values, label=name, **style)
    axes.set(xlabel=label, ylabel="accuracy", ylim=(0, 1), xticks=list(x))
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def linear(options: argparse.Namespace) -> None:
    experiment = Experiment(options, "mnist")
    trained, tested = (_two_classes(split, options) for split in ("train", "test"))
    lines = list[list[object]]()
    for epsilon in (0.05, 0.1, 0.2, 0.3):
        for regime in ("plain", "robust-linear"):
            path = options.cache / f"linear_{regime}_{epsilon}_e{options.epochs}.safetensors"
            more = {"certified_epsilon": epsilon} if regime == "robust-linear" else {}
            if not path.exists():
                train("linear", trained, path, epochs=options.epochs, regime=regime, learning_rate=0.01, **more)
            proved = certify(path, tested, [epsilon], method="interval", out=None)
            left = attack(path, tested, "fgsm", epsilon, out=None).robust
            certified = proved.results[0].certified
            lines.append([epsilon, regime, proved.correct, certified, left, proved.inputs])
    experiment.write("linear", ["epsilon", "regime", "correct", "certified", "withstand fgsm", "inputs"], lines)


def _two_classes(split: str, options: argparse.Namespace) -> Dataset:
    data = load_data("mnist", split=split, data_dir=options.data_dir)
    assert data.labels is not None
    kept = data.labels < 2
    inputs = np.asarray(data.inputs)[kept]
    return from_arrays(inputs.reshape(len(inputs), -1), data.labels[kept], (0.0, 1.0))


COMMANDS = {
    "table1": table1, "table2": table2, "cifar": cifar, "figure1": figure1, "figure2": figure2, "linear": linear,
}  # fmt: skip

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--inputs", type=int, default=2000, help="test inputs")
    parser.add_argument("--strong", type=int, default=200, help="test inputs for the ensemble")
    parser.add_argument("--train-inputs", type=int, help="the first N training inputs (default: all)")
    parser.add_argument(
        "--rows", nargs="+", choices=[*methods(0, 0)], default=[*methods(0, 0)][:5], help="of the tables"
    )
    parser.add_argument("--layer-length", type=float, default=5.0, help="lwa-layer: length at the hidden layer")
    parser.add_argument("--cache", type=Path, default=Path("runs/adversary-paper"))
    parser.add_argument("--out", type=Path, default=Path("runs/adversary-paper"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    COMMANDS[arguments.command](arguments)
