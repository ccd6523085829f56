"""The experiments of Agrawal, de Alfaro, Helmbold (2019) as commands.

    python benchmarks/mwd_paper.py table1 --data-dir MNIST --runs 1 --epochs 30 --inputs 1000
    python benchmarks/mwd_paper.py figure1 | figure2 | figure3 | gradients | choices   (same options)

table1     accuracy under attack at epsilon .3: ReLU, sigmoid, MWD, MWD attacked through pseudogradients
figure1    accuracy against epsilon (0 to .5) under I-FGSM and PGD
figure2    lower (intervals) and upper (all attacks) bounds of MWD's accuracy beside the others' upper bounds
figure3    the same beside ReLU networks trained with FGSM, I-FGSM and PGD examples (--regime mixed or two-step);
           --beside chooses
gradients  training with pseudogradients against true gradients, two architectures
choices    784-128-128-10: schedules of the pseudogradients' share, and types of units

Every option scales: `--runs 1 --epochs 1 --inputs 100 --train-inputs 6000` is a minute, `--runs 5` the paper's. Means
and, of several runs, deviations. Networks are trained once into --cache (about 7 MB each) by `verifier.train` and
reused, as are the curves of each run; results go to --out as CSV and PNG. PGD takes sign steps; the paper's AdaDelta
variant, with the box on both sides, stands beside it as pgd-adadelta.
"""

import argparse
import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import matplotlib
import numpy as np
import torch

from encoders import BallRegion, Network, read_network
from verifier import train
from verifier.attacks import ATTACKS, Attack, Search
from verifier.attacks.descent import Descent
from verifier.attacks.source import Source, pseudogradient
from verifier.attacks.steps import AdaDelta, Steepest, Vertex
from verifier.bounds.interval import proves
from verifier.budget import Budget
from verifier.data import load_data

matplotlib.use("Agg")

Curves = dict[str, list[float]]
Measured = TypeVar("Measured")
PLAIN = ("relu", "sigmoid")
BESIDE = ("mwd", "fgsm", "ifgsm", "pgd")
EPSILONS = [round(0.05 * i, 2) for i in range(11)]
BATCH = 250


def attacks(pseudo: bool) -> dict[str, Attack]:
    """Return the paper's attacks on true gradients or on pseudogradients."""
    sources = (pseudogradient,) if pseudo else (Source,)
    common = {"loss": "cross-entropy", "sources": sources}
    return {
        "fgsm": Descent(1, Vertex(), **common),
        "ifgsm": Descent(10, Steepest(0.1), **common),
        "pgd": Descent(100, Steepest(0.025), restarts=3, random_start=True, **common),
        "pgd-adadelta": Descent(100, AdaDelta(), restarts=3, random_start=True, **common),
    }


