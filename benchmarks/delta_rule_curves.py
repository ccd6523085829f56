"""Curves of Liu and Sha (2019) by epoch, Figures 8 and 9, each with its fair twin; also of a residual network.

    python benchmarks/delta_rule_curves.py --network resnet18 --hidden 8 --data cifar10 [--data-dir CIFAR] [--out DOCS]
    python benchmarks/delta_rule_curves.py --network mlp --hidden 100 100 100 --data mnist [--data-dir MNIST]

Figure 8 is the accuracy by epoch of ResNet-18 on CIFAR-10, plain and under both rules; Figure 9 the sum of variances
and the gap between clean inputs and attacked ones. Theirs are attacked on one draw and judged on another: the twin is
what a vote of fresh draws keeps within --epsilon after descents along the mean gradient over draws (EOT; the plain
network's own), of the first --attacked inputs. Writes delta-rule-NETWORK.csv and .png, and prints each row.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from delta_rule_paper import descend
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor, nn
from torch.nn import functional

from verifier.data import load_data
from verifier.reports.figure import save
from verifier.training.architectures import ARCHITECTURES
from verifier.training.delta_rule import DeltaRule
from verifier.training.random_layers import LEARNABLE, NORMAL, random_layers, sum_of_variances, with_random_layers
from verifier.training.regimes import Clean

# Kinds of random layers and what they start with; None: ordinary ones.
REGIMES = {"plain": None, "rule, batch": (NORMAL, 0.0125), "learnable": (LEARNABLE, 0.0125)}
BATCH, RATE, STEPS, DRAWS, VOTERS, SEED = 64, 1e-3, 20, 8, 20, 1000
COLUMNS = ("regime", "epoch", "mean", "draws", "vote", "attacked", "vote of attacked", "variances")
PANELS = {"vote": "clean", "vote of attacked": "within epsilon, EOT", "variances": "sum of variances"}


class Drawn:
    """A module of which every evaluation is a draw, its normalisation as in evaluation, under the names of networks."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module.eval()
        for layer in random_layers(module):
            layer.train()

    def draw(self, generator: torch.Generator) -> Drawn:
        """Return it with torch's generator seeded from another."""
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        return self

    def scores(self, x: Tensor) -> Tensor:
        """Return the scores of a draw."""
        result: Tensor = self.module(x)
        return result

    def votes(self, x: Tensor) -> Tensor:
        """Return how many of VOTERS draws gave each class."""
        generator = torch.Generator().manual_seed(SEED)
        with torch.no_grad():
            chosen = [self.draw(generator).scores(x).argmax(dim=1) for _ in range(VOTERS)]
        return sum(functional.one_hot(classes, 10) for classes in chosen)  # type: ignore[return-value]


def epochs(name: str, x: Tensor, y: Tensor, options: argparse.Namespace) -> Iterator[nn.Module]:
    """Yield the module of a regime after each epoch; it is left as it was for the next one."""
    torch.manual_seed(options.seed)
    module: nn.Module = ARCHITECTURES[options.network].make(x.shape[1:], options.hidden, (), 10)
    random = REGIMES[name]
    if random is not None:
        assert isinstance(module, nn.Sequential)
        module = with_random_layers(module, *random)
    rule = DeltaRule(functional.cross_entropy, 0.05, 0.7, "batch", options.epochs)
    regime = rule if random is not None and random[0] == NORMAL else Clean(functional.cross_entropy)
    optimiser, generator = torch.optim.Adam(module.parameters(), lr=RATE), torch.Generator().manual_seed(options.seed)
    for epoch in range(options.epochs):
        module.train()
        for number, rows in enumerate(torch.randperm(len(x), generator=generator).split(BATCH)):
            progress = (epoch + number * BATCH / len(x)) / options.epochs
            for loss in regime(module, x[rows], y[rows], progress):
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        yield module


def measured(module: nn.Module, x: Tensor, y: Tensor, options: argparse.Namespace) -> dict[str, float]:
    """Return the numbers of a row. x, y: of the test set."""
    with torch.no_grad():
        mean = float((module.eval()(x).argmax(dim=1) == y).double().mean())
    drawn, some = Drawn(module), slice(options.attacked)
    # Of what draws nothing one draw is all.
    draws = DRAWS if random_layers(module) else 1
    points = descend(drawn, x[some], y[some], options.epsilon, STEPS, draws)  # type: ignore[arg-type]
    clean, attacked = drawn.votes(x), drawn.votes(points)
    shares = [
        float(votes.gather(1, z[:, None]).double().mean()) / VOTERS for votes, z in ((clean, y), (attacked, y[some]))
    ]
    votes = [float((votes.argmax(dim=1) == z).double().mean()) for votes, z in ((clean, y), (attacked, y[some]))]
    return {"mean": mean, "draws": shares[0], "vote": votes[0], "attacked": shares[1], "vote of attacked": votes[1],
            "variances": sum_of_variances(module)}  # fmt: skip


def picture(rows: list[dict[str, float | str]], path: Path) -> None:
    """Draw the panels by epoch."""
    figure = Figure(figsize=(3.2 * len(PANELS), 2.8), layout="constrained")
    for panel, (column, title) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        for colour, name in enumerate(REGIMES):
            own = [row for row in rows if row["regime"] == name]
            if column != "variances" or REGIMES[name] is not None:
                panel.plot([row["epoch"] for row in own], [row[column] for row in own], f"C{colour}.-", label=name)
        panel.set(title=title, xlabel="epoch")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        if column == "variances":
            panel.set_yscale("log")
        else:
            panel.set_ylim(-0.02, 1.0 if max(float(row["vote"]) for row in rows) > 0.5 else 0.5)
    figure.axes[0].legend(fontsize="small")
    save(figure, path, dpi=100)


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=("mlp", "resnet18", "cnn-small"), default="resnet18")
    parser.add_argument("--hidden", type=int, nargs="+", default=[8])
    parser.add_argument("--data", choices=("mnist", "cifar10"), default="cifar10")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--train", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--inputs", type=int, default=500)
    parser.add_argument("--attacked", type=int, default=50)
    parser.add_argument("--epsilon", type=float, default=8 / 255)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    sets = []
    for split, count in (("train", options.train), ("test", options.inputs)):
        data = load_data(options.data, data_dir=options.data_dir, split=split)
        x = torch.tensor(data.inputs[:count])
        sets.append(
            (x if ARCHITECTURES[options.network].images else x.flatten(1), torch.tensor(data.labels[:count]).long())
        )
    rows = list[dict[str, float | str]]()
    print("  ".join(COLUMNS))
    for name in REGIMES:
        started = time.process_time()
        for epoch, module in enumerate(epochs(name, *sets[0], options), 1):
            rows.append({"regime": name, "epoch": epoch, **measured(module, *sets[1], options)})
            print("  ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in rows[-1].values()), flush=True)
        print(f"{name}: {time.process_time() - started:.0f} CPU s", flush=True)
    path = options.out / f"delta-rule-{options.network}"
    with path.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    picture(rows, path.with_suffix(".png"))


if __name__ == "__main__":
    main()
