"""k-winners-take-all under attacks that see less and less of its mask, over several seeds, and what is certified.

    python benchmarks/winners.py --folder RUNS [--data-dir MNIST] [--hidden 1000 1000] [--share 0.05] [--seeds 0 1 2]
        [--epsilon 0.1] [--step 0.1] [--limit 200] [--train 10000] [--epochs 4] [--certified]

After Xiao, Zhong, Zheng (2020), whose defence was judged by PGD on true gradients. Trains for each seed an mlp whose
share of units wins and one of relus for transfer, into the folder where they are not there, and prints which share of
the inputs is right and withstands: PGD from the centre and from random points (6 descents of 40 steps, of `--step`
radii each), BPDA with three stand-ins, square with 500 and 2000 queries, points of descents on the relus, and `auto`.
*Masked* is by how much PGD is above the strongest single attack of BPDA, square and transfer, with its paired 95 %
interval over the inputs; the last line is the mean over seeds and the standard deviation. `--certified`: also what
intervals and linear bounds certify at a hundredth of the radius, where every unit that competes for a place is open.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from encoders import BallRegion, Network, read_network
from encoders.ops import Op
from verifier import certify, train
from verifier.attacks import ATTACKS, Attack, Search
from verifier.attacks.descent import Descent
from verifier.attacks.settings import attack_with
from verifier.attacks.source import SourceMaker
from verifier.attacks.steps import Steepest
from verifier.attacks.transfer import Transfer
from verifier.attacks.wrappers import Replace
from verifier.budget import Budget
from verifier.data import load_data

CERTIFIED_SHARE = 0.01
PGD = "PGD, true gradients, 6 of 40 steps"
AUTO = "auto"


def stand_in(function: Callable[[Tensor], Tensor]) -> SourceMaker:
    """Return the source in which winners pass back what a function of all units does."""

    def of_op(op: Op, x: Tensor) -> Tensor:
        return function(x)

    return Replace({"k-winners": of_op})


def attacks(surrogate: Network, step: float) -> dict[str, Attack]:
    """Return the attacks by what the table calls them. step: of descents, in radii."""
    settings = {"pseudogradients": "no", "step": step}
    table: dict[str, Attack] = {
        "PGD, true gradients, 1 of 40 steps": attack_with("pgd", {**settings, "restarts": 1}),
        PGD: attack_with("pgd", {**settings, "restarts": 6}),
    }
    for name, function in (("identity", lambda x: x), ("relu", torch.relu)):
        table[f"BPDA, {name}"] = Descent(40, Steepest(step), restarts=2, sources=(stand_in(function),))
    table["BPDA, soft gate (attack bpda)"] = attack_with("bpda", {"step": step})
    for queries in (500, 2000):
        table[f"square, {queries} queries"] = attack_with("square", {"queries": queries})
    descent = attack_with("pgd", {"step": step})
    assert isinstance(descent, Descent)
    table["transfer of PGD on relus"] = Transfer(surrogate, replace(descent, restarts=1, until_broken=False))
    return {**table, AUTO: ATTACKS["auto"]}


def trained(options: argparse.Namespace, seed: int, share: float | None) -> Path:
    """Return the file of a network of winners, or of relus (share None), trained if it is not there."""
    name = f"share-{share}" if share else "relu"
    width = "-".join(map(str, options.hidden))
    path: Path = options.folder / f"{name}-{width}-{options.train}-{options.epochs}-seed-{seed}.safetensors"
    if not path.exists():
        chosen = {"winners": share} if share else {}
        train("mlp", "mnist", path, hidden=options.hidden, epochs=options.epochs, limit=options.train, seed=seed,
              data_dir=options.data_dir, device="cpu", **chosen)  # fmt: skip
    return path


def measure(options: argparse.Namespace, path: Path, surrogate: Network, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Return which inputs withstand each attack, `(batch,)`, those that are wrong among those that do not."""
    network = read_network(path)
    with torch.no_grad():
        right = network.scores(x).argmax(dim=1) == y
    print(f"{path.stem}\n  {'clean':<36}{float(right.double().mean()):8.1%}")
    rows = torch.nonzero(right).squeeze(1)
    region = BallRegion(x[rows].double(), torch.full((len(rows),), options.epsilon, dtype=torch.float64), options.clip)
    found = dict[str, Tensor]()
    for name, attack in attacks(surrogate, options.step).items():
        started = time.process_time()
        broken = attack.run(Search(network, region, y[rows], rows.tolist(), Budget())).unsafe
        found[name] = right.clone()
        found[name][rows[broken]] = False
        share = float(found[name].double().mean())
        print(f"  {name:<36}{share:8.1%}{time.process_time() - started:8.1f} s", flush=True)
    return found


def masked(found: dict[str, Tensor]) -> float:
    """Print and return by how much, in points, PGD is above the strongest single one of BPDA, square and transfer."""
    blind = {name: mask for name, mask in found.items() if name.startswith(("BPDA", "square", "transfer"))}
    strongest = min(blind, key=lambda name: int(blind[name].sum()))
    gap = 100.0 * (found[PGD].double() - blind[strongest].double())
    middle, half = float(gap.mean()), 1.96 * float(gap.std()) / math.sqrt(len(gap))
    print(f"  masked: {middle:.1f} +- {half:.1f} points above {strongest}", flush=True)
    return middle


def certify_small(options: argparse.Namespace, path: Path) -> None:
    """Print what intervals and linear bounds certify at a hundredth of the radius."""
    for method in ("interval", "alpha-crown"):
        started, small = time.process_time(), CERTIFIED_SHARE * options.epsilon
        result = certify(
            path, "mnist", [small], method=method, limit=options.limit, data_dir=options.data_dir, out=None
        )
        share = result.results[0].certified / options.limit
        words = f"certified at {small:g}, {method}"
        print(f"  {words:<36}{share:8.1%}{time.process_time() - started:8.1f} s", flush=True)


def main() -> None:
    """Train, attack and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/winners"))
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--hidden", type=int, nargs="+", default=[1000, 1000])
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epsilon", type=float, default=0.1)
    parser.add_argument("--step", type=float, default=0.1, help="of descents, in radii")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--train", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--certified", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    data = load_data("mnist", data_dir=options.data_dir)
    assert data.labels is not None
    x = torch.tensor(data.inputs[: options.limit]).flatten(1)
    y, options.clip = torch.tensor(data.labels[: options.limit]).long(), data.clip
    gaps = list[float]()
    for seed in options.seeds:
        path = trained(options, seed, options.share)
        surrogate = read_network(trained(options, seed + 1000, None))
        gaps.append(masked(measure(options, path, surrogate, x, y)))
        if options.certified:
            certify_small(options, path)
    spread = statistics.stdev(gaps) if len(gaps) > 1 else math.nan
    print(f"masked, mean of {len(gaps)} seeds: {statistics.mean(gaps):.1f} points, standard deviation {spread:.1f}")


if __name__ == "__main__":
    main()