class Experiment:
    """The options of a command, the data, and the trained networks."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        data = load_data("mnist", data_dir=options.data_dir)
        assert data.labels is not None
        self.inputs = torch.tensor(data.inputs[: options.inputs]).flatten(1)
        self.labels = torch.tensor(data.labels[: options.inputs])

    def network(self, name: str, run: int, **settings: object) -> Network:
        """Return a trained network, from the cache if it is there."""
        parts = [name, *(f"{key}={value}".replace("/", "-") for key, value in sorted(settings.items()))]
        epochs, limit = settings.pop("epochs", self.options.epochs), self.options.train_inputs
        parts += [] if limit is None else [f"n{limit}"]
        path = self.options.cache / ("_".join([*parts, f"e{epochs}", f"s{run}"]).replace(" ", "") + ".safetensors")
        if not path.exists():
            print(f"training {path.name}", flush=True)
            train(name, "mnist", path, epochs=epochs, seed=run, data_dir=self.options.data_dir, limit=limit, **settings)
        return read_network(path)

    def accuracy(self, network: Network, epsilon: float = 0.0, attack: Attack | None = None) -> float:
        """Return the share of inputs that stay correct under an attack of this radius."""
        robust = 0
        for start in range(0, len(self.inputs), BATCH):
            x, y = self.inputs[start : start + BATCH], self.labels[start : start + BATCH]
            right = network.scores(x).argmax(dim=1) == y
            x, y = x[right], y[right]
            if attack is None or epsilon == 0 or not len(x):
                robust += len(x)
                continue
            radius = torch.full((len(x),), epsilon, dtype=torch.float64)
            region = BallRegion(x.double(), radius, (0.0, 1.0))
            search = Search(network, region, y, tuple(range(start, start + len(x))), Budget())
            robust += int((~attack.run(search).unsafe).sum())
        return robust / len(self.inputs)

    def certified(self, network: Network, epsilon: float) -> float:
        """Return the share of inputs that intervals certify."""
        proved = 0
        for start in range(0, len(self.inputs), BATCH):
            x, y = self.inputs[start : start + BATCH], self.labels[start : start + BATCH]
            region = BallRegion(x.double(), torch.full((len(x),), epsilon, dtype=torch.float64), (0.0, 1.0))
            proved += int(proves(network, region.enclosure(), y).sum())
        return proved / len(self.inputs)

    def kept(self, name: str, measure: Callable[..., Measured], *arguments: object) -> Measured:
        """Return what is measured of the arguments, from --out if the same command has measured it before."""
        options = self.options
        asked = {key: str(value) for key, value in vars(options).items() if key not in ("runs", "cache", "out")}
        path: Path = options.out / f"{name}.json"
        if path.exists():
            found = json.loads(path.read_text())
            if found["asked"] == asked:
                result: Measured = found["measured"]
                return result
        result = measure(*arguments)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"asked": asked, "measured": result}))
        return result

    def write(self, name: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Write a CSV file and print it."""
        self.options.out.mkdir(parents=True, exist_ok=True)
        with (self.options.out / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
        for row in [header, *rows]:
            print("  ".join(f"{value:.4f}" if isinstance(value, float) else str(value) for value in row), flush=True)

    def plot(self, name: str, curves: dict[str, list[float]], deviations: dict[str, list[float]], title: str) -> None:
        """Write the figure of accuracies against EPSILONS; deviations of runs are bars."""
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
        for label, values in curves.items():
            axes.errorbar(EPSILONS, values, yerr=deviations.get(label), marker=".", capsize=2, label=label)
        axes.set(xlabel="epsilon (inf-norm)", ylabel="accuracy", ylim=(0, 1), title=title)
        axes.legend(frameon=False, fontsize=8)
        figure.savefig(self.options.out / f"{name}.png", dpi=130)


def spread(values: Sequence[float]) -> list[float]:
    return [float(np.mean(values)), float(np.std(values))]


def attacked(experiment: Experiment, name: str, run: int, pseudo: bool) -> list[float]:
    """Return a network's accuracy, and those left by each attack at .3."""
    network = experiment.network(name, run)
    found = [experiment.accuracy(network, 0.3, attack) for attack in attacks(pseudo).values()]
    return [experiment.accuracy(network), *found]


def table1(experiment: Experiment) -> None:
    names = ["accuracy", "fgsm", "ifgsm", "pgd", "pgd-adadelta"]
    rows: list[list[object]] = []
    for row, name, pseudo in (("relu", "relu", False), ("sigmoid", "sigmoid", False), ("mwd", "mwd", False),
                              ("mwd[psd]", "mwd", True)):  # fmt: skip
        results = []
        for run in range(experiment.options.runs):
            results.append(experiment.kept(f"table1-{row}-run{run}", attacked, experiment, name, run, pseudo))
        rows.append([row, *(value for column in zip(*results, strict=True) for value in spread(column))])
    experiment.write("table1", ["network", *(f"{n}{s}" for n in names for s in ("", " sd"))], rows)


def curves_of(experiment: Experiment, network: Network, pseudo: bool, names: Sequence[str]) -> dict[str, list[float]]:
    chosen = attacks(pseudo)
    return {n: [experiment.accuracy(network, e, chosen[n]) for e in EPSILONS] for n in names}


def figure1(experiment: Experiment) -> None:
    def curves_in(run: int) -> Curves:
        curves: Curves = {}
        for name in ("relu", "sigmoid", "mwd"):
            found = curves_of(experiment, experiment.network(name, run), name == "mwd", ("ifgsm", "pgd"))
            curves |= {f"{name} {attack}": values for attack, values in found.items()}
        return curves

    finish(experiment, "figure1", curves_in, "accuracy under attack (MWD: pseudogradients)")


def strongest(experiment: Experiment, network: Network) -> list[float]:
    """Return the upper bound of the accuracy by the ensemble of all attacks."""
    return [experiment.accuracy(network, e, ATTACKS["auto"]) for e in EPSILONS]


def mwd_bounds(experiment: Experiment, run: int) -> Curves:
    """Return both bounds of an MWD network's accuracy."""
    mwd = experiment.network("mwd", run)
    lower, upper = [experiment.certified(mwd, e) for e in EPSILONS], strongest(experiment, mwd)
    assert all(low <= high for low, high in zip(lower, upper, strict=True)), "a certificate contradicts an attack"
    return {"mwd certified": lower, "mwd attacked": upper}


def figure2(experiment: Experiment) -> None:
    def curves_in(run: int) -> Curves:
        others = {f"{name} attacked": strongest(experiment, experiment.network(name, run)) for name in PLAIN}
        return mwd_bounds(experiment, run) | others

    finish(experiment, "figure2", curves_in, "bounds of MWD's accuracy, upper bounds of the others'")


def figure3(experiment: Experiment) -> None:
    options = experiment.options

    def curves_in(run: int) -> Curves:
        curves = mwd_bounds(experiment, run) if "mwd" in options.beside else Curves()
        for attack in [name for name in options.beside if name != "mwd"]:
            how = {"attack": attack, "regime": options.regime, "epochs": options.adversarial_epochs}
            curves[f"relu({attack}) attacked"] = strongest(experiment, experiment.network("relu", run, **how))
        return curves

    finish(experiment, "figure3", curves_in, "MWD beside adversarially trained ReLU networks")


def finish(experiment: Experiment, name: str, curves_in: Callable[[int], Curves], title: str) -> None:
    """Write means over the runs, and of several runs deviations, as CSV and PNG."""
    runs = [experiment.kept(f"{name}-run{run}", curves_in, run) for run in range(experiment.options.runs)]
    means, deviations = Curves(), Curves()
    rows: list[list[object]] = []
    for label in runs[0]:
        values = np.array([run[label] for run in runs])
        means[label] = values.mean(axis=0).tolist()
        rows.append([label, *means[label]])
        if len(runs) > 1:
            deviations[label] = values.std(axis=0, ddof=1).tolist()
            rows.append([f"{label} +-", *deviations[label]])
    experiment.write(name, ["curve", *map(str, EPSILONS)], rows)
    experiment.plot(name, means, deviations, title)


def gradients(experiment: Experiment) -> None:
    rows: list[list[object]] = []
    for hidden, types in (
        ((512, 512, 512), ("mixed", "mixed", "mixed", "negated")),
        ((128, 128), ("mixed", "mixed", "negated")),
    ):
        for share in (1.0, 0.0):
            accuracies = []
            for run in range(experiment.options.runs):
                network = experiment.network("mwd", run, hidden=hidden, types=types, pseudo_share=share)
                accuracies.append(experiment.accuracy(network))
            rows.append(["-".join(map(str, hidden)), "pseudo" if share else "true", *spread(accuracies)])
    experiment.write("gradients", ["hidden", "gradient", "accuracy", "sd"], rows)


def choices(experiment: Experiment) -> None:
    epochs, mixed = experiment.options.epochs, ("mixed", "mixed", "negated")
    ways: dict[str, dict[str, object]] = {
        "pseudo": {"types": mixed},
        "true": {"types": mixed, "pseudo_share": 0.0},
        "share times .9 an epoch": {"types": mixed, "pseudo_decay": 0.9},
        "true in the last third": {"types": mixed, "pseudo_epochs": epochs - epochs // 3},
        "plain, negated, plain": {"types": ("plain", "negated", "plain")},
        "negated, plain, negated": {"types": ("negated", "plain", "negated")},
        "plain": {"types": ("plain",) * 3},
        "negated": {"types": ("negated",) * 3},
    }
    rows: list[list[object]] = []
    for name, how in ways.items():
        runs = range(experiment.options.runs)
        found = [experiment.accuracy(experiment.network("mwd", run, hidden=(128, 128), **how)) for run in runs]
        rows.append([name, *spread(found)])
    experiment.write("choices", ["training", "accuracy", "sd"], rows)


COMMANDS = {
    "table1": table1, "figure1": figure1, "figure2": figure2, "figure3": figure3, "gradients": gradients,
    "choices": choices,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--train-inputs", type=int, help="the first N training inputs (default: all)")
    parser.add_argument("--adversarial-epochs", type=int, default=10, help="figure3: of the ReLU networks")
    parser.add_argument("--beside", nargs="+", choices=BESIDE, default=BESIDE, help="figure3: which curves")
    parser.add_argument("--regime", choices=("mixed", "two-step"), default="mixed")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "robustness-verifier" / "models")
    parser.add_argument("--out", type=Path, default=Path("runs") / "mwd-paper")
    options = parser.parse_args()
    COMMANDS[options.command](Experiment(options))


if __name__ == "__main__":
    main()
